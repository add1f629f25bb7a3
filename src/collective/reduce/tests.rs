//! Kernels against plain arithmetic, and the 8-bit floats against a search over all their codes.

use super::fp8::{E4m3, E5m2};
use super::*;
use half::{bf16, f16};
use proptest::prelude::*;

/// Runs a kernel over misaligned copies.
fn run(dtype: DataType, op: RedOp, a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut dst = [&[0], a].concat();
    let src = [&[0], b].concat();
    let count = a.len() / dtype.size();
    // SAFETY: both vectors hold `count` elements from their second byte on.
    unsafe { kernel(dtype, Reduction::Builtin(op))(dst.as_mut_ptr().add(1), src.as_ptr().add(1), count) };
    dst.split_off(1)
}

fn run_premul(dtype: DataType, a: &[u8], scalar: &[u8]) -> Vec<u8> {
    let mut raw = [0; 8];
    raw[..scalar.len()].copy_from_slice(scalar);
    let mut dst = vec![0; a.len() + 1];
    let mut same = [&[0], a].concat();
    let src = same.clone();
    let count = a.len() / dtype.size();
    // SAFETY: all vectors hold `count` elements from their second byte on.
    unsafe {
        premul(dtype)(dst.as_mut_ptr().add(1), src.as_ptr().add(1), count, &raw);
        let ptr = same.as_mut_ptr().add(1);
        premul(dtype)(ptr, ptr, count, &raw);
    }
    assert_eq!(dst[1..], same[1..], "in place and out of place");
    dst.split_off(1)
}

fn run_average(dtype: DataType, a: &[u8], nranks: u32) -> Vec<u8> {
    let mut dst = [&[0], a].concat();
    // SAFETY: the vector holds the elements from its second byte on.
    unsafe { average(dtype)(dst.as_mut_ptr().add(1), a.len() / dtype.size(), nranks) };
    dst.split_off(1)
}

/// Lengths on both sides of every block size and unrolling.
const COUNTS: [usize; 12] = [0, 1, 2, 3, 7, 63, 64, 65, 127, 200, 512, 4099];

macro_rules! integers {
    ($($name:ident: $t:ident as $dtype:ident),*) => {$(
        #[test]
        fn $name() {
            let bytes = |v: &[$t]| v.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<u8>>();
            for count in COUNTS {
                let any = |i| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as $t;
                let a: Vec<$t> = (0..count).map(any).collect();
                let b: Vec<$t> = a.iter().map(|x| x.wrapping_mul(29).wrapping_add(77)).collect();
                let d = DataType::$dtype;
                let want = |f: fn($t, $t) -> $t| {
                    bytes(&a.iter().zip(&b).map(|(a, b)| f(*a, *b)).collect::<Vec<_>>())
                };
                let (ab, bb) = (bytes(&a), bytes(&b));
                assert_eq!(run(d, RedOp::Sum, &ab, &bb), want($t::wrapping_add));
                assert_eq!(run(d, RedOp::Avg, &ab, &bb), want($t::wrapping_add));
                assert_eq!(run(d, RedOp::Prod, &ab, &bb), want($t::wrapping_mul));
                assert_eq!(run(d, RedOp::Max, &ab, &bb), want(std::cmp::max));
                assert_eq!(run(d, RedOp::Min, &ab, &bb), want(std::cmp::min));
                let three: $t = 3;
                let tripled: Vec<$t> = a.iter().map(|x| x.wrapping_mul(3)).collect();
                assert_eq!(run_premul(d, &ab, &three.to_ne_bytes()), bytes(&tripled));
                // More ranks than an int8 can count.
                let halves: Vec<$t> = a.iter().map(|x| (i128::from(*x) / 200) as $t).collect();
                assert_eq!(run_average(d, &ab, 200), bytes(&halves));
            }
        }
    )*};
}
integers!(
    int8: i8 as Int8,
    uint8: u8 as Uint8,
    int32: i32 as Int32,
    uint32: u32 as Uint32,
    int64: i64 as Int64,
    uint64: u64 as Uint64
);

