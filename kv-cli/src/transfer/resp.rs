//! The protocol of Redis (RESP), as `redis-cli --pipe` takes it: for each pair the command
//! `SET key value`, an array of three bulk strings. Any bytes go as they are. The last command of
//! an export is `ECHO` of `end N`, which changes nothing in a server.

use kv_core::Limits;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};

use super::csv::Next;
use super::json::Line;

pub(super) fn write_pair(out: &mut impl Write, key: &[u8], value: &[u8]) -> io::Result<()> {
    write_command(out, &[b"SET", key, value])
}

pub(super) fn write_end(out: &mut impl Write, pairs: u64) -> io::Result<()> {
    write_command(out, &[b"ECHO", format!("end {pairs}").as_bytes()])
}

fn write_command(out: &mut impl Write, words: &[&[u8]]) -> io::Result<()> {
    write!(out, "*{}\r\n", words.len())?;
    for word in words {
        write!(out, "${}\r\n", word.len())?;
        out.write_all(word)?;
        out.write_all(b"\r\n")?;
    }
    Ok(())
}

/// No command that is taken has more words.
const WORDS_MAX: usize = 3;

/// The longest line before an array or a bulk string: a mark and a number.
const HEAD_LEN_MAX: u64 = 24;

/// A complaint shows this much of a command's name, bytes.
const NAME_LEN_SHOWN: usize = 32;

/// Reads commands. It holds one in memory.
pub(super) struct Reader<R: Read> {
    input: BufReader<R>,
    /// The longest key or value, bytes.
    word_len_max: usize,
    command: u64,
}

/// The reason why there is no command.
enum Stop {
    Fault(String),
    /// The input ends within the command.
    Cut,
    Input(io::Error),
}

impl<R: Read> Reader<R> {
    pub(super) fn new(input: R, limits: &Limits) -> Self {
        let word_len_max = limits.key_len_max.max(limits.value_len_max);
        Reader { input: BufReader::new(input), word_len_max, command: 0 }
    }

    /// The number of the command that was read last, from 1.
    pub(super) fn command(&self) -> u64 {
        self.command
    }

    /// The next command.
    ///
    /// # Errors
    /// The input fails.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        self.command += 1;
        if self.input.fill_buf()?.is_empty() {
            return Ok(Next::End);
        }
        match self.read_command() {
            Ok(words) => Ok(parse(words).map_or_else(Next::Fault, Next::Line)),
            Err(Stop::Fault(fault)) => Ok(Next::Fault(fault)),
            Err(Stop::Cut) => Ok(Next::Cut),
            Err(Stop::Input(error)) => Err(error),
        }
    }

    fn read_command(&mut self) -> Result<Vec<Vec<u8>>, Stop> {
        let count = self.read_head(b'*', "an array of strings", WORDS_MAX)?;
        (0..count).map(|_| self.read_word()).collect()
    }

    fn read_word(&mut self) -> Result<Vec<u8>, Stop> {
        let len = self.read_head(b'$', "a bulk string", self.word_len_max)?;
        let mut word = Vec::new();
        let read = self.input.by_ref().take(len as u64).read_to_end(&mut word).map_err(Stop::Input)?;
        if read < len {
            return Err(Stop::Cut);
        }
        let mut end = [0; 2];
        self.input.read_exact(&mut end).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Stop::Cut,
            _ => Stop::Input(error),
        })?;
        if end == *b"\r\n" { Ok(word) } else { Err(fault("a string is longer than its length says")) }
    }

    /// Reads the line before `what`: its mark, and a number up to `max`.
    fn read_head(&mut self, mark: u8, what: &str, max: usize) -> Result<usize, Stop> {
        let mut line = Vec::new();
        let head = &mut self.input.by_ref().take(HEAD_LEN_MAX);
        head.read_until(b'\n', &mut line).map_err(Stop::Input)?;
        let is_start = line.first() == Some(&mark);
        match line.strip_suffix(b"\r\n") {
            Some(head) if is_start => number(head.get(1..).unwrap_or_default())
                .filter(|number| *number <= max)
                .ok_or_else(|| Stop::Fault(format!("the length of {what} is not a number up to {max}"))),
            None if line.is_empty()
                || is_start && (line.len() as u64) < HEAD_LEN_MAX && !line.ends_with(b"\n") =>
            {
                Err(Stop::Cut)
            }
            _ => Err(Stop::Fault(format!("this is not {what}: {}", line.escape_ascii()))),
        }
    }
}

/// The number that `digits` write. A sign is no digit.
fn number(digits: &[u8]) -> Option<usize> {
    let are_digits = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| are_digits)?.parse().ok()
}

fn fault(text: &str) -> Stop {
    Stop::Fault(text.to_owned())
}

