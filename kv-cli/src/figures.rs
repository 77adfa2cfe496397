//! The figures of a store, for people and for programs.

use kv_core::Stats;

/// Name, with its unit at the end, and value.
fn figures(stats: &Stats) -> Vec<(&'static str, u64)> {
    vec![
        ("keys", stats.keys),
        ("live_bytes", stats.live_bytes),
        ("memory_bytes", stats.memory_bytes),
        ("index_bytes", stats.index_bytes),
        ("retired_bytes", stats.retired_bytes),
        ("unflushed_bytes", stats.unflushed_bytes),
        ("disk_bytes", stats.disk_bytes),
        ("segments", stats.segments),
        ("last_lsn", stats.last_lsn.get()),
        ("durable_lsn", stats.durable_lsn.get()),
        ("changes", stats.changes),
        ("dumps", stats.dumps),
        ("syncs", stats.syncs),
        ("compactions", stats.compactions),
        ("recovered_records", stats.recovery.records),
        ("recovered_bytes", stats.recovery.bytes),
        ("torn_bytes", stats.recovery.torn_bytes),
        ("recovery_ms", u64::try_from(stats.recovery.duration.as_millis()).unwrap_or(u64::MAX)),
    ]
}

/// A line each.
pub(crate) fn table(stats: &Stats) -> String {
    joined(stats, "", |name, value| format!("{name:<18} {value:>16}\n"))
}

/// All on one line.
pub(crate) fn line(stats: &Stats) -> String {
    joined(stats, " ", |name, value| format!("{name}={value}"))
}

/// One JSON object, on one line.
pub(crate) fn json(stats: &Stats) -> String {
    // The names need no escapes, and the values are plain numbers.
    format!("{{{}}}\n", joined(stats, ",", |name, value| format!("\"{name}\":{value}")))
}

fn joined(stats: &Stats, separator: &str, one: impl Fn(&str, u64) -> String) -> String {
    let parts: Vec<String> = figures(stats).iter().map(|(name, value)| one(name, *value)).collect();
    parts.join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_forms_of_the_same_figures() {
        let mut stats = Stats::default();
        stats.keys = 3;
        assert!(table(&stats).lines().next().unwrap().split_whitespace().eq(["keys", "3"]));
        assert!(line(&stats).starts_with("keys=3 live_bytes=0 ") && !line(&stats).contains('\n'));
        assert!(json(&stats).starts_with("{\"keys\":3,\"live_bytes\":0,") && json(&stats).ends_with(":0}\n"));
    }
}
