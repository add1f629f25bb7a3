//! How elements lie in memory and in which type they are computed.

use super::fp8::{E4m3, E5m2};
use super::number::Number;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// An element at any address: alignment 1, so that slices of it may lie anywhere in a user's buffer.
#[derive(Clone, Copy)]
#[repr(C, packed)]
pub(super) struct Packed<T: Copy>(T);

/// A data type as it lies in memory. Every bit pattern is a valid value.
pub(super) trait Element: Copy {
    /// What it is computed in.
    type Wide: Number;

    fn widen(self) -> Self::Wide;
    fn narrow(wide: Self::Wide) -> Self;

    /// `dst[i] = f(dst[i], src[i])`.
    #[inline(always)]
    fn zip(dst: &mut [Packed<Self>], src: &[Packed<Self>], f: impl Fn(Self::Wide, Self::Wide) -> Self::Wide) {
        for (d, s) in dst.iter_mut().zip(src) {
            let (a, b) = (d.0, s.0);
            *d = Packed(Self::narrow(f(a.widen(), b.widen())));
        }
    }

    /// `dst[i] = f(dst[i])`.
    #[inline(always)]
    fn map(dst: &mut [Packed<Self>], f: impl Fn(Self::Wide) -> Self::Wide) {
        for d in dst {
            let a = d.0;
            *d = Packed(Self::narrow(f(a.widen())));
        }
    }
}

macro_rules! own_arithmetic {
    ($($t:ident),*) => {$(
        impl Element for $t {
            type Wide = $t;

            #[inline(always)]
            fn widen(self) -> $t { self }
            #[inline(always)]
            fn narrow(wide: $t) -> $t { wide }
        }
    )*};
}
own_arithmetic!(i8, u8, i32, u32, i64, u64, f32, f64);

macro_rules! in_float32 {
    ($($t:ident),*) => {$(
        impl Element for $t {
            type Wide = f32;

            #[inline(always)]
            fn widen(self) -> f32 { self.to_f32() }
            #[inline(always)]
            fn narrow(wide: f32) -> $t { $t::from_f32(wide) }
        }
    )*};
}
in_float32!(bf16, E4m3, E5m2);

/// Elements converted at a time, on the stack.
const BLOCK: usize = 64;

/// Converts whole blocks, because `half` asks for the processor's conversion instruction once per call.
impl Element for f16 {
    type Wide = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn narrow(wide: f32) -> f16 {
        f16::from_f32(wide)
    }

    #[inline(always)]
    fn zip(dst: &mut [Packed<f16>], src: &[Packed<f16>], f: impl Fn(f32, f32) -> f32) {
        let (mut a, mut b) = ([0.0; BLOCK], [0.0; BLOCK]);
        for (dst, src) in dst.chunks_mut(BLOCK).zip(src.chunks(BLOCK)) {
            load(dst, &mut a);
            load(src, &mut b);
            for (a, b) in a.iter_mut().zip(&b) {
                *a = f(*a, *b);
            }
            store(dst, &a);
        }
    }

    #[inline(always)]
    fn map(dst: &mut [Packed<f16>], f: impl Fn(f32) -> f32) {
        let mut a = [0.0; BLOCK];
        for dst in dst.chunks_mut(BLOCK) {
            load(dst, &mut a);
            for a in &mut a {
                *a = f(*a);
            }
            store(dst, &a);
        }
    }
}

/// Widens at most one block; the rest of `wide` keeps what it had.
#[inline(always)]
fn load(narrow: &[Packed<f16>], wide: &mut [f32; BLOCK]) {
    let mut aligned = [f16::ZERO; BLOCK];
    for (to, from) in aligned.iter_mut().zip(narrow) {
        *to = from.0;
    }
    let len = narrow.len().min(BLOCK);
    aligned[..len].convert_to_f32_slice(&mut wide[..len]);
}

/// Rounds at most one block.
#[inline(always)]
fn store(narrow: &mut [Packed<f16>], wide: &[f32; BLOCK]) {
    let mut aligned = [f16::ZERO; BLOCK];
    let len = narrow.len().min(BLOCK);
    aligned[..len].convert_from_f32_slice(&wide[..len]);
    for (to, from) in narrow.iter_mut().zip(&aligned) {
        *to = Packed(*from);
    }
}
