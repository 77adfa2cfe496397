//! Random histories, damaged anywhere.

use kv_core::{Batch, Compact, Engine, Manual};
use kv_log::{LogEngine, Options};
use kv_wal_format::{SEGMENT_HEADER_LEN, Scanner, SegmentHeader};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::place::{Place, examine};
use super::store_files::{segment_files, small};

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Batch(Vec<(u8, u8)>),
    Sync,
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12_u8, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => (0..12_u8).prop_map(Step::Delete),
        2 => prop::collection::vec((0..12_u8, any::<u8>()), 2..4).prop_map(Step::Batch),
        1 => Just(Step::Sync),
        1 => Just(Step::Compact),
    ]
}

/// The values of each key, the oldest first. `None`: the key was absent.
type Histories = BTreeMap<u8, Vec<Option<Vec<u8>>>>;

fn run(store: &LogEngine, steps: &[Step]) -> Histories {
    let mut histories: Histories = (0..12).map(|key| (key, vec![None])).collect();
    let long = |value: u8| vec![value; 60 + usize::from(value)];
    for step in steps {
        match step {
            Step::Put(key, value) => {
                store.put(&[*key], &long(*value)).unwrap();
                histories.get_mut(key).unwrap().push(Some(long(*value)));
            }
            Step::Delete(key) => {
                store.delete(&[*key]).unwrap();
                histories.get_mut(key).unwrap().push(None);
            }
            Step::Batch(pairs) => {
                let mut batch = Batch::new();
                let newest: BTreeMap<u8, u8> = pairs.iter().copied().collect();
                for (key, value) in newest {
                    batch.put(&[key], &long(value));
                    histories.get_mut(&key).unwrap().push(Some(long(value)));
                }
                store.apply(&batch).unwrap();
            }
            Step::Sync => drop(store.sync().unwrap()),
            Step::Compact => drop(store.compact().unwrap()),
        }
    }
    histories
}

/// The keys whose newest records, or records of the same batch, lie in changed bytes.
fn touched(clean: &[u8], damaged: &[u8]) -> BTreeSet<u64> {
    let header = SegmentHeader::decode(clean).unwrap();
    let scanner = Scanner::new(header.origin(), clean, SEGMENT_HEADER_LEN);
    let changes = scanner.filter(|(_, record)| record.kind.is_change());
    let hit = changes.filter(|(range, _)| damaged.get(range.clone()) != clean.get(range.clone()));
    hit.map(|(_, record)| record.lsn).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// A repaired key has a value that it had at some time. A key whose newest change was not hit,
    /// nor the batch of that change, has its newest value.
    #[test]
    fn a_repaired_key_has_a_value_that_it_had(
        steps in prop::collection::vec(step(), 10..120),
        file: prop::sample::Index,
        at: prop::sample::Index,
        len in 1..300_usize,
        byte: Option<u8>,
    ) {
        let place = Place::new();
        let store = LogEngine::open(place.src(), small(Manual)).unwrap();
        let histories = run(&store, &steps);
        store.close().unwrap();
        let newest_lsns = newest_lsns(&place.src());
        let files = segment_files(&place.src());
        let path = file.get(&files);
        let clean = fs::read(path).unwrap();
        let mut damaged = clean.clone();
        let start = at.index(clean.len());
        match byte {
            Some(byte) => damaged[start..(start + len).min(clean.len())].fill(byte),
            None => damaged.truncate(start),
        }
        fs::write(path, &damaged).unwrap();
        let hit = touched(&clean, &damaged);
        let found = examine(&place.src());
        // Damage to what recovery calls torn is none to an opening, too.
        let opens = LogEngine::open(place.src(), Options { read_only: true, ..small(Manual) }).is_ok();
        prop_assert_eq!(found.damages.is_empty(), opens, "{:?}", found.damages);
        place.repair();
        let pairs = place.repaired();
        for (key, history) in &histories {
            let value = pairs.get([*key].as_slice()).cloned();
            prop_assert!(history.contains(&value), "key {} has {:?}", key, value);
            if newest_lsns.get(key).is_none_or(|lsn| !hit.contains(lsn)) {
                prop_assert_eq!(&value, history.last().unwrap(), "key {}", key);
            }
        }
    }
}

/// The LSN of the newest change of each key.
fn newest_lsns(dir: &Path) -> BTreeMap<u8, u64> {
    let mut newest: BTreeMap<u8, u64> = BTreeMap::new();
    for path in segment_files(dir) {
        let bytes = fs::read(path).unwrap();
        let (_, scanner) = Scanner::open(&bytes).unwrap();
        for (_, record) in scanner.filter(|(_, record)| record.kind.is_change()) {
            let lsn = newest.entry(record.key[0]).or_default();
            *lsn = record.lsn.max(*lsn);
        }
    }
    newest
}
