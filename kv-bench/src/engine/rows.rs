//! The rows of `kv-bench engine`. Plain data.

use super::names::{
    self, AT_40, AT_80, BARE, BARE_RESERVED, LOG, LOG_8, UNDER_CEILING, WITHOUT_CEILING, WITHOUT_COMPACTION,
};
use super::recovery_rows;
use crate::subjects::SubjectName;
use crate::targets::row::{Bound, Row, row};

/// Every row of stores with `keys` keys, and of `kills` kills, in the order of the table.
pub(crate) fn rows(keys: u64, kills: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for (value_len, threads) in names::SPEEDS {
        rows.extend(speed_rows(value_len, threads));
    }
    for keys in names::SIZES.map(|share| keys / share).into_iter().filter(|size| *size < keys) {
        for value_len in names::VALUE_LENS {
            rows.extend(small_rows(value_len, keys));
        }
    }
    rows.extend(empty_rows());
    for keys in names::SIZES.map(|share| keys / share) {
        for value_len in names::VALUE_LENS {
            rows.extend(memory_rows(value_len, keys));
        }
    }
    rows.extend(latency_rows());
    rows.extend(open_load_rows());
    rows.push(ceiling_row());
    rows.extend(disk_rows());
    rows.extend(recovery_rows::rows(keys, kills));
    rows.extend(large_rows());
    for value_len in names::VALUE_LENS {
        rows.extend(beyond_rows(value_len));
    }
    rows
}

const DASHMAP: &str = SubjectName::Dashmap.label();

fn foreign(metric: &str) -> Vec<(&'static str, &str)> {
    SubjectName::FOREIGN.iter().map(|foreign| (foreign.label(), metric)).collect()
}

/// Compaction keeps up if all records, with headers and dead ones, take at most this many times the
/// memory of the live keys and values. The default policy aims at 1 / 0.75, and headers are a fifth
/// of short records.
const RECORDS_PER_LIVE_MAX: f64 = 2.0;

fn speed_rows(value_len: usize, threads: u64) -> Vec<Row> {
    let experiment = names::speed(value_len, threads);
    let shape = names::shape(value_len, threads);
    let row = |name: &str, bound, of, ours: &str, others: &[(&str, &str)]| {
        row(format!("{name}, {shape}"), bound, of, &experiment, (LOG, ours), others)
    };
    let to_dashmap = |name: &str, at_least, metric: &str| {
        row(name, Bound::AtLeast(at_least), "x dashmap", metric, &[(DASHMAP, metric)])
    };
    let (fill, read, read_many) = ("fill_per_s", "read_uniform_per_s", "read_many_uniform_per_s");
    let lmdb = SubjectName::Lmdb.label();
    let records = "compaction keeps up: records in memory after the overwrites";
    let at_most = Bound::AtMost(RECORDS_PER_LIVE_MAX);
    let mut rows = vec![
        to_dashmap("fill", 1.1, fill),
        row("fill", Bound::AtLeast(3.0), "x best peer, no sync", fill, &foreign(fill)),
        // Borrowed on both sides.
        to_dashmap("get uniform", 1.15, read),
        // Kept on both sides.
        to_dashmap("get uniform, kept", 1.15, "get_uniform_per_s"),
        row("get uniform", Bound::AtLeast(2.0), "x LMDB", read, &[(lmdb, read)]),
        to_dashmap("get zipfian", 1.1, "read_zipfian_per_s"),
        to_dashmap("get zipfian, kept", 1.1, "get_zipfian_per_s"),
        to_dashmap("get of an absent key", 1.0, "read_absent_per_s"),
        row("get_many(64) uniform", Bound::AtLeast(2.0), "x own get", read_many, &[(LOG, read)]),
        to_dashmap("50/50 zipfian", 1.0, "mixed_zipfian_per_s"),
        to_dashmap("overwrite uniform", 1.0, "overwrite_uniform_per_s"),
        // Qualifies the two rows before: a store that accumulates garbage overwrites fast.
        row(records, at_most, "x live bytes", "records_in_memory_per_live", &[]),
    ];
    if (value_len, threads) == names::SPEEDS[0] {
        let per_key = "read_many_uniform_per_key_ns";
        rows.push(row("get_many(64) uniform", Bound::AtMost(30.0), " ns a key", per_key, &[]));
    }
    rows
}

