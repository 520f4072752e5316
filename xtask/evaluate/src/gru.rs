//! The bidirectional gated recurrent unit that the probes are made of.
//!
//! candle's GRU needs about a dozen operations per frame, so training spends its time on overhead. Here the
//! recurrence is one operation with its own backward pass, and the input is multiplied with its weights for all
//! frames at once.

use std::mem;

use anyhow::Result;
use candle_core::{
    CpuStorage, CustomOp3, DType, Layout, Result as CandleResult, Shape, Tensor, WithDType, bail,
};
use candle_nn::{Init, VarBuilder};

/// Both directions of a layer, side by side.
pub struct BiGru {
    forwards: Direction,
    backwards: Direction,
}

impl BiGru {
    /// Reads or creates the weights of a layer with `hidden` units each way.
    ///
    /// # Errors
    ///
    /// Returns an error if a tensor is missing or has another shape.
    pub fn new(input: usize, hidden: usize, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            forwards: Direction::new(input, hidden, false, &vb.pp("forwards"))?,
            backwards: Direction::new(input, hidden, true, &vb.pp("backwards"))?,
        })
    }

    /// (T, B, input) to (T, B, 2 * hidden).
    ///
    /// # Errors
    ///
    /// Returns an error if the shape is another.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let both = [self.forwards.forward(x)?, self.backwards.forward(x)?];
        Ok(Tensor::cat(&both, 2)?.contiguous()?)
    }
}

/// One direction of a layer, as `torch.nn.GRU` defines it: reset, update and new gate, in this order.
struct Direction {
    /// (input, 3 * hidden).
    input_weight: Tensor,
    input_bias: Tensor,
    /// (hidden, 3 * hidden).
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    reversed: bool,
}

