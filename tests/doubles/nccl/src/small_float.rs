//! The two eight-bit floats. A value is encoded by looking for the nearest of the at most 127 that there are,
//! which is slow and plainly right. Too large a value becomes the largest, as in CUDA's saturating
//! conversion.

/// Four bits of exponent, three of mantissa, no infinity.
pub struct E4M3;
/// Five bits of exponent, two of mantissa.
pub struct E5M2;

fn decode(byte: u8, mantissa_bits: i32, bias: i32) -> f32 {
    let magnitude = i32::from(byte & 0x7f);
    let (exponent, mantissa) = (magnitude >> mantissa_bits, magnitude & ((1 << mantissa_bits) - 1));
    let fraction = mantissa as f32 / (1 << mantissa_bits) as f32;
    let value = match exponent {
        0 => fraction * 2f32.powi(1 - bias),
        _ => (1.0 + fraction) * 2f32.powi(exponent - bias),
    };
    if byte & 0x80 != 0 { -value } else { value }
}

/// The code of the nearest finite value, the even one of two that are equally near.
fn encode(value: f32, largest: u8, decode: fn(u8) -> f32) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let magnitude = f64::from(value.abs());
    let distance = |code: u8| (f64::from(decode(code)) - magnitude).abs();
    // The values rise with their codes.
    let (mut low, mut high) = (0, largest);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if f64::from(decode(middle)) <= magnitude { low = middle } else { high = middle }
    }
    let (below, above) = (distance(low), distance(high));
    sign | if above < below || (above == below && high % 2 == 0) { high } else { low }
}

impl E4M3 {
    /// The value of a code.
    pub fn decode(byte: u8) -> f32 {
        if byte & 0x7f == 0x7f { f32::NAN } else { decode(byte, 3, 7) }
    }

    /// The code of a value.
    pub fn encode(value: f32) -> u8 {
        encode(value, 0x7e, E4M3::decode)
    }
}

impl E5M2 {
    /// The value of a code.
    pub fn decode(byte: u8) -> f32 {
        match byte & 0x7f {
            0x7c if byte & 0x80 != 0 => f32::NEG_INFINITY,
            0x7c => f32::INFINITY,
            0x7d.. => f32::NAN,
            _ => decode(byte, 2, 15),
        }
    }

    /// The code of a value.
    pub fn encode(value: f32) -> u8 {
        encode(value, 0x7b, E5M2::decode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!((E4M3::decode(0x7e), E5M2::decode(0x7b)), (448.0, 57344.0));
        assert_eq!((E4M3::decode(0x38), E5M2::decode(0x3c)), (1.0, 1.0));
        assert_eq!((E4M3::encode(1e9), E5M2::encode(-1e9)), (0x7e, 0xfb));
        assert_eq!(E4M3::decode(1), 2f32.powi(-9));
        assert_eq!(E5M2::decode(1), 2f32.powi(-16));
        assert!(E4M3::decode(E4M3::encode(f32::NAN)).is_nan());
    }

    #[test]
    fn codes_survive_a_round_trip() {
        for byte in 0..=255u8 {
            if !E4M3::decode(byte).is_nan() {
                assert_eq!(E4M3::encode(E4M3::decode(byte)), byte);
            }
            if E5M2::decode(byte).is_finite() {
                assert_eq!(E5M2::encode(E5M2::decode(byte)), byte);
            }
        }
    }

    #[test]
    fn ties_go_to_even() {
        // Between 1.0 (0x38) and 1.125 (0x39), and between that and 1.25 (0x3a).
        assert_eq!((E4M3::encode(1.0625), E4M3::encode(1.1875)), (0x38, 0x3a));
    }
}
