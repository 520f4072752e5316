//! The complete evaluation, stage by stage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::Device;
use graft_material::report::{
    Check, Example, JudgedModel, Measured, Picture, Report, Row, Sound, Table, VERSION,
};
use graft_train::dataset::Partition;
use graft_train::parameters::Parameters;
use model_runtime::{Factor, FactorMap, LatencyMode, Model, Network, RemixSettings, Remixer};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::baselines::{self, NOISE, REAL};
use crate::classifier::Classifier;
use crate::disentanglement::{self, Effort, Representation, Scores};
use crate::frechet::{self, ClipFeatures};
use crate::levels::{self, Levels};
use crate::margins::{FeatureExtractor, SAMPLE_RATE_HZ};
use crate::method::Method;
use crate::model_methods::SWAPPED;
use crate::pairs::{self, Pair};
use crate::remixes::{self, EXAMPLES, PairScore, Remixes};
use crate::songs::{self, Song};
use crate::sounds::{self, SoundScore};
use crate::stages::Stages;
use crate::transposition::{self, Transposition};
use crate::{model_methods, parallel, pictures, preparation};

/// Names of reference rows of Tables 1 and 2.
const LOG_MEL: &str = "log-mel";
const DEAF: &str = "without listening";

/// Extent of the evaluation.
#[derive(Debug, Clone, Serialize)]
pub struct Protocol {
    /// Songs for Table 1.
    songs: usize,
    /// Length of the section of each song, in seconds.
    song_seconds: f64,
    /// Training of the probes.
    effort: Effort,
    /// Pairs of clips to remix.
    pairs: usize,
    /// Length of a clip at the common tempo, in seconds.
    clip_seconds: usize,
    /// Training steps of the classifier.
    classifier_steps: usize,
    /// Seed for the choice of songs and pairs.
    seed: u64,
    /// Latency mode of networks and voices.
    #[serde(skip)]
    mode: LatencyMode,
}

impl Protocol {
    /// The protocol of the tables in the docs.
    pub fn full(seed: u64, mode: LatencyMode) -> Self {
        Self {
            songs: 300,
            song_seconds: 30.0,
            effort: Effort {
                steps: 600,
                seeds: 5,
            },
            pairs: 100,
            clip_seconds: preparation::CLIP_SECONDS,
            classifier_steps: 1000,
            seed,
            mode,
        }
    }

    /// A reduced protocol that takes minutes.
    pub fn quick(seed: u64, mode: LatencyMode) -> Self {
        Self {
            songs: 100,
            song_seconds: 15.0,
            effort: Effort {
                steps: 200,
                seeds: 3,
            },
            pairs: 24,
            classifier_steps: 600,
            ..Self::full(seed, mode)
        }
    }
}

/// Inputs of an evaluation.
pub struct Judge<'a> {
    /// Extent of the evaluation.
    pub protocol: Protocol,
    /// Training music and validation music of the models.
    pub parts: Partition,
    /// Folders that may contain MIDI files.
    pub data: &'a [PathBuf],
    /// The models by name.
    pub models: Vec<(String, Arc<Model>)>,
    /// Output folder.
    pub folder: &'a Path,
}

/// Results that the stages collect.
#[derive(Default)]
struct Findings {
    tables: Vec<Table>,
    checks: Vec<Check>,
    pictures: Vec<Picture>,
    examples: Vec<Example>,
}

/// Source clips, reference clips and the classifier for Table 2.
struct RemixMaterial {
    classifier: Classifier,
    pairs: Vec<Pair>,
    /// Features of real clips.
    real: Vec<ClipFeatures>,
}

