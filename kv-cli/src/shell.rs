//! Commands from a stream, one a line, each answered by exactly one line.

use crate::failure::Failure;
use crate::figures;
use crate::text::{NULL, Text};
use kv_core::Engine;
use std::io::{self, BufRead, BufReader, Read, Write};

const USAGE: &str = "usage: put KEY VALUE | get KEY | delete KEY | statistic | quit";

/// Answers until `quit` or the end of the input.
///
/// Answers are flushed before the shell waits for more input, so a program that asks one question at a
/// time gets its answer, and a long script is not slowed down by a write a line.
pub(crate) fn run(
    engine: &dyn Engine,
    mut input: BufReader<impl Read>,
    out: &mut impl Write,
    text: Text,
    prompt: bool,
) -> Result<(), Failure> {
    let mut line = Vec::new();
    loop {
        if prompt {
            out.write_all(b"> ").map_err(Failure::Output)?;
        }
        if !input.buffer().contains(&b'\n') {
            out.flush().map_err(Failure::Output)?;
        }
        line.clear();
        if input.read_until(b'\n', &mut line).map_err(Failure::Input)? == 0 {
            break;
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = parse(line);
        if line == Line::Quit {
            break;
        }
        carry_out(engine, text, &line, out).map_err(Failure::Output)?;
    }
    out.flush().map_err(Failure::Output)
}

/// Carries out one line and writes its answer.
fn carry_out(engine: &dyn Engine, text: Text, line: &Line<'_>, out: &mut impl Write) -> io::Result<()> {
    match line {
        Line::Empty | Line::Quit => Ok(()),
        Line::Unknown => writeln!(out, "ERROR {USAGE}"),
        Line::Statistic => writeln!(out, "{}", figures::line(&engine.stats())),
        Line::Put { key, value } => answer(out, put(engine, text, key, value)),
        Line::Get { key } => answer(out, get(engine, text, key)),
        Line::Delete { key } => answer(out, delete(engine, text, key)),
    }
}

/// What a line asks for. Keys and values are as they were written.
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

/// Up to the first space, and what comes after that space, if there is one.
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
