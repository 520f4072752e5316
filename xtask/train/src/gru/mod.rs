//! Bidirectional gated recurrent units, as `torch.nn.GRU` defines them.
//!
//! candle's GRU needs about a dozen operations per frame, so training spends its time on overhead. Here the
//! recurrence is one operation with its own backward pass, and the input is multiplied with its weights for all
//! frames at once.

mod composed;
mod kernel;
mod recurrence;

use anyhow::Result;
use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};

use recurrence::recur;

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

/// One direction of a layer: reset, update and new gate, in this order.
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
            .reshape((frames, batch, ()))?;
        let biases = Tensor::stack(&[&self.input_bias, &self.hidden_bias], 0)?;
        Ok(recur(&gates, &self.hidden_weight, &biases, self.reversed)?)
    }
}

#[cfg(test)]
mod tests;
