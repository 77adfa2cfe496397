//! The figures of a store and of a compaction, for people and for programs.

use kv_core::{CompactionReport, Stats};

/// Names, each with its unit at the end, and values.
pub(crate) type Figures = Vec<(&'static str, u64)>;

/// The figures of a compaction.
pub(crate) fn of_compaction(report: &CompactionReport) -> Figures {
    vec![
        ("victims", report.victims),
        ("outputs", report.outputs),
        ("copied_bytes", report.copied_bytes),
        ("freed_bytes", report.freed_bytes),
        ("leftover_files", report.leftover_files),
    ]
}

/// The figures of a store.
pub(crate) fn of_store(stats: &Stats) -> Figures {
    vec![
        ("keys", stats.keys),
        ("live_bytes", stats.live_bytes),
        ("memory_bytes", stats.memory_bytes),
        ("index_bytes", stats.index_bytes),
        ("retired_bytes", stats.retired_bytes),
        ("unflushed_bytes", stats.unflushed_bytes),
        ("disk_bytes", stats.disk_bytes),
        ("past_bytes", stats.past_bytes),
        ("leftover_files", stats.leftover_files),
        ("segments", stats.segments),
        ("last_lsn", stats.last_lsn.get()),
        ("durable_lsn", stats.durable_lsn.get()),
        ("changes", stats.changes),
        ("dumps", stats.dumps),
        ("syncs", stats.syncs),
        ("compactions", stats.compactions),
        ("checkpoints", stats.checkpoints),
        ("warm_up_bytes", stats.warm_up_bytes),
        ("checkpoint_keys", stats.recovery.checkpoint_keys),
        ("recovered_records", stats.recovery.records),
        ("recovered_bytes", stats.recovery.bytes),
        ("torn_bytes", stats.recovery.torn_bytes),
        ("recovery_ms", u64::try_from(stats.recovery.duration.as_millis()).unwrap_or(u64::MAX)),
    ]
}

/// One figure in each line.
pub(crate) fn table(figures: &Figures) -> String {
    joined(figures, "", |name, value| format!("{name:<18} {value:>16}\n"))
}

/// All figures on one line.
pub(crate) fn line(figures: &Figures) -> String {
    joined(figures, " ", |name, value| format!("{name}={value}"))
}

/// One JSON object, on one line.
pub(crate) fn json(figures: &Figures) -> String {
    // The names need no escapes, and the values are plain numbers.
    format!("{{{}}}\n", joined(figures, ",", |name, value| format!("\"{name}\":{value}")))
}

fn joined(figures: &Figures, separator: &str, one: impl Fn(&str, u64) -> String) -> String {
    let parts: Vec<String> = figures.iter().map(|(name, value)| one(name, *value)).collect();
    parts.join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_forms_of_the_same_figures() {
        let mut stats = Stats::default();
        stats.keys = 3;
        let figures = of_store(&stats);
        assert!(table(&figures).lines().next().unwrap().split_whitespace().eq(["keys", "3"]));
        assert!(line(&figures).starts_with("keys=3 live_bytes=0 ") && !line(&figures).contains('\n'));
        assert!(
            json(&figures).starts_with("{\"keys\":3,\"live_bytes\":0,") && json(&figures).ends_with(":0}\n")
        );
    }
}
