use super::damage_json;
use crate::colour::Colours;
use crate::progress::{Meter, bytes_text};
use crate::text::Text;
use kv_core::{Env, Result};
use kv_log::inspect::{self, Repair, StaleKey};
use serde_json::json;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;

/// Repairs the store in `src` into `dst`, unless `is_stopped` says to stop. Returns the report.
pub(crate) fn repair(
    src: &Path,
    dst: &Path,
    text: Text,
    as_json: bool,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<String> {
    let meter = Meter::of_bytes("repairing");
    let report = inspect::repair(&Env::os(), src, dst, &|progress| {
        meter.at(progress);
        if is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    drop(meter);
    Ok(if as_json { as_object(&report, text) } else { as_text(&report, src, dst, text) })
}

fn as_text(report: &Repair, src: &Path, dst: &Path, text: Text) -> String {
    let colours = Colours::of_output();
    let mut answer = String::new();
    for damage in &report.damages {
        let _ = writeln!(answer, "{} {}", colours.bad("damaged:"), damage);
    }
    for (path, reason) in &report.set_aside {
        let _ = writeln!(answer, "set aside: {}: {reason}", path.display());
    }
    for StaleKey { key, lost_lsn, now, is_certain, .. } in &report.stale {
        let now = match now {
            Some(lsn) => format!("it has its value of LSN {lsn}"),
            None => "it is absent".to_owned(),
        };
        let certainty = if *is_certain { "" } else { "perhaps " };
        let _ = writeln!(
            answer,
            "older: {certainty}key {}: its change of LSN {lost_lsn} is lost, and {now}",
            text.escape(key)
        );
    }
    if let Some(max) = report.unnamed_lsn_max {
        let limit = if max.get() == u64::MAX {
            "any key may have lost its newest change".to_owned()
        } else {
            format!("a key whose newest change had an LSN up to {max} may have lost it")
        };
        let _ = writeln!(
            answer,
            "older: {limit}; of the keys in {}, this may be {} of {}",
            dst.display(),
            report.may_be_older,
            report.keys
        );
    }
    if report.deleted_may_be_back {
        answer += "older: keys that were deleted may be back, because the manifest could not tell which segments count\n";
    }
    let (keys, bytes) = (report.keys, bytes_text(report.bytes));
    let _ = writeln!(
        answer,
        "{}: {} keys saved from {}, {bytes}, newest LSN {}",
        dst.display(),
        keys,
        src.display(),
        report.last_lsn
    );
    answer
}

fn as_object(report: &Repair, text: Text) -> String {
    let stale: Vec<_> = report
        .stale
        .iter()
        .map(|stale| {
            json!({
                "key": text.escape(&stale.key),
                "lost_lsn": stale.lost_lsn,
                "now_lsn": stale.now,
                "certain": stale.is_certain,
            })
        })
        .collect();
    let set_aside: Vec<_> = report
        .set_aside
        .iter()
        .map(|(path, reason)| json!({ "file": path.to_string_lossy(), "reason": reason }))
        .collect();
    let object = json!({
        "keys": report.keys,
        "bytes": report.bytes,
        "last_lsn": report.last_lsn.get(),
        "damages": report.damages.iter().map(|damage| damage_json(damage, text)).collect::<Vec<_>>(),
        "set_aside": set_aside,
        "deleted_may_be_back": report.deleted_may_be_back,
        "older": stale,
        "unnamed_lsn_max": report.unnamed_lsn_max.map(kv_core::Lsn::get),
        "may_be_older": report.may_be_older,
    });
    format!("{object}\n")
}