/// Stores of a few MB, which an application overwrites many times over.
fn small_rows(value_len: usize, keys: u64) -> Vec<Row> {
    let experiment = names::small(value_len, keys);
    let writes = if value_len == 100 { 1.0 } else { 0.8 };
    let row = |name: &str, bound, metric: &str| {
        let name = format!("{name}, {value_len} B, {} keys", names::keys_label(keys));
        row(name, Bound::AtLeast(bound), "x dashmap", &experiment, (LOG, metric), &[(DASHMAP, metric)])
    };
    vec![
        row("fill", 1.0, "fill_per_s"),
        row("get uniform", 1.0, "read_uniform_per_s"),
        row("get of an absent key", 1.0, "read_absent_per_s"),
        row("50/50 zipfian", writes, "mixed_zipfian_per_s"),
        row("overwrite uniform", writes, "overwrite_uniform_per_s"),
    ]
}

fn empty_rows() -> Vec<Row> {
    let row = |what: &str, bound, of, metric: &str| {
        let name = format!("an open, empty store: {what}");
        row(name, Bound::AtMost(bound), of, names::EMPTY, (LOG, metric), &[])
    };
    vec![row("resident memory", 2.0, " MiB", "memory_mib"), row("disk", 256.0, " KiB", "disk_kib")]
}

fn memory_rows(value_len: usize, keys: u64) -> Vec<Row> {
    let experiment = names::memory(value_len, keys);
    let row = |what: &str, bound, of, metric: &str, others: &[(&str, &str)]| {
        let name = format!("{what}, {value_len} B, {} keys", names::keys_label(keys));
        row(name, Bound::AtMost(bound), of, &experiment, (LOG, metric), others)
    };
    let at_rest = if value_len == 100 { 1.35 } else { 1.15 };
    let mut rows = Vec::new();
    for (when, prefix) in [("after filling", "filled"), ("at rest after overwriting", "overwritten")] {
        let name = format!("resident memory {when}");
        let [bytes, per_live] = ["bytes", "less_constant_per_live"].map(|unit| format!("{prefix}_{unit}"));
        rows.push(row(&name, at_rest, "x live + 2 MiB", &per_live, &[]));
        rows.push(row(&name, 1.0, "x dashmap", &bytes, &[(DASHMAP, &bytes)]));
    }
    let peak = "most resident memory while overwriting";
    rows.push(row(peak, 1.6, "x live + 16 MiB", "peak_less_constant_per_live", &[]));
    let disk = "disk at rest ten seconds after overwriting";
    rows.push(row(disk, 1.4, "x live bytes", "disk_per_live", &[]));
    rows
}

fn latency_rows() -> Vec<Row> {
    let row = |what: &str, metric: &str| {
        row(
            format!("p99.9 of {what} under overwrite with compaction"),
            Bound::AtMost(2.0),
            "x without",
            names::LATENCY,
            (LOG, metric),
            &[(WITHOUT_COMPACTION, metric)],
        )
    };
    let mut rows = vec![row("put", "put_p999_us"), row("get", "get_p999_us")];
    let row = |what: &str, bound, of, metric: &str, others: &[(&str, &str)]| {
        let name = format!("{what} of put while filling");
        self::row(name, Bound::AtMost(bound), of, names::FILL_LATENCY, (LOG, metric), others)
    };
    let p999 = "put_p999_us";
    rows.push(row("p99.9", 2.0, "x dashmap", p999, &[(DASHMAP, p999)]));
    rows.push(row("p99.99", 100.0, " us", "put_p9999_us", &[]));
    rows.push(row("longest", 5.0, " ms", "put_max_ms", &[]));
    rows
}

/// Operations are due at fixed times. Each subject gets a share of its own highest rate.
fn open_load_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for load in names::LOADS {
        for (what, metric) in
            [("p99.9 of put", "put_p999_us"), ("longest put", "put_max_us"), ("p99.9 of get", "get_p999_us")]
        {
            rows.push(row(
                format!("open load, {load} %: {what}"),
                Bound::Reported,
                " (x dashmap)",
                &names::open_load(load),
                (LOG, metric),
                &[(DASHMAP, metric)],
            ));
        }
    }
    rows
}

fn ceiling_row() -> Row {
    let rate = "overwrite_per_s";
    row(
        "steady overwrite with a ceiling that lets 80 % of memory be live",
        Bound::AtLeast(0.6),
        "x without ceiling",
        names::CEILING,
        (UNDER_CEILING, rate),
        &[(WITHOUT_CEILING, rate)],
    )
}

