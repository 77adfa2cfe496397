//! Lines of an input, held in bounded memory.

use std::io::{self, BufRead, BufReader, Read};

/// The lines of `input`. A line is at most `bytes_max` bytes long, its line break included.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: BufReader<R>,
    line: Vec<u8>,
    bytes_max: usize,
}

/// The next line, or the reason why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    /// A whole line, without its line break.
    Line(&'a [u8]),
    /// A line over the limit. `skip_rest` skips what is left of it.
    TooLong,
    /// The input ends inside a line, which may be cut.
    Cut,
    /// The input ends.
    End,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(input: R, bytes_max: usize) -> Self {
        Lines { input: BufReader::new(input), line: Vec::new(), bytes_max }
    }

    /// Whether the next line lies in memory, so that `next` does not wait for it.
    pub(crate) fn is_next_buffered(&self) -> bool {
        self.input.buffer().contains(&b'\n')
    }

    /// The next line. A line ends with `\n` or `\r\n`.
    pub(crate) fn next(&mut self) -> io::Result<Next<'_>> {
        let len = self.read_part()?;
        if self.line.ends_with(b"\n") {
            let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
            return Ok(Next::Line(line.strip_suffix(b"\r").unwrap_or(line)));
        }
        if len == self.bytes_max {
            return Ok(Next::TooLong);
        }
        Ok(if len == 0 { Next::End } else { Next::Cut })
    }

    /// Skips the rest of a line that is too long. Returns whether it found the line break.
    pub(crate) fn skip_rest(&mut self) -> io::Result<bool> {
        while !self.line.ends_with(b"\n") {
            if self.read_part()? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads up to a line break, the limit or the end of the input into `line`. Returns the number
    /// of bytes read.
    fn read_part(&mut self) -> io::Result<usize> {
        self.line.clear();
        let bytes_max = u64::try_from(self.bytes_max).unwrap_or(u64::MAX);
        self.input.by_ref().take(bytes_max).read_until(b'\n', &mut self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every answer up to the end of the input.
    fn all(input: &[u8]) -> Vec<String> {
        let mut lines = Lines::new(input, 5);
        let mut answers = Vec::new();
        loop {
            let next = lines.next().unwrap();
            let (end, is_too_long) = (next == Next::End, next == Next::TooLong);
            answers.push(match next {
                Next::Line(line) => line.escape_ascii().to_string(),
                other => format!("{other:?}"),
            });
            if is_too_long && !lines.skip_rest().unwrap() {
                answers.push("cut".to_owned());
            }
            if end {
                return answers;
            }
        }
    }

    #[test]
    fn every_end_of_a_line() {
        let (cut, long) = ("Cut", "TooLong");
        for (input, expected) in [
            ("", &[][..]),
            ("\n", &[""]),
            ("a\nb\r\n", &["a", "b"]),
            ("a\rb\n", &["a\\rb"]),
            ("a\nb", &["a", cut]),
            ("a\r", &[cut]),
            ("abcd\nx\n", &["abcd", "x"]),
            ("abc\r\nx\n", &["abc", "x"]),
            ("abcde\nx\n", &[long, "x"]),
            ("abcd\r\nx\n", &[long, "x"]),
            ("abcdefghij\nx\n", &[long, "x"]),
            ("abcdefghijk\nx\n", &[long, "x"]),
            ("abcd", &[cut]),
            ("abcde", &[long, "cut"]),
            ("abcdefghijk", &[long, "cut"]),
        ] {
            let mut expected = expected.to_vec();
            expected.push("End");
            assert_eq!(all(input.as_bytes()), expected, "{}", input.escape_debug());
        }
    }
}
