//! Errors that the rows make themselves. To provoke the engines' would take a process of its own (a
//! fork, a limit of memory or threads), or a file system that no test has. No engine lets the
//! encoder fail, and no encoder writes these records.

use crate::disk::{DIR, path_of};
use crate::listing::{Row, text};
use crate::log::store::FIRST;
use kv_core::{Error, Op};
use kv_wal_format::{Corruption, EncodeError, Encoder, KEY_LEN_MAX, Origin, Record};
use std::io;
use std::path::Path;

pub(crate) fn errors() -> Vec<Row> {
    // By number, as the system makes them.
    const EAGAIN: i32 = 11;
    const ENOMEM: i32 = 12;
    const EINVAL: i32 = 22;
    const EDQUOT: i32 = 122;
    let (store, segment) = (Path::new(DIR), &*path_of(FIRST));
    let refused =
        |op: Op, path, number| Error::io(op, path, io::Error::from_raw_os_error(number)).to_string();
    vec![
        ("sync: switching a segment to direct I/O", refused(Op::SetAccess, segment, EINVAL)),
        ("put: finding memory for a segment", refused(Op::AllocateMemory, segment, ENOMEM)),
        ("put: finding memory for a larger index", refused(Op::GrowIndex, store, ENOMEM)),
        ("open: starting a thread", refused(Op::StartThread, store, EAGAIN)),
        ("put: the quota of the user is used up", refused(Op::Reserve, segment, EDQUOT)),
        ("get: the process was forked from the one that opened the store", Error::Forked.to_string()),
    ]
}

pub(crate) fn encoder() -> Vec<Row> {
    let encoder = Encoder::new(Origin { segment_id: 1, base_lsn: 0 });
    let encode = |record: &Record<'_>, len: usize| text(encoder.encode(record, &mut vec![0; len]));
    let long = vec![0; KEY_LEN_MAX + 1];
    vec![
        ("encode: the key is too long", encode(&Record::put(1, &long, b""), 100_000)),
        ("encode: the value is too long", EncodeError::ValueTooLong { len: 1 << 32 }.to_string()),
        ("encode: the buffer is too small", encode(&Record::put(1, b"k", b"v"), 8)),
        ("encode: a delete with a value", encode(&Record { value: b"v", ..Record::delete(1, b"k") }, 100)),
    ]
}

pub(crate) fn decoder() -> Vec<Row> {
    vec![
        ("decode: the LSN is too large", Corruption::LsnOverflow.to_string()),
        ("decode: a record that fits a small header has a large one", {
            Corruption::NeedlesslyLarge.to_string()
        }),
    ]
}
