//! float16 by the processor's own conversions: 8 elements at a time by F16C, 16 by AVX-512.

use super::element::Element;
use super::narrow::{self, Float16};
use super::number::{Kind, Operator};
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Elements in a register, as float32. Its methods are called where its instructions are enabled only: in
/// kernels of the levels that name it.
pub(super) trait Lanes: Copy {
    const COUNT: usize;

    /// # Safety
    /// `COUNT` readable elements; the instructions of this type.
    unsafe fn load(from: *const u8) -> Self;
    /// Rounds to nearest even; every NaN becomes the canonical one.
    ///
    /// # Safety
    /// `COUNT` writable elements; the instructions of this type.
    unsafe fn store(self, to: *mut u8);
    /// # Safety
    /// The instructions of this type.
    unsafe fn splat(value: f32) -> Self;
    /// # Safety
    /// The instructions of this type.
    unsafe fn plus(self, other: Self) -> Self;
    /// # Safety
    /// The instructions of this type.
    unsafe fn times(self, other: Self) -> Self;
    /// # Safety
    /// The instructions of this type.
    unsafe fn over(self, other: Self) -> Self;
}

/// 8 elements; needs AVX and F16C.
#[derive(Clone, Copy)]
pub(super) struct Eight(__m256);

impl Lanes for Eight {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Eight {
        // SAFETY: 16 readable bytes, and the instructions, by this function's contract.
        unsafe { Eight(_mm256_cvtph_ps(_mm_loadu_si128(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: 16 writable bytes, and the instructions, by this function's contract.
        unsafe {
            let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0);
            let canonical = _mm256_blendv_ps(self.0, _mm256_set1_ps(f32::NAN), nan);
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(canonical));
        }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Eight {
        // SAFETY: the instructions, by this function's contract.
        unsafe { Eight(_mm256_set1_ps(value)) }
    }
    #[inline(always)]
    unsafe fn plus(self, other: Eight) -> Eight {
        // SAFETY: the instructions, by this function's contract.
        unsafe { Eight(_mm256_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn times(self, other: Eight) -> Eight {
        // SAFETY: the instructions, by this function's contract.
        unsafe { Eight(_mm256_mul_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn over(self, other: Eight) -> Eight {
        // SAFETY: the instructions, by this function's contract.
        unsafe { Eight(_mm256_div_ps(self.0, other.0)) }
    }
}

/// 16 elements; needs AVX-512F.
#[derive(Clone, Copy)]
pub(super) struct Sixteen(__m512);

impl Lanes for Sixteen {
    const COUNT: usize = 16;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Sixteen {
        // SAFETY: 32 readable bytes, and the instructions, by this function's contract.
        unsafe { Sixteen(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: 32 writable bytes, and the instructions, by this function's contract.
        unsafe {
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            let canonical = _mm512_mask_mov_ps(self.0, nan, _mm512_set1_ps(f32::NAN));
            _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(canonical));
        }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Sixteen {
        // SAFETY: the instructions, by this function's contract.
        unsafe { Sixteen(_mm512_set1_ps(value)) }
    }
    #[inline(always)]
    unsafe fn plus(self, other: Sixteen) -> Sixteen {
        // SAFETY: the instructions, by this function's contract.
        unsafe { Sixteen(_mm512_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn times(self, other: Sixteen) -> Sixteen {
        // SAFETY: the instructions, by this function's contract.
        unsafe { Sixteen(_mm512_mul_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn over(self, other: Sixteen) -> Sixteen {
        // SAFETY: the instructions, by this function's contract.
        unsafe { Sixteen(_mm512_div_ps(self.0, other.0)) }
    }
}

/// `dst[i] = f(a[i], b[i])`; the last elements with zeros behind them.
///
/// # Safety
/// As said for [`Element`], and the instructions of `V`.
#[inline(always)]
unsafe fn zip<V: Lanes>(dst: *mut u8, a: *const u8, b: *const u8, count: usize, f: impl Fn(V, V) -> V) {
    let width = V::COUNT * 2;
    let bytes = count * 2;
    let whole = bytes / width * width;
    let mut at = 0;
    while at < whole {
        // SAFETY: a register's worth of elements lies before `whole` in every buffer. Both operands are
        // loaded before the result is stored, so it does not matter which of them is `dst`.
        unsafe { f(V::load(a.add(at)), V::load(b.add(at))).store(dst.add(at)) };
        at += width;
    }
    let rest = bytes - whole;
    if rest > 0 {
        const { assert!(V::COUNT <= 16) };
        let (mut x, mut y) = ([0u8; 32], [0u8; 32]);
        // SAFETY: `rest` bytes are left in every buffer, less than the `width` bytes that the arrays hold.
        unsafe {
            std::ptr::copy_nonoverlapping(a.add(whole), x.as_mut_ptr(), rest);
            std::ptr::copy_nonoverlapping(b.add(whole), y.as_mut_ptr(), rest);
            f(V::load(x.as_ptr()), V::load(y.as_ptr())).store(x.as_mut_ptr());
            std::ptr::copy_nonoverlapping(x.as_ptr(), dst.add(whole), rest);
        }
    }
}

/// float16 where the processor has `V`: for kernels of levels with its instructions only.
pub(super) struct InLanes<V>(PhantomData<V>);

impl<V: Lanes> Element for InLanes<V> {
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn zip<O: Operator>(dst: *mut u8, a: *const u8, b: *const u8, count: usize) {
        // SAFETY: by this function's contract; the instructions are there, as said for the type.
        unsafe {
            match O::KIND {
                Kind::Sum => zip(dst, a, b, count, |a: V, b| a.plus(b)),
                Kind::Prod => zip(dst, a, b, count, |a: V, b| a.times(b)),
                Kind::Max | Kind::Min => Float16::zip::<O>(dst, a, b, count),
            }
        }
    }

    #[inline(always)]
    unsafe fn scale(dst: *mut u8, src: *const u8, count: usize, scalar: &[u8; 8]) {
        // SAFETY: as in `zip`.
        unsafe {
            let scalar = V::splat(narrow::factor::<Float16>(scalar));
            zip(dst, src, src, count, |x: V, _| x.times(scalar));
        }
    }

    #[inline(always)]
    unsafe fn divide(dst: *mut u8, count: usize, nranks: u32) {
        // SAFETY: as in `zip`.
        unsafe {
            let nranks = V::splat(nranks as f32);
            zip(dst, dst, dst, count, |x: V, _| x.over(nranks));
        }
    }
}
