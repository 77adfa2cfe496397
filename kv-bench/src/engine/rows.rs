//! The rows: what is held against what, and how good it must be. Plain data.

use super::plan::{self, contestant};
use crate::subjects::SubjectName;

/// How good a value must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Metric {
    /// Name of an experiment of the plan.
    pub(crate) experiment: String,
    pub(crate) contestant: String,
    /// Name of something that the contestant's run measures.
    pub(crate) name: String,
}

/// What ours is divided by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// Nothing: it is judged itself.
    Nothing,
    /// The best of those that were measured.
    BestOf(Vec<Metric>),
}

/// One target.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) bound: Bound,
    /// What the bound is a bound of, after its number: `x dashmap`.
    pub(crate) of: &'static str,
    pub(crate) ours: Metric,
    pub(crate) against: Against,
}

impl Metric {
    pub(crate) fn new(experiment: &str, contestant: &str, name: &str) -> Self {
        Metric { experiment: experiment.to_owned(), contestant: contestant.to_owned(), name: name.to_owned() }
    }
}

impl Row {
    /// `>= 1.1x dashmap`.
    pub(crate) fn target(&self) -> String {
        let (sign, bound) = match self.bound {
            Bound::AtLeast(bound) => (">=", bound),
            Bound::AtMost(bound) => ("<=", bound),
        };
        // Three decimals at most: the product of a bound and a factor has more.
        format!("{sign} {}{}", (bound * 1e3).round() / 1e3, self.of)
    }

    /// Everything that must be measured to judge it.
    pub(crate) fn metrics(&self) -> Vec<&Metric> {
        match &self.against {
            Against::Nothing => vec![&self.ours],
            Against::BestOf(rivals) => std::iter::once(&self.ours).chain(rivals).collect(),
        }
    }

    /// Why nobody is there to be held against.
    pub(crate) fn missing_rivals(&self) -> String {
        let Against::BestOf(rivals) = &self.against else { return String::new() };
        let names: Vec<&str> = rivals.iter().map(|rival| rival.contestant.as_str()).collect();
        format!("none of {} was run; build with --features peers", names.join(", "))
    }
}

/// A measured row: `ours` and each of `rivals` is a contestant and what its run measures.
fn row(
    name: impl Into<String>,
    bound: Bound,
    of: &'static str,
    experiment: &str,
    ours: (&str, &str),
    rivals: &[(&str, &str)],
) -> Row {
    let metric = |(contestant, name): &(&str, &str)| Metric::new(experiment, contestant, name);
    let against = match rivals {
        [] => Against::Nothing,
        rivals => Against::BestOf(rivals.iter().map(metric).collect()),
    };
    Row { name: name.into(), bound, of, ours: metric(&ours), against }
}

/// Every row, in the order of the table.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (value_len, threads) in plan::SPEEDS {
        rows.extend(speed_rows(value_len, threads));
    }
    for value_len in plan::VALUE_LENS {
        rows.extend(memory_rows(value_len));
    }
    rows.extend(latency_rows());
    rows.extend(disk_rows());
    rows.extend(large_rows());
    for value_len in plan::VALUE_LENS {
        rows.extend(beyond_rows(value_len));
    }
    rows
}

const LOG: &str = SubjectName::Log.label();
const DASHMAP: &str = SubjectName::Dashmap.label();

fn peers(metric: &str) -> Vec<(&'static str, &str)> {
    SubjectName::PEERS.iter().map(|peer| (peer.label(), metric)).collect()
}

/// Compaction keeps up if records, dead ones and headers included, take no more memory than so many times the
/// keys and values that are there. The default policy aims at 1 / 0.75, and headers are a fifth of short records.
const RECORDS_PER_LIVE_MAX: f64 = 2.0;

