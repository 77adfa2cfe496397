//! The rows of `kv-bench moments`. Plain data.

use super::names::{self, LOG, WITH_WINDOW};
use super::plan::LARGE;
use crate::targets::row::{Against, Bound, Metric, Row, row};
use crate::units::count;

/// Every row of stores with `keys` keys, in the order of the table.
pub(super) fn rows(keys: u64) -> Vec<Row> {
    let (few, many) = (count(keys), count(LARGE * keys));
    let overwrite =
        |what: &str| format!("{what} with a window of one hour, overwrite zipfian, {few} keys of 100 B");
    let (rate, amplification) = ("overwrite_per_s", "write_amplification");
    let copy = "copy_bytes_per_s";
    let to_copy = |name: String, bound, experiment: &str, metric: &str| {
        let of = if bound == Bound::Reported { " (x copy of the files)" } else { "x copy of the files" };
        row(name, bound, of, experiment, (LOG, metric), &[(LOG, copy)])
    };
    let at_least = Bound::AtLeast;
    let with_window = |name: String, bound, of, metric: &str| {
        row(name, bound, of, names::RETENTION, (WITH_WINDOW, metric), &[(LOG, metric)])
    };
    let more_written = with_window(
        overwrite("write amplification"),
        Bound::AtMost(0.1),
        " more than without",
        amplification,
    );
    let without = Metric::new(names::RETENTION, LOG, amplification);
    vec![
        with_window(overwrite("throughput"), at_least(0.9), "x without", rate),
        Row { against: Against::Less(without), ..more_written },
        to_copy(
            format!("restore, a tenth back, {few} keys of 500 B"),
            at_least(0.6),
            names::RESTORE,
            "restore_bytes_per_s",
        ),
        row(
            format!("read_at ready, a tenth back, {few} keys of 100 B"),
            Bound::AtMost(0.5),
            " s",
            names::READ_AT,
            (LOG, "ready_s"),
            &[],
        ),
        row(
            format!("second backup with 1 % new data, {few} keys of 500 B: bytes"),
            Bound::AtMost(0.05),
            "x first",
            names::BACKUP,
            (LOG, "second_per_first"),
            &[],
        ),
        to_copy(
            format!("first backup, {few} keys of 500 B"),
            Bound::Reported,
            names::BACKUP,
            "backup_bytes_per_s",
        ),
        row(
            format!("verify, warm, {many} keys of 500 B"),
            at_least(1.5),
            " GB/s",
            names::VERIFY,
            (LOG, "verified_gb_per_s"),
            &[],
        ),
        to_copy(
            format!("repair of one damaged segment, {many} keys of 500 B"),
            at_least(1.0),
            names::REPAIR,
            "repair_bytes_per_s",
        ),
    ]
}
