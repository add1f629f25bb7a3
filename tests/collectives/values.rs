//! What elements mean, and reductions of them, written as naively as possible.

use half::{bf16, f16};
use multiworld::types::DataType;

/// Where contents come from: the same on all ranks, and any element by itself.
#[derive(Clone, Copy)]
pub struct Random {
    seed: u64,
    /// Floats are any bits; else zeros and numbers around one, so that nothing overflows.
    wild: bool,
}

impl Random {
    pub fn new(seed: u64, stream: u64, wild: bool) -> Random {
        Random { seed: mix(seed ^ mix(stream)), wild }
    }

    /// Element `i`, in the first bytes.
    pub fn element(&self, dtype: DataType, i: usize) -> [u8; 8] {
        let bits = mix(self.seed.wrapping_add(i as u64));
        if self.wild || !is_float(dtype) {
            return bits.to_ne_bytes();
        }
        let sign = if bits & 1 == 0 { 1.0 } else { -1.0 };
        let fraction = (bits >> 11) as f64 / (1u64 << 53) as f64;
        store(dtype, sign * if bits & 0x1e == 0 { 0.0 } else { 0.75 + fraction * 0.75 })
    }

    /// The first `count` elements.
    pub fn elements(&self, dtype: DataType, count: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(count * dtype.size());
        for i in 0..count {
            out.extend_from_slice(&self.element(dtype, i)[..dtype.size()]);
        }
        out
    }
}

/// Vigna's splitmix64.
fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An element's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Int(i128),
    Float(f64),
}

pub fn is_float(dtype: DataType) -> bool {
    !matches!(
        dtype,
        DataType::Int8
            | DataType::Uint8
            | DataType::Int32
            | DataType::Uint32
            | DataType::Int64
            | DataType::Uint64
    )
}

/// What OCP's 8-bit formats say: e4m3 has no infinity and one NaN per sign, e5m2 is the upper half of a float16.
fn fp8(dtype: DataType, byte: u8) -> f64 {
    if dtype == DataType::Float8e5m2 {
        return f16::from_bits(u16::from(byte) << 8).to_f64();
    }
    let sign = if byte & 0x80 != 0 { -1.0 } else { 1.0 };
    let (exponent, mantissa) = (i32::from(byte >> 3 & 0xf), f64::from(byte & 7));
    sign * match (exponent, byte & 7) {
        (15, 7) => f64::NAN,
        (0, _) => mantissa / 8.0 * 2f64.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
    }
}

/// The value of the element that these bytes are.
pub fn load(dtype: DataType, b: &[u8]) -> Value {
    fn raw<const N: usize>(b: &[u8]) -> [u8; N] {
        b.try_into().expect("one element")
    }
    match dtype {
        DataType::Int8 => Value::Int(i8::from_ne_bytes(raw(b)).into()),
        DataType::Uint8 => Value::Int(b[0].into()),
        DataType::Int32 => Value::Int(i32::from_ne_bytes(raw(b)).into()),
        DataType::Uint32 => Value::Int(u32::from_ne_bytes(raw(b)).into()),
        DataType::Int64 => Value::Int(i64::from_ne_bytes(raw(b)).into()),
        DataType::Uint64 => Value::Int(u64::from_ne_bytes(raw(b)).into()),
        DataType::Float16 => Value::Float(f16::from_ne_bytes(raw(b)).to_f64()),
        DataType::Bfloat16 => Value::Float(bf16::from_ne_bytes(raw(b)).to_f64()),
        DataType::Float32 => Value::Float(f32::from_ne_bytes(raw(b)).into()),
        DataType::Float64 => Value::Float(f64::from_ne_bytes(raw(b))),
        DataType::Float8e4m3 | DataType::Float8e5m2 => Value::Float(fp8(dtype, b[0])),
    }
}

/// An integer as its type holds it: wrapped around.
fn wrap(dtype: DataType, x: i128) -> i128 {
    match load(dtype, &x.to_ne_bytes()[..dtype.size()]) {
        Value::Int(x) => x,
        Value::Float(_) => unreachable!("only integers wrap"),
    }
}

/// Half a unit in the last place, relative, and the smallest number of a type.
fn precision(dtype: DataType) -> (f64, f64) {
    match dtype {
        DataType::Float16 => (2f64.powi(-11), 2f64.powi(-24)),
        DataType::Bfloat16 => (2f64.powi(-8), 2f64.powi(-133)),
        DataType::Float32 => (2f64.powi(-24), 2f64.powi(-149)),
        DataType::Float64 => (2f64.powi(-53), 0.0),
        DataType::Float8e4m3 => (2f64.powi(-4), 2f64.powi(-9)),
        _ => (2f64.powi(-3), 2f64.powi(-16)),
    }
}

