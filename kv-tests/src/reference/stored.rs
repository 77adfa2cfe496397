//! The form in which a change reaches the file. Only defects store another one than the change
//! itself.

use super::Defect;
use super::log::Map;
use kv_core::Change;
use std::borrow::Cow;

/// What two bytes can count.
const TWO_BYTES: usize = 0xffff;

/// The key and value as the file holds them.
fn pair<'a>(defect: Defect, key: &'a [u8], value: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let key_len = match defect {
        Defect::KeyLengthInOneByte => key.len() & 0xff,
        Defect::KeysEndAtZero => key.iter().position(|byte| *byte == 0).unwrap_or(key.len()),
        _ => key.len(),
    };
    let value_len = match defect {
        Defect::ValueLengthInTwoBytes => value.len() & TWO_BYTES,
        Defect::ValueLengthInThreeBytes => value.len() & 0xff_ffff,
        Defect::ValuesCutAtMebibyte => value.len().min(1 << 20),
        _ => value.len(),
    };
    (key.get(..key_len).unwrap_or_default(), value.get(..value_len).unwrap_or_default())
}

/// The changes of a record as the file holds them.
pub(super) fn changes(defect: Option<Defect>, changes: &[&Change]) -> Vec<Change> {
    let Some(defect) = defect else { return changes.iter().copied().cloned().collect() };
    let count = if defect == Defect::BatchCountsInTwoBytes { TWO_BYTES } else { changes.len() };
    let stored = |change: &&Change| match change {
        Change::Put { key, value } => {
            let (key, value) = pair(defect, key, value);
            Change::Put { key: key.to_vec(), value: value.to_vec() }
        }
        Change::Delete { key } => Change::Delete { key: pair(defect, key, b"").0.to_vec() },
    };
    changes.iter().take(count).map(stored).collect()
}

/// The whole map as the first record of a file holds it.
pub(super) fn map(defect: Option<Defect>, map: &Map) -> Cow<'_, Map> {
    let Some(defect) = defect else { return Cow::Borrowed(map) };
    let mut rest = match defect {
        Defect::SnapshotEndsAt64K => 1 << 16,
        _ => usize::MAX,
    };
    let count = if defect == Defect::SnapshotCountsInTwoBytes { TWO_BYTES } else { map.len() };
    let stored = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        let is_skipped = match defect {
            Defect::EmptyKeyNotStored => key.is_empty(),
            Defect::EmptyValuesNotStored => value.is_empty(),
            _ => false,
        };
        rest = rest.saturating_sub(key.len() + value.len());
        let (key, value) = pair(defect, key, value);
        (!is_skipped && rest > 0).then(|| (key.to_vec(), value.to_vec()))
    };
    Cow::Owned(map.iter().take(count).filter_map(stored).collect())
}
