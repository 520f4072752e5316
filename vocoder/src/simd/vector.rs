//! The vector instructions that loops need by name, behind one trait.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::{Isa, Kind};

impl Isa {
    /// Values in a vector.
    pub(crate) fn lanes(self) -> usize {
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
    pub(crate) fn registers(self) -> usize {
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
pub(crate) trait Vector: Copy {
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

    /// Loads the first `lanes` values, fewer than [`Self::LANES`]; the others are zero.
    ///
    /// # Safety
    /// As many values must be readable.
    unsafe fn load_first(values: *const f32, lanes: usize) -> Self;

    /// Stores the first `lanes` values, fewer than [`Self::LANES`].
    ///
    /// # Safety
    /// As many values must be writable.
    unsafe fn store_first(self, values: *mut f32, lanes: usize);

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

    /// The smaller value of each lane.
    ///
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn min(self, other: Self) -> Self;

    /// `yes` in each lane where this value is less than the other, else `no`.
    ///
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn if_less(self, other: Self, yes: Self, no: Self) -> Self;

    /// `self * factor + sum`.
    ///
    /// # Safety
    /// See [`Self::splat`].
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self;
}

/// Implements [`Vector`] by intrinsics.
macro_rules! vector {
    ($vector:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $add:ident, $mul:ident, $max:ident, $min:ident,
     ($a:ident, $b:ident, $c:ident) => $mul_add:expr, ($yes:ident, $no:ident) => $if_less:expr, $load_first:ident, $store_first:ident) => {
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
            unsafe fn load_first(values: *const f32, lanes: usize) -> Self {
                // SAFETY: and for the values.
                unsafe { $load_first(values, lanes) }
            }

            #[inline(always)]
            unsafe fn store_first(self, values: *mut f32, lanes: usize) {
                // SAFETY: and for the values.
                unsafe { $store_first(self, values, lanes) }
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
            unsafe fn min(self, other: Self) -> Self {
                // SAFETY: see `splat`.
                unsafe { $min(self, other) }
            }

            #[inline(always)]
            unsafe fn if_less(self, other: Self, yes: Self, no: Self) -> Self {
                let ($a, $b, $yes, $no) = (self, other, yes, no);
                // SAFETY: see `splat`.
                unsafe { $if_less }
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
    _mm512_min_ps, (a, b, c) => _mm512_fmadd_ps(a, b, c),
    (yes, no) => _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes), load_first_512, store_first_512);
#[cfg(target_arch = "x86_64")]
vector!(__m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_mul_ps, _mm256_max_ps,
    _mm256_min_ps, (a, b, c) => _mm256_fmadd_ps(a, b, c),
    (yes, no) => _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)), load_first_256, store_first_256);
#[cfg(target_arch = "aarch64")]
vector!(float32x4_t, 4, vdupq_n_f32, vld1q_f32, vst1q_f32, vaddq_f32, vmulq_f32, vmaxq_f32,
    vminq_f32, (a, b, c) => vfmaq_f32(c, a, b), (yes, no) => vbslq_f32(vcltq_f32(a, b), yes, no), load_by_value, store_by_value);

/// A mask of the first lanes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn mask_512(lanes: usize) -> __mmask16 {
    (1 << lanes) - 1
}

/// # Safety
/// As [`Vector::load_first`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn load_first_512(values: *const f32, lanes: usize) -> __m512 {
    // SAFETY: the caller vouches for the instructions and the values.
    unsafe { _mm512_maskz_loadu_ps(mask_512(lanes), values) }
}

/// # Safety
/// As [`Vector::store_first`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn store_first_512(vector: __m512, values: *mut f32, lanes: usize) {
    // SAFETY: the caller vouches for the instructions and the values.
    unsafe { _mm512_mask_storeu_ps(values, mask_512(lanes), vector) }
}

/// A mask of the first lanes.
///
/// # Safety
/// As [`Vector::splat`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn mask_256(lanes: usize) -> __m256i {
    const MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    let masks = &MASKS[8 - lanes..][..8];
    // SAFETY: the caller vouches for the instructions; there are eight masks.
    unsafe { _mm256_loadu_si256(masks.as_ptr().cast()) }
}

/// # Safety
/// As [`Vector::load_first`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn load_first_256(values: *const f32, lanes: usize) -> __m256 {
    // SAFETY: the caller vouches for the instructions and the values.
    unsafe { _mm256_maskload_ps(values, mask_256(lanes)) }
}

/// # Safety
/// As [`Vector::store_first`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn store_first_256(vector: __m256, values: *mut f32, lanes: usize) {
    // SAFETY: the caller vouches for the instructions and the values.
    unsafe { _mm256_maskstore_ps(values, mask_256(lanes), vector) }
}

/// [`Vector::load_first`] for vectors of four.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn load_by_value<V: Vector>(values: *const f32, lanes: usize) -> V {
    let mut four = [0.0; 4];
    for (lane, value) in four.iter_mut().enumerate().take(lanes) {
        // SAFETY: the caller vouches for `lanes` values.
        *value = unsafe { *values.add(lane) };
    }
    // SAFETY: the caller vouches for the instructions.
    unsafe { V::load(four.as_ptr()) }
}

/// [`Vector::store_first`] for vectors of four.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn store_by_value<V: Vector>(vector: V, values: *mut f32, lanes: usize) {
    let mut four = [0.0; 4];
    // SAFETY: the caller vouches for the instructions.
    unsafe { vector.store(four.as_mut_ptr()) };
    for (lane, value) in four.into_iter().enumerate().take(lanes) {
        // SAFETY: the caller vouches for `lanes` values.
        unsafe { *values.add(lane) = value };
    }
}

/// Four floats, for processors without any of the above.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 4]);

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
    unsafe fn load_first(values: *const f32, lanes: usize) -> Self {
        // SAFETY: as here.
        unsafe { load_by_value(values, lanes) }
    }

    #[inline(always)]
    unsafe fn store_first(self, values: *mut f32, lanes: usize) {
        // SAFETY: as here.
        unsafe { store_by_value(self, values, lanes) }
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
    unsafe fn min(self, other: Self) -> Self {
        self.map(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn if_less(self, other: Self, yes: Self, no: Self) -> Self {
        let pick = |lane| match self.0[lane] < other.0[lane] {
            true => yes.0[lane],
            false => no.0[lane],
        };
        Self(std::array::from_fn(pick))
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: plain arithmetic.
        unsafe { self.mul(factor).add(sum) }
    }
}
