//! What every kernel does around its loop. Always inlined: a level compiles its own.

use super::element::Element;
use super::number::Operator;
use crate::sys::copy;

/// Bytes that a streaming kernel computes before it sends them on their way to memory. They and what they are
/// computed from stay within the first-level cache.
const BLOCK: usize = 2048;

/// # Safety
/// As for [`ReduceFn`](crate::transport::ReduceFn).
#[inline(always)]
pub(super) unsafe fn combine<T: Element, O: Operator>(dst: *mut u8, src: *const u8, count: usize) {
    // Empty buffers may be NULL.
    if count > 0 {
        // SAFETY: `count` elements that do not overlap, by this function's contract.
        unsafe { T::zip::<O>(dst, dst, src, count) }
    }
}

/// # Safety
/// As for [`Reduce3Fn`](super::Reduce3Fn).
#[inline(always)]
pub(super) unsafe fn combine3<T: Element, O: Operator>(
    dst: *mut u8,
    a: *const u8,
    b: *const u8,
    count: usize,
) {
    if count > 0 {
        // SAFETY: by this function's contract.
        unsafe { T::zip::<O>(dst, a, b, count) }
    }
}

#[repr(align(64))]
struct Block([u8; BLOCK]);

/// # Safety
/// As for [`Reduce3Fn`](super::Reduce3Fn).
#[inline(always)]
pub(super) unsafe fn streaming<T: Element, O: Operator>(
    dst: *mut u8,
    a: *const u8,
    b: *const u8,
    count: usize,
) {
    let mut block = Block([0; BLOCK]);
    let bytes = count * T::SIZE;
    // Blocks after the first begin with a cache line, where elements do; a line in two parts is slow.
    let first = BLOCK - (dst.addr() % 64) / T::SIZE * T::SIZE;
    let mut done = 0;
    let mut len = Ord::min(first, bytes);
    while len > 0 {
        // SAFETY: `done + len <= bytes`, which the buffers hold by this function's contract; a block is not
        // larger than the array, and whole elements. What is read of the buffers comes before what is
        // written.
        unsafe {
            T::zip::<O>(block.0.as_mut_ptr(), a.add(done), b.add(done), len / T::SIZE);
            copy::stream(dst.add(done), block.0.as_ptr(), len);
        }
        done += len;
        len = Ord::min(BLOCK, bytes - done);
    }
    copy::fence();
}

/// # Safety
/// As for [`PreMulFn`](super::PreMulFn).
#[inline(always)]
pub(super) unsafe fn scale<T: Element>(dst: *mut u8, src: *const u8, count: usize, scalar: &[u8; 8]) {
    if count > 0 {
        // SAFETY: by this function's contract.
        unsafe { T::scale(dst, src, count, scalar) }
    }
}

/// # Safety
/// As for [`AverageFn`](super::AverageFn).
#[inline(always)]
pub(super) unsafe fn divide<T: Element>(dst: *mut u8, count: usize, nranks: u32) {
    if count > 0 {
        // SAFETY: by this function's contract. A world has at least one member; the guard only keeps a
        // division by zero out of the code.
        unsafe { T::divide(dst, count, Ord::max(nranks, 1)) }
    }
}
