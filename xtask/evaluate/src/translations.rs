//! Translations to other instruments, compared with the truth: the same melody by the instrument that should play it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use candle_nn::Init;
use graft_material::audio_cache::Pcm;
use graft_material::report::{Measured, Row, Table};
use graft_train::midi::render_all;
use graft_train::notes::programs::Program;
use graft_train::optim::{Adam, AdamConfig};
use graft_train::parameters::Parameters;
use graft_train::phrases::melody;
use model_runtime::lord::LordModel;
use model_runtime::tensors::to_tensor;
use model_runtime::translation::{
    InstrumentCode, RecordingSettings, TranslationVoice, Translator, translate_mel,
};
use model_runtime::{AudioClip, Model};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use vocoder::{LogMel, MEL_FLOOR, MelSpectrogram};

use crate::conversions::clip;
use crate::instruments::Instruments;
use crate::margins::{FeatureExtractor, Features, SAMPLE_RATE_HZ, chroma_similarity};
use crate::parallel;

/// Least number of notes of a melody.
const LEAST_NOTES: usize = 3;

/// Steps and learning rate of the optimisation of a code.
const CODE_STEPS: usize = 100;
const CODE_LEARNING_RATE: f64 = 5e-3;

/// Which melodies to draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MelodySettings {
    /// Number of melodies.
    pub count: usize,
    /// Length in seconds.
    pub seconds: f64,
    /// Lowest and highest key.
    pub keys: [u8; 2],
    /// Share of the notes that are chords.
    pub chord_share: f64,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// Melodies, each played by all programs of a list.
pub struct Melodies {
    programs: usize,
    /// Melody after melody.
    renderings: Vec<Rendering>,
}

/// A melody by one program.
pub struct Rendering {
    /// Its sound, at the level of the training.
    pub pcm: Pcm,
    /// The log-mel of this sound.
    pub log_mel: LogMel,
}

impl Melodies {
    /// Renders melodies, or reads them from the cache.
    ///
    /// # Errors
    ///
    /// Returns an error if the system has no sound font, a program is silent, or a file cannot be read or written.
    pub fn render(
        settings: MelodySettings,
        programs: &[&'static Program],
        model: &LordModel,
        cache_folder: &Path,
    ) -> Result<Self> {
        let mel = &model.header().mel;
        let mut random = StdRng::seed_from_u64(settings.seed);
        let [lowest, highest] = settings.keys;
        let mut arrangements = Vec::new();
        while arrangements.len() < settings.count * programs.len() {
            let (seconds, chord_share) = (settings.seconds, settings.chord_share);
            let notes = melody::draw(&(lowest..=highest), seconds, chord_share, &mut random);
            if notes.len() >= LEAST_NOTES {
                arrangements.extend(programs.iter().map(|program| {
                    let name = format!("{} for a translation", program.name);
                    (name, melody::arrangement(program.number, &notes))
                }));
            }
        }
        let rendered = render_all(
            arrangements,
            settings.seconds,
            cache_folder,
            mel.sample_rate_hz,
        )?;
        let mut analysis = MelSpectrogram::new(mel)?;
        let renderings = rendered.into_iter().enumerate().map(|(number, pcm)| {
            let program = programs[number % programs.len()].name;
            let pcm = pcm.with_context(|| format!("{program}: expected sound, found silence"))?;
            Ok(Rendering {
                log_mel: analysis.log_mel(&pcm.floats()),
                pcm,
            })
        });
        Ok(Self {
            programs: programs.len(),
            renderings: renderings.collect::<Result<_>>()?,
        })
    }

    /// Number of melodies.
    pub fn len(&self) -> usize {
        self.renderings.len() / self.programs
    }

    /// A melody by a program, by their places.
    pub fn of(&self, melody: usize, program: usize) -> &Rendering {
        &self.renderings[melody * self.programs + program]
    }

    /// All renderings, each with the place of its program.
    pub fn all(&self) -> impl Iterator<Item = (usize, &Rendering)> {
        let numbered = self.renderings.iter().enumerate();
        numbered.map(|(number, rendering)| (number % self.programs, rendering))
    }
}

/// A melody by one instrument that another should play. Programs are by their places in the list of the [`Melodies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The melody.
    pub melody: usize,
    /// Who plays it.
    pub source: usize,
    /// Who should.
    pub target: usize,
}

