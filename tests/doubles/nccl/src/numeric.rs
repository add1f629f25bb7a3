//! The arithmetic of reductions: values are combined in the order of the ranks, small floats in single
//! precision and rounded once at the end. It shares nothing with the library under test.

use crate::small_float::{E4M3, E5M2};
use half::{bf16, f16};
use std::ffi::c_int;

const SUM: c_int = 0;
const PROD: c_int = 1;
const MAX: c_int = 2;
const MIN: c_int = 3;
const AVG: c_int = 4;

/// How a data type is read, combined and written.
trait Element {
    const SIZE: usize;
    type Value: Copy;
    fn load(bytes: &[u8]) -> Self::Value;
    fn store(value: Self::Value, bytes: &mut [u8]);
    fn combine(reduction: c_int, a: Self::Value, b: Self::Value) -> Self::Value;
    fn divide(value: Self::Value, ranks: usize) -> Self::Value;
    fn multiply(a: Self::Value, b: Self::Value) -> Self::Value {
        Self::combine(PROD, a, b)
    }
}

/// The leading bytes as an array; what is missing is zero, which does not happen.
fn take<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    array
}

fn put(bytes: &mut [u8], from: &[u8]) {
    bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl Element for $type {
            const SIZE: usize = size_of::<$type>();
            type Value = $type;
            fn load(bytes: &[u8]) -> $type {
                <$type>::from_le_bytes(take(bytes))
            }
            fn store(value: $type, bytes: &mut [u8]) {
                put(bytes, &value.to_le_bytes());
            }
            fn combine(reduction: c_int, a: $type, b: $type) -> $type {
                match reduction {
                    PROD => a.wrapping_mul(b),
                    MAX => a.max(b),
                    MIN => a.min(b),
                    _ => a.wrapping_add(b),
                }
            }
            fn divide(value: $type, ranks: usize) -> $type {
                // More ranks than an eight-bit type can count: the quotient of the wrapped sum is zero.
                <$type>::try_from(ranks).map_or(0, |ranks| value.checked_div(ranks).unwrap_or(0))
            }
        }
    )*};
}

macro_rules! float {
    ($($name:ty, $value:ty, $size:expr, $load:expr, $store:expr;)*) => {$(
        impl Element for $name {
            const SIZE: usize = $size;
            type Value = $value;
            fn load(bytes: &[u8]) -> $value {
                $load(take(bytes))
            }
            fn store(value: $value, bytes: &mut [u8]) {
                put(bytes, &$store(value));
            }
            fn combine(reduction: c_int, a: $value, b: $value) -> $value {
                match reduction {
                    PROD => a * b,
                    MAX => a.max(b),
                    MIN => a.min(b),
                    _ => a + b,
                }
            }
            fn divide(value: $value, ranks: usize) -> $value {
                value / ranks as $value
            }
        }
    )*};
}

integer!(i8, u8, i32, u32, i64, u64);
float! {
    f32, f32, 4, f32::from_le_bytes, f32::to_le_bytes;
    f64, f64, 8, f64::from_le_bytes, f64::to_le_bytes;
    f16, f32, 2, |bytes| f16::from_le_bytes(bytes).to_f32(), |value| f16::from_f32(value).to_le_bytes();
    bf16, f32, 2, |bytes| bf16::from_le_bytes(bytes).to_f32(), |value| bf16::from_f32(value).to_le_bytes();
    E4M3, f32, 1, |[byte]: [u8; 1]| E4M3::decode(byte), |value| [E4M3::encode(value)];
    E5M2, f32, 1, |[byte]: [u8; 1]| E5M2::decode(byte), |value| [E5M2::encode(value)];
}

fn fold<T: Element>(reduction: c_int, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).min().unwrap_or(0);
    let mut result = vec![0; length];
    for (index, slot) in result.chunks_exact_mut(T::SIZE).enumerate() {
        let at = index * T::SIZE;
        let values = parts.iter().filter_map(|part| part.get(at..at + T::SIZE)).map(T::load);
        if let Some(value) = values.reduce(|a, b| T::combine(reduction, a, b)) {
            T::store(if reduction == AVG { T::divide(value, parts.len()) } else { value }, slot);
        }
    }
    result
}

