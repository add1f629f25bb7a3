//! Reduction kernels: what `op` means for every data type, as plain functions over unaligned memory.
//!
//! - **Integers** wrap around. Their average is the wrapped sum divided by the number of ranks, rounded
//!   towards zero.
//! - **float32 and float64** are computed in their own precision.
//! - **float16, bfloat16 and the 8-bit floats** are computed in float32 and rounded to nearest even after
//!   every step, which for one sum or product of two float16 or smaller numbers is the correctly rounded
//!   result. The 8-bit floats saturate, infinity included (see [`fp8`]).
//! - **NaN** in a sum, product or average gives NaN. Maximum and minimum ignore NaN, as IEEE 754's maxNum and
//!   as NCCL do: the result is NaN only where every rank contributed one. Of a positive and a negative zero
//!   they keep the accumulator's.
//! - **A result that is NaN is always the same one**, positive and quiet (0x7fc00000 in float32, 0x7f in
//!   float8e4m3, 0x7e in float8e5m2): else processors would disagree.
//!
//! So the same operands in the same order give the same bits, whatever the processor. Kernels are generic
//! code that the compiler vectorises, once per [`Level`], a set of instructions; only the conversions of
//! float16 that x86-64 processors have are spelled out. Which level serves is decided once per process.
//!
//! An average and a pre-multiplied sum accumulate as a sum; [`average`] and [`premul`] are their last and
//! first step.

mod body;
mod element;
pub mod fp8;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod level;
#[cfg(test)]
mod level_tests;
mod narrow;
mod number;
#[cfg(test)]
mod tests;

pub use crate::transport::Reduce3Fn;
use crate::transport::ReduceFn;
use crate::types::{DataType, RedOp, Reduction};
pub use level::Level;
use number::Kind;

/// `dst[i] = src[i] * scalar` for `count` elements; the scalar is one element in its first bytes.
///
/// # Safety
/// Both point to `count` elements, `dst` writable; they are equal or do not overlap. No alignment is assumed.
pub type PreMulFn = unsafe fn(dst: *mut u8, src: *const u8, count: usize, scalar: &[u8; 8]);

/// `dst[i] = dst[i] / nranks` for `count` elements.
///
/// # Safety
/// `dst` points to `count` writable elements. No alignment is assumed.
pub type AverageFn = unsafe fn(dst: *mut u8, count: usize, nranks: u32);

/// The operator of a reduction. The average and the pre-multiplied sum accumulate as a sum.
pub fn kernel(dtype: DataType, reduction: Reduction) -> ReduceFn {
    Level::best(dtype, kind(reduction)).kernel(dtype, reduction)
}

/// The same with a destination of its own; `a` is the accumulator.
pub fn kernel3(dtype: DataType, reduction: Reduction) -> Reduce3Fn {
    Level::best(dtype, kind(reduction)).kernel3(dtype, reduction)
}

/// The same for a large destination that is not read again soon: it is written past the caches, so that it
/// neither is read from memory first nor drives out what is in them. Fenced: whoever is told afterwards sees
/// the result.
pub fn kernel3_streaming(dtype: DataType, reduction: Reduction) -> Reduce3Fn {
    Level::best(dtype, kind(reduction)).kernel3_streaming(dtype, reduction)
}

/// The first step of a pre-multiplied sum; see [`PreMulFn`].
pub fn premul(dtype: DataType) -> PreMulFn {
    Level::best_scaling(dtype).premul(dtype)
}

/// The last step of an average; see [`AverageFn`].
pub fn average(dtype: DataType) -> AverageFn {
    Level::best_scaling(dtype).average(dtype)
}

/// The average and the pre-multiplied sum accumulate as a sum.
fn kind(reduction: Reduction) -> Kind {
    match reduction {
        Reduction::Builtin(RedOp::Sum | RedOp::Avg) | Reduction::PreMulSum(_) => Kind::Sum,
        Reduction::Builtin(RedOp::Prod) => Kind::Prod,
        Reduction::Builtin(RedOp::Max) => Kind::Max,
        Reduction::Builtin(RedOp::Min) => Kind::Min,
    }
}

impl Level {
    /// [`kernel`] of this level.
    pub fn kernel(self, dtype: DataType, reduction: Reduction) -> ReduceFn {
        self.kernel_of(dtype, kind(reduction))
    }

    /// [`kernel3`] of this level.
    pub fn kernel3(self, dtype: DataType, reduction: Reduction) -> Reduce3Fn {
        self.kernel3_of(dtype, kind(reduction))
    }

    /// [`kernel3_streaming`] of this level.
    pub fn kernel3_streaming(self, dtype: DataType, reduction: Reduction) -> Reduce3Fn {
        self.kernel3_streaming_of(dtype, kind(reduction))
    }
}
