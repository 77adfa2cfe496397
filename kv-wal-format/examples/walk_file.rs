//! Prints the header and every record of a segment file. Without an argument it writes one first.
//!
//! `cargo run -p kv-wal-format --example walk_file -- [FILE]`

#![allow(clippy::print_stdout, reason = "an example prints")]
#![allow(clippy::disallowed_methods, reason = "reads a file given by name, not a store")]

use std::error::Error;
use std::io::Write;
use std::path::Path;

use kv_wal_format::{Encoder, Mark, Record, Scanner, Seal, SegmentHeader, SegmentKind, judge_tail};

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(path) = std::env::args_os().nth(1) {
        return walk(Path::new(&path));
    }
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(&sample()?)?;
    walk(file.path())
}

fn walk(path: &Path) -> Result<(), Box<dyn Error>> {
    let segment = std::fs::read(path)?;
    let (header, mut scanner) = Scanner::open(&segment)?;
    println!("{}: {} bytes", path.display(), segment.len());
    println!("{} segment {}, base LSN {}", header.kind, header.segment_id, header.base_lsn);
    for (range, record) in scanner.by_ref() {
        println!(
            "{:>10}  {:>5} bytes  LSN {:<6} {}",
            range.start,
            range.len(),
            record.lsn,
            describe(&record)
        );
    }
    let stop = scanner.stop();
    println!("{:>10}  {:?}", stop.fault, stop.reason);
    println!("{:?}", judge_tail(header.origin(), &segment, &stop, header.base_lsn));
    Ok(())
}

fn describe(record: &Record<'_>) -> String {
    if let Some(mark) = Mark::from_record(record) {
        return format!("mark: durable up to LSN {} at {} ms", mark.durable_lsn, mark.unix_time_ms);
    }
    if let Some(seal) = Seal::from_record(record) {
        return format!("seal: {} records, highest LSN {}", seal.records, seal.max_lsn);
    }
    let more = if record.more { " (batch goes on)" } else { "" };
    format!("{} {} = {} bytes{more}", record.kind, record.key.escape_ascii(), record.value.len())
}

fn sample() -> Result<Vec<u8>, Box<dyn Error>> {
    let header = SegmentHeader { kind: SegmentKind::Log, segment_id: 1, base_lsn: 0, store_id: 0 };
    let encoder = Encoder::new(header.origin());
    let mut segment = header.encode().to_vec();
    encoder.append(&Record::put(1, b"apple", b"red").with_more(), &mut segment)?;
    encoder.append(&Record::delete(1, b"plum"), &mut segment)?;
    let mark = Mark { durable_lsn: 1, unix_time_ms: 1_700_000_000_000 }.encode_body();
    encoder.append(&Record::mark(1, &mark), &mut segment)?;
    let seal = Seal { records: 2, max_lsn: 1 }.encode_body();
    encoder.append(&Record::seal(1, &seal), &mut segment)?;
    Ok(segment)
}
