//! Draws the losses of a run from `metrics.jsonl`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use graft_material::plot::{self, LossSeries};

/// Curves: name, and JSON pointer into a line of metrics.
const CURVES: [(&str, &str); 29] = [
    ("mel", "/train/reconstruction"),
    ("mel of the voice", "/train/mel_l1"),
    ("mel, validation", "/validation/mel_l1"),
    ("STFT", "/train/stft"),
    ("STFT, validation", "/validation/stft"),
    ("magnitudes", "/train/magnitude_l1"),
    ("magnitudes, validation", "/validation/magnitude_l1"),
    ("KL of harmony", "/train/kl_harmony"),
    ("KL of rhythm", "/train/kl_rhythm"),
    ("adversarial", "/adversarial/generator"),
    ("feature matching", "/adversarial/feature_matching"),
    ("discriminator", "/adversarial/discriminator"),
    ("loss", "/train/loss"),
    ("loss, validation", "/validation/loss"),
    ("squared distance", "/train/squared_distance"),
    ("mean square", "/train/mean_square"),
    ("mean square, validation", "/validation/mean_square"),
    ("pitch accuracy, validation", "/validation/pitch_accuracy"),
    ("KL of timbre", "/train/kl_timbre"),
    ("KL of pitch", "/train/kl_pitch"),
    ("KL of variation", "/train/kl_variation"),
    ("features", "/train/features"),
    ("decay of content", "/train/decay"),
    ("content", "/train/content"),
    ("class", "/train/class"),
    ("mel, translated", "/validation/converted/mel_l1"),
    ("probe of content", "/validation/probe"),
    ("contrast", "/train/contrast"),
    ("cycle", "/train/cycle"),
];

/// Draws `losses.png` in the folder of a run; draws nothing before there are metrics.
///
/// # Errors
///
/// Returns an error if the metrics cannot be read or the picture cannot be written.
pub fn draw(run: &Path) -> Result<()> {
    let path = run.join("metrics.jsonl");
    let metrics =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let series = series(&metrics);
    if series.is_empty() {
        return Ok(());
    }
    plot::plot_losses(&run.join("losses.png"), &series)
}

fn series(metrics: &str) -> Vec<LossSeries> {
    let lines: Vec<serde_json::Value> = metrics
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let points = |pointer: &str| {
        let point = |line: &serde_json::Value| {
            Some((line["step"].as_f64()?, line.pointer(pointer)?.as_f64()?))
        };
        lines.iter().filter_map(point).collect()
    };
    CURVES
        .iter()
        .map(|&(name, pointer)| LossSeries {
            name: name.to_owned(),
            points: points(pointer),
        })
        .filter(|series| !series.points.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_become_curves() {
        let metrics = r#"
            {"step": 10, "train": {"reconstruction": 2.0, "kl_harmony": 0.1, "kl_rhythm": 0.2}}
            {"step": 20, "train": {"reconstruction": 1.0, "kl_harmony": 0.3, "kl_rhythm": 0.4}}
            {"step": 20, "adversarial": {"discriminator": 0.5}}
            {"step": 20, "validation": {"mel_l1": 1.5}}
            {"step": 30, "trai"#;
        let points: Vec<_> = series(metrics)
            .into_iter()
            .map(|curve| curve.points)
            .collect();
        assert_eq!(
            points,
            [
                vec![(10.0, 2.0), (20.0, 1.0)],
                vec![(20.0, 1.5)],
                vec![(10.0, 0.1), (20.0, 0.3)],
                vec![(10.0, 0.2), (20.0, 0.4)],
                vec![(20.0, 0.5)],
            ]
        );
    }
}
