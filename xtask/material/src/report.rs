//! Results of an evaluation, as `report.json` and as Markdown.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::estimate::Estimate;

/// Version of the measurements. Figures of different versions cannot be compared.
///
/// 2: pairs are in beat phase and at the levels of their files; in version 1, they were of one tempo and equally loud.
pub const VERSION: u32 = 2;

/// Half-width of a 95 % interval of a normal distribution in standard deviations.
const NORMAL_95: f64 = 1.959_964;

/// The same for Student's t distribution, too small by less than 1 % from two degrees of freedom on (Abramowitz and Stegun,
/// "Handbook of Mathematical Functions", 26.7.5).
fn student_95(degrees_of_freedom: usize) -> f64 {
    let (z, n) = (NORMAL_95, degrees_of_freedom as f64);
    let polynomials = [
        (z.powi(3) + z) / 4.0,
        (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0,
        (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0,
        (79.0 * z.powi(9) + 776.0 * z.powi(7) + 1482.0 * z.powi(5)
            - 1920.0 * z.powi(3)
            - 945.0 * z)
            / 92_160.0,
    ];
    let terms = polynomials.iter().zip(1..);
    z + terms
        .map(|(polynomial, power)| polynomial / n.powi(power))
        .sum::<f64>()
}

/// A measured value with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The value.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Measured {
    /// Mean of values with the 95 % interval of that mean (Student's t).
    pub fn mean(values: impl ExactSizeIterator<Item = f32> + Clone) -> Self {
        let degrees_of_freedom = values.len().max(2) - 1;
        let Estimate {
            mean,
            standard_error,
        } = Estimate::of(values);
        let half_width = student_95(degrees_of_freedom) * f64::from(standard_error);
        Self::around(mean.into(), half_width)
    }

    /// Mean of values, one per seed; the interval is one standard deviation of a single value on either side.
    pub fn spread(values: &[f64]) -> Self {
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self::around(mean, (squares / (count - 1.0).max(1.0)).sqrt())
    }

    /// A value of at least 0 with its 95 % interval, from the standard deviation of bootstrap repetitions.
    pub fn bootstrapped(value: f64, repetitions: &[f64]) -> Self {
        let deviation = Self::spread(repetitions);
        let mut measured = Self::around(value, NORMAL_95 * (deviation.high - deviation.value));
        measured.low = measured.low.max(0.0);
        measured
    }

    fn around(value: f64, half_width: f64) -> Self {
        Self {
            value,
            low: value - half_width,
            high: value + half_width,
        }
    }
}

/// Figures by row and column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Heading.
    pub title: String,
    /// Method of measurement and meaning of the brackets.
    pub note: String,
    /// Names of the columns, with their units.
    pub columns: Vec<String>,
    /// The rows, from top to bottom.
    pub rows: Vec<Row>,
}

/// One row of a [`Table`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the row.
    pub name: String,
    /// One cell for each column.
    pub cells: Vec<Option<Measured>>,
}

/// A property that must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The property.
    pub name: String,
    /// Measured values.
    pub found: String,
    /// Whether the property holds.
    pub holds: bool,
}

/// A picture in the report's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// File name.
    pub file: String,
    /// Caption.
    pub caption: String,
}

/// A pair of clips with its remixes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The two sources.
    pub name: String,
    /// The sources and every remix.
    pub sounds: Vec<Sound>,
}

/// A sound with its spectrogram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sound {
    /// Name of the sound.
    pub name: String,
    /// The WAV file, from the report's folder.
    pub sound: String,
    /// The PNG file, from the report's folder.
    pub picture: String,
}

/// An evaluated model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgedModel {
    /// Its name in the tables.
    pub name: String,
    /// SHA-256 of its file.
    pub sha256: String,
    /// Training steps by its card.
    pub steps: u64,
}

/// A complete report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`] of the measurements. The first version did not store it.
    #[serde(default = "first_version")]
    pub version: u32,
    /// Summary of the protocol.
    pub protocol: String,
    /// Duration in seconds; for a resumed evaluation, since the resume.
    pub seconds: u64,
    /// The models.
    pub models: Vec<JudgedModel>,
    /// The tables.
    pub tables: Vec<Table>,
    /// Properties that must hold.
    pub checks: Vec<Check>,
    /// Pictures.
    pub pictures: Vec<Picture>,
    /// Pairs to listen to.
    pub examples: Vec<Example>,
}

fn first_version() -> u32 {
    1
}

impl Report {
    /// Reads a `report.json`.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read or parsed.
    pub fn load(path: &Path) -> Result<Self> {
        let describe = || format!("cannot read the report {}", path.display());
        let text = fs::read_to_string(path).with_context(describe)?;
        serde_json::from_str(&text).with_context(describe)
    }

