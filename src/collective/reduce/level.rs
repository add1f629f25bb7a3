//! The kernels, compiled once for every set of instructions that a processor may have.

use super::number::{Kind, Max, Min, Prod, Sum};
use super::{AverageFn, PreMulFn, Reduce3Fn, body};
use crate::transport::ReduceFn;
use crate::types::DataType;
use std::sync::OnceLock;

/// A set of instructions that this machine has. All levels give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    /// What every processor of the architecture has: SSE2, or NEON.
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// What every processor has.
    pub const BASELINE: Level = Level(Set::Baseline);

    /// The levels of this machine, the widest last.
    pub fn available() -> &'static [Level] {
        static AVAILABLE: OnceLock<Vec<Level>> = OnceLock::new();
        AVAILABLE.get_or_init(|| {
            let all = [
                Some(Level::BASELINE),
                #[cfg(target_arch = "x86_64")]
                (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c"))
                    .then_some(Level(Set::Avx2)),
                #[cfg(target_arch = "x86_64")]
                (is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("f16c")
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl"))
                .then_some(Level(Set::Avx512)),
            ];
            all.into_iter().flatten().collect()
        })
    }

    /// The level whose kernels are the fastest on this machine. The widest registers are worth their price (a
    /// lower clock on some processors, every unaligned access in two cache lines) where there is much to
    /// compute, or where the instruction is not in the smaller set.
    pub(super) fn best(dtype: DataType, kind: Kind) -> Level {
        let wide = match dtype {
            DataType::Bfloat16 | DataType::Float8e4m3 | DataType::Float8e5m2 => kind.calculates(),
            DataType::Int8 | DataType::Uint8 => kind == Kind::Prod,
            DataType::Int64 | DataType::Uint64 => kind != Kind::Sum,
            _ => false,
        };
        Level::widest(wide)
    }

    /// The level whose averages and products with a scalar are the fastest.
    pub(super) fn best_scaling(dtype: DataType) -> Level {
        Level::widest(dtype != DataType::Float16)
    }

    /// Bytes in a register.
    fn bytes(self) -> usize {
        match self.0 {
            Set::Baseline => 16,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => 32,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => 64,
        }
    }

    /// The widest level, 64 bytes wide only where asked.
    fn widest(wide: bool) -> Level {
        let fits = |level: &&Level| wide || level.bytes() < 64;
        Level::available().iter().rfind(fits).copied().unwrap_or(Level::BASELINE)
    }

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Baseline if cfg!(target_arch = "x86_64") => "sse2",
            Set::Baseline if cfg!(target_arch = "aarch64") => "neon",
            Set::Baseline => "baseline",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
        }
    }
}

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
            DataType::Float16 => $function::<Float16 $(, $operator)?>,
            DataType::Float32 => $function::<f32 $(, $operator)?>,
            DataType::Float64 => $function::<f64 $(, $operator)?>,
            DataType::Bfloat16 => $function::<Bfloat16 $(, $operator)?>,
            DataType::Float8e4m3 => $function::<E4m3 $(, $operator)?>,
            DataType::Float8e5m2 => $function::<E5m2 $(, $operator)?>,
        }
    };
}

/// The same for every operator.
macro_rules! instance_of {
    ($kind:expr, $dtype:expr, $function:ident) => {
        match $kind {
            Kind::Sum => instance!($dtype, $function, Sum),
            Kind::Prod => instance!($dtype, $function, Prod),
            Kind::Max => instance!($dtype, $function, Max),
            Kind::Min => instance!($dtype, $function, Min),
        }
    };
}

/// A module of kernels compiled with the given features. The type of float16 is the one that may use them.
macro_rules! compile {
    ($name:ident, Float16 = $float16:ty, $(#[$features:meta])?) => {
        mod $name {
            use super::super::element::Element;
            use super::super::fp8::{E4m3, E5m2};
            use super::super::narrow::Bfloat16;
            use super::super::number::Operator;
            use super::*;

            type Float16 = $float16;

            $(#[$features])?
            unsafe fn combine<T: Element, O: Operator>(dst: *mut u8, src: *const u8, count: usize) {
                // SAFETY: by this function's contract.
                unsafe { body::combine::<T, O>(dst, src, count) }
            }

            $(#[$features])?
            unsafe fn combine3<T: Element, O: Operator>(dst: *mut u8, a: *const u8, b: *const u8, count: usize) {
                // SAFETY: by this function's contract.
                unsafe { body::combine3::<T, O>(dst, a, b, count) }
            }

            $(#[$features])?
            unsafe fn streaming<T: Element, O: Operator>(dst: *mut u8, a: *const u8, b: *const u8, count: usize) {
                // SAFETY: by this function's contract.
                unsafe { body::streaming::<T, O>(dst, a, b, count) }
            }

            $(#[$features])?
            unsafe fn scale<T: Element>(dst: *mut u8, src: *const u8, count: usize, scalar: &[u8; 8]) {
                // SAFETY: by this function's contract.
                unsafe { body::scale::<T>(dst, src, count, scalar) }
            }

            $(#[$features])?
            unsafe fn divide<T: Element>(dst: *mut u8, count: usize, nranks: u32) {
                // SAFETY: by this function's contract.
                unsafe { body::divide::<T>(dst, count, nranks) }
            }

            pub(super) fn kernel(dtype: DataType, kind: Kind) -> ReduceFn {
                instance_of!(kind, dtype, combine)
            }

            pub(super) fn kernel3(dtype: DataType, kind: Kind) -> Reduce3Fn {
                instance_of!(kind, dtype, combine3)
            }

            pub(super) fn kernel3_streaming(dtype: DataType, kind: Kind) -> Reduce3Fn {
                instance_of!(kind, dtype, streaming)
            }

            pub(super) fn premul(dtype: DataType) -> PreMulFn {
                instance!(dtype, scale)
            }

            pub(super) fn average(dtype: DataType) -> AverageFn {
                instance!(dtype, divide)
            }
        }
    };
}

compile!(baseline, Float16 = super::super::narrow::Float16,);
#[cfg(target_arch = "x86_64")]
compile!(
    avx2,
    Float16 = super::super::lanes::InLanes<super::super::lanes::Eight>,
    #[target_feature(enable = "avx2,f16c")]
);
#[cfg(target_arch = "x86_64")]
compile!(
    avx512,
    Float16 = super::super::lanes::InLanes<super::super::lanes::Sixteen>,
    #[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
);

macro_rules! choose {
    ($level:expr, $getter:ident($($argument:expr),*)) => {
        match $level.0 {
            Set::Baseline => baseline::$getter($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => avx2::$getter($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => avx512::$getter($($argument),*),
        }
    };
}

impl Level {
    pub(super) fn kernel_of(self, dtype: DataType, kind: Kind) -> ReduceFn {
        choose!(self, kernel(dtype, kind))
    }

    pub(super) fn kernel3_of(self, dtype: DataType, kind: Kind) -> Reduce3Fn {
        choose!(self, kernel3(dtype, kind))
    }

    pub(super) fn kernel3_streaming_of(self, dtype: DataType, kind: Kind) -> Reduce3Fn {
        choose!(self, kernel3_streaming(dtype, kind))
    }

    /// [`premul`](super::premul) of this level.
    pub fn premul(self, dtype: DataType) -> PreMulFn {
        choose!(self, premul(dtype))
    }

    /// [`average`](super::average) of this level.
    pub fn average(self, dtype: DataType) -> AverageFn {
        choose!(self, average(dtype))
    }
}