/// Bytes of float64 values rounded to a type, by independent means.
fn encode(dtype: DataType, values: &[f64]) -> Vec<u8> {
    let one = |v: f64| match dtype {
        DataType::Float16 => f16::from_f64(v).to_ne_bytes().to_vec(),
        DataType::Bfloat16 => bf16::from_f64(v).to_ne_bytes().to_vec(),
        DataType::Float32 => (v as f32).to_ne_bytes().to_vec(),
        DataType::Float64 => v.to_ne_bytes().to_vec(),
        DataType::Float8e4m3 => vec![nearest(v, E4M3)],
        DataType::Float8e5m2 => vec![nearest(v, E5M2)],
        other => unreachable!("{other:?} is no float"),
    };
    values.iter().flat_map(|v| one(*v)).collect()
}

const FLOATS: [DataType; 6] = [
    DataType::Float16,
    DataType::Bfloat16,
    DataType::Float32,
    DataType::Float64,
    DataType::Float8e4m3,
    DataType::Float8e5m2,
];

#[test]
fn floats_of_small_integers_are_exact() {
    for dtype in FLOATS {
        for count in COUNTS {
            let a: Vec<f64> = (0..count).map(|i| (i % 5) as f64 - 2.0).collect();
            let b: Vec<f64> = (0..count).map(|i| (i % 3) as f64 - 1.0).collect();
            let (ab, bb) = (encode(dtype, &a), encode(dtype, &b));
            let want = |f: fn(f64, f64) -> f64| {
                encode(dtype, &a.iter().zip(&b).map(|(a, b)| f(*a, *b)).collect::<Vec<_>>())
            };
            assert_eq!(run(dtype, RedOp::Sum, &ab, &bb), want(|a, b| a + b), "{dtype:?}");
            assert_eq!(run(dtype, RedOp::Prod, &ab, &bb), want(|a, b| a * b), "{dtype:?}");
            assert_eq!(run(dtype, RedOp::Max, &ab, &bb), want(f64::max), "{dtype:?}");
            assert_eq!(run(dtype, RedOp::Min, &ab, &bb), want(f64::min), "{dtype:?}");
            let tripled: Vec<f64> = a.iter().map(|x| x * 3.0).collect();
            assert_eq!(run_premul(dtype, &ab, &encode(dtype, &[3.0])), encode(dtype, &tripled), "{dtype:?}");
            let quarters: Vec<f64> = a.iter().map(|x| x / 4.0).collect();
            assert_eq!(run_average(dtype, &ab, 4), encode(dtype, &quarters), "{dtype:?}");
        }
    }
}

#[test]
fn max_and_min_ignore_nan_and_sums_do_not() {
    for dtype in FLOATS {
        let nan = match dtype {
            DataType::Float8e4m3 => vec![0x7f],
            DataType::Float8e5m2 => vec![0x7e],
            _ => encode(dtype, &[f64::NAN]),
        };
        let one = encode(dtype, &[1.0]);
        let is_nan = |bytes: Vec<u8>| match dtype {
            DataType::Float16 => f16::from_ne_bytes([bytes[0], bytes[1]]).is_nan(),
            DataType::Bfloat16 => bf16::from_ne_bytes([bytes[0], bytes[1]]).is_nan(),
            DataType::Float32 => f32::from_ne_bytes(bytes.try_into().unwrap()).is_nan(),
            DataType::Float64 => f64::from_ne_bytes(bytes.try_into().unwrap()).is_nan(),
            DataType::Float8e4m3 => E4m3(bytes[0]).to_f32().is_nan(),
            _ => E5m2(bytes[0]).to_f32().is_nan(),
        };
        for op in [RedOp::Max, RedOp::Min] {
            assert_eq!(run(dtype, op, &nan, &one), one, "{dtype:?}");
            assert_eq!(run(dtype, op, &one, &nan), one, "{dtype:?}");
            assert!(is_nan(run(dtype, op, &nan, &nan)), "{dtype:?}");
        }
        for op in [RedOp::Sum, RedOp::Prod] {
            assert!(is_nan(run(dtype, op, &nan, &one)), "{dtype:?}");
            assert!(is_nan(run(dtype, op, &one, &nan)), "{dtype:?}");
        }
        assert!(is_nan(run_average(dtype, &nan, 2)), "{dtype:?}");
        assert!(is_nan(run_premul(dtype, &one, &nan)), "{dtype:?}");
    }
}

/// An 8-bit float by its definition: exponent bias, mantissa bits, largest finite code.
type Format = (i32, u32, u8);
const E4M3: Format = (7, 3, 0x7e);
const E5M2: Format = (15, 2, 0x7b);

