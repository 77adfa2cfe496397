//! Builds a log in memory, reads it back, and shows the effects of a crash and of a damaged byte.
//!
//! `cargo run -p kv-wal-format --example build_and_read`

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use kv_wal_format::{
    Encoder, Mark, Record, SEGMENT_HEADER_LEN, SMALL_HEADER_LEN, Scanner, SegmentHeader, SegmentKind,
    judge_tail,
};

const SEGMENT_ID: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let segment = build()?;
    println!("{} bytes", segment.len());
    read("as written", &segment)?;

    let torn = segment.get(..segment.len() - 5).unwrap_or_default();
    read("cut short by a crash", torn)?;

    let mut damaged = segment.clone();
    if let Some(byte) = damaged.get_mut(SEGMENT_HEADER_LEN + SMALL_HEADER_LEN) {
        *byte ^= 1;
    }
    read("with a damaged bit", &damaged)
}

fn build() -> Result<Vec<u8>, Box<dyn Error>> {
    let header = SegmentHeader { kind: SegmentKind::Log, segment_id: SEGMENT_ID, base_lsn: 0, store_id: 0 };
    let encoder = Encoder::new(header.origin());
    let mut segment = header.encode().to_vec();
    encoder.append(&Record::put(1, b"apple", b"red"), &mut segment)?;
    encoder.append(&Record::put(2, b"plum", b"blue"), &mut segment)?;

    // Here a store syncs the file. The mark tells recovery so after a crash.
    let mark = Mark { durable_lsn: 2, unix_time_ms: 1_700_000_000_000 }.encode_body();
    encoder.append(&Record::mark(2, &mark), &mut segment)?;

    // A batch has one LSN, and MORE on all records but the last.
    encoder.append(&Record::put(3, b"pear", b"green").with_more(), &mut segment)?;
    encoder.append(&Record::delete(3, b"plum"), &mut segment)?;
    Ok(segment)
}

fn read(title: &str, segment: &[u8]) -> Result<(), Box<dyn Error>> {
    println!("\n{title}:");
    let (header, mut scanner) = Scanner::open(segment)?;
    for (range, record) in scanner.by_ref() {
        let offset = range.start;
        print!("  {offset:>4}  LSN {}  {}", record.lsn, record.kind);
        match Mark::from_record(&record) {
            Some(mark) => println!("  durable up to LSN {}", mark.durable_lsn),
            None => println!("  {}", String::from_utf8_lossy(record.key)),
        }
    }
    let stop = scanner.stop();
    println!("  {:?} at offset {}", stop.reason, stop.fault);
    println!("  {:?}", judge_tail(header.origin(), segment, &stop, header.base_lsn));
    Ok(())
}
