//! Network and losses compared with PyTorch. `tests/data/luo.py` computes the reference values.

use std::collections::HashMap;

use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use serde_json::Value;

use super::loss::{contrast, cross_entropy, kl_normal, kl_uniform, sample_pitch, squared_distance};
use super::network::{BatchNorm, LuoConfig, LuoNetwork, Mode};
use super::objective::{Objective, Sampling, SecondView, Views, objective};
use crate::optim::{Adam, AdamConfig};
use crate::parameters::Parameters;
use crate::recipe::luo::LuoLoss;

const BANDS: usize = 12;
const NOTES: usize = 4;
const LATENTS: usize = 3;
const PITCHES: usize = 6;
const TEMPERATURE: f64 = 0.7;

const CONFIG: LuoConfig = LuoConfig {
    latents: LATENTS,
    pitches: PITCHES,
    lowest_key: 60,
    hidden: 7,
    cepstra: 5,
};

fn reference() -> Value {
    serde_json::from_str(include_str!("../../tests/data/luo.json")).unwrap()
}

/// `scale * sin(0.7 n + phase)`, as in the script.
fn wave(count: usize, scale: f64, phase: f64) -> Vec<f32> {
    (0..count)
        .map(|n| (scale * (0.7 * n as f64 + phase).sin()) as f32)
        .collect()
}

fn tensor(rows: usize, values: usize, scale: f64, phase: f64) -> Tensor {
    let wave = wave(rows * values, scale, phase);
    Tensor::from_vec(wave, (rows, values), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let all = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
    all.to_vec1().unwrap()
}

#[track_caller]
fn assert_near(name: &str, found: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (found - expected).abs() <= tolerance * expected.abs().max(0.1),
        "{name}: {found}, expected {expected}"
    );
}

#[track_caller]
fn assert_all_near(name: &str, found: &Tensor, expected: &Value) {
    let (found, expected) = (values(found), expected.as_array().unwrap());
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        assert_near(name, *found, expected, 1e-4);
    }
}

#[test]
fn each_loss_is_that_of_pytorch() -> Result<()> {
    let expected = &reference()["blocks"];
    let (a, b) = (
        tensor(NOTES, LATENTS, 1.5, 1.0),
        tensor(NOTES, LATENTS, 0.8, 2.0),
    );
    let logits = tensor(NOTES, PITCHES, 2.0, 3.0);
    let classes = Tensor::new(&[0u32, 5, 2, 2], &Device::Cpu)?;
    let mask = Tensor::new(&[1f32, 1.0, 1.0, 0.0], &Device::Cpu)?;
    for (name, found) in [
        ("squared_distance", squared_distance(&a, &b)?),
        ("kl_normal", kl_normal(&a, &b)?),
        ("kl_uniform", kl_uniform(&logits)?),
        ("cross_entropy", cross_entropy(&logits, &classes, None)?),
        (
            "masked_cross_entropy",
            cross_entropy(&logits, &classes, Some(&mask))?,
        ),
        ("contrast", contrast(&a, &b)?),
    ] {
        let found: f32 = found.to_scalar()?;
        assert_near(name, found.into(), &expected[name], 1e-5);
    }
    // Nothing is known of a batch that is out of range.
    let none = cross_entropy(&logits, &classes, Some(&mask.zeros_like()?))?;
    assert_eq!(none.to_scalar::<f32>()?, 0.0);
    Ok(())
}

#[test]
fn sampled_pitches_are_hard_and_their_gradients_soft() -> Result<()> {
    let expected = &reference()["gumbel"];
    let logits = Var::from_tensor(&tensor(NOTES, PITCHES, 2.0, 3.0))?;
    let noise = tensor(NOTES, PITCHES, 1.0, 4.0);
    let sample = sample_pitch(logits.as_tensor(), &noise, TEMPERATURE)?;
    assert_all_near("sample", &sample, &expected["sample"]);
    let loss = (sample * tensor(NOTES, PITCHES, 1.0, 5.0))?.sum_all()?;
    let gradients = loss.backward()?;
    assert_all_near(
        "gradient",
        gradients.get(&logits).unwrap(),
        &expected["gradient"],
    );
    Ok(())
}

#[test]
fn batch_norm_is_that_of_pytorch() -> Result<()> {
    let expected = &reference()["norm"];
    let (parameters, statistics) = (Parameters::new(1), Parameters::new(1));
    let norm = BatchNorm::new(
        LATENTS,
        &parameters.builder(&Device::Cpu).pp("n"),
        &statistics,
    )?;
    parameters.vars()["n.weight"].set(&(tensor(1, LATENTS, 0.2, 1.0) + 1.0)?)?;
    parameters.vars()["n.bias"].set(&tensor(1, LATENTS, 0.2, 2.0))?;
    let x = Var::from_tensor(&tensor(NOTES, LATENTS, 1.5, 1.0))?;
    let y = norm.forward(x.as_tensor(), Mode::Training)?;
    assert_all_near("training", &y, &expected["training"]);
    let loss = (y * tensor(NOTES, LATENTS, 1.0, 5.0))?.sum_all()?;
    assert_all_near(
        "gradient",
        loss.backward()?.get(&x).unwrap(),
        &expected["gradient"],
    );
    let running = |name: &str| statistics.vars()[name].as_detached_tensor();
    assert_all_near("mean", &running("n.running_mean"), &expected["mean"]);
    assert_all_near(
        "variance",
        &running("n.running_variance"),
        &expected["variance"],
    );
    let y = norm.forward(x.as_tensor(), Mode::Inference)?;
    assert_all_near("inference", &y, &expected["inference"]);
    Ok(())
}