impl Judge<'_> {
    /// Runs all stages that have no stored result, and makes the report.
    ///
    /// # Errors
    ///
    /// Returns an error if there is too little data, or a file cannot be read or written.
    pub fn report(&self) -> Result<Report> {
        let stages = Stages::new(&self.folder.join("stages"), self.key()?)?;
        let mut findings = Findings::default();
        self.disentanglement(&stages, &mut findings)?;
        let material = self.remix_material(&stages)?;
        self.remixes(&stages, &material, &mut findings)?;
        self.levels(&stages, &material.pairs, &mut findings)?;
        self.transposition(&stages, &mut findings)?;
        let Protocol {
            songs,
            song_seconds,
            effort,
            pairs,
            clip_seconds,
            seed,
            mode,
            ..
        } = &self.protocol;
        let models = self.models.iter().map(|(name, model)| JudgedModel {
            name: name.clone(),
            sha256: model.sha256().to_owned(),
            steps: model.header().card.steps,
        });
        Ok(Report {
            version: VERSION,
            protocol: format!(
                "{songs} songs of {song_seconds} s, {} seeds of {} steps; {pairs} pairs of {clip_seconds} s; {mode:?} latency; seed {seed}.",
                effort.seeds, effort.steps
            ),
            seconds: stages.elapsed_s(),
            models: models.collect(),
            tables: findings.tables,
            checks: findings.checks,
            pictures: findings.pictures,
            examples: findings.examples,
        })
    }

    /// Everything that the results depend on, except for the example sounds.
    fn key(&self) -> Result<String> {
        let tracks = self.parts.training.iter().chain(&self.parts.validation);
        let tracks = tracks.map(|track| (&track.path, &track.artist, track.pcm.samples.len()));
        let models = self
            .models
            .iter()
            .map(|(name, model)| (name, model.sha256()));
        let mode = format!("{:?}", self.protocol.mode);
        let key = (
            (VERSION, &self.protocol, mode, self.data),
            models.collect::<Vec<_>>(),
            tracks.collect::<Vec<_>>(),
        );
        let digest = Sha256::digest(serde_json::to_vec(&key)?);
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Table 1.
    fn disentanglement(&self, stages: &Stages, findings: &mut Findings) -> Result<()> {
        let Protocol {
            songs: count,
            song_seconds,
            effort,
            seed,
            ..
        } = self.protocol;
        stages.say("Table 1: rendering songs with known chords");
        let songs = songs::load(self.data, count, song_seconds, seed)?;
        if songs.is_empty() {
            println!("skipping Table 1: no MIDI files with chord annotations in the data");
            return Ok(());
        }
        let measure = |name: &str, make: &dyn Fn() -> Result<Representation>| {
            stages.run(&format!("Table 1: {name}"), || {
                disentanglement::measure(&make()?, &songs, effort)
            })
        };
        let examples = self.folder.join("stages/log-mel-chords.safetensors");
        disentanglement::write_chord_examples(&examples, &Representation::log_mel(&songs), &songs)?;
        let mut rows = vec![(
            DEAF.to_owned(),
            disentanglement::without_listening(&songs, effort),
        )];
        rows.push((
            LOG_MEL.to_owned(),
            measure(LOG_MEL, &|| Ok(Representation::log_mel(&songs)))?,
        ));
        for (index, (name, model)) in self.models.iter().enumerate() {
            let network = model.network();
            let untrained = untrained(model, seed)?;
            let probe = |row: &str, network: &dyn Network, factor: Factor| {
                measure(row, &|| {
                    let mut latents = Representation::latents(network, &songs)?;
                    latents.remove(factor).context("a factor of the network")
                })
            };
            let row = |factor: Factor| format!("{name}: {factor} latent");
            let mut probed = FactorMap::default();
            for layout in network.factors() {
                let factor = layout.factor;
                probed.insert(factor, probe(&row(factor), &**network, factor)?);
            }
            rows.extend(
                probed
                    .iter()
                    .map(|(factor, scores)| (row(factor), scores.clone())),
            );
            if let (Some(harmony), Some(rhythm)) =
                (probed.get(Factor::Harmony), probed.get(Factor::Rhythm))
            {
                let control = |factor: Factor| -> Result<(String, Scores)> {
                    let row = format!("{name}, untrained: {factor} latent");
                    let scores = probe(&row, &*untrained, factor)?;
                    Ok((row, scores))
                };
                let controls = [control(Factor::Harmony)?, control(Factor::Rhythm)?];
                let checks = disentanglement_checks(name, harmony, rhythm, &controls[0].1);
                findings.checks.extend(checks);
                rows.extend(controls);
                findings.pictures.push(pictures::confusion(
                    self.folder,
                    &format!("confusion-{}.png", index + 1),
                    &harmony.confusion,
                )?);
            }
            let file = format!("latents-{}.png", index + 1);
            findings.pictures.push(pictures::latents(
                self.folder,
                &file,
                &**network,
                &songs[0],
            )?);
        }
        findings
            .tables
            .push(disentanglement_table(rows, &songs, effort));
        Ok(())
    }

    /// Table 2, and what a remix is for.
    fn remixes(
        &self,
        stages: &Stages,
        material: &RemixMaterial,
        findings: &mut Findings,
    ) -> Result<()> {
        let RemixMaterial {
            classifier,
            pairs,
            real,
        } = material;
        let Protocol { seed, mode, .. } = self.protocol;
        let remixers = self.remixers();
        let methods = self.methods(&remixers)?;
        let remixes = Remixes::new(pairs, classifier, self.folder)?;
        remixes.write_sources()?;
        let mut scores: Vec<(&str, Vec<PairScore>)> = Vec::new();
        for method in &methods {
            let measured = stages.run(&format!("Table 2: {}", method.name), || {
                remixes.measure(method)
            })?;
            scores.push((&method.name, measured));
        }

        let distances = distances(&scores, real, seed)?;
        findings
            .tables
            .push(distance_table(distances, classifier, real));
        findings.tables.push(purpose_table(&scores));
        findings.tables.push(sounds::table(&sound_scores(&scores)));
        findings.checks.extend(remix_checks(findings, &remixers));
        for (index, (_, remixer)) in remixers.iter().enumerate() {
            let file = format!("swaps-{}.png", index + 1);
            let settings = RemixSettings {
                mode,
                ..RemixSettings::default()
            };
            let picture = pictures::swaps(self.folder, &file, remixer, &settings, &pairs[0])?;
            findings.pictures.push(picture);
        }
        findings.examples = examples(pairs, &methods);
        Ok(())
    }

    /// Margins at several levels of the inputs.
    fn levels(&self, stages: &Stages, pairs: &[Pair], findings: &mut Findings) -> Result<()> {
        let levels = Levels::new(pairs)?;
        let ceilings = levels.ceilings();
        let mut scores = Vec::new();
        for (index, (name, remixer)) in self.remixers().iter().enumerate() {
            let model = &self.models[index].1;
            for method in model_methods::at_levels(name, model, remixer, self.protocol.mode)? {
                let measured = stages.run(&format!("Levels: {}", method.name), || {
                    levels.measure(&method)
                })?;
                if method.name == model_methods::guided_row(name) {
                    findings.checks.push(levels::check(&method.name, &measured));
                    let loudness = levels::loudness_check(&method.name, &measured);
                    findings.checks.extend(loudness);
                }
                scores.push((method.name, measured));
            }
        }
        let rows = [ceilings.as_slice(), &scores].concat();
        findings.tables.extend(levels::tables(&rows));
        for (index, figure) in levels::MARGINS.into_iter().enumerate() {
            let file = format!("levels-{}.png", index + 1);
            let picture = pictures::levels(self.folder, &file, figure, &ceilings, &scores)?;
            findings.pictures.push(picture);
        }
        Ok(())
    }

    /// The models by name, ready to remix.
    fn remixers(&self) -> Vec<(&str, Remixer)> {
        self.models
            .iter()
            .map(|(name, model)| (name.as_str(), Remixer::new(Arc::clone(model))))
            .collect()
    }

    /// Trains the classifier, and draws and prepares clips.
    fn remix_material(&self, stages: &Stages) -> Result<RemixMaterial> {
        stages.say("Table 2: training the classifier, stretching clips");
        let Protocol {
            pairs: count,
            clip_seconds,
            classifier_steps,
            seed,
            ..
        } = self.protocol;
        let classifier = Classifier::train(&self.parts.training, classifier_steps, seed)?;
        let validation = &self.parts.validation;
        let pairs = preparation::pairs(validation, count, clip_seconds, seed)?;
        // Other excerpts by the same artists.
        let mut real =
            pairs::draw_excerpts(validation, SAMPLE_RATE_HZ, 2 * count, seed.wrapping_add(1))?;
        let samples = clip_seconds * SAMPLE_RATE_HZ as usize;
        preparation::stretch_all(real.iter_mut().collect(), samples)?;
        let real = parallel::map(
            "Analysing clips",
            &real,
            FeatureExtractor::new,
            |extractor, excerpt| {
                classifier.features(&extractor.extract(&excerpt.clip)?.levelled_mel())
            },
        )?;
        Ok(RemixMaterial {
            classifier,
            pairs,
            real,
        })
    }

    /// The baselines and the methods of each model.
    fn methods<'a>(&self, remixers: &'a [(&str, Remixer)]) -> Result<Vec<Method<'a>>> {
        let mut methods = baselines::methods();
        for ((name, remixer), (_, model)) in remixers.iter().zip(&self.models) {
            let mode = self.protocol.mode;
            methods.extend(model_methods::all(name, model, remixer, mode)?);
        }
        Ok(methods)
    }

    /// Rotation against true transposition.
    fn transposition(&self, stages: &Stages, findings: &mut Findings) -> Result<()> {
        for (index, (name, model)) in self.models.iter().enumerate() {
            let found = stages.run(&format!("Transposition: {name}"), || {
                transposition::measure(&**model.network(), &self.parts.validation)
            })?;
            let file = format!("transposition-{}.png", index + 1);
            findings
                .pictures
                .push(pictures::transposition(self.folder, &file, &found)?);
            findings.tables.push(transposition_table(name, &found));
        }
        Ok(())
    }
}

