//! How elements lie in memory, and the loops over them.

use super::number::{Number, Operator};
use std::marker::PhantomData;
use std::slice;

/// An element at any address: alignment 1, so that slices of it may lie anywhere in a user's buffer.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Packed<T: Copy>(T);

/// The kernels of a data type, for the compiler to vectorise; they are compiled once per
/// [`Level`](super::Level). Every bit pattern is a valid element.
///
/// All take pointers without alignment to `count` elements, of which `dst` are writable. At most one other
/// pointer equals `dst`; what the others point to does not overlap it.
pub(super) trait Element {
    /// Bytes of an element.
    const SIZE: usize;

    /// `dst[i] = a[i] op b[i]`.
    ///
    /// # Safety
    /// As said for the trait.
    unsafe fn zip<O: Operator>(dst: *mut u8, a: *const u8, b: *const u8, count: usize);

    /// `dst[i] = src[i] * scalar`, which is in the first bytes.
    ///
    /// # Safety
    /// As said for the trait.
    unsafe fn scale(dst: *mut u8, src: *const u8, count: usize, scalar: &[u8; 8]);

    /// `dst[i] /= nranks`, which is at least 1.
    ///
    /// # Safety
    /// As said for the trait.
    unsafe fn divide(dst: *mut u8, count: usize, nranks: u32);
}

/// A number that the processor computes with as it lies in memory.
pub(super) trait Native: Number {
    /// A number of ranks, prepared for many divisions.
    type Divisor: Copy;

    fn divisor(nranks: u32) -> Self::Divisor;
    fn over(self, by: Self::Divisor) -> Self;

    /// Every NaN becomes the same one: which operand's payload a processor keeps, and of which sign it makes
    /// one, differs between processors and with the order the compiler chose.
    fn canonical(self) -> Self;
}

impl<T: Native> Element for T {
    const SIZE: usize = size_of::<T>();

    #[inline(always)]
    unsafe fn zip<O: Operator>(dst: *mut u8, a: *const u8, b: *const u8, count: usize) {
        // SAFETY: by this function's contract.
        unsafe { zip::<T>(dst, a, b, count, Combined::<O>(PhantomData)) }
    }

    #[inline(always)]
    unsafe fn scale(dst: *mut u8, src: *const u8, count: usize, scalar: &[u8; 8]) {
        const { assert!(size_of::<T>() <= 8) };
        // SAFETY: the eight bytes hold an element, of which every bit pattern is valid.
        let scalar = unsafe { scalar.as_ptr().cast::<T>().read_unaligned() };
        // SAFETY: by this function's contract.
        unsafe { map::<T>(dst, src, count, Times(scalar)) }
    }

    #[inline(always)]
    unsafe fn divide(dst: *mut u8, count: usize, nranks: u32) {
        let by = T::divisor(nranks);
        // SAFETY: by this function's contract.
        unsafe { map::<T>(dst, dst, count, Over(by)) }
    }
}

/// What a loop does with two elements. No closure, because those cannot be told to be always inlined: a call
/// that is left in a loop keeps it from being vectorised, and runs with the smallest instruction set.
pub(super) trait Binary<T>: Copy {
    fn call(self, a: T, b: T) -> T;
}

/// What a loop does with an element.
pub(super) trait Unary<T>: Copy {
    fn call(self, x: T) -> T;
}

#[derive(Clone, Copy)]
struct Combined<O>(PhantomData<O>);

impl<T: Native, O: Operator> Binary<T> for Combined<O> {
    #[inline(always)]
    fn call(self, a: T, b: T) -> T {
        O::apply(a, b).canonical()
    }
}

#[derive(Clone, Copy)]
struct Times<T>(T);

impl<T: Native> Unary<T> for Times<T> {
    #[inline(always)]
    fn call(self, x: T) -> T {
        x.times(self.0).canonical()
    }
}

#[derive(Clone, Copy)]
struct Over<D>(D);

impl<T: Native> Unary<T> for Over<T::Divisor> {
    #[inline(always)]
    fn call(self, x: T) -> T {
        x.over(self.0).canonical()
    }
}

/// `dst[i] = f(a[i], b[i])`.
///
/// # Safety
/// As said for [`Element`].
#[inline(always)]
pub(super) unsafe fn zip<T: Copy>(dst: *mut u8, a: *const u8, b: *const u8, count: usize, f: impl Binary<T>) {
    let (dst, a, b) = (dst.cast::<Packed<T>>(), a.cast::<Packed<T>>(), b.cast::<Packed<T>>());
    // Three loops, so that in each the compiler sees slices that do not overlap.
    // SAFETY: `count` elements of alignment 1 each, by this function's contract; where one of them is `dst`
    // itself, no second slice of it is made.
    unsafe {
        let dst_slice = slice::from_raw_parts_mut(dst, count);
        if dst.cast_const() == a {
            for (d, s) in dst_slice.iter_mut().zip(slice::from_raw_parts(b, count)) {
                *d = Packed(f.call(d.0, s.0));
            }
        } else if dst.cast_const() == b {
            for (d, s) in dst_slice.iter_mut().zip(slice::from_raw_parts(a, count)) {
                *d = Packed(f.call(s.0, d.0));
            }
        } else {
            let b = slice::from_raw_parts(b, count);
            for ((d, a), b) in dst_slice.iter_mut().zip(slice::from_raw_parts(a, count)).zip(b) {
                *d = Packed(f.call(a.0, b.0));
            }
        }
    }
}

