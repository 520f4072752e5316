//! The vector instructions of processors, behind one trait.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// A set of vector instructions that this processor has: only [`Isa::best`] and [`Isa::available`] make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(pub(super) Kind);

/// All sets, widest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// AVX-512 F: 16 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 and FMA: 8 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// NEON: 4 lanes.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// What every processor of the architecture has: 4 lanes, no fused multiply-add.
    Plain,
}

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
        Self::available().next().unwrap_or(Self(Kind::Plain))
    }

    /// Values in a vector.
    pub(super) fn lanes(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => __m512::LANES,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => __m256::LANES,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => float32x4_t::LANES,
            Kind::Plain => Plain::LANES,
        }
    }

    /// Vector registers.
    pub(super) fn registers(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => 32,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => 32,
            _ => 16,
        }
    }
}

/// A vector of floats. Its functions must be inlined into a function that has the instructions.
pub(super) trait Vector: Copy {
    /// Values in a vector.
    const LANES: usize;

    /// All lanes the same.
    ///
    /// # Safety
    /// The processor must have the instructions; so for all functions.
    unsafe fn splat(value: f32) -> Self;

    /// # Safety
    /// [`Self::LANES`] values must be readable.
    unsafe fn load(values: *const f32) -> Self;

    /// # Safety
    /// [`Self::LANES`] values must be writable.
    unsafe fn store(self, values: *mut f32);

    /// # Safety
    /// See [`Self::splat`].
    unsafe fn add(self, other: Self) -> Self;

    /// # Safety
    /// See [`Self::splat`].
    unsafe fn mul(self, other: Self) -> Self;

    /// The larger value of each lane.
    ///
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn max(self, other: Self) -> Self;

    /// `self * factor + sum`.
    ///
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self;
}

/// Implements [`Vector`] by intrinsics.
macro_rules! vector {
    ($vector:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $add:ident, $mul:ident, $max:ident,
     ($a:ident, $b:ident, $c:ident) => $mul_add:expr) => {
        impl Vector for $vector {
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                // SAFETY: the caller vouches for the instructions; so in all functions here.
                unsafe { $splat(value) }
            }

            #[inline(always)]
            unsafe fn load(values: *const f32) -> Self {
                // SAFETY: and for the values.
                unsafe { $load(values) }
            }

            #[inline(always)]
            unsafe fn store(self, values: *mut f32) {
                // SAFETY: and for the values.
                unsafe { $store(values, self) }
            }

            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: see `splat`.
                unsafe { $add(self, other) }
            }

            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                // SAFETY: see `splat`.
                unsafe { $mul(self, other) }
            }

            #[inline(always)]
            unsafe fn max(self, other: Self) -> Self {
                // SAFETY: see `splat`.
                unsafe { $max(self, other) }
            }

            #[inline(always)]
            unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
                let ($a, $b, $c) = (self, factor, sum);
                // SAFETY: see `splat`.
                unsafe { $mul_add }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
vector!(__m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_mul_ps, _mm512_max_ps,
    (a, b, c) => _mm512_fmadd_ps(a, b, c));
#[cfg(target_arch = "x86_64")]
vector!(__m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_mul_ps, _mm256_max_ps,
    (a, b, c) => _mm256_fmadd_ps(a, b, c));
#[cfg(target_arch = "aarch64")]
vector!(float32x4_t, 4, vdupq_n_f32, vld1q_f32, vst1q_f32, vaddq_f32, vmulq_f32, vmaxq_f32,
    (a, b, c) => vfmaq_f32(c, a, b));

/// Four floats, for processors without any of the above.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; 4]);

impl Plain {
    #[inline(always)]
    fn map(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }
}

impl Vector for Plain {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(values: *const f32) -> Self {
        // SAFETY: the caller vouches for four values.
        Self(unsafe { values.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, values: *mut f32) {
        // SAFETY: the caller vouches for four values.
        unsafe { values.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.map(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.map(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.map(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: plain arithmetic.
        unsafe { self.mul(factor).add(sum) }
    }
}