/// A network like the model's with random weights.
fn untrained(model: &Model, seed: u64) -> Result<Arc<dyn Network>> {
    let parameters = Parameters::new(seed);
    let vb = parameters.builder(&Device::Cpu);
    let header = model.header();
    Ok(header.architecture.build(&header.mel, false, &vb)?)
}

fn disentanglement_table(rows: Vec<(String, Scores)>, songs: &[Song], effort: Effort) -> Table {
    let note = format!(
        "Probes with two bidirectional GRU layers, trained on nine tenths of {} POP909 songs and scored on the rest. Mean of {} seeds; \
         brackets: one standard deviation. The songs are rendered with varied instruments, most of them with drums. Chords: share of \
         93 ms frames with the correct one of 24 triads or none; frames with other chords do not count. Onsets: F-measure within 50 ms, \
         for onsets found by a spectral-flux detector and for those of the notes. \"{DEAF}\": the most frequent chord, and an onset \
         every 46 ms. For comparison, Wu's paper (RWC-Popular, other annotations) has a chord accuracy and onset F1 of 69.61 % and \
         60.09 % from the harmony latents, 24.65 % and 66.04 % from the rhythm latents, 51.95 % and 65.19 % from the log-mel.",
        songs.len(),
        effort.seeds
    );
    let columns = ["chord accuracy", "onset F1, detected", "onset F1, notes"].map(str::to_owned);
    let rows = rows.into_iter().map(|(name, scores)| {
        let cells = [
            &scores.chords,
            &scores.detected_onsets,
            &scores.struck_onsets,
        ];
        Row {
            name,
            cells: cells.map(|values| Some(Measured::spread(values))).to_vec(),
        }
    });
    Table {
        title: "Table 1: disentanglement".to_owned(),
        note,
        columns: columns.to_vec(),
        rows: rows.collect(),
    }
}

