//! Conversions of timbre, compared with the truth: the same phrase, rendered by the instrument whose timbre it should get.

use anyhow::{Context, Result};
use graft_material::audio_cache::Pcm;
use graft_material::report::{Measured, Row, Table};
use graft_train::phrases::Conversion;
use model_runtime::{AudioClip, Controls, Factor, LatencyMode, Model, RemixSettings, Remixer};
use vocoder::classic::{ClassicRemix, Method as Engine};
use vocoder::guided::FrameControls;
use vocoder::{AnalysisWindow, LogMel, MEL_FLOOR};

use crate::decoded::MelDecoder;
use crate::instruments::Instruments;
use crate::margins::{FeatureExtractor, Features, SAMPLE_RATE_HZ, chroma_similarity};
use crate::method::{Method, Remixed};
use crate::parallel;

/// Name of the row of the envelope baseline.
const ENVELOPE: &str = "envelope of B (engine Timbre without a model)";

/// The figures of one conversion by one method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Mean absolute difference of the log-mels from the truth, at the same mean amplitude, in nepers.
    pub mel_l1: f32,
    /// Chroma similarity to the phrase as it was; none without a sound.
    pub chroma: Option<f32>,
    /// Whether the classifier takes it for the target, among all programs.
    pub as_target: bool,
    /// Whether it sounds more like the target than like the source.
    pub rather_target: bool,
}

/// The phrase as it was, the conversion by the envelope, and those of a model. A method takes the phrase and the other sound of
/// the target.
///
/// # Errors
///
/// Returns an error if the model cannot be used in this mode.
pub fn methods<'a>(
    name: &str,
    model: &Model,
    remixer: &'a Remixer,
    mode: LatencyMode,
) -> Result<Vec<Method<'a>>> {
    let settings = RemixSettings {
        controls: Controls {
            air: 1.0,
            ..Controls::default().with_share(Factor::Timbre, 1.0)
        },
        mode,
        ..RemixSettings::default()
    };
    let decoder = MelDecoder::new(model, mode)?;
    Ok(vec![
        Method::new("A as it is", |a, _| Ok(a.clone())),
        Method::new(ENVELOPE, with_envelope),
        Method::new(&voice_row(name), move |a, b| {
            Ok(remixer.remix(a, b, &settings)?)
        }),
        Method::of_mels(&format!("{name}, decoded mel"), move |a, b| {
            decoder.decode(a, b, Factor::Timbre)
        }),
    ])
}

fn voice_row(model: &str) -> String {
    format!("{model}, guided voice")
}

/// The fine structure of `a` with the spectral envelope of `b`.
fn with_envelope(a: &AudioClip, b: &AudioClip) -> Result<AudioClip> {
    let mut remix = ClassicRemix::new(
        Engine::Timbre,
        AnalysisWindow::Symmetric,
        a.sample_rate_hz,
        1,
    )?;
    let controls = |_: usize| FrameControls {
        timbre: 1.0,
        ..FrameControls::default()
    };
    let mut channels = vec![Vec::new()];
    remix.push(
        [&[&a.channels[0]], &[&b.channels[0]]],
        controls,
        &mut channels,
    )?;
    remix.finish(controls, &mut channels)?;
    Ok(AudioClip {
        sample_rate_hz: a.sample_rate_hz,
        channels,
    })
}

/// A rendering as a clip.
pub fn clip(pcm: &Pcm) -> AudioClip {
    AudioClip {
        sample_rate_hz: SAMPLE_RATE_HZ,
        channels: vec![pcm.floats()],
    }
}

/// Measures a method on all conversions.
///
/// # Errors
///
/// Returns an error if a conversion cannot be made or analysed.
pub fn measure(
    method: &Method,
    conversions: &[Conversion],
    instruments: &Instruments,
) -> Result<Vec<Figures>> {
    parallel::map(
        "Converting",
        conversions,
        FeatureExtractor::new,
        |extractor, conversion| {
            let (phrase, colour) = (clip(&conversion.phrase), clip(&conversion.colour));
            let converted = method.remix(&phrase, &colour)?;
            let truth = extractor.extract(&clip(&conversion.truth))?;
            let (log_mel, chroma) = match converted {
                Remixed::Mel(log_mel) => (log_mel, None),
                Remixed::Sound(sound) => {
                    let Features {
                        log_mel, chroma, ..
                    } = extractor.extract(&sound)?;
                    (log_mel, Some(chroma))
                }
            };
            let phrase = extractor.extract(&phrase)?;
            let (source, target) = (conversion.source.number, conversion.target.number);
            Ok(Figures {
                mel_l1: matched_distance(&log_mel, &truth.log_mel).with_context(|| {
                    format!("{} as {}", conversion.source.name, conversion.target.name)
                })?,
                chroma: chroma.map(|chroma| {
                    let converted = Features {
                        chroma,
                        ..truth.clone()
                    };
                    chroma_similarity(&converted, &phrase)
                }),
                as_target: instruments.nearest(&log_mel) == target,
                rather_target: instruments.is_rather(&log_mel, target, source),
            })
        },
    )
}