/// The weights of the script's network.
fn weight(name: &str, shape: &[usize]) -> Result<Tensor> {
    let mut parts = name.split('.');
    let phases = [
        ("timbre", 10),
        ("pitch", 20),
        ("decoder", 30),
        ("mean", 40),
        ("log_variance", 41),
        ("logits", 42),
        ("output", 43),
    ];
    let part = parts.next().unwrap_or_default();
    let (_, phase) = phases.iter().find(|(known, _)| *known == part).unwrap();
    let layer: usize = parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
    let phase = (phase + layer) as f64;
    let (scale, offset, phase) = match (name.contains(".norm."), name.ends_with("weight")) {
        (true, true) => (0.2, 1.0, phase),
        (true, false) => (0.2, 0.0, phase + 1.0),
        (false, true) => (0.6, 0.0, phase),
        (false, false) => (0.3, 0.0, phase + 1.0),
    };
    let values = wave(shape.iter().product(), scale, phase);
    Ok((Tensor::from_vec(values, shape, &Device::Cpu)? + offset)?)
}

/// The losses of the script's views with all weights 1, but for the reconstruction.
fn script_objective(network: &LuoNetwork, shifts: [i32; NOTES]) -> Result<Objective> {
    let views = Views {
        first: tensor(NOTES, BANDS, 0.9, 6.0),
        labels: Tensor::zeros(NOTES, DType::U32, &Device::Cpu)?,
        second: Some(SecondView {
            frames: tensor(NOTES, BANDS, 0.8, 7.0),
            shifts: shifts.to_vec(),
        }),
    };
    let weights = LuoLoss {
        reconstruction: 10.0,
        kl_timbre: 1.0,
        kl_pitch: 1.0,
        l1: 1.0,
        l2: 1.0,
        l3: 1.0,
        l4: 1.0,
        labels: 0.0,
    };
    let mut phases = (8..).map(f64::from);
    let sampling = Sampling {
        temperature: TEMPERATURE,
        draw: &mut |_, count| wave(count, 1.0, phases.next().unwrap()),
    };
    objective(network, &views, &weights, Some(sampling), Mode::Training)
}

#[test]
fn a_whole_step_is_that_of_pytorch() -> Result<()> {
    let reference = reference();
    let (parameters, statistics) = (Parameters::new(1), Parameters::new(1));
    let network = LuoNetwork::new(&CONFIG, BANDS, &parameters, &statistics, &Device::Cpu)?;
    let vars = parameters.vars();
    let weights = vars.iter();
    let weights = weights.map(|(name, var)| Ok((name.clone(), weight(name, var.dims())?)));
    parameters.set(&weights.collect::<Result<HashMap<_, _>>>()?)?;

    let objective = script_objective(&network, [-2, 6, 0, -1])?;
    let figures = objective.figures()?;
    let expected = reference["parts"].as_object().unwrap();
    assert_eq!(figures.len(), expected.len());
    for (name, expected) in expected {
        assert_near(name, figures[name.as_str()].into(), expected, 1e-4);
    }
    let config = AdamConfig {
        rectified: false,
        weight_decay: 0.0,
        betas: (0.9, 0.999),
        clip_norm: f64::INFINITY,
        amsgrad: true,
        average_decay: None,
    };
    let mut optimiser = Adam::new(&parameters, config)?;
    let size = |tensor: &Tensor| values(tensor).iter().map(|value| value.abs()).sum::<f64>();
    let cycle = objective.cycle.as_ref().unwrap();
    let gradients = [
        ("loss", objective.total.backward()?),
        ("cycle", cycle.backward()?),
    ];
    for (loss, gradients) in &gradients {
        let expected = reference["gradients"][*loss].as_object().unwrap();
        for (name, var) in &vars {
            let found = gradients.get(var).map_or(0.0, size);
            let expected = expected.get(name).unwrap_or(&Value::from(0.0)).clone();
            assert_near(
                &format!("gradient of {loss} by {name}"),
                found,
                &expected,
                1e-3,
            );
        }
        optimiser.step(gradients, 1e-2)?;
    }
    for (name, var) in &vars {
        let found = size(var.as_tensor());
        assert_near(name, found, &reference["weights"][name], 1e-4);
    }
    Ok(())
}

#[test]
fn the_reference_has_a_pitch_that_is_out_of_range() {
    let inside = reference()["inside"].as_array().unwrap().clone();
    assert!(inside.contains(&Value::Bool(true)) && inside.contains(&Value::Bool(false)));
}
