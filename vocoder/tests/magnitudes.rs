//! The network that predicts magnitudes from mels, and Griffin-Lim with its predictions.

mod signals;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use signals::{music, noise};
use vocoder::griffin_lim::GriffinLimStream;
use vocoder::magnitudes::{MagnitudeNetwork, MagnitudeState, MagnitudesConfig};
use vocoder::{LogMel, MEL_FLOOR, MelConfig, MelFilterBank, MelSpectrogram};

/// A network with arbitrary weights, about as large as trained ones.
fn network() -> MagnitudeNetwork {
    let vars = VarMap::new();
    let build = |builder| {
        let config = MagnitudesConfig { channels: 16 };
        MagnitudeNetwork::new(&config, &MelConfig::default(), &builder).unwrap()
    };
    build(VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu));
    for (seed, (_, var)) in vars.data().lock().unwrap().iter().enumerate() {
        let values = noise(var.elem_count() as u32 + seed as u32, var.elem_count());
        let bound = (16.0 / var.elem_count() as f64).sqrt();
        let weights = Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap();
        var.set(&(weights * bound).unwrap()).unwrap();
    }
    build(VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu))
}

fn log_mel(samples: &[f32]) -> LogMel {
    MelSpectrogram::new(&MelConfig::default())
        .unwrap()
        .log_mel(samples)
}

/// Frames from `first` to before `end`.
fn frames(mel: &LogMel, first: usize, end: usize) -> LogMel {
    let values = mel.values()[first * mel.n_mels()..end * mel.n_mels()].to_vec();
    LogMel::from_values(mel.n_mels(), values).unwrap()
}

#[test]
fn without_corrections_a_flat_spectrum_is_found_again() {
    let config = MelConfig::default();
    let zeros = VarBuilder::zeros(DType::F32, &Device::Cpu);
    let network =
        MagnitudeNetwork::new(&MagnitudesConfig { channels: 4 }, &config, &zeros).unwrap();
    let mut mel = vec![0.0; config.n_mels];
    let bank = MelFilterBank::new(&config).unwrap();
    bank.apply(&vec![0.3; config.n_bins()], &mut mel);
    let mel: Vec<f32> = mel.iter().map(|x| x.ln()).collect();
    let mel = Tensor::from_vec(mel, (1, config.n_mels, 1), &Device::Cpu).unwrap();
    let found = network.forward(&mel).unwrap().flatten_all().unwrap();
    let found = found.to_vec1::<f32>().unwrap();
    // The first and the last bin belong to no band.
    assert!(found[1..1024].iter().all(|x| (x - 0.3).abs() < 1e-5));
    assert_eq!((found[0], found[1024]), (0.0, 0.0));
}

#[test]
fn steps_give_the_whole_clip() {
    let (network, mel) = (network(), log_mel(&music()));
    let shape = (1, mel.frames(), mel.n_mels());
    let by_frame = Tensor::from_slice(mel.values(), shape, &Device::Cpu).unwrap();
    let whole = network.forward(&by_frame.transpose(1, 2).unwrap()).unwrap();
    let whole = whole.transpose(1, 2).unwrap().flatten_all().unwrap();
    let whole = whole.to_vec1::<f32>().unwrap();
    let mut state = MagnitudeState::default();
    for (frame, whole) in whole.chunks_exact(1025).enumerate() {
        let stepped = network.step(&mut state, mel.frame(frame)).unwrap();
        assert_eq!(stepped.len(), 1025);
        for (bin, (stepped, whole)) in stepped.iter().zip(whole).enumerate() {
            let close = (stepped - whole).abs() <= 1e-5 * whole.max(1e-3);
            assert!(close, "frame {frame}, bin {bin}: {stepped}, {whole}");
        }
    }
}

fn stream(network: Option<&MagnitudeNetwork>) -> GriffinLimStream {
    let stream = GriffinLimStream::new(&MelConfig::default()).unwrap();
    stream.with_network(network)
}

#[test]
fn griffin_lim_with_a_network_does_not_depend_on_how_the_mel_is_cut() {
    let (network, mel) = (network(), log_mel(&music()));
    let streams = [1, 7].map(|step| {
        let mut stream = stream(Some(&network));
        // The state of an earlier clip must not matter.
        if step > 1 {
            stream.push(&mel, &mut Vec::new()).unwrap();
            stream.reset();
        }
        let mut out = Vec::new();
        for first in (0..mel.frames()).step_by(step) {
            let end = (first + step).min(mel.frames());
            stream.push(&frames(&mel, first, end), &mut out).unwrap();
        }
        stream.finish(&mut out);
        out
    });
    let [a, b] = &streams;
    assert!(a == b);

    // The sound changes, but its mel is still the given one.
    let mut plain = Vec::new();
    let mut stream = stream(None);
    stream.push(&mel, &mut plain).unwrap();
    stream.finish(&mut plain);
    assert!(a != &plain);
    let found = log_mel(a);
    let distances = found.values().iter().zip(mel.values());
    let distance = distances.map(|(a, b)| (a - b).abs()).sum::<f32>() / mel.values().len() as f32;
    assert!(distance < 0.2, "{distance} nepers");
}

#[test]
fn no_mel_gives_anything_but_finite_numbers() {
    let network = network();
    for value in [
        MEL_FLOOR.ln(),
        0.0,
        200.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ] {
        let mel = LogMel::from_values(128, vec![value; 6 * 128]).unwrap();
        let (mut stream, mut out) = (stream(Some(&network)), Vec::new());
        stream.push(&mel, &mut out).unwrap();
        stream.finish(&mut out);
        assert!(out.iter().all(|x| x.is_finite()), "log-mel of {value}");
    }
}

#[test]
fn another_number_of_bands_is_refused() {
    let error = network().step(&mut MagnitudeState::default(), &[0.0; 80]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("128") && error.contains("80"), "{error}");
    assert!(MagnitudesConfig { channels: 0 }.validate().is_err());
}
