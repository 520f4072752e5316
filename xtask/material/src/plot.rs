//! Pictures: log-mel spectrograms, and the losses of a training run.

use std::path::Path;
use std::sync::Once;

use anyhow::{Result, ensure};
use model_runtime::AudioClip;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use vocoder::{LogMel, MelConfig, MelSpectrogram};

use crate::{audio_file, png, whole_file};

/// Name under which the font of the project is registered.
const FONT: &str = "sans-serif";

/// What is drawn is this far below the loudest point, in natural-log units: 70 dB.
const MEL_RANGE: f32 = 8.06;

const WIDTH_PX: u32 = 1200;
const PANEL_HEIGHT_PX: u32 = 300;
const LOSS_HEIGHT_PX: u32 = 600;
const MATRIX_PX: u32 = 800;
const SCATTER_PX: u32 = 700;
const LEGEND_PX: u32 = 260;
const LEGEND_LINE_PX: i32 = 24;

/// One spectrogram of a picture.
pub struct MelPanel<'a> {
    /// Heading.
    pub title: &'a str,
    /// What is drawn.
    pub log_mel: &'a LogMel,
}

/// One sequence of columns of a picture.
pub struct HeatPanel<'a> {
    /// Heading.
    pub title: &'a str,
    /// What a row is.
    pub y_name: &'a str,
    /// Values in a column, the lowest first.
    pub rows: usize,
    /// Column after column.
    pub values: &'a [f32],
    /// Values that are drawn darkest and brightest.
    pub range: (f32, f32),
}

impl HeatPanel<'_> {
    fn frames(&self) -> usize {
        self.values.len() / self.rows.max(1)
    }
}

/// One curve with error bars.
pub struct IntervalCurve<'a> {
    /// Name for the legend.
    pub name: &'a str,
    /// `(x, mean, low, high)`.
    pub points: Vec<(f64, f64, f64, f64)>,
}

/// One cloud of points, in groups.
pub struct ScatterPanel<'a> {
    /// Heading.
    pub title: &'a str,
    /// What the axes are.
    pub axes: [&'a str; 2],
    /// Points of each group, in the order of the names of the groups.
    pub groups: Vec<Vec<[f64; 2]>>,
}

/// One curve of a picture of losses.
pub struct LossSeries {
    /// Name for the legend.
    pub name: String,
    /// `(step, loss)`; losses that are not above 0 are left out, as the axis is logarithmic.
    pub points: Vec<(f64, f64)>,
}

/// Draws spectrograms below each other on one time axis in seconds, with one scale of colours, as a PNG.
///
/// # Errors
///
/// When there is nothing to draw, or the file cannot be written.
pub fn plot_log_mels(path: &Path, panels: &[MelPanel], config: &MelConfig) -> Result<()> {
    let loudest = panels
        .iter()
        .flat_map(|panel| panel.log_mel.values())
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    let panels: Vec<HeatPanel> = panels
        .iter()
        .map(|panel| HeatPanel {
            title: panel.title,
            y_name: "mel band",
            rows: panel.log_mel.n_mels(),
            values: panel.log_mel.values(),
            range: (loudest - MEL_RANGE, loudest),
        })
        .collect();
    let frames_per_second = f64::from(config.sample_rate_hz) / config.hop_length as f64;
    plot_heat(path, &panels, frames_per_second)
}

/// Draws sequences of columns below each other on one time axis in seconds, as a PNG.
///
/// # Errors
///
/// When there is nothing to draw, or the file cannot be written.
pub fn plot_heat(path: &Path, panels: &[HeatPanel], frames_per_second: f64) -> Result<()> {
    plot_grid(path, panels, 1, "seconds", frames_per_second)
}

/// The same in several columns, row after row.
///
/// # Errors
///
/// When there is nothing to draw, or the file cannot be written.
pub fn plot_heat_grid(
    path: &Path,
    panels: &[HeatPanel],
    columns: usize,
    frames_per_second: f64,
) -> Result<()> {
    plot_grid(path, panels, columns, "seconds", frames_per_second)
}

/// Draws sequences of columns below each other on one axis, named `x_name`, as a PNG.
///
/// # Errors
///
/// When there is nothing to draw, or the file cannot be written.
pub fn plot_columns(
    path: &Path,
    panels: &[HeatPanel],
    x_name: &str,
    columns_per_unit: f64,
) -> Result<()> {
    plot_grid(path, panels, 1, x_name, columns_per_unit)
}