fn parse(words: Vec<Vec<u8>>) -> Result<Line, String> {
    let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    match <[Vec<u8>; 3]>::try_from(words) {
        Ok([set, key, value]) if is(&set, "SET") => Ok(Line::Pair(key, value)),
        Err(words) if words.len() == 2 && words.first().is_some_and(|word| is(word, "ECHO")) => {
            let text = words.last().and_then(|text| std::str::from_utf8(text).ok());
            let pairs = text.and_then(|text| text.strip_prefix("end ")?.parse().ok());
            pairs.map(Line::End).ok_or_else(|| "this ECHO has no number of pairs".to_owned())
        }
        Ok(words) => Err(not_taken(&words)),
        Err(words) => Err(not_taken(&words)),
    }
}

fn not_taken(words: &[Vec<u8>]) -> String {
    let name = words.first().map(Vec::as_slice).unwrap_or_default();
    let (shown, rest) = name.split_at(name.len().min(NAME_LEN_SHOWN));
    let (shown, cut) = (shown.escape_ascii(), if rest.is_empty() { "" } else { "..." });
    format!("the command \"{shown}{cut}\" with {} words is not taken; a pair is SET key value", words.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8]) -> Vec<String> {
        let mut reader =
            Reader::new(input, &Limits { key_len_max: 3, value_len_max: 10, ..Limits::default() });
        let mut found = Vec::new();
        loop {
            let next = reader.next().unwrap();
            let Some(shown) = next.shown(reader.command()) else { return found };
            found.push(shown);
            if found.last().is_some_and(|last| last == "cut" || last.contains(": ")) {
                return found;
            }
        }
    }

    fn exported() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in [(&b"k"[..], &b"v"[..]), (b"\r\n", b"$1\r\n*2"), (b"", b""), (b"\xff", b"\0")] {
            write_pair(&mut bytes, key, value).unwrap();
        }
        write_end(&mut bytes, 4).unwrap();
        bytes
    }

    #[test]
    fn any_bytes_go_both_ways() {
        let bytes = exported();
        assert!(bytes.starts_with(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"), "{}", bytes.escape_ascii());
        assert!(bytes.ends_with(b"*2\r\n$4\r\nECHO\r\n$5\r\nend 4\r\n"), "{}", bytes.escape_ascii());
        assert_eq!(all(&bytes), ["k=v", "\\r\\n=$1\\r\\n*2", "=", "\\xff=\\x00", "end 4"]);
    }

    #[test]
    fn every_cut_is_noticed() {
        let bytes = exported();
        for cut in 0..bytes.len() {
            let found = all(&bytes[..cut]);
            assert!(found.last().is_none_or(|last| !last.starts_with("end")), "cut at {cut}: {found:?}");
            let at_border = bytes[..cut].is_empty()
                || bytes[cut..].starts_with(b"*3\r\n$3\r\nSET\r\n")
                || bytes[cut..].starts_with(b"*2\r\n$4");
            assert_eq!(found.last().is_some_and(|last| last == "cut"), !at_border, "cut at {cut}: {found:?}");
        }
    }

    #[test]
    fn a_command_that_is_not_taken_is_named() {
        for (input, complaint) in [
            ("set a 1\r\n", "1: this is not an array of strings: set a 1\\r\\n"),
            ("*x\r\n", "1: the length of an array of strings is not a number"),
            ("*-1\r\n", "is not a number up to 3"),
            ("*5\r\n$3\r\nSET\r\n", "is not a number up to 3"),
            ("*+3\r\n", "is not a number up to 3"),
            ("*\r\n", "is not a number up to 3"),
            ("*1\r\n$+3\r\nSET\r\n", "the length of a bulk string is not a number up to 10"),
            ("*1\r\n:1\r\n", "this is not a bulk string: :1"),
            ("*1\r\n$11\r\n", "is not a number up to 10"),
            ("*1\r\n$1\r\nab\r\n", "longer than its length says"),
            ("*2\r\n$3\r\nDEL\r\n$1\r\na\r\n", "\"DEL\" with 2 words is not taken"),
            ("*3\r\n$3\r\nGET\r\n$1\r\na\r\n$1\r\nb\r\n", "\"GET\" with 3 words is not taken"),
            ("*2\r\n$4\r\nECHO\r\n$1\r\na\r\n", "this ECHO has no number of pairs"),
            ("*0\r\n", "with 0 words is not taken"),
            ("*1\r\n$3\r\n\0\"\\\r\n", "the command \"\\x00\\\"\\\\\" with 1 words is not taken"),
            ("************************\r\n", "this is not an array of strings"),
        ] {
            let found = all(input.as_bytes());
            assert!(found.last().is_some_and(|last| last.contains(complaint)), "{input:?}: {found:?}");
        }
        assert_eq!(all(b"*3\r\n$3\r\nset\r\n$1\r\na\r\n$1\r\n1\r\n"), ["a=1"]);
    }

    #[test]
    fn a_long_name_of_a_command_is_shown_in_part() {
        for (len, shown) in [(32, "\\xff".repeat(32)), (1 << 20, "\\xff".repeat(32) + "...")] {
            let complaint = not_taken(&[vec![0xff; len], Vec::new()]);
            let start = format!("the command \"{shown}\" with 2 words is not taken");
            assert!(complaint.starts_with(&start), "{len} bytes: {complaint:.300}");
        }
    }
}