fn disentanglement_checks(
    model: &str,
    harmony: &Scores,
    rhythm: &Scores,
    untrained: &Scores,
) -> [Check; 3] {
    let above = |claim: &str, more: &[f64], less: &[f64]| {
        let [more, less] = [more, less].map(Measured::spread);
        Check {
            name: format!("{model}: {claim}"),
            found: format!("{:.3} and {:.3}", more.value, less.value),
            holds: more.low > less.value,
        }
    };
    [
        above(
            "chords are recognised better from the harmony latent than from the rhythm latent",
            &harmony.chords,
            &rhythm.chords,
        ),
        above(
            "onsets are recognised better from the rhythm latent than from the harmony latent",
            &rhythm.struck_onsets,
            &harmony.struck_onsets,
        ),
        above(
            "chords are recognised better from the harmony latent than from that of an untrained network",
            &harmony.chords,
            &untrained.chords,
        ),
    ]
}

fn distances(
    scores: &[(&str, Vec<PairScore>)],
    real: &[ClipFeatures],
    seed: u64,
) -> Result<Vec<Row>> {
    scores
        .iter()
        .map(|(name, pairs)| {
            let features: Vec<ClipFeatures> =
                pairs.iter().map(|pair| pair.features.clone()).collect();
            let distance = frechet::distance(&features, real, seed)?;
            Ok(Row {
                name: (*name).to_owned(),
                cells: vec![Some(distance)],
            })
        })
        .collect()
}

