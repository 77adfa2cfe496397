//! The verdict on a segment: whole, active, torn, a spare, or damaged.
//!
//! [`decide`] is a pure function of three facts: the manifest's entry, the result of the scan, and
//! whether an earlier segment is unfinished. Its test lists every combination once. TigerBeetle's
//! table of journal recovery cases is the model.

use kv_core::Error;
use kv_wal_format::{Origin, SEGMENT_HEADER_LEN, Seal, Stop, StopReason, Tail, judge_tail, parse_trusted};
use std::path::Path;

/// The state of a segment in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// Sealed, with its known length.
    Sealed,
    /// A log segment that was not sealed yet, durable up to a known length.
    Unsealed,
}

/// How the bytes of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With a seal that matches the records, exactly at the known length.
    SealAtKnown,
    /// With a seal that matches the records, beyond the known length.
    SealBeyondKnown,
    /// With a seal that does not match the records, or lies before the known length.
    SealWrong,
    /// Without a seal, at an unreadable byte before the known length.
    BeforeKnown,
    /// There are only zeros behind the header.
    Blank,
    /// With whole batches, and zeros behind them.
    Clean,
    /// With torn bytes behind whole batches, and nothing proves that they were synced.
    Torn,
    /// With unreadable bytes behind whole batches, and a later mark proves that they were synced.
    Corrupt,
}

/// Whether an earlier log segment ends without its seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    AllSealed,
    Unfinished,
}

/// The decision about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is complete.
    Whole,
    /// The log goes on here.
    Active,
    /// The log ends here: the torn bytes are cut off by a seal.
    Torn,
    /// It was made ahead of need and never used. It is dropped.
    Spare,
    /// It holds changes, but an earlier segment lacks its seal: the earlier one is damaged.
    LaterChanges,
    /// It is damaged itself.
    Damaged(Damage),
}

/// The fault of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    SealWrong,
    SealMissing,
    BytesKnownToBeSynced,
    BytesProvenToBeSynced,
}

/// The verdict on a log segment.
///
/// | the manifest says | the scan found | earlier segments | verdict |
/// |---|---|---|---|
/// | any | blank | one unfinished | spare |
/// | any | anything else | one unfinished | later changes: the unfinished one is damaged |
/// | sealed | seal at the known length | all sealed | whole |
/// | sealed | wrong seal, or seal beyond the known length | all sealed | damaged: wrong seal |
/// | sealed | no seal | all sealed | damaged: seal missing |
/// | unsealed | seal at or beyond the known length | all sealed | whole |
/// | unsealed | wrong seal | all sealed | damaged: wrong seal |
/// | unsealed | blank, or clean | all sealed | active |
/// | unsealed | torn | all sealed | torn |
/// | unsealed | unreadable before the known length | all sealed | damaged: bytes known to be synced |
/// | unsealed | unreadable, and a later mark | all sealed | damaged: bytes proven to be synced |
///
/// A compacted segment is written as a whole before the manifest names it, so it does not depend on
/// earlier segments: they count as sealed.
pub(crate) fn decide(named: Named, ending: Ending, before: Before) -> Verdict {
    use Ending::{BeforeKnown, Blank, Clean, Corrupt, SealAtKnown, SealBeyondKnown, SealWrong, Torn};
    match (before, named, ending) {
        (Before::Unfinished, _, Blank) => Verdict::Spare,
        (Before::Unfinished, _, _) => Verdict::LaterChanges,
        (_, Named::Sealed, SealAtKnown) | (_, Named::Unsealed, SealAtKnown | SealBeyondKnown) => {
            Verdict::Whole
        }
        (_, Named::Sealed, SealBeyondKnown) | (_, _, SealWrong) => Verdict::Damaged(Damage::SealWrong),
        (_, Named::Sealed, BeforeKnown | Blank | Clean | Torn | Corrupt) => {
            Verdict::Damaged(Damage::SealMissing)
        }
        (_, Named::Unsealed, Blank | Clean) => Verdict::Active,
        (_, Named::Unsealed, Torn) => Verdict::Torn,
        (_, Named::Unsealed, BeforeKnown) => Verdict::Damaged(Damage::BytesKnownToBeSynced),
        (_, Named::Unsealed, Corrupt) => Verdict::Damaged(Damage::BytesProvenToBeSynced),
    }
}

/// One segment as the scan left it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanned<'a> {
    pub(crate) origin: Origin,
    /// All bytes that were read.
    pub(crate) bytes: &'a [u8],
    pub(crate) stop: Stop,
    /// The seal that matches the records.
    pub(crate) seal: Seal,
    /// Bytes from the start that the manifest knows to be durable.
    pub(crate) known_len: u64,
}

