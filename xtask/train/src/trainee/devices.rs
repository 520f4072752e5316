//! Whole training steps give the same results on every device.
//!
//! A GPU composes convolutions of other operations than the CPU, adds in another order, and rounds factors to 11 bits
//! (TF32). The operations also run on the CPU, so that most of this is tested without a GPU.
//!
//! Only a few steps can be compared, because training magnifies every difference: Adam's first steps move each weight
//! by about the same distance, whatever the size of its gradient. How fast depends on the start and the material. From a
//! last layer of zeros, on pure tones, whose other bands lie at the floor of the mel, a change of the weights by 1e-7
//! changes the mel loss of the tenth step by up to 1 %, and rounded factors by up to 5 %. On the sound below, behind a
//! last layer with weights, the first changes no loss of five steps by more than 3e-4, and the second none by more than
//! 1e-2.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use graft_material::audio_cache::Pcm;
use vocoder::conv::as_on_a_gpu;

use super::Trainee;
use super::network::{NetworkMaterial, NetworkTrainee};
use super::voice::VoiceTrainee;
use crate::checkpoint::CheckpointHeader;
use crate::dataset::{Partition, Track};
use crate::recipe::Recipe;
use crate::voice::segments::VoiceMaterial;
use crate::wave::wave;
use crate::weights::Weights;

const STEPS: u64 = 5;

/// Largest differences.
struct Limits {
    /// Of the gradient of a variable in the first step, relative to its length.
    gradient: f64,
    /// Of any loss in any step, relative to the loss.
    loss: f64,
}

/// After a change of the weights by 1e-7. Measured: 1.1e-5 and 3e-4.
const LAST_BITS: Limits = Limits {
    gradient: 1e-4,
    loss: 1e-3,
};

/// Between devices that do not round. Measured with composed convolutions: 7e-6 and 1e-4. An error of 1 % in the
/// gradients of one kind of layer makes a gradient differ by 8e-3.
const EXACT: Limits = Limits {
    gradient: 1e-3,
    loss: 3e-3,
};

/// With factors rounded to 11 bits. Measured with such factors on the CPU: 0.028 and 0.01.
#[cfg(feature = "cuda")]
const ROUNDED: Limits = Limits {
    gradient: 0.1,
    loss: 0.05,
};

/// Losses below are compared with this one.
const LEAST_LOSS: f64 = 0.01;

const NETWORK: &str = r#"
    name = "tiny"
    [network]
    kind = "pitch-aligned"
    harmony_channels = 3
    harmony_latents = 1
    pool_frames = 4
    rhythm_channels = 2
    rhythm_latents = 2
    rhythm_planes = 2
    decoder_channels = 3
    mel_mean = -4.5
    mel_deviation = 2.2
    [crops]
    seed = 1
    batch = 2
    frames = 64
    max_shift_semitones = 3
    unshifted_share = 0.1
    two_views = true
    gain_nepers = 0.5
    tuning_cents = 30
    equaliser_db = 6
    [loss]
    reconstruction = "l1"
    kl_harmony = 0.01
    kl_rhythm = 0.02
    cycle = 0.1
    [adversarial]
    weight = 0.1
    feature_matching = 1.0
    start_step = 0
    channels = 2
    learning_rate = 1e-3
    [optimiser]
    learning_rate = 1e-3
    half_life_steps = 100
    learning_rate_floor = 1e-4
    betas = [0.9, 0.99]
    clip_norm = 5.0
    average_decay = 0.99
    checkpoint_steps = 100
    validation_steps = 100
"#;

const VOICE: &str = r#"
    name = "tiny"
    [generator]
    n_mels = 128
    upsample_rates = [8, 8, 4, 2]
    upsample_kernel_sizes = [16, 16, 8, 4]
    upsample_initial_channel = 32
    resblock = "2"
    resblock_kernel_sizes = [3]
    resblock_dilation_sizes = [[1, 3]]
    causal = true
    template = true
    [segments]
    seed = 1
    batch = 2
    frames = 8
    gain_nepers = 0.5
    [loss]
    mel = 45
    stft = 15
    [adversarial]
    weight = 1
    feature_matching = 2
    start_step = 0
    learning_rate = 4e-4
    [adversarial.discriminators]
    periods = [2, 3]
    period_width = 0.0625
    scales = 1
    scale_width = 0.125
    resolutions = [512]
    resolution_width = 0.125
    [optimiser]
    learning_rate = 4e-4
    half_life_steps = 30000
    learning_rate_floor = 1e-5
    betas = [0.8, 0.99]
    weight_decay = 0.01
    clip_norm = 1
    average_decay = 0.9
    checkpoint_steps = 100
    validation_steps = 100