/// Reductions: the five of the API in its order, then the pre-multiplied sum.
pub const PREMULSUM: u8 = 5;

/// One element of every rank, reduced, against what came out. Floats may be off by what rounding after every step
/// allows, in whatever order.
pub fn check(
    dtype: DataType,
    red: u8,
    scalars: &[Value],
    inputs: &[Value],
    got: Value,
) -> Result<(), String> {
    let n = inputs.len();
    let wrong = |expected: &dyn std::fmt::Debug| {
        Err(format!("reduction {red} of {inputs:?} is {got:?} instead of {expected:?}"))
    };
    if !is_float(dtype) {
        let ints = |v: &[Value]| -> Vec<i128> {
            v.iter().map(|v| if let Value::Int(x) = v { *x } else { unreachable!("integers") }).collect()
        };
        let (x, scalars) = (ints(inputs), ints(scalars));
        let sum = wrap(dtype, x.iter().sum());
        let expected = match red {
            0 => sum,
            1 => x.iter().fold(1, |p: i128, x| wrap(dtype, p.wrapping_mul(*x))),
            2 => *x.iter().max().expect("a rank"),
            3 => *x.iter().min().expect("a rank"),
            4 => sum / n as i128,
            _ => wrap(dtype, x.iter().zip(&scalars).map(|(x, s)| wrap(dtype, x.wrapping_mul(*s))).sum()),
        };
        return if got == Value::Int(expected) { Ok(()) } else { wrong(&expected) };
    }
    let floats = |v: &[Value]| -> Vec<f64> {
        v.iter().map(|v| if let Value::Float(x) = v { *x } else { unreachable!("floats") }).collect()
    };
    let Value::Float(result) = got else { unreachable!("floats") };
    let (mut x, scalars) = (floats(inputs), floats(scalars));
    let (half, tiny) = precision(dtype);
    let steps = n as f64 + 2.0;
    if red == 2 || red == 3 {
        // NaN counts as nothing, unless there is nothing else.
        x.retain(|x| !x.is_nan());
        let best = x.iter().copied().reduce(if red == 2 { f64::max } else { f64::min });
        return match best {
            None if result.is_nan() => Ok(()),
            Some(best) if best == result => Ok(()),
            // The 8-bit floats saturate, infinity included.
            Some(best) if dtype == DataType::Float8e5m2 && best.clamp(-57344.0, 57344.0) == result => Ok(()),
            other => wrong(&other),
        };
    }
    if x.iter().any(|x| !x.is_finite() || x.abs() > 2.0) {
        // Infinities, overflow and saturation depend on the order; that all ranks agree is checked elsewhere.
        return Ok(());
    }
    if red == PREMULSUM {
        x.iter_mut().zip(&scalars).for_each(|(x, s)| *x *= s);
    }
    let size: f64 = x.iter().map(|x| x.abs()).sum();
    let (expected, slack) = match red {
        1 => {
            let product: f64 = x.iter().product();
            (product, steps * half * product.abs() + steps * tiny * 50.0)
        }
        4 => (x.iter().sum::<f64>() / n as f64, steps * (half * size / n as f64 + tiny)),
        _ => (x.iter().sum(), steps * (half * size + tiny)),
    };
    if (result - expected).abs() <= slack { Ok(()) } else { wrong(&expected) }
}

/// A float between 0.75 and 1.5, or a zero, or their negatives; rounded towards zero where it must be.
fn store(dtype: DataType, x: f64) -> [u8; 8] {
    let mut out = [0; 8];
    match dtype {
        DataType::Float16 => out[..2].copy_from_slice(&f16::from_f64(x).to_ne_bytes()),
        DataType::Bfloat16 => out[..2].copy_from_slice(&bf16::from_f64(x).to_ne_bytes()),
        DataType::Float32 => out[..4].copy_from_slice(&(x as f32).to_ne_bytes()),
        DataType::Float64 => out = x.to_ne_bytes(),
        _ => {
            // From 0.75 on: e4m3 has four steps to 1 and then eight to 2, e5m2 half as many.
            let steps = if dtype == DataType::Float8e4m3 { 8.0 } else { 4.0 };
            let one = if dtype == DataType::Float8e4m3 { 0x38 } else { 0x3c };
            let size = x.abs();
            out[0] = match size {
                0.0 => 0,
                _ if size < 1.0 => one - ((1.0 - size) * 2.0 * steps).ceil() as u8,
                _ => one + ((size - 1.0) * steps) as u8,
            };
            out[0] |= u8::from(x.is_sign_negative()) << 7;
        }
    }
    out
}