impl Direction {
    fn new(input: usize, hidden: usize, reversed: bool, vb: &VarBuilder) -> Result<Self> {
        let bound = 1.0 / (hidden as f64).sqrt();
        let init = Init::Uniform {
            lo: -bound,
            up: bound,
        };
        let gates = 3 * hidden;
        Ok(Self {
            input_weight: vb.get_with_hints((input, gates), "input_weight", init)?,
            input_bias: vb.get_with_hints(gates, "input_bias", init)?,
            hidden_weight: vb.get_with_hints((hidden, gates), "hidden_weight", init)?,
            hidden_bias: vb.get_with_hints(gates, "hidden_bias", init)?,
            reversed,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (frames, batch, input) = x.dims3()?;
        let gates = x
            .reshape((frames * batch, input))?
            .matmul(&self.input_weight)?
            .broadcast_add(&self.input_bias)?
            .reshape((frames, batch, ()))?;
        let recurrence = Recurrence {
            reversed: self.reversed,
        };
        Ok(gates.apply_op3(&self.hidden_weight, &self.hidden_bias, recurrence)?)
    }
}

/// Hidden states (T, B, H) from gates (T, B, 3H), weights (H, 3H) and bias (3H), all f32 on the CPU.
struct Recurrence {
    reversed: bool,
}

/// Sizes of a sequence.
#[derive(Clone, Copy)]
struct Sizes {
    frames: usize,
    batch: usize,
    hidden: usize,
}

impl Sizes {
    fn of(gates: &Shape, weight: &Shape) -> CandleResult<Self> {
        let (frames, batch, width) = gates.dims3()?;
        let (hidden, columns) = weight.dims2()?;
        if columns != 3 * hidden || width != columns {
            bail!(
                "expected gates and weights of {} columns, found {width} and {columns}",
                3 * hidden
            );
        }
        Ok(Self {
            frames,
            batch,
            hidden,
        })
    }

    fn states(self) -> usize {
        self.batch * self.hidden
    }
}

impl Recurrence {
    /// Frames in the order in which they are heard, each with the one heard before it.
    fn steps(&self, frames: usize) -> impl DoubleEndedIterator<Item = (usize, Option<usize>)> {
        let reversed = self.reversed;
        (0..frames).map(move |step| match (reversed, step) {
            (_, 0) => (if reversed { frames - 1 } else { 0 }, None),
            (false, step) => (step, Some(step - 1)),
            (true, step) => (frames - 1 - step, Some(frames - step)),
        })
    }

    fn forward(&self, sizes: Sizes, gates: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let Sizes {
            frames,
            batch,
            hidden,
        } = sizes;
        let mut states = vec![0.0; frames * sizes.states()];
        let mut previous = vec![0.0; sizes.states()];
        let mut recurrent = vec![0.0; 3 * sizes.states()];
        for (frame, before) in self.steps(frames) {
            if let Some(before) = before {
                previous.copy_from_slice(&states[before * sizes.states()..][..sizes.states()]);
            }
            fill_rows(&mut recurrent, bias);
            matmul(
                (batch, 3 * hidden, hidden),
                &mut recurrent,
                (&previous, false),
                (weight, false),
            );
            let gates = &gates[frame * 3 * sizes.states()..][..3 * sizes.states()];
            let out = &mut states[frame * sizes.states()..][..sizes.states()];
            let rows = gates
                .chunks_exact(3 * hidden)
                .zip(recurrent.chunks_exact(3 * hidden));
            let rows = rows
                .zip(previous.chunks_exact(hidden))
                .zip(out.chunks_exact_mut(hidden));
            for (((gates, recurrent), previous), out) in rows {
                for unit in 0..hidden {
                    let Unit { update, new, .. } = Unit::of(gates, recurrent, unit, hidden);
                    out[unit] = (1.0 - update) * new + update * previous[unit];
                }
            }
        }
        states
    }

    /// Gradients of gates, weights and bias from that of the states.
    fn backward(
        &self,
        sizes: Sizes,
        (gates, weight, bias): (&[f32], &[f32], &[f32]),
        states: &[f32],
        gradient: &[f32],
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let Sizes {
            frames,
            batch,
            hidden,
        } = sizes;
        let mut gates_gradient = vec![0.0; gates.len()];
        let mut weight_gradient = vec![0.0; weight.len()];
        let mut bias_gradient = vec![0.0; bias.len()];
        let silent = vec![0.0; sizes.states()];
        let mut recurrent = vec![0.0; 3 * sizes.states()];
        let mut recurrent_gradient = vec![0.0; 3 * sizes.states()];
        let mut carried = vec![0.0; sizes.states()];
        for (frame, before) in self.steps(frames).rev() {
            let previous = before.map_or(&silent[..], |before| {
                &states[before * sizes.states()..][..sizes.states()]
            });
            fill_rows(&mut recurrent, bias);
            matmul(
                (batch, 3 * hidden, hidden),
                &mut recurrent,
                (previous, false),
                (weight, false),
            );
            let range = frame * 3 * sizes.states()..(frame + 1) * 3 * sizes.states();
            let (gates, into) = (&gates[range.clone()], &mut gates_gradient[range]);
            let gradient = &gradient[frame * sizes.states()..][..sizes.states()];
            let mut next = vec![0.0; sizes.states()];
            for row in 0..batch {
                let wide = row * 3 * hidden..(row + 1) * 3 * hidden;
                let recurrent = &recurrent[wide.clone()];
                let into = &mut into[wide.clone()];
                let recurrent_gradient = &mut recurrent_gradient[wide.clone()];
                for unit in 0..hidden {
                    let state = row * hidden + unit;
                    let Unit { reset, update, new } =
                        Unit::of(&gates[wide.clone()], recurrent, unit, hidden);
                    let d_state = gradient[state] + carried[state];
                    let d_new = d_state * (1.0 - update) * (1.0 - new * new);
                    let d_update = d_state * (previous[state] - new) * update * (1.0 - update);
                    let d_reset = d_new * recurrent[2 * hidden + unit] * reset * (1.0 - reset);
                    for (gate, d) in [d_reset, d_update, d_new].into_iter().enumerate() {
                        into[gate * hidden + unit] = d;
                        recurrent_gradient[gate * hidden + unit] = d;
                    }
                    recurrent_gradient[2 * hidden + unit] = d_new * reset;
                    next[state] = d_state * update;
                }
            }
            for row in recurrent_gradient.chunks_exact(3 * hidden) {
                for (sum, d) in bias_gradient.iter_mut().zip(row) {
                    *sum += d;
                }
            }
            let d = (&recurrent_gradient[..], false);
            matmul(
                (hidden, 3 * hidden, batch),
                &mut weight_gradient,
                (previous, true),
                d,
            );
            matmul((batch, hidden, 3 * hidden), &mut next, d, (weight, true));
            mem::swap(&mut carried, &mut next);
        }
        (gates_gradient, weight_gradient, bias_gradient)
    }
}

/// Gate values of one unit.
struct Unit {
    reset: f32,
    update: f32,
    new: f32,
}

impl Unit {
    fn of(gates: &[f32], recurrent: &[f32], unit: usize, hidden: usize) -> Self {
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        let reset = sigmoid(gates[unit] + recurrent[unit]);
        let update = sigmoid(gates[hidden + unit] + recurrent[hidden + unit]);
        // A hyperbolic tangent; the library's own takes several times as long.
        let new = gates[2 * hidden + unit] + reset * recurrent[2 * hidden + unit];
        let new = 2.0 * sigmoid(2.0 * new) - 1.0;
        Self { reset, update, new }
    }
}

fn fill_rows(rows: &mut [f32], row: &[f32]) {
    for out in rows.chunks_exact_mut(row.len()) {
        out.copy_from_slice(row);
    }
}

/// `dst += lhs * rhs`, for (m, k) by (k, n) by rows; an operand with `true` is stored transposed.
fn matmul(
    (m, n, k): (usize, usize, usize),
    dst: &mut [f32],
    (lhs, lhs_transposed): (&[f32], bool),
    (rhs, rhs_transposed): (&[f32], bool),
) {
    assert!(dst.len() == m * n && lhs.len() == m * k && rhs.len() == k * n);
    // Strides of columns and rows.
    let strides = |rows: usize, columns: usize, transposed: bool| match transposed {
        true => (rows as isize, 1),
        false => (1, columns as isize),
    };
    let (lhs_column, lhs_row) = strides(m, k, lhs_transposed);
    let (rhs_column, rhs_row) = strides(k, n, rhs_transposed);
    // SAFETY: the lengths are those that the strides reach, by the assertion above, and `dst` is borrowed exclusively, so it
    // overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            n as isize,
            true,
            lhs.as_ptr(),
            lhs_column,
            lhs_row,
            rhs.as_ptr(),
            rhs_column,
            rhs_row,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

impl CustomOp3 for Recurrence {
    fn name(&self) -> &'static str {
        "gru"
    }

    fn cpu_fwd(
        &self,
        gates: &CpuStorage,
        gates_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        let sizes = Sizes::of(gates_layout.shape(), weight_layout.shape())?;
        let states = self.forward(
            sizes,
            values(gates, gates_layout)?,
            values(weight, weight_layout)?,
            values(bias, bias_layout)?,
        );
        let shape = Shape::from((sizes.frames, sizes.batch, sizes.hidden));
        Ok((f32::to_cpu_storage_owned(states), shape))
    }

    fn bwd(
        &self,
        gates: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        states: &Tensor,
        gradient: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = Sizes::of(gates.shape(), weight.shape())?;
        let values = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        let (g, w, b) = self.backward(
            sizes,
            (&values(gates)?, &values(weight)?, &values(bias)?),
            &values(states)?,
            &values(gradient)?,
        );
        let like = |values: Vec<f32>, tensor: &Tensor| {
            Tensor::from_vec(values, tensor.shape(), tensor.device()).map(Some)
        };
        Ok((like(g, gates)?, like(w, weight)?, like(b, bias)?))
    }
}

/// The values of a contiguous tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> CandleResult<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("expected contiguous tensors"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use graft_train::parameters::Parameters;

    fn wave(shape: &[usize], phase: f64) -> Tensor {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|i| ((i as f64 * 0.7 + phase).sin() * 0.8) as f32);
        Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
    }