/// A seal that ends a segment, if it has one: whether it matches the records, and lies at or beyond
/// the known length.
pub(crate) fn sealed_ending(scanned: &Scanned<'_>) -> Option<Ending> {
    if scanned.stop.reason != StopReason::Sealed {
        return None;
    }
    let (_, seal) = seal_of(scanned);
    let end = scanned.stop.offset as u64;
    Some(if seal != Some(scanned.seal) || end < scanned.known_len {
        Ending::SealWrong
    } else if end == scanned.known_len {
        Ending::SealAtKnown
    } else {
        Ending::SealBeyondKnown
    })
}

/// The place of the seal at which a scan stopped, and the seal.
fn seal_of(scanned: &Scanned<'_>) -> (usize, Option<Seal>) {
    let at = scanned.stop.last_record;
    let record = parse_trusted(scanned.origin.base_lsn, scanned.bytes.get(at..).unwrap_or_default());
    (at, record.as_ref().and_then(Seal::from_record))
}

/// How a segment without a seal ends. `lsn_before` is the highest LSN that earlier segments and the
/// manifest prove. A change of this segment up to it lies within the known length.
pub(crate) fn unsealed_ending(scanned: &Scanned<'_>, lsn_before: u64) -> Ending {
    if (scanned.stop.fault as u64) < scanned.known_len {
        return Ending::BeforeKnown;
    }
    match judge_tail(scanned.origin, scanned.bytes, &scanned.stop, lsn_before) {
        // Zeros follow the last batch, and there is none.
        Tail::Clean if scanned.stop.offset == SEGMENT_HEADER_LEN => Ending::Blank,
        Tail::Clean => Ending::Clean,
        Tail::Torn { .. } => Ending::Torn,
        Tail::Corrupt { .. } => Ending::Corrupt,
    }
}

impl Damage {
    /// The error for the segment in the file at `path`.
    pub(crate) fn error(self, path: &Path, scanned: &Scanned<'_>, lsn_before: u64) -> Error {
        let Stop { fault: at, reason, .. } = scanned.stop;
        let (offset, fault) = match self {
            Damage::SealWrong => wrong_seal(scanned),
            Damage::SealMissing => {
                (at, format!("this sealed segment cannot be read up to its seal: {reason}"))
            }
            Damage::BytesKnownToBeSynced => {
                let known = scanned.known_len;
                let fault =
                    format!("no record can be read here, but the first {known} bytes were synced: {reason}");
                (at, fault)
            }
            Damage::BytesProvenToBeSynced => {
                match judge_tail(scanned.origin, scanned.bytes, &scanned.stop, lsn_before) {
                    Tail::Corrupt { offset, evidence } => (offset, evidence.to_string()),
                    Tail::Clean | Tail::Torn { .. } => (at, reason.to_string()),
                }
            }
        };
        Error::corruption(path, offset as u64, fault)
    }
}

