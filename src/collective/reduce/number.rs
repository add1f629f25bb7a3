//! Arithmetic of the types that kernels compute in, and the operators over them.

/// What operators are made of.
pub(super) trait Number: Copy {
    fn plus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    fn larger(self, other: Self) -> Self;
    fn smaller(self, other: Self) -> Self;
}

macro_rules! integer {
    ($($t:ident),*) => {$(
        impl Number for $t {
            #[inline(always)]
            fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
            #[inline(always)]
            fn times(self, other: Self) -> Self { self.wrapping_mul(other) }
            #[inline(always)]
            fn larger(self, other: Self) -> Self { Ord::max(self, other) }
            #[inline(always)]
            fn smaller(self, other: Self) -> Self { Ord::min(self, other) }
        }
    )*};
}
integer!(i8, u8, i32, u32, i64, u64);

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
        }
    )*};
}
float!(f32, f64);

/// The operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sum,
    Prod,
    Max,
    Min,
}

impl Kind {
    /// Whether the result is calculated; else it is one of the operands.
    #[inline(always)]
    pub(super) const fn calculates(self) -> bool {
        matches!(self, Kind::Sum | Kind::Prod)
    }
}

/// A reduction of two operands; `a` is the accumulator.
pub(super) trait Operator: Copy {
    const KIND: Kind;

    fn apply<N: Number>(a: N, b: N) -> N;
}

macro_rules! operator {
    ($($name:ident = $method:ident),*) => {$(
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Operator for $name {
            const KIND: Kind = Kind::$name;

            #[inline(always)]
            fn apply<N: Number>(a: N, b: N) -> N { a.$method(b) }
        }
    )*};
}
operator!(Sum = plus, Prod = times, Max = larger, Min = smaller);
