//! Batches of every shape: many changes, many of one key, exactly at the limit, only deletes.

use super::sizes::{MANY, bytes, check_everywhere, check_many, check_reads, rig_and_disk};
use crate::failure::{InWords, ensure, fail};
use crate::oracle::{State, state_of};
use crate::rig::{Policy, Setup};
use crate::{CaseResult, Context};
use kv_core::{Batch, Error, Limits, Scale};

pub(super) fn more_changes_than_two_bytes_count(context: &Context) -> CaseResult {
    let setup = Setup { scale: Scale::Normal, ..Setup::tiny(context, Policy::Manual) };
    let (rig, disk) = rig_and_disk(context, setup)?;
    let engine = rig.open()?;
    let (mut puts, mut deletes) = (Batch::new(), Batch::new());
    for number in 0..MANY {
        puts.put(&number.to_be_bytes(), &number.to_le_bytes()[..3]);
        deletes.delete(&number.to_be_bytes());
    }
    let lsn = engine.apply(&puts)?;
    ensure!(lsn == engine.last_lsn(), "a batch of {MANY} puts returns LSN {lsn}, not {}", engine.last_lsn());
    check_many(&*engine, "a batch of puts")?;
    engine.sync()?;
    if let Some(disk) = &disk {
        context.explored().crash_state();
        let dead = context.sim_rig(disk.process_death(), setup).open()?;
        check_many(&*dead, "a batch of puts and the death of the process")?;
    }
    engine.close()?;
    drop(engine);
    let engine = rig.open()?;
    check_many(&*engine, "a batch of puts, a close and an open")?;
    engine.apply(&deletes)?;
    let left = engine.stats().keys;
    ensure!(left == 0 && state_of(&*engine)?.is_empty(), "a batch of {MANY} deletes leaves {left} keys");
    engine.sync()?;
    if let Some(disk) = &disk {
        let left = state_of(&*context.sim_rig(disk.process_death(), setup).open()?)?.len();
        ensure!(left == 0, "a batch of {MANY} deletes and the death of the process leave {left} keys");
    }
    engine.close()?;
    let left = state_of(&*rig.open()?)?.len();
    ensure!(left == 0, "a batch of {MANY} deletes, a close and an open leave {left} keys");
    Ok(())
}

/// A batch of `len` bytes, overhead included, and the state after it.
fn batch_of(len: usize, limits: &Limits) -> (Batch, State) {
    let (mut batch, mut state, mut rest) = (Batch::new(), State::new(), len);
    while rest > 0 {
        let key = batch.len().to_be_bytes();
        let fixed = Limits::CHANGE_OVERHEAD + key.len();
        // The rest after this put is none, or enough for another one.
        let value_len = match rest - fixed {
            last if last <= limits.value_len_max => last,
            more => limits.value_len_max.min(more - fixed),
        };
        let value = bytes(batch.len(), value_len);
        batch.put(&key, &value);
        state.insert(key.to_vec(), value);
        rest -= fixed + value_len;
    }
    (batch, state)
}

pub(super) fn exactly_at_the_limit(context: &Context) -> CaseResult {
    let sizes = [(100, 132, 1000), (70_000, 70_500, 200_000), (1 << 16, 1 << 17, 1 << 18)];
    for (value_len_max, least, batch_bytes_max) in sizes {
        let limits = Limits { value_len_max, batch_bytes_max, ..Limits::default() };
        let setup = Setup { limits, ..Setup::tiny(context, Policy::Manual) };
        for len in [least, batch_bytes_max - 1, batch_bytes_max] {
            let (rig, disk) = rig_and_disk(context, setup)?;
            let engine = rig.open()?;
            let (mut batch, state) = batch_of(len, &limits);
            if let Err(error) = engine.apply(&batch) {
                fail!("a batch of {len} bytes under a limit of {batch_bytes_max} is refused: {error}");
            }
            check_reads(&*engine, &state, "a batch")?;
            if len == batch_bytes_max {
                let last = engine.last_lsn();
                // Every change counts, also one of a key that the batch names before.
                let key = 0usize.to_be_bytes();
                let over = batch_of(batch_bytes_max + 1, &limits).0;
                batch.delete(&key);
                let (mut same, mut deletes) = (Batch::new(), Batch::new());
                for _ in 0..=batch_bytes_max / (Limits::CHANGE_OVERHEAD + 1) {
                    same.put(b"k", b"");
                    deletes.delete(b"k");
                }
                for refused in [&over, &batch, &same, &deletes] {
                    let answer = engine.apply(refused);
                    ensure!(
                        matches!(&answer, Err(Error::TooLarge { what: "batch", limit, .. }) if *limit == batch_bytes_max),
                        "a batch over its limit of {batch_bytes_max} bytes is answered with {answer}, not TooLarge",
                        answer = answer.in_words()
                    );
                }
                ensure!(engine.last_lsn() == last, "a batch over its limit took an LSN");
                check_reads(&*engine, &state, "a batch over its limit")?;
            }
            engine.close()?;
            check_everywhere(context, &rig, disk.as_ref(), &state, &format!("a batch of {len} bytes"))?;
        }
    }
    Ok(())
}

