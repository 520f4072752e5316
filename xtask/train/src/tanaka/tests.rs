use super::batches::{NoteAnalysis, NoteSampler, Perturbation};
use super::loss::{Parts, TanakaLoss};
use super::network::{Inputs, PitchEncoder, Tanaka, TanakaConfig};
use super::pictures;
use crate::batches::MakeBatch;
use crate::notes::{Note, NoteLabel, NoteSet};
use crate::optim::{Adam, AdamConfig};
use crate::parameters::Parameters;
use crate::perturbation::spectra::Analysis;
use crate::wave::{digest, wave};
use candle_core::{DType, Device, Tensor};
use graft_material::audio_cache::Pcm;
use graft_material::testing::TestFolder;
use model_runtime::Factor;
use model_runtime::latent::Latent;
use std::sync::Arc;
use vocoder::conv::as_on_a_gpu;

fn config(pitch_encoder: PitchEncoder) -> TanakaConfig {
    TanakaConfig {
        pitch_encoder,
        hidden: 3,
        timbre_latents: 2,
        variation_latents: 2,
        pitch_latents: 2,
        log_mean: -1.5,
        log_deviation: 2.0,
    }
}

const LOSS: TanakaLoss = TanakaLoss {
    variance: 0.5,
    beta: 1.0,
    cycle_steps: 100,
};

fn wave_f32(shape: &[usize], phase: f64) -> Tensor {
    wave(shape, phase).unwrap().to_dtype(DType::F32).unwrap()
}

fn number(tensor: &Tensor) -> f64 {
    digest(&tensor.to_dtype(DType::F64).unwrap().contiguous().unwrap()).unwrap()
}

/// By tests/data/tanaka.py: digest of the decoded spectra; divergences of timbre, variation and pitch; loss; sum of the digests of
/// the gradients of all weights.
const INDEPENDENT: [f64; 6] = [
    3.0221077992461627,
    0.7246893632100602,
    1.1891913089383,
    2.494361990450481,
    199.9268329394267,
    -220.1223558695828,
];
const CONDITIONAL: [f64; 6] = [
    3.089800117658034,
    0.7246893632100602,
    1.1891913089383,
    2.2071298699360744,
    197.91890989489465,
    -218.66390226065369,
];

fn figures(pitch_encoder: PitchEncoder) -> [f64; 6] {
    let analysis = Analysis {
        sample_rate_hz: 22_050,
        n_fft: 16,
        hop_length: 4,
        frames: 5,
        cut: 4,
    };
    let parameters = Parameters::new(1);
    let builder = parameters.builder(&Device::Cpu);
    let network = Tanaka::new(&config(pitch_encoder), &analysis, &builder).unwrap();
    let vars = parameters.vars();
    for (index, var) in vars.values().enumerate() {
        let weight = (wave_f32(var.dims(), index as f64) * 0.5).unwrap();
        var.set(&weight).unwrap();
    }
    let mask = [1f32, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0];
    let inputs = Inputs {
        cepstra: wave_f32(&[5, 2, 4], 0.1),
        fine: wave_f32(&[5, 2, 9], 0.2),
        mask: Tensor::from_slice(&mask, (5, 2, 1), &Device::Cpu).unwrap(),
    };
    let target = wave_f32(&[5, 2, 9], 0.3);
    let value = |latent: &Latent| Ok((&latent.mean + (&latent.spread * 0.5)?)?);
    let (_, values) = network.encode(&inputs, value).unwrap();
    let decoded = network.decode(&values).unwrap();
    let parts = Parts::of(&network, &inputs, &target, value).unwrap();
    let total = parts.total(&LOSS, 0.3).unwrap();
    let gradients = total.backward().unwrap();
    let gradient = vars.values().map(|var| number(gradients.get(var).unwrap()));
    let scalar = |tensor: &Tensor| f64::from(tensor.to_scalar::<f32>().unwrap());
    [
        number(&decoded),
        scalar(&parts.kl[Factor::Timbre]),
        scalar(&parts.kl[Factor::Variation]),
        scalar(&parts.kl[Factor::Pitch]),
        scalar(&total),
        gradient.sum(),
    ]
}