fn distance_table(rows: Vec<Row>, classifier: &Classifier, real: &[ClipFeatures]) -> Table {
    let note = format!(
        "Squared Fréchet distance between the features of remixes and those of {} real clips by the same artists, all at 120 BPM, pairs in beat phase \
         ({} segments of 3 s per clip). The features are the last layer of a classifier of {} training artists; it names the artist of \
         {:.0} % of segments from the last quarters of their tracks, which it was not trained on. Covariances are shrunk (Ledoit and \
         Wolf), levels are matched; brackets: 95 % bootstrap over clips. Smaller is better; \"{REAL}\" is the level of real clips.",
        real.len(),
        real.first().map_or(0, Vec::len),
        classifier.artists,
        100.0 * classifier.accuracy
    );
    Table {
        title: "Table 2: remixing".to_owned(),
        note,
        columns: vec!["Fréchet distance".to_owned()],
        rows,
    }
}

/// The scores of all sounds that have the harmony of A and the rhythm of B.
fn sound_scores<'a>(scores: &[(&'a str, Vec<PairScore>)]) -> Vec<(&'a str, Vec<SoundScore>)> {
    let is_swapped = |name: &str| name.ends_with(SWAPPED);
    scores
        .iter()
        .filter(|(name, _)| *name != NOISE && !is_swapped(name))
        .map(|(name, pairs)| {
            let sounds = pairs.iter().filter_map(|pair| pair.sound.clone());
            (*name, sounds.collect::<Vec<_>>())
        })
        .filter(|(_, sounds)| !sounds.is_empty())
        .collect()
}

/// The pairs to listen to, with all remixes of them.
fn examples(pairs: &[Pair], methods: &[Method]) -> Vec<Example> {
    pairs
        .iter()
        .take(EXAMPLES)
        .enumerate()
        .map(|(index, pair)| {
            let remixes = methods.iter().filter(|method| !method.is_reference);
            let names = ["A", "B"]
                .into_iter()
                .chain(remixes.map(|method| method.name.as_str()));
            let sounds = names.map(|name| {
                let file = remixes::file_name(index, name);
                Sound {
                    name: name.to_owned(),
                    sound: format!("{file}.wav"),
                    picture: format!("{file}.png"),
                }
            });
            Example {
                name: format!("A: {}; B: {}", pair.main, pair.sidechain),
                sounds: sounds.collect(),
            }
        })
        .collect()
}

