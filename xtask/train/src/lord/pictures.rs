//! The paper's Figure 1: clips of several instruments, each translated to all of them.

use std::path::Path;

use anyhow::Result;
use candle_core::Tensor;
use graft_material::plot::{self, HeatPanel};
use vocoder::MelConfig;

/// What is drawn is this far below the loudest point, in nepers: 60 dB.
const RANGE: f32 = 6.9;

/// A clip and its translations.
pub struct Row<'a> {
    /// The instrument that plays it.
    pub source: &'a str,
    /// Its log-mel in nepers (`n_mels`, frames).
    pub log_mel: Tensor,
    /// Instruments with the translations to them (`n_mels`, frames).
    pub translations: Vec<(&'a str, Tensor)>,
}

/// Draws one row for each clip: the clip itself, and its translations.
///
/// # Errors
///
/// Returns an error if the file cannot be written.
pub fn draw(path: &Path, rows: &[Row], mel: &MelConfig) -> Result<()> {
    let columns = rows.first().map_or(1, |row| 1 + row.translations.len());
    let mut panels = Vec::new();
    for row in rows {
        panels.push((row.source.to_owned(), by_frame(&row.log_mel)?));
        for (target, log_mel) in &row.translations {
            panels.push((format!("to {target}"), by_frame(log_mel)?));
        }
    }
    let values = panels.iter().flat_map(|(_, values)| values).copied();
    let loudest = values.fold(f32::MIN, f32::max);
    let panels: Vec<HeatPanel> = panels
        .iter()
        .map(|(title, values)| HeatPanel {
            title,
            y_name: "mel band",
            rows: mel.n_mels,
            values,
            range: (loudest - RANGE, loudest),
        })
        .collect();
    plot::plot_heat_grid(path, &panels, columns, 1.0 / mel.hop_seconds())
}

fn by_frame(log_mel: &Tensor) -> Result<Vec<f32>> {
    Ok(log_mel.t()?.contiguous()?.flatten_all()?.to_vec1()?)
}
