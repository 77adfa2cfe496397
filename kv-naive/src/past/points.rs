//! The file `POINTS`: the points, and the expired snapshots that could not be removed. It is
//! replaced atomically. A store with neither may lack it.
//!
//! It is a segment of kind `Snapshot` with id [`SEGMENT_ID`], which ends with a seal:
//!
//! | record | of | key | value |
//! |---|---|---|---|
//! | put | a point | its name | 24 bytes: LSN, time, and expiry, or [`NEVER`] |
//! | delete | an expired snapshot | 8 bytes: its LSN | none |

use kv_core::fs::{Dir, DirExt};
use kv_core::{Error, Lsn, Point, Result};
use kv_wal_format::{
    Encoder, Record, RecordKind, SEGMENT_HEADER_LEN, Scanner, Seal, SegmentHeader, SegmentKind, StopReason,
};
use std::path::Path;

use crate::identity::header_error;

/// The file's name.
pub(crate) const POINTS: &str = "POINTS";

/// No snapshot stands at such an LSN.
const SEGMENT_ID: u64 = u64::MAX;

/// The expiry of a point that does not expire.
const NEVER: u64 = u64::MAX;

/// The LSN of each record: it tells nothing.
const RECORD_LSN: u64 = 1;

/// The most expired snapshots in the file.
const EXPIRED_MAX: usize = 4096;

/// The longest file. The record of a point has at most 128 bytes, that of an expired snapshot 64.
const LEN_MAX: u64 =
    SEGMENT_HEADER_LEN as u64 + (Point::COUNT_MAX as u64 + 1) * 128 + EXPIRED_MAX as u64 * 64;

/// The content of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    /// In the order of their names.
    pub(crate) points: Vec<Point>,
    /// LSNs of the expired snapshots. Their files may be gone.
    pub(crate) expired: Vec<Lsn>,
}

/// The bytes of the file. Of very many expired snapshots, it names the first ones.
pub(crate) fn encode(store_id: u32, points: &[Point], expired: &[Lsn]) -> Vec<u8> {
    let expired = expired.get(..EXPIRED_MAX).unwrap_or(expired);
    let header = SegmentHeader { kind: SegmentKind::Snapshot, segment_id: SEGMENT_ID, base_lsn: 0, store_id };
    let (encoder, mut bytes) = (Encoder::new(header.origin()), header.encode().to_vec());
    let mut append =
        |record: &Record<'_>| encoder.append(record, &mut bytes).expect("names of points are short");
    for Point { name, lsn, unix_ms, expires_unix_ms } in points {
        let numbers = [lsn.get(), *unix_ms, expires_unix_ms.unwrap_or(NEVER)];
        append(&Record::put(RECORD_LSN, name.as_bytes(), &numbers.map(u64::to_le_bytes).concat()));
    }
    for lsn in expired {
        append(&Record::delete(RECORD_LSN, &lsn.get().to_le_bytes()));
    }
    let records = (points.len() + expired.len()) as u64;
    let seal = Seal { records, max_lsn: RECORD_LSN }.encode_body();
    append(&Record::seal(RECORD_LSN, &seal));
    bytes
}

/// Reads the list of a store, and the length of its file. It is empty if there is no file.
pub(crate) fn read(dir: &dyn Dir, names: &[String], store_id: u32) -> Result<(List, u64)> {
    if !names.iter().any(|name| name == POINTS) {
        return Ok((List::default(), 0));
    }
    let (path, bytes) = (dir.path_of(POINTS), dir.read_file(POINTS, LEN_MAX)?);
    Ok((decode(&path, &bytes, store_id)?, bytes.len() as u64))
}

