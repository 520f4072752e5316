//! The remix of a whole clip at once, from the parts that know no steps: the reference for the remix in steps.

use std::f32::consts::FRAC_PI_2;

use candle_core::Tensor;
use model_runtime::tensors::{to_log_mels, to_tensor};
use model_runtime::{AudioClip, Factor, FactorMap, Model, RemixSettings, Voice, resample};
use vocoder::generated::GeneratedVoice;
use vocoder::griffin_lim::{DEFAULT_ITERATIONS, GriffinLim};
use vocoder::guided::{
    FrameControls, GuidedConfig, GuidedVoice, SHAPED_GAIN_LIMIT, ShapedControls, ShapedVoice,
};
use vocoder::{LogMel, MelSpectrogram, Spectrum};

/// The remix of two clips of the same rate, number of channels and length, channel by channel.
pub fn whole_remix(
    model: &Model,
    main: &AudioClip,
    sidechain: &AudioClip,
    settings: &RemixSettings,
) -> Vec<Vec<f32>> {
    let mel = &model.header().mel;
    let host_hz = main.sample_rate_hz;
    let samples = main.channels[0].len();
    let mut remix = match settings.voice {
        Voice::Guided => {
            let sources = [middle(&main.channels), middle(&sidechain.channels)];
            let decoded = decode(model, &sources, host_hz, settings).remove(0);
            if has_pitch(model) {
                return shaped(model, main, sidechain, &decoded, settings);
            }
            let guided = guided(model, main, sidechain, &decoded, settings);
            match settings.controls.generated {
                0.0 => guided.channels,
                _ => blend(model, &guided, &decoded, host_hz, settings),
            }
        }
        Voice::GriffinLim => {
            let sources = [main.channels.as_slice(), &sidechain.channels].concat();
            let mut voice = GriffinLim::new(mel, DEFAULT_ITERATIONS).unwrap();
            let decoded = decode(model, &sources, host_hz, settings);
            let channels = decoded.iter().map(|mel| voice.samples(mel).unwrap());
            channels
                .map(|channel| resample(&channel, mel.sample_rate_hz, host_hz).unwrap())
                .collect()
        }
    };
    for channel in &mut remix {
        channel.resize(samples, 0.0);
    }
    remix
}

fn middle(channels: &[Vec<f32>]) -> Vec<f32> {
    let mean = |n| channels.iter().map(|channel| channel[n]).sum::<f32>() / channels.len() as f32;
    (0..channels[0].len()).map(mean).collect()
}

/// The decoded log-mels, one per channel of the remix. `sources` holds the channels of the main input, then as many of
/// the sidechain.
fn decode(
    model: &Model,
    sources: &[Vec<f32>],
    host_hz: u32,
    settings: &RemixSettings,
) -> Vec<LogMel> {
    let config = &model.header().mel;
    let window = settings.mode.analysis_window(config);
    let mut analysis = MelSpectrogram::with_window(config, window).unwrap();
    let mels: Vec<LogMel> = sources
        .iter()
        .map(|source| analysis.log_mel(&resample(source, host_hz, config.sample_rate_hz).unwrap()))
        .collect();
    let network = model.limited_network(settings.mode).unwrap();
    let latents = network.encode(&to_tensor(&mels).unwrap()).unwrap();
    let mixed: FactorMap<Tensor> = latents.map(|factor, latent| {
        let halves = latent.mean.chunk(2, 0).unwrap();
        let share = f64::from(settings.controls[factor].share);
        // The phases of a template depend on the last bit of the mel, so this rounds as the stream does.
        let difference = (&halves[1] - &halves[0]).unwrap();
        let mixed = (&halves[0] + (difference * share).unwrap()).unwrap();
        let shifts = vec![settings.controls.transpose_semitones; sources.len() / 2];
        network.transpose(factor, &mixed, &shifts).unwrap()
    });
    to_log_mels(&network.decode(&mixed).unwrap()).unwrap()
}

/// The guided voice with all that it passes on to the generated one.
struct Guided {
    channels: Vec<Vec<f32>>,
    gains: Vec<f32>,
    spectra: Vec<Spectrum>,
}

