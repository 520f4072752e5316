//! The recurrence on slices, for the CPU. One direction; all matrices by rows.

use std::mem;
use std::ops::Range;

use vocoder::vectorized;

use crate::activation::{sigmoid, tanh};
use crate::product::add_product;

/// Sizes of a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Frames.
    pub frames: usize,
    /// Sequences side by side.
    pub batch: usize,
    /// Units.
    pub hidden: usize,
}

impl Sizes {
    fn states(self) -> usize {
        self.batch * self.hidden
    }

    fn gates(self) -> usize {
        3 * self.states()
    }

    fn states_of(self, frame: usize) -> Range<usize> {
        frame * self.states()..(frame + 1) * self.states()
    }

    fn gates_of(self, frame: usize) -> Range<usize> {
        frame * self.gates()..(frame + 1) * self.gates()
    }

    /// Frames that have one before them, and those before them: the recurrent products of all but the first.
    fn pairs(self, reversed: bool) -> [Range<usize>; 2] {
        let [later, earlier] = [1..self.frames, 0..self.frames - 1];
        if reversed {
            [earlier, later]
        } else {
            [later, earlier]
        }
    }
}

/// Frames in the order in which they are heard, each with the one heard before it.
pub fn steps(
    frames: usize,
    reversed: bool,
) -> impl DoubleEndedIterator<Item = (usize, Option<usize>)> {
    (0..frames).map(move |step| match (reversed, step) {
        (_, 0) => (if reversed { frames - 1 } else { 0 }, None),
        (false, step) => (step, Some(step - 1)),
        (true, step) => (frames - 1 - step, Some(frames - step)),
    })
}

/// Hidden states (T, B, H) from gates (T, B, 3H), weights (H, 3H) and the biases of both, (2, 3H).
pub fn forward(
    sizes: Sizes,
    reversed: bool,
    gates: &[f32],
    weight: &[f32],
    biases: &[f32],
) -> Vec<f32> {
    let Sizes {
        frames,
        batch,
        hidden,
    } = sizes;
    let (input_bias, bias) = biases.split_at(3 * hidden);
    let gates = with_bias(gates, input_bias);
    let mut states = vec![0.0; frames * sizes.states()];
    let mut previous = vec![0.0; sizes.states()];
    let mut recurrent = vec![0.0; sizes.gates()];
    for (frame, before) in steps(frames, reversed) {
        if let Some(before) = before {
            previous.copy_from_slice(&states[sizes.states_of(before)]);
        }
        fill_rows(&mut recurrent, bias);
        add_product(
            (batch, 3 * hidden, hidden),
            &mut recurrent,
            (&previous, false),
            (weight, false),
        );
        let gates = gates[sizes.gates_of(frame)].chunks_exact(3 * hidden);
        let rows = gates.zip(recurrent.chunks_exact(3 * hidden));
        let rows = rows.zip(previous.chunks_exact(hidden));
        let out = states[sizes.states_of(frame)].chunks_exact_mut(hidden);
        vectorized!(for (((gates, recurrent), previous), out) in rows.zip(out) {
            advance(gates, recurrent, previous, out);
        });
    }
    states
}

/// The states of one row.
#[inline(always)]
fn advance(gates: &[f32], recurrent: &[f32], previous: &[f32], out: &mut [f32]) {
    let hidden = out.len();
    let ([xr, xz, xn], [hr, hz, hn]) = (thirds(gates), thirds(recurrent));
    let previous = &previous[..hidden];
    for unit in 0..hidden {
        let reset = sigmoid(xr[unit] + hr[unit]);
        let update = sigmoid(xz[unit] + hz[unit]);
        let new = tanh(xn[unit] + reset * hn[unit]);
        out[unit] = new + update * (previous[unit] - new);
    }
}

/// Gradients of gates, weights and biases.
pub struct Gradients {
    /// (T, B, 3H).
    pub gates: Vec<f32>,
    /// (H, 3H).
    pub weight: Vec<f32>,
    /// (2, 3H).
    pub biases: Vec<f32>,
}

