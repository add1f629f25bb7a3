//! Floats of 8 and 16 bits: conversions by integer arithmetic without branches, so that loops over them
//! vectorise on every processor, and the kernels' loops.
//!
//! Sums and products are computed in float32, on whole 32-bit words of 2 or 4 elements that stay in their
//! places: that spares moving every element to a lane of its own and back. Maximum and minimum need no
//! conversion, because the codes of one sign are ordered as their values are.
//!
//! Conversions never compute with a subnormal float32 whose flushing to zero would show: a host application
//! may have told the processor to do that.

use super::element::{self, Binary, Element, Unary};
use super::fp8::{E4m3, E5m2};
use super::number::{Number, Operator, Prod, Sum};
use std::marker::PhantomData;

/// A float format: from its highest bit down the sign, the exponent, the mantissa. Its codes are handled in
/// the highest bits of a word, with zeros below.
/// Every bit pattern is valid.
pub(super) trait Format: Copy {
    /// Bits of an element.
    const BITS: u32;

    /// The exact value; a NaN keeps its sign.
    fn widen(code: u32) -> f32;

    /// The nearest value, of two equally near the even one; of any NaN the canonical one.
    fn narrow(value: f32) -> u32;

    fn code(self) -> u32;
    fn from_code(code: u32) -> Self;
}

const SIGN: u32 = 1 << 31;
const INFINITY: u32 = f32::INFINITY.to_bits();

const fn bias(exponent: u32) -> u32 {
    (1 << (exponent - 1)) - 1
}

/// The bits of the smallest normal number of a format with so many bits of exponent.
const fn smallest_normal(exponent: u32) -> u32 {
    (128 - bias(exponent)) << 23
}

/// The value of a code whose exponent has `EXPONENT` bits, if its largest exponent were like any other.
#[inline(always)]
fn widen_finite<const EXPONENT: u32>(code: u32) -> f32 {
    let sign = code & SIGN;
    let magnitude = (code & !SIGN) >> (8 - EXPONENT);
    let normal = f32::from_bits(magnitude + const { (127 - bias(EXPONENT)) << 23 });
    // The exponent of a subnormal number is one more than it says, and there is no one before its mantissa:
    // twice the number less the smallest normal one, which of a normal number would be no less than it is.
    let subnormal = normal + (normal - f32::from_bits(const { smallest_normal(EXPONENT) }));
    let value = if subnormal < normal { subnormal } else { normal };
    f32::from_bits(sign | value.to_bits())
}

/// The same where the largest exponent means infinity and NaN.
#[inline(always)]
fn widen_ieee<const EXPONENT: u32>(code: u32) -> f32 {
    let finite = widen_finite::<EXPONENT>(code).to_bits();
    let first_special = const { !SIGN & (u32::MAX << (31 - EXPONENT)) };
    let special = const { (127 - bias(EXPONENT)) << 23 };
    f32::from_bits(if code & !SIGN >= first_special { finite + special } else { finite })
}

/// The code nearest to a value, where the number `largest` stands for all beyond it, and `nan` for NaN.
#[inline(always)]
fn narrow<const EXPONENT: u32, const BITS: u32>(value: f32, largest: f32, nan: u32) -> u32 {
    let mantissa_bits = const { BITS - 1 - EXPONENT };
    let magnitude = value.to_bits() & !SIGN;
    // Compared as signed integers, which the smallest instruction sets can.
    let capped = Ord::min(magnitude as i32, largest.to_bits() as i32);
    // Subnormal numbers have the exponent of the smallest normal one.
    let smallest = const { smallest_normal(EXPONENT) };
    let exponent = Ord::max(capped & INFINITY as i32, smallest as i32) as u32;
    // Adding this makes the processor round at the last place that the format has at this exponent, and
    // leaves the mantissa, with the one before it, as an integer in the lowest bits. The exponent is to count
    // from the smallest normal one, and by one less, for the one before the mantissa: which a subnormal
    // number lacks.
    let offset = const { (smallest_normal(EXPONENT) >> (24 + EXPONENT - BITS)).wrapping_neg() % (1 << BITS) };
    let shift = exponent + ((23 - mantissa_bits) << 23) + offset;
    let mantissa = (f32::from_bits(capped as u32) + f32::from_bits(shift)).to_bits();
    let code = mantissa.wrapping_add(exponent >> (23 - mantissa_bits));
    let code = (code << (32 - BITS)) | (value.to_bits() & SIGN);
    if magnitude > INFINITY { nan } else { code }
}

macro_rules! format {
    ($($t:ident($code:ident): $widen:expr, $narrow:ident$(::<$exponent:literal, $bits:literal>)?($($limit:expr),*);)*) => {$(
        impl Format for $t {
            const BITS: u32 = $code::BITS;

            #[inline(always)]
            fn widen(code: u32) -> f32 { $widen(code) }
            #[inline(always)]
            fn narrow(value: f32) -> u32 { $narrow$(::<$exponent, $bits>)?(value $(, $limit)*) }
            #[inline(always)]
            fn code(self) -> u32 { u32::from(self.0) << (32 - $code::BITS) }
            #[inline(always)]
            fn from_code(code: u32) -> $t { $t((code >> (32 - $code::BITS)) as $code) }
        }
    )*};
}

