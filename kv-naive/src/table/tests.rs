use super::*;
use kv_core::parts::Position;
use kv_core::{Background, Batch, Error, Lsn};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn empty() -> Table {
    Table::new(Background::Inline)
}

#[test]
fn a_closed_table_takes_no_changes() {
    let table = empty();
    table.put(b"k", b"v").unwrap();
    assert_eq!(table.close(), Lsn::new(1));
    let mut batch = Batch::new();
    batch.put(b"k", b"w");
    assert!(matches!(table.put(b"k", b"w"), Err(Error::Closed)));
    assert!(matches!(table.delete(b"k"), Err(Error::Closed)));
    assert!(matches!(table.apply(&batch), Err(Error::Closed)));
    assert_eq!(table.get(b"k").as_deref(), Some(b"v".as_slice()));
}

#[test]
fn lsns_go_on_above_the_floor_and_totals_follow() {
    let mut table = empty();
    assert!(table.load(b"k", Entry { value: Arc::from(b"123".as_slice()), lsn: 5 }));
    assert!(!table.load(b"k", Entry { value: Arc::from([]), lsn: 6 }));
    table.start(Lsn::new(7), Lsn::new(100));
    assert_eq!(table.position(), Position { lsn: Lsn::new(7), changes: 0, bytes: 0 });
    assert_eq!(table.delete(b"absent").unwrap(), None);
    assert_eq!(table.last_lsn(), Lsn::new(7));
    assert_eq!(table.put(b"other", b"v").unwrap(), Lsn::new(101));
    assert_eq!(table.position(), Position { lsn: Lsn::new(101), changes: 1, bytes: 6 });
    let mut nothing = Batch::new();
    nothing.delete(b"absent").put(b"x", b"").delete(b"x");
    assert_eq!(table.apply(&nothing).unwrap(), None);
    assert_eq!(table.delete(b"other").unwrap(), Some(Lsn::new(102)));
    assert_eq!((table.len(), table.position().bytes), (1, 11));
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    let table = empty();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=5000u64 {
                let mut batch = Batch::new();
                for key in 0..8u8 {
                    batch.put(&[key], &number.to_le_bytes());
                }
                table.apply(&batch).unwrap();
            }
        });
        let read =
            |key: u8| table.get(&[key]).map_or(0, |value| u64::from_le_bytes((*value).try_into().unwrap()));
        let mut last = 0;
        while last < 5000 {
            let first = read(0);
            let second = read(7);
            assert!(second >= first && first >= last, "{last} {first} {second}");
            assert!(table.last_lsn().get() >= second);
            last = second;
        }
    });
}

/// The state of a cut; a key that comes twice fails the test.
fn state_of(cut: Cut<'_>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let (mut state, lsn) = (BTreeMap::new(), cut.position.lsn.get());
    let visited = cut.visit(|key, entry| {
        assert!(entry.lsn <= lsn);
        assert_eq!(state.insert(key.to_vec(), entry.value.to_vec()), None, "a key came twice");
        Ok::<(), ()>(())
    });
    visited.unwrap();
    state
}

#[test]
fn a_cut_is_the_state_at_its_beginning() {
    let table = empty();
    for key in 0..20u8 {
        table.put(&[key], b"old").unwrap();
    }
    let before: BTreeMap<_, _> = (0..20u8).map(|key| (vec![key], b"old".to_vec())).collect();
    let cut = table.begin_cut();
    for (key, value) in [(1, "new"), (1, "newer"), (99, "fresh")] {
        table.put(&[key], value.as_bytes()).unwrap();
    }
    assert!(table.delete(&[2]).unwrap().is_some());
    assert!(table.delete(&[3]).unwrap().is_some());
    table.put(&[3], b"back").unwrap();
    assert!(table.delete(&[3]).unwrap().is_some());
    let mut batch = Batch::new();
    batch.put(&[4], b"batch").delete(&[5]).delete(&[77]).put(&[4], b"again");
    assert_eq!(table.apply(&batch).unwrap(), Some(Lsn::new(28)));
    assert_eq!(state_of(cut), before);

    // The next one keeps nothing of this one.
    let after = state_of(table.begin_cut());
    assert_eq!(after.get([1].as_slice()), Some(&b"newer".to_vec()));
    assert_eq!((after.len(), after.get([4].as_slice())), (18, Some(&b"again".to_vec())));
    assert_eq!(table.live_bytes(), after.iter().map(|(k, v)| (k.len() + v.len()) as u64).sum::<u64>());
}

