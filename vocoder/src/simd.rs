//! The vector instructions of processors, chosen at run time, so that one program uses what each processor has.
//!
//! The kernels of networks ([`crate::plan`]) and the median filter ([`crate::hpss`]) name the instructions, by one trait for all
//! sets. All other loops are plain Rust, which the compiler turns into vector instructions:
//! [`vectorized`](crate::vectorized) compiles them once for each set. It never fuses or reorders operations by itself, so
//! their results do not depend on the set, bit for bit.
//!
//! ```
//! use vocoder::simd::sum;
//! use vocoder::vectorized;
//!
//! let (a, b) = ([2.0f32; 100], [3.0f32; 100]);
//! let product = vectorized!(sum(&a, [&b], |a, [b]| a * b));
//! assert_eq!(product, 600.0);
//! ```

mod vector;

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::float32x4_t;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

pub(crate) use vector::{Plain, Vector};

use crate::error::{Error, Result};

/// A set of vector instructions that this processor has: only [`Isa::best`] and [`Isa::available`] make one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Isa(pub(crate) Kind);

impl std::fmt::Debug for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// All sets, widest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// What every processor of the architecture has: 4 lanes, no fused multiply-add.
    Plain,
    /// NEON: 4 lanes.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// AVX2 and FMA: 8 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F: 16 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The widest [`Kind`] that [`Isa::best`] returns.
static WIDEST: AtomicU8 = AtomicU8::new(u8::MAX);

impl Isa {
    /// The sets of this processor, the fastest first.
    pub fn available() -> impl Iterator<Item = Self> {
        let kinds = [
            #[cfg(target_arch = "x86_64")]
            (Kind::Avx512, is_x86_feature_detected!("avx512f")),
            #[cfg(target_arch = "x86_64")]
            (
                Kind::Avx2,
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            ),
            #[cfg(target_arch = "aarch64")]
            (Kind::Neon, std::arch::is_aarch64_feature_detected!("neon")),
            (Kind::Plain, true),
        ];
        let found = kinds.into_iter().filter(|(_, is_there)| *is_there);
        found.map(|(kind, _)| Self(kind))
    }

    /// The fastest set of this processor.
    #[must_use]
    pub fn best() -> Self {
        let widest = WIDEST.load(Ordering::Relaxed);
        Self::available()
            .find(|isa| isa.0 as u8 <= widest)
            .unwrap_or(Self(Kind::Plain))
    }

    /// For tests and benchmarks: makes this set the [`best`](Self::best) for all threads. Networks that were compiled before
    /// keep theirs.
    pub fn force(self) {
        WIDEST.store(self.0 as u8, Ordering::Relaxed);
    }

    /// Runs `work` with these instructions. `work`, and all functions in it whose loops matter, must be `#[inline(always)]`:
    /// what is only called stays as it is.
    #[inline(always)]
    pub fn run<R>(self, work: impl FnOnce() -> R) -> R {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the processor has the instructions, as `Isa` promises; so for all sets.
            Kind::Avx512 => unsafe { with_avx512(work) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: see above.
            Kind::Avx2 => unsafe { with_avx2(work) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: see above.
            Kind::Neon => unsafe { with_neon(work) },
            Kind::Plain => work(),
        }
    }
}

/// Work on vectors of any length.
pub(crate) trait Work {
    /// # Safety
    /// The processor must have the instructions of `V`.
    unsafe fn run<V: Vector>(self);
}

impl Isa {
    /// Runs work on the vectors of this set. What it calls must be `#[inline(always)]`.
    pub(crate) fn run_on_vectors(self, work: impl Work) {
        // SAFETY: the processor has the instructions, as `Isa` promises.
        unsafe {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => with_avx512(
                    #[inline(always)]
                    || work.run::<__m512>(),
                ),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => with_avx2(
                    #[inline(always)]
                    || work.run::<__m256>(),
                ),
                #[cfg(target_arch = "aarch64")]
                Kind::Neon => with_neon(
                    #[inline(always)]
                    || work.run::<float32x4_t>(),
                ),
                Kind::Plain => work.run::<Plain>(),
            }
        }
    }
}

