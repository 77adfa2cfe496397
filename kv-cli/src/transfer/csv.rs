//! CSV as in RFC 4180, with the columns key, value and encoding. The encoding is empty for text, or
//! `base64` for both key and value. The last row is `N,,end`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use csv::ByteRecord;
use std::io::{self, Read, Write};
use std::str::from_utf8;

use super::json::Line;
use crate::text::counted;

const HEADER: [&str; 3] = ["key", "value", "encoding"];
const BASE64: &[u8] = b"base64";
const END: &[u8] = b"end";

/// Writes rows.
pub(super) struct Rows<W: Write>(csv::Writer<W>);

impl<W: Write> Rows<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut rows = Rows(csv::Writer::from_writer(out));
        rows.row(HEADER.map(str::as_bytes))?;
        Ok(rows)
    }

    pub(super) fn write_pair(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if from_utf8(key).is_ok() && from_utf8(value).is_ok() {
            return self.row([key, value, b""]);
        }
        let (key, value) = (STANDARD.encode(key), STANDARD.encode(value));
        self.row([key.as_bytes(), value.as_bytes(), BASE64])
    }

    pub(super) fn write_end(&mut self, pairs: u64) -> io::Result<()> {
        self.row([pairs.to_string().as_bytes(), b"", END])?;
        self.0.flush()
    }

    fn row(&mut self, row: [&[u8]; 3]) -> io::Result<()> {
        self.0.write_record(row).map_err(io_error)
    }
}

/// Reads rows.
pub(super) struct Reader<R: Read> {
    rows: csv::Reader<Watched<R>>,
    row: ByteRecord,
    /// Whether the input has to begin with the header.
    has_header: bool,
    /// The longest row, bytes.
    row_bytes_max: usize,
}

/// The next row, or the reason why there is none.
pub(super) enum Next {
    Line(Line),
    Fault(String),
    /// This part is longer than any pair.
    TooLong,
    /// The input ends within a row.
    Cut,
    End,
}

#[cfg(test)]
impl Next {
    /// For comparison with what a test expects. `place` is that of a fault. `None` at the end.
    pub(super) fn shown(&self, place: u64) -> Option<String> {
        Some(match self {
            Next::Line(Line::Pair(key, value)) => format!("{}={}", key.escape_ascii(), value.escape_ascii()),
            Next::Line(Line::End(pairs)) => format!("end {pairs}"),
            Next::Fault(fault) => format!("{place}: {fault}"),
            Next::TooLong => "too long".to_owned(),
            Next::Cut => "cut".to_owned(),
            Next::End => return None,
        })
    }
}

impl<R: Read> Reader<R> {
    pub(super) fn new(input: R, has_header: bool, row_bytes_max: usize) -> Self {
        let input = Watched { input, at_end: false, left: Some(0) };
        let rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(input);
        Reader { rows, row: ByteRecord::new(), has_header, row_bytes_max }
    }

    /// The number of the line that `next` reads, from 1.
    pub(super) fn line(&self) -> u64 {
        self.row.position().map_or_else(|| self.rows.position().line(), csv::Position::line)
    }

    /// The next row. The header is no row.
    ///
    /// # Errors
    /// The input fails.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        let is_first = self.rows.position().byte() == 0;
        // A row may begin in bytes that were read with the row before.
        self.rows.get_mut().left = Some(self.row_bytes_max);
        match self.rows.read_byte_record(&mut self.row) {
            Ok(true) => {}
            Ok(false) => return Ok(Next::End),
            Err(_) if self.rows.get_ref().left.is_none() => return Ok(Next::TooLong),
            Err(error) => return Err(io_error(error)),
        }
        // A whole row ends before the reader sees the end of the input.
        if self.rows.get_ref().at_end {
            return Ok(Next::Cut);
        }
        if is_first && self.row.iter().eq(HEADER.iter().take(self.row.len()).map(|name| name.as_bytes())) {
            return self.next();
        }
        if is_first && self.has_header {
            let fault = "an export in CSV begins with key,value,encoding; choose another --format, or add --no-end \
                         for the rows of another tool";
            return Ok(Next::Fault(fault.to_owned()));
        }
        Ok(parse(&self.row).map_or_else(Next::Fault, Next::Line))
    }
}

