//! The names of experiments and cases, which rows and experiments share.

use crate::subjects::{Policy, SubjectName};

/// Lengths of values, bytes.
pub(super) const VALUE_LENS: [usize; 2] = [100, 500];
/// Stores have this share of the keys that the options name: 10k, 100k and 1M keys by default.
pub(super) const SIZES: [u64; 3] = [100, 10, 1];
/// Shares of the highest rate at which operations are due, per cent.
pub(super) const LOADS: [u64; 2] = [50, 80];
/// The policies under which writers are killed.
pub(super) const POLICIES: [Policy; 5] =
    [Policy::Manual, Policy::Default, Policy::Periodic(10), Policy::MaxLogSize(1 << 20), Policy::Always];
/// Lengths of values, bytes, and threads, of the experiments on speed.
pub(super) const SPEEDS: [(usize, u64); 4] = [(100, 1), (100, 2), (500, 1), (500, 2)];

pub(super) const EMPTY: &str = "empty store";
pub(super) const FILL_LATENCY: &str = "latency of a fill";
pub(super) const CEILING: &str = "ceiling";
pub(super) const LATENCY: &str = "latency";
pub(super) const SYNCED: &str = "synced";
pub(super) const DUMP: &str = "dump";
pub(super) const RECOVERY: &str = "recovery";
pub(super) const UTILIZATION: &str = "utilization";
pub(super) const OPENING: &str = "open from a cold disk";
pub(super) const CHECKPOINT: &str = "checkpoint while keys are overwritten";
pub(super) const LARGE: &str = "ten times the keys";

pub(super) const LOG: &str = SubjectName::Log.label();
pub(super) const WITHOUT_COMPACTION: &str = "kv-log without compaction";
pub(super) const LOG_8: &str = "kv-log, 8 threads";
pub(super) const BARE: &str = "bare loop";
pub(super) const BARE_RESERVED: &str = "bare loop, space only reserved";
pub(super) const WITHOUT_TAIL: &str = "kv-log without a tail";
pub(super) const REPLAY: &str = "kv-log, replay of everything";
pub(super) const CLOSED: &str = "kv-log, closed";
pub(super) const READ_MEANWHILE: &str = "kv-log, read during the warm-up";
pub(super) const BARE_READ: &str = "bare loop, cached";
pub(super) const BARE_DIRECT_READ: &str = "bare loop, direct";
pub(super) const UNDER_CEILING: &str = "kv-log, 80 % of memory live";
pub(super) const WITHOUT_CEILING: &str = "kv-log without ceiling";
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

pub(super) fn small(value_len: usize, keys: u64) -> String {
    format!("speed {value_len} B, {} keys", keys_label(keys))
}

pub(super) fn memory(value_len: usize, keys: u64) -> String {
    format!("memory {value_len} B, {} keys", keys_label(keys))
}

pub(super) fn tail(value_len: usize, threads: u64) -> String {
    format!("tail, {}", shape(value_len, threads))
}

pub(super) fn kill(policy: Policy) -> String {
    format!("kill -9, {}", policy.label())
}

/// `100 B, 2 threads`.
pub(super) fn shape(value_len: usize, threads: u64) -> String {
    format!("{value_len} B, {threads} thread{}", if threads == 1 { "" } else { "s" })
}

pub(super) fn open_load(per_cent: u64) -> String {
    format!("open load, {per_cent} % of the highest rate")
}

/// `10k`, `1M`.
pub(super) fn keys_label(keys: u64) -> String {
    match keys {
        keys if keys.is_multiple_of(1_000_000) => format!("{}M", keys / 1_000_000),
        keys if keys.is_multiple_of(1_000) => format!("{}k", keys / 1_000),
        keys => keys.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_keys_are_short() {
        assert_eq!([10_000, 1_000_000, 1_500_000, 1234].map(keys_label), ["10k", "1M", "1500k", "1234"]);
    }
}
