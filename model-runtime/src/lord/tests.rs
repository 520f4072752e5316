//! The networks compared with PyTorch, and the model file. `tests/data/lord.py` computes the reference values.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Shape, Var};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;

use super::*;

/// `sin(0.37 i^2 + phase)` at element `i`.
fn wave(shape: &[usize], phase: f64) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values = (0..count).map(|i| (0.37 * (i * i) as f64 + phase).sin());
    Tensor::from_vec(values.collect::<Vec<f64>>(), shape, &Device::Cpu).unwrap()
}

/// The product of a tensor with a wave, summed.
fn digest(tensor: &Tensor) -> f64 {
    let product = (tensor * wave(tensor.dims(), 9.0)).unwrap();
    product.sum_all().unwrap().to_scalar().unwrap()
}

/// Makes variables on request: waves whose phases come from their names.
#[derive(Clone, Default)]
struct Waves(Arc<Mutex<BTreeMap<String, Var>>>);

impl Waves {
    fn builder(&self, dtype: DType) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), dtype, Device::Cpu)
    }

    fn vars(&self) -> BTreeMap<String, Var> {
        self.0.lock().unwrap().clone()
    }
}

impl SimpleBackend for Waves {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        let phase = name.bytes().map(u32::from).sum::<u32>() % 64;
        let values = (wave(shape.dims(), phase.into()) * 0.3)?.to_dtype(dtype)?;
        let var = Var::from_tensor(&values)?;
        let tensor = var.as_tensor().clone();
        self.0.lock().unwrap().insert(name.to_owned(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("{name}: expected a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// The sizes of the script.
fn config() -> LordConfig {
    LordConfig {
        n_mels: 6,
        frames: 16,
        content_channels: 3,
        content_frames: 4,
        content_rank: None,
        class_size: 5,
        channels: 4,
        kernel: 3,
        ups: vec![2, 1, 2],
        content_encoder: EncoderConfig {
            bank: 4,
            bank_channels: 2,
            channels: 5,
            kernel: 3,
            strides: vec![2, 2, 1],
        },
        class_encoder: EncoderConfig {
            bank: 3,
            bank_channels: 2,
            channels: 4,
            kernel: 3,
            strides: vec![1, 2],
        },
        dense_blocks: 2,
    }
}

/// Compares an output, and the gradients of the sum of its squares by inputs and weights.
#[track_caller]
fn assert_as_pytorch(
    output: &Tensor,
    inputs: &[&Var],
    weights: &Waves,
    (expected, by_inputs, by_weights): (f64, &[f64], f64),
) {
    let near = |found: f64, expected: f64| {
        assert!(
            (found - expected).abs() < 1e-9 * expected.abs().max(1.0),
            "{found}, expected {expected}"
        );
    };
    let output = output.squeeze(2).unwrap_or(output.clone());
    near(digest(&output), expected);
    let gradients = output.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let by = |var: &Var| digest(gradients.get(var).unwrap());
    for (input, expected) in inputs.iter().zip(by_inputs) {
        near(by(input), *expected);
    }
    let vars = weights.vars().into_iter();
    let (fixed, trained): (Vec<_>, Vec<_>) = vars.partition(|(name, _)| name.contains("subspace"));
    near(trained.iter().map(|(_, var)| by(var)).sum(), by_weights);
    assert!(fixed.iter().all(|(_, var)| gradients.get(var).is_none()));
}

#[test]
fn the_generator_is_that_of_pytorch() {
    let weights = Waves::default();
    let generator = Generator::new(&config(), &weights.builder(DType::F64)).unwrap();
    let content = Var::from_tensor(&wave(&[2, 3, 1, 4], 1.0)).unwrap();
    let class = Var::from_tensor(&wave(&[2, 5], 2.0)).unwrap();
    let mel = generator.forward(&content, &class).unwrap();
    assert_eq!(mel.dims(), [2, 6, 1, 16]);
    let by_inputs = [-11.774184044164235, -9.158920498084914];
    let expected = (-3.1494856507330775, &by_inputs[..], 14.335674282977664);
    assert_as_pytorch(&mel, &[&content, &class], &weights, expected);
}

#[test]
fn the_content_encoder_is_that_of_pytorch() {
    let weights = Waves::default();
    let encoder = ContentEncoder::new(&config(), &weights.builder(DType::F64)).unwrap();
    let mel = Var::from_tensor(&wave(&[2, 6, 1, 16], 3.0)).unwrap();
    let content = encoder.forward(&mel).unwrap();
    assert_eq!(content.dims(), [2, 3, 1, 4]);
    let expected = (
        2.6001719713593046,
        &[-3.070860995577089][..],
        134.2452063426572,
    );
    assert_as_pytorch(&content, &[&mel], &weights, expected);
}

#[test]
fn a_confined_content_encoder_is_that_of_pytorch() {
    let weights = Waves::default();
    let config = LordConfig {
        content_rank: Some(2),
        ..config()
    };
    let encoder = ContentEncoder::new(&config, &weights.builder(DType::F64)).unwrap();
    let mel = Var::from_tensor(&wave(&[2, 6, 1, 16], 3.0)).unwrap();
    let content = encoder.forward(&mel).unwrap();
    let expected = (
        -0.08836407483280045,
        &[-0.016739134401814806][..],
        -0.732867731200767,
    );
    assert_as_pytorch(&content, &[&mel], &weights, expected);
}

#[test]
fn the_class_encoder_is_that_of_pytorch() {
    let weights = Waves::default();
    let encoder = ClassEncoder::new(&config(), &weights.builder(DType::F64)).unwrap();
    let mel = Var::from_tensor(&wave(&[2, 6, 1, 16], 3.0)).unwrap();
    let class = encoder.forward(&mel).unwrap();
    assert_eq!(class.dims(), [2, 5]);
    let expected = (
        0.4766728042727849,
        &[0.3733033872892735][..],
        0.8108227421376791,
    );
    assert_as_pytorch(&class, &[&mel], &weights, expected);
}

fn header() -> LordHeader {
    LordHeader {
        format: FORMAT,
        lord: config(),
        mel: MelConfig {
            n_mels: 6,
            ..MelConfig::default()
        },
        mel_mean: -7.0,
        mel_deviation: 3.0,
        instruments: vec!["piano".to_owned(), "violin".to_owned()],
        card: Card::default(),
    }
}

/// A model, and its tensors as in a file.
fn model() -> (LordModel, HashMap<String, Tensor>) {
    let weights = Waves::default();
    let model = LordModel::new(header(), &weights.builder(DType::F32)).unwrap();
    let tensors = weights.vars().into_iter();
    let tensors = tensors.map(|(name, var)| (name, var.as_detached_tensor()));
    (model, tensors.collect())
}

fn log_mel() -> Tensor {
    let mel = (wave(&[3, 6, 16], 0.5) * 2.0).unwrap() - 6.0;
    mel.unwrap().to_dtype(DType::F32).unwrap()
}

#[test]
fn a_written_model_gives_what_it_gave() {
    let (model, tensors) = model();
    let loaded = LordModel::from_bytes(&to_bytes(model.header(), &tensors).unwrap()).unwrap();
    assert_eq!(loaded.header(), model.header());
    let outputs = |model: &LordModel| {
        let content = model.encode_content(&log_mel()).unwrap();
        let class = model.encode_class(&log_mel()).unwrap();
        let one = model.class_of(1).unwrap();
        assert_eq!(content.dims(), [3, 3, 4]);
        assert_eq!((class.dims(), one.dims()), (&[3, 5][..], &[1, 5][..]));
        let first = content.narrow(0, 0, 1).unwrap();
        let mel = model.generate(&first, &one).unwrap();
        assert_eq!(mel.dims(), [1, 6, 16]);
        [content, class, mel].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    for (found, expected) in outputs(&loaded).iter().zip(outputs(&model)) {
        for (found, expected) in found.iter().zip(expected) {
            // 16-bit weights.
            assert!(
                (found - expected).abs() < 0.02,
                "{found}, expected {expected}"
            );
        }
    }
    assert!(loaded.class_of(2).is_err());
    assert!(
        loaded
            .encode_content(&log_mel().narrow(2, 0, 8).unwrap())
            .is_err()
    );
}

#[test]
fn damaged_files_are_rejected_with_the_reason() {
    let (model, tensors) = model();
    let reason = |change: &dyn Fn(&mut LordHeader, &mut HashMap<String, Tensor>)| {
        let (mut header, mut tensors) = (model.header().clone(), tensors.clone());
        change(&mut header, &mut tensors);
        to_bytes(&header, &tensors).unwrap_err().to_string()
    };
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let cases = [
        (
            reason(&|header, _| header.format = 2),
            "expected file format 1, found 2",
        ),
        (
            reason(&|header, _| header.lord.ups = vec![2, 2, 2]),
            "expected content_frames times ups to be the 16 frames, found 4 times 8",
        ),
        (
            reason(&|header, _| header.lord.content_encoder.strides = vec![2]),
            "content_encoder.strides: expected 4 together, as ups, found 2",
        ),
        (
            reason(&|header, _| header.lord.channels = 1 << 20),
            "channels: expected 1 to 4096, found 1048576",
        ),
        (
            reason(&|header, _| header.lord.content_rank = Some(13)),
            "content_rank: expected 1 to 12, found 13",
        ),
        (
            reason(&|header, _| header.lord.content_rank = Some(2)),
            "missing tensor content_encoder.subspace.mean",
        ),
        (
            reason(&|header, _| header.mel_deviation = 0.0),
            "mel_deviation finite and above 0",
        ),
        (
            reason(&|header, _| header.instruments[1] = "piano".to_owned()),
            "expected each name once, found \"piano\" twice",
        ),
        (
            reason(&|_, tensors| _ = tensors.remove("classes")),
            "missing tensor classes",
        ),
        (
            reason(&|_, tensors| _ = tensors.insert("more".to_owned(), zeros(&[1]))),
            "unexpected tensor more",
        ),
        (
            reason(&|_, tensors| _ = tensors.insert("classes".to_owned(), zeros(&[3, 5]))),
            "classes: expected shape [2, 5], found [3, 5]",
        ),
        (
            reason(&|_, tensors| {
                let infinite = (zeros(&[2, 5]) + 1e6).unwrap();
                tensors.insert("classes".to_owned(), infinite);
            }),
            "classes: expected finite weights, found inf",
        ),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "{found}\nexpected {expected}");
    }

    let bytes = to_bytes(model.header(), &tensors).unwrap();
    let error = crate::Model::from_bytes(&bytes).unwrap_err().to_string();
    assert!(error.contains("found a model of instruments"), "{error}");
    let mut json = serde_json::to_value(header()).unwrap();
    json["more"] = 1.into();
    let bytes = model_file::serialise(HEADER_KEY, &json, &tensors).unwrap();
    let error = LordModel::from_bytes(&bytes).unwrap_err().to_string();
    assert!(error.contains("unknown field `more`"), "{error}");
}
