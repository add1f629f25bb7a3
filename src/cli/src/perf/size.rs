//! Sizes in bytes: how users write them, ranges of them, and how they are shown. Pure.

/// Reads `8`, `40000`, `4K`, `64M`, `1G`; the letters are powers of 1024.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        unit => return Err(format!("'{unit}' is no unit; sizes are written like 8, 40000, 4K, 64M, 1G")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("'{text}' is no size; sizes are written like 8, 40000, 4K, 64M, 1G"))?;
    number.checked_mul(unit).filter(|bytes| *bytes <= 1 << 40).ok_or_else(|| format!("'{text}' is too much"))
}

/// `min`, `min * factor`, ... up to `max`.
pub fn range(min: u64, max: u64, factor: u64) -> Vec<u64> {
    std::iter::successors((min <= max).then_some(min), |size| {
        size.checked_mul(factor).filter(|next| *next <= max && next > size)
    })
    .collect()
}

/// A size as the progress line shows it.
pub fn human(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b % (1 << 30) == 0 => format!("{} GiB", b >> 30),
        b if b >= 1 << 20 && b % (1 << 20) == 0 => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b % (1 << 10) == 0 => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let read = ["8", "40000", "4K", "64m", "1G", "3KiB", "0"].map(parse);
        let expected = [8, 40000, 4096, 64 << 20, 1 << 30, 3072, 0];
        assert_eq!(read, expected.map(Ok));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "K", "4X", "-1", "1.5M", "99999999999999999999", "17179869184G"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_end_at_the_largest_size_or_before() {
        assert_eq!(range(8, 4096, 8), [8, 64, 512, 4096]);
        assert_eq!(range(8, 4095, 8), [8, 64, 512]);
        assert_eq!(range(5, 5, 2), [5]);
        assert!(range(9, 8, 2).is_empty());
        assert_eq!(range(0, 8, 2), [0]);
    }

    #[test]
    fn sizes_are_shown_exactly() {
        assert_eq!([8, 4096, 40000, 64 << 20].map(human), ["8 B", "4 KiB", "40000 B", "64 MiB"]);
    }
}