fn scale_by<T: Element>(bytes: &mut [u8], scalar: &[u8]) {
    let scalar = T::load(scalar);
    for slot in bytes.chunks_exact_mut(T::SIZE) {
        T::store(T::multiply(T::load(slot), scalar), slot);
    }
}

/// Calls a function for the element type of a data type's number.
macro_rules! for_type {
    ($datatype:expr, $function:ident($($argument:expr),*), $otherwise:expr) => {
        match $datatype {
            0 => $function::<i8>($($argument),*),
            1 => $function::<u8>($($argument),*),
            2 => $function::<i32>($($argument),*),
            3 => $function::<u32>($($argument),*),
            4 => $function::<i64>($($argument),*),
            5 => $function::<u64>($($argument),*),
            6 => $function::<f16>($($argument),*),
            7 => $function::<f32>($($argument),*),
            8 => $function::<f64>($($argument),*),
            9 => $function::<bf16>($($argument),*),
            10 => $function::<E4M3>($($argument),*),
            11 => $function::<E5M2>($($argument),*),
            _ => $otherwise,
        }
    };
}

/// Combines the ranks' contributions, which are equally long.
pub fn reduce(datatype: c_int, reduction: c_int, parts: &[&[u8]]) -> Vec<u8> {
    // An operator of the program's own is a sum, its multiplication has been done.
    let reduction = if (SUM..=AVG).contains(&reduction) { reduction } else { SUM };
    for_type!(datatype, fold(reduction, parts), Vec::new())
}

/// Multiplies every value by a scalar of the same type.
pub fn scale(datatype: c_int, bytes: &mut [u8], scalar: &[u8]) {
    for_type!(datatype, scale_by(bytes, scalar), ());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(values: &[f64], encode: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|value| encode(*value)).collect()
    }

    fn check<const N: usize>(datatype: c_int, encode: impl Fn(f64) -> [u8; N]) {
        let (a, b, c) = ([1.0, 2.0, 6.0], [2.0, 3.0, 1.0], [3.0, 1.0, 2.0]);
        let expected = [[6.0, 6.0, 9.0], [6.0, 6.0, 12.0], [3.0, 3.0, 6.0], [1.0, 1.0, 1.0], [2.0, 2.0, 3.0]];
        let parts = [bytes(&a, &encode), bytes(&b, &encode), bytes(&c, &encode)];
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        for (reduction, expected) in expected.iter().enumerate() {
            let got = reduce(datatype, reduction as c_int, &parts);
            assert_eq!(got, bytes(expected, &encode), "type {datatype}, reduction {reduction}");
        }
        let mut scaled = bytes(&a, &encode);
        scale(datatype, &mut scaled, &encode(2.0));
        assert_eq!(scaled, bytes(&[2.0, 4.0, 12.0], &encode), "type {datatype}");
    }

    #[test]
    fn every_type_and_reduction() {
        check(0, |value| (value as i8).to_le_bytes());
        check(1, |value| (value as u8).to_le_bytes());
        check(2, |value| (value as i32).to_le_bytes());
        check(3, |value| (value as u32).to_le_bytes());
        check(4, |value| (value as i64).to_le_bytes());
        check(5, |value| (value as u64).to_le_bytes());
        check(6, |value| f16::from_f64(value).to_le_bytes());
        check(7, |value| (value as f32).to_le_bytes());
        check(8, f64::to_le_bytes);
        check(9, |value| bf16::from_f64(value).to_le_bytes());
        check(10, |value| [E4M3::encode(value as f32)]);
        check(11, |value| [E5M2::encode(value as f32)]);
    }

    #[test]
    fn integers_wrap() {
        assert_eq!(reduce(0, SUM, &[&[127], &[1]]), [128]);
    }
}
