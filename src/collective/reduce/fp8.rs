//! The two 8-bit floats, as CUDA's `__nv_fp8_e4m3` and `__nv_fp8_e5m2` with `__NV_SATFINITE`.
//!
//! | | sign, exponent, mantissa | bias | largest | infinity | NaN |
//! |---|---|---|---|---|---|
//! | e4m3 | 1, 4, 3 | 7 | 448 | none | 0x7f, 0xff |
//! | e5m2 | 1, 5, 2 | 15 | 57344 | 0x7c, 0xfc | 0x7d..0x7f, 0xfd..0xff |
//!
//! Conversion from float32 rounds to nearest even and saturates: everything beyond the largest number,
//! infinity included, becomes the largest number of its sign. So an e5m2 infinity is read as one but never
//! written. NaN stays NaN and keeps its sign. The code has no branches, so that loops over it vectorise.

/// 8-bit float with 3 mantissa bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct E4m3(pub u8);

/// 8-bit float with 2 mantissa bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct E5m2(pub u8);

impl E4m3 {
    /// The exact value.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        let value = decode::<3>(self.0);
        if self.0 & 0x7f == 0x7f { f32::NAN.copysign(value) } else { value }
    }

    /// The nearest value.
    #[inline(always)]
    pub fn from_f32(value: f32) -> E4m3 {
        E4m3(encode::<3>(value, 0x7e, 0x7f))
    }
}

impl E5m2 {
    /// The exact value.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        let value = decode::<2>(self.0);
        let special = if self.0 & 3 == 0 { f32::INFINITY } else { f32::NAN };
        if self.0 & 0x7c == 0x7c { special.copysign(value) } else { value }
    }

    /// The nearest value.
    #[inline(always)]
    pub fn from_f32(value: f32) -> E5m2 {
        E5m2(encode::<2>(value, 0x7b, 0x7e))
    }
}

/// Exponent bias of the format with `MANTISSA` bits.
const fn bias(mantissa: u32) -> u32 {
    (1 << (6 - mantissa)) - 1
}

/// Two to the power of `exponent`, of a normal number.
const fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// The value as if there were neither infinity nor NaN.
#[inline(always)]
fn decode<const MANTISSA: u32>(code: u8) -> f32 {
    let sign = u32::from(code & 0x80) << 24;
    let code = u32::from(code & 0x7f);
    // A subnormal number is an integral multiple of the smallest one.
    let smallest = const { power_of_two(1 - bias(MANTISSA) as i32 - MANTISSA as i32) };
    let subnormal = (code as f32 * smallest).to_bits();
    let normal = (code << (23 - MANTISSA)) + const { (127 - bias(MANTISSA)) << 23 };
    f32::from_bits(sign | if code < 1 << MANTISSA { subnormal } else { normal })
}

/// Nearest even, saturating at the code `largest`.
#[inline(always)]
fn encode<const MANTISSA: u32>(value: f32, largest: u8, nan: u8) -> u8 {
    let drop = 23 - MANTISSA;
    let sign = (value.to_bits() >> 24) as u8 & 0x80;
    let abs = value.to_bits() & 0x7fff_ffff;
    // Half of what is dropped, less one unless the last bit kept is odd, carries exactly when it should.
    let round = (1 << (drop - 1)) - 1 + ((abs >> drop) & 1);
    // Wraps for subnormal numbers and exceeds 8 bits for large ones; both are replaced below.
    let normal = (abs.wrapping_add(round) >> drop).wrapping_sub((127 - bias(MANTISSA)) << MANTISSA);
    // Adding this makes the processor round at the last place of a subnormal number, and leaves it as an
    // integer in the lowest bits. The carry into the smallest normal number has the right code.
    let shift = const { power_of_two(1 - bias(MANTISSA) as i32 - MANTISSA as i32 + 23) };
    let subnormal = (f32::from_bits(abs) + shift).to_bits().wrapping_sub(shift.to_bits());
    let smallest_normal = const { power_of_two(1 - bias(MANTISSA) as i32).to_bits() };
    let magnitude = if abs < smallest_normal { subnormal } else { normal };
    let largest_bits = decode::<MANTISSA>(largest).to_bits();
    let magnitude = if abs > largest_bits { largest } else { magnitude as u8 };
    sign | if abs > 0x7f80_0000 { nan } else { magnitude }
}