/// The upper half of a float32.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Bfloat16(u16);

#[inline(always)]
fn narrow_bfloat16(value: f32) -> u32 {
    let bits = value.to_bits();
    // Half of what is dropped, less one unless the last bit kept is odd, carries exactly when it should.
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    if bits & !SIGN > INFINITY { 0x7fc0_0000 } else { rounded }
}

/// IEEE 754's binary16.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Float16(u16);

#[inline(always)]
fn widen_e4m3(code: u32) -> f32 {
    let nan = const { 0x7f << 24 };
    let value = widen_finite::<4>(code);
    if code & !SIGN == nan { f32::from_bits(f32::NAN.to_bits() | value.to_bits()) } else { value }
}

format! {
    Bfloat16(u16): f32::from_bits, narrow_bfloat16();
    // What rounds to 65536 is infinity.
    Float16(u16): widen_ieee::<5>, narrow::<5, 16>(65536.0, 0x7e00 << 16);
    E4m3(u8): widen_e4m3, narrow::<4, 8>(448.0, 0x7f << 24);
    E5m2(u8): widen_ieee::<5>, narrow::<5, 8>(57344.0, 0x7e << 24);
}

/// An operator on every element of two words.
#[derive(Clone, Copy)]
struct Words<F, O>(PhantomData<(F, O)>);

impl<F: Format, O: Operator> Words<F, O> {
    /// The elements which are `at` bits from the lowest, combined and in their place.
    #[inline(always)]
    fn lane(a: u32, b: u32, at: u32) -> u32 {
        F::narrow(O::apply(pick::<F>(a, at), pick::<F>(b, at))) >> (32 - F::BITS - at)
    }
}

impl<F: Format, O: Operator> Binary<u32> for Words<F, O> {
    #[inline(always)]
    fn call(self, a: u32, b: u32) -> u32 {
        // Spelled out: what is left to be unrolled is not always vectorised.
        if F::BITS == 16 {
            Self::lane(a, b, 0) | Self::lane(a, b, 16)
        } else {
            Self::lane(a, b, 0) | Self::lane(a, b, 8) | Self::lane(a, b, 16) | Self::lane(a, b, 24)
        }
    }
}

/// Every element of a word times a factor, or through a divisor.
#[derive(Clone, Copy)]
struct Scaled<F, const DIVIDE: bool>(f32, PhantomData<F>);

impl<F: Format, const DIVIDE: bool> Scaled<F, DIVIDE> {
    #[inline(always)]
    fn lane(self, x: u32, at: u32) -> u32 {
        let x = pick::<F>(x, at);
        F::narrow(if DIVIDE { x / self.0 } else { x * self.0 }) >> (32 - F::BITS - at)
    }
}

impl<F: Format, const DIVIDE: bool> Unary<u32> for Scaled<F, DIVIDE> {
    #[inline(always)]
    fn call(self, x: u32) -> u32 {
        if F::BITS == 16 {
            self.lane(x, 0) | self.lane(x, 16)
        } else {
            self.lane(x, 0) | self.lane(x, 8) | self.lane(x, 16) | self.lane(x, 24)
        }
    }
}

/// The element of a word which is `at` bits from the lowest.
#[inline(always)]
fn pick<F: Format>(word: u32, at: u32) -> f32 {
    F::widen((word << (32 - F::BITS - at)) & (u32::MAX << (32 - F::BITS)))
}

/// An operator on single elements.
#[derive(Clone, Copy)]
struct Single<O>(PhantomData<O>);

impl<N: Number, O: Operator> Binary<N> for Single<O> {
    #[inline(always)]
    fn call(self, a: N, b: N) -> N {
        O::apply(a, b)
    }
}

/// Loops over the words of a buffer, and over its last elements as one word with zeros behind them.
mod words {
    use super::element::{Binary, Unary};
    use super::{Format, element};

    /// # Safety
    /// As said for [`Element`](super::Element).
    #[inline(always)]
    pub(super) unsafe fn zip<F: Format>(
        dst: *mut u8,
        a: *const u8,
        b: *const u8,
        count: usize,
        f: impl Binary<u32>,
    ) {
        let bytes = count * size_of::<F>();
        let whole = bytes / 4 * 4;
        // SAFETY: both parts lie within the buffers of this function's contract.
        unsafe {
            element::zip(dst, a, b, whole / 4, f);
            if whole < bytes {
                let last = f.call(load(a.add(whole), bytes - whole), load(b.add(whole), bytes - whole));
                store(dst.add(whole), last, bytes - whole);
            }
        }
    }