fn parse(row: &ByteRecord) -> Result<Line, String> {
    let fields: Vec<&[u8]> = row.iter().collect();
    let (key, value, encoding) = match fields.as_slice() {
        [key, value] => (*key, *value, b"".as_slice()),
        [key, value, encoding] => (*key, *value, *encoding),
        other => {
            let fields = counted(other.len() as u64, "field");
            return Err(format!("this row has {fields}; a row is key,value,encoding"));
        }
    };
    match encoding {
        b"" => Ok(Line::Pair(key.to_vec(), value.to_vec())),
        BASE64 => {
            let decode = |text| STANDARD.decode(text).map_err(|_| "this row is not valid base64".to_owned());
            Ok(Line::Pair(decode(key)?, decode(value)?))
        }
        END => {
            let pairs = from_utf8(key).ok().and_then(|text| text.parse().ok());
            pairs.map(Line::End).ok_or_else(|| "the end row has no number of pairs".to_owned())
        }
        other => Err(format!("the encoding {} is unknown: it is empty or base64", other.escape_ascii())),
    }
}

/// The error with the kind of its cause. The conversion of the crate `csv` hides the kind.
fn io_error(error: csv::Error) -> io::Error {
    let kind = match error.kind() {
        csv::ErrorKind::Io(cause) => cause.kind(),
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// An input, and whether its end was reached.
struct Watched<R> {
    input: R,
    at_end: bool,
    /// The bytes that may still be read for this row. `None` once the row has asked for more.
    left: Option<usize>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(self.left.unwrap_or(0));
        if len == 0 && !buf.is_empty() {
            self.left = None;
            return Err(io::ErrorKind::InvalidData.into());
        }
        let read = self.input.read(buf.get_mut(..len).unwrap_or_default())?;
        self.left = self.left.map(|left| left - read);
        self.at_end |= read == 0 && !buf.is_empty();
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8]) -> Vec<String> {
        let mut reader = Reader::new(input, false, 20);
        let mut found = Vec::new();
        loop {
            let next = reader.next().unwrap();
            let Some(shown) = next.shown(reader.line()) else { return found };
            found.push(shown);
            if found.last().is_some_and(|last| ["cut", "too long"].contains(&last.as_str())) {
                return found;
            }
        }
    }

    #[test]
    fn any_bytes_go_both_ways() {
        let mut bytes = Vec::new();
        let mut rows = Rows::new(&mut bytes).unwrap();
        for (key, value) in [(&b"k"[..], &b"v"[..]), (b"a,b", b"\"q\"\r\n2"), (b"", b""), (b"\xff", b"x")] {
            rows.write_pair(key, value).unwrap();
        }
        rows.write_end(4).unwrap();
        drop(rows);
        assert!(bytes.starts_with(b"key,value,encoding\nk,v,\n"), "{}", bytes.escape_ascii());
        assert_eq!(all(&bytes), ["k=v", "a,b=\\\"q\\\"\\r\\n2", "=", "\\xff=x", "end 4"]);
    }

    #[test]
    fn every_cut_and_fault_is_noticed() {
        assert_eq!(all(b"key,value\na,1\nb,2\n"), ["a=1", "b=2"]);
        assert_eq!(all(b"a,1,\nb,2"), ["a=1", "cut"]);
        assert_eq!(all(b"a,1,\nb,\"2"), ["a=1", "cut"]);
        assert_eq!(all(b"a,1,\nb,\"2\n"), ["a=1", "cut"]);
        assert_eq!(all(b"a,1,\r\nb,2,\r\n"), ["a=1", "b=2"]);
        assert!(all(b"a,1,\nb,2,x,y\n")[1].starts_with("2: this row has 4 fields"));
        assert!(all(b"a\n")[0].contains("has 1 field;"));
        assert!(all(b"a,b,rot13\n")[0].contains("rot13 is unknown"));
        assert!(all(b"!,!,base64\n")[0].contains("not valid base64"));
        assert!(all(b"x,,end\n")[0].contains("no number of pairs"));
        assert_eq!(all(b""), Vec::<String>::new());
    }

    /// A row may be as long as the limit, also in a buffer that ends within it.
    #[test]
    fn a_row_beyond_the_limit_is_not_read_to_its_end() {
        let (fits, longer) = ("a,34567890123456789\n", "a,345678901234567890\n");
        assert_eq!(fits.len(), 20);
        let pair = "a=34567890123456789";
        assert_eq!(all(fits.repeat(3).as_bytes()), [pair; 3]);
        assert_eq!(all([fits, longer].concat().as_bytes()), [pair, "too long"]);
        assert_eq!(all([fits, "b,\"", &"x\n".repeat(20)].concat().as_bytes()), [pair, "too long"]);
    }
}
