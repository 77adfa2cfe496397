//! Decoding returns the encoded record. Cut anywhere it is torn; with a changed byte it is no
//! record.

#![no_main]

use kv_wal_format::{Decoder, Encoder, Origin, Record, Step, parse_trusted};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, u64, u32, bool, Vec<u8>, Option<Vec<u8>>, usize, u8)| {
    let (segment_id, base_lsn, delta, more, key, value, at, change) = input;
    let origin = Origin { segment_id, base_lsn };
    let lsn = base_lsn.wrapping_add(u64::from(delta >> (delta % 16)));
    let record = match &value {
        Some(value) => Record::put(lsn, &key, value),
        None => Record::delete(lsn, &key),
    };
    let record = if more { record.with_more() } else { record };

    let mut bytes = Vec::new();
    let Ok(len) = Encoder::new(origin).append(&record, &mut bytes) else {
        assert!(key.len() > kv_wal_format::KEY_LEN_MAX);
        return;
    };
    let decoder = Decoder::new(origin);
    assert_eq!(decoder.step(&bytes), Step::Record { record, len });
    assert_eq!(parse_trusted(base_lsn, &bytes), Some(record));

    let at = at % len;
    let cut = decoder.step(&bytes[..at]);
    assert_eq!(cut, if at == 0 { Step::End } else { Step::Torn });
    if change != 0 {
        // One byte is a burst of at most eight bits: the checksums detect every one.
        bytes[at] ^= change;
        assert!(!matches!(decoder.step(&bytes), Step::Record { .. }));
    }
});
