//! The HiFi-GAN generator compared with PyTorch, and its stream with whole clips.

mod common;

use candle_core::{D, DType, Device, Result, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder, VarMap};
use common::{max_difference, noise};
use vocoder::generator::{Generator, GeneratorConfig, GeneratorState, ResBlock};
use vocoder::layers::fold_weight_norm;

/// Weights by the formula of `data/generator.py`, weight-normed, or folded to `weight`.
struct FormulaWeights;

impl FormulaWeights {
    fn part(name: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let seed = name
            .bytes()
            .fold(7, |seed: u32, byte| (seed * 31 + u32::from(byte)) % 65521);
        let values = noise(shape, seed, dtype)?;
        if name.ends_with("bias") {
            return values * 0.1;
        }
        if name.ends_with("weight_g") {
            let scale = if name.starts_with("ups") { 1.5 } else { 0.5 };
            return ((values * 0.3)? + 1.0)? * scale;
        }
        Ok(values)
    }
}

impl SimpleBackend for FormulaWeights {
    fn get(&self, s: Shape, name: &str, _: Init, dtype: DType, _: &Device) -> Result<Tensor> {
        if let Some(layer) = name.strip_suffix(".weight") {
            let magnitude = format!("{layer}.weight_g");
            let direction = format!("{layer}.weight_v");
            return fold_weight_norm(
                &Self::part(&magnitude, &[s.dims()[0], 1, 1, 1], dtype)?,
                &Self::part(&direction, s.dims(), dtype)?,
            );
        }
        Self::part(name, s.dims(), dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("the shape of {name} must be given")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

fn generator(config: GeneratorConfig, weight_norm: bool) -> Result<Generator> {
    let vb = VarBuilder::from_backend(Box::new(FormulaWeights), DType::F32, Device::Cpu);
    Generator::new(config, weight_norm, &vb)
}

/// A generator with few channels, so that many step sizes are quick to test.
fn small(resblock: ResBlock) -> GeneratorConfig {
    GeneratorConfig {
        n_mels: 5,
        upsample_initial_channel: 16,
        resblock,
        ..GeneratorConfig::v3()
    }
}

/// Every kind of generator.
fn kinds() -> impl Iterator<Item = GeneratorConfig> {
    let switches = [(false, false), (false, true), (true, false), (true, true)];
    let kinds = [ResBlock::Type1, ResBlock::Type2].map(|resblock| {
        switches.map(|(causal, template)| GeneratorConfig {
            causal,
            template,
            ..small(resblock)
        })
    });
    kinds.into_iter().flatten()
}

/// Lag of the generated voice's template behind the mel.
const TEMPLATE_LAG_SAMPLES: usize = 512 + 768 - 256;

/// A template for a mel (B, M, T), if the generator uses one.
fn template(generator: &Generator, mel: &Tensor) -> Result<Option<Tensor>> {
    let (batch, _, frames) = mel.dims3()?;
    let template = || noise(&[batch, 1, frames * 512], 2, DType::F32)? * 0.2;
    generator.config().template.then(template).transpose()
}

fn in_steps(
    generator: &Generator,
    mel: &Tensor,
    template: Option<&Tensor>,
    mut sizes: impl Iterator<Item = usize>,
) -> Result<Tensor> {
    let (mut state, mut parts, mut at) = (GeneratorState::default(), Vec::new(), 0);
    let frames = mel.dim(D::Minus1)?;
    let template_until = |frames: usize| (frames * 512).saturating_sub(TEMPLATE_LAG_SAMPLES);
    while at < frames {
        let size = sizes.next().unwrap().min(frames - at);
        let (from, until) = (template_until(at), template_until(at + size));
        let template = template.filter(|_| until > from);
        let template = template.map(|template| template.narrow(D::Minus1, from, until - from));
        let mel = mel.narrow(D::Minus1, at, size)?;
        parts.extend(generator.step(&mut state, Some(&mel), template.transpose()?.as_ref())?);
        at += size;
    }
    let from = template_until(frames);
    let rest = template.map(|template| template.narrow(D::Minus1, from, frames * 512 - from));
    parts.extend(generator.finish(&mut state, rest.transpose()?.as_ref())?);
    Tensor::cat(&parts, D::Minus1)
}

#[test]
fn forward_equals_pytorch() -> Result<()> {
    let expected: serde_json::Value =
        serde_json::from_str(include_str!("data/generator.json")).unwrap();
    let mel = ((noise(&[1, 128, 18], 1, DType::F32)? * 5.0)? - 4.0)?;
    for (name, config) in [
        ("v1", GeneratorConfig::v1()),
        ("v2", GeneratorConfig::v2()),
        ("v3", GeneratorConfig::v3()),
    ] {
        let folded = generator(config.clone(), false)?.forward(&mel, None)?;
        let normed = generator(config, true)?.forward(&mel, None)?;
        assert_eq!(folded.dims(), [1, 1, 18 * 512]);
        assert!(max_difference(&folded, &normed)? < 1e-5, "{name}");
        let samples: Vec<f32> = folded.flatten_all()?.to_vec1()?;
        let expected = expected[name]["every_61st"].as_array().unwrap();
        assert_eq!(expected.len(), samples.len().div_ceil(61));
        for (sample, expected) in samples.iter().step_by(61).zip(expected) {
            let difference = (f64::from(*sample) - expected.as_f64().unwrap()).abs();
            assert!(difference < 1e-4, "{name}: off by {difference}");
        }
    }
    Ok(())
}

#[test]
fn stream_equals_whole_clip() -> Result<()> {
    let mel = noise(&[2, 5, 33], 1, DType::F32)?;
    for config in kinds() {
        let generator = generator(config, false)?;
        let template = template(&generator, &mel)?;
        let whole = generator.forward(&mel, template.as_ref())?;
        for sizes in [&[1][..], &[2], &[3], &[8], &[16], &[33], &[1, 7, 2]] {
            let sizes_in_turn = sizes.iter().copied().cycle();
            let stream = in_steps(&generator, &mel, template.as_ref(), sizes_in_turn)?;
            assert_eq!(stream.dims(), whole.dims(), "steps of {sizes:?}");
            let difference = max_difference(&stream, &whole)?;
            assert!(difference < 1e-5, "steps of {sizes:?}: off by {difference}");
        }
    }
    Ok(())
}

#[test]
fn look_ahead_is_exact() -> Result<()> {
    let look_ahead =
        |config, lag| -> Result<usize> { Ok(generator(config, false)?.look_ahead_samples(lag)) };
    assert_eq!(look_ahead(GeneratorConfig::v1(), 0)?, 6332);
    let causal = GeneratorConfig {
        causal: true,
        ..GeneratorConfig::v1()
    };
    assert_eq!(look_ahead(causal.clone(), 0)?, 0);
    // A causal generator waits only for its template and the template's bands, but uses the mel frames that are known
    // by then.
    let corrector = GeneratorConfig {
        template: true,
        ..causal
    };
    let lag = TEMPLATE_LAG_SAMPLES;
    assert_eq!(look_ahead(corrector, lag)?, lag + 31);
    // The samples that depend on a NaN frame are NaN, and no others.
    for config in kinds().filter(|config| !config.template) {
        let generator = generator(config, false)?;
        let mel = noise(&[1, 5, 29], 1, DType::F32)?;
        let mel = Tensor::cat(&[mel, Tensor::full(f32::NAN, (1, 5, 1), &Device::Cpu)?], 2)?;
        let samples: Vec<f32> = generator.forward(&mel, None)?.flatten_all()?.to_vec1()?;
        let complete = 29 * 512 - generator.look_ahead_samples(0);
        assert_eq!(samples.iter().position(|s| s.is_nan()), Some(complete));
    }
    Ok(())
}

#[test]
fn a_generator_that_corrects_nothing_gives_its_template() -> Result<()> {
    let config = GeneratorConfig {
        template: true,
        ..small(ResBlock::Type2)
    };
    let weights = VarMap::new();
    let builder = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
    let generator = Generator::new(config, false, &builder)?;
    for (name, var) in weights.data().lock().unwrap().iter() {
        if name.starts_with("conv_post.") {
            var.set(&var.zeros_like()?)?;
        }
    }
    let mel = noise(&[1, 5, 20], 1, DType::F32)?;
    let template = (noise(&[1, 1, 20 * 512], 2, DType::F32)? * 0.2)?;
    let made = generator.forward(&mel, Some(&template))?;
    assert!(max_difference(&made, &template)? < 1e-6);
    Ok(())
}

#[test]
fn extreme_mels_and_templates_stay_finite() -> Result<()> {
    let silence = 1e-5_f32.ln();
    for value in [
        silence,
        0.0,
        -1e4,
        1e4,
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ] {
        for config in kinds() {
            let generator = generator(config, false)?;
            let mel = Tensor::full(value, (1, 5, 4), &Device::Cpu)?;
            let loud = Tensor::full(value.clamp(-1e6, 1e6), (1, 1, 4 * 512), &Device::Cpu)?;
            let template = generator.config().template.then_some(&loud);
            let samples: Vec<f32> = generator
                .forward(&mel, template)?
                .flatten_all()?
                .to_vec1()?;
            assert!(samples.iter().all(|s| s.abs() <= 1.0), "{value}");
        }
    }
    Ok(())
}

#[test]
fn configurations_are_read_and_checked() {
    let v3 = serde_json::to_value(GeneratorConfig::v3()).unwrap();
    let read = |json: &serde_json::Value| serde_json::from_value::<GeneratorConfig>(json.clone());
    assert_eq!(v3["resblock"], "2");
    assert_eq!(read(&v3).unwrap(), GeneratorConfig::v3());
    let mut unknown = v3.clone();
    unknown["dropout"] = 0.1.into();
    assert!(read(&unknown).is_err());

    for config in [
        GeneratorConfig::v1(),
        GeneratorConfig::v2(),
        GeneratorConfig::v3(),
    ] {
        assert_eq!(config.hop_length(), 512);
        config.validate().unwrap();
    }
    let refused = |change: fn(&mut GeneratorConfig)| {
        let mut config = GeneratorConfig::v1();
        change(&mut config);
        config.validate().is_err() && generator(config, false).is_err()
    };
    assert!(refused(|c| c.n_mels = 0));
    assert!(refused(|c| c.upsample_rates.clear()));
    assert!(refused(|c| c.upsample_rates[0] = 0));
    assert!(refused(|c| c.upsample_kernel_sizes[0] = 12));
    assert!(refused(|c| c.upsample_kernel_sizes.truncate(2)));
    assert!(refused(|c| c.upsample_initial_channel = 24));
    assert!(refused(|c| c.upsample_initial_channel = usize::MAX));
    assert!(refused(|c| c.resblock_kernel_sizes[1] = 4));
    assert!(refused(|c| c.resblock_dilation_sizes[2].clear()));
    assert!(refused(|c| c.resblock_dilation_sizes[2][0] = 0));
}

#[test]
fn inputs_that_do_not_fit_are_errors() -> Result<()> {
    let plain = generator(small(ResBlock::Type2), false)?;
    let mel = |shape: &[usize]| noise(shape, 1, DType::F32);
    assert!(plain.forward(&mel(&[1, 4, 8])?, None).is_err());
    assert!(plain.forward(&mel(&[5, 8])?, None).is_err());
    let mut state = GeneratorState::default();
    plain.step(&mut state, Some(&mel(&[1, 5, 8])?), None)?;
    let other_batch = mel(&[2, 5, 8])?;
    assert!(plain.step(&mut state, Some(&other_batch), None).is_err());

    let template = noise(&[1, 1, 8 * 512], 1, DType::F32)?;
    let error = plain.forward(&mel(&[1, 5, 8])?, Some(&template));
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("none beside the mel, found a template"),
        "{text}"
    );
    let config = GeneratorConfig {
        template: true,
        ..small(ResBlock::Type2)
    };
    let with_template = generator(config, false)?;
    assert!(with_template.forward(&mel(&[1, 5, 8])?, None).is_err());
    let short = template.narrow(2, 0, 7 * 512)?;
    assert!(
        with_template
            .forward(&mel(&[1, 5, 8])?, Some(&short))
            .is_err()
    );
    Ok(())
}

/// Weights that are tracked, as in training, so that the layers run and not their plan.
struct Tracked;

impl SimpleBackend for Tracked {
    fn get(&self, s: Shape, name: &str, init: Init, dtype: DType, d: &Device) -> Result<Tensor> {
        let values = FormulaWeights.get(s, name, init, dtype, d)?;
        Ok(Var::from_tensor(&values)?.into_inner())
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("the shape of {name} must be given")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

#[test]
fn the_plan_equals_the_layers() -> Result<()> {
    for config in kinds() {
        let planned = generator(config.clone(), false)?;
        let vb = VarBuilder::from_backend(Box::new(Tracked), DType::F32, Device::Cpu);
        let layers = Generator::new(config.clone(), false, &vb)?;
        let mel = noise(&[1, config.n_mels, 12], 3, DType::F32)?;
        let template = template(&planned, &mel)?;
        let expected = layers.forward(&mel, template.as_ref())?.detach();
        let found = planned.forward(&mel, template.as_ref())?;
        let difference = max_difference(&found, &expected)?;
        assert!(difference < 1e-4, "{config:?}: {difference}");
    }
    Ok(())
}