/// `dst[i] = f(src[i])`.
///
/// # Safety
/// As said for [`Element`].
#[inline(always)]
pub(super) unsafe fn map<T: Copy>(dst: *mut u8, src: *const u8, count: usize, f: impl Unary<T>) {
    let (dst, src) = (dst.cast::<Packed<T>>(), src.cast::<Packed<T>>());
    // SAFETY: as in `zip`.
    unsafe {
        let dst_slice = slice::from_raw_parts_mut(dst, count);
        if dst.cast_const() == src {
            for d in dst_slice {
                *d = Packed(f.call(d.0));
            }
        } else {
            for (d, s) in dst_slice.iter_mut().zip(slice::from_raw_parts(src, count)) {
                *d = Packed(f.call(s.0));
            }
        }
    }
}

macro_rules! float {
    ($($t:ident),*) => {$(
        impl Native for $t {
            type Divisor = $t;

            #[inline(always)]
            fn divisor(nranks: u32) -> $t { nranks as $t }
            #[inline(always)]
            fn over(self, by: $t) -> $t { self / by }
            #[inline(always)]
            fn canonical(self) -> $t { if self.is_nan() { $t::NAN } else { self } }
        }
    )*};
}
float!(f32, f64);

/// Integers that a float holds exactly, whose rounded quotient, cut off, is the exact quotient, cut off: it
/// is at least 1/nranks away from the next integer unless it is one, and the rounding error is smaller.
/// Numbers of ranks that float32 does not hold are so large that every quotient is zero.
macro_rules! integer_in_float {
    ($($t:ident in $float:ident),*) => {$(
        impl Native for $t {
            type Divisor = $float;

            #[inline(always)]
            fn divisor(nranks: u32) -> $float { nranks as $float }
            #[inline(always)]
            fn over(self, by: $float) -> $t {
                let quotient = $float::from(self) / by;
                // SAFETY: divided by a number that is at least 1, so it is still in the range of the type.
                unsafe { quotient.to_int_unchecked() }
            }
            #[inline(always)]
            fn canonical(self) -> $t { self }
        }
    )*};
}
integer_in_float!(i8 in f32, u8 in f32, i32 in f64, u32 in f64);

/// Division by an invariant integer by multiplication with its reciprocal (Granlund and Montgomery, 1994).
#[derive(Clone, Copy)]
pub(super) struct Reciprocal {
    /// `2^64 * (2^ceil(log2 n) - n) / n + 1`, cut off.
    factor: u64,
    /// `ceil(log2 n) - 1`; 0 for n = 1.
    shift: u32,
    is_one: bool,
}

impl Reciprocal {
    #[inline(always)]
    fn new(n: u32) -> Reciprocal {
        let n = u128::from(Ord::max(n, 1));
        let log = n.next_power_of_two().trailing_zeros();
        // At most 2^64 - 1, because 2^log < 2 n.
        let factor = ((((1u128 << log) - n) << 64) / n + 1) as u64;
        Reciprocal { factor, shift: log.saturating_sub(1), is_one: n == 1 }
    }

    #[inline(always)]
    fn divide(self, x: u64) -> u64 {
        let high = ((u128::from(x) * u128::from(self.factor)) >> 64) as u64;
        if self.is_one { x } else { (high + ((x - high) >> 1)) >> self.shift }
    }
}

impl Native for u64 {
    type Divisor = Reciprocal;

    #[inline(always)]
    fn divisor(nranks: u32) -> Reciprocal {
        Reciprocal::new(nranks)
    }
    #[inline(always)]
    fn over(self, by: Reciprocal) -> u64 {
        by.divide(self)
    }
    #[inline(always)]
    fn canonical(self) -> u64 {
        self
    }
}

impl Native for i64 {
    type Divisor = Reciprocal;

    #[inline(always)]
    fn divisor(nranks: u32) -> Reciprocal {
        Reciprocal::new(nranks)
    }
    #[inline(always)]
    fn over(self, by: Reciprocal) -> i64 {
        let magnitude = by.divide(self.unsigned_abs()) as i64;
        // The sign, as a mask: a negative quotient is the complement plus one.
        let sign = self >> 63;
        (magnitude ^ sign).wrapping_sub(sign)
    }
    #[inline(always)]
    fn canonical(self) -> i64 {
        self
    }
}
