use super::dump::record_text;
use crate::failure::Failure;
use crate::progress::Meter;
use crate::text::Text;
use kv_core::{Env, Lsn};
use kv_log::inspect::{Followed, Follower};
use kv_wal_format::{Record, RecordKind};
use serde_json::json;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The time between two looks at the files.
const PAUSE: Duration = Duration::from_millis(50);

/// How a change is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) text: Text,
    pub(crate) as_json: bool,
}

impl Form {
    fn line(self, record: &Record<'_>) -> String {
        let Form { text, as_json } = self;
        if !as_json {
            return record_text(record, text);
        }
        let Record { kind, more, lsn, key, value } = record;
        // A delete has no value.
        let value = (*kind == RecordKind::Put).then(|| text.as_json(value));
        json!({
            "lsn": lsn,
            "kind": kind.to_string(),
            "more": more,
            "key": text.as_json(key),
            "value": value,
        })
        .to_string()
    }
}

/// Writes a line for each change of the store in `dir` as it reaches the files, from the LSN `from`
/// on, or from now. Ends when `is_over` says so, and without `follow` after one look. Notes go to
/// `err`.
///
/// # Errors
/// Without `follow`, also if a segment is damaged: the answer is not complete.
pub(crate) fn tail(
    dir: &Path,
    from: Option<u64>,
    follow: bool,
    form: Form,
    is_over: &dyn Fn() -> bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), Failure> {
    let from = from.or(if follow { None } else { Some(0) });
    let mut follower = Follower::open(&Env::os(), dir, from.map(Lsn::new)).map_err(Failure::of_arguments)?;
    let meter = if follow { Meter::hidden() } else { Meter::of_answer("printed", "changes") };
    let mut damages = 0;
    loop {
        let mut written: io::Result<()> = Ok(());
        let mut visit = |followed: Followed<'_>| {
            written = match followed {
                Followed::Change(record) => {
                    meter.add_one();
                    writeln!(out, "{}", form.line(&record))
                }
                Followed::Gap { first, last } => out.flush().and_then(|()| {
                    let (first, last) = (first.get(), last.get());
                    let lsns = if first == last {
                        format!("LSN {first}")
                    } else {
                        format!("LSNs {first} to {last}")
                    };
                    let reason = "in no segment of the log: compacted, damaged, or skipped after a crash";
                    meter.beside(|| writeln!(err, "kv: {lsns}: {reason}"))
                }),
                Followed::Damage { path, offset, detail } => out.flush().and_then(|()| {
                    damages += 1;
                    let path = path.display();
                    let note =
                        format!("{path} is damaged at offset {offset}: {detail}; the rest is left out");
                    meter.beside(|| writeln!(err, "kv: {note}"))
                }),
                _ => Ok(()),
            };
            if written.is_ok() && !is_over() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        follower.poll(&mut visit).map_err(Failure::Store)?;
        written.and_then(|()| out.flush()).map_err(Failure::Output)?;
        if !follow && damages > 0 {
            return Err(Failure::damaged_log(dir, damages));
        }
        if !follow || is_over() {
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}
