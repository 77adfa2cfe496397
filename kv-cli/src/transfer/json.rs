//! JSON Lines: `{"key":K,"value":V}`, and at the end `{"end":{"pairs":N}}`. K and V are strings, or
//! `{"base64":B}` for bytes that are not UTF-8.

use crate::text::Text;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// The content of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Pair(Vec<u8>, Vec<u8>),
    /// The end of an export of so many pairs.
    End(u64),
}

pub(super) fn write_pair(out: &mut impl Write, key: &[u8], value: &[u8]) -> io::Result<()> {
    // The keys of an object are in the order of the alphabet: key, value.
    writeln!(out, "{}", json!({ "key": Text::Plain.as_json(key), "value": Text::Plain.as_json(value) }))
}

pub(super) fn write_end(out: &mut impl Write, pairs: u64) -> io::Result<()> {
    writeln!(out, "{}", json!({ "end": { "pairs": pairs } }))
}

/// The content of `line`, or its fault.
pub(super) fn parse(line: &[u8]) -> Result<Line, String> {
    const FORM: &str = "a line is {\"key\":…,\"value\":…}";
    let value: Value = serde_json::from_slice(line).map_err(|error| {
        // A line is parsed alone, so its number there says nothing.
        format!("this is not JSON at column {}; {FORM}", error.column())
    })?;
    let Value::Object(mut object) = value else { return Err(format!("this is not an object; {FORM}")) };
    if let Some(end) = object.remove("end") {
        let pairs = end.get("pairs").and_then(Value::as_u64);
        return pairs.map(Line::End).ok_or_else(|| "the end line has no number of pairs".to_owned());
    }
    let pair = Line::Pair(take(&mut object, "key")?, take(&mut object, "value")?);
    match object.keys().next() {
        Some(other) => Err(format!("there is no field {other:?}; {FORM}")),
        None => Ok(pair),
    }
}

/// The bytes of the field `name`.
fn take(object: &mut Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    match object.remove(name) {
        Some(Value::String(text)) => Ok(text.into_bytes()),
        Some(Value::Object(coded)) if coded.len() == 1 => coded
            .get("base64")
            .and_then(Value::as_str)
            .and_then(|text| STANDARD.decode(text).ok())
            .ok_or_else(|| format!("the {name} is not {{\"base64\":…}} with valid digits")),
        Some(_) => Err(format!("the {name} is neither a string nor {{\"base64\":…}}")),
        None => Err(format!("the {name} is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_go_both_ways() {
        let all: Vec<u8> = (0..=255).collect();
        for (key, value) in
            [(&b"k"[..], &b"v"[..]), (b"", b""), (b"\xff", b"\"\n\\\t\0"), ("ü".as_bytes(), &all)]
        {
            let mut line = Vec::new();
            write_pair(&mut line, key, value).unwrap();
            assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
            assert_eq!(parse(&line), Ok(Line::Pair(key.to_vec(), value.to_vec())));
        }
        let mut line = Vec::new();
        write_end(&mut line, 7).unwrap();
        assert_eq!(parse(&line), Ok(Line::End(7)));
    }

    #[test]
    fn a_line_of_text_is_plain() {
        let mut line = Vec::new();
        write_pair(&mut line, b"a", b"1").unwrap();
        assert_eq!(line, b"{\"key\":\"a\",\"value\":\"1\"}\n");
    }

    #[test]
    fn every_fault_is_named() {
        for (line, fault) in [
            ("", "not JSON"),
            ("{\"key\":\"a\",\"val", "not JSON"),
            ("[1]", "not an object"),
            ("{\"key\":\"a\"}", "the value is missing"),
            ("{\"value\":\"a\"}", "the key is missing"),
            ("{\"key\":1,\"value\":\"a\"}", "the key is neither"),
            ("{\"key\":\"a\",\"value\":null}", "the value is neither"),
            ("{\"key\":{\"base64\":\"!\"},\"value\":\"\"}", "valid digits"),
            ("{\"key\":\"a\",\"value\":\"b\",\"ttl\":\"c\"}", "no field \"ttl\""),
            ("{\"end\":{}}", "no number of pairs"),
        ] {
            let found = parse(line.as_bytes()).unwrap_err();
            assert!(found.contains(fault), "{line}: {found}");
        }
    }
}