/// The truth, as a method would be measured that makes it.
///
/// # Errors
///
/// Returns an error if a rendering cannot be analysed.
pub fn truths(conversions: &[Conversion], instruments: &Instruments) -> Result<Vec<Figures>> {
    parallel::map(
        "Analysing",
        conversions,
        FeatureExtractor::new,
        |extractor, conversion| {
            let truth = extractor.extract(&clip(&conversion.truth))?;
            let phrase = extractor.extract(&clip(&conversion.phrase))?;
            let (source, target) = (conversion.source.number, conversion.target.number);
            Ok(Figures {
                mel_l1: 0.0,
                chroma: Some(chroma_similarity(&truth, &phrase)),
                as_target: instruments.nearest(&truth.log_mel) == target,
                rather_target: instruments.is_rather(&truth.log_mel, target, source),
            })
        },
    )
}

/// Mean absolute difference of two log-mels in nepers, after the first was brought to the mean amplitude of the second.
fn matched_distance(found: &LogMel, truth: &LogMel) -> Result<f32> {
    let values = found.values().len().min(truth.values().len());
    anyhow::ensure!(values > 0, "expected log-mels with frames, found none");
    let (found, truth) = (&found.values()[..values], &truth.values()[..values]);
    let amplitude = |values: &[f32]| values.iter().map(|value| value.exp()).sum::<f32>();
    let gain = (amplitude(truth) / amplitude(found).max(f32::MIN_POSITIVE)).ln();
    let pairs = found.iter().zip(truth);
    let differences = pairs.map(|(found, truth)| {
        let levelled = (found + gain).max(MEL_FLOOR.ln());
        (levelled - truth).abs()
    });
    Ok(differences.sum::<f32>() / values as f32)
}

/// One of the figures.
type FigureOf = fn(&Figures) -> Option<f32>;

/// The table of a set of conversions: the figures of every method, then those of the model's voice less those of the envelope.
pub fn table(title: &str, model: &str, scores: &[(String, Vec<Figures>)]) -> Table {
    let mean = |values: Vec<f32>| (!values.is_empty()).then(|| Measured::mean(values.into_iter()));
    let columns: [(&str, FigureOf); 4] = [
        ("mel L1 to the truth, nepers", |x| Some(x.mel_l1)),
        ("chroma similarity to A", |x| x.chroma),
        ("taken for B among all", |x| Some(f32::from(x.as_target))),
        ("rather B than A", |x| Some(f32::from(x.rather_target))),
    ];
    let mut rows: Vec<Row> = scores
        .iter()
        .map(|(name, figures)| Row {
            name: name.clone(),
            cells: columns
                .iter()
                .map(|(_, value)| mean(figures.iter().filter_map(value).collect()))
                .collect(),
        })
        .collect();
    let of = |name: &str| {
        let found = scores.iter().find(|(other, _)| other == name);
        found.map(|(_, figures)| figures)
    };
    if let (Some(voice), Some(envelope)) = (of(&voice_row(model)), of(ENVELOPE)) {
        let difference = |value: &FigureOf| {
            let pairs = voice.iter().zip(envelope);
            let differences = pairs.filter_map(|(a, b)| Some(value(a)? - value(b)?));
            mean(differences.collect())
        };
        rows.push(Row {
            name: "guided voice less envelope".to_owned(),
            cells: columns.iter().map(|(_, value)| difference(value)).collect(),
        });
    }
    Table {
        title: title.to_owned(),
        note: "Means over the phrases, with their 95 % intervals.".to_owned(),
        columns: columns.map(|(name, _)| name.to_owned()).to_vec(),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_makes_no_distance_but_a_colour_does() {
        let log_mel = |tilt: f32, level: f32| {
            let values = (0..10 * 128).map(|n| level + tilt * (n % 128) as f32 / 128.0);
            LogMel::from_values(128, values.collect()).unwrap()
        };
        let truth = log_mel(-2.0, -1.0);
        let same = matched_distance(&log_mel(-2.0, -4.0), &truth).unwrap();
        assert!(same < 1e-4, "{same}");
        let other = matched_distance(&log_mel(2.0, -4.0), &truth).unwrap();
        assert!(other > 0.8, "{other}");
    }

    #[test]
    fn a_table_has_the_difference_of_each_pair() {
        let figures = |mel_l1: f32| Figures {
            mel_l1,
            chroma: Some(0.5),
            as_target: false,
            rather_target: true,
        };
        let scores = [
            (ENVELOPE.to_owned(), vec![figures(1.0), figures(3.0)]),
            (voice_row("m"), vec![figures(0.5), figures(2.5)]),
        ];
        let table = table("lines", "m", &scores);
        let column = &table.columns[0];
        let difference = table.cell("guided voice less envelope", column).unwrap();
        assert_eq!((difference.value, difference.low), (-0.5, -0.5));
        assert_eq!(table.cell(ENVELOPE, column).unwrap().value, 2.0);
    }
}
