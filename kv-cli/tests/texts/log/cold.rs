use super::store::{FIRST, open_with, options};
use crate::disk::{edit, remove};
use crate::listing::{Row, text};
use kv_core::{
    Compact, CompactionLevel, CompactionPlan, CompactionPolicy, CompactionView, Engine, SegmentId,
};
use kv_log::{LogEngine, Options};
use kv_tests::sim::SimFs;
use kv_wal_format::{SEGMENT_HEADER_LEN, SMALL_HEADER_LEN};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Compacts the first segment, when it is told to.
#[derive(Debug, Default)]
struct First {
    is_told: AtomicBool,
}

impl CompactionPolicy for First {
    fn plan(&self, _: &CompactionView<'_>) -> Option<CompactionPlan> {
        let victims = vec![SegmentId::new(1)];
        let is_told = self.is_told.load(Ordering::Relaxed);
        is_told.then_some(CompactionPlan { level: CompactionLevel::Disk, victims })
    }
}

/// Keys in the first and in the second segment, and the place of the first one's record.
const KEY: [u8; 4] = [0, 0, 0, 1];
const OTHER: [u8; 4] = [0, 0, 0, 15];
const RECORD: usize = SEGMENT_HEADER_LEN + SMALL_HEADER_LEN + 4 + 60;

/// A store that is larger than its memory: the records of the first segments lie in their files
/// only. At most one of these files is open at a time, here that of the second segment.
fn cold(policy: Arc<First>) -> (SimFs, LogEngine) {
    let (disk, options) = (SimFs::new(), Options { open_files_max: 1, compaction: policy, ..options() });
    let store = open_with(&disk, options.with_memory_budget(32 << 10)).unwrap();
    for number in 0..1000_u32 {
        store.put(&number.to_be_bytes(), &[7; 60]).unwrap();
    }
    store.sync().unwrap();
    store.get(&OTHER).unwrap().unwrap();
    (disk, store)
}

fn get_after(damage: impl FnOnce(&SimFs)) -> String {
    let (disk, store) = cold(Arc::default());
    damage(&disk);
    text(store.get(&KEY))
}

fn compact_after(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let policy = Arc::<First>::default();
    let (disk, store) = cold(Arc::clone(&policy));
    edit(&disk, FIRST, change);
    policy.is_told.store(true, Ordering::Relaxed);
    text(store.compact())
}

pub(crate) fn rows() -> Vec<Row> {
    let get = |change: fn(&mut Vec<u8>)| get_after(|disk| edit(disk, FIRST, change));
    vec![
        ("get: the record's file was removed", get_after(|disk| remove(disk, FIRST))),
        ("get: the record's file was cut before it", get(|bytes| bytes.truncate(RECORD))),
        ("get: the record's file was cut within it", get(|bytes| bytes.truncate(RECORD + 40))),
        ("get: zeros are in place of the record", get(|bytes| bytes[RECORD..].fill(0))),
        ("get: a bit of the record's header changed", get(|bytes| bytes[RECORD + 4] ^= 1)),
        ("get: a bit of the record's value changed", get(|bytes| bytes[RECORD + 40] ^= 1)),
        ("compact: a segment's file was cut", compact_after(|bytes| bytes.truncate(500))),
        ("compact: a bit of a record changed", compact_after(|bytes| bytes[RECORD + 40] ^= 1)),
    ]
}