#[test]
fn network_and_loss_are_those_of_pytorch() {
    for (encoder, expected) in [
        (PitchEncoder::Independent, INDEPENDENT),
        (PitchEncoder::Conditional, CONDITIONAL),
    ] {
        let found = [figures(encoder), as_on_a_gpu(|| figures(encoder))];
        for (index, expected) in expected.into_iter().enumerate() {
            for found in &found {
                assert!(
                    (found[index] / expected - 1.0).abs() < 1e-4,
                    "{encoder:?}, {index}: {}, expected {expected}",
                    found[index]
                );
            }
        }
    }
}

#[test]
fn the_weight_of_the_divergences_rises_for_half_a_cycle() {
    let betas = [0, 25, 50, 99, 100, 125].map(|step| LOSS.beta_at(step));
    assert_eq!(betas, [0.0, 0.5, 1.0, 1.0, 0.0, 0.5]);
    let half = TanakaLoss { beta: 0.5, ..LOSS };
    assert_eq!(half.beta_at(75), 0.5);
}

fn analysis() -> Analysis {
    Analysis {
        sample_rate_hz: 22_050,
        n_fft: 512,
        hop_length: 256,
        frames: 16,
        cut: 12,
    }
}

/// A tone with partials of an instrument's strengths that lasts for `seconds`.
fn note(instrument: usize, key: u8, seconds: f64) -> Note {
    let hz = 440.0 * ((f64::from(key) - 69.0) / 12.0).exp2();
    let samples: Vec<f32> = (0..8192)
        .map(|n| f64::from(n) / 22_050.0)
        .map(|time| {
            let partial = |k: i32| {
                let strength = 1.0 / f64::from(k).powi(1 + instrument as i32);
                strength * (std::f64::consts::TAU * hz * f64::from(k) * time).sin()
            };
            let sound: f64 = (1..8).map(partial).sum();
            if time < seconds {
                0.2 * sound as f32
            } else {
                0.0
            }
        })
        .collect();
    Note {
        label: NoteLabel {
            instrument,
            key,
            velocity: 100,
        },
        pcm: Pcm::amplified(&samples, 1.0),
    }
}

fn notes() -> NoteSet {
    let notes = [(0, 60), (0, 67), (1, 60), (1, 67)];
    NoteSet {
        instruments: vec!["bright".into(), "dark".into()],
        sample_rate_hz: 22_050,
        notes: notes
            .map(|(instrument, key)| note(instrument, key, 1.0))
            .into(),
    }
}

#[test]
fn the_end_of_a_short_note_counts_nowhere() {
    let mut analyse = NoteAnalysis::new(&analysis()).unwrap();
    let (long, short) = (note(0, 60, 1.0), note(1, 64, 0.1));
    let batch = analyse.plain(&[&long, &short]).unwrap();
    let sounding = |index: usize| batch.mask.iter().skip(index).step_by(2).sum::<f32>();
    // 0.1 s are 8.6 hops, and a window is two.
    assert_eq!(sounding(0), 16.0);
    assert!((9.0..=11.0).contains(&sounding(1)), "{}", sounding(1));

    let parameters = Parameters::new(2);
    let builder = parameters.builder(&Device::Cpu);
    let network = Tanaka::new(&config(PitchEncoder::Independent), &analysis(), &builder).unwrap();
    let loss = |target: &Tensor| {
        let (inputs, _) = batch.tensors(&Device::Cpu).unwrap();
        let parts = Parts::of(&network, &inputs, target, |latent| Ok(latent.mean.clone())).unwrap();
        let total = parts.total(&LOSS, 1.0).unwrap();
        total.to_scalar::<f32>().unwrap()
    };
    let (inputs, target) = batch.tensors(&Device::Cpu).unwrap();
    let behind = (1.0 - inputs.mask).unwrap();
    let changed = target.broadcast_add(&(behind * 5.0).unwrap()).unwrap();
    assert_eq!(loss(&target), loss(&changed));
    assert!(loss(&(target.clone() + 0.1).unwrap()) != loss(&target));
}