fn decode(path: &Path, bytes: &[u8], store_id: u32) -> Result<List> {
    let header = SegmentHeader::decode(bytes).map_err(|error| header_error(path, error))?;
    let SegmentHeader { kind, segment_id, store_id: found, .. } = header;
    if (kind, segment_id, found) != (SegmentKind::Snapshot, SEGMENT_ID, store_id) {
        return Err(Error::corruption(path, 0, "this is not the list of points of this store"));
    }
    let mut scanner = Scanner::new(header.origin(), bytes, SEGMENT_HEADER_LEN);
    let (mut points, mut expired, mut seal) = (Vec::new(), Vec::new(), None);
    for (offset, record) in scanner.by_ref() {
        let damaged =
            || Error::corruption(path, offset.start as u64, "this record is no point and no snapshot");
        match record.kind {
            RecordKind::Put => points.push(decode_point(&record).ok_or_else(damaged)?),
            RecordKind::Delete => expired.push(decode_lsn(&record).ok_or_else(damaged)?),
            RecordKind::Seal => seal = Seal::from_record(&record),
            RecordKind::Mark => return Err(damaged()),
        }
    }
    let stop = scanner.stop();
    let is_whole = stop.reason == StopReason::Sealed && stop.offset == bytes.len();
    if !is_whole || seal.is_some_and(|seal| seal.records != (points.len() + expired.len()) as u64) {
        return Err(Error::corruption(path, stop.fault as u64, "the list of points is not whole"));
    }
    points.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(List { points, expired })
}

fn decode_lsn(record: &Record<'_>) -> Option<Lsn> {
    Some(Lsn::new(u64::from_le_bytes(record.key.try_into().ok()?)))
}

fn decode_point(record: &Record<'_>) -> Option<Point> {
    let name = String::from_utf8(record.key.to_vec()).ok()?;
    let ([lsn, unix_ms, expires], []) = record.value.as_chunks::<8>() else { return None };
    let [lsn, unix_ms, expires] = [lsn, unix_ms, expires].map(|bytes| u64::from_le_bytes(*bytes));
    let expires_unix_ms = Some(expires).filter(|expires| *expires != NEVER);
    Some(Point { name, lsn: Lsn::new(lsn), unix_ms, expires_unix_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_come_back_and_damage_is_noticed() {
        let point = |name: &str, lsn, expires_unix_ms| Point {
            name: name.to_owned(),
            lsn: Lsn::new(lsn),
            unix_ms: 2,
            expires_unix_ms,
        };
        let longest = "n".repeat(Point::NAME_LEN_MAX);
        let points = [point("a", 0, None), point(&longest, u64::MAX, Some(7))];
        let list = List { points: points.to_vec(), expired: [0, 9].map(Lsn::new).to_vec() };
        let (path, bytes) = (Path::new(POINTS), encode(3, &list.points, &list.expired));
        assert_eq!(decode(path, &bytes, 3).unwrap(), list);
        assert_eq!(decode(path, &encode(3, &[], &[]), 3).unwrap(), List::default());
        let refused = |bytes: &[u8], store_id| {
            let error = decode(path, bytes, store_id).unwrap_err();
            assert!(matches!(error, Error::Corruption { .. } | Error::UnsupportedVersion { .. }), "{error}");
        };
        refused(&bytes, 4);
        refused(&[bytes.as_slice(), &[0]].concat(), 3);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            refused(&damaged, 3);
        }
        for cut in 0..bytes.len() {
            refused(&bytes[..cut], 3);
        }
    }

    #[test]
    fn as_many_as_there_can_be_fit() {
        let name = |number: usize| format!("{number:0>len$}", len = Point::NAME_LEN_MAX);
        let points: Vec<Point> = (0..Point::COUNT_MAX)
            .map(|number| Point { name: name(number), lsn: Lsn::new(1), unix_ms: 1, expires_unix_ms: None })
            .collect();
        let bytes = encode(3, &points, &vec![Lsn::new(u64::MAX); EXPIRED_MAX + 1]);
        assert!(bytes.len() as u64 <= LEN_MAX);
        assert_eq!(decode(Path::new(POINTS), &bytes, 3).unwrap().expired.len(), EXPIRED_MAX);
    }
}
