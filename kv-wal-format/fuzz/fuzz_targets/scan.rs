//! A scan of any bytes gives a consistent answer.

#![no_main]

use kv_wal_format::{
    Decoder, Encoder, Scanner, SegmentHeader, StopReason, Tail, judge_tail, parse_trusted, peek,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = (SegmentHeader::decode(bytes), peek(bytes), parse_trusted(bytes), Decoder::new(1).step(bytes));
    // Few inputs have a valid segment header. So scan every input as the records of segment 1, too.
    scan(1, bytes, 0);
    if let Ok((header, _)) = Scanner::open(bytes) {
        scan(header.segment_id, bytes, 40);
    }
});

fn scan(segment_id: u64, bytes: &[u8], start: usize) {
    let mut scanner = Scanner::new(segment_id, bytes, start);
    let mut at = start;
    for (offset, record) in scanner.by_ref() {
        assert_eq!(offset, at);
        let mut again = Vec::new();
        Encoder::new(segment_id).append(&record, &mut again).expect("what was read can be written");
        assert!(bytes[at..].starts_with(&again));
        at += again.len();
    }
    let stop = scanner.stop();
    assert_eq!(stop.offset, at);
    assert!(stop.offset <= stop.fault && stop.fault <= bytes.len());
    match judge_tail(segment_id, bytes, &stop, 0) {
        Tail::Clean => {
            assert!(stop.reason == StopReason::Sealed || bytes[at..].iter().all(|&byte| byte == 0));
        }
        Tail::Torn { offset } => assert_eq!(offset, stop.offset),
        Tail::Corrupt { offset, .. } => assert_eq!(offset, stop.fault),
    }
}