/// Draws pairs of different programs. The first melody is left out: it tells how the targets sound.
pub fn draw_pairs(
    melodies: usize,
    sources: &[usize],
    targets: &[usize],
    count: usize,
    seed: u64,
) -> Result<Vec<Pair>> {
    ensure!(
        melodies >= 2
            && sources
                .iter()
                .any(|source| targets.iter().any(|target| source != target)),
        "expected two melodies and two different instruments at least, found {melodies} melodies, {sources:?} and {targets:?}"
    );
    let mut random = StdRng::seed_from_u64(seed);
    let mut pairs = Vec::new();
    while pairs.len() < count {
        let pair = Pair {
            melody: random.random_range(1..melodies),
            source: sources[random.random_range(0..sources.len())],
            target: targets[random.random_range(0..targets.len())],
        };
        if pair.source != pair.target {
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

/// What a method makes of a melody.
pub enum Made {
    /// A spectrogram without a sound.
    Mel(LogMel),
    /// A sound.
    Sound(AudioClip),
}

/// Makes the translation of a pair.
pub type Translate<'a> = dyn Fn(&Pair) -> Result<Made> + Sync + 'a;

/// The figures of one translation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Mean absolute difference of the log-mels from the truth, in nepers. All renderings have the same level.
    pub mel_l1: f32,
    /// Whether this is less than that of the melody as it was.
    pub is_nearer: bool,
    /// Chroma similarity to the melody as it was; none without a sound.
    pub chroma: Option<f32>,
    /// Whether the classifier takes it for the target, among all programs.
    pub as_target: bool,
}

/// Measures a method on all pairs.
///
/// # Errors
///
/// Returns an error if a translation cannot be made or analysed.
pub fn measure(
    translate: &Translate,
    pairs: &[Pair],
    melodies: &Melodies,
    numbers: &[u8],
    instruments: &Instruments,
) -> Result<Vec<Figures>> {
    parallel::map(
        "Translating",
        pairs,
        FeatureExtractor::new,
        |extractor, pair| {
            let source = melodies.of(pair.melody, pair.source);
            let truth = &melodies.of(pair.melody, pair.target).log_mel;
            let (log_mel, chroma) = match translate(pair)? {
                Made::Mel(log_mel) => (log_mel, None),
                Made::Sound(sound) => {
                    let made = extractor.extract(&sound)?;
                    let before = extractor.extract(&clip(&source.pcm))?;
                    let similarity = chroma_similarity(&made, &before);
                    let Features { log_mel, .. } = made;
                    (log_mel, Some(similarity))
                }
            };
            let mel_l1 = distance(&log_mel, truth)?;
            Ok(Figures {
                mel_l1,
                is_nearer: mel_l1 < distance(&source.log_mel, truth)?,
                chroma,
                as_target: instruments.nearest(&log_mel) == numbers[pair.target],
            })
        },
    )
}

/// Mean absolute difference of two log-mels in nepers, over the frames that both have.
fn distance(found: &LogMel, truth: &LogMel) -> Result<f32> {
    let values = found.values().len().min(truth.values().len());
    ensure!(values > 0, "expected log-mels with frames, found none");
    let pairs = found.values().iter().zip(truth.values());
    // The generator knows no floor.
    let differences = pairs.map(|(found, truth)| (found.max(MEL_FLOOR.ln()) - truth).abs());
    Ok(differences.sum::<f32>() / values as f32)
}

/// The table of methods, from the figures of each.
pub fn table(title: &str, note: &str, scores: &[(String, Vec<Figures>)]) -> Table {
    type Column = (&'static str, fn(&Figures) -> Option<f32>);
    const COLUMNS: [Column; 4] = [
        ("mel L1 to the truth, nepers", |x| Some(x.mel_l1)),
        ("nearer than A", |x| Some(f32::from(x.is_nearer))),
        ("taken for B among all", |x| Some(f32::from(x.as_target))),
        ("chroma similarity to A", |x| x.chroma),
    ];
    let cell = |figures: &[Figures], value: fn(&Figures) -> Option<f32>| {
        let values: Vec<f32> = figures.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| Measured::mean(values.into_iter()))
    };
    Table {
        title: title.to_owned(),
        note: note.to_owned(),
        columns: COLUMNS.map(|(name, _)| name.to_owned()).to_vec(),
        rows: scores
            .iter()
            .map(|(name, figures)| Row {
                name: name.clone(),
                cells: COLUMNS
                    .iter()
                    .map(|(_, value)| cell(figures, *value))
                    .collect(),
            })
            .collect(),
    }
}

/// The sound that a voice makes of a translation.
///
/// # Errors
///
/// Returns an error if the model fails.
pub fn voiced(
    model: &LordModel,
    code: &InstrumentCode,
    generator: Option<&Model>,
    source: &Rendering,
) -> Result<AudioClip> {
    let voice = match generator {
        Some(model) => TranslationVoice::Generated(model),
        None => TranslationVoice::Guided,
    };
    let recording = RecordingSettings {
        sample_rate_hz: SAMPLE_RATE_HZ,
        channels: 1,
        gain: 1.0,
    };
    let mut translator = Translator::new(model, code, voice, recording)?;
    let mut channels = vec![Vec::new()];
    translator.push(&[&source.pcm.floats()], &mut channels)?;
    translator.finish(&mut channels)?;
    Ok(AudioClip {
        sample_rate_hz: SAMPLE_RATE_HZ,
        channels,
    })
}

/// A translation without a voice.
///
/// # Errors
///
/// Returns an error if the model fails.
pub fn decoded(model: &LordModel, code: &InstrumentCode, source: &Rendering) -> Result<LogMel> {
    Ok(translate_mel(model, code, &source.log_mel)?)
}

/// Log-mels as (clips, `n_mels`, frames): the first frames of each, as many as a clip of the model has.
///
/// # Errors
///
/// Returns an error if one is shorter.
pub fn first_clips<'a>(
    model: &LordModel,
    log_mels: impl IntoIterator<Item = &'a LogMel>,
) -> Result<Tensor> {
    let clips = log_mels.into_iter().map(|log_mel| {
        ensure!(
            log_mel.frames() >= model.frames(),
            "expected clips of {} frames, found {}",
            model.frames(),
            log_mel.frames()
        );
        Ok(log_mel.clone().take_first(model.frames()))
    });
    Ok(to_tensor(&clips.collect::<Result<Vec<_>>>()?)?.squeeze(1)?)
}

/// All whole clips of a log-mel, one after the other, as (clips, `n_mels`, frames).
fn whole_clips(model: &LordModel, log_mel: &LogMel) -> Result<Tensor> {
    let mut rest = log_mel.clone();
    let clips = (0..log_mel.frames() / model.frames()).map(|_| rest.take_first(model.frames()));
    Ok(to_tensor(&clips.collect::<Vec<_>>())?.squeeze(1)?)
}

/// The code of an instrument from a log-mel of it, by the class encoder: the mean over its clips.
///
/// # Errors
///
/// Returns an error if it is shorter than a clip.
pub fn encoded_code(model: &LordModel, log_mel: &LogMel) -> Result<InstrumentCode> {
    let codes = model.encode_class(&whole_clips(model, log_mel)?)?;
    Ok(codes.mean_keepdim(0)?)
}

/// The same, then optimised by itself, so that the generator makes the log-mel of its own content.
///
/// # Errors
///
/// As [`encoded_code`].
pub fn optimised_code(model: &LordModel, log_mel: &LogMel) -> Result<InstrumentCode> {
    let clips = whole_clips(model, log_mel)?;
    let content = model.encode_content(&clips)?.detach();
    let start = encoded_code(model, log_mel)?.detach();
    let parameters = Parameters::new(0);
    let builder = parameters.builder(&Device::Cpu);
    let offset = builder.get_with_hints(start.shape(), "offset", Init::Const(0.0))?;
    let mut optimiser = Adam::new(
        &parameters,
        AdamConfig {
            rectified: false,
            weight_decay: 0.0,
            betas: (0.9, 0.999),
            clip_norm: f64::INFINITY,
            amsgrad: false,
            average_decay: None,
        },
    )?;
    let code = || start.add(&offset);
    let ones = Tensor::ones((clips.dim(0)?, 1), start.dtype(), &Device::Cpu)?;
    for step in 0..CODE_STEPS {
        let made = model.generate(&content, &ones.matmul(&code()?)?)?;
        let loss = (made - &clips)?.abs()?.mean_all()?;
        let rate = CODE_LEARNING_RATE * (1.0 - step as f64 / CODE_STEPS as f64);
        optimiser.step(&loss.backward()?, rate)?;
    }
    Ok(code()?.detach())
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::testing::small_instruments;

    fn model() -> LordModel {
        LordModel::from_bytes(&small_instruments(&["Flute", "Violin"])).unwrap()
    }

    #[test]
    fn pairs_are_of_different_instruments_and_leave_the_first_melody_out() {
        let pairs = draw_pairs(3, &[0, 1], &[1, 2], 200, 1).unwrap();
        assert_eq!(pairs.len(), 200);
        for pair in &pairs {
            assert!(pair.source != pair.target && (1..3).contains(&pair.melody));
            assert!([0, 1].contains(&pair.source) && [1, 2].contains(&pair.target));
        }
        for combination in [(0, 1), (0, 2), (1, 2)] {
            assert!(
                pairs
                    .iter()
                    .any(|pair| (pair.source, pair.target) == combination)
            );
        }
        assert_eq!(draw_pairs(3, &[0, 1], &[1, 2], 200, 1).unwrap(), pairs);
        assert!(draw_pairs(3, &[1], &[1], 9, 1).is_err());
        assert!(draw_pairs(1, &[0], &[1], 9, 1).is_err());
    }

    #[test]
    fn an_optimised_code_is_nearer_to_the_instrument_than_the_one_to_start_from() {
        let model = model();
        let mut played = LogMel::new(128);
        for frame in 0..70 {
            let band = |band: usize| {
                -6.0 + 2.0 * (0.3 * frame as f32 + 0.2 * band as f32).sin() - 0.02 * band as f32
            };
            played.push_frame(&(0..128).map(band).collect::<Vec<_>>());
        }
        let clips = whole_clips(&model, &played).unwrap();
        assert_eq!(clips.dims(), [2, 128, 32]);
        let content = model.encode_content(&clips).unwrap();
        let distance = |code: &InstrumentCode| {
            let codes = Tensor::cat(&[code, code], 0).unwrap();
            let made = model.generate(&content, &codes).unwrap();
            let difference = (made - &clips).unwrap().abs().unwrap();
            difference.mean_all().unwrap().to_scalar::<f32>().unwrap()
        };
        let start = distance(&encoded_code(&model, &played).unwrap());
        let end = distance(&optimised_code(&model, &played).unwrap());
        assert!(end < 0.99 * start, "{start} {end}");
    }

    #[test]
    fn a_distance_counts_what_both_have_and_nothing_below_the_floor() {
        let mel = |values: &[f32]| LogMel::from_values(2, values.to_vec()).unwrap();
        let floor = MEL_FLOOR.ln();
        let truth = mel(&[-1.0, floor, -2.0, -2.0]);
        assert_eq!(distance(&mel(&[-1.5, -50.0]), &truth).unwrap(), 0.25);
        assert_eq!(distance(&truth, &truth).unwrap(), 0.0);
        assert!(distance(&mel(&[]), &truth).is_err());
    }

    #[test]
    fn a_table_has_means_of_what_there_is() {
        let figures = |mel_l1: f32, chroma| Figures {
            mel_l1,
            is_nearer: mel_l1 < 1.0,
            chroma,
            as_target: true,
        };
        let scores = [
            ("a".to_owned(), vec![figures(0.5, None), figures(1.5, None)]),
            ("b".to_owned(), vec![figures(0.5, Some(0.8))]),
        ];
        let table = table("Lines", "A note.", &scores);
        assert_eq!(table.cell("a", "nearer than A").unwrap().value, 0.5);
        assert_eq!(table.cell("a", "chroma similarity to A"), None);
        assert!(table.cell("b", "chroma similarity to A").is_some());
    }
}