/// The place and the fault of a seal that does not match its records, or lies in the wrong place.
fn wrong_seal(scanned: &Scanned<'_>) -> (usize, String) {
    let (seal_at, seal) = seal_of(scanned);
    let Scanned { seal: expected, known_len: known, .. } = scanned;
    let fault = match seal {
        Some(seal) if seal != *expected => {
            format!("the seal counts {seal}, the segment holds {expected}")
        }
        _ => format!("the segment ends with this seal, but its first {known} bytes were synced"),
    };
    (seal_at, fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_wal_format::{Encoder, Mark, Record, Scanner};
    use std::collections::HashSet;

    const ENDINGS: [Ending; 8] = [
        Ending::SealAtKnown,
        Ending::SealBeyondKnown,
        Ending::SealWrong,
        Ending::BeforeKnown,
        Ending::Blank,
        Ending::Clean,
        Ending::Torn,
        Ending::Corrupt,
    ];

    /// The table of [`decide`], row by row.
    #[test]
    fn every_combination_is_decided_once_as_the_table_says() {
        use Before::{AllSealed, Unfinished};
        use Ending::{BeforeKnown, Blank, Clean, Corrupt, SealAtKnown, SealBeyondKnown, SealWrong, Torn};
        use Named::{Sealed, Unsealed};
        let damaged = Verdict::Damaged;
        let not_blank: Vec<Ending> = ENDINGS.into_iter().filter(|ending| *ending != Blank).collect();
        let rows: [(&[Named], &[Ending], Before, Verdict); 11] = [
            (&[Sealed, Unsealed], &[Blank], Unfinished, Verdict::Spare),
            (&[Sealed, Unsealed], &not_blank, Unfinished, Verdict::LaterChanges),
            (&[Sealed], &[SealAtKnown], AllSealed, Verdict::Whole),
            (&[Sealed], &[SealWrong, SealBeyondKnown], AllSealed, damaged(Damage::SealWrong)),
            (&[Sealed], &[BeforeKnown, Blank, Clean, Torn, Corrupt], AllSealed, damaged(Damage::SealMissing)),
            (&[Unsealed], &[SealAtKnown, SealBeyondKnown], AllSealed, Verdict::Whole),
            (&[Unsealed], &[SealWrong], AllSealed, damaged(Damage::SealWrong)),
            (&[Unsealed], &[Blank, Clean], AllSealed, Verdict::Active),
            (&[Unsealed], &[Torn], AllSealed, Verdict::Torn),
            (&[Unsealed], &[BeforeKnown], AllSealed, damaged(Damage::BytesKnownToBeSynced)),
            (&[Unsealed], &[Corrupt], AllSealed, damaged(Damage::BytesProvenToBeSynced)),
        ];
        let mut decided = HashSet::new();
        for (named, endings, before, verdict) in rows {
            for (named, ending) in
                named.iter().flat_map(|named| endings.iter().map(move |ending| (*named, *ending)))
            {
                assert_eq!(decide(named, ending, before), verdict, "{named:?} {ending:?} {before:?}");
                assert!(decided.insert(format!("{named:?} {ending:?} {before:?}")), "decided twice");
            }
        }
        assert_eq!(decided.len(), 2 * ENDINGS.len() * 2);
    }

    const ORIGIN: Origin = Origin { segment_id: 7, base_lsn: 0 };

    /// A segment with two puts. The first `known_len` bytes are known to be durable.
    struct Sample {
        bytes: Vec<u8>,
        seal: Seal,
        known_len: u64,
    }

    impl Sample {
        fn new() -> Self {
            let mut bytes = vec![0; SEGMENT_HEADER_LEN];
            let encoder = Encoder::new(ORIGIN);
            encoder.append(&Record::put(1, b"a", b"1"), &mut bytes).unwrap();
            let known_len = bytes.len() as u64;
            encoder.append(&Record::put(2, b"b", b"2"), &mut bytes).unwrap();
            Sample { bytes, seal: Seal { records: 2, max_lsn: 2 }, known_len }
        }

        fn with(mut self, record: &Record<'_>) -> Self {
            Encoder::new(ORIGIN).append(record, &mut self.bytes).unwrap();
            self
        }

        fn ending(&self) -> Ending {
            let stop = Scanner::new(ORIGIN, &self.bytes, SEGMENT_HEADER_LEN).stop();
            let Sample { bytes, seal, known_len } = self;
            let scanned = Scanned { origin: ORIGIN, bytes, stop, seal: *seal, known_len: *known_len };
            sealed_ending(&scanned).unwrap_or_else(|| unsealed_ending(&scanned, 1))
        }
    }

    #[test]
    fn every_ending_is_recognised() {
        let sealed = || {
            let body = Seal { records: 2, max_lsn: 2 }.encode_body();
            Sample::new().with(&Record::seal(2, &body))
        };
        let sealed_len = sealed().bytes.len() as u64;
        assert_eq!(sealed().ending(), Ending::SealBeyondKnown);
        assert_eq!(Sample { known_len: sealed_len, ..sealed() }.ending(), Ending::SealAtKnown);
        assert_eq!(Sample { known_len: sealed_len + 1, ..sealed() }.ending(), Ending::SealWrong);
        assert_eq!(Sample { seal: Seal { records: 3, max_lsn: 2 }, ..sealed() }.ending(), Ending::SealWrong);

        let mut sample = Sample::new();
        sample.bytes.resize(sample.bytes.len() + 64, 0);
        assert_eq!(sample.ending(), Ending::Clean);
        let blank = vec![0; SEGMENT_HEADER_LEN + 64];
        let known_len = SEGMENT_HEADER_LEN as u64;
        assert_eq!(Sample { bytes: blank.clone(), known_len, ..Sample::new() }.ending(), Ending::Blank);
        assert_eq!(Sample { bytes: blank, ..Sample::new() }.ending(), Ending::BeforeKnown);

        // The second put is torn. It was not known to be durable.
        let torn_at = usize::try_from(Sample::new().known_len).unwrap() + 9;
        let mut torn = Sample::new();
        torn.bytes[torn_at] ^= 1;
        assert_eq!(torn.ending(), Ending::Torn);
        // A mark behind it says that it was.
        let body = Mark { durable_lsn: 2, unix_time_ms: 0 }.encode_body();
        let mut corrupt = Sample::new().with(&Record::mark(2, &body));
        corrupt.bytes[torn_at] ^= 1;
        assert_eq!(corrupt.ending(), Ending::Corrupt);
    }
}