#[test]
fn entries_replaced_while_shards_are_copied_come_once() {
    let table = empty();
    for key in 0..2000u64 {
        table.put(&key.to_le_bytes(), b"old").unwrap();
    }
    let (mut visited, mut victims) = (BTreeSet::new(), (0..2000u64).rev());
    let result = table.begin_cut().visit(|key, entry| {
        assert!(visited.insert(key.to_vec()), "a key came twice");
        assert_eq!(&*entry.value, b"old");
        // Some victims lie in shards copied already, some in ones to come.
        let victim = victims.next().unwrap().to_le_bytes();
        if victim[0].is_multiple_of(2) {
            table.put(&victim, b"new").unwrap();
        } else {
            table.delete(&victim).unwrap();
            table.put(&victim, b"back").unwrap();
        }
        Ok::<(), ()>(())
    });
    result.unwrap();
    assert_eq!((visited.len(), table.len()), (2000, 2000));
}

#[test]
fn entries_that_a_cut_needs_are_counted_until_it_ends() {
    let table = empty();
    table.put(b"key", b"before").unwrap();
    table.put(b"other", b"before").unwrap();
    let cut = table.begin_cut();
    assert_eq!(table.kept_bytes(), 0);
    for _ in 0..2 {
        table.put(b"key", b"after").unwrap();
        table.delete(b"other").unwrap();
        table.put(b"new", b"after").unwrap();
    }
    assert_eq!(table.kept_bytes(), 9 + 11);
    assert_eq!(state_of(cut).len(), 2);
    assert_eq!(table.kept_bytes(), 0);
    let cut = table.begin_cut();
    table.delete(b"key").unwrap();
    assert_eq!(table.kept_bytes(), 8);
    drop(cut);
    assert_eq!(table.kept_bytes(), 0);
}

#[test]
fn a_cut_given_up_leaves_nothing() {
    let table = empty();
    table.put(b"a", b"1").unwrap();
    let cut = table.begin_cut();
    table.put(b"a", b"2").unwrap();
    cut.visit(|_, _| Err(())).unwrap_err();
    table.put(b"a", b"3").unwrap();
    let state = state_of(table.begin_cut());
    assert_eq!(state, BTreeMap::from([(b"a".to_vec(), b"3".to_vec())]));
}

/// A put, a delete, or a batch of two.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Batch(u8, u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..12u8;
    prop_oneof![
        (key(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        key().prop_map(Step::Delete),
        (key(), key(), any::<u8>()).prop_map(|(put, gone, value)| Step::Batch(put, gone, value)),
    ]
}

fn take(step: &Step, table: &Table, model: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    match *step {
        Step::Put(key, value) => {
            table.put(&[key], &[value]).unwrap();
            model.insert(vec![key], vec![value]);
        }
        Step::Delete(key) => {
            let found = table.delete(&[key]).unwrap().is_some();
            assert_eq!(model.remove([key].as_slice()).is_some(), found);
        }
        Step::Batch(put, gone, value) => {
            let mut batch = Batch::new();
            batch.put(&[put], &[value]).delete(&[gone]);
            table.apply(&batch).unwrap();
            model.insert(vec![put], vec![value]);
            model.remove([gone].as_slice());
        }
    }
}

proptest! {
    #[test]
    fn whatever_changes_during_a_cut_it_stays_the_state_at_its_beginning(
        before in vec(step(), 0..40),
        // Before the first shard is copied, and after each entry visited.
        at_once in vec(step(), 0..10),
        during in vec(vec(step(), 0..4), 0..12),
    ) {
        let (table, mut model) = (empty(), BTreeMap::new());
        for step in &before {
            take(step, &table, &mut model);
        }
        let expected = model.clone();
        let (cut, mut state, mut during) = (table.begin_cut(), BTreeMap::new(), during.iter());
        for step in &at_once {
            take(step, &table, &mut model);
        }
        let visited = cut.visit(|key, entry| {
            assert_eq!(state.insert(key.to_vec(), entry.value.to_vec()), None, "a key came twice");
            during.next().into_iter().flatten().for_each(|step| take(step, &table, &mut model));
            Ok::<(), ()>(())
        });
        visited.unwrap();
        prop_assert_eq!(state, expected);
        prop_assert_eq!(state_of(table.begin_cut()), model);
    }
}