    // PyTorch is no dependency of the tests, so the reference is the definition, frame by frame in candle's operations, which
    // have gradients of their own.
    fn by_definition(gates: &Tensor, weight: &Tensor, bias: &Tensor, reversed: bool) -> Tensor {
        let (frames, batch, width) = gates.dims3().unwrap();
        let hidden = width / 3;
        let mut state = Tensor::zeros((batch, hidden), DType::F32, &Device::Cpu).unwrap();
        let mut states = vec![state.clone(); frames];
        for step in 0..frames {
            let frame = if reversed { frames - 1 - step } else { step };
            let x = gates.get(frame).unwrap();
            let h = state.matmul(weight).unwrap().broadcast_add(bias).unwrap();
            let gate = |t: &Tensor, index: usize| t.narrow(1, index * hidden, hidden).unwrap();
            let sigmoid = |t: Tensor| {
                (t.neg().unwrap().exp().unwrap() + 1.0)
                    .unwrap()
                    .recip()
                    .unwrap()
            };
            let reset = sigmoid((gate(&x, 0) + gate(&h, 0)).unwrap());
            let update = sigmoid((gate(&x, 1) + gate(&h, 1)).unwrap());
            let new = (gate(&x, 2) + (reset * gate(&h, 2)).unwrap())
                .unwrap()
                .tanh()
                .unwrap();
            state = (&new + (update * (&state - &new).unwrap()).unwrap()).unwrap();
            states[frame] = state.clone();
        }
        Tensor::stack(&states, 0).unwrap()
    }