fn purpose_table(scores: &[(&str, Vec<PairScore>)]) -> Table {
    /// Name and value of a column.
    type Column = (&'static str, fn(&PairScore) -> f32);
    const COLUMNS: [Column; 8] = [
        ("harmony margin", |pair| pair.margins.harmony),
        ("rhythm margin", |pair| pair.margins.rhythm),
        ("chroma similarity to A", |pair| {
            pair.margins.harmony_similarity
        }),
        ("chroma similarity to B", |pair| {
            pair.margins.harmony_similarity - pair.margins.harmony
        }),
        ("onset correlation with B", |pair| {
            pair.margins.rhythm_correlation
        }),
        ("onset correlation with A", |pair| {
            pair.margins.rhythm_correlation - pair.margins.rhythm
        }),
        ("level beside the sources, dB", |pair| pair.level_db),
        ("brightness beside the sources, octaves", |pair| {
            pair.brightness_octaves
        }),
    ];
    let rows = scores
        .iter()
        .filter(|(name, _)| *name != NOISE)
        .map(|(name, pairs)| {
            let mut cells: Vec<Option<Measured>> = COLUMNS
                .iter()
                .map(|(_, value)| Some(Measured::mean(pairs.iter().map(value))))
                .collect();
            let reconstructions: Vec<f32> = pairs
                .iter()
                .filter_map(|pair| pair.reconstruction)
                .collect();
            let reconstruction =
                (!reconstructions.is_empty()).then(|| Measured::mean(reconstructions.into_iter()));
            cells.push(reconstruction);
            Row {
                name: (*name).to_owned(),
                cells,
            }
        });
    let columns = COLUMNS.iter().map(|(name, _)| (*name).to_owned());
    Table {
        title: "What a remix is for".to_owned(),
        note: "The same pairs, at the levels of their files, harmony of A with rhythm of B; means with 95 % intervals. The decoded mel is \
               compared with the mels of A and B, all others by sound. Harmony margin above 0: the chroma is closer \
               to A's than to B's. Rhythm margin above 0: the onsets correlate more with B's than with A's."
            .to_owned(),
        columns: columns.chain(["mel distance, A with A to A, nepers".to_owned()]).collect(),
        rows: rows.collect(),
    }
}

fn remix_checks(findings: &Findings, remixers: &[(&str, Remixer)]) -> Vec<Check> {
    let cell = |row: &str, column: &str| {
        findings
            .tables
            .iter()
            .find_map(|table| table.cell(row, column))
    };
    let distance = |row: &str| cell(row, "Fréchet distance");
    let mut checks = Vec::new();
    if let (Some(real), Some(noise)) = (distance(REAL), distance(NOISE)) {
        checks.push(Check {
            name: "real clips are ten times closer to other real clips than noise is".to_owned(),
            found: format!("{:.3} and {:.3}", real.value, noise.value),
            holds: noise.value > 10.0 * real.value,
        });
    }
    for (name, _) in remixers {
        let row = model_methods::swapped_row(name);
        if let (Some(harmony), Some(rhythm)) =
            (cell(&row, "harmony margin"), cell(&row, "rhythm margin"))
        {
            checks.push(Check {
                name: format!(
                    "{name}: swapping harmony and rhythm swaps the signs of both margins"
                ),
                found: format!("margins {:.3} and {:.3}", harmony.value, rhythm.value),
                holds: harmony.high < 0.0 && rhythm.high < 0.0,
            });
        }
    }
    checks
}

fn transposition_table(model: &str, found: &[Transposition]) -> Table {
    let rows = found.iter().map(
        |Transposition {
             semitones,
             rotated,
             not_rotated,
         }| Row {
            name: format!("{semitones:+} semitones"),
            cells: [rotated, not_rotated]
                .map(|values| Some(Measured::mean(values.iter().copied())))
                .to_vec(),
        },
    );
    Table {
        title: format!("Transposition: {model}"),
        note: "Distance between the decoded mel and that of the pitch-shifted music, in nepers, on 3 s of each track; brackets: 95 %."
            .to_owned(),
        columns: ["harmony latent rotated by as much", "not rotated"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    }
}
