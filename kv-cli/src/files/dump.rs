use super::damage_text;
use crate::failure::Failure;
use crate::progress::Meter;
use crate::text::Text;
use kv_core::{Env, SegmentId};
use kv_log::inspect::{self, Part};
use kv_wal_format::{Mark, Record, Seal};
use std::io::Write;
use std::ops::{ControlFlow, RangeInclusive};
use std::path::Path;

/// Writes a line for each record of the store in `dir`: of one segment, or of changes with some
/// LSNs.
pub(crate) fn dump(
    dir: &Path,
    segment: Option<u64>,
    lsns: Option<&RangeInclusive<u64>>,
    text: Text,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let meter = Meter::of_answer("read", "records");
    let mut written = Ok(());
    let dumped = inspect::dump(&Env::os(), dir, segment.map(SegmentId::new), &mut |part| {
        meter.add_one();
        written = match part {
            Part::Record { record, .. }
                if lsns.is_some_and(|lsns| !record.kind.is_change() || !lsns.contains(&record.lsn)) =>
            {
                Ok(())
            }
            Part::Record { segment, offset, record } => {
                writeln!(out, "{:016x}\t{offset}\t{}", segment.get(), record_text(&record, text))
            }
            Part::Damage(damage) => writeln!(out, "# {}", damage_text(damage, text).replace('\n', "\n# ")),
            _ => Ok(()),
        };
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    dumped.map_err(Failure::of_arguments)?;
    written.and_then(|()| out.flush()).map_err(Failure::Output)
}

/// LSN, kind, key and value, separated by tabs.
pub(super) fn record_text(record: &Record<'_>, text: Text) -> String {
    let Record { kind, more, lsn, key, value } = record;
    let more = if *more { "+" } else { "" };
    let value = match (Mark::from_record(record), Seal::from_record(record)) {
        (Some(Mark { durable_lsn, unix_time_ms }), _) => {
            format!("durable_lsn={durable_lsn} unix_time_ms={unix_time_ms}")
        }
        (_, Some(Seal { records, max_lsn })) => format!("records={records} max_lsn={max_lsn}"),
        _ => text.escape(value),
    };
    format!("{lsn}\t{kind}{more}\t{}\t{value}", text.escape(key))
}
