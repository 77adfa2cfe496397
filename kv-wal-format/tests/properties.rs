//! Properties over generated records, batches, cuts and bytes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test panics when it fails")]

use kv_wal_format::{
    Decoder, Encoder, Mark, Origin, Record, RecordKind, SEGMENT_HEADER_LEN, Scanner, Seal, SegmentHeader,
    SegmentKind, Step, StopReason, Tail, body_checksum, encoded_len_max, judge_tail, parse_trusted, peek,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A record that owns its bytes.
#[derive(Debug, Clone, PartialEq)]
struct Owned {
    kind: RecordKind,
    more: bool,
    lsn: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Owned {
    fn record(&self) -> Record<'_> {
        Record { kind: self.kind, more: self.more, lsn: self.lsn, key: &self.key, value: &self.value }
    }

    fn encode(&self, origin: Origin) -> Vec<u8> {
        let mut bytes = Vec::new();
        Encoder::new(origin).append(&self.record(), &mut bytes).unwrap();
        bytes
    }
}

/// Any id and base LSN. Every other base LSN is low enough for small headers.
fn origin() -> impl Strategy<Value = Origin> {
    (any::<u64>(), prop_oneof![0..100_u64, any::<u64>()])
        .prop_map(|(segment_id, base_lsn)| Origin { segment_id, base_lsn })
}

/// Every other LSN is low.
fn lsn() -> impl Strategy<Value = u64> {
    prop_oneof![0..1_u64 << 33, any::<u64>()]
}

/// Mostly short, and around the limits of a small header.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![9 => vec(any::<u8>(), 0..12), 1 => vec(any::<u8>(), 254..258)]
}

fn change() -> impl Strategy<Value = Owned> {
    let put = (key(), vec(any::<u8>(), 0..40)).prop_map(|(key, value)| (key, Some(value)));
    let delete = key().prop_map(|key| (key, None));
    (prop_oneof![put, delete], any::<bool>(), lsn()).prop_map(|((key, value), more, lsn)| {
        let kind = if value.is_some() { RecordKind::Put } else { RecordKind::Delete };
        Owned { kind, more, lsn, key, value: value.unwrap_or_default() }
    })
}

fn owned() -> impl Strategy<Value = Owned> {
    let special =
        (prop_oneof![Just(RecordKind::Mark), Just(RecordKind::Seal)], lsn(), any::<[u8; 16]>()).prop_map(
            |(kind, lsn, body)| Owned { kind, more: false, lsn, key: Vec::new(), value: body.to_vec() },
        );
    prop_oneof![4 => change(), 1 => special]
}

/// A log as a list of batches. Each batch is a list of changes, and takes the next LSN.
fn batches() -> impl Strategy<Value = Vec<Vec<Owned>>> {
    vec(vec(change(), 1..4), 0..8).prop_map(|mut batches| {
        for (lsn, batch) in (1..).zip(&mut batches) {
            let last = batch.len() - 1;
            for (index, member) in batch.iter_mut().enumerate() {
                (member.lsn, member.more) = (lsn, index < last);
            }
        }
        batches
    })
}

