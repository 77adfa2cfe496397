//! The names of experiments and cases, which rows and experiments share.

use crate::subjects::SubjectName;

/// Lengths of values, bytes.
pub(super) const VALUE_LENS: [usize; 2] = [100, 500];
/// Lengths of values, bytes, and threads, of the experiments on speed.
pub(super) const SPEEDS: [(usize, u64); 4] = [(100, 1), (100, 2), (500, 1), (500, 2)];

pub(super) const LATENCY: &str = "latency";
pub(super) const SYNCED: &str = "synced";
pub(super) const DUMP: &str = "dump";
pub(super) const RECOVERY: &str = "recovery";
pub(super) const UTILIZATION: &str = "utilization";
pub(super) const LARGE: &str = "ten times the keys";

pub(super) const LOG: &str = SubjectName::Log.label();
pub(super) const WITHOUT_COMPACTION: &str = "kv-log without compaction";
pub(super) const LOG_8: &str = "kv-log, 8 threads";
pub(super) const BARE: &str = "bare loop";
pub(super) const BARE_RESERVED: &str = "bare loop, space only reserved";
pub(super) const AT_80: &str = "kv-log at 80 %";
pub(super) const AT_40: &str = "kv-log at 40 %";

pub(super) fn with_8_threads(subject: SubjectName) -> String {
    format!("{}, 8 threads", subject.label())
}

pub(super) fn beyond(value_len: usize) -> String {
    format!("data 4x the memory budget, {value_len} B")
}

pub(super) fn speed(value_len: usize, threads: u64) -> String {
    format!("speed {value_len} B {threads} thread{}", if threads == 1 { "" } else { "s" })
}

pub(super) fn memory(value_len: usize) -> String {
    format!("memory {value_len} B")
}