"#;

/// What computes the steps.
#[derive(Clone, Copy, Debug)]
enum Computer {
    /// The CPU's own kernels.
    Cpu,
    /// The operations of a GPU, on the CPU.
    Composed,
    /// The first GPU, with products as exact as on the CPU.
    #[cfg(feature = "cuda")]
    Gpu,
    /// The first GPU as it trains.
    #[cfg(feature = "cuda")]
    RoundingGpu,
}

impl Computer {
    fn device(self) -> Device {
        match self {
            Self::Cpu | Self::Composed => Device::Cpu,
            #[cfg(feature = "cuda")]
            Self::Gpu | Self::RoundingGpu => crate::device::DeviceName::Cuda(0).open().unwrap(),
        }
    }

    fn run<T>(self, work: impl FnOnce() -> T) -> T {
        match self {
            Self::Cpu => work(),
            Self::Composed => as_on_a_gpu(work),
            #[cfg(feature = "cuda")]
            Self::Gpu => vocoder::conv::exactly(work),
            #[cfg(feature = "cuda")]
            Self::RoundingGpu => work(),
        }
    }
}

type State = HashMap<String, Tensor>;

/// Results of a few steps.
struct Steps {
    /// Losses and scores of each step, by name.
    losses: Vec<BTreeMap<String, f64>>,
    /// Gradients of the first step by variable, up to a common factor.
    gradients: BTreeMap<String, Vec<f32>>,
}

impl Steps {
    #[track_caller]
    fn assert_near(&self, expected: &Self, limits: &Limits) {
        for (name, gradient) in &self.gradients {
            let expected = &expected.gradients[name];
            let length = |values: &mut dyn Iterator<Item = f32>| -> f64 {
                let squares = values.map(|value| f64::from(value).powi(2));
                squares.sum::<f64>().sqrt()
            };
            let difference = length(&mut gradient.iter().zip(expected).map(|(a, b)| a - b));
            let expected = length(&mut expected.iter().copied());
            assert!(
                expected > 0.0 && difference <= limits.gradient * expected,
                "gradient of {name}: {difference:.1e} off, of {expected:.1e}"
            );
        }
        for (step, (losses, expected)) in self.losses.iter().zip(&expected.losses).enumerate() {
            for (name, loss) in losses {
                let expected = expected[name];
                assert!(
                    (loss - expected).abs() <= limits.loss * expected.abs().max(LEAST_LOSS),
                    "{name} of step {step}: {loss}, expected {expected}"
                );
            }
        }
    }
}

/// Trains a few steps.
fn train(mut trainee: impl Trainee, recipe: &Recipe, computer: Computer) -> Result<Steps> {
    let mut header = CheckpointHeader::new(recipe.clone(), None);
    let mut losses = Vec::new();
    let mut gradients = BTreeMap::new();
    for step in 0..STEPS {
        header.step = step;
        let batch = trainee.next_batch()?;
        let report = computer.run(|| trainee.step(&header, batch))?;
        let mut numbers = BTreeMap::new();
        flatten("", &report.figures, &mut numbers);
        // The length of a gradient differs far more than the losses.
        numbers.retain(|name, _| !name.ends_with("gradient_norm"));
        losses.push(numbers);
        if step == 0 {
            // The moments start at zero, so that the first ones are the gradients times a constant.
            for (name, moment) in trainee.state()? {
                if name.contains("moment1/") {
                    gradients.insert(name, moment.flatten_all()?.to_vec1()?);
                }
            }
        }
    }
    Ok(Steps { losses, gradients })
}

/// All numbers in a JSON object, by path.
fn flatten(path: &str, value: &serde_json::Value, numbers: &mut BTreeMap<String, f64>) {
    match value {
        serde_json::Value::Object(parts) => {
            for (name, part) in parts {
                flatten(&format!("{path}/{name}"), part, numbers);
            }
        }
        value => {
            numbers.insert(path.to_owned(), value.as_f64().unwrap());
        }
    }
}

/// Chords with strokes and noise: no band of the mel is silent.
fn music() -> Partition {
    let track = |number: u32| {
        let hz = 110.0 * f64::from(number + 2);
        let samples: Vec<f32> = (0..5 * 22_050)
            .map(|n| {
                let seconds = f64::from(n) / 22_050.0;
                let tone = |ratio: f64| (std::f64::consts::TAU * hz * ratio * seconds).sin();
                let chord = tone(1.0) + tone(1.26) + 0.5 * tone(2.99) + 0.3 * tone(5.02);
                let noise = (0.37 * f64::from(n) * f64::from(n)).sin();
                let stroke = (-(seconds % 0.31) * 30.0).exp();
                (0.1 * chord + (0.02 + 0.3 * stroke) * noise) as f32
            })
            .collect();
        Arc::new(Track {
            path: format!("{number}.wav").into(),
            artist: number.to_string(),
            pcm: Pcm::normalised(&samples, 22_050).unwrap(),
        })
    };
    Partition {
        training: vec![track(0), track(1)],
        validation: vec![track(2)],
        sample_rate_hz: 22_050,
    }
}

