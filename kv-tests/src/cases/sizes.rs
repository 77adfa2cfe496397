//! Keys and values of every critical size and content, through every way of recovery.

use crate::failure::{InWords, ensure};
use crate::oracle::{State, state_of};
use crate::rig::{Policy, Rig, Setup};
use crate::sim::SimFs;
use crate::{CaseResult, Context, Failure};
use kv_core::{Batch, Engine, Error, Limits, Scale};

/// Lengths around the ends of one, two and three bytes, and around usual blocks.
const KEY_LENS: [usize; 26] = [
    0, 1, 2, 7, 8, 63, 64, 65, 127, 128, 129, 254, 255, 256, 257, 511, 512, 513, 4095, 4096, 4097, 32_767,
    32_768, 65_533, 65_534, 65_535,
];
const VALUE_LENS: [usize; 23] = [
    0, 1, 2, 127, 128, 254, 255, 256, 257, 511, 512, 513, 4095, 4096, 4097, 16_383, 16_384, 32_768, 65_535,
    65_536, 65_537, 131_072, 200_000,
];

/// Bytes that differ from one place to the next, so that a shift shows.
pub(super) fn bytes(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8)).wrapping_mul(31).wrapping_add(number * 7).to_le_bytes()[0]).collect()
}

/// A key or value in a report: its length, and its first bytes.
fn short(bytes: &[u8]) -> String {
    let head = bytes.get(..8).unwrap_or(bytes);
    let more = if bytes.len() > head.len() { "..." } else { "" };
    format!("{head:02x?}{more} ({} bytes)", bytes.len())
}

/// Checks that every read shows this state.
pub(super) fn check_reads(engine: &dyn Engine, state: &State, after: &str) -> CaseResult {
    for (key, value) in state {
        let found = engine.get(key)?;
        let Some(found) = found else {
            return Err(Failure::new(format!(
                "a get finds what was put, but after {after} it does not find the key {}",
                short(key)
            )));
        };
        ensure!(
            found[..] == value[..],
            "after {after} get returns {} for the key {}, not {}",
            short(&found),
            short(key),
            short(value)
        );
        let (mut visits, mut same) = (0, true);
        let is_there = engine.read(key, &mut |read| (visits, same) = (visits + 1, same && read == value))?;
        ensure!(
            is_there && visits == 1 && same,
            "after {after} read answers {is_there} for the key {}, visits it {visits} times, and the right \
             value: {same}",
            short(key)
        );
    }
    let (keys, values): (Vec<&[u8]>, Vec<&[u8]>) =
        state.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).unzip();
    let mut visited = Vec::new();
    engine.read_many(&keys, &mut |position, value| {
        visited.push((position, value.is_some() && value == values.get(position).copied()));
    })?;
    for (at, key) in keys.iter().enumerate() {
        ensure!(
            visited.get(at) == Some(&(at, true)),
            "after {after} read_many does not visit position {at}, the key {}, with its value",
            short(key)
        );
    }
    ensure!(
        visited.len() == keys.len(),
        "after {after} read_many of {} keys visits {}",
        keys.len(),
        visited.len()
    );
    let scanned = state_of(engine)?;
    let differs = |(key, value): &(&Vec<u8>, &Vec<u8>)| scanned.get(*key) != Some(*value);
    if let Some((key, _)) = state.iter().find(differs) {
        return Err(Failure::new(format!("after {after} a scan does not show the value of {}", short(key))));
    }
    ensure!(
        scanned.len() == state.len(),
        "after {after} a scan finds {} keys, not {}",
        scanned.len(),
        state.len()
    );
    Ok(())
}

/// The longest of these limits that the engine accepts. An engine may allow less than the format.
fn raised(context: &Context, wanted: &[Limits]) -> Result<Limits, Failure> {
    for limits in wanted {
        let rig = context.rig(Setup { limits: *limits, ..Setup::tiny(context, Policy::Manual) })?;
        match rig.open() {
            Err(Error::InvalidArgument(_)) => {}
            opened => {
                opened?;
                return Ok(*limits);
            }
        }
    }
    Ok(Limits::default())
}

