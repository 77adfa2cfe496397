use kv_core::Engine;
use std::io::{self, BufRead, Write};

use crate::commands::figures;

/// Answers one line to each line, until `quit` or the end of the input.
pub(crate) fn run(
    engine: &dyn Engine,
    input: impl BufRead,
    out: &mut impl Write,
    prompt: bool,
) -> io::Result<()> {
    let show_prompt =
        |out: &mut dyn Write| if prompt { write!(out, "> ").and_then(|()| out.flush()) } else { Ok(()) };
    show_prompt(out)?;
    for line in input.split(b'\n') {
        let line = line?;
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line == b"quit" {
            break;
        }
        if !line.is_empty() {
            out.write_all(&answer(engine, line))?;
            out.write_all(b"\n")?;
            out.flush()?;
        }
        show_prompt(out)?;
    }
    out.flush()
}

fn answer(engine: &dyn Engine, line: &[u8]) -> Vec<u8> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let (command, key, value) = (words.next().unwrap_or_default(), words.next(), words.next());
    let found = |bytes: Option<&[u8]>| bytes.unwrap_or(b"NULL").to_vec();
    let result = match (command, key, value) {
        (b"put", Some(key), Some(value)) => engine.put(key, value).map(|_| key.to_vec()),
        (b"get", Some(key), None) => engine.get(key).map(|value| found(value.as_deref())),
        (b"delete", Some(key), None) => engine.delete(key).map(|lsn| found(lsn.map(|_| key))),
        (b"statistic", None, None) => {
            let figures = figures(&engine.stats());
            let words: Vec<String> = figures.iter().map(|(name, value)| format!("{name}={value}")).collect();
            Ok(words.join(" ").into_bytes())
        }
        _ => {
            let usage = "ERROR usage: put KEY VALUE | get KEY | delete KEY | statistic | quit";
            return usage.as_bytes().to_vec();
        }
    };
    result.unwrap_or_else(|error| format!("ERROR {error}").replace('\n', " ").into_bytes())
}
