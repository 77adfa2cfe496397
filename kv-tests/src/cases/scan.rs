use super::{callbacks, case, scan_changes, shuffle};
use crate::failure::ensure;
use crate::oracle::State;
use crate::rig::{Policy, Setup};
use crate::{Case, CaseResult, Context, Level};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const CASES: &[Case] = &[
    case(
        "scan::required_kv301_every_key_once",
        Level::Required,
        &[],
        "A scan visits every key once with its value, and stops at Break.",
        every_key_once,
    ),
    case(
        "scan::required_kv302_callbacks_may_call_the_engine",
        Level::Required,
        &[],
        "The callbacks of read and scan may call any method of the engine but close.",
        callbacks_may_call_the_engine,
    ),
    case(
        "scan::stochastic_kv303_stable_keys_under_writers",
        Level::Stochastic,
        &[],
        "A scan under concurrent writers visits every stable key exactly once, and no key twice.",
        stable_keys_under_writers,
    ),
    case(
        "scan::required_kv304_callbacks_change_other_keys",
        Level::Required,
        &[],
        "A scan visits every stable key exactly once while its callback inserts, removes and overwrites keys.",
        scan_changes::callbacks_change_other_keys,
    ),
    case(
        "scan::required_kv305_a_break_ends_the_scan_only",
        Level::Required,
        &[],
        "A scan stops at Break at once; scans in its callback, and calls after it, go on.",
        scan_changes::a_break_ends_the_scan_only,
    ),
    case(
        "scan::required_kv306_nothing_to_visit",
        Level::Required,
        &[],
        "A scan of a store without keys makes no visit.",
        scan_changes::nothing_to_visit,
    ),
    case(
        "scan::required_kv307_every_method_in_every_callback",
        Level::Required,
        &[],
        "Every method but close can be called from every callback, for any key.",
        callbacks::every_method_in_every_callback,
    ),
    case(
        "scan::required_kv308_no_thread_waits_for_a_callback",
        Level::Required,
        &[],
        "No other thread waits for a callback, and the bytes that it borrows stay as they are.",
        callbacks::no_thread_waits_for_a_callback,
    ),
    case(
        "scan::required_kv309_changes_in_callbacks_survive",
        Level::Required,
        &[],
        "Changes inside callbacks have growing LSNs, and survive a close.",
        callbacks::changes_in_callbacks_survive,
    ),
    case(
        "scan::stochastic_kv310_scans_while_keys_come_and_go",
        Level::Stochastic,
        &[],
        "A scan visits every stable key exactly once while threads insert and remove keys around it and compact.",
        |context| shuffle::keys_stay_while_others_come_and_go(context, shuffle::Beside::Scans),
    ),
];

fn every_key_once(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::MaxLogSize(300)))?;
    let engine = rig.open()?;
    let mut model = State::new();
    for number in 0..300u32 {
        let (key, value) = ((number % 97).to_le_bytes().to_vec(), number.to_le_bytes().to_vec());
        engine.put(&key, &value)?;
        model.insert(key, value);
    }
    let mut seen = State::new();
    let mut twice = false;
    engine.scan(&mut |key, value| {
        twice |= seen.insert(key.to_vec(), value.to_vec()).is_some();
        ControlFlow::Continue(())
    })?;
    ensure!(!twice, "a scan visits a key twice");
    ensure!(seen == model, "a scan does not visit exactly the present keys and values");
    let mut visits = 0;
    engine.scan(&mut |_, _| {
        visits += 1;
        if visits == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    ensure!(visits == 5, "a scan that was told to stop after 5 visits makes {visits}");
    Ok(())
}

fn callbacks_may_call_the_engine(context: &Context) -> CaseResult {
    let rig = context.rig(Setup::tiny(context, Policy::MaxLogSize(300)))?;
    let engine = rig.open()?;
    for key in 0..40u8 {
        engine.put(&[key], &[key; 20])?;
    }
    let (mut result, mut visits, mut is_same) = (Ok(()), 0, true);
    engine.read(&[3], &mut |value| {
        visits += 1;
        let before = value.to_vec();
        let nested =
            engine.put(&[3], b"changed").and_then(|_| engine.get(&[4])).and_then(|_| engine.delete(&[5]));
        result = nested.map(|_| ()).map_err(crate::Failure::from);
        is_same = value == before && (visits > 1 || before == [3; 20]);
    })?;
    result?;
    ensure!(visits == 1, "a read visits a present value {visits} times, not once");
    ensure!(is_same, "the callback of a read puts its own key, and the value that it borrows changes");
    let mut result = Ok(());
    engine.scan(&mut |key, _| {
        let nested = engine.put(key, b"again").and_then(|_| engine.get(key)).and_then(|_| engine.sync());
        result = nested.map(|_| ()).map_err(crate::Failure::from);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result
}

fn stable_keys_under_writers(context: &Context) -> CaseResult {
    let rig = context.real_rig(Setup::tiny(context, Policy::MaxLogSize(300)))?;
    let engine = rig.open()?;
    for key in 0..100u8 {
        engine.put(&[b's', key], &[key; 10])?;
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2u8)
            .map(|writer| {
                let (engine, done) = (&engine, &done);
                scope.spawn(move || -> CaseResult {
                    let mut number = 0u8;
                    while !done.load(Ordering::Acquire) {
                        number = number.wrapping_add(1);
                        engine.put(&[b'v', writer, number % 50], &[number; 30])?;
                        engine.delete(&[b'v', writer, number.wrapping_mul(7) % 50])?;
                        // A stable key stays present while its value changes.
                        engine.put(&[b's', number % 100], &[number % 100; 10])?;
                    }
                    Ok(())
                })
            })
            .collect();
        let scans = || -> CaseResult {
            for _ in 0..context.scaled(150) {
                let mut visits: BTreeMap<Vec<u8>, (u32, bool)> = BTreeMap::new();
                engine.scan(&mut |key, value| {
                    let right = match key {
                        [b's', key] => value == [*key; 10],
                        _ => value.len() == 30 && value.windows(2).all(|pair| pair.first() == pair.last()),
                    };
                    let visit = visits.entry(key.to_vec()).or_insert((0, true));
                    *visit = (visit.0 + 1, visit.1 && right);
                    ControlFlow::Continue(())
                })?;
                for (key, (count, right)) in &visits {
                    ensure!(*count == 1, "a scan visits {key:?} {count} times");
                    ensure!(*right, "a scan shows a torn or foreign value under {key:?}");
                }
                let stable = visits.keys().filter(|key| key.first() == Some(&b's')).count();
                ensure!(stable == 100, "a scan visits {stable} of 100 stable keys");
            }
            Ok(())
        };
        let scanned = scans();
        done.store(true, Ordering::Release);
        for writer in writers {
            writer
                .join()
                .map_err(|_| crate::Failure::new("no operation panics, but a put or delete did"))??;
        }
        context.explored().history();
        scanned
    })
}
