//! A checksummed binary log format, as pure bytes to records: no I/O, no threads, no `unsafe`.
//!
//! ```
//! use kv_wal_format::{Encoder, Record, Scanner, SegmentHeader, SegmentKind, StopReason};
//!
//! // A segment is a header and records one after the other.
//! let header = SegmentHeader { kind: SegmentKind::Log, segment_id: 7, base_lsn: 0, store_id: 0 };
//! let mut segment = header.encode().to_vec();
//! let encoder = Encoder::new(header.origin());
//! encoder.append(&Record::put(1, b"colour", b"blue"), &mut segment)?;
//! encoder.append(&Record::delete(2, b"colour"), &mut segment)?;
//!
//! // A crash cuts the segment. The scanner still yields the whole records.
//! segment.truncate(segment.len() - 1);
//! let (found, mut scanner) = Scanner::open(&segment)?;
//! assert_eq!(found, header);
//! let records: Vec<_> = scanner.by_ref().map(|(_, record)| record).collect();
//! assert_eq!(records, [Record::put(1, b"colour", b"blue")]);
//! assert_eq!(scanner.stop().reason, StopReason::Torn);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where to find each task:
//!
//! | to | use |
//! |---|---|
//! | begin a segment, or read its first bytes | [`SegmentHeader`] |
//! | write records | [`Encoder`]; [`Mark`] and [`Seal`] for records that change no key |
//! | read one record from any bytes | [`Decoder::step`] |
//! | read a record that this process encoded or validated | [`parse_trusted`], [`peek`] |
//! | read a segment, whole batches only | [`Scanner`] |
//! | tell a torn tail from damage | [`judge_tail`] |
//!
//! The module [`format`](mod@format) specifies the bytes. The decoding side is total: any bytes
//! give an answer, none a panic.
#![forbid(unsafe_code)]

mod checksum;
mod decoder;
mod encoder;
mod error;
mod kind;
mod layout;
mod mark;
mod record;
mod record_header;
mod scanner;
mod seal;
mod segment_header;
mod tail;
mod trusted;

pub use checksum::body_checksum;
pub use decoder::{Decoder, Step, is_zero};
pub use encoder::Encoder;
pub use error::{Corruption, EncodeError, HeaderError, ShapeError};
pub use kind::RecordKind;
pub use layout::{
    FORMAT_VERSION, KEY_LEN_MAX, LARGE_HEADER_LEN, SEGMENT_HEADER_LEN, SMALL_HEADER_LEN, SMALL_KEY_LEN_MAX,
    SMALL_LSN_DELTA_MAX, SMALL_VALUE_LEN_MAX, VALUE_LEN_MAX, encoded_len_max,
};
pub use mark::Mark;
pub use record::Record;
pub use record_header::{RecordInfo, encoded_len};
pub use scanner::{Scanner, Stop, StopReason};
pub use seal::Seal;
pub use segment_header::{MAGIC, Origin, SegmentHeader, SegmentKind};
pub use tail::{Evidence, Tail, judge_tail};
pub use trusted::{parse_trusted, peek, peek_lsn};

#[doc = include_str!("../FORMAT.md")]
pub mod format {}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
