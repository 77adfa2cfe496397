//! The rows on deaths of the process: losses, the price of the shared memory and of checkpoints,
//! and the time of the next open.

use super::names::{
    self, BARE_DIRECT_READ, BARE_READ, CLOSED, LOG, POLICIES, READ_MEANWHILE, REPLAY, SPEEDS, WITHOUT_TAIL,
};
use crate::subjects::{Policy, SubjectName};
use crate::targets::row::{Bound, Row, row};

/// All of them, of stores with `keys` keys, and of `kills` kills under each policy.
pub(super) fn rows(keys: u64, kills: u64) -> Vec<Row> {
    let mut rows: Vec<Row> = POLICIES.into_iter().map(|policy| kill_row(policy, kills)).collect();
    rows.extend(SPEEDS.into_iter().flat_map(|(value_len, threads)| tail_rows(value_len, threads)));
    rows.extend(opening_rows(10 * keys));
    rows.extend(checkpoint_rows(10 * keys));
    rows.extend(replay_rows(keys));
    rows
}

fn kill_row(policy: Policy, kills: u64) -> Row {
    let name = format!("keys that lost a change to kill -9, dumps: {}, {kills} kills", policy.label());
    row(name, Bound::AtMost(0.0), "", &names::kill(policy), (LOG, "keys_with_loss"), &[])
}

fn tail_rows(value_len: usize, threads: u64) -> [Row; 2] {
    let experiment = names::tail(value_len, threads);
    let row = |what: &str, bound, metric: &str| {
        let name = format!("tail in shared memory, {what}, {}", names::shape(value_len, threads));
        row(name, bound, "x without", &experiment, (LOG, metric), &[(WITHOUT_TAIL, metric)])
    };
    [row("put", Bound::AtLeast(0.95), "put_per_s"), row("p99.9 of put", Bound::AtMost(1.1), "put_p999_us")]
}

fn opening_rows(keys: u64) -> Vec<Row> {
    let keys = names::keys_label(keys);
    let row = |what: &str, bound, of, ours, others: &[(&str, &str)]| {
        row(format!("{what}, {keys} keys of 100 B"), bound, of, names::OPENING, ours, others)
    };
    let (first, warm_up, bare) = ("first_read_ms", "warm_up_bytes_per_s", "read_bytes_per_s");
    let killed = "first read after a kill, from a checkpoint";
    vec![
        row(killed, Bound::AtMost(250.0), " ms", (LOG, first), &[]),
        row(
            "first read after a replay of everything",
            Bound::AtLeast(10.0),
            "x from a checkpoint",
            (REPLAY, first),
            &[(LOG, first)],
        ),
        row("first read after a close", Bound::AtMost(200.0), " ms", (CLOSED, first), &[]),
        row(
            "reads during the warm-up",
            Bound::AtLeast(0.3),
            "x warm",
            (READ_MEANWHILE, "read_meanwhile_per_s"),
            &[(READ_MEANWHILE, "read_warm_per_s")],
        ),
        row(
            "warm-up",
            Bound::AtLeast(0.8),
            "x bare read",
            (LOG, warm_up),
            &[(BARE_READ, bare), (BARE_DIRECT_READ, bare)],
        ),
        row("checkpoint", Bound::AtMost(16.0), " B a key", (LOG, "checkpoint_per_key_bytes"), &[]),
    ]
}

fn checkpoint_rows(keys: u64) -> Vec<Row> {
    let keys = names::keys_label(keys);
    let row = |what: &str, bound, of, ours: &str, others: &[(&str, &str)]| {
        let name = format!("while a checkpoint is written: {what}, {keys} keys of 100 B");
        row(name, bound, of, names::CHECKPOINT, (LOG, ours), others)
    };
    let (rate, p999) = ((LOG, "put_alone_per_s"), (LOG, "put_alone_p999_us"));
    vec![
        row("put", Bound::AtLeast(0.9), "x otherwise", "put_meanwhile_per_s", &[rate]),
        row("p99.9 of put", Bound::AtMost(2.0), "x otherwise", "put_meanwhile_p999_us", &[p999]),
        row("more resident memory", Bound::AtMost(0.05), "x before", "more_memory_share", &[]),
    ]
}

fn replay_rows(keys: u64) -> [Row; 2] {
    let name = format!("replay without checkpoint, warm cache, {} keys of 100 B", names::keys_label(keys));
    let (pace, records) = ((LOG, "recovery_pace"), "recovered_records_per_s");
    let naive = (SubjectName::Naive.label(), records);
    let row = |bound, of, ours, others: &[_]| {
        row(name.clone(), Bound::AtLeast(bound), of, names::RECOVERY, ours, others)
    };
    [row(1.0, " GB/s, or 2 M records/s", pace, &[]), row(3.0, "x kv-naive", (LOG, records), &[naive])]
}
