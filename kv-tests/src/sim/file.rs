use super::power_cut::{Dice, Fate};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The unit that the medium writes, bytes.
pub(super) const SECTOR_LEN: usize = 512;

/// The bytes of one file: those that reads return, and those on the medium. The images of a disk
/// share them until one of them changes.
#[derive(Clone, Debug, Default)]
pub(super) struct FileBytes {
    current: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// Sectors that the next sync writes.
    dirty: BTreeSet<usize>,
    /// Sectors whose write-back failed: reads return them, but no sync writes them.
    dropped: BTreeSet<usize>,
    /// Lengths since the last sync, except the present one.
    past_lengths: Vec<usize>,
}

/// A source of bytes that the medium held before this file was there.
pub(super) type Stale<'a> = dyn FnMut(&mut Dice) -> Vec<u8> + 'a;

impl FileBytes {
    pub(super) fn len(&self) -> usize {
        self.current.len()
    }

    pub(super) fn current(&self) -> &[u8] {
        &self.current
    }

    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: usize) -> usize {
        let rest = self.current.get(offset..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(rest) {
            *to = *from;
        }
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if end > self.current.len() {
            self.set_len(end);
        }
        if let Some(range) = Arc::make_mut(&mut self.current).get_mut(offset..end) {
            range.copy_from_slice(bytes);
        }
        for sector in offset / SECTOR_LEN..end.div_ceil(SECTOR_LEN) {
            self.dropped.remove(&sector);
            self.dirty.insert(sector);
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        let old = self.current.len();
        if len != old {
            self.past_lengths.push(old);
            // Cut-off bytes must read as zeros if the file grows again.
            self.dirty.extend(len / SECTOR_LEN..old.div_ceil(SECTOR_LEN).max(len / SECTOR_LEN));
            Arc::make_mut(&mut self.current).resize(len, 0);
        }
    }

    pub(super) fn sync(&mut self) {
        let durable = Arc::make_mut(&mut self.durable);
        durable.resize(self.current.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            copy_sector(&self.current, durable, sector, SECTOR_LEN);
        }
        self.past_lengths.clear();
    }

    pub(super) fn fail_sync(&mut self) {
        self.dropped.append(&mut self.dirty);
    }

    /// The file after a power cut, and a line for the report when something was unsynced.
    pub(super) fn after_power_cut(
        &self,
        dice: &mut Dice,
        stale: &mut Stale<'_>,
    ) -> (FileBytes, Option<String>) {
        let (synced, written) = (self.durable.len(), self.current.len());
        let unsettled: Vec<usize> = self.dirty.union(&self.dropped).copied().collect();
        if unsettled.is_empty() && self.past_lengths.is_empty() {
            return (FileBytes::sharing(Arc::clone(&self.durable)), None);
        }
        let len = if self.past_lengths.is_empty() {
            written
        } else {
            dice.len(synced, &self.past_lengths, written)
        };
        let mut left = Vec::clone(&self.durable);
        left.resize(len.max(synced), 0);
        let mut fates = Vec::with_capacity(unsettled.len());
        for sector in unsettled {
            let fate = dice.sector(SECTOR_LEN);
            let new = sector * SECTOR_LEN >= synced;
            match fate {
                Fate::Lost => {}
                Fate::Stale if !new => {}
                Fate::Stale => {
                    let bytes = stale(dice);
                    let start = sector * SECTOR_LEN;
                    for (to, from) in left.iter_mut().skip(start).take(SECTOR_LEN).zip(bytes) {
                        *to = from;
                    }
                }
                Fate::Kept => copy_sector(&self.current, &mut left, sector, SECTOR_LEN),
                Fate::Torn(count) => copy_sector(&self.current, &mut left, sector, count),
            }
            fates.push(format!("{sector} {fate:?}"));
        }
        left.truncate(len);
        let line = format!(
            "length {len} (synced {synced}, written {written}), sectors: {}",
            if fates.is_empty() { "none unsynced".to_owned() } else { fates.join(", ").to_lowercase() }
        );
        (FileBytes::holding(left), Some(line))
    }

    /// A file that holds `bytes` on the medium, too.
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        FileBytes::sharing(Arc::new(bytes))
    }

    fn sharing(bytes: Arc<Vec<u8>>) -> Self {
        FileBytes { durable: Arc::clone(&bytes), current: bytes, ..FileBytes::default() }
    }
}

/// Copies the first `count` bytes of a sector, as far as `to` reaches. Bytes beyond the end of
/// `from` are zero.
fn copy_sector(from: &[u8], to: &mut [u8], sector: usize, count: usize) {
    let start = sector * SECTOR_LEN;
    let end = (start + count).min(to.len());
    if let Some(to) = to.get_mut(start..end) {
        let from = from.get(start..).unwrap_or_default();
        for (at, byte) in to.iter_mut().enumerate() {
            *byte = from.get(at).copied().unwrap_or(0);
        }
    }
}
