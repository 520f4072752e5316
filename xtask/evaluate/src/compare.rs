//! Comparison of two reports.

use std::path::Path;

use anyhow::{Result, ensure};
use graft_material::report::{Measured, Report, VERSION, show};

/// Reads an older report whose figures can be compared with new ones.
///
/// # Errors
///
/// Returns an error if the file cannot be read, or its figures were measured in another way.
pub fn load(path: &Path) -> Result<Report> {
    let report = Report::load(path)?;
    ensure!(
        report.version == VERSION,
        "cannot compare with {}: expected version {VERSION} of the measurements, found version {}; evaluate its models again",
        path.display(),
        report.version
    );
    Ok(report)
}

/// Lists the figures of both reports that are not the same, as a Markdown table. If each report is of one model, these models
/// are compared, whatever their names. A change exceeds the noise if it is larger than the root of the sum of squares of both
/// half-widths: 95 % intervals for means and distances, and one standard deviation between seeds for the probes.
pub fn compare(old: &Report, new: &Report) -> String {
    let (mut text, mut unchanged) = (String::new(), 0);
    let old_name = |name: &str| match (&old.models[..], &new.models[..]) {
        ([before], [now]) => renamed(name, &now.name, &before.name),
        _ => name.to_owned(),
    };
    for table in &new.tables {
        let title = old_name(&table.title);
        let Some(before) = old.tables.iter().find(|other| other.title == title) else {
            continue;
        };
        for row in &table.rows {
            for (column, cell) in table.columns.iter().zip(&row.cells) {
                let before = before.cell(&old_name(&row.name), column);
                let (Some(now), Some(before)) = (cell, before) else {
                    continue;
                };
                let shown = [show(&Some(before)), show(cell)];
                if shown[0] == shown[1] {
                    unchanged += 1;
                    continue;
                }
                let change = now.value - before.value;
                let verdict = match exceeds_noise(&before, now) {
                    true => "**yes**",
                    false => "no",
                };
                text.push_str(&format!(
                    "| {}: {}, {column} | {} | {} | {change:+.3} | {verdict} |\n",
                    table.title, row.name, shown[0], shown[1],
                ));
            }
        }
    }
    format!(
        "| figure | before | now | change | exceeds noise |\n| --- | --- | --- | --- | --- |\n{text}\nUnchanged: {unchanged} figures.\n"
    )
}

/// A name of a table or row with the name of another model in it.
fn renamed(name: &str, from: &str, to: &str) -> String {
    // "Transposition: MODEL", "MODEL, guided voice", "MODEL, untrained: rhythm latent".
    let (start, rest) = match name.split_once(from) {
        Some((start, rest)) if start.is_empty() || start.ends_with(": ") => (start, rest),
        _ => return name.to_owned(),
    };
    match rest.is_empty() || rest.starts_with([',', ':']) {
        true => format!("{start}{to}{rest}"),
        false => name.to_owned(),
    }
}

fn exceeds_noise(before: &Measured, now: &Measured) -> bool {
    // The side of each interval that faces the other figure.
    let (below, above) = match now.value > before.value {
        true => (before, now),
        false => (now, before),
    };
    let noise = (below.high - below.value).hypot(above.value - above.low);
    above.value - below.value > noise
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use graft_material::testing::{TestFolder, small_report as small};

    #[test]
    fn reports_of_another_version_are_refused() {
        let folder = TestFolder::new("compare");
        let path = folder.path().join("report.json");
        let mut report = small(0.5);
        let mut write_and_load = |version: u32| {
            report.version = version;
            fs::write(&path, serde_json::to_vec(&report).unwrap()).unwrap();
            load(&path)
        };
        assert!(write_and_load(VERSION).is_ok());
        let error = write_and_load(1).unwrap_err().to_string();
        assert!(
            error.contains("report.json") && error.contains("found version 1"),
            "{error}"
        );
    }

    #[test]
    fn a_change_is_told_from_noise() {
        let changed = compare(&small(0.5), &small(0.7));
        assert!(changed.contains("+0.200 | **yes** |"), "{changed}");
        let noise = compare(&small(0.7), &small(0.6));
        assert!(noise.contains("-0.100 | no |"), "{noise}");
        let mut other = small(0.5);
        other.tables[0].rows[0].name = "another".into();
        assert!(!compare(&other, &small(0.7)).contains("+0.200"));
        let same = compare(&small(0.5), &small(0.5));
        assert!(
            same.ends_with("| --- |\n\nUnchanged: 1 figures.\n"),
            "{same}"
        );
    }

    #[test]
    fn two_models_are_compared_whatever_their_names() {
        let mut old = small(0.5);
        old.models[0].name = "mine".into();
        old.tables[0].rows[0].name = "mine, guided voice".into();
        assert!(compare(&old, &small(0.7)).contains("graft, guided voice, first"));
        for (name, expected) in [
            ("graft", "mine"),
            ("Transposition: graft", "Transposition: mine"),
            (
                "graft, untrained: harmony latent",
                "mine, untrained: harmony latent",
            ),
            ("graft two, guided voice", "graft two, guided voice"),
            ("engine graft", "engine graft"),
        ] {
            assert_eq!(renamed(name, "graft", "mine"), expected);
        }
        // Which of several it was is not known.
        old.models.push(old.models[0].clone());
        assert!(!compare(&old, &small(0.7)).contains("+0.200"));
    }
}
