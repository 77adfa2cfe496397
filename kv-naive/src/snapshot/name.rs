use kv_core::Lsn;

use super::SNAPSHOT;

/// The name of the old snapshot at `lsn`.
pub(crate) fn kept_name(lsn: Lsn) -> String {
    format!("{SNAPSHOT}.{:016x}", lsn.get())
}

/// The LSN of an old snapshot, by its name.
pub(crate) fn parse_kept_name(name: &str) -> Option<Lsn> {
    let digits = name.strip_prefix(SNAPSHOT)?.strip_prefix('.')?;
    let lsn = Lsn::new(u64::from_str_radix(digits, 16).ok()?);
    // One name for each LSN: no signs, no capitals, no other length.
    (kept_name(lsn) == name).then_some(lsn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_has_one_name() {
        for lsn in [0, 0x2a, u64::MAX].map(Lsn::new) {
            assert_eq!(parse_kept_name(&kept_name(lsn)), Some(lsn));
        }
        assert_eq!(kept_name(Lsn::new(0x2a)), "SNAPSHOT.000000000000002a");
        for name in [
            "SNAPSHOT",
            "SNAPSHOT.",
            "SNAPSHOT.tmp",
            "SNAPSHOT.2a",
            "SNAPSHOT.000000000000002A",
            "SNAPSHOT.+00000000000002a",
            "SNAPSHOT.000000000000002a.tmp",
            "000000000000002a",
        ] {
            assert_eq!(parse_kept_name(name), None, "{name}");
        }
    }
}
