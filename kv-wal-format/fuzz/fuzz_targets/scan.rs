//! A scan of any bytes gives a consistent answer.

#![no_main]

use kv_wal_format::{
    Decoder, Encoder, Origin, Scanner, SegmentHeader, StopReason, Tail, judge_tail, parse_trusted, peek,
};
use libfuzzer_sys::fuzz_target;

const ORIGIN: Origin = Origin { segment_id: 1, base_lsn: 0 };

fuzz_target!(|bytes: &[u8]| {
    let _ = (SegmentHeader::decode(bytes), peek(bytes), parse_trusted(1, bytes), Decoder::new(ORIGIN).step(bytes));
    // Few inputs have a valid segment header. So scan every input as the records of segment 1, too.
    scan(ORIGIN, bytes, 0);
    if let Ok((header, _)) = Scanner::open(bytes) {
        scan(header.origin(), bytes, 40);
    }
});

fn scan(origin: Origin, bytes: &[u8], start: usize) {
    let mut scanner = Scanner::new(origin, bytes, start);
    let mut at = start;
    for (range, record) in scanner.by_ref() {
        assert_eq!(range.start, at);
        let mut again = Vec::new();
        Encoder::new(origin).append(&record, &mut again).expect("what was read can be written");
        assert!(bytes[at..].starts_with(&again));
        assert_eq!(again.len(), range.len());
        at = range.end;
    }
    let stop = scanner.stop();
    assert_eq!(stop.offset, at);
    assert!(stop.offset <= stop.fault && stop.fault <= bytes.len());
    match judge_tail(origin, bytes, &stop, 0) {
        Tail::Clean => {
            assert!(stop.reason == StopReason::Sealed || bytes[at..].iter().all(|&byte| byte == 0));
        }
        Tail::Torn { offset } => assert_eq!(offset, stop.offset),
        Tail::Corrupt { offset, .. } => assert_eq!(offset, stop.fault),
    }
}
