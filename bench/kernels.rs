//! Reduction kernels: every type's sum, some other operators, and the forms with a destination of their own,
//! at sizes that fit into the first-level cache, the second, and neither. `cargo bench --bench kernels`; a
//! filter is a part of a name: `type/form/size/level`.
//!
//! "scalar" is one element after the other, with the conversions of the `half` crate; the compiler vectorises
//! it with what every processor of the architecture has, where it can.

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use half::{bf16, f16};
use multiworld::collective::reduce::{Level, fp8};
use multiworld::sys::copy;
use multiworld::types::{DataType, RedOp, Reduction};
use std::time::Duration;

const SIZES: [usize; 3] = [4 << 10, 64 << 10, 4 << 20];

/// What kernels are without any care.
fn scalar_sum(dtype: DataType, dst: &mut [u8], src: &[u8]) {
    macro_rules! each {
        ($t:ident, |$a:ident, $b:ident| $sum:expr) => {{
            const SIZE: usize = size_of::<$t>();
            let (dst, _) = dst.as_chunks_mut::<SIZE>();
            let (src, _) = src.as_chunks::<SIZE>();
            for (d, s) in dst.iter_mut().zip(src) {
                let ($a, $b) = ($t::from_ne_bytes(*d), $t::from_ne_bytes(*s));
                *d = $t::to_ne_bytes($sum);
            }
        }};
    }
    match dtype {
        DataType::Int8 => each!(i8, |a, b| a.wrapping_add(b)),
        DataType::Uint8 => each!(u8, |a, b| a.wrapping_add(b)),
        DataType::Int32 => each!(i32, |a, b| a.wrapping_add(b)),
        DataType::Uint32 => each!(u32, |a, b| a.wrapping_add(b)),
        DataType::Int64 => each!(i64, |a, b| a.wrapping_add(b)),
        DataType::Uint64 => each!(u64, |a, b| a.wrapping_add(b)),
        DataType::Float16 => each!(f16, |a, b| f16::from_f32(a.to_f32() + b.to_f32())),
        DataType::Float32 => each!(f32, |a, b| a + b),
        DataType::Float64 => each!(f64, |a, b| a + b),
        DataType::Bfloat16 => each!(bf16, |a, b| bf16::from_f32(a.to_f32() + b.to_f32())),
        DataType::Float8e4m3 => {
            each!(u8, |a, b| fp8::E4m3::from_f32(fp8::E4m3(a).to_f32() + fp8::E4m3(b).to_f32()).0)
        }
        DataType::Float8e5m2 => {
            each!(u8, |a, b| fp8::E5m2::from_f32(fp8::E5m2(a).to_f32() + fp8::E5m2(b).to_f32()).0)
        }
    }
}

/// A buffer full of an element that every operator leaves in the range of normal numbers.
fn ones(dtype: DataType, len: usize) -> Vec<u8> {
    let one = match dtype {
        DataType::Float16 => f16::ONE.to_ne_bytes().to_vec(),
        DataType::Bfloat16 => bf16::ONE.to_ne_bytes().to_vec(),
        DataType::Float32 => 1f32.to_ne_bytes().to_vec(),
        DataType::Float64 => 1f64.to_ne_bytes().to_vec(),
        DataType::Float8e4m3 => vec![fp8::E4m3::from_f32(1.0).0],
        DataType::Float8e5m2 => vec![fp8::E5m2::from_f32(1.0).0],
        _ => vec![1],
    };
    one.into_iter().cycle().take(len).collect()
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn group<'a>(c: &'a mut Criterion, name: &str, size: usize) -> Group<'a> {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(size as u64));
    group
}

fn accumulate(c: &mut Criterion, dtype: DataType, op: RedOp, size: usize) {
    let (mut dst, src) = (ones(dtype, size), ones(dtype, size));
    let count = size / dtype.size();
    let mut group = group(c, &format!("{}/{}/{size}", dtype.name(), op.name()), size);
    if op == RedOp::Sum {
        group.bench_function("scalar", |b| b.iter(|| scalar_sum(dtype, &mut dst, &src)));
    }
    for level in Level::available() {
        let kernel = level.kernel(dtype, Reduction::Builtin(op));
        // SAFETY: both hold `count` elements.
        let mut run = || unsafe { kernel(dst.as_mut_ptr(), src.as_ptr(), count) };
        group.bench_function(level.name(), |b| b.iter(&mut run));
    }
}

fn with_own_destination(c: &mut Criterion, dtype: DataType, size: usize) {
    let (mut dst, a, b) = (ones(dtype, size), ones(dtype, size), ones(dtype, size));
    let count = size / dtype.size();
    let sum = Reduction::Builtin(RedOp::Sum);
    let mut group = group(c, &format!("{}/sum3/{size}", dtype.name()), size);
    for level in Level::available() {
        let forms = [("", level.kernel3(dtype, sum)), ("-streaming", level.kernel3_streaming(dtype, sum))];
        for (form, kernel) in forms {
            // SAFETY: all hold `count` elements.
            let mut run = || unsafe { kernel(dst.as_mut_ptr(), a.as_ptr(), b.as_ptr(), count) };
            group.bench_function(format!("{}{form}", level.name()), |b| b.iter(&mut run));
        }
    }
}

fn scale(c: &mut Criterion, dtype: DataType, size: usize) {
    let mut dst = ones(dtype, size);
    let count = size / dtype.size();
    let mut scalar = [0; 8];
    scalar.copy_from_slice(&dst[..8]);
    let mut group = group(c, &format!("{}/scale/{size}", dtype.name()), size);
    for level in Level::available() {
        let (premul, average) = (level.premul(dtype), level.average(dtype));
        group.bench_function(BenchmarkId::new("premul", level.name()), |b| {
            // SAFETY: `count` elements, in place.
            b.iter(|| unsafe { premul(dst.as_mut_ptr(), dst.as_ptr(), count, &scalar) })
        });
        group.bench_function(BenchmarkId::new("average", level.name()), |b| {
            // SAFETY: `count` elements. By one, so that they stay what they are.
            b.iter(|| unsafe { average(dst.as_mut_ptr(), count, 1) })
        });
    }
}

fn copies(c: &mut Criterion, size: usize) {
    let (mut dst, src) = (vec![1u8; size], vec![1u8; size]);
    let mut group = group(c, &format!("bytes/copy/{size}"), size);
    group.bench_function("plain", |b| b.iter(|| dst.copy_from_slice(&src)));
    group.bench_function("streaming", |b| {
        // SAFETY: both are `size` bytes long.
        b.iter(|| unsafe { copy::copy_streaming(dst.as_mut_ptr(), src.as_ptr(), size) })
    });
}

fn main() {
    let mut c = Criterion::default()
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
        .without_plots()
        .sample_size(10)
        .configure_from_args();
    for size in SIZES {
        for dtype in DataType::ALL {
            accumulate(&mut c, dtype, RedOp::Sum, size);
        }
        for dtype in [DataType::Float32, DataType::Bfloat16, DataType::Int64, DataType::Float8e4m3] {
            accumulate(&mut c, dtype, RedOp::Prod, size);
            accumulate(&mut c, dtype, RedOp::Max, size);
            with_own_destination(&mut c, dtype, size);
            scale(&mut c, dtype, size);
        }
    }
    for size in [64 << 10, 4 << 20, 64 << 20] {
        for dtype in [DataType::Float32, DataType::Bfloat16].into_iter().filter(|_| size > 4 << 20) {
            with_own_destination(&mut c, dtype, size);
        }
        copies(&mut c, size);
    }
    c.final_summary();
}
