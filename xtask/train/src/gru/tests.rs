use super::*;
use crate::parameters::Parameters;
use crate::wave::{digest, wave};
use candle_core::{DType, Device, Var};
use vocoder::conv::as_on_a_gpu;

fn wave_f32(shape: &[usize], phase: f64) -> Tensor {
    wave(shape, phase).unwrap().to_dtype(DType::F32).unwrap()
}

fn number(tensor: &Tensor) -> f64 {
    digest(&tensor.to_dtype(DType::F64).unwrap()).unwrap()
}

/// A layer whose weights are waves.
fn layer(input: usize, hidden: usize) -> (BiGru, Vec<Var>) {
    let parameters = Parameters::new(1);
    let layer = BiGru::new(input, hidden, &parameters.builder(&Device::Cpu)).unwrap();
    let mut vars = parameters.vars();
    let mut ordered = Vec::new();
    for direction in ["forwards", "backwards"] {
        for name in ["input_weight", "input_bias", "hidden_weight", "hidden_bias"] {
            let var = vars.remove(&format!("{direction}.{name}")).unwrap();
            let phase = 1.0 + ordered.len() as f64;
            let value = (wave_f32(var.dims(), phase) * 0.8).unwrap();
            var.set(&value).unwrap();
            ordered.push(var);
        }
    }
    (layer, ordered)
}

/// Digests of the states, and of the gradients of the input and all weights.
fn digests() -> Vec<f64> {
    let (layer, vars) = layer(5, 4);
    let x = Var::from_tensor(&wave_f32(&[7, 3, 5], 0.5)).unwrap();
    let states = layer.forward(&x).unwrap();
    let asked = wave_f32(&[7, 3, 8], 0.2);
    let loss = (&states * asked).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let gradients = [&x].into_iter().chain(&vars).map(|var| {
        let gradient = gradients.get(var).unwrap();
        number(&gradient.contiguous().unwrap())
    });
    [number(&states)].into_iter().chain(gradients).collect()
}

/// By PyTorch:
///
/// ```python
/// import torch, math
/// torch.set_default_dtype(torch.float64)
/// def wave(shape, phase):
///     i = torch.arange(math.prod(shape)).double()
///     return torch.sin(0.37 * i * i + phase).reshape(shape)
/// def digest(t): return (t * wave(t.shape, 9.0)).sum().item()
/// T, B, I, H = 7, 3, 5, 4
/// gru = torch.nn.GRU(I, H, bidirectional=True)
/// x = wave((T, B, I), 0.5).requires_grad_()
/// weights = []
/// with torch.no_grad():
///     for suffix in ["", "_reverse"]:
///         for name, shape in [("weight_ih_l0", (I, 3 * H)), ("bias_ih_l0", (3 * H,)),
///                             ("weight_hh_l0", (H, 3 * H)), ("bias_hh_l0", (3 * H,))]:
///             value = 0.8 * wave(shape, 1 + len(weights))
///             weights.append(getattr(gru, name + suffix))
///             weights[-1].copy_(value.t() if value.dim() == 2 else value)
/// y, _ = gru(x)
/// (y * wave(y.shape, 0.2)).sum().backward()
/// gradients = [w.grad.t().contiguous() if w.dim() == 2 else w.grad for w in weights]
/// print(*map(digest, [y.detach(), x.grad, *gradients]))
/// ```
const PYTORCH: [f64; 10] = [
    -5.458318069113858,
    -11.721805252813917,
    1.5567543061473368,
    1.3747449000830159,
    0.24160639904467918,
    0.5474364981642389,
    3.9490912405604526,
    3.3810995611306787,
    1.091186288046892,
    1.646290010611545,
];

#[test]
fn states_and_gradients_are_those_of_pytorch() {
    for (found, way) in [(digests(), "slices"), (as_on_a_gpu(digests), "composed")] {
        assert_eq!(found.len(), PYTORCH.len());
        for (index, (found, expected)) in found.iter().zip(PYTORCH).enumerate() {
            assert!(
                (found - expected).abs() < 2e-5,
                "{way}, {index}: {found}, expected {expected}"
            );
        }
    }
}

#[test]
fn gradients_are_finite_differences() {
    let (layer, vars) = layer(3, 2);
    let x = Var::from_tensor(&wave_f32(&[4, 2, 3], 0.5)).unwrap();
    let asked = wave(&[4, 2, 4], 0.2).unwrap();
    let loss = || -> Tensor {
        let states = layer.forward(&x).unwrap().to_dtype(DType::F64).unwrap();
        (states * &asked).unwrap().sum_all().unwrap()
    };
    let gradients = loss().backward().unwrap();
    let step = 1e-2;
    for (index, var) in [&x].into_iter().chain(&vars).enumerate() {
        // Along a direction that mixes all elements.
        let direction = wave_f32(var.dims(), 3.0);
        let start = var.as_tensor().copy().unwrap();
        let moved = |by: f64| {
            let to = (&start + (&direction * by).unwrap()).unwrap();
            var.set(&to).unwrap();
            loss().to_scalar::<f64>().unwrap()
        };
        let difference = (moved(step) - moved(-step)) / (2.0 * step);
        var.set(&start).unwrap();
        let gradient = (gradients.get(var).unwrap() * &direction).unwrap();
        let slope = gradient.sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(
            (f64::from(slope) - difference).abs() < 2e-3,
            "{index}: {slope}, expected {difference}"
        );
    }
}

#[test]
fn both_directions_stand_side_by_side() {
    let (layer, _) = layer(6, 4);
    let x = wave_f32(&[7, 2, 6], 0.0);
    let both = layer.forward(&x).unwrap();
    assert_eq!(both.dims(), [7, 2, 8]);
    // The last frame of the forward half depends on the first input, that of the backward half does not.
    let first = wave_f32(&[1, 2, 6], 2.0);
    let changed = Tensor::cat(&[first, x.narrow(0, 1, 6).unwrap()], 0).unwrap();
    let changed = layer.forward(&changed).unwrap();
    let moved = |from: usize| {
        let difference = (both.get(6).unwrap() - changed.get(6).unwrap()).unwrap();
        let difference = difference.narrow(1, from, 4).unwrap().abs().unwrap();
        difference.sum_all().unwrap().to_scalar::<f32>().unwrap()
    };
    assert!(moved(0) > 1e-4 && moved(4) == 0.0);
    assert!(layer.forward(&wave_f32(&[7, 2, 5], 0.0)).is_err());
}