/// A change of one key: a value, or a delete.
type Step = Option<&'static [u8]>;

const STEPS: [Step; 3] = [Some(b"1"), Some(b""), None];

/// All sequences of one to three steps.
fn sequences() -> Vec<Vec<Step>> {
    let mut sequences: Vec<Vec<Step>> = vec![Vec::new()];
    let mut shorter = 0;
    for _ in 0..3 {
        let longer: Vec<Vec<Step>> = sequences
            .iter()
            .skip(shorter)
            .flat_map(|before| STEPS.map(|step| [before.as_slice(), &[step]].concat()))
            .collect();
        shorter = sequences.len();
        sequences.extend(longer);
    }
    sequences.split_off(1)
}

pub(super) fn every_short_sequence(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    let (rig, disk) = rig_and_disk(context, setup)?;
    let engine = rig.open()?;
    let mut state = State::new();
    for (number, (start, steps)) in [None, Some(&b"old"[..]), Some(b"")]
        .iter()
        .flat_map(|s| sequences().into_iter().map(move |q| (s, q)))
        .enumerate()
    {
        let key = format!("key {number}").into_bytes();
        if let Some(value) = start {
            engine.put(&key, value)?;
        }
        let before = engine.last_lsn();
        let mut batch = Batch::new();
        for step in &steps {
            match step {
                Some(value) => batch.put(&key, value),
                None => batch.delete(&key),
            };
        }
        let lsn = engine.apply(&batch)?;
        let last = steps.last().copied().flatten();
        let changes = last.is_some() || start.is_some();
        ensure!(
            changes == (lsn > before) && lsn == engine.last_lsn(),
            "a batch of {steps:?} (None deletes) on a key with the value {start:?} changes something: \
             {changes}, but it returns LSN {lsn} after {before}, and last_lsn is {}",
            engine.last_lsn()
        );
        let found = engine.get(&key)?;
        ensure!(
            found.as_deref() == last,
            "a batch of {steps:?} (None deletes) on a key with the value {start:?} leaves {found:?}"
        );
        if let Some(value) = last {
            state.insert(key, value.to_vec());
        }
    }
    check_reads(&*engine, &state, "batches of one key")?;
    engine.close()?;
    check_everywhere(context, &rig, disk.as_ref(), &state, "batches of one key")
}

pub(super) fn one_key_many_times(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    for present in [false, true] {
        for ends_with_delete in [false, true] {
            let (rig, disk) = rig_and_disk(context, setup)?;
            let engine = rig.open()?;
            let mut state = State::new();
            engine.put(b"other", b"0")?;
            state.insert(b"other".to_vec(), b"0".to_vec());
            if present {
                engine.put(b"k", b"old")?;
            }
            let (before, counted) = (engine.last_lsn(), engine.stats().changes);
            let mut batch = Batch::new();
            for number in 0..1000usize {
                if number % 3 == 1 {
                    batch.delete(b"k");
                } else {
                    batch.put(b"k", &bytes(number, number % 90));
                }
            }
            if ends_with_delete {
                batch.delete(b"k");
            } else {
                state.insert(b"k".to_vec(), bytes(999, 999 % 90));
            }
            let lsn = engine.apply(&batch)?;
            let changed = present || !ends_with_delete;
            ensure!(
                (lsn > before) == changed && lsn == engine.last_lsn(),
                "a batch of a thousand changes of one key changes something: {changed}, but it returns LSN \
                 {lsn} after {before}"
            );
            let more = engine.stats().changes - counted;
            ensure!(more == u64::from(changed), "a batch of a thousand changes counts as {more} changes");
            check_reads(&*engine, &state, "a batch of a thousand changes of one key")?;
            engine.close()?;
            check_everywhere(context, &rig, disk.as_ref(), &state, "a thousand changes of one key")?;
        }
    }
    Ok(())
}

pub(super) fn only_deletes(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    let (rig, disk) = rig_and_disk(context, setup)?;
    let engine = rig.open()?;
    let mut state = State::new();
    for key in 0..=u8::MAX {
        engine.put(&[key], &[key; 20])?;
        state.insert(vec![key], vec![key; 20]);
    }
    engine.close()?;
    for opened in 0..3u8 {
        let engine = rig.open()?;
        let mut batch = Batch::new();
        // Of every four keys one goes, and its neighbour is not there.
        for key in (opened..=u8::MAX).step_by(4) {
            batch.delete(&[key]).delete(&[key, key]).delete(&[key]);
            state.remove(&[key][..]);
        }
        let before = engine.last_lsn();
        let lsn = engine.apply(&batch)?;
        ensure!(lsn > before, "a batch of deletes, some of them of present keys, takes no LSN");
        check_reads(&*engine, &state, "a batch of deletes")?;
        let again = engine.apply(&batch)?;
        ensure!(
            again == lsn,
            "the same batch of deletes again changes nothing, but returns {again}, not {lsn}"
        );
        for key in (opened..=u8::MAX).step_by(4) {
            ensure!(engine.get(&[key])?.is_none(), "the key {key:#04x}, deleted by a batch, is found");
        }
        engine.close()?;
        check_everywhere(context, &rig, disk.as_ref(), &state, "a batch of deletes")?;
    }
    Ok(())
}
