//! `mwDataType_t`.

use crate::error::{Error, Result};
use crate::types::DataType;
use std::ffi::c_int;

/// Element types, with the values of ncclDataType_t. nccl.h's other names for them exist, too: mwChar, mwInt,
/// mwHalf, mwFloat, mwDouble.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mwDataType_t {
    /// 8 bits, signed.
    mwInt8 = 0,
    /// 8 bits.
    mwUint8 = 1,
    /// 32 bits, signed.
    mwInt32 = 2,
    /// 32 bits.
    mwUint32 = 3,
    /// 64 bits, signed.
    mwInt64 = 4,
    /// 64 bits.
    mwUint64 = 5,
    /// IEEE 754 half precision.
    mwFloat16 = 6,
    /// IEEE 754 single precision.
    mwFloat32 = 7,
    /// IEEE 754 double precision.
    mwFloat64 = 8,
    /// The upper half of a single precision number.
    mwBfloat16 = 9,
    /// 8 bits: 4 of exponent, 3 of mantissa; no infinities.
    mwFloat8e4m3 = 10,
    /// 8 bits: 5 of exponent, 2 of mantissa.
    mwFloat8e5m2 = 11,
    /// The number of types; not a type.
    mwNumTypes = 12,
}

/// A data type as C passes it: shown as `mwDataType_t` in the header.
pub type RawDataType = c_int;

pub(super) fn datatype(raw: RawDataType) -> Result<DataType> {
    DataType::from_raw(raw).ok_or_else(|| Error::argument(format!("datatype: {raw} is no mwDataType_t")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_enumerators_are_the_types() {
        assert_eq!(mwDataType_t::mwNumTypes as usize, DataType::ALL.len());
        assert_eq!(datatype(mwDataType_t::mwFloat32 as c_int), Ok(DataType::Float32));
        assert_eq!(datatype(mwDataType_t::mwFloat8e5m2 as c_int), Ok(DataType::Float8e5m2));
        for raw in [-1, mwDataType_t::mwNumTypes as c_int, c_int::MAX] {
            assert_eq!(datatype(raw).unwrap_err().to_string(), format!("datatype: {raw} is no mwDataType_t"));
        }
    }
}