impl FromStr for Isa {
    type Err = Error;

    /// A set of this processor by its name, such as `avx2`.
    fn from_str(name: &str) -> Result<Self> {
        let named = |isa: &Self| format!("{isa:?}").eq_ignore_ascii_case(name);
        Self::available().find(named).ok_or_else(|| {
            let expected = format!("one of {:?}", Self::available().collect::<Vec<_>>());
            Error::setting("vector instructions", expected, name)
        })
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn with_avx512<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn with_neon<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Evaluates an expression with the best vector instructions of this processor: see [`Isa::run`](crate::simd::Isa::run).
/// Functions in it whose loops matter must be `#[inline(always)]`.
#[macro_export]
macro_rules! vectorized {
    ($work:expr) => {
        $crate::simd::Isa::best().run(
            #[inline(always)]
            || $work,
        )
    };
}

/// Partial sums of [`sum`].
const LANES: usize = 16;

/// The sum of `term` over the values of `first` and of all `others`, up to the end of the shortest. It is made of 16 partial
/// sums, so that it compiles to vector instructions, and so that it is the same with all of them.
#[inline(always)]
pub fn sum<T: Copy, const N: usize>(
    first: &[T],
    others: [&[f32]; N],
    term: impl Fn(T, [f32; N]) -> f32,
) -> f32 {
    let len = others
        .iter()
        .fold(first.len(), |len, other| len.min(other.len()));
    let (first, first_rest) = first[..len].as_chunks::<LANES>();
    let others = others.map(|other| other[..len].as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (i, first) in first.iter().enumerate() {
        let others = others.map(|(other, _)| &other[i]);
        for lane in 0..LANES {
            sums[lane] += term(first[lane], others.map(|other| other[lane]));
        }
    }
    for (lane, &first) in first_rest.iter().enumerate() {
        sums[lane] += term(first, others.map(|(_, rest)| rest[lane]));
    }
    // A copy, so that the sums above never need an address and stay in registers.
    let stored = sums;
    total(&stored)
}

/// Adds up the partial sums. Not inlined: what the compiler knows about it must not change how it vectorizes [`sum`].
#[inline(never)]
fn total(sums: &[f32; LANES]) -> f32 {
    let quarters: [f32; 4] =
        std::array::from_fn(|i| (sums[i] + sums[i + 4]) + (sums[i + 8] + sums[i + 12]));
    (quarters[0] + quarters[2]) + (quarters[1] + quarters[3])
}

#[cfg(test)]
mod tests {
    use test_signals::noise;

    use super::*;

    #[test]
    fn the_instructions_of_the_processor_have_names() {
        for isa in Isa::available() {
            let name = format!("{isa:?}").to_lowercase();
            assert_eq!(name.parse::<Isa>().unwrap(), isa);
        }
        let error = "mmx".parse::<Isa>().unwrap_err().to_string();
        assert!(error.contains("Plain") && error.contains("mmx"), "{error}");
    }

    #[test]
    fn a_sum_is_that_of_all_terms_and_the_same_with_all_instructions() {
        let (a, b, c) = (noise(1, 100), noise(2, 100), noise(3, 100));
        for len in [0, 1, 15, 16, 17, 32, 99] {
            let exact = (0..len).map(|i| f64::from(a[i]) * f64::from(b[i]) - f64::from(c[i]));
            let exact = exact.sum::<f64>();
            let sums = Isa::available().map(|isa| {
                isa.run(
                    #[inline(always)]
                    || sum(&a[..len], [&b, &c], |a, [b, c]| a * b - c),
                )
            });
            let sums: Vec<f32> = sums.collect();
            assert!((f64::from(sums[0]) - exact).abs() < 1e-5, "{len}: {sums:?}");
            assert!(sums.iter().all(|sum| *sum == sums[0]), "{len}: {sums:?}");
        }
    }
}