/// Checks the state now, after a compaction, a close, a drop, and the death of the process.
pub(super) fn check_everywhere(
    context: &Context,
    rig: &Rig,
    disk: Option<&SimFs>,
    state: &State,
    what: &str,
) -> CaseResult {
    let check = |engine: &dyn Engine, after: &str| check_reads(engine, state, &format!("{what}{after}"));
    let engine = rig.open()?;
    check(&*engine, " and an open")?;
    if let Some(compact) = engine.as_compact() {
        compact.compact()?;
        check(&*engine, " and a compaction")?;
    }
    engine.sync()?;
    if let Some(disk) = disk {
        context.explored().crash_state();
        let dead = context.sim_rig(disk.process_death(), rig.setup);
        let engine = dead.open()?;
        check(&*engine, " and the death of the process")?;
        drop(engine);
        check(&*dead.open()?, ", the death of the process, and two opens")?;
    }
    engine.close()?;
    check(&*rig.open()?, ", a compaction, a close and an open")
}

/// A store, and its simulated disk where there is one.
pub(super) fn rig_and_disk(context: &Context, setup: Setup) -> Result<(Rig, Option<SimFs>), Failure> {
    if !context.factory().capabilities().simulated_fs {
        return Ok((context.rig(setup)?, None));
    }
    let disk = SimFs::new();
    Ok((context.sim_rig(disk.clone(), setup), Some(disk)))
}

pub(super) fn every_size(context: &Context) -> CaseResult {
    let with = |key_len_max| Limits { key_len_max, ..Limits::default() };
    let limits = raised(context, &[with(Limits::FORMAT_KEY_LEN_MAX), with(4096), with(1024), with(257)])?;
    let setup = Setup { limits, ..Setup::tiny(context, Policy::Manual) };
    for in_batches in [false, true] {
        let (rig, disk) = rig_and_disk(context, setup)?;
        let mut state = State::new();
        // Long values replace short ones, and the reverse.
        for round in 0..2 {
            let engine = rig.open()?;
            let mut batch = Batch::new();
            for (number, key_len) in KEY_LENS.iter().filter(|len| **len <= limits.key_len_max).enumerate() {
                let value_len = VALUE_LENS.iter().cycle().nth(number * 5 + round * 11).copied().unwrap_or(0);
                let (key, value) = (bytes(number, *key_len), bytes(number + round, value_len));
                batch.put(&key, &value);
                if !in_batches {
                    engine.put(&key, &value)?;
                }
                state.insert(key, value);
            }
            for (number, value_len) in VALUE_LENS.iter().enumerate() {
                let (key, len) = ([0xff, number.to_le_bytes()[0]], if round == 0 { *value_len } else { 0 });
                let value = bytes(number, len.max(usize::from(round == 1 && *value_len == 0)));
                batch.put(&key, &value);
                if !in_batches {
                    engine.put(&key, &value)?;
                }
                state.insert(key.to_vec(), value);
            }
            if in_batches {
                engine.apply(&batch)?;
            }
            check_reads(&*engine, &state, "a put")?;
            if let Some(disk) = &disk {
                engine.sync()?;
                let dead = context.sim_rig(disk.process_death(), setup).open()?;
                check_reads(&*dead, &state, "a synced put and the death of the process")?;
            }
            engine.close()?;
            drop(engine);
            check_everywhere(context, &rig, disk.as_ref(), &state, "a put")?;
        }
        let engine = rig.open()?;
        for key in state.keys() {
            ensure!(engine.delete(key)?.is_some(), "a delete does not find the key {}", short(key));
            ensure!(engine.get(key)?.is_none(), "the deleted key {} is found", short(key));
        }
        engine.close()?;
        check_everywhere(context, &rig, disk.as_ref(), &State::new(), "deleting every key")?;
    }
    Ok(())
}

pub(super) fn kinds_of_keys(context: &Context) -> CaseResult {
    let mut keys: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    for byte in [0, 1, b'/', b'a', 0x7f, 0x80, 0xfe, 0xff] {
        keys.extend((2..=12).map(|len| vec![byte; len]));
        keys.extend([
            [byte, 0].to_vec(),
            [byte, 0xff].to_vec(),
            [byte, 0, byte].to_vec(),
            [0, byte].to_vec(),
        ]);
    }
    keys.extend((0..300u32).map(|number| number.to_be_bytes().to_vec()));
    keys.extend((0..300u32).map(|number| number.to_le_bytes().to_vec()));
    keys.push(Vec::new());
    let setup = Setup::tiny(context, Policy::Manual);
    let (rig, disk) = rig_and_disk(context, setup)?;
    let mut state = State::new();
    let engine = rig.open()?;
    for (number, key) in keys.iter().enumerate() {
        let value = number.to_le_bytes();
        engine.put(key, &value)?;
        state.insert(key.clone(), value.to_vec());
    }
    check_reads(&*engine, &state, "puts")?;
    engine.close()?;
    check_everywhere(context, &rig, disk.as_ref(), &state, "puts")?;
    let engine = rig.open()?;
    for key in keys.iter().step_by(3) {
        let found = engine.delete(key)?.is_some();
        let expected = state.remove(key).is_some();
        ensure!(
            found == expected,
            "deleting the key {key:02x?} answers {found}, but it was present: {expected}"
        );
    }
    check_reads(&*engine, &state, "puts and deletes")?;
    engine.close()?;
    check_everywhere(context, &rig, disk.as_ref(), &state, "puts and deletes")
}

