//! Numbers as text.

/// `1.2 M`, `340 k`, `17.0`, `0.31`.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e9 => format!("{:.2} G", value / 1e9),
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.0} k", value / 1e3),
        size if size >= 1e3 => format!("{:.1} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 || size == 0.0 => format!("{value:.1}"),
        size if size.is_nan() => "–".to_owned(),
        _ => format!("{value:.2}"),
    }
}

/// The same for an axis: round numbers without decimals.
pub(crate) fn tick(value: f64) -> String {
    if value.fract().abs() < 1e-9 && value.abs() < 1e4 { format!("{value:.0}") } else { number(value) }
}

/// `1 MiB`, `32 KiB`: for powers of two.
pub(crate) fn binary_bytes(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}

/// `12 345`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        for (value, text) in [
            (0.0, "0.0"),
            (0.314, "0.31"),
            (17.04, "17.0"),
            (431.7, "432"),
            (1234.0, "1.2 k"),
            (45_678.0, "46 k"),
            (1_234_567.0, "1.23 M"),
            (-2.5e9, "-2.50 G"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!([tick(20.0), tick(0.5), tick(20_000.0)], ["20", "0.50", "20 k"]);
        assert_eq!(binary_bytes(1 << 15), "32 KiB");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(count(999), "999");
    }
}