/// A segment with these batches, and the end offset of each batch.
fn segment(origin: Origin, batches: &[Vec<Owned>]) -> (Vec<u8>, Vec<usize>) {
    let Origin { segment_id, base_lsn } = origin;
    let mut bytes =
        SegmentHeader { kind: SegmentKind::Log, segment_id, base_lsn, store_id: 0 }.encode().to_vec();
    let mut ends = Vec::new();
    for batch in batches {
        for member in batch {
            bytes.extend(member.encode(origin));
        }
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// Checks the properties of a scan of any bytes.
fn check_scan(origin: Origin, bytes: &[u8], start: usize) {
    let mut scanner = Scanner::new(origin, bytes, start);
    let mut at = start.min(bytes.len());
    let mut open_batch = None;
    for (range, record) in scanner.by_ref() {
        assert_eq!(range.start, at);
        assert_eq!(parse_trusted(origin.base_lsn, &bytes[at..]), Some(record));
        if let Some(lsn) = open_batch {
            assert_eq!(record.lsn, lsn);
            assert!(record.kind.is_change());
        }
        open_batch = record.more.then_some(record.lsn);
        let mut again = Vec::new();
        Encoder::new(origin).append(&record, &mut again).unwrap();
        assert_eq!(again, bytes[range.clone()]);
        at = range.end;
    }
    let stop = scanner.stop();
    assert_eq!(open_batch, None);
    assert_eq!(stop.offset, at);
    assert!(stop.offset <= stop.fault && stop.fault <= bytes.len());
    match judge_tail(origin, bytes, &stop, 0) {
        Tail::Clean => {
            assert!(stop.reason == StopReason::Sealed || bytes[stop.offset..].iter().all(|&byte| byte == 0));
        }
        Tail::Torn { offset } => assert_eq!(offset, stop.offset),
        Tail::Corrupt { offset, .. } => assert_eq!(offset, stop.fault),
    }
}

proptest! {
    #[test]
    fn round_trip(owned in owned(), id in origin(), stale: u8, behind in vec(any::<u8>(), 0..9)) {
        let record = owned.record();
        let len = Encoder::new(id).encoded_len(&record);
        prop_assert!(len <= encoded_len_max(record.key.len(), record.value.len()));

        let mut bytes = vec![stale; len];
        let body_crc = body_checksum(record.key, record.value);
        prop_assert_eq!(Encoder::new(id).encode_with_body_checksum(&record, body_crc, &mut bytes), Ok(len));
        prop_assert_eq!(&bytes, &owned.encode(id));

        bytes.extend(behind);
        prop_assert_eq!(Decoder::new(id).step(&bytes), Step::Record { record, len });
        prop_assert_eq!(parse_trusted(id.base_lsn, &bytes), Some(record));
        let info = peek(&bytes).unwrap();
        prop_assert_eq!(Decoder::new(id).check_header(&bytes), Some(info));
        prop_assert_eq!(
            (info.kind, info.more, info.key_len, info.value_len, info.encoded_len()),
            (record.kind, record.more, record.key.len(), record.value.len(), len)
        );
    }

    /// A copy is the record as the other segment's encoder writes it, without MORE.
    #[test]
    fn a_copy_is_what_the_other_encoder_writes(owned in owned(), id in origin(), other in origin()) {
        let alone = Owned { more: false, ..owned.clone() };
        let expected = alone.encode(other);
        let mut copy = vec![0; expected.len()];
        let len = Encoder::new(other).copy(&Decoder::new(id), &owned.encode(id), &mut copy);
        prop_assert_eq!((len, copy), (Some(expected.len()), expected));
    }

    #[test]
    fn segment_header_round_trip(segment_id: u64, base_lsn: u64, store_id: u32, kind in 1_u8..=5) {
        let kind = SegmentKind::from_byte(kind).unwrap();
        let header = SegmentHeader { kind, segment_id, base_lsn, store_id };
        prop_assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn mark_and_seal_round_trip(a: u64, b: u64) {
        let (mark, seal) = (Mark { durable_lsn: a, unix_time_ms: b }, Seal { records: a, max_lsn: b });
        prop_assert_eq!(Mark::from_record(&Record::mark(1, &mark.encode_body())), Some(mark));
        prop_assert_eq!(Seal::from_record(&Record::seal(1, &seal.encode_body())), Some(seal));
    }

    #[test]
    fn every_non_empty_proper_prefix_is_torn(owned in owned(), id in origin()) {
        let bytes = owned.encode(id);
        for len in 1..bytes.len() {
            prop_assert_eq!(Decoder::new(id).step(&bytes[..len]), Step::Torn);
        }
    }

    #[test]
    fn no_single_bit_flip_is_a_record(owned in owned(), id in origin(), behind in vec(any::<u8>(), 0..200)) {
        let mut bytes = owned.encode(id);
        let bits = bytes.len() * 8;
        bytes.extend(behind);
        for bit in 0..bits {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let step = Decoder::new(id).step(&bytes);
            prop_assert!(!matches!(step, Step::Record { .. }), "bit {}: {:?}", bit, step);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn no_record_is_one_of_another_segment(owned in owned(), id in origin(), other in origin()) {
        prop_assume!(id.segment_id != other.segment_id);
        let bytes = owned.encode(id);
        let step = Decoder::new(other).step(&bytes);
        // A small header passes once in 65,536 tries.
        prop_assert!(matches!(step, Step::Corrupt(_) | Step::Torn), "{:?}", step);
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in vec(any::<u8>(), 0..300), id in origin(), start in 0_usize..320) {
        let _ = Decoder::new(id).step(&bytes);
        let _ = peek(&bytes);
        let _ = parse_trusted(id.base_lsn, &bytes);
        let _ = SegmentHeader::decode(&bytes);
        check_scan(id, &bytes, start);
    }

    #[test]
    fn any_damage_to_a_segment_gives_an_answer(
        batches in batches(),
        id in origin(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        zeros in 0_usize..40,
    ) {
        let (mut bytes, _) = segment(id, &batches);
        bytes.resize(bytes.len() + zeros, 0);
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        check_scan(id, &bytes, SEGMENT_HEADER_LEN);
    }

    #[test]
    fn a_segment_is_the_concatenation_of_its_records(batches in batches(), id in origin()) {
        let (bytes, _) = segment(id, &batches);
        let (_, mut scanner) = Scanner::open(&bytes).unwrap();
        let read: Vec<_> = scanner.by_ref().map(|(_, record)| record).collect();
        let written: Vec<_> = batches.iter().flatten().map(Owned::record).collect();
        prop_assert_eq!(read, written);
        let stop = scanner.stop();
        prop_assert_eq!((stop.offset, stop.fault, stop.reason), (bytes.len(), bytes.len(), StopReason::End));
        prop_assert_eq!(stop.last_lsn, batches.len() as u64);
    }

    /// A log that is cut at any byte yields the batches before the cut. Nothing or zeros follow.
    #[test]
    fn a_cut_log_is_its_whole_batches(batches in batches(), id in origin(), zeros in 0_usize..60) {
        let (bytes, ends) = segment(id, &batches);
        for cut in SEGMENT_HEADER_LEN..=bytes.len() {
            let whole = ends.iter().filter(|&&end| end <= cut).count();
            let last_end = whole.checked_sub(1).map_or(SEGMENT_HEADER_LEN, |last| ends[last]);
            let expected: Vec<_> = batches[..whole].iter().flatten().map(Owned::record).collect();

            let mut scanner = Scanner::new(id, &bytes[..cut], SEGMENT_HEADER_LEN);
            prop_assert!(scanner.by_ref().map(|(_, record)| record).eq(expected.iter().copied()));
            let stop = scanner.stop();
            let at_boundary = cut == last_end;
            prop_assert_eq!(stop.offset, last_end);
            prop_assert_eq!(stop.reason, if at_boundary { StopReason::End } else { StopReason::Torn });
            let tail = judge_tail(id, &bytes[..cut], &stop, 0);
            prop_assert_eq!(tail, if at_boundary { Tail::Clean } else { Tail::Torn { offset: last_end } });

            // In a preallocated file the lost bytes read as zeros. If they were zeros anyway, the
            // batch is whole.
            let mut preallocated = bytes[..cut].to_vec();
            preallocated.resize(bytes.len() + zeros, 0);
            let whole = ends.iter().filter(|&&end| preallocated[..end] == bytes[..end]).count();
            let expected: Vec<_> = batches[..whole].iter().flatten().map(Owned::record).collect();
            let mut scanner = Scanner::new(id, &preallocated, SEGMENT_HEADER_LEN);
            prop_assert!(scanner.by_ref().map(|(_, record)| record).eq(expected.iter().copied()));
            let stop = scanner.stop();
            let tail = judge_tail(id, &preallocated, &stop, 0);
            prop_assert!(!matches!(tail, Tail::Corrupt { .. }), "{:?}", tail);
        }
    }
}

/// A log of rounds. Each round is a mark about the sync before it, then batches, then a sync.
#[derive(Debug)]
struct SyncedLog {
    bytes: Vec<u8>,
    /// The length of the log and its last LSN after each round.
    rounds: Vec<(usize, u64)>,
}

const ID: Origin = Origin { segment_id: 7, base_lsn: 0 };

fn synced_log(rounds_min: usize) -> impl Strategy<Value = SyncedLog> {
    vec(vec((1_usize..4, 0_usize..90, any::<u8>()), 1..5), rounds_min..6).prop_map(|rounds| {
        let (mut bytes, _) = segment(ID, &[]);
        let (mut lsn, mut ends, encoder) = (0, Vec::new(), Encoder::new(ID));
        for round in rounds {
            let mark = Mark { durable_lsn: lsn, unix_time_ms: 0 }.encode_body();
            encoder.append(&Record::mark(lsn, &mark), &mut bytes).unwrap();
            for (members, value_len, fill) in round {
                lsn += 1;
                let value = vec![fill; value_len];
                for member in 1..=members {
                    let put = Record::put(lsn, b"key", &value);
                    let record = if member < members { put.with_more() } else { put };
                    encoder.append(&record, &mut bytes).unwrap();
                }
            }
            ends.push((bytes.len(), lsn));
        }
        SyncedLog { bytes, rounds: ends }
    })
}

proptest! {
    /// A crash damages any sectors of the last round. The scan reads the earlier rounds, and the
    /// tail is not judged corrupt.
    #[test]
    fn a_crash_is_never_damage(log in synced_log(1), fate in vec(0_u8..4, 64), junk: u8) {
        const SECTOR: usize = 64;
        let last = log.rounds.len() - 1;
        let (synced, durable_lsn) = last.checked_sub(1).map_or((SEGMENT_HEADER_LEN, 0), |round| log.rounds[round]);
        let mut bytes = log.bytes.clone();
        for (index, sector) in bytes[synced..].chunks_mut(SECTOR).enumerate() {
            let half = sector.len() / 2;
            match fate[index % fate.len()] {
                0 => sector.fill(0),
                1 => sector.fill(junk),
                2 => sector[half..].fill(0),
                _ => {}
            }
        }
        check_scan(ID, &bytes, SEGMENT_HEADER_LEN);
        let stop = Scanner::new(ID, &bytes, SEGMENT_HEADER_LEN).stop();
        prop_assert!(stop.offset >= synced);
        prop_assert!(stop.last_lsn >= durable_lsn);
        let tail = judge_tail(ID, &bytes, &stop, 0);
        prop_assert!(!matches!(tail, Tail::Corrupt { .. }), "{:?}", tail);
    }

    /// Any damaged bit before the last sync with a mark is reported.
    #[test]
    fn damage_to_synced_bytes_is_reported(log in synced_log(2), at: prop::sample::Index, bit in 0_u8..8) {
        let (synced, _) = log.rounds[log.rounds.len() - 2];
        let at = SEGMENT_HEADER_LEN + at.index(synced - SEGMENT_HEADER_LEN);
        let mut bytes = log.bytes.clone();
        bytes[at] ^= 1 << bit;
        let stop = Scanner::new(ID, &bytes, SEGMENT_HEADER_LEN).stop();
        let tail = judge_tail(ID, &bytes, &stop, 0);
        prop_assert!(matches!(tail, Tail::Corrupt { offset, .. } if offset <= at), "{:?}", tail);
    }
}
