//! Calls and settings that an engine refuses. Both engines use the same texts.

use crate::listing::{Row, text};
use crate::log::store::{closed, open, open_with, options as small};
use kv_core::{Batch, Engine, Limits, Lsn, PointInTime, Target};
use kv_log::{LogEngine, Options};
use kv_tests::sim::SimFs;

fn new_store(limits: Limits) -> LogEngine {
    open_with(&SimFs::new(), Options { limits, ..small() }).unwrap()
}

pub(crate) fn rows() -> Vec<Row> {
    let limits = Limits { key_len_max: 4, value_len_max: 8, batch_bytes_max: 60 };
    let mut batch = Batch::new();
    batch.put(b"a", b"1").put(b"b", b"2");
    let store = new_store(limits);
    let reader = open_with(&closed(), Options { read_only: true, ..small() }).unwrap();
    let gone = open(&SimFs::new()).unwrap();
    gone.close().unwrap();
    vec![
        ("put: the key is too long", text(store.put(b"12345", b""))),
        ("put: the value is too long", text(store.put(b"k", b"123456789"))),
        ("apply: the batch is too large", text(store.apply(&batch))),
        ("wait_durable: no change has this LSN", text(store.wait_durable(Lsn::new(9)))),
        ("read_at: the state is not in the window", text(store.read_at(&Target::Lsn(Lsn::new(9))))),
        ("pin: a point has this name", {
            let newest = Target::Lsn(store.last_lsn());
            store.pin("p", &newest, None).unwrap();
            text(store.pin("p", &newest, None))
        }),
        ("pin: the name is too long", text(store.pin(&"n".repeat(65), &Target::Lsn(Lsn::ZERO), None))),
        ("put: the store is open for reading only", text(reader.put(b"k", b"v"))),
        ("get: the store was closed", text(gone.get(b"k"))),
    ]
}

pub(crate) fn limits() -> Vec<Row> {
    let with = |limits: Limits| text(open_with(&SimFs::new(), Options { limits, ..small() }));
    let largest = Limits { batch_bytes_max: usize::MAX, ..Limits::default() };
    vec![
        ("open: keys longer than the format holds", with(Limits { key_len_max: 65_536, ..largest })),
        ("open: values longer than the format holds", with(Limits { value_len_max: 1 << 32, ..largest })),
        ("open: a batch has no room for one put", {
            with(Limits { batch_bytes_max: 100, ..Limits::default() })
        }),
    ]
}

pub(crate) fn options() -> Vec<Row> {
    let with = |options: Options| text(open_with(&SimFs::new(), options));
    let limits = Limits { batch_bytes_max: 200_000_000, ..Limits::default() };
    vec![
        ("open: segment_bytes is too small", with(Options { segment_bytes: 1000, ..small() })),
        ("open: batch_bytes_max is more than a segment holds", with(Options { limits, ..small() })),
        ("open: unflushed_bytes_max is 0", with(Options { unflushed_bytes_max: 0, ..small() })),
        ("open: open_files_max is 0", with(Options { open_files_max: 0, ..small() })),
        ("open: memory_budget is too small", with(Options { memory_budget: Some(1 << 20), ..small() })),
        ("open: index_shards is no power of two", with(Options { index_shards: 3, ..small() })),
    ]
}
