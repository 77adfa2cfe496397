//! Threads that insert and remove keys among others that stay: cases of the groups
//! `linearizability` and `scan`.

use super::calls::start;
use super::crowd::{Ending, batches, run_time, setups};
use crate::failure::{ensure, fail};
use crate::rig::Setup;
use crate::{CaseResult, Context};
use fastrand::Rng;
use kv_core::{Batch, Engine};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Keys that stay, while others come and go before, between and behind them.
const STABLE: u16 = 400;

fn stable(number: u16) -> Vec<u8> {
    let [high, low] = (number * 100).to_be_bytes();
    vec![b'k', high, low]
}

/// A key between `stable(number)` and the next, or before or behind all of them.
fn volatile(number: u16, detail: u8) -> Vec<u8> {
    match detail % 8 {
        0 => vec![b'a', detail, number.to_be_bytes()[1]],
        1 => vec![b'z', detail, number.to_be_bytes()[1]],
        _ => [stable(number).as_slice(), &[detail]].concat(),
    }
}

struct Shuffle {
    engine: Arc<dyn Engine>,
    done: AtomicBool,
    /// How many rounds of overwriting stable keys have begun, and ended.
    begun: AtomicU32,
    ended: AtomicU32,
}

impl Shuffle {
    fn over(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Inserts and removes volatile keys, one by one and in batches.
    fn shuffle(&self, seed: u64) -> CaseResult {
        let mut rng = Rng::with_seed(seed);
        while !self.over() {
            let (number, detail) = (rng.u16(0..STABLE), rng.u8(..));
            match rng.u8(0..8) {
                0..=2 => drop(self.engine.put(&volatile(number, detail), &[detail; 40])?),
                3..=4 => drop(self.engine.delete(&volatile(number, detail))?),
                _ => {
                    let mut batch = Batch::new();
                    for near in 0..30 {
                        let key = volatile((number + near) % STABLE, detail);
                        if rng.bool() {
                            batch.put(&key, &[detail; 20])
                        } else {
                            batch.delete(&key)
                        };
                    }
                    self.engine.apply(&batch)?;
                }
            }
        }
        Ok(())
    }

    /// Overwrites all stable keys, round after round.
    fn overwrite(&self, rounds: u32, time: Duration) -> CaseResult {
        let _end = Ending(&self.done);
        let begun = Instant::now();
        for round in 1..=rounds {
            self.begun.store(round, Ordering::Release);
            for number in 0..STABLE {
                self.engine.put(&stable(number), &round.to_le_bytes())?;
            }
            self.ended.store(round, Ordering::Release);
            if begun.elapsed() > time {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, seed: u64) -> CaseResult {
        let mut rng = Rng::with_seed(seed);
        let mut floors = vec![0u32; usize::from(STABLE)];
        while !self.over() {
            let first = rng.u16(0..STABLE);
            let numbers: Vec<u16> = (0..20).map(|near| (first + near * 7) % STABLE).collect();
            let ended = self.ended.load(Ordering::Acquire);
            let mut found: Vec<Option<u32>> = Vec::new();
            if rng.bool() {
                let keys: Vec<Vec<u8>> = numbers.iter().map(|number| stable(*number)).collect();
                let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                self.engine.read_many(&keys, &mut |_, value| found.push(value.and_then(number_of)))?;
            } else {
                for number in &numbers {
                    found.push(self.engine.get(&stable(*number))?.as_deref().and_then(number_of));
                }
            }
            let begun = self.begun.load(Ordering::Acquire);
            ensure!(found.len() == numbers.len(), "read_many of 20 keys makes {} visits", found.len());
            for (number, found) in numbers.into_iter().zip(found) {
                let key = stable(number);
                let Some(found) = found else {
                    fail!("a reader does not find key {key:?}, which is present while other keys come and go")
                };
                let Some(floor) = floors.get_mut(usize::from(number)) else { continue };
                let least = ended.max(*floor);
                ensure!(
                    (least..=begun).contains(&found),
                    "a reader of key {key:?} sees value {found}, but only {least} to {begun} can be there"
                );
                *floor = found;
            }
        }
        Ok(())
    }

    fn scan(&self) -> CaseResult {
        while !self.over() {
            let ended = self.ended.load(Ordering::Acquire);
            let mut visits: Vec<(Vec<u8>, Option<u32>)> = Vec::new();
            self.engine.scan(&mut |key, value| {
                visits.push((key.to_vec(), number_of(value)));
                ControlFlow::Continue(())
            })?;
            let begun = self.begun.load(Ordering::Acquire);
            visits.sort();
            for pair in visits.windows(2) {
                if let [(key, _), (next, _)] = pair {
                    ensure!(key != next, "a scan visits key {key:?} twice");
                }
            }
            for number in 0..STABLE {
                let key = stable(number);
                let Ok(at) = visits.binary_search_by(|(visited, _)| visited.cmp(&key)) else {
                    fail!("a scan does not visit key {key:?}, which is present while other keys come and go")
                };
                let found = visits.get(at).and_then(|(_, found)| *found).unwrap_or(u32::MAX);
                ensure!(
                    (ended..=begun).contains(&found),
                    "a scan shows value {found} under key {key:?}, but during the scan only {ended} to {begun} can be there"
                );
            }
        }
        Ok(())
    }
}

/// The round of a stable key's value; none for the value of a volatile key.
fn number_of(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_le_bytes)
}

/// What the threads beside the writers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    Reads,
    Scans,
}

pub(super) fn keys_stay_while_others_come_and_go(context: &Context, beside: Beside) -> CaseResult {
    let rounds = batches(context, 12);
    for setup in setups(context) {
        for compacts in [false, true] {
            shuffle_once(context, setup, beside, compacts, rounds)
                .map_err(|failure| failure.with("round", format!("{setup:?}: a replay may differ")))?;
        }
    }
    Ok(())
}

fn shuffle_once(context: &Context, setup: Setup, beside: Beside, compacts: bool, rounds: u32) -> CaseResult {
    // A real directory lives as long as its rig.
    let rig = context.rig(setup)?;
    let engine = rig.open()?;
    for number in 0..STABLE {
        engine.put(&stable(number), &0u32.to_le_bytes())?;
    }
    let (done, begun, ended) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let run = Arc::new(Shuffle { engine, done, begun, ended });
    let mut running = Vec::new();
    let mut launch = |call: &str, work: Box<dyn FnOnce(&Shuffle) -> CaseResult + Send>| {
        let run = Arc::clone(&run);
        running.push(start(context, call, move || {
            let _end = Ending(&run.done);
            work(&run)
        }));
    };
    let (seed, time) = (context.seed(), run_time(context));
    launch("a change", Box::new(move |run| run.shuffle(seed)));
    launch("put", Box::new(move |run| run.overwrite(rounds, time)));
    match beside {
        Beside::Reads => launch("a read", Box::new(move |run| run.read(seed))),
        Beside::Scans => launch("scan", Box::new(Shuffle::scan)),
    }
    if compacts {
        launch(
            "compact or sync",
            Box::new(|run| {
                while !run.over() {
                    if let Some(compact) = run.engine.as_compact() {
                        compact.compact()?;
                    }
                    run.engine.sync()?;
                }
                Ok(())
            }),
        );
    }
    context.explored().history();
    running.iter().try_for_each(|one| one.answer("among threads")?)
}
