//! The bytes of the file.
//!
//! ```text
//! file    = header, record...
//! header  = magic "KVTESTS1", epoch u64, length of header and first record u64, checksum of all that u64
//! record  = length of the body u32, checksum of epoch and body u64, body
//! body    = LSN u64, LSN that was durable when it was written u64, time u64, change...
//! change  = 0, key            a delete
//!         | 1, key, value     a put
//!         | 2, name, LSN u64, time u64, expiry u64    a point
//! key, value = length u32, bytes
//! ```
//! Numbers are little-endian. Every checksum covers the epoch, so recovery never takes stale bytes
//! of an earlier file for records. Each open begins a new epoch, and its LSNs begin at
//! `epoch << 32`: the engine gives out none twice.
//!
//! The first record holds a whole map: the newest one, or the one at the beginning of the window.
//! Then the changes of the window follow. All of that is synced before the file gets its name. Of
//! the other records the last ones may be torn. But each record also names an LSN that was durable
//! when it was written. If that LSN is beyond the last readable record, the unreadable bytes before
//! it are damage and no torn tail.

use super::Defect;
use super::past::{Made, Past};
use kv_core::{Change, Lsn, Point};
use std::collections::BTreeMap;

const MAGIC: &[u8; 8] = b"KVTESTS1";

/// Keys and values.
pub(super) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The content of a file.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) epoch: u64,
    pub(super) map: Map,
    pub(super) last: u64,
    /// The highest LSN that a record names as durable: it was synced before that record was
    /// written.
    pub(super) durable: u64,
    /// The past states, and the points.
    pub(super) past: Past,
    /// The file holds no more than it had when it got its name: the store was closed, or nothing
    /// changed since.
    pub(super) clean: bool,
    /// Records, bytes, and bytes of a torn tail that recovery found.
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) torn_bytes: u64,
}

/// The position and kind of damage.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) offset: usize,
    pub(super) detail: &'static str,
}

const HEADER_LEN: usize = 32;

/// The beginning of a file: its header, and the whole map as the first record.
pub(super) fn file(epoch: u64, lsn: u64, durable: u64, map: &Map, past: &Past) -> Vec<u8> {
    let mut first = if past.made.is_empty() {
        snapshot(epoch, lsn, durable, map, past)
    } else {
        snapshot(epoch, past.base_lsn, durable.min(past.base_lsn), &past.base, past)
    };
    for Made { lsn, unix_ms, changes } in &past.made {
        first.extend(record(epoch, *lsn, durable.min(*lsn), *unix_ms, changes));
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(epoch.to_le_bytes());
    bytes.extend(((HEADER_LEN + first.len()) as u64).to_le_bytes());
    bytes.extend(checksum(0, &bytes).to_le_bytes());
    bytes.extend(first);
    bytes
}

/// The length of [`file`] for a map.
pub(super) fn file_len(map: &Map, past: &Past) -> u64 {
    const PUT_LEN: usize = 1 + 4 + 4;
    const POINT_LEN: usize = 1 + 4 + 8 + 8 + 8;
    let map = if past.made.is_empty() { map } else { &past.base };
    let puts: usize = map.iter().map(|(key, value)| PUT_LEN + key.len() + value.len()).sum();
    let points: usize = past.points.iter().map(|point| POINT_LEN + point.name.len()).sum();
    (HEADER_LEN + RECORD_LEN + puts + points) as u64 + past.bytes()
}

const RECORD_LEN: usize = 4 + 8 + 8 + 8 + 8;

/// The length of the record of these changes.
pub(super) fn record_len(changes: &[Change]) -> u64 {
    let len = |change: &Change| match change {
        Change::Put { key, value } => 1 + 4 + key.len() + 4 + value.len(),
        Change::Delete { key } => 1 + 4 + key.len(),
    };
    (RECORD_LEN + changes.iter().map(len).sum::<usize>()) as u64
}

/// One record.
pub(super) fn record<'a>(
    epoch: u64,
    lsn: u64,
    durable: u64,
    unix_ms: u64,
    changes: impl IntoIterator<Item = &'a Change>,
) -> Vec<u8> {
    let mut body = [lsn, durable, unix_ms].map(u64::to_le_bytes).concat();
    for change in changes {
        match change {
            Change::Delete { key } => {
                body.push(0);
                part(&mut body, key);
            }
            Change::Put { key, value } => {
                body.push(1);
                part(&mut body, key);
                part(&mut body, value);
            }
        }
    }
    framed(epoch, &body)
}

