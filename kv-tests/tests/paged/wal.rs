//! The log of a generation: a header, then frames.
//!
//! ```text
//! record   length of payload u64, LSN u64, checksum u64, payload
//! payload  number of entries u32, entries
//! entry    1 put or 0 delete u8, key length u16, value length u32, key, value
//! mark     MARK u64, offset u64, durable LSN u64, checksum so far u64, checksum u64
//! ```
//!
//! Each checksum continues that of the frame before. A mark follows a sync, and proves that
//! everything before it was synced: damage there is no torn tail.

use super::control::{Control, End};
use super::defect::{Broken, Defect};
use super::format::{Cursor, checksum};
use kv_core::{Change, Error, Result};
use std::path::Path;

const MAGIC: u64 = u64::from_le_bytes(*b"pagedWAL");
const MARK: u64 = u64::from_le_bytes(*b"MARK\xff\xff\xff\xff");
pub(crate) const HEADER_LEN: u64 = 32;
pub(crate) const RECORD_HEAD: usize = 24;
const MARK_LEN: usize = 40;

/// The header, and the checksum that the first frame continues.
pub(crate) fn header(store_id: u32, generation: u64) -> (Vec<u8>, u64) {
    let mut bytes = Vec::new();
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend(u64::from(store_id).to_le_bytes());
    bytes.extend(generation.to_le_bytes());
    let sum = checksum(MAGIC, &bytes);
    bytes.extend(sum.to_le_bytes());
    (bytes, sum)
}

/// Appends a record whose checksum [`seal`] fills in.
pub(crate) fn push_record(buffer: &mut Vec<u8>, lsn: u64, changes: &[&Change], broken: Broken) {
    let start = buffer.len();
    buffer.extend([0; RECORD_HEAD]);
    let count = u32::try_from(changes.len()).unwrap_or(u32::MAX);
    let count = if broken.is(Defect::BatchCountIsU16) { count & 0xffff } else { count };
    buffer.extend(count.to_le_bytes());
    for change in changes {
        let (kind, value) = match change {
            Change::Put { value, .. } => (1_u8, value.as_slice()),
            Change::Delete { .. } => (0, &[][..]),
        };
        if value.is_empty() && kind == 1 && broken.is(Defect::EmptyPutLoggedAsDelete) {
            push_entry(buffer, 0, change.key(), value, broken);
        } else {
            push_entry(buffer, kind, change.key(), value, broken);
        }
    }
    let len = (buffer.len() - start - RECORD_HEAD) as u64;
    let head = buffer.get_mut(start..).and_then(|frame| frame.first_chunk_mut::<16>());
    if let Some(head) = head {
        *head = (u128::from(len) | u128::from(lsn) << 64).to_le_bytes();
    }
}

pub(crate) fn push_entry(buffer: &mut Vec<u8>, kind: u8, key: &[u8], value: &[u8], broken: Broken) {
    let mut key_len = u16::try_from(key.len()).unwrap_or(u16::MAX);
    if broken.is(Defect::KeyLenIsU8) {
        key_len &= 0xff;
    }
    let value_len = u32::try_from(value.len()).unwrap_or(u32::MAX);
    buffer.push(kind);
    buffer.extend(key_len.to_le_bytes());
    buffer.extend(value_len.to_le_bytes());
    buffer.extend(key.get(..usize::from(key_len)).unwrap_or(key));
    buffer.extend(value);
}

/// An entry: whether it is a put, its key, and its value.
pub(crate) fn entry<'a>(rest: &mut Cursor<'a>) -> Option<(bool, &'a [u8], &'a [u8])> {
    let kind = rest.u8().filter(|kind| *kind <= 1)?;
    let (key_len, value_len) = (rest.u16()?, rest.u32()?);
    let key = rest.take(usize::from(key_len))?;
    let value = rest.take(usize::try_from(value_len).ok()?)?;
    Some((kind == 1, key, value))
}

/// Fills in the checksums of whole records; returns the new checksum so far.
pub(crate) fn seal(buffer: &mut [u8], mut chain: u64, broken: Broken) -> u64 {
    let mut rest = buffer;
    while let Some((head, behind)) = rest.split_first_chunk_mut::<RECORD_HEAD>() {
        let Some(len) = Cursor(head).u64().and_then(|len| usize::try_from(len).ok()) else { break };
        let Some((payload, behind)) = behind.split_at_mut_checked(len) else { break };
        chain = record_sum(chain, head, payload, broken);
        if let Some(sum) = head.last_chunk_mut::<8>() {
            *sum = chain.to_le_bytes();
        }
        rest = behind;
    }
    chain
}

fn record_sum(chain: u64, head: &[u8; RECORD_HEAD], payload: &[u8], broken: Broken) -> u64 {
    let covered = if broken.is(Defect::LogLengthAndLsnUnsummed) { &[] } else { &head[..16] };
    checksum(checksum(chain, covered), payload)
}

/// A mark at `offset`, and its checksum.
pub(crate) fn mark(offset: u64, lsn: u64, chain: u64, seed: u64) -> (Vec<u8>, u64) {
    let mut bytes = Vec::new();
    for number in [MARK, offset, lsn, chain] {
        bytes.extend(number.to_le_bytes());
    }
    let sum = checksum(seed, &bytes);
    bytes.extend(sum.to_le_bytes());
    (bytes, sum)
}

/// Gets each entry of a log: whether it is a put, its key, and its value.
pub(crate) type Replay<'a> = dyn FnMut(bool, &[u8], &[u8]) + 'a;

