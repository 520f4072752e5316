//! `cargo xtask evaluate-instruments`: what the codes of a model of instruments tell, and its translations compared with the truth.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use clap::Args;
use graft_material::plot::{self, HeatPanel, ScatterPanel};
use graft_material::report::{Measured, Row, Table};
use graft_material::{whole_file, workspace};
use graft_train::lord::material::ClipSettings;
use graft_train::lord::probe::{self, Labelled};
use graft_train::notes::programs::{PROGRAMS, Program};
use graft_train::pca::Principal;
use graft_train::recipe::Recipe;
use model_runtime::Model;
use model_runtime::lord::LordModel;
use model_runtime::translation::InstrumentCode;
use vocoder::{LogMel, MelConfig};

use crate::conversions::clip;
use crate::instruments::Instruments;
use crate::translations::{
    Figures, Made, Melodies, MelodySettings, Pair, Rendering, Translate, decoded, draw_pairs,
    encoded_code, first_clips, measure, optimised_code, table, voiced,
};

/// Melodies that the probes and the classifier of instruments are fitted to, and melodies that the probes are scored on; a clip
/// each.
const PROBE_MELODIES: usize = 48;
const TEST_MELODIES: usize = 128;

/// Rows and columns of the picture of translations.
const SHOWN: usize = 4;

/// What is drawn is this far below the loudest point, in nepers: 60 dB.
const RANGE: f32 = 6.9;

/// Clips at a time.
const BATCH: usize = 32;

/// Evaluate a model of instruments.
///
/// Renders random melodies by the instruments of the model, and by others that it was not trained on, with the General MIDI sound
/// font; none of these melodies was trained on. Measures what the content codes tell of the instrument, and compares translations
/// with the true renderings. Prints Markdown tables. With --out, writes them (report.md) and two pictures.
#[derive(Args)]
pub struct EvaluateInstruments {
    /// Model of instruments.
    #[arg(long, value_name = "MODEL.safetensors")]
    model: PathBuf,
    /// Recipe that the model was trained with: it names the register and the programs that were held out.
    #[arg(
        long,
        value_name = "RECIPE",
        default_value = "xtask/recipes/lord-small.toml"
    )]
    recipe: PathBuf,
    /// Number of translations in each table.
    #[arg(long, default_value_t = 60)]
    pairs: usize,
    /// Length of the melodies that are translated, in seconds.
    #[arg(long, default_value_t = 9.0)]
    seconds: f64,
    /// Folder for the tables and pictures.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seed of the melodies and pairs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl EvaluateInstruments {
    /// Prints the tables, and writes them and the pictures if a folder is named.
    pub fn run(&self) -> Result<()> {
        let model = LordModel::load(&self.model)?;
        ensure!(
            model.header().mel == MelConfig::default(),
            "{}: expected a model of the log-mel {:?}, found {:?}",
            self.model.display(),
            MelConfig::default(),
            model.header().mel
        );
        let clip_seconds = model.frames() as f64 * model.header().mel.hop_seconds();
        ensure!(
            self.seconds >= clip_seconds,
            "--seconds: expected a clip of the model at least, {clip_seconds:.2} s, found {}",
            self.seconds
        );
        let settings = self.clip_settings()?;
        let programs = Programs::new(&model, &settings)
            .with_context(|| format!("cannot use {}", self.model.display()))?;
        if let Some(out) = &self.out {
            fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
        }
        let cache = workspace::cache("phrases");
        let render = |count, seconds, salt: u64| {
            let melodies = MelodySettings {
                count,
                seconds,
                keys: settings.keys,
                chord_share: settings.chord_share,
                // Other melodies than those of the training and its validation.
                seed: self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt,
            };
            Melodies::render(melodies, &programs.all, &model, &cache)
        };
        let (fitted, tested) = (
            render(PROBE_MELODIES, clip_seconds, 1)?,
            render(TEST_MELODIES, clip_seconds, 2)?,
        );
        let melodies = render(self.melodies(), self.seconds, 3)?;
        let of = |(program, rendering): (usize, &Rendering)| {
            (programs.all[program].number, rendering.log_mel.clone())
        };
        let instruments = Instruments::fit(&fitted.all().map(of).collect::<Vec<_>>())?;

        let mut report = format!(
            "# Instruments: {}\n\n{} instruments, and {} that were held out; {} steps.\n",
            model.header().card.name,
            programs.seen,
            programs.all.len() - programs.seen,
            model.header().card.steps,
        );
        let probes = Codes::new(&model, &programs, &fitted)?;
        let test = Codes::new(&model, &programs, &tested)?;
        add(
            &mut report,
            &probe_table(&model, &programs, &probes, &test)?,
        );
        let task = Translations {
            model: &model,
            programs: &programs,
            melodies: &melodies,
            instruments: &instruments,
            built_in: &*Model::built_in()?,
        };
        let note = format!(
            "{} melodies of {} s, of A, that B should play, for each row; A is one of the instruments trained on. Means with 95 % intervals. The \
             classifier tells {} instruments apart, and was not trained with the model.",
            self.pairs,
            self.seconds,
            instruments.programs()
        );
        for table in task.tables(self.pairs, self.seed, &note)? {
            add(&mut report, &table);
        }
        print!("{report}");
        if let Some(out) = &self.out {
            draw_codes(&out.join("codes.png"), &programs, &test)?;
            task.draw(&out.join("translations.png"))?;
            report += "\n![Codes](codes.png)\n\n![Translations](translations.png)\n";
            whole_file::write(&out.join("report.md"), report.as_bytes())?;
        }
        Ok(())
    }

    fn clip_settings(&self) -> Result<ClipSettings> {
        match Recipe::load(&self.recipe)? {
            Recipe::Lord(recipe) => Ok(recipe.clips),
            _ => bail!(
                "{}: expected a recipe with a table [clips]",
                self.recipe.display()
            ),
        }
    }

    /// Melodies that are translated, and one that is not: a pair in eight has the same one.
    fn melodies(&self) -> usize {
        (self.pairs / 8).max(SHOWN) + 1
    }
}