fn plot_grid(
    path: &Path,
    panels: &[HeatPanel],
    columns: usize,
    x_name: &str,
    columns_per_unit: f64,
) -> Result<()> {
    let frames = panels.iter().map(HeatPanel::frames).max().unwrap_or(0);
    ensure!(
        frames > 0,
        "expected at least one frame to draw in {}, found none",
        path.display()
    );
    let rows = panels.len().div_ceil(columns);
    let size = (WIDTH_PX, PANEL_HEIGHT_PX * rows as u32);
    save(path, size, |root| {
        for (area, panel) in root.split_evenly((rows, columns)).iter().zip(panels) {
            draw_panel(
                area,
                panel,
                frames,
                [x_name, panel.y_name],
                columns_per_unit,
            )?;
        }
        Ok(())
    })
}

/// Draws a square matrix, from 0 (dark) to 1, whose rows and columns have the same names, as a PNG.
///
/// # Errors
///
/// When the file cannot be written.
pub fn plot_matrix(
    path: &Path,
    title: &str,
    axes: [&str; 2],
    names: &[&str],
    values: &[f32],
) -> Result<()> {
    let name = |segment: &SegmentValue<usize>| match segment {
        SegmentValue::CenterOf(index) => names.get(*index).copied().unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    save(path, (MATRIX_PX, MATRIX_PX), |root| {
        let side = names.len();
        let mut chart = ChartBuilder::on(root)
            .caption(title, (FONT, 20))
            .margin(12)
            .x_label_area_size(50)
            .y_label_area_size(60)
            .build_cartesian_2d(
                (0..side - 1).into_segmented(),
                (0..side - 1).into_segmented(),
            )?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_labels(side)
            .y_labels(side)
            .x_label_formatter(&name)
            .y_label_formatter(&name)
            .x_desc(axes[0])
            .y_desc(axes[1])
            .label_style((FONT, 15))
            .draw()?;
        let image = chart.plotting_area().strip_coord_spec();
        let (width_px, height_px) = image.dim_in_pixel();
        for x in 0..width_px {
            let column = x as usize * side / width_px as usize;
            for y in 0..height_px {
                let row = (height_px - 1 - y) as usize * side / height_px as usize;
                let color = ViridisRGB::get_color_normalized(values[row * side + column], 0.0, 1.0);
                image.draw_pixel((x as i32, y as i32), &color)?;
            }
        }
        Ok(())
    })
}

/// Draws curves with error bars on a linear axis that includes 0, as a PNG.
///
/// # Errors
///
/// When there is nothing to draw, or the file cannot be written.
pub fn plot_intervals(
    path: &Path,
    title: &str,
    axes: [&str; 2],
    curves: &[IntervalCurve],
) -> Result<()> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    ensure!(
        points().next().is_some(),
        "expected at least one point to draw in {}, found none",
        path.display()
    );
    let first = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let last = points()
        .map(|point| point.0)
        .fold(f64::NEG_INFINITY, f64::max);
    let lowest = points().map(|point| point.2).fold(0.0, f64::min);
    let highest = points().map(|point| point.3).fold(0.0, f64::max);
    save(path, (WIDTH_PX, LOSS_HEIGHT_PX), |root| {
        let mut chart = ChartBuilder::on(root)
            .caption(title, (FONT, 20))
            .margin(12)
            .margin_right(24)
            .x_label_area_size(50)
            .y_label_area_size(60)
            .build_cartesian_2d(first - 0.5..last + 0.5, 1.1 * lowest..1.1 * highest)?;
        chart
            .configure_mesh()
            .x_labels(16)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .x_desc(axes[0])
            .y_desc(axes[1])
            .light_line_style(TRANSPARENT)
            .label_style((FONT, 15))
            .draw()?;
        for (index, curve) in curves.iter().enumerate() {
            let style = Palette99::pick(index).stroke_width(2);
            let line = curve.points.iter().map(|&(x, mean, ..)| (x, mean));
            chart
                .draw_series(LineSeries::new(line, style))?
                .label(curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
            let bars = curve
                .points
                .iter()
                .map(|&(x, _, low, high)| PathElement::new([(x, low), (x, high)], style));
            chart.draw_series(bars)?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .label_font((FONT, 15))
            .draw()?;
        Ok(())
    })
}

/// Draws clouds of points beside each other as a PNG. A group has the same colour in all of them; `names` are those of the groups.
///
/// # Errors
///
/// When there is nothing to draw, or the file cannot be written.
pub fn plot_scatters(path: &Path, panels: &[ScatterPanel], names: &[&str]) -> Result<()> {
    let mut points = panels
        .iter()
        .flat_map(|panel| panel.groups.iter().flatten());
    ensure!(
        points.next().is_some(),
        "expected at least one point to draw in {}, found none",
        path.display()
    );
    let clouds_px = SCATTER_PX * panels.len() as u32;
    save(path, (clouds_px + LEGEND_PX, SCATTER_PX), |root| {
        let (clouds, legend) = root.split_horizontally(clouds_px);
        for (area, panel) in clouds.split_evenly((1, panels.len())).iter().zip(panels) {
            draw_scatter(area, panel)?;
        }
        for (index, name) in names.iter().enumerate() {
            let y = LEGEND_LINE_PX * (index as i32 + 2);
            legend.draw(&Circle::new((14, y), 5, Palette99::pick(index).filled()))?;
            legend.draw(&Text::new((*name).to_owned(), (28, y - 8), (FONT, 16)))?;
        }
        Ok(())
    })
}

fn draw_scatter(area: &Area, panel: &ScatterPanel) -> Result<()> {
    let range = |axis: usize| {
        let values = panel.groups.iter().flatten().map(|point| point[axis]);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let margin = 0.05 * (high - low).max(1e-6);
        low - margin..high + margin
    };
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT, 20))
        .margin(12)
        .x_label_area_size(50)
        .y_label_area_size(60)
        .build_cartesian_2d(range(0), range(1))?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc(panel.axes[0])
        .y_desc(panel.axes[1])
        .label_style((FONT, 15))
        .draw()?;
    for (index, group) in panel.groups.iter().enumerate() {
        let style = Palette99::pick(index).filled();
        let points = group.iter().map(|&[x, y]| Circle::new((x, y), 3, style));
        chart.draw_series(points)?;
    }
    Ok(())
}