/// What a log holds.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) records: u64,
    pub(crate) last_lsn: u64,
    /// The newest change that a mark proves durable.
    pub(crate) marked_lsn: u64,
    /// Bytes behind the last good frame.
    pub(crate) torn_bytes: u64,
    /// Where the last good frame ends.
    pub(crate) end: u64,
    /// The checksum so far, there.
    pub(crate) chain: u64,
}

/// Reads the log of `control`'s generation, and replays its entries with their LSNs.
pub(crate) fn scan(
    bytes: &[u8],
    path: &Path,
    control: &Control,
    snapshot_lsn: u64,
    broken: Broken,
    replay: &mut Replay<'_>,
) -> Result<Scanned> {
    let damaged = |offset: usize, detail: &str| Err(Error::corruption(path, offset as u64, detail));
    let (expected, mut seed) = header(control.store_id, control.generation);
    if broken.is(Defect::LogHeaderUnchecked) {
        seed = bytes.get(24..).and_then(|sum| Cursor(sum).u64()).unwrap_or(seed);
    }
    let header_len = expected.len();
    if bytes.get(..header_len) != Some(&expected) && !broken.is(Defect::LogHeaderUnchecked) {
        return damaged(0, "this is not the header of this log");
    }
    let mut scanned = Scanned { last_lsn: snapshot_lsn, ..Scanned::default() };
    let (mut at, mut chain) = (header_len, seed);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(frame) = frame(rest, at as u64, chain, seed, broken) else { break };
        if let Some(lsn) = frame.marked {
            scanned.marked_lsn = lsn;
        } else {
            if frame.lsn <= scanned.last_lsn {
                return damaged(at, "its LSNs do not grow");
            }
            if !replay_record(frame.payload, broken, replay) {
                return damaged(at, "a record holds nonsense");
            }
            scanned.last_lsn = frame.lsn;
            scanned.records += 1;
        }
        (at, chain) = (at + frame.len, frame.chain);
    }
    (scanned.end, scanned.chain) = (at as u64, chain);
    scanned.torn_bytes = bytes.len().saturating_sub(at) as u64;
    let end = End { len: bytes.len() as u64, chain };
    if control.end.is_some_and(|expected| expected != end || scanned.torn_bytes > 0)
        && !broken.is(Defect::EndNotProved)
    {
        return damaged(at, "the log does not end where it was closed");
    }
    if control.end.is_none() && is_marked_behind(bytes, at, seed) && !broken.is(Defect::MarkIgnored) {
        return damaged(at, "a later mark proves that it was whole");
    }
    if scanned.torn_bytes > 0 && broken.is(Defect::TornTailIsDamage) {
        return damaged(at, "the last record is torn");
    }
    Ok(scanned)
}

struct Frame<'a> {
    len: usize,
    chain: u64,
    lsn: u64,
    marked: Option<u64>,
    payload: &'a [u8],
}

/// The frame at the beginning of `rest`, if it is whole.
fn frame(rest: &[u8], at: u64, chain: u64, seed: u64, broken: Broken) -> Option<Frame<'_>> {
    if let Some((lsn, chain_before, sum)) = read_mark(rest, at, seed) {
        let chain_fits = chain_before == chain;
        return chain_fits.then_some(Frame {
            len: MARK_LEN,
            chain: sum,
            lsn,
            marked: Some(lsn),
            payload: &[],
        });
    }
    let (head, behind) = rest.split_first_chunk::<RECORD_HEAD>()?;
    let mut numbers = Cursor(head);
    let (len, lsn, sum) = (numbers.u64()?, numbers.u64()?, numbers.u64()?);
    let payload = behind.get(..usize::try_from(len).ok()?)?;
    let fits = record_sum(chain, head, payload, broken) == sum || broken.is(Defect::LogSumsIgnored);
    fits.then_some(Frame { len: RECORD_HEAD + payload.len(), chain: sum, lsn, marked: None, payload })
}

/// The LSN, the checksum before, and the own checksum of a mark at offset `at`.
fn read_mark(rest: &[u8], at: u64, seed: u64) -> Option<(u64, u64, u64)> {
    let mut numbers = Cursor(rest.get(..MARK_LEN)?);
    let (magic, offset) = (numbers.u64()?, numbers.u64()?);
    let (lsn, chain, sum) = (numbers.u64()?, numbers.u64()?, numbers.u64()?);
    (magic == MARK && offset == at && mark(at, lsn, chain, seed).1 == sum).then_some((lsn, chain, sum))
}

fn is_marked_behind(bytes: &[u8], at: usize, seed: u64) -> bool {
    let is_mark = |start: &usize| {
        let rest = bytes.get(*start..).unwrap_or_default();
        rest.starts_with(&MARK.to_le_bytes()) && read_mark(rest, *start as u64, seed).is_some()
    };
    (at..bytes.len()).find(is_mark).is_some()
}

/// Replays the payload of a record. Returns whether it makes sense.
pub(crate) fn replay_record(payload: &[u8], broken: Broken, replay: &mut Replay<'_>) -> bool {
    let mut rest = Cursor(payload);
    let Some(count) = rest.u32() else { return false };
    for number in 0..count {
        let Some((is_put, key, value)) = entry(&mut rest) else { return false };
        if number > 0 && broken.is(Defect::ReplaysFirstOfBatch) {
            continue;
        }
        if key.is_empty() && broken.is(Defect::EmptyKeyNotReplayed) {
            continue;
        }
        if !is_put && broken.is(Defect::DeletesNotReplayed) {
            continue;
        }
        replay(is_put, key, value);
    }
    true
}
