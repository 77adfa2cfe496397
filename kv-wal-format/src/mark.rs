//! Marks: records that tell how far the log was durable at a point in time.

use crate::kind::RecordKind;
use crate::layout;
use crate::record::Record;

/// A writer's statement in the log: when it appended this mark, it had synced every change with an
/// LSN at or below `durable_lsn`, and the clock showed `unix_time_ms`.
///
/// Marks tell damage from a torn tail ([`judge_tail`](crate::judge_tail)), and relate LSNs to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    /// LSN of the last change known to be synced; zero before the first sync.
    pub durable_lsn: u64,
    /// Milliseconds since the Unix epoch.
    pub unix_time_ms: u64,
}

impl Mark {
    /// Length of a mark's value in bytes.
    pub const BODY_LEN: usize = layout::MARK_BODY_LEN;

    const DURABLE_LSN: usize = 0;
    const UNIX_TIME_MS: usize = 8;

    /// The value of the mark's record; see [`Record::mark`].
    pub fn encode_body(&self) -> [u8; Self::BODY_LEN] {
        let mut body = [0; Self::BODY_LEN];
        layout::write::<{ Self::DURABLE_LSN }, _, _>(&mut body, self.durable_lsn.to_le_bytes());
        layout::write::<{ Self::UNIX_TIME_MS }, _, _>(&mut body, self.unix_time_ms.to_le_bytes());
        body
    }

    /// The mark in `record`; `None` for any other record.
    pub fn from_record(record: &Record<'_>) -> Option<Self> {
        let body: &[u8; Self::BODY_LEN] = record.value.try_into().ok()?;
        (record.kind == RecordKind::Mark).then(|| Self {
            durable_lsn: u64::from_le_bytes(layout::read::<{ Self::DURABLE_LSN }, _, _>(body)),
            unix_time_ms: u64::from_le_bytes(layout::read::<{ Self::UNIX_TIME_MS }, _, _>(body)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_round_trip() {
        let mark = Mark { durable_lsn: 0x0102, unix_time_ms: 0x0304 };
        let body = mark.encode_body();
        assert_eq!(body, [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Mark::from_record(&Record::mark(9, &body)), Some(mark));
    }

    #[test]
    fn other_records_hold_no_mark() {
        let body = [0; 16];
        assert_eq!(Mark::from_record(&Record::seal(9, &body)), None);
        assert_eq!(Mark::from_record(&Record::put(9, b"", &body)), None);
        assert_eq!(Mark::from_record(&Record { value: &body[1..], ..Record::mark(9, &body) }), None);
    }
}
