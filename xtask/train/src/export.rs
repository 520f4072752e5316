//! `cargo xtask export`: a model file from a training run.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use graft_material::report::Report;
use graft_material::whole_file;
use model_runtime::model_file::{Card, Figure};

use crate::assemble::{
    BaseModel, MAGNITUDES, VOICE, card, fold, network_bytes, network_card, part_card,
};
use crate::checkpoint;
use crate::lord::export::model_bytes;
use crate::recipe::Recipe;

/// Export a training run as a model file.
///
/// Writes the averaged weights of the newest checkpoint and a model card. For a run that trained a voice or a
/// magnitude network, name the model to add it to with --into.
#[derive(Args)]
pub struct Export {
    /// Run folder.
    run: PathBuf,
    /// Model file to write.
    #[arg(short, long, value_name = "MODEL.safetensors")]
    output: PathBuf,
    /// Model to add the trained part to, in place of the one that it has. Without it, a network becomes a model of its own.
    #[arg(long, alias = "network", value_name = "MODEL.safetensors")]
    into: Option<PathBuf>,
    /// Licence of the weights (usually that of the training music).
    #[arg(long)]
    licence: Option<String>,
    /// Description of the training data.
    #[arg(long)]
    data: Option<String>,
    /// Model version.
    #[arg(long, default_value = "1")]
    model_version: String,
    /// A measured figure for the card; repeatable.
    #[arg(long = "figure", value_name = "NAME=VALUE", value_parser = figure)]
    figures: Vec<Figure>,
    /// report.json of an evaluation of this model only; adds all its figures to the card.
    #[arg(long, value_name = "REPORT.json")]
    report: Option<PathBuf>,
}

fn figure(text: &str) -> Result<Figure, String> {
    let (name, value) = text.rsplit_once('=').ok_or("expected NAME=VALUE")?;
    let value = value
        .parse()
        .map_err(|_| format!("expected a number, found {value}"))?;
    Ok(Figure {
        name: name.to_owned(),
        value,
    })
}

impl Export {
    /// Writes the model file. On an error, writes nothing.
    pub fn run(&self) -> Result<()> {
        let (run, tensors) = checkpoint::load(&self.run)?;
        let reported = match &self.report {
            Some(path) => reported_figures(&Report::load(path)?, run.total_steps())
                .with_context(|| format!("cannot use {}", path.display()))?,
            None => Vec::new(),
        };
        let averages = tensors
            .iter()
            .filter_map(|(name, tensor)| {
                name.strip_prefix("average/")
                    .map(|name| (name.to_owned(), tensor.clone()))
            })
            .collect::<HashMap<_, _>>();
        let base = self.into.as_deref().map(BaseModel::load).transpose()?;
        let bytes = match (&run.recipe, base) {
            (Recipe::Network(recipe), None) => {
                network_bytes(recipe, &averages, self.card(card(&run), reported))?
            }
            (Recipe::Network(recipe), Some(mut base)) => {
                base.header.card = self.card(network_card(&base.header.card, &run), reported);
                base.with_network(recipe, &averages)?
            }
            (Recipe::Voice(recipe), Some(mut base)) => {
                base.header.card = self.card(part_card(&base.header.card, VOICE, &run), reported);
                base.with_generator(&recipe.generator, &fold(&averages)?)?
            }
            (Recipe::Magnitudes(recipe), Some(mut base)) => {
                let card = part_card(&base.header.card, MAGNITUDES, &run);
                base.header.card = self.card(card, reported);
                base.with_magnitudes(&recipe.magnitudes, &averages)?
            }
            (Recipe::Lord(recipe), None) => {
                model_bytes(recipe, run.step, &tensors, self.card(card(&run), reported))?
            }
            (Recipe::Lord(_), Some(_)) => bail!(
                "the run trained content and instruments, which is a model of its own: leave out --into"
            ),
            (Recipe::Notes(_), _) => bail!(
                "the run trained on notes, which gives no part of a model file: evaluate it with cargo xtask evaluate-notes"
            ),
            (Recipe::Voice(_) | Recipe::Magnitudes(_), None) => bail!(
                "the run trained only a part of a model: name the model to add it to with --into MODEL.safetensors"
            ),
        };
        whole_file::write(&self.output, &bytes)?;
        println!(
            "{}: {} steps, {:.1} MB",
            self.output.display(),
            run.total_steps(),
            bytes.len() as f64 / 1e6
        );
        Ok(())
    }

    /// Parses command-line arguments.
    #[cfg(test)]
    pub fn parse_from_arguments(arguments: Vec<std::ffi::OsString>) -> Self {
        use clap::FromArgMatches;
        let command = Self::augment_args(clap::Command::new("export"));
        let matches = command.get_matches_from(arguments);
        Self::from_arg_matches(&matches).expect("the arguments are valid")
    }

    /// Adds the values from the command line and a report to `card`.
    fn card(&self, card: Card, reported: Vec<Figure>) -> Card {
        let given = |text: &Option<String>, other: String| match (text, other.as_str()) {
            (Some(text), _) => text.clone(),
            (None, "") => "not stated".to_owned(),
            (None, _) => other,
        };
        let mut figures = card.figures;
        figures.extend(reported);
        figures.extend(self.figures.iter().cloned());
        Card {
            version: self.model_version.clone(),
            licence: given(&self.licence, card.licence),
            data: given(&self.data, card.data),
            figures,
            ..card
        }
    }
}

/// The figures of a report on one model, rounded to 0.001: all rows whose names begin with the model's name.
fn reported_figures(report: &Report, steps: u64) -> Result<Vec<Figure>> {
    let [model] = &report.models[..] else {
        bail!(
            "the report must cover one model, found {}",
            report.models.len()
        );
    };
    // The report is on an earlier file with the same weights, so the hashes differ.
    ensure!(
        model.steps == steps,
        "the report is of another model: expected {steps} training steps, found {}",
        model.steps
    );
    let mut figures = Vec::new();
    for table in &report.tables {
        for row in &table.rows {
            let Some(what) = row.name.strip_prefix(&model.name) else {
                continue;
            };
            for (column, cell) in table.columns.iter().zip(&row.cells) {
                if let Some(cell) = cell {
                    figures.push(Figure {
                        name: format!("{}, {column}", what.trim_start_matches([':', ',', ' '])),
                        value: (cell.value * 1000.0).round() / 1000.0,
                    });
                }
            }
        }
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::testing::small_report as small;

    #[test]
    fn a_report_on_this_model_gives_the_figures_of_its_rows() {
        let mut report = small(0.123_46);
        let mut other = report.tables[0].rows[0].clone();
        other.name = "A + B".into();
        report.tables[0].rows.push(other);
        let expected = Figure {
            name: "guided voice, first".into(),
            value: 0.123,
        };
        assert_eq!(reported_figures(&report, 7).unwrap(), [expected]);
        assert!(reported_figures(&report, 8).is_err());
        report.models.clear();
        assert!(reported_figures(&report, 7).is_err());
    }
}
