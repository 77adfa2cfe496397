//! Seals: the last record of a finished segment.

use std::fmt;

use crate::kind::RecordKind;
use crate::layout;
use crate::record::Record;

/// Ends a finished segment. Readers ignore all bytes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seal {
    /// Number of puts and deletes in the segment.
    pub records: u64,
    /// Highest LSN in the segment; zero when it holds no change.
    pub max_lsn: u64,
}

impl Seal {
    /// Length of a seal's value in bytes.
    pub const BODY_LEN: usize = layout::SEAL_BODY_LEN;

    const RECORDS: usize = 0;
    const MAX_LSN: usize = 8;

    /// The value of the seal's record; see [`Record::seal`].
    pub fn encode_body(&self) -> [u8; Self::BODY_LEN] {
        let mut body = [0; Self::BODY_LEN];
        layout::write::<{ Self::RECORDS }, _, _>(&mut body, self.records.to_le_bytes());
        layout::write::<{ Self::MAX_LSN }, _, _>(&mut body, self.max_lsn.to_le_bytes());
        body
    }

    /// The seal in `record`; `None` for any other record.
    pub fn from_record(record: &Record<'_>) -> Option<Self> {
        let body: &[u8; Self::BODY_LEN] = record.value.try_into().ok()?;
        (record.kind == RecordKind::Seal).then(|| Self {
            records: u64::from_le_bytes(layout::read::<{ Self::RECORDS }, _, _>(body)),
            max_lsn: u64::from_le_bytes(layout::read::<{ Self::MAX_LSN }, _, _>(body)),
        })
    }
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records up to LSN {}", self.records, self.max_lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_round_trip() {
        let seal = Seal { records: 0x0102, max_lsn: 0x0304 };
        let body = seal.encode_body();
        assert_eq!(body, [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Seal::from_record(&Record::seal(9, &body)), Some(seal));
    }

    #[test]
    fn other_records_hold_no_seal() {
        let body = [0; 16];
        assert_eq!(Seal::from_record(&Record::mark(9, &body)), None);
        assert_eq!(Seal::from_record(&Record::put(9, b"", &body)), None);
        assert_eq!(Seal::from_record(&Record { value: &body[1..], ..Record::seal(9, &body) }), None);
    }
}
