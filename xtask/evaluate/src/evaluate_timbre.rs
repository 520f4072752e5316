//! `cargo xtask evaluate-timbre`: conversions of timbre by a model, compared with the truth.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use graft_material::audio_writer::{self, WavFormat};
use graft_material::{arguments, workspace};
use graft_train::phrases::{self, Colour, Conversion, ConversionSettings, PhraseSettings};
use graft_train::recipe::Recipe;
use model_runtime::{Factor, LatencyMode, Model, Remixer};
use vocoder::MelSpectrogram;
use vocoder::{LogMel, MelConfig};

use crate::conversions::{self, clip, measure, methods, truths};
use crate::evaluate::load_models;
use crate::instruments::Instruments;
use crate::margins::SAMPLE_RATE_HZ;
use crate::method::Remixed;

/// Phrases that lead with each program, among those that the classifier of instruments is fitted to.
const CLASSIFIER_PHRASES: usize = 3;

/// Sounds of each set that are written.
const SOUNDS: usize = 4;

/// Measure conversions of timbre against the truth.
///
/// Renders the same random phrases by instrument A and by instrument B with the General MIDI sound font, converts those of A to
/// the timbre of a one-shot of B, and compares the results with the renderings by B: beside the phrase as it is, and beside
/// the engine Envelope. Prints Markdown tables for lines, for lines by instruments that the model was not trained
/// on, and for three voices at a time.
#[derive(Args)]
pub struct EvaluateTimbre {
    /// Model file with the factors timbre, pitch and variation [default: the built-in one]
    #[arg(long, value_name = "MODEL.safetensors")]
    model: Option<PathBuf>,
    /// Recipe that the model was trained with: it names the instruments.
    #[arg(
        long,
        value_name = "RECIPE",
        default_value = "xtask/recipes/timbre.toml"
    )]
    recipe: PathBuf,
    /// Number of phrases in each table.
    #[arg(long, default_value_t = 30)]
    phrases: usize,
    /// Latency mode of the conversions.
    #[arg(long, value_parser = arguments::latency(), default_value = "full")]
    latency: LatencyMode,
    /// Folder for the first sounds of each table.
    #[arg(long, value_name = "DIR")]
    sounds: Option<PathBuf>,
    /// Seed for the choice of phrases and instruments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl EvaluateTimbre {
    /// Prints the tables.
    pub fn run(&self) -> Result<()> {
        let (name, model) = match &self.model {
            None => ("built-in model".to_owned(), Model::built_in_timbre()?),
            Some(_) => load_models(self.model.as_slice())?.remove(0),
        };
        let mut factors = model.network().factors().iter();
        ensure!(
            factors.any(|layout| layout.factor == Factor::Timbre),
            "{name}: expected a model with the factor timbre, found {:?}",
            model.network().factors()
        );
        let settings = self.phrase_settings()?;
        let instruments = fit_instruments(&settings)?;
        let remixer = Remixer::new(Arc::clone(&model));
        let methods = methods(&name, &model, &remixer, self.latency)?;
        let (seen, unseen) = (&settings.programs, &settings.held_out_programs);
        for (title, targets, voices) in [
            ("Lines", seen, 1),
            ("Lines, to instruments that were held out", unseen, 1),
            ("Three voices", seen, 3),
        ] {
            let wanted = ConversionSettings {
                count: self.phrases,
                seconds: settings.seconds,
                voices,
                colour: Colour::OneShot,
                // Other phrases than those of the training and its validation.
                seed: self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            };
            let cache = workspace::cache("phrases");
            let conversions = phrases::conversions(seen, targets, wanted, &cache, SAMPLE_RATE_HZ)?;
            let mut scores = Vec::new();
            for method in &methods {
                let figures = measure(method, &conversions, &instruments)?;
                scores.push((method.name.clone(), figures));
            }
            scores.push(("truth: B".to_owned(), truths(&conversions, &instruments)?));
            let table = conversions::table(title, &name, &scores);
            println!(
                "\n## {}\n\n{} {} phrases; {} instruments to tell apart.\n\n{}",
                table.title,
                table.note,
                conversions.len(),
                instruments.programs(),
                table.markdown()
            );
            if let Some(folder) = &self.sounds {
                for (index, conversion) in conversions.iter().take(SOUNDS).enumerate() {
                    let folder = folder.join(title).join(format!(
                        "{index} {} as {}",
                        conversion.source.name, conversion.target.name
                    ));
                    write_sounds(&folder, conversion, &methods)?;
                }
            }
        }
        Ok(())
    }

    fn phrase_settings(&self) -> Result<PhraseSettings> {
        let settings = match Recipe::load(&self.recipe)? {
            Recipe::Network(recipe) => recipe.phrase_settings(),
            _ => None,
        };
        settings.with_context(|| {
            format!(
                "{}: expected a recipe with a table [phrases]",
                self.recipe.display()
            )
        })
    }
}

/// Fits the classifier to other phrases of all programs.
fn fit_instruments(settings: &PhraseSettings) -> Result<Instruments> {
    let programs = [settings.programs.as_slice(), &settings.held_out_programs].concat();
    let settings = PhraseSettings {
        phrases: CLASSIFIER_PHRASES * programs.len(),
        // Those that lead are as good as the others here.
        held_out_programs: vec![free_program(&programs)?],
        programs,
        seed: settings.seed.wrapping_add(0x5eed),
        ..settings.clone()
    };
    let phrases = phrases::render(&settings, &workspace::cache("phrases"), SAMPLE_RATE_HZ)?;
    let mut analysis = MelSpectrogram::new(&MelConfig::default())?;
    let renderings = phrases.iter().flat_map(|phrase| &phrase.renderings);
    let examples: Vec<(u8, LogMel)> = renderings
        .map(|(program, pcm)| (*program, analysis.log_mel(&pcm.floats())))
        .collect();
    Instruments::fit(&examples)
}

/// A program that is not among these.
fn free_program(programs: &[u8]) -> Result<u8> {
    match (0..128).find(|program| !programs.contains(program)) {
        Some(program) => Ok(program),
        None => bail!("expected a recipe that leaves out a program, found all 128"),
    }
}

/// Writes the sounds of a conversion.
fn write_sounds(
    folder: &Path,
    conversion: &Conversion,
    methods: &[crate::method::Method],
) -> Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    let (phrase, colour) = (clip(&conversion.phrase), clip(&conversion.colour));
    let mut sounds = vec![
        ("one-shot".to_owned(), colour.clone()),
        ("truth".to_owned(), clip(&conversion.truth)),
    ];
    for method in methods {
        if let Remixed::Sound(sound) = method.remix(&phrase, &colour)? {
            sounds.push((method.name.clone(), sound));
        }
    }
    for (name, sound) in sounds {
        audio_writer::write_wav(
            &folder.join(format!("{name}.wav")),
            &sound,
            WavFormat::Pcm16,
        )?;
    }
    Ok(())
}