fn disk_rows() -> Vec<Row> {
    let at_least = |name: &str, bound, of, experiment, ours, others: &[(&str, &str)]| {
        row(name, Bound::AtLeast(bound), of, experiment, ours, others)
    };
    let synced = |name: &str, bound, of, subject, others: &[&str]| {
        let put = |subject| (subject, "synced_put_per_s");
        let others: Vec<_> = others.iter().copied().map(put).collect();
        row(name, Bound::AtLeast(bound), of, names::SYNCED, put(subject), &others)
    };
    let foreign_8 = SubjectName::FOREIGN.map(names::with_8_threads);
    let foreign_8 = foreign_8.each_ref().map(String::as_str);
    let dump = "dump_bytes_per_s";
    let (amplification, overwrite) = ("write_amplification", "overwrite_per_s");
    let zipfian = |what: &str| format!("{what}, overwrite zipfian at 80 % disk utilization");
    vec![
        synced("synced put, 1 thread", 0.9, "x bare loop", LOG, &[BARE]),
        synced("synced put, 1 thread, space only reserved", 0.9, "x bare loop", LOG, &[BARE_RESERVED]),
        synced("synced puts, 8 threads", 3.0, "x 1 thread", LOG_8, &[LOG]),
        synced("synced puts, 8 threads", 1.0, "x best peer", LOG_8, &foreign_8),
        at_least(
            "dump bandwidth, 4 KiB values",
            0.7,
            "x bare write+fsync",
            names::DUMP,
            (LOG, dump),
            &[(BARE, dump)],
        ),
        row(
            zipfian("write amplification"),
            Bound::AtMost(2.2),
            "",
            names::UTILIZATION,
            (AT_80, amplification),
            &[],
        ),
        at_least(
            &zipfian("throughput"),
            0.6,
            "x at 40 %",
            names::UTILIZATION,
            (AT_80, overwrite),
            &[(AT_40, overwrite)],
        ),
    ]
}

/// The same rows with ten times the keys; the bounds of speed are a quarter lower, except that of
/// absent keys.
fn large_rows() -> Vec<Row> {
    let row = |what: &str, bound, metric: &str| {
        let name = format!("ten times the keys, 100 B: {what}");
        row(
            name,
            Bound::AtLeast(bound * 0.75),
            "x dashmap",
            names::LARGE,
            (LOG, metric),
            &[(DASHMAP, metric)],
        )
    };
    vec![
        row("fill", 1.1, "fill_per_s"),
        row("get uniform", 1.15, "read_uniform_per_s"),
        row("get zipfian", 1.1, "read_zipfian_per_s"),
        row("50/50 zipfian", 1.0, "mixed_zipfian_per_s"),
        row("overwrite uniform", 1.0, "overwrite_uniform_per_s"),
        self::row(
            "ten times the keys, 100 B: get of an absent key",
            Bound::AtLeast(1.0),
            "x dashmap",
            names::LARGE,
            (LOG, "read_absent_per_s"),
            &[(DASHMAP, "read_absent_per_s")],
        ),
        self::row(
            "ten times the keys, 100 B: index",
            Bound::AtMost(16.0),
            " B a key",
            names::LARGE,
            (LOG, "index_per_key_bytes"),
            &[],
        ),
    ]
}

fn beyond_rows(value_len: usize) -> Vec<Row> {
    let experiment = names::beyond(value_len);
    let (lmdb, read) = (SubjectName::Lmdb.label(), "read_zipfian_per_s");
    let row = |what: &str, bound, of, ours, others: &[(&str, &str)]| {
        let name = format!("data 4x the memory budget, {value_len} B: {what}");
        row(name, bound, of, &experiment, (LOG, ours), others)
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
        let rows = rows(1_000_000, 300);
        let named: HashSet<_> = rows.iter().map(|row| (row.name.clone(), row.target())).collect();
        assert_eq!(named.len(), rows.len());
        let targets: HashSet<String> = rows.iter().map(Row::target).collect();
        for target in [
            ">= 1.1x dashmap",
            "<= 1.35x live + 2 MiB",
            "<= 16 B a key",
            ">= 1 GB/s, or 2 M records/s",
            "none (x dashmap)",
        ] {
            assert!(targets.contains(target), "{target}");
        }
    }
}