    /// # Safety
    /// As said for [`Element`](super::Element).
    #[inline(always)]
    pub(super) unsafe fn map<F: Format>(dst: *mut u8, src: *const u8, count: usize, f: impl Unary<u32>) {
        let bytes = count * size_of::<F>();
        let whole = bytes / 4 * 4;
        // SAFETY: as in `zip`.
        unsafe {
            element::map(dst, src, whole / 4, f);
            if whole < bytes {
                store(dst.add(whole), f.call(load(src.add(whole), bytes - whole)), bytes - whole);
            }
        }
    }

    /// # Safety
    /// `len` readable bytes, less than 4.
    #[inline(always)]
    unsafe fn load(from: *const u8, len: usize) -> u32 {
        let mut bytes = [0; 4];
        // SAFETY: by this function's contract.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len) };
        u32::from_le_bytes(bytes)
    }

    /// # Safety
    /// `len` writable bytes, less than 4.
    #[inline(always)]
    unsafe fn store(to: *mut u8, word: u32, len: usize) {
        // SAFETY: by this function's contract.
        unsafe { std::ptr::copy_nonoverlapping(word.to_le_bytes().as_ptr(), to, len) };
    }
}

macro_rules! element {
    ($($t:ident($signed:ident): nan $nan:literal, largest $largest:literal, finite or infinite $not_nan:literal;)*) => {$(
        impl Number for $t {
            #[inline(always)]
            fn plus(self, other: $t) -> $t { calculate::<$t, Sum>(self, other) }
            #[inline(always)]
            fn times(self, other: $t) -> $t { calculate::<$t, Prod>(self, other) }
            #[inline(always)]
            fn larger(self, other: $t) -> $t {
                // NaN is below everything.
                let wins = other.order($signed::MIN) > self.order($signed::MIN);
                (if wins { other } else { self }).written()
            }
            #[inline(always)]
            fn smaller(self, other: $t) -> $t {
                // NaN is above everything.
                let wins = other.order($signed::MAX) < self.order($signed::MAX);
                (if wins { other } else { self }).written()
            }
        }

        impl $t {
            /// An integer that compares as the number does, or `nan`; both zeros are the same.
            #[inline(always)]
            fn order(self, nan: $signed) -> $signed {
                let magnitude = self.magnitude();
                let order = if (self.0 as $signed) < 0 { -magnitude } else { magnitude };
                if magnitude > $not_nan { nan } else { order }
            }

            #[inline(always)]
            fn magnitude(self) -> $signed { self.0 as $signed & $signed::MAX }

            /// The number as a conversion writes it.
            #[inline(always)]
            fn written(self) -> $t {
                let magnitude = self.magnitude();
                let capped = Ord::min(magnitude, $largest) | (self.0 as $signed & $signed::MIN);
                $t(if magnitude > $not_nan { $nan } else { capped } as _)
            }
        }

        impl Element for $t {
            const SIZE: usize = size_of::<$t>();

            #[inline(always)]
            unsafe fn zip<O: Operator>(dst: *mut u8, a: *const u8, b: *const u8, count: usize) {
                // SAFETY: by this function's contract.
                unsafe {
                    if O::KIND.calculates() {
                        words::zip::<$t>(dst, a, b, count, Words::<$t, O>(PhantomData));
                    } else {
                        element::zip::<$t>(dst, a, b, count, Single::<O>(PhantomData));
                    }
                }
            }

            #[inline(always)]
            unsafe fn scale(dst: *mut u8, src: *const u8, count: usize, scalar: &[u8; 8]) {
                let by = factor::<$t>(scalar);
                // SAFETY: by this function's contract.
                unsafe { words::map::<$t>(dst, src, count, Scaled::<$t, false>(by, PhantomData)) }
            }

            #[inline(always)]
            unsafe fn divide(dst: *mut u8, count: usize, nranks: u32) {
                let by = nranks as f32;
                // SAFETY: by this function's contract.
                unsafe { words::map::<$t>(dst, dst, count, Scaled::<$t, true>(by, PhantomData)) }
            }
        }
    )*};
}
element! {
    Bfloat16(i16): nan 0x7fc0, largest 0x7f80, finite or infinite 0x7f80;
    Float16(i16): nan 0x7e00, largest 0x7c00, finite or infinite 0x7c00;
    E4m3(i8): nan 0x7f, largest 0x7e, finite or infinite 0x7e;
    E5m2(i8): nan 0x7e, largest 0x7b, finite or infinite 0x7c;
}

/// Computes in float32.
#[inline(always)]
fn calculate<F: Format, O: Operator>(a: F, b: F) -> F {
    F::from_code(F::narrow(O::apply(F::widen(a.code()), F::widen(b.code()))))
}

/// The scalar in the first bytes.
#[inline(always)]
pub(super) fn factor<F: Format>(scalar: &[u8; 8]) -> f32 {
    const { assert!(size_of::<F>() <= 8) };
    // SAFETY: the eight bytes hold an element, of which every bit pattern is valid.
    F::widen(unsafe { scalar.as_ptr().cast::<F>().read_unaligned() }.code())
}
