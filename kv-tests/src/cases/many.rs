//! Reading many keys.

use super::sizes::bytes;
use crate::failure::{InWords, ensure};
use crate::rig::{Policy, Rig, Setup};
use crate::{CaseResult, Context};
use kv_core::{Engine, Error, Limits};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Values by key; a value is `bytes` of these arguments.
type Lens = BTreeMap<Vec<u8>, (usize, usize)>;

/// Checks one call of `read_many`.
fn check(engine: &dyn Engine, lens: &Lens, keys: &[Vec<u8>], what: &str) -> CaseResult {
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let mut next = 0;
    let mut wrong = None;
    engine.read_many(&keys, &mut |position, value| {
        let expected =
            keys.get(next).and_then(|key| lens.get(*key)).map(|(number, len)| bytes(*number, *len));
        if position != next {
            wrong.get_or_insert(format!("position {position} comes where {next} is next"));
        } else if value != expected.as_deref() {
            let len = |value: Option<&[u8]>| {
                value.map_or("nothing".to_owned(), |value| format!("{} bytes", value.len()))
            };
            wrong.get_or_insert(format!(
                "position {next} shows {} in place of {}",
                len(value),
                len(expected.as_deref())
            ));
        }
        next += 1;
    })?;
    if let Some(wrong) = wrong {
        crate::failure::fail!("read_many of {} keys ({what}) visits each in order, but {wrong}", keys.len());
    }
    ensure!(next == keys.len(), "read_many of {} keys ({what}) calls back {next} times", keys.len());
    Ok(())
}

pub(super) fn in_order_and_once(context: &Context) -> CaseResult {
    let limits = Limits { key_len_max: 32, ..Limits::default() };
    let rig = context.rig(Setup { limits, ..Setup::tiny(context, Policy::MaxLogSize(3000)) })?;
    let engine = rig.open()?;
    let mut lens = Lens::new();
    for number in 0..40usize {
        let key = if number == 39 { vec![7; 32] } else { format!("key {number}").into_bytes() };
        let len = if number % 5 == 0 { 0 } else { number * 20 };
        engine.put(&key, &bytes(number, len))?;
        lens.insert(key, (number, len));
    }
    engine.put(b"", &bytes(3, 3))?;
    lens.insert(Vec::new(), (3, 3));
    let present: Vec<Vec<u8>> = lens.keys().cloned().collect();
    let absent = |number: usize| format!("absent {number}").into_bytes();
    let reversed: Vec<_> = present.iter().rev().cloned().collect();
    let twice: Vec<_> = present.iter().flat_map(|key| [key.clone(), key.clone()]).collect();
    let mixed: Vec<_> = present.iter().enumerate().flat_map(|(at, key)| [absent(at), key.clone()]).collect();
    for opened_again in [false, true] {
        let engine = if opened_again { reopened(&rig, &*engine)? } else { Arc::clone(&engine) };
        for (what, keys) in [
            ("none", Vec::new()),
            ("the empty one", vec![Vec::new()]),
            ("one at the limit", vec![vec![7; 32]]),
            ("one absent", vec![absent(0)]),
            ("all absent", (0..50).map(absent).collect()),
            ("the same absent one again", vec![absent(0); 9]),
            ("all in order", present.clone()),
            ("all in reverse order", reversed.clone()),
            ("each twice", twice.clone()),
            ("the same again and again", vec![b"key 7".to_vec(); 300]),
            ("the same with others between", [&present[..], &reversed, &present].concat()),
            ("absent ones between", mixed.clone()),
            ("absent ones first", [vec![absent(1); 20], present.clone()].concat()),
            ("absent ones last", [present.clone(), vec![absent(1); 20]].concat()),
        ] {
            check(&*engine, &lens, &keys, what)?;
        }
    }
    Ok(())
}

fn reopened(rig: &Rig, engine: &dyn Engine) -> kv_core::Result<Arc<dyn Engine>> {
    engine.close()?;
    rig.open()
}

pub(super) fn more_than_any_group(context: &Context) -> CaseResult {
    const COUNT: usize = 5000;
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let engine = rig.open()?;
    let mut lens = Lens::new();
    for number in (0..COUNT).filter(|number| number % 7 > 0) {
        let (key, len) = (format!("{number}").into_bytes(), number % 50);
        engine.put(&key, &bytes(number, len))?;
        lens.insert(key, (number, len));
    }
    engine.close()?;
    drop(engine);
    let engine = rig.open()?;
    let keys: Vec<_> = (0..COUNT).map(|number| format!("{}", number * 1009 % COUNT).into_bytes()).collect();
    // The first call may read files, the second one finds more in memory.
    for what in ["just opened", "read before"] {
        check(&*engine, &lens, &keys, what)?;
    }
    for len in [255, 256, 257, 1023, 1024, 1025, 4095, 4096, 4097] {
        check(&*engine, &lens, keys.get(..len).unwrap_or_default(), "some of five thousand")?;
    }
    check(&*engine, &lens, &vec![b"1".to_vec(); 20_000], "the same again and again")
}

pub(super) fn refused_as_a_whole(context: &Context) -> CaseResult {
    let limits = Limits { key_len_max: 8, ..Limits::default() };
    let rig = context.rig(Setup { limits, ..Setup::tiny(context, Policy::Manual) })?;
    let engine = rig.open()?;
    (0..100u8).try_for_each(|key| engine.put(&[key], &[key; 30]).map(drop))?;
    for opened_again in [false, true] {
        let engine = if opened_again { reopened(&rig, &*engine)? } else { Arc::clone(&engine) };
        for at in [0, 1, 15, 16, 17, 63, 64, 99, 100] {
            let mut keys: Vec<&[u8]> = Vec::new();
            let short: Vec<[u8; 1]> = (0..100u8).map(|key| [key]).collect();
            keys.extend(short.iter().map(<[u8; 1]>::as_slice));
            keys.insert(at, b"too long!");
            let mut visits = 0;
            let answer = engine.read_many(&keys, &mut |_, _| visits += 1);
            ensure!(
                matches!(answer, Err(Error::TooLarge { what: "key", len: 9, limit: 8 })),
                "read_many with a long key at position {at} is answered with {answer}, not TooLarge",
                answer = answer.in_words()
            );
            ensure!(
                visits == 0,
                "with a key over the limit at position {at} nothing is visited, but {visits} keys are"
            );
        }
    }
    Ok(())
}