pub(super) fn empty_is_not_absent(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    let (rig, disk) = rig_and_disk(context, setup)?;
    let engine = rig.open()?;
    let mut state = State::new();
    for key in [&b""[..], b"a", b"b", b"c", b"d"] {
        engine.put(key, b"long value")?;
    }
    engine.put(b"", b"")?;
    engine.put(b"a", b"")?;
    engine.apply(Batch::new().put(b"b", b"1").put(b"b", b"").delete(b"c").put(b"c", b""))?;
    engine.apply(Batch::new().put(b"d", b"").delete(b"d").put(b"e", b"").put(b"f", b"x"))?;
    engine.put(b"f", b"")?;
    for key in [&b""[..], b"a", b"b", b"c", b"e", b"f"] {
        state.insert(key.to_vec(), Vec::new());
    }
    check_reads(&*engine, &state, "puts of empty values")?;
    let mut visited = Vec::new();
    let keys: [&[u8]; 5] = [b"absent", b"a", b"d", b"", b"a"];
    engine.read_many(&keys, &mut |at, value| visited.push((at, value.map(<[u8]>::to_vec))))?;
    let expected = [None, Some(vec![]), None, Some(vec![]), Some(vec![])];
    ensure!(
        visited == expected.into_iter().enumerate().collect::<Vec<_>>(),
        "read_many of absent keys and empty values visits {visited:?}"
    );
    ensure!(
        engine.stats().keys == 6,
        "the statistics count {} of 6 keys with empty values",
        engine.stats().keys
    );
    engine.close()?;
    check_everywhere(context, &rig, disk.as_ref(), &state, "puts of empty values")?;
    let engine = rig.open()?;
    ensure!(engine.delete(b"a")?.is_some(), "a delete does not find a key with an empty value");
    let before = engine.last_lsn();
    let lsn = engine.apply(Batch::new().delete(b"e").delete(b"absent"))?;
    ensure!(lsn > before, "a batch that deletes a key with an empty value takes no LSN");
    engine.put(b"f", b"no longer empty")?;
    state.remove(&b"a"[..]);
    state.remove(&b"e"[..]);
    state.insert(b"f".to_vec(), b"no longer empty".to_vec());
    engine.close()?;
    check_everywhere(context, &rig, disk.as_ref(), &state, "deletes of empty values")
}

pub(super) fn limits_are_exact(context: &Context) -> CaseResult {
    for (key_len_max, value_len_max) in [(3, 5), (1, 0), (0, 4), (0, 0), (300, 70_000)] {
        let batch_bytes_max = Limits::CHANGE_OVERHEAD + key_len_max + value_len_max;
        let limits = Limits { key_len_max, value_len_max, batch_bytes_max };
        if raised(context, &[limits])? != limits {
            continue;
        }
        let setup = Setup { limits, ..Setup::tiny(context, Policy::Manual) };
        let (rig, disk) = rig_and_disk(context, setup)?;
        let engine = rig.open()?;
        let (key, value) = (bytes(1, key_len_max), bytes(2, value_len_max));
        let (long_key, long_value) = (bytes(1, key_len_max + 1), bytes(2, value_len_max + 1));
        engine.put(&key, &value)?;
        engine.apply(Batch::new().put(&key, &value))?;
        let last = engine.last_lsn();
        let state = State::from([(key.clone(), value.clone())]);
        let mut visits = 0;
        let answers = [
            ("put of a long key", engine.put(&long_key, &value).err()),
            ("put of a long value", engine.put(&key, &long_value).err()),
            ("delete of a long key", engine.delete(&long_key).err()),
            ("get of a long key", engine.get(&long_key).err()),
            ("read of a long key", engine.read(&long_key, &mut |_| visits += 1).err()),
            (
                "read_many with a long key",
                engine.read_many(&[&key, &long_key], &mut |_, _| visits += 1).err(),
            ),
            ("batch that puts a long key", engine.apply(Batch::new().put(&long_key, b"")).err()),
            ("batch that deletes a long key", engine.apply(Batch::new().delete(&long_key)).err()),
            ("batch that puts a long value", engine.apply(Batch::new().put(&key, &long_value)).err()),
            ("batch over its limit", engine.apply(Batch::new().put(&key, &value).delete(b"")).err()),
        ];
        for (call, error) in answers {
            ensure!(
                matches!(&error, Some(Error::TooLarge { len, limit, .. }) if len > limit),
                "under {limits:?} a {call} is answered with {error}, not TooLarge",
                error = error.in_words()
            );
        }
        ensure!(visits == 0, "a read that is refused as TooLarge visits {visits} values");
        ensure!(
            engine.last_lsn() == last,
            "a call that is refused as TooLarge took LSN {}",
            engine.last_lsn()
        );
        check_reads(&*engine, &state, "calls that are refused as TooLarge")?;
        engine.close()?;
        check_everywhere(context, &rig, disk.as_ref(), &state, "a put at the limits")?;
        ensure!(rig.open()?.delete(&key)?.is_some(), "under {limits:?} a key at the limit cannot be deleted");
    }
    Ok(())
}