    /// The whole report, with links to its pictures.
    pub fn markdown(&self) -> String {
        let mut text = String::from("# Evaluation\n\n");
        let _ = writeln!(text, "{}\n", self.protocol);
        for JudgedModel {
            name,
            sha256,
            steps,
        } in &self.models
        {
            let _ = writeln!(text, "- {name}: {steps} training steps, SHA-256 {sha256}");
        }
        let _ = writeln!(text, "\nIt took {} minutes.", self.seconds.div_ceil(60));
        for table in &self.tables {
            let _ = write!(
                text,
                "\n## {}\n\n{}\n\n{}",
                table.title,
                table.note,
                table.markdown()
            );
        }
        if !self.checks.is_empty() {
            let _ = write!(
                text,
                "\n## Checks\n\n| check | found | result |\n| --- | --- | --- |\n"
            );
            for Check { name, found, holds } in &self.checks {
                let _ = writeln!(
                    text,
                    "| {name} | {found} | {} |",
                    if *holds { "yes" } else { "**no**" }
                );
            }
        }
        if !self.pictures.is_empty() {
            text.push_str("\n## Pictures\n");
            for Picture { file, caption } in &self.pictures {
                let _ = write!(text, "\n![{caption}]({file})\n\n*{caption}*\n");
            }
        }
        text
    }
}

impl Table {
    /// The cell of a row and column.
    pub fn cell(&self, row: &str, column: &str) -> Option<Measured> {
        let column = self.columns.iter().position(|name| name == column)?;
        self.rows.iter().find(|other| other.name == row)?.cells[column]
    }

    /// The rows as a Markdown table.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "| | {} |\n|{}\n",
            self.columns.join(" | "),
            " --- |".repeat(self.columns.len() + 1)
        );
        for Row { name, cells } in &self.rows {
            let cells: Vec<String> = cells.iter().map(show).collect();
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        text
    }
}

/// A cell as text.
pub fn show(cell: &Option<Measured>) -> String {
    match cell {
        Some(Measured { value, low, high }) => format!("{value:.3} [{low:.3}, {high:.3}]"),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestFolder, small_report};

    #[test]
    fn markdown_has_tables_checks_and_pictures() {
        let text = small_report(0.5).markdown();
        assert!(
            text.contains("| graft, guided voice | 0.500 [0.400, 0.600] | - |"),
            "{text}"
        );
        assert!(
            text.contains("|  --- | --- | --- |") || text.contains("| --- | --- | --- |"),
            "{text}"
        );
        assert!(
            text.contains("It took 2 minutes.")
                && text.contains("**no**")
                && text.contains("](a.png)")
        );
        let table = &small_report(0.5).tables[0];
        assert_eq!(
            table.cell("graft, guided voice", "first").unwrap().value,
            0.5
        );
        assert_eq!(table.cell("graft, guided voice", "second"), None);
        assert_eq!(table.cell("other", "first"), None);
    }

    #[test]
    fn a_spread_is_that_of_one_value_and_an_interval_that_of_the_mean() {
        // numpy: x = [1, 2, 4, 9]; std(x, ddof=1), std(x, ddof=1) / 2 * 3.182446 (Student's t)
        let spread = Measured::spread(&[1.0, 2.0, 4.0, 9.0]);
        assert!((spread.high - 4.0 - 3.559_026).abs() < 1e-5 && spread.value == 4.0);
        let mean = Measured::mean([1.0f32, 2.0, 4.0, 9.0].into_iter());
        assert!((mean.high - 4.0 - 5.663_205).abs() < 0.01);
        let bootstrapped = Measured::bootstrapped(5.0, &[1.0, 2.0, 4.0, 9.0]);
        assert!((bootstrapped.high - 5.0 - 6.975_563).abs() < 1e-4 && bootstrapped.low == 0.0);
    }

    // From tables of Student's t.
    #[test]
    fn quantiles_are_those_of_students_t() {
        for (n, expected) in [
            (2, 4.302_653),
            (5, 2.570_582),
            (23, 2.068_658),
            (1000, 1.962_339),
        ] {
            let found = student_95(n);
            assert!(
                (found / expected - 1.0).abs() < 0.01,
                "{n}: {found} {expected}"
            );
            assert!(
                n < 5 || (found - expected).abs() < 1e-3,
                "{n}: {found} {expected}"
            );
        }
    }

    #[test]
    fn reports_are_read_as_they_were_written() {
        let folder = TestFolder::new("report");
        let path = folder.path().join("report.json");
        fs::write(&path, serde_json::to_vec(&small_report(0.5)).unwrap()).unwrap();
        assert_eq!(Report::load(&path).unwrap(), small_report(0.5));
        // As the first version wrote it.
        let mut old = serde_json::to_value(small_report(0.5)).unwrap();
        old.as_object_mut().unwrap().remove("version");
        fs::write(&path, old.to_string()).unwrap();
        assert_eq!(Report::load(&path).unwrap().version, 1);
        assert!(
            format!("{:#}", Report::load(folder.path()).unwrap_err())
                .contains("cannot read the report")
        );
    }
}