/// The guided voice.
fn guided(
    model: &Model,
    main: &AudioClip,
    sidechain: &AudioClip,
    decoded: &LogMel,
    settings: &RemixSettings,
) -> Guided {
    let channels = main.channels.len();
    let network = model.limited_network(settings.mode).unwrap();
    let look_ahead = settings
        .mode
        .median_look_ahead_frames(network.look_ahead_frames());
    let config = GuidedConfig {
        median_frames: settings.mode.median_frames(),
        look_ahead_frames: Some(look_ahead),
        ..guided_config(model, main, settings)
    };
    let controls = FrameControls {
        harmony: settings.controls[Factor::Harmony].share,
        rhythm: settings.controls[Factor::Rhythm].share,
        transpose_semitones: settings.controls.transpose_semitones,
        ..FrameControls::default()
    };
    let [main, sidechain] = [main, sidechain].map(slices);
    let mut voice = GuidedVoice::new(&config).unwrap().with_spectra();
    let mut out = vec![Vec::new(); channels];
    voice
        .push_mel(decoded, &vec![controls; decoded.frames()])
        .unwrap();
    voice.push_audio(&main, &sidechain).unwrap();
    voice.finish(&mut out).unwrap();
    let mut spectra = voice.take_spectra();
    spectra.truncate(decoded.frames());
    Guided {
        channels: out,
        gains: voice.output_gains().to_vec(),
        spectra,
    }
}

fn guided_config(model: &Model, main: &AudioClip, settings: &RemixSettings) -> GuidedConfig {
    let mel = &model.header().mel;
    GuidedConfig {
        window: settings.mode.analysis_window(mel),
        synthesis_hops: settings.mode.synthesis_hops(),
        ..GuidedConfig::new(mel.clone(), main.sample_rate_hz, main.channels.len())
    }
}

fn slices(clip: &AudioClip) -> Vec<&[f32]> {
    clip.channels.iter().map(Vec::as_slice).collect()
}

fn has_pitch(model: &Model) -> bool {
    let mut factors = model.network().factors().iter();
    factors.any(|layout| layout.factor == Factor::Pitch)
}

/// The guided voice of a model with the factor pitch.
fn shaped(
    model: &Model,
    main: &AudioClip,
    sidechain: &AudioClip,
    decoded: &LogMel,
    settings: &RemixSettings,
) -> Vec<Vec<f32>> {
    let controls = ShapedControls {
        pitch: settings.controls[Factor::Pitch].share,
        variation: settings.controls[Factor::Variation].share,
        transpose_semitones: settings.controls.transpose_semitones,
    };
    let config = GuidedConfig {
        gain_limit: SHAPED_GAIN_LIMIT,
        ..guided_config(model, main, settings)
    };
    let mut voice = ShapedVoice::new(&config).unwrap();
    let mut out = vec![Vec::new(); main.channels.len()];
    voice
        .push_mel(decoded, &vec![controls; decoded.frames()])
        .unwrap();
    voice.push_audio(&slices(main), &slices(sidechain)).unwrap();
    voice.finish(&mut out).unwrap();
    out
}

/// The blend of guided and generated voice, with constant knobs.
fn blend(
    model: &Model,
    guided: &Guided,
    decoded: &LogMel,
    host_hz: u32,
    settings: &RemixSettings,
) -> Vec<Vec<f32>> {
    let (channels, gains) = (&guided.channels, &guided.gains);
    let model_hz = model.header().mel.sample_rate_hz;
    let samples = channels[0].len();
    let to_host = |samples_at_model: &[f32]| {
        let mut at_host = resample(samples_at_model, model_hz, host_hz).unwrap();
        at_host.resize(samples, 0.0);
        at_host
    };
    let low: Vec<Vec<f32>> = channels
        .iter()
        .map(|channel| to_host(&resample(channel, host_hz, model_hz).unwrap()))
        .collect();
    let low_middle = middle(&low);
    let mut voice = GeneratedVoice::new(
        model.generator().unwrap(),
        model.magnitudes(),
        &model.header().mel,
    )
    .unwrap();
    let generated = voice.samples_with(decoded, Some(&guided.spectra)).unwrap();
    let generated = to_host(&generated);
    let (voice, air) = (settings.controls.generated, settings.controls.air);
    // The voices correlate by 0.6.
    let angle = FRAC_PI_2 * voice;
    let power = 1.0 + 1.2 * angle.cos() * angle.sin();
    let channels = channels.iter().zip(&low);
    channels
        .map(|(guided, low)| {
            (0..samples)
                .map(|n| {
                    let side = low[n] - low_middle[n];
                    let high = guided[n] - low[n];
                    (angle.cos() * low_middle[n] + angle.sin() * gains[n] * generated[n])
                        / power.sqrt()
                        + side
                        + (1.0 - voice + voice * air) * high
                })
                .collect()
        })
        .collect()
}
