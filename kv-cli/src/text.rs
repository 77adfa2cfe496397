//! The notation of keys and values on the command line and on a terminal.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::borrow::Cow;

/// The text of an absent value.
pub(crate) const NULL: &[u8] = b"NULL";

/// A count with its noun, which takes an s in the plural.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// A notation for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// The bytes themselves.
    Plain,
    /// Two hexadecimal digits for each byte. It never looks like `NULL`, and never holds a line
    /// break.
    Hex,
}

impl Text {
    /// The bytes that `text` denotes.
    pub(crate) fn parse(self, text: &[u8]) -> Result<Cow<'_, [u8]>, NotHex> {
        match self {
            Text::Plain => Ok(Cow::Borrowed(text)),
            Text::Hex => {
                let (pairs, []) = text.as_chunks::<2>() else { return Err(NotHex) };
                let digit =
                    |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let bytes: Option<Vec<u8>> =
                    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
                bytes.map(Cow::Owned).ok_or(NotHex)
            }
        }
    }

    /// The number of characters for one byte.
    pub(crate) fn chars_per_byte(self) -> usize {
        match self {
            Text::Plain => 1,
            Text::Hex => 2,
        }
    }

    /// `bytes` in this notation.
    pub(crate) fn show(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or(b'?');
        match self {
            Text::Plain => Cow::Borrowed(bytes),
            Text::Hex => bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect(),
        }
    }
}

impl Text {
    /// `bytes` in this notation, with escapes for everything but printable ASCII: never ambiguous.
    pub(crate) fn escape(self, bytes: &[u8]) -> String {
        match self {
            Text::Plain => bytes.escape_ascii().to_string(),
            Text::Hex => String::from_utf8_lossy(&self.show(bytes)).into_owned(),
        }
    }

    /// `bytes` in JSON: a string, or `{"base64":B}` for bytes that are not UTF-8. In hexadecimal, a
    /// string of digits.
    pub(crate) fn as_json(self, bytes: &[u8]) -> Value {
        match (self, std::str::from_utf8(bytes)) {
            (Text::Plain, Ok(text)) => Value::from(text),
            (Text::Plain, Err(_)) => json!({ "base64": STANDARD.encode(bytes) }),
            (Text::Hex, _) => Value::from(self.escape(bytes)),
        }
    }
}

/// The text is not hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotHex;

impl std::error::Error for NotHex {}

impl std::fmt::Display for NotHex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("with --hex, keys and values are hexadecimal digits, two a byte")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways() {
        let bytes: Vec<u8> = (0..=255).collect();
        let shown = Text::Hex.show(&bytes);
        assert!(shown.starts_with(b"000102") && shown.ends_with(b"feff"));
        assert_eq!(Text::Hex.parse(&shown).unwrap(), bytes);
        assert_eq!(Text::Hex.parse(b"aAFf").unwrap(), [0xaa, 0xff].as_slice());
        assert_eq!(Text::Hex.parse(b"").unwrap(), b"".as_slice());
        for wrong in [b"a".as_slice(), b"0g", b"0x00", b"+1", b"a b "] {
            assert_eq!(Text::Hex.parse(wrong), Err(NotHex));
        }
    }

    #[test]
    fn plain_bytes_stay_as_they_are() {
        assert_eq!(Text::Plain.parse(b"a\xff").unwrap(), b"a\xff".as_slice());
        assert_eq!(Text::Plain.show(b"a\xff"), b"a\xff".as_slice());
    }
}
