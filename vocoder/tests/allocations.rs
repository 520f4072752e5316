//! A step of a plan allocates nothing. Alone in its program, because it measures the memory of all threads.

use candle_core::{DType, Device, Result};
use candle_nn::{VarBuilder, VarMap};
use test_signals::memory::{MeasuringAllocator, peak_bytes, used_bytes};
use vocoder::layers::{Block, Conv, ConvConfig, Stack};
use vocoder::plan::{Builder, Run};
use vocoder::simd::Isa;

#[global_allocator]
static ALLOCATOR: MeasuringAllocator = MeasuringAllocator;

#[test]
fn steps_allocate_nothing_after_the_first() -> Result<()> {
    let weights = VarMap::new();
    let vb = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
    let conv = |name: &str, input: usize, output: usize| {
        Conv::new(ConvConfig::same(input, output, (3, 3)), &vb.pp(name))
    };
    let stack = Stack::new(vec![
        Block::Conv(conv("0", 1, 20)?),
        Block::Residual(vec![conv("1", 20, 20)?, conv("2", 20, 20)?]),
        Block::Conv(conv("3", 20, 3)?),
    ]);
    let mut builder = Builder::new(Isa::best());
    let input = builder.input(16, 1);
    let output = builder.stack(input, &stack)?;
    builder.output(output);
    let mut run = Run::new(&builder.build(), 2);

    let values = vec![0.5; 2 * 4 * 16];
    let mut out = Vec::with_capacity(2 * 20 * 16 * 3);
    let mut step = |run: &mut Run| {
        run.push(0, &values);
        run.step();
        out.clear();
        run.take(0, &mut out)
    };
    // The look-ahead fills in the first steps, and the buffers grow.
    for _ in 0..4 {
        step(&mut run);
    }
    let used = used_bytes();
    assert!(used > 0);
    let (peak, frames) = peak_bytes(|| (0..50).map(|_| step(&mut run)).sum::<usize>());
    assert_eq!(frames, 50 * 4);
    assert_eq!(peak, used);
    // Nor does a new clip.
    run.reset();
    let (peak, frames) = peak_bytes(|| (0..50).map(|_| step(&mut run)).sum::<usize>());
    assert!(frames > 0);
    assert_eq!(peak, used);
    Ok(())
}
