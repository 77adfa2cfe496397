use super::*;
use crate::encoder::Encoder;
use crate::record::Record;
use crate::scanner::Scanner;

const ID: u64 = 7;

/// One piece of a segment's content. A case puts pieces one after the other.
#[derive(Clone, Copy)]
enum Piece {
    /// 32 bytes.
    Put(u64),
    /// 32 bytes, with MORE.
    Member(u64),
    /// 40 bytes: `lsn`, `durable_lsn`.
    Mark(u64, u64),
    /// A mark whose body is damaged.
    DamagedMark(u64, u64),
    /// 40 bytes.
    Seal(u64),
    /// 40 bytes, of another segment.
    ForeignMark(u64, u64),
    /// A put (88 bytes) with the bytes of a mark at a multiple of 8 in its value.
    PutOfMark(u64, u64),
    /// The same with a damaged body: only the header is valid.
    DamagedPutOfMark(u64, u64),
    /// The first 32 bytes of a put of 64.
    HalfPut(u64),
    /// This number of zeros: a lost write.
    Lost(usize),
    /// This number of bytes that are neither zero nor a record.
    Damaged(usize),
}
use Piece::*;

fn mark_bytes(segment_id: u64, lsn: u64, durable_lsn: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let body = crate::Mark { durable_lsn, unix_time_ms: 9 }.encode_body();
    Encoder::new(segment_id).append(&Record::mark(lsn, &body), &mut bytes).unwrap();
    bytes
}

fn segment(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::new();
    let encoder = Encoder::new(ID);
    for piece in pieces {
        match *piece {
            Put(lsn) => drop(encoder.append(&Record::put(lsn, b"key", b"value"), &mut out).unwrap()),
            Member(lsn) => {
                encoder.append(&Record::put(lsn, b"key", b"value").with_more(), &mut out).unwrap();
            }
            Mark(lsn, durable_lsn) => out.extend(mark_bytes(ID, lsn, durable_lsn)),
            DamagedMark(lsn, durable_lsn) => {
                out.extend(mark_bytes(ID, lsn, durable_lsn));
                *out.last_mut().unwrap() ^= 1;
            }
            ForeignMark(lsn, durable_lsn) => out.extend(mark_bytes(ID + 1, lsn, durable_lsn)),
            Seal(lsn) => {
                let body = crate::Seal { records: 1, max_lsn: lsn }.encode_body();
                encoder.append(&Record::seal(lsn, &body), &mut out).unwrap();
            }
            PutOfMark(lsn, durable_lsn) | DamagedPutOfMark(lsn, durable_lsn) => {
                let key = [1; 8];
                let value = [&mark_bytes(ID, lsn, durable_lsn)[..], &[3; 16]].concat();
                encoder.append(&Record::put(lsn, &key, &value), &mut out).unwrap();
                if matches!(piece, DamagedPutOfMark(..)) {
                    *out.last_mut().unwrap() ^= 1;
                }
            }
            HalfPut(lsn) => {
                encoder.append(&Record::put(lsn, &[1; 8], &[2; 32]), &mut out).unwrap();
                out.truncate(out.len() - 32);
            }
            Lost(len) => out.resize(out.len() + len, 0),
            Damaged(len) => out.resize(out.len() + len, 0xa5),
        }
    }
    out
}

