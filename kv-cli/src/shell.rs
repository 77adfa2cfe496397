//! Reads commands from a stream, one in each line, and answers each with exactly one line.

use crate::failure::Failure;
use crate::figures;
use crate::interactive::Terminal;
use crate::lines::{Lines, Next};
use crate::text::{NULL, Text};
use kv_core::{Engine, Limits};
use std::io::{self, Read, Write};

const USAGE: &str = "usage: put KEY VALUE | get KEY | delete KEY | statistic | quit";
const CUT: &str = "the last line has no line break, so it may be cut; it was not executed";

/// How a shell reads and writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// The notation of keys and values.
    pub(crate) text: Text,
    /// Whether a prompt asks for each line.
    pub(crate) prompt: bool,
    /// The longest line, bytes, with its line break.
    pub(crate) line_bytes_max: usize,
}

/// The longest line that a command can need, bytes.
pub(crate) fn line_bytes_max(limits: &Limits, text: Text) -> usize {
    // The command, its spaces and the line break.
    const SLACK_BYTES: usize = 256;
    let bytes = limits.key_len_max.saturating_add(limits.value_len_max);
    bytes.saturating_mul(text.chars_per_byte()).saturating_add(SLACK_BYTES)
}

/// How the input of a shell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With `quit`, after a whole line, or by a signal.
    Whole,
    /// Inside a line, which the shell did not execute.
    Cut,
}

/// Answers until `quit`, the end of the input, or a line that comes when `is_ending` holds.
///
/// The shell flushes its answers before it waits for more input. So a program that asks one
/// question at a time gets its answer, and a long script does not pay for a write for each line.
pub(crate) fn run(
    engine: &dyn Engine,
    input: impl Read,
    out: &mut impl Write,
    settings: &Settings,
    is_ending: &dyn Fn() -> bool,
) -> Result<End, Failure> {
    let mut lines = Lines::new(input, settings.line_bytes_max);
    let end = loop {
        if settings.prompt {
            out.write_all(b"> ").map_err(unanswered)?;
        }
        if !lines.is_next_buffered() {
            out.flush().map_err(unanswered)?;
        }
        let next = lines.next().map_err(Failure::Input)?;
        if is_ending() {
            break End::Whole;
        }
        match &next {
            Next::End => break End::Whole,
            Next::Cut => writeln!(out, "ERROR {CUT}"),
            Next::TooLong => too_long(out, settings.line_bytes_max),
            Next::Line(line) => match parse(line) {
                Line::Quit => break End::Whole,
                line => carry_out(engine, settings.text, &line, out),
            },
        }
        .map_err(unanswered)?;
        let (is_cut, is_too_long) = (next == Next::Cut, next == Next::TooLong);
        if is_cut || is_too_long && !lines.skip_rest().map_err(Failure::Input)? {
            break End::Cut;
        }
    };
    out.flush().map_err(unanswered)?;
    Ok(end)
}

/// As [`run`], with lines that a user edits on a terminal. Each is whole.
pub(crate) fn run_on_terminal(
    engine: &dyn Engine,
    terminal: &mut Terminal,
    out: &mut impl Write,
    text: Text,
    is_ending: &dyn Fn() -> bool,
) -> Result<End, Failure> {
    while let Some(line) = terminal.next().map_err(Failure::Input)? {
        if is_ending() {
            break;
        }
        match parse(line.as_bytes()) {
            Line::Quit => break,
            line => carry_out(engine, text, &line, out).and_then(|()| out.flush()).map_err(unanswered)?,
        }
    }
    terminal.save();
    Ok(End::Whole)
}

/// The caller closes the store before it shows this failure, so its text is true by then.
fn unanswered(source: io::Error) -> Failure {
    Failure::Unanswered { done: "every change up to here is durable", source }
}

fn too_long(out: &mut impl Write, bytes_max: usize) -> io::Result<()> {
    writeln!(
        out,
        "ERROR the line is longer than {bytes_max} bytes and was skipped (--key-len-max and --value-len-max \
         raise this limit)"
    )
}

