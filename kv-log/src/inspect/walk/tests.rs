use super::*;
use kv_wal_format::{Encoder, SMALL_HEADER_LEN, Seal, SegmentHeader};
use proptest::prelude::*;

const ORIGIN: Origin = Origin { segment_id: 7, base_lsn: 0 };
/// An LSN that needs a large header.
const FAR: u64 = 1 << 32;
const MARK: [u8; Mark::BODY_LEN] = [1; Mark::BODY_LEN];
const SEAL: [u8; Seal::BODY_LEN] = [2; Seal::BODY_LEN];

/// A segment, and the offset of each record, and of the end.
fn segment(records: &[Record<'_>]) -> (Vec<u8>, Vec<usize>) {
    let header = SegmentHeader {
        kind: SegmentKind::Log,
        segment_id: ORIGIN.segment_id,
        base_lsn: ORIGIN.base_lsn,
        store_id: 1,
    };
    let (mut bytes, mut offsets) = (header.encode().to_vec(), Vec::new());
    for record in records {
        offsets.push(bytes.len());
        Encoder::new(ORIGIN).append(record, &mut bytes).unwrap();
    }
    offsets.push(bytes.len());
    (bytes, offsets)
}

fn put(lsn: u64) -> Record<'static> {
    Record::put(lsn, b"key", b"value")
}

/// The LSNs of intact changes, and the broken parts.
fn walk_all(kind: SegmentKind, bytes: &[u8]) -> (Vec<u64>, Vec<Broken>) {
    let (mut lsns, mut parts) = (Vec::new(), Vec::new());
    walk(ORIGIN, kind, bytes, |piece| match piece {
        Piece::Record(_, record) if record.kind.is_change() => lsns.push(record.lsn),
        Piece::Record(..) => {}
        Piece::Broken(broken) => parts.push(broken),
    });
    (lsns, parts)
}

/// A record whose damage leaves the header intact, or destroys it.
#[derive(Clone, Copy, Debug)]
enum Hit {
    Body(usize),
    Header(usize),
}

fn hit(bytes: &mut [u8], offsets: &[usize], hit: Hit) {
    match hit {
        Hit::Body(record) => bytes[offsets[record + 1] - 1] ^= 1,
        Hit::Header(record) => bytes[offsets[record] + 2] ^= 1,
    }
}

