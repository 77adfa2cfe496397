//! A snapshot: all keys and values at the beginning of a generation, with one checksum.

use super::control::Control;
use super::defect::{Broken, Defect};
use super::format::{Cursor, checksum};
use super::tree::Tree;
use super::wal;
use kv_core::{Error, Result};
use std::path::Path;

const MAGIC: u64 = u64::from_le_bytes(*b"pagedSNP");
/// Bytes of a snapshot without entries.
const FRAME_LEN: u64 = 56;
/// Bytes that an entry takes beside its key and value.
const ENTRY_OVERHEAD: u64 = 7;

/// Length of the snapshot of so many keys, whose keys and values have so many bytes.
pub(crate) fn len(keys: u64, live_bytes: u64) -> u64 {
    FRAME_LEN + keys * ENTRY_OVERHEAD + live_bytes
}

/// The numbers of a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Head {
    pub(crate) last_lsn: u64,
    /// How far the changes were durable before the snapshot was written.
    pub(crate) durable_lsn: u64,
}

pub(crate) fn encode(control: &Control, head: Head, tree: &Tree, broken: Broken) -> Vec<u8> {
    let mut bytes = Vec::new();
    let numbers =
        [MAGIC, u64::from(control.store_id), control.generation, head.last_lsn, head.durable_lsn, 0];
    for number in numbers {
        bytes.extend(number.to_le_bytes());
    }
    let mut count = 0_u64;
    for entry in tree.entries() {
        let value = entry.value.as_ref();
        if value.is_empty() && broken.is(Defect::SnapshotSkipsEmptyValues) {
            continue;
        }
        if bytes.len() > 1 << 16 && broken.is(Defect::SnapshotEndsAt64KiB) {
            break;
        }
        if count == 0xffff && broken.is(Defect::SnapshotCountIsU16) {
            break;
        }
        let short = if broken.is(Defect::SnapshotValueLenIsU16) { value.len() & 0xffff } else { value.len() };
        wal::push_entry(&mut bytes, 1, &entry.key, value.get(..short).unwrap_or(value), broken);
        count += 1;
    }
    if let Some(place) = bytes.get_mut(40..48) {
        place.copy_from_slice(&count.to_le_bytes());
    }
    bytes.extend(checksum(MAGIC, covered(&bytes, broken)).to_le_bytes());
    bytes
}

fn covered(body: &[u8], broken: Broken) -> &[u8] {
    if broken.is(Defect::SnapshotSumCoversHead) { body.get(..48).unwrap_or(body) } else { body }
}

/// Reads the snapshot of `control`'s generation into `load`; returns its numbers, and how many keys
/// it has.
pub(crate) fn decode(
    bytes: &[u8],
    path: &Path,
    control: &Control,
    broken: Broken,
    load: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<(Head, u64)> {
    let damaged = |detail: &str| Error::corruption(path, 0, detail);
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(|| damaged("it is too short"))?;
    if checksum(MAGIC, covered(body, broken)) != u64::from_le_bytes(*sum) {
        return Err(damaged("the checksum does not fit"));
    }
    read(body, control, broken, load).ok_or_else(|| damaged("this is not the snapshot of this generation"))
}

fn read(
    body: &[u8],
    control: &Control,
    broken: Broken,
    load: &mut dyn FnMut(&[u8], &[u8]),
) -> Option<(Head, u64)> {
    let mut rest = Cursor(body);
    (rest.u64()? == MAGIC).then_some(())?;
    let is_own = rest.u64()? == u64::from(control.store_id) || broken.is(Defect::StoreIdUnchecked);
    let is_present = rest.u64()? == control.generation || broken.is(Defect::SnapshotGenerationUnchecked);
    (is_own && is_present).then_some(())?;
    let head = Head { last_lsn: rest.u64()?, durable_lsn: rest.u64()? };
    let count = rest.u64()?;
    for _ in 0..count {
        let (_, key, value) = wal::entry(&mut rest)?;
        load(key, value);
    }
    rest.0.is_empty().then_some((head, count))
}