fn add(report: &mut String, table: &Table) {
    *report += &format!(
        "\n## {}\n\n{}\n\n{}",
        table.title,
        table.note,
        table.markdown()
    );
}

/// The programs of the model, in the order of its codes, then those that were held out.
struct Programs {
    all: Vec<&'static Program>,
    seen: usize,
}

impl Programs {
    fn new(model: &LordModel, settings: &ClipSettings) -> Result<Self> {
        let seen = model.instruments().iter().map(|name| {
            let program = PROGRAMS.iter().find(|program| program.name == name);
            program
                .with_context(|| format!("expected instruments of General MIDI, found \"{name}\""))
        });
        let mut all = seen.collect::<Result<Vec<_>>>()?;
        let seen = all.len();
        let unseen = PROGRAMS.iter().filter(|program| {
            settings.held_out_programs.contains(&program.number)
                && !model.instruments().iter().any(|name| name == program.name)
        });
        all.extend(unseen);
        ensure!(
            seen >= 2 && all.len() > seen,
            "expected two instruments at least and one that is held out by the recipe, found {:?} and {:?}",
            model.instruments(),
            settings.held_out_programs
        );
        Ok(Self { all, seen })
    }
}

/// Codes of clips of the programs trained on.
struct Codes {
    content: Labelled,
    class: Labelled,
    log_mel: Labelled,
}

impl Codes {
    fn new(model: &LordModel, programs: &Programs, melodies: &Melodies) -> Result<Self> {
        let mut codes = Self {
            content: Labelled::default(),
            class: Labelled::default(),
            log_mel: Labelled::default(),
        };
        let seen: Vec<(usize, &Rendering)> = melodies
            .all()
            .filter(|(program, _)| *program < programs.seen)
            .collect();
        for batch in seen.chunks(BATCH) {
            let clips = first_clips(model, batch.iter().map(|(_, clip)| &clip.log_mel))?;
            for (labelled, found) in [
                (&mut codes.content, model.encode_content(&clips)?),
                (&mut codes.class, model.encode_class(&clips)?),
                (&mut codes.log_mel, clips),
            ] {
                labelled
                    .rows
                    .extend(found.flatten_from(1)?.to_vec2::<f32>()?);
                labelled
                    .classes
                    .extend(batch.iter().map(|(program, _)| *program));
            }
        }
        Ok(codes)
    }
}