/// Draws the spectrograms of the two inputs of a remix and of the remix.
///
/// # Errors
///
/// When a clip is too short for one frame, or the file cannot be written.
pub fn plot_remix(path: &Path, [main, sidechain, remix]: [&AudioClip; 3]) -> Result<()> {
    let config = MelConfig::default();
    let mut spectrogram = MelSpectrogram::new(&config)?;
    let mut log_mel = |clip: &AudioClip| -> Result<LogMel> {
        let mono = audio_file::mono(clip);
        let samples = audio_file::resample(&mono, clip.sample_rate_hz, config.sample_rate_hz)?;
        Ok(spectrogram.log_mel(&samples))
    };
    let log_mels = [log_mel(main)?, log_mel(sidechain)?, log_mel(remix)?];
    let panels = ["Main", "Sidechain", "Remix"].into_iter().zip(&log_mels);
    let panels: Vec<_> = panels
        .map(|(title, log_mel)| MelPanel { title, log_mel })
        .collect();
    plot_log_mels(path, &panels, &config)
}

/// Draws losses against training steps on a logarithmic axis, as a PNG.
///
/// # Errors
///
/// When there is no loss that can be drawn, or the file cannot be written.
pub fn plot_losses(path: &Path, series: &[LossSeries]) -> Result<()> {
    let curves: Vec<(&str, Vec<(f64, f64)>)> = series
        .iter()
        .map(|series| {
            let drawable = |&(_, loss): &(f64, f64)| loss.is_finite() && loss > 0.0;
            let points = series.points.iter().copied().filter(drawable);
            (series.name.as_str(), points.collect())
        })
        .collect();
    let points = || curves.iter().flat_map(|(_, points)| points);
    ensure!(
        points().next().is_some(),
        "expected at least one loss above 0 to draw in {}, found none",
        path.display()
    );
    let last_step = points().map(|&(step, _)| step).fold(1.0, f64::max);
    let lowest = points()
        .map(|&(_, loss)| loss)
        .fold(f64::INFINITY, f64::min);
    let highest = points().map(|&(_, loss)| loss).fold(0.0, f64::max);

    save(path, (WIDTH_PX, LOSS_HEIGHT_PX), |root| {
        let mut chart = ChartBuilder::on(root)
            .caption("Training losses", (FONT, 22))
            .margin(12)
            .margin_right(24)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..last_step, (0.9 * lowest..1.1 * highest).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("step")
            .x_label_formatter(&|step| format!("{step:.0}"))
            .y_desc("loss")
            .light_line_style(TRANSPARENT)
            .y_label_formatter(&|loss| format!("{loss:.3}"))
            .label_style((FONT, 15))
            .draw()?;
        for (index, (name, points)) in curves.iter().enumerate() {
            let style = Palette99::pick(index).stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .label_font((FONT, 15))
            .draw()?;
        Ok(())
    })
}

fn draw_panel(
    area: &Area,
    panel: &HeatPanel,
    columns: usize,
    axes: [&str; 2],
    columns_per_unit: f64,
) -> Result<()> {
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT, 20))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..columns as f64 / columns_per_unit, 0..panel.rows)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_labels(20 * area.dim_in_pixel().0 as usize / WIDTH_PX as usize)
        .x_desc(axes[0])
        .y_desc(axes[1])
        .label_style((FONT, 15))
        .draw()?;

    let image = chart.plotting_area().strip_coord_spec();
    let (width_px, height_px) = image.dim_in_pixel();
    let (darkest, brightest) = panel.range;
    for x in 0..width_px {
        let frame = x as usize * columns / width_px as usize;
        if frame >= panel.frames() {
            break;
        }
        let column = &panel.values[frame * panel.rows..][..panel.rows];
        for y in 0..height_px {
            let row = (height_px - 1 - y) as usize * panel.rows / height_px as usize;
            let color = ViridisRGB::get_color_normalized(column[row], darkest, brightest);
            image.draw_pixel((x as i32, y as i32), &color)?;
        }
    }
    Ok(())
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Draws on white and writes the file, whole or not at all.
fn save(path: &Path, size_px: (u32, u32), draw: impl FnOnce(&Area) -> Result<()>) -> Result<()> {
    static REGISTER_FONT: Once = Once::new();
    REGISTER_FONT.call_once(|| {
        let font = include_bytes!("../../../assets/fonts/DejaVuSans-subset.ttf");
        let registered = register_font(FONT, FontStyle::Normal, font);
        assert!(registered.is_ok(), "the embedded font is valid");
    });

    let (width_px, height_px) = size_px;
    let mut rgb = vec![0; 3 * width_px as usize * height_px as usize];
    {
        let root = BitMapBackend::with_buffer(&mut rgb, size_px).into_drawing_area();
        root.fill(&WHITE)?;
        draw(&root)?;
        root.present()?;
    }
    whole_file::write(path, &png::encode(width_px, height_px, &rgb))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::TestFolder;

    /// Two frames of silence, two of noise in the lower half of the bands.
    fn half_loud() -> LogMel {
        let mut mel = LogMel::new(4);
        for frame in [
            [-11.5; 4],
            [-11.5; 4],
            [0.0, 0.0, -11.5, -11.5],
            [0.0, 0.0, -11.5, -11.5],
        ] {
            mel.push_frame(&frame);
        }
        mel
    }

    #[test]
    fn pictures_are_written_whole_or_not_at_all() {
        let folder = TestFolder::new("plot");
        let png = folder.path().join("mel.png");
        let mel = half_loud();
        let panel = MelPanel {
            title: "Main",
            log_mel: &mel,
        };
        plot_log_mels(&png, &[panel], &MelConfig::default()).unwrap();
        let bytes = fs::read(&png).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"));
        assert!(bytes.ends_with(b"IEND\xaeB`\x82"));

        let series = LossSeries {
            name: "all".into(),
            points: vec![(0.0, 2.0), (10.0, 1.0)],
        };
        plot_losses(&folder.path().join("loss.png"), &[series]).unwrap();
        let matrix = folder.path().join("matrix.png");
        plot_matrix(
            &matrix,
            "Title",
            ["x", "y"],
            &["a", "b"],
            &[1.0, 0.0, 0.5, 0.5],
        )
        .unwrap();
        let curve = IntervalCurve {
            name: "all",
            points: vec![(-1.0, 0.5, 0.4, 0.6), (1.0, 0.7, 0.6, 0.9)],
        };
        plot_intervals(
            &folder.path().join("curve.png"),
            "Title",
            ["x", "y"],
            &[curve],
        )
        .unwrap();
        let cloud = ScatterPanel {
            title: "Title",
            axes: ["x", "y"],
            groups: vec![vec![[0.0, 1.0], [2.0, -1.0]], vec![[1.0, 1.0]]],
        };
        let path = folder.path().join("clouds.png");
        plot_scatters(&path, &[cloud], &["a", "b"]).unwrap();
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            5,
            "temporary files left over"
        );
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        let path = Path::new("never-written.png");
        assert!(plot_log_mels(path, &[], &MelConfig::default()).is_err());
        assert!(plot_intervals(path, "", [""; 2], &[]).is_err());
        assert!(plot_scatters(path, &[], &["a"]).is_err());
        let series = LossSeries {
            name: "all".into(),
            points: vec![(0.0, f64::NAN), (1.0, 0.0)],
        };
        assert!(plot_losses(path, &[series]).is_err());
        assert!(!path.exists());
    }
}