/// Records, hits, the LSNs of the intact changes, and for each broken part: the LSNs of named
/// changes, whether there may be others, and the range of LSNs.
type Row = (Vec<Record<'static>>, Vec<Hit>, Vec<u64>, Vec<(Vec<u64>, bool, u64, Option<u64>)>);

#[test]
fn damage_costs_its_own_batch_and_no_other() {
    use Hit::{Body, Header};
    let (mark, seal) = (|lsn| Record::mark(lsn, &MARK), |lsn| Record::seal(lsn, &SEAL));
    let full = |lsn| Record::put(lsn, b"key56789", b"value678value678");
    let more = |lsn| full(lsn).with_more();
    let rows: Vec<Row> = vec![
        (vec![full(1), full(2), seal(2)], vec![], vec![1, 2], vec![]),
        // An intact header names the change.
        (vec![full(1), full(2), full(3)], vec![Body(1)], vec![1, 3], vec![(vec![2], false, 2, Some(2))]),
        (vec![full(1), full(2), seal(2)], vec![Body(1)], vec![1], vec![(vec![2], false, 2, Some(2))]),
        // A damaged one gives a range.
        (vec![full(1), full(2), full(3)], vec![Header(1)], vec![1, 3], vec![(vec![], true, 2, Some(3))]),
        (vec![full(1), full(2), seal(2)], vec![Header(1)], vec![1], vec![(vec![], true, 2, Some(2))]),
        (vec![full(1), full(2)], vec![Header(1)], vec![1], vec![(vec![], true, 2, None)]),
        // A mark holds no change.
        (vec![full(1), mark(1), full(2)], vec![Body(1)], vec![1, 2], vec![(vec![], false, 2, None)]),
        (vec![full(1), mark(1), full(2)], vec![Header(1)], vec![1, 2], vec![(vec![], true, 2, Some(2))]),
        // A batch is lost as a whole, whichever member is hit.
        (
            vec![full(1), more(2), full(2), full(3)],
            vec![Body(1)],
            vec![1, 3],
            vec![(vec![2, 2], false, 2, Some(2))],
        ),
        (
            vec![full(1), more(2), full(2), full(3)],
            vec![Body(2)],
            vec![1, 3],
            vec![(vec![2, 2], false, 2, Some(2))],
        ),
        (
            vec![full(1), more(2), full(2), full(3)],
            vec![Header(2)],
            vec![1, 3],
            vec![(vec![2], true, 2, Some(3))],
        ),
        (
            vec![full(1), more(2), full(2), full(3)],
            vec![Header(1)],
            vec![1, 3],
            vec![(vec![2], true, 2, Some(3))],
        ),
        (
            vec![full(1), more(2), more(2), full(2), full(3)],
            vec![Body(1), Body(3)],
            vec![1, 3],
            vec![(vec![2, 2, 2], false, 2, Some(2))],
        ),
        // Two neighbours are hit: the second may be the end of a batch, and no one can tell.
        (
            vec![full(1), full(2), more(3), full(3), full(4)],
            vec![Header(1), Header(2)],
            vec![1, 3, 4],
            vec![(vec![], true, 2, Some(3))],
        ),
        // Damage that goes on into the next header leaves the first one, which names its change.
        (
            vec![full(1), full(2), full(3), full(4)],
            vec![Body(1), Header(2)],
            vec![1, 4],
            vec![(vec![2], true, 2, Some(4))],
        ),
        (
            vec![full(1), more(2), more(2), full(2), full(3)],
            vec![Body(1), Header(2)],
            vec![1, 3],
            vec![(vec![2, 2], true, 2, Some(3))],
        ),
        (
            vec![full(1), full(2), mark(2), full(3)],
            vec![Body(1), Header(2)],
            vec![1, 3],
            vec![(vec![2], true, 2, Some(3))],
        ),
        // A batch without its end.
        (vec![full(1), more(2), full(3)], vec![], vec![1, 3], vec![(vec![2], false, 2, Some(2))]),
        (vec![full(1), more(2)], vec![], vec![1], vec![(vec![2], false, 2, Some(2))]),
    ];
    check(rows);
}

/// A mark has a large header, too.
#[test]
fn damage_between_large_headers_costs_its_own_batch_and_no_other() {
    use Hit::Header;
    let mark = |lsn| Record::mark(lsn, &MARK);
    let full = |lsn| Record::put(lsn, b"key56789", b"value678value678");
    check(vec![
        (
            vec![full(FAR), mark(FAR), full(FAR + 1)],
            vec![Header(1)],
            vec![FAR, FAR + 1],
            vec![(vec![], true, FAR + 1, Some(FAR + 1))],
        ),
        (
            vec![full(FAR), mark(FAR), mark(FAR), full(FAR + 1)],
            vec![Header(1), Header(2)],
            vec![FAR, FAR + 1],
            vec![(vec![], true, FAR + 1, Some(FAR + 1))],
        ),
        (
            vec![full(FAR), full(FAR + 1).with_more(), full(FAR + 1), full(FAR + 2)],
            vec![Header(1)],
            vec![FAR, FAR + 2],
            vec![(vec![FAR + 1], true, FAR + 1, Some(FAR + 2))],
        ),
    ]);
}

fn check(rows: Vec<Row>) {
    for (number, (records, hits, intact, lost)) in rows.into_iter().enumerate() {
        let (mut bytes, offsets) = segment(&records);
        for one in hits {
            hit(&mut bytes, &offsets, one);
        }
        let (lsns, parts) = walk_all(SegmentKind::Log, &bytes);
        let parts: Vec<_> = parts
            .into_iter()
            .map(|part| part.lost)
            .map(|lost| {
                let named = lost.named.iter().map(|one| one.lsn).collect();
                (named, lost.others, lost.lsn_min, lost.lsn_max)
            })
            .collect();
        assert_eq!((lsns, parts), (intact, lost), "row {number}");
    }
}

#[test]
fn changes_of_a_compacted_segment_have_gaps_and_no_batches() {
    let full = |lsn| Record::put(lsn, b"key56789", b"value678value678");
    let (mut bytes, offsets) = segment(&[full(1), full(2), full(2), full(3)]);
    hit(&mut bytes, &offsets, Hit::Header(1));
    assert_eq!(walk_all(SegmentKind::Compacted, &bytes).0, [1, 2, 3]);
}

#[test]
fn a_value_that_holds_records_is_not_searched() {
    let (copy, _) = segment(&[put(1), put(2)]);
    let copy = &copy[SEGMENT_HEADER_LEN..];
    let (mut bytes, offsets) = segment(&[Record::put(3, b"copy", copy), put(4)]);
    bytes[offsets[0] + copy.len()] ^= 1;
    let (lsns, parts) = walk_all(SegmentKind::Log, &bytes);
    assert_eq!(lsns, [4]);
    assert_eq!(parts[0].lost.named[0].key.as_deref(), Some(b"copy".as_slice()));
}

/// Bytes pass for a small header once in 65,536 tries.
#[test]
fn a_false_header_hides_no_record() {
    let (copy, _) = segment(&[Record::put(9, b"false", &[1; 100])]);
    let header = &copy[SEGMENT_HEADER_LEN..][..SMALL_HEADER_LEN];
    let long = Record::put(5, b"key", &[3; 200]);
    for at in [0, 3, SMALL_HEADER_LEN] {
        let (mut bytes, offsets) = segment(&[put(1), Record::put(2, b"key", &[2; 50]), put(3), put(4), long]);
        bytes[offsets[1]] ^= 8;
        bytes[offsets[1] + at..][..header.len()].copy_from_slice(header);
        let (lsns, parts) = walk_all(SegmentKind::Log, &bytes);
        assert_eq!(lsns, [1, 3, 4, 5], "{at}");
        let named: Vec<u64> = parts[0].lost.named.iter().map(|one| one.lsn).collect();
        // Only behind a whole record, a header is more likely than other bytes.
        assert_eq!(named, if at == 0 { vec![9] } else { vec![] }, "{at}");
        assert!(parts[0].lost.others);
    }
}

#[test]
fn a_false_header_whose_body_ends_among_zeros_hides_no_record() {
    let (copy, _) = segment(&[Record::put(9, b"false", &[1; 200])]);
    let header = &copy[SEGMENT_HEADER_LEN..][..SMALL_HEADER_LEN];
    for zeros in [0, 50, 500] {
        let (mut bytes, offsets) = segment(&[put(1), Record::put(2, b"key", &[2; 50]), put(3)]);
        bytes[offsets[1]] ^= 8;
        bytes[offsets[1] + 3..][..header.len()].copy_from_slice(header);
        bytes.resize(bytes.len() + zeros, 0);
        assert_eq!(walk_all(SegmentKind::Log, &bytes).0, [1, 3], "{zeros}");
    }
}

#[test]
fn a_record_that_the_file_cuts_is_lost_with_its_lsn() {
    for lsn in [2, FAR] {
        let (mut bytes, offsets) = segment(&[put(1), put(lsn)]);
        bytes.truncate(offsets[2] - 1);
        let (lsns, parts) = walk_all(SegmentKind::Log, &bytes);
        assert_eq!(lsns, [1]);
        let lost = LostChange { offset: offsets[1] as u64, lsn, key: None, is_intact: false };
        assert_eq!((&parts[0].lost.named, parts[0].lost.others), (&vec![lost], false));
    }
}

#[test]
fn unused_zeros_are_no_damage_and_no_part_of_it() {
    let (mut bytes, offsets) = segment(&[put(1), put(2)]);
    bytes.resize(4096, 0);
    assert_eq!(walk_all(SegmentKind::Log, &bytes).1, []);
    hit(&mut bytes, &offsets, Hit::Header(1));
    let (_, parts) = walk_all(SegmentKind::Log, &bytes);
    assert!(parts[0].start == offsets[1] && parts[0].end <= offsets[2], "{parts:?}");
}

proptest! {
    /// Any damage costs the batches that it touches, and nothing else.
    #[test]
    fn every_batch_without_damage_is_found(
        batches in prop::collection::vec(1..4_usize, 1..12),
        damage in prop::collection::vec((0..2000_usize, 1..40_usize, any::<u8>()), 0..4),
    ) {
        let mut records = Vec::new();
        for (lsn, len) in (1..).zip(&batches) {
            let last = Record::put(lsn, b"key56789", b"value678value678");
            records.extend((1..*len).map(|_| last.with_more()));
            records.push(last);
        }
        let (clean, offsets) = segment(&records);
        let mut bytes = clean.clone();
        for (at, len, byte) in damage {
            let end = bytes.len();
            if let Some(part) = bytes.get_mut(at.max(SEGMENT_HEADER_LEN)..(at + len).min(end)) {
                part.fill(byte);
            }
        }
        let is_hit = |record: usize| {
            let range = offsets[record]..offsets[record + 1];
            bytes[range.clone()] != clean[range]
        };
        let hit_lsns: Vec<u64> =
            (0..records.len()).filter(|&record| is_hit(record)).map(|record| records[record].lsn).collect();
        let (lsns, parts) = walk_all(SegmentKind::Log, &bytes);
        for record in &records {
            let found = lsns.iter().filter(|lsn| **lsn == record.lsn).count();
            let members = batches[usize::try_from(record.lsn).unwrap() - 1];
            if !hit_lsns.contains(&record.lsn) {
                prop_assert_eq!(found, members, "LSN {}", record.lsn);
            }
        }
        // What is not found lies in a broken part.
        for (record, offset) in records.iter().zip(&offsets) {
            if !lsns.contains(&record.lsn) {
                prop_assert!(parts.iter().any(|part| (part.start..=part.end).contains(offset)), "{}", record.lsn);
            }
        }
    }
}