/// Carries out one line and writes its answer.
fn carry_out(engine: &dyn Engine, text: Text, line: &Line<'_>, out: &mut impl Write) -> io::Result<()> {
    match line {
        Line::Empty | Line::Quit => Ok(()),
        Line::Unknown => writeln!(out, "ERROR {USAGE}"),
        Line::Statistic => writeln!(out, "{}", figures::line(&figures::of_store(&engine.stats()))),
        Line::Put { key, value } => answer(out, put(engine, text, key, value)),
        Line::Get { key } => answer(out, get(engine, text, key)),
        Line::Delete { key } => answer(out, delete(engine, text, key)),
    }
}

/// The command of a line. Keys and values are the text of the line, not parsed.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Empty,
    Put { key: &'a [u8], value: &'a [u8] },
    Get { key: &'a [u8] },
    Delete { key: &'a [u8] },
    Statistic,
    Quit,
    Unknown,
}

fn parse(line: &[u8]) -> Line<'_> {
    let line = line.trim_ascii_start();
    let (command, rest) = split_word(line);
    let rest = rest.unwrap_or_default().trim_ascii_start();
    let (key, value) = split_word(rest);
    let single = value.is_none_or(|rest| rest.trim_ascii().is_empty());
    match (command, key, value) {
        (b"", ..) => Line::Empty,
        (b"put", [_, ..], Some(value)) => Line::Put { key, value },
        (b"get", [_, ..], _) if single => Line::Get { key },
        (b"delete", [_, ..], _) if single => Line::Delete { key },
        (b"statistic", [], _) => Line::Statistic,
        (b"quit", [], _) => Line::Quit,
        _ => Line::Unknown,
    }
}

/// The text before the first space, and the text after it, if there is one.
fn split_word(line: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = line.splitn(2, |byte| *byte == b' ');
    (parts.next().unwrap_or_default(), parts.next())
}

/// The bytes of an answer, `None` for an absent value; or the text of an error.
type Found = Result<Option<Vec<u8>>, Failure>;

fn put(engine: &dyn Engine, text: Text, key: &[u8], value: &[u8]) -> Found {
    engine.put(&text.parse(key)?, &text.parse(value)?)?;
    Ok(Some(key.to_vec()))
}

fn get(engine: &dyn Engine, text: Text, key: &[u8]) -> Found {
    let Some(value) = engine.get(&text.parse(key)?)? else { return Ok(None) };
    let shown = text.show(&value).into_owned();
    if shown.contains(&b'\n') {
        return Err(Failure::Unprintable("the value holds a line break; use --hex to see it"));
    }
    Ok(Some(shown))
}

fn delete(engine: &dyn Engine, text: Text, key: &[u8]) -> Found {
    Ok(engine.delete(&text.parse(key)?)?.map(|_| key.to_vec()))
}

fn answer(out: &mut impl Write, found: Found) -> io::Result<()> {
    match found {
        Ok(bytes) => {
            out.write_all(bytes.as_deref().unwrap_or(NULL))?;
            out.write_all(b"\n")
        }
        Err(error) => writeln!(out, "ERROR {}", error.to_string().replace('\n', " ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let put = |key, value| Line::Put { key, value };
        for (line, expected) in [
            (b"".as_slice(), Line::Empty),
            (b"   ", Line::Empty),
            (b"put a b", put(b"a", b"b")),
            (b"put a  b  c ", put(b"a", b" b  c ")),
            (b"put  a b", put(b"a", b"b")),
            (b"put a ", put(b"a", b"")),
            (b"put a", Line::Unknown),
            (b"put", Line::Unknown),
            (b"get a", Line::Get { key: b"a" }),
            (b" get  a ", Line::Get { key: b"a" }),
            (b"get", Line::Unknown),
            (b"get a b", Line::Unknown),
            (b"delete a", Line::Delete { key: b"a" }),
            (b"delete a b", Line::Unknown),
            (b"statistic", Line::Statistic),
            (b"statistic ", Line::Statistic),
            (b"statistic x", Line::Unknown),
            (b"quit", Line::Quit),
            (b"quit now", Line::Unknown),
            (b"PUT a b", Line::Unknown),
            (b"get \xff", Line::Get { key: b"\xff" }),
        ] {
            assert_eq!(parse(line), expected, "{}", line.escape_ascii());
        }
    }
}