/// How well probes tell the instrument from codes.
fn probe_table(
    model: &LordModel,
    programs: &Programs,
    fitted: &Codes,
    tested: &Codes,
) -> Result<Table> {
    let frames = model.header().lord.content_frames;
    let row = |name: &str, fitted: &Labelled, tested: &Labelled| -> Result<Row> {
        let share = probe::accuracy(fitted, tested, programs.seen)?;
        let count = tested.rows.len() as f64;
        // Of a binomial distribution.
        let half_width = 1.96 * (share * (1.0 - share) / count).sqrt();
        Ok(Row {
            name: name.to_owned(),
            cells: vec![Some(Measured {
                value: share,
                low: share - half_width,
                high: share + half_width,
            })],
        })
    };
    let chance = 1.0 / programs.seen as f64;
    let rows = vec![
        row("content codes", &fitted.content, &tested.content)?,
        row(
            "content codes, mean and deviation over time",
            &fitted.content.pooled(frames),
            &tested.content.pooled(frames),
        )?,
        row("class codes", &fitted.class, &tested.class)?,
        row("log-mel", &fitted.log_mel, &tested.log_mel)?,
        Row {
            name: "chance".to_owned(),
            cells: vec![Some(Measured {
                value: chance,
                low: chance,
                high: chance,
            })],
        },
    ];
    Ok(Table {
        title: "What codes tell of the instrument".to_owned(),
        note: format!(
            "Share of {} clips whose instrument a linear probe (ridge regression) finds, fitted to {} clips of other melodies; with 95 % intervals.",
            tested.content.rows.len(),
            fitted.content.rows.len()
        ),
        columns: vec!["instrument found".to_owned()],
        rows,
    })
}

/// Everything that translations need.
struct Translations<'a> {
    model: &'a LordModel,
    programs: &'a Programs,
    melodies: &'a Melodies,
    instruments: &'a Instruments,
    built_in: &'a Model,
}

impl Translations<'_> {
    /// The tables of instruments trained on and of others.
    fn tables(&self, pairs: usize, seed: u64, note: &str) -> Result<[Table; 2]> {
        let (seen, all) = (self.programs.seen, self.programs.all.len());
        let known: Vec<usize> = (0..seen).collect();
        let unknown: Vec<usize> = (seen..all).collect();
        let known_codes = self.codes(&known, |_, target| Ok(self.model.class_of(target)?))?;
        let heard = |rendering: &Rendering, _| encoded_code(self.model, &rendering.log_mel);
        let optimised = |rendering: &Rendering, _| optimised_code(self.model, &rendering.log_mel);
        let rows = [
            ("code of the model", known_codes),
            ("code from the encoder", self.codes(&known, heard)?),
            ("optimised code", self.codes(&known, optimised)?),
        ];
        let of_known = self.scores(pairs, seed, &known, &rows)?;
        let rows = [
            ("code from the encoder", self.codes(&unknown, heard)?),
            ("optimised code", self.codes(&unknown, optimised)?),
        ];
        let of_unknown = self.scores(pairs, seed ^ 1, &unknown, &rows)?;
        let heard = format!(
            "{note} Codes from the encoder, and optimised ones, are those of another melody by B."
        );
        Ok([
            table("Translations", &heard, &of_known),
            table(
                "Translations to instruments that were held out",
                &heard,
                &of_unknown,
            ),
        ])
    }

    /// The code of each target, from the melody that is left out of the pairs. Indexed by program.
    fn codes(
        &self,
        targets: &[usize],
        code: impl Fn(&Rendering, usize) -> Result<InstrumentCode>,
    ) -> Result<Vec<Option<InstrumentCode>>> {
        let mut codes = vec![None; self.programs.all.len()];
        for &target in targets {
            codes[target] = Some(code(self.melodies.of(0, target), target)?);
        }
        Ok(codes)
    }

    /// The figures of each method: mels decoded with each kind of codes, and the voices with the first kind.
    fn scores(
        &self,
        pairs: usize,
        seed: u64,
        targets: &[usize],
        kinds: &[(&str, Vec<Option<InstrumentCode>>)],
    ) -> Result<Vec<(String, Vec<Figures>)>> {
        let sources: Vec<usize> = (0..self.programs.seen).collect();
        let pairs = draw_pairs(self.melodies.len(), &sources, targets, pairs, seed)?;
        let numbers: Vec<u8> = self
            .programs
            .all
            .iter()
            .map(|program| program.number)
            .collect();
        let measure = |translate: &Translate| {
            measure(translate, &pairs, self.melodies, &numbers, self.instruments)
        };
        let source = |pair: &Pair| self.melodies.of(pair.melody, pair.source);
        let as_it_is = |pair: &Pair| Ok(Made::Sound(clip(&source(pair).pcm)));
        let mut scores = vec![("A as it is".to_owned(), measure(&as_it_is)?)];
        for (name, codes) in kinds {
            let decode = |pair: &Pair| {
                let code = code_of(codes, pair.target)?;
                Ok(Made::Mel(decoded(self.model, code, source(pair))?))
            };
            scores.push((format!("{name}, decoded mel"), measure(&decode)?));
        }
        if let Some((name, codes)) = kinds.first() {
            for (voice, generator) in [("guided", None), ("generated", Some(self.built_in))] {
                let sound = |pair: &Pair| {
                    let code = code_of(codes, pair.target)?;
                    Ok(Made::Sound(voiced(
                        self.model,
                        code,
                        generator,
                        source(pair),
                    )?))
                };
                scores.push((format!("{name}, {voice} voice"), measure(&sound)?));
            }
        }
        let truth = |pair: &Pair| {
            let truth = self.melodies.of(pair.melody, pair.target);
            Ok(Made::Sound(clip(&truth.pcm)))
        };
        scores.push(("truth: B".to_owned(), measure(&truth)?));
        Ok(scores)
    }

    /// The paper's Figure 1: clips of some instruments, each translated to all of these, above the truth.
    fn draw(&self, path: &Path) -> Result<()> {
        let shown = SHOWN.min(self.programs.seen);
        // Far apart in the list, which has families beside each other.
        let places: Vec<usize> = (0..shown)
            .map(|place| place * self.programs.seen / shown)
            .collect();
        let name = |program: usize| self.programs.all[program].name;
        let mut panels: Vec<(String, LogMel)> = Vec::new();
        for (row, &source) in places.iter().enumerate() {
            let melody = 1 + row % (self.melodies.len() - 1);
            let first = |log_mel: &LogMel| log_mel.clone().take_first(self.model.frames());
            let of = |program: usize| &self.melodies.of(melody, program).log_mel;
            let rendering = Rendering {
                pcm: self.melodies.of(melody, source).pcm.clone(),
                log_mel: first(of(source)),
            };
            panels.push((name(source).to_owned(), rendering.log_mel.clone()));
            for &target in &places {
                let made = decoded(self.model, &self.model.class_of(target)?, &rendering)?;
                panels.push((format!("to {}", name(target)), made));
            }
            panels.push((
                "True renderings:".to_owned(),
                LogMel::new(of(source).n_mels()),
            ));
            for &target in &places {
                panels.push((name(target).to_owned(), first(of(target))));
            }
        }
        let values = panels.iter().flat_map(|(_, mel)| mel.values()).copied();
        let loudest = values.fold(f32::MIN, f32::max);
        let mel = &self.model.header().mel;
        let panels: Vec<HeatPanel> = panels
            .iter()
            .map(|(title, log_mel)| HeatPanel {
                title,
                y_name: "mel band",
                rows: mel.n_mels,
                values: log_mel.values(),
                range: (loudest - RANGE, loudest),
            })
            .collect();
        plot::plot_heat_grid(path, &panels, shown + 1, 1.0 / mel.hop_seconds())
    }
}