/// A record with this body.
fn framed(epoch: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = len_u32(body.len()).to_le_bytes().to_vec();
    bytes.extend(checksum(epoch, body).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// A whole map and the points as one record.
fn snapshot(epoch: u64, lsn: u64, durable: u64, map: &Map, past: &Past) -> Vec<u8> {
    let mut body = [lsn, durable, past.base_unix_ms].map(u64::to_le_bytes).concat();
    for Point { name, lsn, unix_ms, expires_unix_ms } in &past.points {
        body.push(2);
        part(&mut body, name.as_bytes());
        let numbers = [lsn.get(), *unix_ms, expires_unix_ms.unwrap_or(u64::MAX)];
        body.extend(numbers.map(u64::to_le_bytes).as_flattened());
    }
    for (key, value) in map {
        body.push(1);
        part(&mut body, key);
        part(&mut body, value);
    }
    framed(epoch, &body)
}

fn part(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend(len_u32(part.len()).to_le_bytes());
    bytes.extend(part);
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("the limits keep every part and record below 4 GiB")
}

/// Reads a file up to its torn tail.
pub(super) fn decode(bytes: &[u8], defect: Option<Defect>) -> Result<Content, Damage> {
    let header = || -> Option<(u64, usize)> {
        let (header, _) = bytes.split_at_checked(HEADER_LEN)?;
        let (covered, mut sum) = header.split_at_checked(HEADER_LEN - 8)?;
        let mut rest = covered.strip_prefix(MAGIC)?;
        let (epoch, whole) = (number(&mut rest)?, number(&mut rest)?);
        (number(&mut sum)? == checksum(0, covered)).then_some(())?;
        Some((epoch, usize::try_from(whole).ok()?))
    };
    let (epoch, whole) = header().ok_or(Damage { offset: 0, detail: "the header is damaged" })?;
    let mut content = Content { epoch, ..Content::default() };
    let mut rest = bytes.get(HEADER_LEN..).unwrap_or_default();
    let mut first = true;
    loop {
        let before = rest;
        let unchecked = match defect {
            Some(Defect::FirstRecordUnchecked) => first,
            Some(Defect::LargeRecordsUnchecked) => first && rest.len() > LARGE,
            _ => false,
        };
        let defect = if unchecked { Some(Defect::NoChecksum) } else { defect };
        let Some(record) = decode_record(&mut rest, epoch, defect) else {
            rest = before;
            break;
        };
        // A stale record, of the file that this one replaced.
        if !first && record.lsn <= content.last {
            rest = before;
            break;
        }
        let Record { lsn, unix_ms, changes, .. } = record;
        content.records += 1;
        content.durable = content.durable.max(record.durable);
        if first {
            content.past.begin(lsn, unix_ms, record.points);
        } else {
            content.past.recovered(&content.map, Made { lsn, unix_ms, changes: changes.clone() });
        }
        (first, content.last) = (false, lsn);
        for change in changes {
            apply(&mut content.map, &change);
        }
    }
    let offset = bytes.len() - rest.len();
    (content.bytes, content.torn_bytes) = (bytes.len() as u64, rest.len() as u64);
    if defect == Some(Defect::ResyncsInTail) {
        resync(&mut content, rest);
    }
    content.clean = offset == whole;
    let is_ignored = match defect {
        Some(Defect::CutAfterCloseIgnored) => bytes.len() < whole,
        Some(Defect::ZerosAreTheEnd) => bytes.last() == Some(&0),
        _ => false,
    };
    if offset < whole && !is_ignored {
        return Err(Damage { offset, detail: "the first record is damaged" });
    }
    let lost = |record: Record| record.durable > content.last;
    let later = (1..rest.len()).filter_map(|at| decode_record(&mut rest.get(at..)?, epoch, defect));
    if defect != Some(Defect::TruncatesMidLog) && later.into_iter().any(lost) {
        return Err(Damage {
            offset,
            detail: "a record is damaged, and a later one says that it was durable",
        });
    }
    Ok(content)
}

/// A record of more bytes is large to a defect.
const LARGE: usize = 4096;

/// Applies every record that begins at any byte of a torn tail.
fn resync(content: &mut Content, tail: &[u8]) {
    for at in 1..tail.len() {
        let record = tail.get(at..).and_then(|mut rest| decode_record(&mut rest, content.epoch, None));
        record.iter().flat_map(|record| &record.changes).for_each(|change| apply(&mut content.map, change));
    }
}

struct Record {
    lsn: u64,
    durable: u64,
    unix_ms: u64,
    points: Vec<Point>,
    changes: Vec<Change>,
}

fn decode_record(rest: &mut &[u8], epoch: u64, defect: Option<Defect>) -> Option<Record> {
    let len = length(rest)?;
    let sum = number(rest)?;
    let mut body = take(rest, len)?;
    if defect != Some(Defect::NoChecksum) && sum != checksum(epoch, body) {
        return None;
    }
    let (lsn, durable, unix_ms) = (number(&mut body)?, number(&mut body)?, number(&mut body)?);
    let (mut points, mut changes) = (Vec::new(), Vec::new());
    while let Some(kind) = take(&mut body, 1) {
        let len = length(&mut body)?;
        let key = take(&mut body, len)?.to_vec();
        if kind == [2] {
            let name = String::from_utf8(key).ok()?;
            let (lsn, unix_ms) = (Lsn::new(number(&mut body)?), number(&mut body)?);
            let expires_unix_ms = Some(number(&mut body)?).filter(|time| *time < u64::MAX);
            points.push(Point { name, lsn, unix_ms, expires_unix_ms });
            continue;
        }
        changes.push(if kind == [0] {
            Change::Delete { key }
        } else {
            let len = length(&mut body)?;
            Change::Put { key, value: take(&mut body, len)?.to_vec() }
        });
    }
    Some(Record { lsn, durable, unix_ms, points, changes })
}

/// Applies one change to a map.
pub(super) fn apply(map: &mut Map, change: &Change) {
    match change {
        Change::Put { key, value } => drop(map.insert(key.clone(), value.clone())),
        Change::Delete { key } => drop(map.remove(key)),
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    take(rest, 8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    let bytes = take(rest, 4)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

/// FNV-1a over the epoch and the bytes.
fn checksum(epoch: u64, bytes: &[u8]) -> u64 {
    let all = epoch.to_le_bytes();
    all.iter()
        .chain(bytes)
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &[u8], value: &[u8]) -> Change {
        Change::Put { key: key.to_vec(), value: value.to_vec() }
    }

    const DELETE_A: &[u8] = b"a";

    /// A map at LSN 2, and two records.
    fn sample() -> Vec<u8> {
        let map = Map::from([(b"z".to_vec(), b"0".to_vec())]);
        let changes = [put(b"b", b"2"), Change::Delete { key: DELETE_A.to_vec() }];
        let past = Past::default();
        [file(7, 2, 1, &map, &past), record(7, 3, 2, 30, &[put(b"a", b"1")]), record(7, 4, 3, 40, &changes)]
            .concat()
    }

    #[test]
    fn a_file_decodes_to_its_content() {
        let content = decode(&sample(), None).unwrap();
        assert_eq!((content.epoch, content.last, content.durable), (7, 4, 3));
        let expected = [(b"b".to_vec(), b"2".to_vec()), (b"z".to_vec(), b"0".to_vec())];
        assert_eq!(content.map, Map::from(expected));
        assert_eq!(
            content.past.made.iter().map(|made| (made.lsn, made.unix_ms)).collect::<Vec<_>>(),
            [(3, 30), (4, 40)]
        );
        let point = Point { name: "p".to_owned(), lsn: Lsn::new(3), unix_ms: 30, expires_unix_ms: Some(90) };
        for past in [Past::default(), Past { points: vec![point], ..content.past }] {
            let file = file(8, 4, 4, &content.map, &past);
            assert_eq!(file.len() as u64, file_len(&content.map, &past));
            let again = decode(&file, None).unwrap();
            assert_eq!((&again.map, again.clean, again.last), (&content.map, true, 4));
            assert_eq!((again.past.made.len(), &again.past.points), (past.made.len(), &past.points));
        }
    }

    #[test]
    fn every_prefix_holds_a_prefix_of_the_records() {
        let sample = sample();
        let whole = file(7, 2, 1, &Map::from([(b"z".to_vec(), b"0".to_vec())]), &Past::default()).len();
        for len in 0..sample.len() {
            match decode(&sample[..len], None) {
                Err(_) => assert!(len < whole),
                Ok(content) => assert!(matches!((content.last, content.map.len()), (2, 1) | (3, 2))),
            }
        }
    }

    #[test]
    fn damage_before_something_that_says_it_was_durable_is_no_torn_tail() {
        let sample = sample();
        let last = record(7, 4, 3, 40, &[put(b"b", b"2"), Change::Delete { key: DELETE_A.to_vec() }]).len();
        for at in 0..sample.len() {
            let mut damaged = sample.clone();
            damaged[at] ^= 1;
            let decoded = decode(&damaged, None);
            assert_eq!(decoded.is_ok(), at >= sample.len() - last, "byte {at}: {decoded:?}");
        }
    }

    #[test]
    fn records_of_another_epoch_are_none() {
        let stale =
            [file(8, 0, 0, &Map::new(), &Past::default()), record(7, 3, 0, 0, &[put(b"a", b"1")])].concat();
        assert!(decode(&stale, None).unwrap().map.is_empty());
    }
}
