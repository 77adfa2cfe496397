use super::*;
use crate::encoder::Encoder;
use crate::record::Record;
use crate::scanner::Scanner;

const ORIGIN: Origin = Origin { segment_id: 7, base_lsn: 0 };
const OTHER: Origin = Origin { segment_id: 8, base_lsn: 0 };

/// One piece of a segment's content. A case puts pieces one after the other.
#[derive(Clone, Copy)]
enum Piece {
    /// 22 bytes.
    Put(u64),
    /// 22 bytes, with MORE.
    Member(u64),
    /// 30 bytes: `lsn`, `durable_lsn`.
    Mark(u64, u64),
    /// A mark whose body is damaged.
    DamagedMark(u64, u64),
    /// 30 bytes.
    Seal(u64),
    /// 30 bytes, of another segment.
    ForeignMark(u64, u64),
    /// A put (68 bytes) with the bytes of a mark in its value.
    PutOfMark(u64, u64),
    /// The same with a damaged body: only the header is valid.
    DamagedPutOfMark(u64, u64),
    /// The first 22 bytes of a put of 54.
    HalfPut(u64),
    /// The header of a put with a value of this length, without the value.
    StrayHeader(usize),
    /// This number of zeros: a lost write.
    Lost(usize),
    /// This number of bytes that are neither zero nor a record.
    Damaged(usize),
}
use Piece::*;

fn mark_bytes(origin: Origin, lsn: u64, durable_lsn: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let body = crate::Mark { durable_lsn, unix_time_ms: 9 }.encode_body();
    Encoder::new(origin).append(&Record::mark(lsn, &body), &mut bytes).unwrap();
    bytes
}

fn segment(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::new();
    let encoder = Encoder::new(ORIGIN);
    for piece in pieces {
        match *piece {
            Put(lsn) => drop(encoder.append(&Record::put(lsn, b"key", b"value"), &mut out).unwrap()),
            Member(lsn) => {
                encoder.append(&Record::put(lsn, b"key", b"value").with_more(), &mut out).unwrap();
            }
            Mark(lsn, durable_lsn) => out.extend(mark_bytes(ORIGIN, lsn, durable_lsn)),
            DamagedMark(lsn, durable_lsn) => {
                out.extend(mark_bytes(ORIGIN, lsn, durable_lsn));
                *out.last_mut().unwrap() ^= 1;
            }
            ForeignMark(lsn, durable_lsn) => out.extend(mark_bytes(OTHER, lsn, durable_lsn)),
            Seal(lsn) => {
                let body = crate::Seal { records: 1, max_lsn: lsn }.encode_body();
                encoder.append(&Record::seal(lsn, &body), &mut out).unwrap();
            }
            PutOfMark(lsn, durable_lsn) | DamagedPutOfMark(lsn, durable_lsn) => {
                let key = [1; 8];
                let value = [&mark_bytes(ORIGIN, lsn, durable_lsn)[..], &[3; 16]].concat();
                encoder.append(&Record::put(lsn, &key, &value), &mut out).unwrap();
                if matches!(piece, DamagedPutOfMark(..)) {
                    *out.last_mut().unwrap() ^= 1;
                }
            }
            HalfPut(lsn) => {
                encoder.append(&Record::put(lsn, &[1; 8], &[2; 32]), &mut out).unwrap();
                out.truncate(out.len() - 32);
            }
            StrayHeader(len) => {
                encoder.append(&Record::put(9, b"", &vec![1; len]), &mut out).unwrap();
                out.truncate(out.len() - len);
            }
            Lost(len) => out.resize(out.len() + len, 0),
            Damaged(len) => out.resize(out.len() + len, 0xa5),
        }
    }
    out
}

fn judge(pieces: &[Piece], last_lsn: u64) -> Tail {
    let bytes = segment(pieces);
    let stop = Scanner::new(ORIGIN, &bytes, 0).stop();
    judge_tail(ORIGIN, &bytes, &stop, last_lsn)
}

#[test]
fn clean_tails() {
    let table: [&[Piece]; 6] = [
        &[],
        &[Lost(100)],
        &[Put(1), Put(2)],
        &[Put(1), Put(2), Lost(7)],
        &[Put(1), Mark(1, 1), Lost(4096)],
        &[Put(1), Seal(1), Damaged(64), Mark(9, 9)],
    ];
    for pieces in table {
        assert_eq!(judge(pieces, 0), Tail::Clean);
    }
}

