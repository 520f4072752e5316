//! `cargo xtask evaluate-notes`: the table of a recipe on notes as its paper has it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use graft_material::whole_file;
use graft_train::checkpoint;
use graft_train::notes::NotesMaterial;
use graft_train::recipe::Recipe;
use graft_train::recipe::notes::NotesRecipe;

use crate::luo::{self, LuoRun};

/// Evaluate runs of a recipe on notes with the measures of its paper.
///
/// Prints Markdown tables: figures on rendered notes that were not trained on, and on recorded notes, beside published figures
/// and chance. Runs with the same name are averaged; figures are then means and standard deviations.
#[derive(Args)]
pub struct EvaluateNotes {
    /// Run folder of a recipe on notes; repeatable.
    #[arg(long, required = true, value_name = "DIR")]
    run: Vec<PathBuf>,
    /// Folders of recorded notes, each with a CSV file (file, instrument, midi_pitch).
    #[arg(long, num_args = 1.., value_name = "DIR")]
    data: Vec<PathBuf>,
    /// Folder for the tables (report.md) and pictures.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl EvaluateNotes {
    /// Prints the tables, and writes them if a folder is named.
    pub fn run(&self) -> Result<()> {
        let mut runs = Vec::new();
        for folder in &self.run {
            let (header, tensors) = checkpoint::load(folder)?;
            let Recipe::Notes(recipe) = header.recipe.clone() else {
                bail!(
                    "{} is a run on music: expected one of a recipe on notes",
                    folder.display()
                );
            };
            runs.push((folder, header, recipe, tensors));
        }
        let (first_folder, _, first, _) = runs.first().context("expected a run")?;
        for (folder, _, recipe, _) in &runs {
            ensure!(
                recipe.notes() == first.notes() && recipe.trained() == first.trained(),
                "runs of one table need the same network and notes: {} has {} and {:?}, {} has {} and {:?}",
                first_folder.display(),
                first.trained(),
                first.notes(),
                folder.display(),
                recipe.trained(),
                recipe.notes()
            );
        }
        if let Some(out) = &self.out {
            fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
        }
        let material = NotesMaterial::load(first.notes(), &self.data, first.sample_rate_hz())?;
        let report = match first {
            NotesRecipe::Luo(_) => {
                let runs = runs.iter().map(|(folder, header, recipe, tensors)| {
                    let NotesRecipe::Luo(recipe) = recipe;
                    let run = LuoRun::new(recipe, header.step, tensors);
                    run.with_context(|| format!("cannot use {}", folder.display()))
                });
                luo::report(runs.collect::<Result<_>>()?, &material, self.out.as_deref())?
            }
        };
        print!("{report}");
        match &self.out {
            Some(out) => whole_file::write(&out.join("report.md"), report.as_bytes()),
            None => Ok(()),
        }
    }
}

/// A table in Markdown, with figures of one or more runs in each cell.
#[derive(Default)]
pub struct FigureTable {
    columns: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

impl FigureTable {
    /// A table with these columns and no rows.
    pub fn new(columns: &[&str]) -> Self {
        Self {
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Each cell has the figures of some runs: none is left out, and of several, mean and standard deviation are
    /// shown.
    pub fn row(&mut self, name: impl Into<String>, cells: &[Vec<f64>], decimals: usize) {
        let cells = cells.iter().map(|figures| cell(figures, decimals));
        self.rows.push((name.into(), cells.collect()));
    }

    /// The table as text.
    pub fn markdown(&self) -> String {
        let line = |name: &str, cells: &[String]| format!("| {name} | {} |\n", cells.join(" | "));
        let rules = vec!["---:".to_owned(); self.columns.len()];
        let mut text = line("", &self.columns) + &line("---", &rules);
        for (name, cells) in &self.rows {
            text += &line(name, cells);
        }
        text
    }
}

fn cell(figures: &[f64], decimals: usize) -> String {
    let count = figures.len() as f64;
    let mean = figures.iter().sum::<f64>() / count;
    match figures {
        [] => "-".to_owned(),
        [only] => format!("{only:.decimals$}"),
        _ => {
            let squares = figures.iter().map(|figure| (figure - mean).powi(2));
            let deviation = (squares.sum::<f64>() / (count - 1.0)).sqrt();
            format!("{mean:.decimals$} ± {deviation:.decimals$}")
        }
    }
}

/// Values in groups by name, in the order of the first of each name.
pub fn grouped<T>(values: impl Iterator<Item = (String, T)>) -> Vec<(String, Vec<T>)> {
    let mut places = BTreeMap::new();
    let mut groups: Vec<(String, Vec<T>)> = Vec::new();
    for (name, value) in values {
        let place = *places.entry(name.clone()).or_insert_with(|| {
            groups.push((name, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(value);
    }
    groups
}

/// Name of a picture in the report's folder.
pub fn picture(out: &Path, name: &str) -> PathBuf {
    let safe = name
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { '-' });
    out.join(safe.collect::<String>() + ".png")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_show_one_figure_or_the_mean_and_deviation_of_several() {
        let mut table = FigureTable::new(&["a", "b", "c"]);
        table.row("x", &[vec![1.25], vec![1.0, 2.0, 6.0], vec![]], 1);
        assert_eq!(
            table.markdown(),
            "|  | a | b | c |\n| --- | ---: | ---: | ---: |\n| x | 1.2 | 3.0 ± 2.6 | - |\n"
        );
    }

    #[test]
    fn groups_keep_the_order_of_their_first_values() {
        let values = [("b", 1), ("a", 2), ("b", 3)].map(|(name, value)| (name.to_owned(), value));
        let groups = grouped(values.into_iter());
        assert_eq!(
            groups,
            [("b".to_owned(), vec![1, 3]), ("a".to_owned(), vec![2])]
        );
    }
}