/// Gradients from that of the states.
pub fn backward(
    sizes: Sizes,
    reversed: bool,
    (gates, weight, biases): (&[f32], &[f32], &[f32]),
    states: &[f32],
    gradient: &[f32],
) -> Gradients {
    let Sizes {
        frames,
        batch,
        hidden,
    } = sizes;
    let (input_bias, bias) = biases.split_at(3 * hidden);
    let gates = with_bias(gates, input_bias);
    // The recurrent products of all frames at once: their states are known by now.
    let mut recurrent = vec![0.0; gates.len()];
    fill_rows(&mut recurrent, bias);
    let [later, earlier] = sizes.pairs(reversed);
    let all = |range: &Range<usize>, size: usize| range.start * size..range.end * size;
    let rows = later.len() * batch;
    let earlier = &states[all(&earlier, sizes.states())];
    let later = all(&later, sizes.gates());
    add_product(
        (rows, 3 * hidden, hidden),
        &mut recurrent[later.clone()],
        (earlier, false),
        (weight, false),
    );
    // Overwrites the products with their gradients, frame by frame.
    let mut gates_gradient = vec![0.0; gates.len()];
    let silent = vec![0.0; sizes.states()];
    let mut carried = vec![0.0; sizes.states()];
    let mut next = vec![0.0; sizes.states()];
    for (frame, before) in steps(frames, reversed).rev() {
        let previous = before.map_or(&silent[..], |before| &states[sizes.states_of(before)]);
        let range = sizes.gates_of(frame);
        let gradient = &gradient[sizes.states_of(frame)];
        let recurrent = &mut recurrent[range.clone()];
        let into = &mut gates_gradient[range.clone()];
        let gates = &gates[range];
        vectorized!(for row in 0..batch {
            let (narrow, wide) = (
                row * hidden..(row + 1) * hidden,
                3 * row * hidden..3 * (row + 1) * hidden,
            );
            retreat(
                &gates[wide.clone()],
                &mut recurrent[wide.clone()],
                &mut into[wide],
                &previous[narrow.clone()],
                [&gradient[narrow.clone()], &carried[narrow.clone()]],
                &mut next[narrow],
            );
        });
        add_product(
            (batch, hidden, 3 * hidden),
            &mut next,
            (recurrent, false),
            (weight, true),
        );
        mem::swap(&mut carried, &mut next);
    }
    let mut weight_gradient = vec![0.0; weight.len()];
    add_product(
        (hidden, 3 * hidden, rows),
        &mut weight_gradient,
        (earlier, true),
        (&recurrent[later], false),
    );
    let mut biases_gradient = vec![0.0; biases.len()];
    let (input_bias_gradient, bias_gradient) = biases_gradient.split_at_mut(3 * hidden);
    for (sums, rows) in [
        (input_bias_gradient, &gates_gradient),
        (bias_gradient, &recurrent),
    ] {
        vectorized!(for row in rows.chunks_exact(3 * hidden) {
            add(sums, row);
        });
    }
    Gradients {
        gates: gates_gradient,
        weight: weight_gradient,
        biases: biases_gradient,
    }
}

/// The gradients of one row: of `gates` into `into`, of the recurrent products in their place, and that part of the gradient of the
/// states before which does not pass through a product, into `next`.
#[inline(always)]
fn retreat(
    gates: &[f32],
    recurrent: &mut [f32],
    into: &mut [f32],
    previous: &[f32],
    [gradient, carried]: [&[f32]; 2],
    next: &mut [f32],
) {
    let hidden = previous.len();
    let [xr, xz, xn] = thirds(gates);
    let [hr, hz, hn] = thirds_mut(recurrent);
    let [dr, dz, dn] = thirds_mut(into);
    let (gradient, carried, next) = (&gradient[..hidden], &carried[..hidden], &mut next[..hidden]);
    for unit in 0..hidden {
        let reset = sigmoid(xr[unit] + hr[unit]);
        let update = sigmoid(xz[unit] + hz[unit]);
        let new = tanh(xn[unit] + reset * hn[unit]);
        let d_state = gradient[unit] + carried[unit];
        let d_new = d_state * (1.0 - update) * (1.0 - new * new);
        let d_update = d_state * (previous[unit] - new) * update * (1.0 - update);
        let d_reset = d_new * hn[unit] * reset * (1.0 - reset);
        (dr[unit], dz[unit], dn[unit]) = (d_reset, d_update, d_new);
        (hr[unit], hz[unit], hn[unit]) = (d_reset, d_update, d_new * reset);
        next[unit] = d_state * update;
    }
}

/// Reset, update and new gate of one row.
#[inline(always)]
fn thirds(row: &[f32]) -> [&[f32]; 3] {
    let (reset, rest) = row.split_at(row.len() / 3);
    let (update, new) = rest.split_at(reset.len());
    [reset, update, &new[..reset.len()]]
}

#[inline(always)]
fn thirds_mut(row: &mut [f32]) -> [&mut [f32]; 3] {
    let hidden = row.len() / 3;
    let (reset, rest) = row.split_at_mut(hidden);
    let (update, new) = rest.split_at_mut(hidden);
    [reset, update, &mut new[..hidden]]
}

/// Gates with the bias of each.
fn with_bias(gates: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut sums = gates.to_vec();
    vectorized!(for row in sums.chunks_exact_mut(bias.len()) {
        add(row, bias);
    });
    sums
}

#[inline(always)]
fn add(sums: &mut [f32], values: &[f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

fn fill_rows(rows: &mut [f32], row: &[f32]) {
    for out in rows.chunks_exact_mut(row.len()) {
        out.copy_from_slice(row);
    }
}
