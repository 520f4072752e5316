//! The recurrence of one direction as an operation of candle's.

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, Layout, Result, Shape, Storage, Tensor, WithDType, bail,
};
use vocoder::conv::is_composed;

use super::composed;
use super::kernel::{self, Gradients, Sizes};

/// Hidden states (T, B, H) from gates (T, B, 3H), weights (H, 3H) and the biases of both, (2, 3H), all f32. The bias of
/// the gates is added here, because candle takes longer for its gradient than for a product.
///
/// # Errors
///
/// Returns an error if the shapes do not match.
pub fn recur(gates: &Tensor, weight: &Tensor, biases: &Tensor, reversed: bool) -> Result<Tensor> {
    sizes(gates.shape(), weight.shape())?;
    let composed = match is_composed(gates.device()) {
        true => Some(composed::forward([gates, weight, biases], reversed)?),
        false => None,
    };
    gates.apply_op3(weight, biases, Recurrence { reversed, composed })
}

fn sizes(gates: &Shape, weight: &Shape) -> Result<Sizes> {
    let (frames, batch, width) = gates.dims3()?;
    let (hidden, columns) = weight.dims2()?;
    if columns != 3 * hidden || width != columns || frames == 0 {
        bail!(
            "expected gates and weights of {} columns and at least one frame, found {width}, {columns} and {frames} frames",
            3 * hidden
        );
    }
    Ok(Sizes {
        frames,
        batch,
        hidden,
    })
}

struct Recurrence {
    reversed: bool,
    /// The result, where it is made of candle's own operations.
    composed: Option<Tensor>,
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
        biases: &CpuStorage,
        biases_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if let Some(states) = &self.composed {
            let (storage, layout) = states.storage_and_layout();
            return match &*storage {
                Storage::Cpu(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
                _ => bail!("a recurrence expects all operands on the CPU"),
            };
        }
        let sizes = sizes(gates_layout.shape(), weight_layout.shape())?;
        let states = kernel::forward(
            sizes,
            self.reversed,
            values(gates, gates_layout)?,
            values(weight, weight_layout)?,
            values(biases, biases_layout)?,
        );
        let shape = Shape::from((sizes.frames, sizes.batch, sizes.hidden));
        Ok((f32::to_cpu_storage_owned(states), shape))
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let Some(states) = &self.composed else {
            bail!("a recurrence on a GPU is composed of candle's own operations");
        };
        let (storage, layout) = states.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("a recurrence expects all operands on one GPU"),
        }
    }

    fn bwd(
        &self,
        gates: &Tensor,
        weight: &Tensor,
        biases: &Tensor,
        states: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let operands = [gates, weight, biases];
        if self.composed.is_some() {
            let [g, w, b] = composed::backward(operands, states, gradient, self.reversed)?;
            return Ok((Some(g), Some(w), Some(b)));
        }
        let sizes = sizes(gates.shape(), weight.shape())?;
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let Gradients {
            gates: g,
            weight: w,
            biases: b,
        } = kernel::backward(
            sizes,
            self.reversed,
            (&values(gates)?, &values(weight)?, &values(biases)?),
            &values(states)?,
            &values(gradient)?,
        );
        let like = |values: Vec<f32>, tensor: &Tensor| {
            Tensor::from_vec(values, tensor.shape(), tensor.device()).map(Some)
        };
        Ok((like(g, gates)?, like(w, weight)?, like(b, biases)?))
    }
}

/// The values of a contiguous tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("expected contiguous tensors"),
    }
}