#[test]
fn torn_tails() {
    // Pieces, and the place to cut.
    let table: [(&[Piece], usize); 19] = [
        (&[Put(1), HalfPut(2)], 22),
        (&[Put(1), Damaged(8)], 22),
        (&[Put(1), Damaged(3)], 22),
        (&[Put(1), Lost(32), Damaged(1)], 22),
        (&[Put(1), Lost(33), Damaged(64)], 22),
        // A batch without its end.
        (&[Put(1), Member(2)], 22),
        (&[Put(1), Member(2), Lost(64)], 22),
        (&[Put(1), Member(2), Damaged(32), Put(2)], 22),
        // Changes and seals behind the damage prove nothing.
        (&[Put(1), Lost(32), Put(3), Put(4)], 22),
        (&[Put(1), Damaged(32), Put(3), Seal(3)], 22),
        // Nor does a mark whose `durable_lsn` is not above the last LSN before the damage.
        (&[Put(1), Lost(32), Mark(2, 1)], 22),
        (&[Put(1), Damaged(32), Put(3), Mark(3, 0), Mark(3, 1), Lost(8)], 22),
        (&[Put(1), Mark(2, 1), Damaged(32), Mark(3, 2)], 52),
        // A damaged mark loses no change.
        (&[Put(1), DamagedMark(1, 1), Put(2), Mark(2, 1)], 22),
        (&[Put(1), Damaged(32), DamagedMark(2, 2)], 22),
        // Marks that do not count: of another segment, behind a seal, inside a value.
        (&[Put(1), Damaged(32), ForeignMark(2, 2)], 22),
        (&[Put(1), Damaged(32), Seal(2), Mark(2, 2)], 22),
        (&[Put(1), Damaged(32), PutOfMark(3, 3)], 22),
        (&[Put(1), DamagedPutOfMark(3, 3), Put(4)], 22),
    ];
    for (pieces, offset) in table {
        assert_eq!(judge(pieces, 0), Tail::Torn { offset });
    }
}

#[test]
fn corrupt_tails() {
    // Pieces, offset of the damage, offset of the mark, its `durable_lsn`.
    let table: [(&[Piece], usize, usize, u64); 14] = [
        (&[Put(1), Damaged(32), Mark(2, 2)], 22, 54, 2),
        (&[Put(1), Damaged(33), Mark(2, 2)], 22, 55, 2),
        (&[Put(1), Lost(32), Mark(2, 2)], 22, 54, 2),
        (&[Put(1), Lost(32), Mark(9, 2), Lost(64)], 22, 54, 2),
        (&[Put(1), Damaged(40), Put(3), Mark(3, 1), Mark(3, 3), Mark(3, 2)], 22, 114, 3),
        (&[Put(1), Damaged(8), PutOfMark(3, 9), Mark(3, 2)], 22, 98, 2),
        (&[Put(1), DamagedPutOfMark(3, 9), Mark(3, 2)], 22, 90, 2),
        (&[Put(1), DamagedMark(1, 1), Put(2), Mark(2, 2)], 22, 74, 2),
        (&[Put(1), Damaged(32), DamagedMark(2, 2), Mark(3, 2)], 22, 84, 2),
        // The damage is inside a batch: its first member does not count.
        (&[Put(1), Member(2), Damaged(32), Mark(2, 2)], 44, 76, 2),
        // A header that passes by chance hides no mark: no record follows its body.
        (&[Put(1), StrayHeader(50), Mark(2, 2), Damaged(64)], 22, 36, 2),
        (&[Put(1), StrayHeader(29), Mark(2, 2), Damaged(64)], 22, 36, 2),
        // Zeros or the end of the file are no record.
        (&[Put(1), StrayHeader(200), Mark(2, 2), Lost(300)], 22, 36, 2),
        (&[Put(1), StrayHeader(200), Mark(2, 2)], 22, 36, 2),
    ];
    for (pieces, offset, mark, durable_lsn) in table {
        let evidence = Evidence::Mark { offset: mark, durable_lsn, last_lsn: 1 };
        assert_eq!(judge(pieces, 0), Tail::Corrupt { offset, evidence });
    }
}

#[test]
fn a_broken_batch_is_corrupt() {
    let tail = Tail::Corrupt { offset: 44, evidence: Evidence::BrokenBatch };
    assert_eq!(judge(&[Put(1), Member(2), Put(3)], 0), tail);
}

#[test]
fn last_lsn_may_come_from_elsewhere() {
    let pieces = [Damaged(32), Mark(9, 8)];
    let corrupt = |last_lsn| Tail::Corrupt {
        offset: 0,
        evidence: Evidence::Mark { offset: 32, durable_lsn: 8, last_lsn },
    };
    assert_eq!(judge(&pieces, 0), corrupt(0));
    assert_eq!(judge(&pieces, 7), corrupt(7));
    assert_eq!(judge(&pieces, 8), Tail::Torn { offset: 0 });
}

#[test]
fn a_stop_of_something_else_is_no_panic() {
    for fault in [1, 7, 1000, usize::MAX] {
        let stop = Stop { offset: 0, fault, reason: StopReason::Torn, last_record: 0, last_lsn: 0 };
        assert_eq!(judge_tail(ORIGIN, &[0; 64], &stop, 0), Tail::Torn { offset: 0 });
    }
}

#[test]
fn the_copy_of_a_mark_in_a_cut_record_counts() {
    // Nothing tells it from a mark behind a header that passes by chance.
    let mut bytes = segment(&[Put(1), Damaged(8), PutOfMark(3, 3)]);
    bytes.pop();
    let stop = Scanner::new(ORIGIN, &bytes, 0).stop();
    let tail = judge_tail(ORIGIN, &bytes, &stop, 0);
    assert!(matches!(tail, Tail::Corrupt { offset: 22, .. }), "{tail:?}");
}

#[test]
fn evidence_reads_as_a_sentence() {
    let mark = Evidence::Mark { offset: 64, durable_lsn: 3, last_lsn: 1 };
    assert_eq!(
        mark.to_string(),
        "readable up to LSN 1, but a mark at offset 64 says that LSN 3 had been synced"
    );
}