    #[test]
    fn states_and_gradients_are_those_of_the_definition() {
        let (frames, batch, hidden) = (5, 3, 4);
        for reversed in [false, true] {
            let gates = Var::from_tensor(&wave(&[frames, batch, 3 * hidden], 0.1)).unwrap();
            let weight = Var::from_tensor(&wave(&[hidden, 3 * hidden], 1.3)).unwrap();
            let bias = Var::from_tensor(&wave(&[3 * hidden], 2.4)).unwrap();
            let asked = wave(&[frames, batch, hidden], 0.9);
            let found = gates
                .apply_op3(&weight, &bias, Recurrence { reversed })
                .unwrap();
            let expected = by_definition(&gates, &weight, &bias, reversed);
            let gradients = |states: &Tensor| {
                let loss = (states * &asked).unwrap().sum_all().unwrap();
                let gradients = loss.backward().unwrap();
                [&gates, &weight, &bias].map(|var| gradients.get(var).unwrap().clone())
            };
            let pairs = [(found.clone(), expected.clone())];
            let pairs = pairs
                .into_iter()
                .chain(gradients(&found).into_iter().zip(gradients(&expected)));
            for (index, (found, expected)) in pairs.enumerate() {
                let worst = (found - expected)
                    .unwrap()
                    .abs()
                    .unwrap()
                    .flatten_all()
                    .unwrap();
                let worst = worst.max(0).unwrap().to_scalar::<f32>().unwrap();
                assert!(worst < 1e-5, "reversed {reversed}, tensor {index}: {worst}");
            }
        }
    }

    #[test]
    fn both_directions_stand_side_by_side() {
        let parameters = Parameters::new(1);
        let layer = BiGru::new(6, 4, &parameters.builder(&Device::Cpu)).unwrap();
        let x = wave(&[7, 2, 6], 0.0);
        let both = layer.forward(&x).unwrap();
        assert_eq!(both.dims(), [7, 2, 8]);
        // The last frame of the forward half depends on the first input, that of the backward half does not.
        let changed = Tensor::cat(&[wave(&[1, 2, 6], 2.0), x.narrow(0, 1, 6).unwrap()], 0).unwrap();
        let changed = layer.forward(&changed).unwrap();
        let moved = |from: usize| {
            let difference = (both.get(6).unwrap() - changed.get(6).unwrap()).unwrap();
            let difference = difference.narrow(1, from, 4).unwrap().abs().unwrap();
            difference.sum_all().unwrap().to_scalar::<f32>().unwrap()
        };
        assert!(moved(0) > 1e-4 && moved(4) == 0.0);
        assert!(layer.forward(&wave(&[7, 2, 5], 0.0)).is_err());
    }
}