/// The value of a non-negative finite code, by the definition.
fn value(code: u8, (bias, bits, _): Format) -> f64 {
    let exponent = i32::from(code >> bits);
    let mantissa = f64::from(code & ((1 << bits) - 1)) / f64::from(1u32 << bits);
    if exponent == 0 { mantissa * 2f64.powi(1 - bias) } else { (1.0 + mantissa) * 2f64.powi(exponent - bias) }
}

/// The nearest code, of two equally near the even one, by trying all.
fn nearest(v: f64, format: Format) -> u8 {
    // Saturated first, lest the distances of huge numbers all round to the same.
    let target = v.abs().min(value(format.2, format));
    let distance = |code: &u8| (value(*code, format) - target).abs();
    let best = (0..=format.2)
        .min_by(|a, b| distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1))))
        .unwrap_or(0);
    best | if v.is_sign_negative() { 0x80 } else { 0 }
}

#[test]
fn fp8_codes_round_trip() {
    for code in 0..=255u8 {
        let wide = E4m3(code).to_f32();
        let back = E4m3::from_f32(wide);
        if code & 0x7f == 0x7f {
            assert!(wide.is_nan() && back.0 == code);
        } else {
            assert_eq!(f64::from(wide.abs()), value(code & 0x7f, E4M3));
            assert_eq!(wide.is_sign_negative(), code & 0x80 != 0);
            assert_eq!(back.0, code);
        }

        let wide = E5m2(code).to_f32();
        let back = E5m2::from_f32(wide);
        assert_eq!(wide.is_sign_negative(), code & 0x80 != 0);
        match code & 0x7f {
            0x7d..=0x7f => assert!(wide.is_nan() && back.0 == code & 0x80 | 0x7e),
            0x7c => assert!(wide.is_infinite() && back.0 == code & 0x80 | 0x7b),
            finite => {
                assert_eq!(f64::from(wide.abs()), value(finite, E5M2));
                assert_eq!(back.0, code);
            }
        }
    }
    assert_eq!((E4m3(0x7e).to_f32(), E5m2(0x7b).to_f32()), (448.0, 57344.0));
}

fn check_fp8(v: f32) {
    assert_eq!(E4m3::from_f32(v).0, nearest(f64::from(v), E4M3), "{v}");
    assert_eq!(E5m2::from_f32(v).0, nearest(f64::from(v), E5M2), "{v}");
}

#[test]
fn fp8_rounds_to_nearest_even() {
    // Every boundary between two codes, with its neighbours in float32.
    for format in [E4M3, E5M2] {
        for code in 0..format.2 {
            let middle = ((value(code, format) + value(code + 1, format)) / 2.0) as f32;
            for bits in middle.to_bits() - 1..=middle.to_bits() + 1 {
                check_fp8(f32::from_bits(bits));
                check_fp8(-f32::from_bits(bits));
            }
        }
    }
    for v in [
        0.0,
        f32::MIN_POSITIVE,
        1e-45,
        448.0,
        449.0,
        464.0,
        480.0,
        1e9,
        57344.0,
        61440.0,
        f32::MAX,
        f32::INFINITY,
    ] {
        check_fp8(v);
        check_fp8(-v);
    }
    // Every float16: all numbers of both types and seven between two of them.
    for bits in (0..=u16::MAX).step_by(if cfg!(debug_assertions) { 3 } else { 1 }) {
        let v = f16::from_bits(bits).to_f32();
        if !v.is_nan() {
            check_fp8(v);
        }
    }
}

proptest! {
    #[test]
    fn fp8_rounds_any_float32(bits in any::<u32>()) {
        let v = f32::from_bits(bits);
        if !v.is_nan() {
            check_fp8(v);
        }
    }

    /// Computing in float32 rounds a sum or product of two float16 as if it had been exact.
    #[test]
    fn float16_is_correctly_rounded(a in any::<u16>(), b in any::<u16>()) {
        let (x, y) = (f16::from_bits(a), f16::from_bits(b));
        for (op, exact) in [(RedOp::Sum, x.to_f64() + y.to_f64()), (RedOp::Prod, x.to_f64() * y.to_f64())] {
            let got = run(DataType::Float16, op, &a.to_ne_bytes(), &b.to_ne_bytes());
            let got = f16::from_ne_bytes([got[0], got[1]]);
            prop_assert!(got.to_bits() == f16::from_f64(exact).to_bits() || got.is_nan() && exact.is_nan());
        }
    }
}