fn speed_rows(value_len: usize, threads: u64) -> Vec<Row> {
    let experiment = plan::speed_name(value_len, threads);
    let shape = format!("{value_len} B, {threads} thread{}", if threads == 1 { "" } else { "s" });
    let lmdb = SubjectName::Lmdb.label();
    let against = |what: &str, at_least, of, ours: &str, rivals: &[(&str, &str)]| {
        row(format!("{what}, {shape}"), Bound::AtLeast(at_least), of, &experiment, (LOG, ours), rivals)
    };
    let dashmap = "x dashmap";
    vec![
        against("fill", 1.1, dashmap, "fill_per_s", &[(DASHMAP, "fill_per_s")]),
        against("fill", 3.0, "x best peer, no sync", "fill_per_s", &peers("fill_per_s")),
        // Borrowed on both sides.
        against("get uniform", 1.15, dashmap, "read_uniform_per_s", &[(DASHMAP, "read_uniform_per_s")]),
        // A value that can be kept on both sides.
        against("get uniform, kept", 1.15, dashmap, "get_uniform_per_s", &[(DASHMAP, "get_uniform_per_s")]),
        against("get uniform", 2.0, "x LMDB", "read_uniform_per_s", &[(lmdb, "read_uniform_per_s")]),
        against("get zipfian", 1.1, dashmap, "read_zipfian_per_s", &[(DASHMAP, "read_zipfian_per_s")]),
        against("get zipfian, kept", 1.1, dashmap, "get_zipfian_per_s", &[(DASHMAP, "get_zipfian_per_s")]),
        against(
            "get_many(64) uniform",
            2.0,
            "x own get",
            "read_many_uniform_per_s",
            &[(LOG, "read_uniform_per_s")],
        ),
        against("50/50 zipfian", 1.0, dashmap, "mixed_zipfian_per_s", &[(DASHMAP, "mixed_zipfian_per_s")]),
        against(
            "overwrite uniform",
            1.0,
            dashmap,
            "overwrite_uniform_per_s",
            &[(DASHMAP, "overwrite_uniform_per_s")],
        ),
        // What the two before are worth: a store that lets garbage pile up overwrites fast.
        row(
            format!("compaction keeps up: records in memory after the overwrites, {shape}"),
            Bound::AtMost(RECORDS_PER_LIVE_MAX),
            "x live bytes",
            &experiment,
            (LOG, "records_in_memory_per_live"),
            &[],
        ),
    ]
}

fn memory_rows(value_len: usize) -> Vec<Row> {
    let experiment = plan::memory_name(value_len);
    let mut rows = Vec::new();
    for (when, prefix) in [("after filling", "filled"), ("after 5x overwriting", "overwritten")] {
        let name = format!("resident memory {when}, {value_len} B");
        let bytes = format!("{prefix}_bytes");
        rows.push(row(
            name.clone(),
            Bound::AtMost(0.8),
            "x dashmap",
            &experiment,
            (LOG, &bytes),
            &[(DASHMAP, &bytes)],
        ));
        if value_len == 500 {
            let per_live = format!("{prefix}_per_live");
            rows.push(row(name, Bound::AtMost(1.35), "x live bytes", &experiment, (LOG, &per_live), &[]));
        }
    }
    rows
}

fn latency_rows() -> Vec<Row> {
    let row = |what: &str, metric: &str| {
        row(
            format!("p99.9 of {what} under overwrite with compaction"),
            Bound::AtMost(2.0),
            "x without",
            plan::LATENCY,
            (LOG, metric),
            &[(contestant::WITHOUT_COMPACTION, metric)],
        )
    };
    vec![row("put", "put_p999_us"), row("get", "get_p999_us")]
}

