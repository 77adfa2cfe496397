//! The origin of a segment's records: as its header says, or as its seal and its marks tell.

use kv_core::SegmentId;
use kv_wal_format::{
    Mark, Origin, SEGMENT_HEADER_LEN, SMALL_HEADER_LEN, Seal, SegmentHeader, SegmentKind, peek,
};
use std::ops::Range;

use super::walk::{Piece, is_zero, walk};

/// The place of the base LSN in a segment header.
const BASE_LSN: Range<usize> = 24..32;

/// What the manifest tells of the LSNs in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownLsns {
    /// The last change has at least this LSN.
    pub(super) last_min: u64,
    /// No change has a higher LSN.
    pub(super) ceiling: u64,
}

/// The origin of the records in `bytes`, the content of a file that is named after `id`. `None` if
/// the header is damaged, and nothing tells the base LSN.
///
/// Small record headers count LSNs from the base LSN. Without the segment header, these tell it:
///
/// 1. The seal states the LSN of the last change twice, once counted from the base LSN.
/// 2. A mark states an LSN that is at most its own, so it gives a lower bound. So does the last
///    change, which has at least the LSN `last_min`. If the store was closed, that bound is
///    the base LSN itself.
/// 3. The field of the damaged header counts if it is not below these bounds, and not above
///    `ceiling`.
pub(super) fn origin_of(
    header: Option<SegmentHeader>,
    id: SegmentId,
    bytes: &[u8],
    known: Option<KnownLsns>,
) -> Option<Origin> {
    if let Some(header) = header {
        return Some(header.origin());
    }
    let from = |base_lsn| Origin { segment_id: id.get(), base_lsn };
    let records = bytes.get(SEGMENT_HEADER_LEN..).unwrap_or_default();
    if is_zero(records) {
        return Some(from(0));
    }
    let (mut exact, mut least, mut last_change) = (None, None, None);
    walk(from(0), SegmentKind::Compacted, bytes, |piece| {
        let Piece::Record(range, record) = piece else { return };
        let info = bytes.get(range).and_then(peek);
        if info.is_none_or(|info| info.header_len != SMALL_HEADER_LEN) {
            return;
        }
        if record.kind.is_change() {
            last_change = Some(record.lsn);
        } else if let Some(seal) = Seal::from_record(&record) {
            exact = seal.max_lsn.checked_sub(record.lsn);
        } else if let Some(mark) = Mark::from_record(&record) {
            least = least.max(mark.durable_lsn.checked_sub(record.lsn));
        }
    });
    let header = bytes.get(..SEGMENT_HEADER_LEN).filter(|header| !is_zero(header));
    let field = header
        .and_then(|header| header.get(BASE_LSN))
        .and_then(|field| field.try_into().ok())
        .map(u64::from_le_bytes);
    if let Some((known, last)) = known.zip(last_change).filter(|(known, _)| known.last_min > 0) {
        least = least.max(known.last_min.checked_sub(last));
    }
    let may_be =
        |field: &u64| *field >= least.unwrap_or(0) && known.is_some_and(|known| *field <= known.ceiling);
    exact.or_else(|| field.filter(may_be)).or(least).map(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_wal_format::{Encoder, Record};

    const BASE: u64 = 1000;

    /// A log segment whose header has a damaged id, and these records.
    fn damaged(records: &[Record<'_>]) -> Vec<u8> {
        let header = SegmentHeader { kind: SegmentKind::Log, segment_id: 7, base_lsn: BASE, store_id: 1 };
        let mut bytes = header.encode().to_vec();
        assert_eq!(bytes[BASE_LSN], BASE.to_le_bytes());
        bytes[20] ^= 1;
        for record in records {
            Encoder::new(header.origin()).append(record, &mut bytes).unwrap();
        }
        bytes
    }

    fn base_of(bytes: &[u8], lsn_ceiling: Option<u64>) -> Option<u64> {
        base_of_known(bytes, lsn_ceiling.map(|ceiling| KnownLsns { last_min: 0, ceiling }))
    }

    fn base_of_known(bytes: &[u8], known: Option<KnownLsns>) -> Option<u64> {
        let origin = origin_of(None, SegmentId::new(7), bytes, known)?;
        assert_eq!(origin.segment_id, 7);
        Some(origin.base_lsn)
    }

    #[test]
    fn a_seal_tells_the_base_lsn() {
        let seal = Seal { records: 1, max_lsn: BASE + 9 }.encode_body();
        let mut bytes = damaged(&[Record::put(BASE + 9, b"key", b"value"), Record::seal(BASE + 9, &seal)]);
        for field in [BASE, 0, BASE - 1, BASE + 1, u64::MAX] {
            bytes[BASE_LSN].copy_from_slice(&field.to_le_bytes());
            assert_eq!(base_of(&bytes, Some(BASE * 2)), Some(BASE), "{field}");
        }
    }

    #[test]
    fn without_a_seal_the_field_counts_if_it_fits_the_marks_and_the_manifest() {
        let mark = |durable_lsn| Mark { durable_lsn, unix_time_ms: 0 }.encode_body();
        let (first, second) = (mark(BASE + 3), mark(BASE + 4));
        let mut bytes = damaged(&[
            Record::put(BASE + 5, b"key", b"value"),
            Record::mark(BASE + 5, &first),
            Record::put(BASE + 6, b"key", b"value"),
            Record::mark(BASE + 6, &second),
        ]);
        let ceiling = Some(BASE + 100);
        assert_eq!(base_of(&bytes, ceiling), Some(BASE));
        assert_eq!(base_of(&bytes, None), Some(BASE - 2), "nothing limits a damaged field");
        for (field, base) in [(BASE - 3, BASE - 2), (BASE - 2, BASE - 2), (BASE + 101, BASE - 2)] {
            bytes[BASE_LSN].copy_from_slice(&field.to_le_bytes());
            assert_eq!(base_of(&bytes, ceiling), Some(base), "{field}");
        }
    }

    #[test]
    fn the_last_change_of_a_closed_store_tells_the_base_lsn() {
        let mark = Mark { durable_lsn: 0, unix_time_ms: 0 }.encode_body();
        let last = BASE + 6;
        let mut bytes = damaged(&[
            Record::put(BASE + 5, b"key", b"value"),
            Record::put(last, b"key", b"value"),
            Record::mark(last, &mark),
        ]);
        bytes[BASE_LSN].fill(0xff);
        let known = Some(KnownLsns { last_min: last, ceiling: BASE * 2 });
        assert_eq!(base_of_known(&bytes, known), Some(BASE));
        // It is a bound for the field.
        for (field, base) in [(BASE - 1, BASE), (BASE + 1, BASE + 1)] {
            bytes[BASE_LSN].copy_from_slice(&u64::to_le_bytes(field));
            assert_eq!(base_of_known(&bytes, known), Some(base));
        }
    }

    #[test]
    fn without_any_witness_nothing_is_told() {
        let mut bytes = damaged(&[Record::put(BASE + 1, b"key", b"value")]);
        assert_eq!(base_of(&bytes, Some(BASE)), Some(BASE));
        assert_eq!(base_of(&bytes, Some(BASE - 1)), None);
        assert_eq!(base_of(&bytes, None), None);
        bytes[..SEGMENT_HEADER_LEN].fill(0);
        assert_eq!(base_of(&bytes, Some(BASE)), None, "a blank header tells nothing");
        bytes.fill(0);
        assert_eq!(base_of(&bytes, None), Some(0), "no record needs a base LSN");
        assert_eq!(base_of(&[], None), Some(0));
    }

    #[test]
    fn an_intact_header_has_the_word() {
        let header = SegmentHeader { kind: SegmentKind::Log, segment_id: 8, base_lsn: BASE, store_id: 1 };
        let origin = origin_of(Some(header), SegmentId::new(7), &header.encode(), None);
        assert_eq!(origin, Some(header.origin()));
    }
}
