//! Small whole numbers as elements of every data type. Pure.

use half::{bf16, f16};
use multiworld::collective::reduce::fp8::{E4m3, E5m2};
use multiworld::types::DataType;

/// An element; of smaller types the first bytes.
pub type Element = [u8; 8];

/// The largest number up to which every whole number is an element of the type, capped at 127.
pub const fn largest_exact(datatype: DataType) -> u32 {
    match datatype {
        DataType::Float8e4m3 => 16,
        DataType::Float8e5m2 => 8,
        _ => 127,
    }
}

/// A number of at most 127 as an element.
pub fn encode(datatype: DataType, value: u8) -> Element {
    let mut element = [0; 8];
    let mut put = |bytes: &[u8]| element.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    match datatype {
        DataType::Int8 | DataType::Uint8 => put(&[value]),
        DataType::Int32 | DataType::Uint32 => put(&u32::from(value).to_ne_bytes()),
        DataType::Int64 | DataType::Uint64 => put(&u64::from(value).to_ne_bytes()),
        DataType::Float16 => put(&f16::from_f32(f32::from(value)).to_ne_bytes()),
        DataType::Bfloat16 => put(&bf16::from_f32(f32::from(value)).to_ne_bytes()),
        DataType::Float32 => put(&f32::from(value).to_ne_bytes()),
        DataType::Float64 => put(&f64::from(value).to_ne_bytes()),
        DataType::Float8e4m3 => put(&[E4m3::from_f32(f32::from(value)).0]),
        DataType::Float8e5m2 => put(&[E5m2::from_f32(f32::from(value)).0]),
    }
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_apart_up_to_the_largest() {
        for datatype in DataType::ALL {
            let all: std::collections::BTreeSet<Element> =
                (0..=largest_exact(datatype)).map(|v| encode(datatype, v as u8)).collect();
            assert_eq!(all.len() as u32, largest_exact(datatype) + 1, "{datatype:?}");
        }
        assert_eq!(encode(DataType::Float32, 3)[..4], 3f32.to_ne_bytes());
        assert_eq!(E5m2(encode(DataType::Float8e5m2, 8)[0]).to_f32(), 8.0);
        assert_eq!(E4m3(encode(DataType::Float8e4m3, 15)[0]).to_f32(), 15.0);
    }
}