fn voice(start: Option<State>, computer: Computer) -> Result<(VoiceTrainee, Recipe)> {
    let recipe: Recipe = toml::from_str(VOICE)?;
    let Recipe::Voice(settings) = recipe.clone() else {
        panic!("expected a recipe for a voice");
    };
    let header = CheckpointHeader::new(recipe.clone(), None);
    let material = VoiceMaterial {
        parts: music(),
        reconstructor: None,
    };
    let weights = start.map_or(Weights::Random, Weights::Checkpoint);
    let trainee = VoiceTrainee::new(settings, &header, &weights, material, computer.device())?;
    Ok((trainee, recipe))
}

fn network(start: Option<State>, computer: Computer) -> Result<(NetworkTrainee, Recipe)> {
    let recipe: Recipe = toml::from_str(NETWORK)?;
    let Recipe::Network(settings) = recipe.clone() else {
        panic!("expected a recipe for a network");
    };
    let header = CheckpointHeader::new(recipe.clone(), None);
    let material = NetworkMaterial {
        parts: music(),
        data: &[],
        drums: &[],
    };
    let weights = start.map_or(Weights::Random, Weights::Checkpoint);
    let trainee = NetworkTrainee::new(settings, &header, &weights, material, computer.device())?;
    Ok((trainee, recipe))
}

/// A state with a last layer that is not zero: behind zeros, no other layer has a gradient.
fn awake(mut state: State) -> Result<State> {
    let key = "weight/conv_post.weight";
    let weight = wave(state[key].dims(), 0.5)?.to_dtype(DType::F32)?;
    state.insert(key.to_owned(), (weight * 0.2)?);
    Ok(state)
}

/// The state with weights times 1 plus or minus 1e-7.
fn perturbed(state: &State) -> Result<State> {
    let perturb = |(name, tensor): (&String, &Tensor)| {
        let mut tensor = tensor.clone();
        if name.contains("weight/") {
            let factors = wave(tensor.dims(), 0.5)?.sign()?.affine(1e-7, 1.0)?;
            tensor = (tensor.to_dtype(DType::F64)? * factors)?.to_dtype(DType::F32)?;
        }
        Ok((name.clone(), tensor))
    };
    state.iter().map(perturb).collect()
}

/// Compares what others than the CPU compute from a state with what the CPU does. `steps` trains from it.
fn compare(
    start: &State,
    others: &[(Computer, Limits)],
    steps: impl Fn(State, Computer) -> Result<Steps>,
) -> Result<()> {
    let expected = steps(start.clone(), Computer::Cpu)?;
    steps(perturbed(start)?, Computer::Cpu)?.assert_near(&expected, &LAST_BITS);
    for (computer, limits) in others {
        steps(start.clone(), *computer)?.assert_near(&expected, limits);
    }
    Ok(())
}

fn compare_voices(others: &[(Computer, Limits)]) -> Result<()> {
    let start = awake(voice(None, Computer::Cpu)?.0.state()?)?;
    compare(&start, others, |start, computer| {
        let (trainee, recipe) = voice(Some(start), computer)?;
        train(trainee, &recipe, computer)
    })
}

fn compare_networks(others: &[(Computer, Limits)]) -> Result<()> {
    let start = network(None, Computer::Cpu)?.0.state()?;
    compare(&start, others, |start, computer| {
        let (trainee, recipe) = network(Some(start), computer)?;
        train(trainee, &recipe, computer)
    })
}

#[test]
fn a_voice_trains_with_composed_convolutions_as_with_the_cpus() -> Result<()> {
    compare_voices(&[(Computer::Composed, EXACT)])
}

#[test]
fn a_network_trains_with_composed_convolutions_as_with_the_cpus() -> Result<()> {
    compare_networks(&[(Computer::Composed, EXACT)])
}

/// Needs a GPU, as does the build that this is in.
#[cfg(feature = "cuda")]
#[test]
fn a_gpu_trains_as_the_cpu_does() -> Result<()> {
    let others = || [(Computer::Gpu, EXACT), (Computer::RoundingGpu, ROUNDED)];
    compare_networks(&others())?;
    compare_voices(&others())
}
