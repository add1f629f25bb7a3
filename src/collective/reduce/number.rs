//! Arithmetic of the types that kernels compute in, and the operators over them.

/// A type that the processor computes in.
pub(super) trait Number: Copy {
    fn plus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    fn larger(self, other: Self) -> Self;
    fn smaller(self, other: Self) -> Self;
    /// Divided by a number of ranks, at least 1.
    fn over(self, nranks: u32) -> Self;
}

/// Integers divide in the widest type of their sign: a number of ranks need not fit their own.
macro_rules! integer {
    ($($t:ident in $wide:ident),*) => {$(
        impl Number for $t {
            #[inline(always)]
            fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
            #[inline(always)]
            fn times(self, other: Self) -> Self { self.wrapping_mul(other) }
            #[inline(always)]
            fn larger(self, other: Self) -> Self { Ord::max(self, other) }
            #[inline(always)]
            fn smaller(self, other: Self) -> Self { Ord::min(self, other) }
            #[inline(always)]
            fn over(self, nranks: u32) -> Self { ($wide::from(self) / $wide::from(nranks)) as $t }
        }
    )*};
}
integer!(i8 in i64, u8 in u64, i32 in i64, u32 in u64, i64 in i64, u64 in u64);

/// Maximum and minimum are spelled out because `f32::max` leaves the sign of zero open, and the same operands
/// must give the same bits on every rank.
macro_rules! float {
    ($($t:ident),*) => {$(
        impl Number for $t {
            #[inline(always)]
            fn plus(self, other: Self) -> Self { self + other }
            #[inline(always)]
            fn times(self, other: Self) -> Self { self * other }
            #[inline(always)]
            fn larger(self, other: Self) -> Self { if other > self || self.is_nan() { other } else { self } }
            #[inline(always)]
            fn smaller(self, other: Self) -> Self { if other < self || self.is_nan() { other } else { self } }
            #[inline(always)]
            fn over(self, nranks: u32) -> Self { self / nranks as $t }
        }
    )*};
}
float!(f32, f64);

/// A reduction of two operands; `a` is the accumulator.
pub(super) trait Operator {
    fn apply<N: Number>(a: N, b: N) -> N;
}

macro_rules! operator {
    ($($name:ident = $method:ident),*) => {$(
        pub(super) struct $name;

        impl Operator for $name {
            #[inline(always)]
            fn apply<N: Number>(a: N, b: N) -> N { a.$method(b) }
        }
    )*};
}
operator!(Sum = plus, Prod = times, Max = larger, Min = smaller);
