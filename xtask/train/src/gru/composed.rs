//! The recurrence composed of candle's own operations, for devices other than the CPU.

use candle_core::{Result, Tensor};

use super::kernel::steps;

/// The gates of one frame.
struct Gates {
    reset: Tensor,
    update: Tensor,
    new: Tensor,
    /// The recurrent product of the new gate (B, H).
    recurrent_new: Tensor,
}

impl Gates {
    /// From the frame's inputs and recurrent products, (B, 3H) each.
    fn of(inputs: &Tensor, recurrent: &Tensor) -> Result<Self> {
        let hidden = inputs.dim(1)? / 3;
        let gate = |gates: &Tensor, index: usize| gates.narrow(1, index * hidden, hidden);
        let sum = |index| gate(inputs, index)? + gate(recurrent, index)?;
        let recurrent_new = gate(recurrent, 2)?;
        let reset = sigmoid(&sum(0)?)?;
        Ok(Self {
            new: (gate(inputs, 2)? + (&reset * &recurrent_new)?)?.tanh()?,
            reset,
            update: sigmoid(&sum(1)?)?,
            recurrent_new,
        })
    }
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

/// Hidden states (T, B, H) from gates (T, B, 3H), weights (H, 3H) and the biases of both, (2, 3H), without gradients.
pub fn forward([gates, weight, biases]: [&Tensor; 3], reversed: bool) -> Result<Tensor> {
    let [gates, weight, biases] = [gates, weight, biases].map(Tensor::detach);
    let gates = gates.broadcast_add(&biases.get(0)?)?;
    let bias = biases.get(1)?;
    let frames = gates.dim(0)?;
    let mut states: Vec<Option<Tensor>> = vec![None; frames];
    for (frame, before) in steps(frames, reversed) {
        let inputs = gates.get(frame)?;
        let previous = match before {
            Some(before) => states[before].clone(),
            None => None,
        };
        let state = match previous {
            Some(previous) => {
                let recurrent = previous.matmul(&weight)?.broadcast_add(&bias)?;
                let Gates { update, new, .. } = Gates::of(&inputs, &recurrent)?;
                (&new + (update * (previous - &new)?)?)?
            }
            None => {
                let recurrent = bias.broadcast_as(inputs.shape())?;
                let Gates { update, new, .. } = Gates::of(&inputs, &recurrent)?;
                (&new - (update * &new)?)?
            }
        };
        states[frame] = Some(state);
    }
    let states: Vec<Tensor> = states.into_iter().flatten().collect();
    Tensor::stack(&states, 0)
}

/// Gradients of gates, weights and biases from that of the states.
pub fn backward(
    [gates, weight, biases]: [&Tensor; 3],
    states: &Tensor,
    gradient: &Tensor,
    reversed: bool,
) -> Result<[Tensor; 3]> {
    let [gates, weight, biases] = [gates, weight, biases].map(Tensor::detach);
    let gates = gates.broadcast_add(&biases.get(0)?)?;
    let bias = biases.get(1)?;
    let [states, gradient] = [states, gradient].map(Tensor::detach);
    let (frames, batch, hidden) = states.dims3()?;
    let silent = states.get(0)?.zeros_like()?;
    let transposed = weight.t()?.contiguous()?;
    let mut of_gates: Vec<Option<Tensor>> = vec![None; frames];
    let mut of_products: Vec<Option<Tensor>> = vec![None; frames];
    let mut before_states: Vec<Option<Tensor>> = vec![None; frames];
    let mut carried = silent.clone();
    for (frame, before) in steps(frames, reversed).rev() {
        let previous = match before {
            Some(before) => states.get(before)?,
            None => silent.clone(),
        };
        let recurrent = previous.matmul(&weight)?.broadcast_add(&bias)?;
        let Gates {
            reset,
            update,
            new,
            recurrent_new,
        } = Gates::of(&gates.get(frame)?, &recurrent)?;
        let slope = |gate: &Tensor| gate - gate.sqr()?;
        let d_state = (gradient.get(frame)? + carried)?;
        let kept = (&d_state * &update)?;
        let d_new = ((&d_state - &kept)? * (1.0 - new.sqr()?)?)?;
        let d_update = ((d_state * (&previous - new)?)? * slope(&update)?)?;
        let d_reset = ((&d_new * recurrent_new)? * slope(&reset)?)?;
        of_gates[frame] = Some(Tensor::cat(&[&d_reset, &d_update, &d_new], 1)?);
        let product = Tensor::cat(&[d_reset, d_update, (d_new * reset)?], 1)?;
        carried = (kept + product.matmul(&transposed)?)?;
        of_products[frame] = Some(product);
        before_states[frame] = Some(previous);
    }
    let stack = |frames: Vec<Option<Tensor>>| {
        Tensor::stack(&frames.into_iter().flatten().collect::<Vec<_>>(), 0)
    };
    let products = stack(of_products)?.reshape((frames * batch, 3 * hidden))?;
    let before = stack(before_states)?.reshape((frames * batch, hidden))?;
    let gates = stack(of_gates)?;
    let sums = [gates.sum((0, 1))?, products.sum(0)?];
    Ok([
        gates,
        before.t()?.contiguous()?.matmul(&products)?,
        Tensor::stack(&sums, 0)?,
    ])
}
