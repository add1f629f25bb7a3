//! Reduction kernels: what `op` means for every data type, as plain functions over unaligned memory.
//!
//! - **Integers** wrap around. Their average is the wrapped sum divided by the number of ranks, rounded
//!   towards zero.
//! - **float32 and float64** are computed in their own precision.
//! - **float16, bfloat16 and the 8-bit floats** are computed in float32 and rounded to nearest even after
//!   every step, which for one sum or product of two float16 or smaller numbers is the correctly rounded
//!   result. The 8-bit floats saturate, infinity included (see [`fp8`]).
//! - **NaN** in a sum, product or average gives NaN; its sign and payload are unspecified. Maximum and
//!   minimum ignore NaN, as IEEE 754's maxNum and as NCCL do: the result is NaN only where every rank
//!   contributed one. Of a positive and a negative zero they keep the accumulator's.
//!
//! An average and a pre-multiplied sum accumulate as a sum; [`average`] and [`premul`] are their last and
//! first step.

mod element;
pub mod fp8;
mod number;
#[cfg(test)]
mod tests;

use crate::transport::ReduceFn;
use crate::types::{DataType, RedOp, Reduction};
use element::{Element, Packed};
use fp8::{E4m3, E5m2};
use half::{bf16, f16};
use number::{Max, Min, Number, Operator, Prod, Sum};
use std::slice;

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

/// Bytes that `premul` moves before it multiplies them, so that they are still in the first-level cache.
const PREMUL_BLOCK: usize = 4096;

/// Expands to the instance of a generic function for the Rust type behind a `DataType`.
macro_rules! instance {
    ($dtype:expr, $function:ident $(, $operator:ident)?) => {
        match $dtype {
            DataType::Int8 => $function::<i8 $(, $operator)?>,
            DataType::Uint8 => $function::<u8 $(, $operator)?>,
            DataType::Int32 => $function::<i32 $(, $operator)?>,
            DataType::Uint32 => $function::<u32 $(, $operator)?>,
            DataType::Int64 => $function::<i64 $(, $operator)?>,
            DataType::Uint64 => $function::<u64 $(, $operator)?>,
            DataType::Float16 => $function::<f16 $(, $operator)?>,
            DataType::Float32 => $function::<f32 $(, $operator)?>,
            DataType::Float64 => $function::<f64 $(, $operator)?>,
            DataType::Bfloat16 => $function::<bf16 $(, $operator)?>,
            DataType::Float8e4m3 => $function::<E4m3 $(, $operator)?>,
            DataType::Float8e5m2 => $function::<E5m2 $(, $operator)?>,
        }
    };
}

/// The operator of a reduction. The average and the pre-multiplied sum accumulate as a sum.
pub fn kernel(dtype: DataType, reduction: Reduction) -> ReduceFn {
    match reduction {
        Reduction::Builtin(RedOp::Sum | RedOp::Avg) | Reduction::PreMulSum(_) => {
            instance!(dtype, combine, Sum)
        }
        Reduction::Builtin(RedOp::Prod) => instance!(dtype, combine, Prod),
        Reduction::Builtin(RedOp::Max) => instance!(dtype, combine, Max),
        Reduction::Builtin(RedOp::Min) => instance!(dtype, combine, Min),
    }
}

/// The first step of a pre-multiplied sum; see [`PreMulFn`].
pub fn premul(dtype: DataType) -> unsafe fn(dst: *mut u8, src: *const u8, count: usize, scalar: &[u8; 8]) {
    instance!(dtype, scale)
}

/// The last step of an average; see [`AverageFn`].
pub fn average(dtype: DataType) -> unsafe fn(dst: *mut u8, count: usize, nranks: u32) {
    instance!(dtype, divide)
}

/// # Safety
/// As for [`ReduceFn`].
unsafe fn combine<T: Element, O: Operator>(dst: *mut u8, src: *const u8, count: usize) {
    // Empty buffers may be NULL.
    if count == 0 {
        return;
    }
    // SAFETY: `count` elements that do not overlap, by this function's contract; a packed element has
    // alignment 1 and every bit pattern is one.
    let (dst, src) = unsafe {
        (
            slice::from_raw_parts_mut(dst.cast::<Packed<T>>(), count),
            slice::from_raw_parts(src.cast::<Packed<T>>(), count),
        )
    };
    T::zip(dst, src, O::apply);
}

/// # Safety
/// As for [`PreMulFn`].
unsafe fn scale<T: Element>(dst: *mut u8, src: *const u8, count: usize, scalar: &[u8; 8]) {
    if count == 0 {
        return;
    }
    const { assert!(size_of::<T>() <= 8) };
    // SAFETY: the scalar's eight bytes hold at least one element, of which every bit pattern is valid.
    let scalar = unsafe { scalar.as_ptr().cast::<T>().read_unaligned() }.widen();
    let in_place = dst.cast_const() == src;
    let block = PREMUL_BLOCK / size_of::<T>();
    let mut done = 0;
    while done < count {
        let len = Ord::min(block, count - done);
        let offset = done * size_of::<T>();
        // SAFETY: `done + len <= count` elements are valid by this function's contract, and the buffers do
        // not overlap where they are not the same.
        let part = unsafe {
            let dst = dst.add(offset);
            if !in_place {
                std::ptr::copy_nonoverlapping(src.add(offset), dst, len * size_of::<T>());
            }
            slice::from_raw_parts_mut(dst.cast::<Packed<T>>(), len)
        };
        T::map(part, |x| x.times(scalar));
        done += len;
    }
}

/// # Safety
/// As for [`AverageFn`].
unsafe fn divide<T: Element>(dst: *mut u8, count: usize, nranks: u32) {
    if count == 0 {
        return;
    }
    // SAFETY: `count` writable elements by this function's contract; see `combine`.
    let dst = unsafe { slice::from_raw_parts_mut(dst.cast::<Packed<T>>(), count) };
    // A world has at least one member; the guard only keeps a division by zero out of the code.
    let nranks = Ord::max(nranks, 1);
    T::map(dst, |x| x.over(nranks));
}