fn judge(pieces: &[Piece], last_lsn: u64) -> Tail {
    let bytes = segment(pieces);
    let stop = Scanner::new(ID, &bytes, 0).stop();
    judge_tail(ID, &bytes, &stop, last_lsn)
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
    let table: [(&[Piece], usize); 20] = [
        (&[Put(1), HalfPut(2)], 32),
        (&[Put(1), Damaged(8)], 32),
        (&[Put(1), Damaged(3)], 32),
        (&[Put(1), Lost(32), Damaged(1)], 32),
        (&[Put(1), Lost(33), Damaged(64)], 32),
        // A batch without its end.
        (&[Put(1), Member(2)], 32),
        (&[Put(1), Member(2), Lost(64)], 32),
        (&[Put(1), Member(2), Damaged(32), Put(2)], 32),
        // Changes and seals behind the damage prove nothing.
        (&[Put(1), Lost(32), Put(3), Put(4)], 32),
        (&[Put(1), Damaged(32), Put(3), Seal(3)], 32),
        // Nor does a mark whose `durable_lsn` is not above the last LSN before the damage.
        (&[Put(1), Lost(32), Mark(2, 1)], 32),
        (&[Put(1), Damaged(32), Put(3), Mark(3, 0), Mark(3, 1), Lost(8)], 32),
        (&[Put(1), Mark(2, 1), Damaged(32), Mark(3, 2)], 72),
        // A damaged mark loses no change.
        (&[Put(1), DamagedMark(1, 1), Put(2), Mark(2, 1)], 32),
        (&[Put(1), Damaged(32), DamagedMark(2, 2)], 32),
        // Marks that do not count: of another segment, behind a seal, off the grid, inside a value.
        (&[Put(1), Damaged(32), ForeignMark(2, 2)], 32),
        (&[Put(1), Damaged(32), Seal(2), Mark(2, 2)], 32),
        (&[Put(1), Damaged(33), Mark(2, 2)], 32),
        (&[Put(1), Damaged(32), PutOfMark(3, 3)], 32),
        (&[Put(1), DamagedPutOfMark(3, 3), Put(4)], 32),
    ];
    for (pieces, offset) in table {
        assert_eq!(judge(pieces, 0), Tail::Torn { offset });
    }
}

#[test]
fn corrupt_tails() {
    // Pieces, offset of the damage, offset of the mark, its `durable_lsn`.
    let table: [(&[Piece], usize, usize, u64); 9] = [
        (&[Put(1), Damaged(32), Mark(2, 2)], 32, 64, 2),
        (&[Put(1), Lost(32), Mark(2, 2)], 32, 64, 2),
        (&[Put(1), Lost(32), Mark(9, 2), Lost(64)], 32, 64, 2),
        (&[Put(1), Damaged(40), Put(3), Mark(3, 1), Mark(3, 3), Mark(3, 2)], 32, 144, 3),
        (&[Put(1), Damaged(8), PutOfMark(3, 9), Mark(3, 2)], 32, 128, 2),
        (&[Put(1), DamagedPutOfMark(3, 9), Mark(3, 2)], 32, 120, 2),
        (&[Put(1), DamagedMark(1, 1), Put(2), Mark(2, 2)], 32, 104, 2),
        (&[Put(1), Damaged(32), DamagedMark(2, 2), Mark(3, 2)], 32, 104, 2),
        // The damage is inside a batch: its first member does not count.
        (&[Put(1), Member(2), Damaged(32), Mark(2, 2)], 64, 96, 2),
    ];
    for (pieces, offset, mark, durable_lsn) in table {
        let evidence = Evidence::Mark { offset: mark, durable_lsn, last_lsn: 1 };
        assert_eq!(judge(pieces, 0), Tail::Corrupt { offset, evidence });
    }
}

#[test]
fn a_broken_batch_is_corrupt() {
    let tail = Tail::Corrupt { offset: 64, evidence: Evidence::BrokenBatch };
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
        let stop = Stop { offset: 0, fault, reason: StopReason::Torn, last_lsn: 0 };
        assert_eq!(judge_tail(ID, &[0; 64], &stop, 0), Tail::Torn { offset: 0 });
    }
}

#[test]
fn the_search_keeps_to_the_grid() {
    let bytes = segment(&[Put(1), Damaged(32), Mark(2, 2)]);
    let stop = Stop { offset: 32, fault: 33, reason: StopReason::Torn, last_lsn: 1 };
    let evidence = Evidence::Mark { offset: 64, durable_lsn: 2, last_lsn: 1 };
    assert_eq!(judge_tail(ID, &bytes, &stop, 0), Tail::Corrupt { offset: 33, evidence });
}

#[test]
fn evidence_reads_as_a_sentence() {
    let mark = Evidence::Mark { offset: 64, durable_lsn: 3, last_lsn: 1 };
    assert_eq!(
        mark.to_string(),
        "readable up to LSN 1, but a mark at offset 64 says that LSN 3 had been synced"
    );
}