pub(super) fn large_values(context: &Context) -> CaseResult {
    let with = |value_len_max| Limits {
        value_len_max,
        batch_bytes_max: 2 * value_len_max + 1000,
        ..Limits::default()
    };
    // Three bytes count to 16,777,215.
    for (scale, len) in [(Scale::Normal, 16_800_000), (Scale::Tiny, 2_500_000)] {
        let limits = raised(context, &[with(len), with(2_500_000)])?;
        let len = len.min(limits.value_len_max);
        let setup = Setup { scale, limits, ..Setup::tiny(context, Policy::Manual) };
        let (rig, _) = rig_and_disk(context, setup)?;
        let engine = rig.open()?;
        let mut state = State::new();
        let mut batch = Batch::new();
        for number in 0..2u8 {
            let (key, value) = (vec![number], bytes(number.into(), len / 8 - usize::from(number)));
            batch.put(&key, &value);
            state.insert(key, value);
        }
        engine.apply(&batch)?;
        let (key, value) = (b"single".to_vec(), bytes(9, len));
        engine.put(&key, &value)?;
        state.insert(key, value);
        check_reads(&*engine, &state, "puts of large values")?;
        engine.close()?;
        drop(engine);
        let engine = rig.open()?;
        check_reads(&*engine, &state, "puts of large values, and an open")?;
        engine.put(&[0], b"short")?;
        state.insert(vec![0], b"short".to_vec());
        engine.close()?;
        check_reads(&*rig.open()?, &state, "a short value in place of a large one, and an open")?;
    }
    Ok(())
}

/// More keys than two bytes can count.
pub(super) const MANY: u32 = 66_000;

pub(super) fn more_keys_than_two_bytes_count(context: &Context) -> CaseResult {
    let setup = Setup { scale: Scale::Normal, ..Setup::tiny(context, Policy::Manual) };
    let (rig, disk) = rig_and_disk(context, setup)?;
    let engine = rig.open()?;
    for number in 0..MANY {
        engine.put(&number.to_be_bytes(), &number.to_le_bytes()[..3])?;
    }
    check_many(&*engine, "the puts")?;
    engine.sync()?;
    if let Some(disk) = &disk {
        context.explored().crash_state();
        let dead = context.sim_rig(disk.process_death(), setup).open()?;
        check_many(&*dead, "the puts and the death of the process")?;
    }
    engine.close()?;
    drop(engine);
    check_many(&*rig.open()?, "the puts, a close and an open")?;
    // What the second open made of it.
    check_many(&*rig.open()?, "the puts and two opens")
}

/// Checks the store of [`MANY`] keys.
pub(super) fn check_many(engine: &dyn Engine, after: &str) -> CaseResult {
    let keys = engine.stats().keys;
    ensure!(keys == u64::from(MANY), "after {after} the statistics count {keys} keys of {MANY}");
    let (mut found, mut wrong) = (0, None);
    engine.scan(&mut |key, value| {
        let number = key.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        if value != &number.to_le_bytes()[..3] {
            wrong = Some(number);
        }
        found += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    ensure!(wrong.is_none(), "after {after} a scan shows a wrong value for key number {wrong:?}");
    ensure!(found == MANY, "after {after} a scan finds {found} keys of {MANY}");
    for number in (0..MANY).step_by(997).chain([65_534, 65_535, 65_536, 65_537, MANY - 1]) {
        let value = engine.get(&number.to_be_bytes())?;
        ensure!(
            value.as_deref() == Some(&number.to_le_bytes()[..3]),
            "after {after} the value of key number {number} of {MANY} is {value:?}"
        );
    }
    Ok(())
}