#[test]
fn levels_pass_by_the_network() {
    let mut analyse = NoteAnalysis::new(&analysis()).unwrap();
    let loud = note(0, 60, 1.0);
    let mut soft = loud.clone();
    soft.pcm.level *= 0.1;
    let batch = analyse.plain(&[&loud, &soft]).unwrap();
    assert!((batch.levels[0] - batch.levels[1] - 10f32.ln()).abs() < 1e-3);
    let mut pairs = batch
        .cepstra
        .chunks_exact(2 * 12)
        .map(|pair| pair.split_at(12));
    assert!(pairs.all(|(loud, soft)| loud.iter().zip(soft).all(|(a, b)| (a - b).abs() < 1e-2)));
}

#[test]
fn perturbations_change_what_is_heard_and_not_the_target() {
    let set = Arc::new(notes());
    let batch = |max_shift_semitones, effects| {
        let perturbation = Perturbation {
            max_shift_semitones,
            effects,
        };
        NoteSampler::new(set.clone(), &analysis(), &perturbation, 8, 5)
            .unwrap()
            .batch(3)
            .unwrap()
    };
    let (plain, shifted, disturbed) = (batch(0, 0), batch(7, 0), batch(0, 2));
    assert_eq!(plain, batch(0, 0));
    // The draws differ, but for the first note.
    let first = |values: &[f32], width: usize| -> Vec<f32> {
        values
            .chunks_exact(8 * width)
            .flat_map(|frame| frame[..width].to_vec())
            .collect()
    };
    let targets = [&plain, &shifted, &disturbed].map(|batch| first(&batch.target, 257));
    assert!(targets[0] == targets[1] && targets[0] == targets[2]);
    let envelopes = [&plain, &shifted, &disturbed].map(|batch| first(&batch.cepstra, 12));
    assert!(envelopes[0] != envelopes[1] && envelopes[0] == envelopes[2]);
    let fine = [&plain, &shifted, &disturbed].map(|batch| first(&batch.fine, 257));
    assert!(fine[0] == fine[1] && fine[0] != fine[2]);
}

#[test]
fn a_network_learns_notes_by_heart_and_draws_their_swaps() {
    let parameters = Parameters::new(3);
    let builder = parameters.builder(&Device::Cpu);
    let sizes = TanakaConfig {
        hidden: 16,
        timbre_latents: 4,
        variation_latents: 0,
        log_mean: -4.0,
        ..config(PitchEncoder::Independent)
    };
    let network = Tanaka::new(&sizes, &analysis(), &builder).unwrap();
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
    )
    .unwrap();
    let set = notes();
    let of_set: Vec<&Note> = set.notes.iter().collect();
    let batch = NoteAnalysis::new(&analysis())
        .unwrap()
        .plain(&of_set)
        .unwrap();
    let (inputs, target) = batch.tensors(&Device::Cpu).unwrap();
    let mut squares = Vec::new();
    for _ in 0..60 {
        let parts =
            Parts::of(&network, &inputs, &target, |latent| Ok(latent.mean.clone())).unwrap();
        squares.push(parts.mean_square.to_scalar::<f32>().unwrap());
        let gradients = parts.total(&LOSS, 0.01).unwrap().backward().unwrap();
        optimiser.step(&gradients, 1e-2).unwrap();
    }
    let (first, last) = (squares[0], squares[squares.len() - 1]);
    assert!(last < 0.4 * first, "{squares:?}");

    let folder = TestFolder::new("tanaka");
    let path = folder.path().join("swaps.png");
    let pair = pictures::pair(&set.notes).unwrap();
    assert_eq!(
        pair.map(|note| (note.label.instrument, note.label.key)),
        [(0, 60), (1, 67)]
    );
    pictures::draw_swaps(&path, &network, &analysis(), pair, &Device::Cpu).unwrap();
    assert!(std::fs::read(path).unwrap().starts_with(b"\x89PNG"));
}