fn disk_rows() -> Vec<Row> {
    use contestant::{AT_40, AT_80, BARE, BARE_RESERVED, LOG_8};
    let at_least = Bound::AtLeast;
    let put = "synced_put_per_s";
    let eight: Vec<String> =
        SubjectName::PEERS.iter().map(|peer| contestant::with_8_threads(*peer)).collect();
    let best: Vec<(&str, &str)> = eight.iter().map(|name| (name.as_str(), put)).collect();
    let naive = SubjectName::Naive.label();
    vec![
        row("synced put, 1 thread", at_least(0.9), "x bare loop", plan::SYNCED, (LOG, put), &[(BARE, put)]),
        row(
            "synced put, 1 thread, space only reserved",
            at_least(0.9),
            "x bare loop",
            plan::SYNCED,
            (LOG, put),
            &[(BARE_RESERVED, put)],
        ),
        row("synced puts, 8 threads", at_least(3.0), "x 1 thread", plan::SYNCED, (LOG_8, put), &[(LOG, put)]),
        row("synced puts, 8 threads", at_least(1.0), "x best peer", plan::SYNCED, (LOG_8, put), &best),
        row(
            "dump bandwidth, 4 KiB values",
            at_least(0.7),
            "x bare write+fsync",
            plan::DUMP,
            (LOG, "dump_bytes_per_s"),
            &[(BARE, "dump_bytes_per_s")],
        ),
        row(
            "recovery by replay, warm cache",
            at_least(1.0),
            " GB/s, or 2 M records/s",
            plan::RECOVERY,
            (LOG, "recovery_pace"),
            &[],
        ),
        row(
            "recovery by replay, warm cache",
            at_least(3.0),
            "x kv-naive",
            plan::RECOVERY,
            (LOG, "recovered_records_per_s"),
            &[(naive, "recovered_records_per_s")],
        ),
        row(
            "write amplification, overwrite zipfian at 80 % disk utilization",
            Bound::AtMost(2.0),
            "",
            plan::UTILIZATION,
            (AT_80, "write_amplification"),
            &[],
        ),
        row(
            "throughput, overwrite zipfian at 80 % disk utilization",
            at_least(0.6),
            "x at 40 %",
            plan::UTILIZATION,
            (AT_80, "overwrite_per_s"),
            &[(AT_40, "overwrite_per_s")],
        ),
    ]
}

/// Ten times the keys: the bounds of the same rows, less a quarter.
fn large_rows() -> Vec<Row> {
    let row = |what: &str, bound, metric: &str| {
        let name = format!("ten times the keys, 100 B: {what}");
        row(name, Bound::AtLeast(bound * 0.75), "x dashmap", plan::LARGE, (LOG, metric), &[(DASHMAP, metric)])
    };
    vec![
        row("fill", 1.1, "fill_per_s"),
        row("get uniform", 1.15, "read_uniform_per_s"),
        row("get zipfian", 1.1, "read_zipfian_per_s"),
        row("50/50 zipfian", 1.0, "mixed_zipfian_per_s"),
        row("overwrite uniform", 1.0, "overwrite_uniform_per_s"),
        self::row(
            "ten times the keys, 100 B: index",
            Bound::AtMost(16.0),
            " B a key",
            plan::LARGE,
            (LOG, "index_per_key_bytes"),
            &[],
        ),
    ]
}

fn beyond_rows(value_len: usize) -> Vec<Row> {
    let experiment = plan::beyond_name(value_len);
    let (lmdb, read) = (SubjectName::Lmdb.label(), "read_zipfian_per_s");
    let row = |what: &str, bound, of, ours, rivals: &[(&str, &str)]| {
        let name = format!("data 4x the memory budget, {value_len} B: {what}");
        row(name, bound, of, &experiment, (LOG, ours), rivals)
    };
    vec![
        row("zipfian reads", Bound::AtLeast(0.5), "x LMDB", read, &[(lmdb, read)]),
        row("most resident memory", Bound::AtMost(1.2), "x budget", "peak_per_budget", &[]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn rows_tell_themselves_apart_and_their_targets() {
        let rows = rows();
        let named: HashSet<_> = rows.iter().map(|row| (row.name.clone(), row.target())).collect();
        assert_eq!(named.len(), rows.len());
        let targets: HashSet<String> = rows.iter().map(Row::target).collect();
        for target in
            [">= 1.1x dashmap", "<= 1.35x live bytes", "<= 16 B a key", ">= 1 GB/s, or 2 M records/s"]
        {
            assert!(targets.contains(target), "{target}");
        }
    }
}
