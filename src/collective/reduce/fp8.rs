//! The two 8-bit floats, as CUDA's `__nv_fp8_e4m3` and `__nv_fp8_e5m2` with `__NV_SATFINITE`.
//!
//! | | sign, exponent, mantissa | bias | largest | infinity | NaN |
//! |---|---|---|---|---|---|
//! | e4m3 | 1, 4, 3 | 7 | 448 | none | 0x7f, 0xff |
//! | e5m2 | 1, 5, 2 | 15 | 57344 | 0x7c, 0xfc | 0x7d..0x7f, 0xfd..0xff |
//!
//! Conversion from float32 rounds to nearest even and saturates: everything beyond the largest number,
//! infinity included, becomes the largest number of its sign. So an e5m2 infinity is read as one but never
//! written. NaN stays NaN and keeps its sign.

use super::narrow::Format;

/// 8-bit float with 3 mantissa bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct E4m3(pub u8);

/// 8-bit float with 2 mantissa bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct E5m2(pub u8);

macro_rules! convert {
    ($($t:ident),*) => {$(
        impl $t {
            /// The exact value.
            pub fn to_f32(self) -> f32 {
                $t::widen(self.code())
            }

            /// The nearest value.
            pub fn from_f32(value: f32) -> $t {
                let sign = if value.is_sign_negative() { 0x80 } else { 0 };
                $t($t::from_code($t::narrow(value)).0 | sign)
            }
        }
    )*};
}
convert!(E4m3, E5m2);