fn code_of(codes: &[Option<InstrumentCode>], target: usize) -> Result<&InstrumentCode> {
    codes[target]
        .as_ref()
        .context("expected the code of every target")
}

/// The paper's Figure 4: content codes and class codes of clips, by their principal components.
fn draw_codes(path: &Path, programs: &Programs, codes: &Codes) -> Result<()> {
    let names: Vec<&str> = programs.all[..programs.seen]
        .iter()
        .map(|program| program.name)
        .collect();
    let mut clouds = Vec::new();
    for (title, labelled) in [
        ("Content codes", &codes.content),
        ("Class codes", &codes.class),
    ] {
        let rows = Tensor::new(labelled.rows.clone(), &Device::Cpu)?;
        let (points, shares) = Principal::of(&rows, 2)?.project(&rows)?;
        let mut groups = vec![Vec::new(); programs.seen];
        for (point, class) in points.to_vec2::<f32>()?.iter().zip(&labelled.classes) {
            groups[*class].push([f64::from(point[0]), f64::from(point[1])]);
        }
        let axes = [0, 1].map(|axis| {
            format!(
                "principal component {}: {:.0} % of the variance",
                axis + 1,
                100.0 * shares[axis]
            )
        });
        clouds.push((title, axes, groups));
    }
    let panels: Vec<ScatterPanel> = clouds
        .iter()
        .map(|(title, axes, groups)| ScatterPanel {
            title,
            axes: axes.each_ref().map(String::as_str),
            groups: groups.clone(),
        })
        .collect();
    plot::plot_scatters(path, &panels, &names)
}
