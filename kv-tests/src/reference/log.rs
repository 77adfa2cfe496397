//! The bytes of the file.
//!
//! ```text
//! file    = magic "KVTESTS1", epoch u64, checksum of both u64, record...
//! record  = length of the body u32, checksum of epoch and body u64, body
//! body    = LSN u64, change...
//! change  = 0, key            a delete
//!         | 1, key, value     a put
//! key, value = length u32, bytes
//! ```
//! Numbers are little-endian. The epoch takes part in every checksum, so stale bytes of an earlier file are
//! never taken for records. The last LSN of an epoch is known from its records; the LSNs of an epoch begin at
//! `epoch << 32`, so none is used twice.

use kv_core::Change;
use std::collections::BTreeMap;

const MAGIC: &[u8; 8] = b"KVTESTS1";

/// Keys and values.
pub(super) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) epoch: u64,
    pub(super) map: Map,
    pub(super) last: u64,
}

/// The beginning of a file.
pub(super) fn header(epoch: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(epoch.to_le_bytes());
    bytes.extend(checksum(0, &bytes).to_le_bytes());
    bytes
}

/// One record.
pub(super) fn record<'a>(epoch: u64, lsn: u64, changes: impl IntoIterator<Item = &'a Change>) -> Vec<u8> {
    let mut body = lsn.to_le_bytes().to_vec();
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
    let mut bytes = len_u32(body.len()).to_le_bytes().to_vec();
    bytes.extend(checksum(epoch, &body).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// A whole map as one record.
pub(super) fn snapshot(epoch: u64, lsn: u64, map: &Map) -> Vec<u8> {
    let put = |(key, value): (&Vec<u8>, &Vec<u8>)| Change::Put { key: key.clone(), value: value.clone() };
    let changes: Vec<Change> = map.iter().map(put).collect();
    record(epoch, lsn, &changes)
}

fn part(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend(len_u32(part.len()).to_le_bytes());
    bytes.extend(part);
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("the limits keep every part and record below 4 GiB")
}

/// Reads a file up to its torn tail; `None` if not even its header is right.
pub(super) fn decode(bytes: &[u8], trust: bool) -> Option<Content> {
    let mut rest = bytes;
    let head = take(&mut rest, MAGIC.len() + 8)?;
    let epoch = u64::from_le_bytes(*head.last_chunk()?);
    let right = head.starts_with(MAGIC) && number(&mut rest)? == checksum(0, head);
    let mut content = Content { epoch, ..Content::default() };
    while let Some((lsn, changes)) = decode_record(&mut rest, epoch, trust) {
        content.last = lsn;
        for change in changes {
            apply(&mut content.map, &change);
        }
    }
    right.then_some(content)
}

fn decode_record(rest: &mut &[u8], epoch: u64, trust: bool) -> Option<(u64, Vec<Change>)> {
    let len = length(rest)?;
    let sum = number(rest)?;
    let mut body = take(rest, len)?;
    if !trust && sum != checksum(epoch, body) {
        return None;
    }
    let lsn = number(&mut body)?;
    let mut changes = Vec::new();
    while let Some(kind) = take(&mut body, 1) {
        let len = length(&mut body)?;
        let key = take(&mut body, len)?.to_vec();
        changes.push(if kind == [0] {
            Change::Delete { key }
        } else {
            let len = length(&mut body)?;
            Change::Put { key, value: take(&mut body, len)?.to_vec() }
        });
    }
    Some((lsn, changes))
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

    fn file() -> Vec<u8> {
        let changes = [put(b"b", b"2"), Change::Delete { key: b"a".to_vec() }];
        [header(7), record(7, 3, &[put(b"a", b"1")]), record(7, 4, &changes)].concat()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let content = decode(&file(), false).unwrap();
        assert_eq!((content.epoch, content.last), (7, 4));
        assert_eq!(content.map, Map::from([(b"b".to_vec(), b"2".to_vec())]));
        let again = [header(8), snapshot(8, 4, &content.map)].concat();
        assert_eq!(decode(&again, false).unwrap().map, content.map);
    }

    #[test]
    fn every_prefix_holds_a_prefix_of_the_records() {
        let file = file();
        for len in 0..file.len() {
            match decode(&file[..len], false) {
                None => assert!(len < header(7).len()),
                Some(content) => assert!(matches!((content.last, content.map.len()), (0, 0) | (3, 1))),
            }
        }
    }

    #[test]
    fn records_of_another_epoch_are_none() {
        let stale = [header(8), record(7, 3, &[put(b"a", b"1")])].concat();
        assert!(decode(&stale, false).unwrap().map.is_empty());
    }
}
