//! Threads on hundreds of keys, so that an engine has several leaves, shards or segments: cases of
//! the group `linearizability`.
//!
//! A writer applies batches with growing numbers, each to the same keys. After a reader has seen
//! batch `n` under one key, no later read may show an older batch under any key.

use super::calls::{Running, start};
use crate::failure::{ensure, fail};
use crate::rig::{Policy, Setup};
use crate::{CaseResult, Context, Failure};
use fastrand::Rng;
use kv_core::{Background, Batch, Engine, Lsn, Scale};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Keys between those of the batches. No writer changes them.
const FILLERS: u16 = 1200;

/// The batches of one run.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Keys of each batch.
    keys: u16,
    /// Whether each batch deletes some of them.
    deletes: bool,
    batches: u32,
}

impl Shape {
    /// The keys lie far apart, from the first to the last one of the store.
    fn key(self, index: u16) -> Vec<u8> {
        let spread = u32::from(index) * u32::from(u16::MAX) / u32::from(self.keys - 1);
        let [_, _, high, low] = spread.to_be_bytes();
        vec![high, low, b'b']
    }

    /// Whether batch `number` deletes the key instead of putting `number`.
    fn is_deleted(self, index: u16, number: u32) -> bool {
        self.deletes && (u32::from(index) + number).is_multiple_of(4)
    }

    fn batch(self, number: u32, rng: &mut Rng) -> Batch {
        let mut order: Vec<u16> = (0..self.keys).collect();
        match number % 3 {
            0 => {}
            1 => order.reverse(),
            _ => rng.shuffle(&mut order),
        }
        let mut batch = Batch::new();
        for index in order {
            if self.is_deleted(index, number) {
                batch.delete(&self.key(index));
            } else {
                batch.put(&self.key(index), &number.to_le_bytes());
            }
        }
        batch
    }
}

fn filler(number: u16) -> Vec<u8> {
    let [high, low] = number.wrapping_mul(54).to_be_bytes();
    vec![high, low, b'f']
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_le_bytes)
}

/// A run: the store, and the threads' signals.
#[derive(Debug)]
struct Run {
    engine: Arc<dyn Engine>,
    shape: Shape,
    /// A run ends after this time, if it has not made all batches.
    time: Duration,
    done: AtomicBool,
    /// The LSN of each batch, once its call has returned; 0 before.
    lsns: Vec<AtomicU64>,
    /// The newest `durable_lsn` that any thread got.
    durable: AtomicU64,
}

/// Ends the readers with the writer, also when it panics.
pub(super) struct Ending<'a>(pub(super) &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Run {
    fn is_over(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    fn write(&self, seed: u64) -> CaseResult {
        let _end = Ending(&self.done);
        let mut rng = Rng::with_seed(seed);
        let begun = Instant::now();
        for (batch, published) in (1..=self.shape.batches).zip(self.lsns.iter().skip(1)) {
            let lsn = self.engine.apply(&self.shape.batch(batch, &mut rng))?;
            published.store(lsn.get(), Ordering::Release);
            if begun.elapsed() > self.time {
                break;
            }
        }
        Ok(())
    }

    fn get(&self, index: u16) -> Result<Option<u32>, Failure> {
        let mut found = None;
        let mut is_whole = true;
        self.engine.read(&self.shape.key(index), &mut |value| {
            found = number(value);
            is_whole = found.is_some();
        })?;
        ensure!(is_whole, "a read of {:?} shows bytes that no writer wrote", self.shape.key(index));
        Ok(found)
    }

    /// Reads keys one after the other. No read may show an older batch than the read before.
    fn read_pairs(&self, order: Order, seed: u64) -> CaseResult {
        let mut rng = Rng::with_seed(seed);
        let (mut floor, mut seen_under) = (0, None::<u16>);
        let mut rounds = 0u32;
        while !self.is_over() {
            for position in 0..self.shape.keys {
                let index = match order {
                    Order::Forward => position,
                    Order::Backward => self.shape.keys - 1 - position,
                    Order::Random => rng.u16(0..self.shape.keys),
                };
                let found = self.get(index)?;
                let least = found.unwrap_or_else(|| self.first_absent(index, floor));
                if least < floor {
                    let first = seen_under.map(|index| self.shape.key(index)).unwrap_or_default();
                    fail!(
                        "all changes of a batch become visible at once, but a reader saw batch {floor} under key {first:?}, and then batch {least} under key {:?}",
                        self.shape.key(index)
                    );
                }
                if least > floor {
                    (floor, seen_under) = (least, Some(index));
                }
            }
            rounds += 1;
            if rounds.is_multiple_of(8) {
                floor = self.look_at_all(floor, rounds.is_multiple_of(16))?;
                seen_under = None;
            }
        }
        Ok(())
    }

    /// The first batch from `floor` on after which the key is absent; 0 if there is none.
    fn first_absent(&self, index: u16, floor: u32) -> u32 {
        let next = (floor..floor + 4).find(|number| self.shape.is_deleted(index, *number));
        next.filter(|_| floor > 0).unwrap_or(0)
    }

    /// A scan, or one call for all keys. Neither is a snapshot, but none of their values is older
    /// than what was read before. Returns the newest batch seen.
    fn look_at_all(&self, floor: u32, scans: bool) -> Result<u32, Failure> {
        let (mut newest, mut oldest) = (floor, floor);
        let mut see = |value: &[u8]| {
            let batch = number(value).unwrap_or(0);
            (newest, oldest) = (newest.max(batch), oldest.min(batch));
        };
        let call = if scans {
            self.engine.scan(&mut |key, value| {
                if key.last() == Some(&b'b') {
                    see(value);
                }
                ControlFlow::Continue(())
            })?;
            "scan"
        } else {
            let keys: Vec<Vec<u8>> = (0..self.shape.keys).map(|index| self.shape.key(index)).collect();
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            self.engine.read_many(&keys, &mut |_, value| value.into_iter().for_each(&mut see))?;
            "read_many"
        };
        ensure!(
            oldest >= floor,
            "a reader saw batch {floor}, and then a {call} shows a value of batch {oldest}, which was gone before the {call} began"
        );
        Ok(newest)
    }

    /// Watches `last_lsn` beside a key, and `durable_lsn` beside `last_lsn`.
    fn watch(&self) -> CaseResult {
        let mut seen: Vec<(u32, Lsn)> = Vec::new();
        let mut told: Vec<(Lsn, u32)> = Vec::new();
        let mut last_before = Lsn::ZERO;
        while !self.is_over() {
            for index in [0, self.shape.keys - 1] {
                let before = self.engine.last_lsn();
                let found = self.get(index)?;
                let after = self.engine.last_lsn();
                ensure!(
                    last_before <= before && before <= after,
                    "last_lsn never decreases, but it was {}, and then {}",
                    last_before.max(before),
                    before.min(after)
                );
                last_before = after;
                if let Some(found) = found {
                    seen.push((found, after));
                    told.push((before, found));
                }
            }
            self.watch_durable()?;
        }
        self.check_watched(&seen, &told)
    }

    fn watch_durable(&self) -> CaseResult {
        let known = Lsn::new(self.durable.load(Ordering::Acquire));
        let durable = self.engine.durable_lsn();
        let last = self.engine.last_lsn();
        ensure!(durable >= known, "durable_lsn never decreases, but it was {known}, and is {durable}");
        ensure!(
            durable <= last,
            "durable_lsn is at most last_lsn, but it was {durable}, and last_lsn after it {last}"
        );
        self.durable.fetch_max(durable.get(), Ordering::AcqRel);
        Ok(())
    }

    fn lsn_of(&self, batch: u32) -> Option<Lsn> {
        let lsn = self.lsns.get(batch as usize)?.load(Ordering::Acquire);
        (lsn > 0).then(|| Lsn::new(lsn))
    }

    fn check_watched(&self, seen: &[(u32, Lsn)], told: &[(Lsn, u32)]) -> CaseResult {
        for (batch, last) in seen {
            if let Some(lsn) = self.lsn_of(*batch) {
                ensure!(
                    lsn <= *last,
                    "a reader saw the change of LSN {lsn}, but last_lsn was {last} afterwards"
                );
            }
        }
        for (last, batch) in told {
            // The next batch was not visible yet.
            if let Some(missed) = self.lsn_of(batch + 1) {
                ensure!(
                    missed > *last,
                    "a caller got last_lsn {last}, and then did not see the change of LSN {missed}"
                );
            }
        }
        Ok(())
    }
}

/// The order in which a reader visits the keys.
#[derive(Clone, Copy, Debug)]
enum Order {
    Forward,
    Backward,
    Random,
}

type Work = (&'static str, Box<dyn FnOnce(&Run) -> CaseResult + Send>);

/// Runs the writer, and the readers until it ends.
fn run(context: &Context, setup: Setup, shape: Shape, readers: Vec<Work>) -> CaseResult {
    // A real directory lives as long as its rig.
    let rig = context.rig(setup)?;
    let engine = rig.open()?;
    let mut fillers = Batch::new();
    for number in 0..FILLERS {
        fillers.put(&filler(number), b"stable");
    }
    engine.apply(&fillers)?;
    let lsns = (0..=shape.batches).map(|_| AtomicU64::new(0)).collect();
    let durable = AtomicU64::new(0);
    let time = run_time(context);
    let run = Arc::new(Run { engine, shape, time, done: AtomicBool::new(false), lsns, durable });
    let mut running: Vec<Running<CaseResult>> = Vec::new();
    let seed = context.seed();
    for (call, reader) in readers {
        let run = Arc::clone(&run);
        running.push(start(context, call, move || {
            let result = reader(&run);
            // The first failure ends the other threads.
            if result.is_err() {
                run.done.store(true, Ordering::Release);
            }
            result
        }));
    }
    let writer = Arc::clone(&run);
    running.push(start(context, "apply", move || writer.write(seed)));
    context.explored().history();
    running.iter().try_for_each(|one| {
        one.answer("among threads")?.map_err(|failure| {
            failure.with("round", format!("{shape:?} under {setup:?}: a replay may differ"))
        })
    })
}

pub(super) fn setups(context: &Context) -> [Setup; 2] {
    let with =
        |policy, scale| Setup { background: Background::Threads, scale, ..Setup::tiny(context, policy) };
    [with(Policy::Manual, Scale::Normal), with(Policy::MaxLogSize(4096), Scale::Tiny)]
}

/// The longest time of a run: an engine that is slow among threads makes fewer changes. Much less
/// than the patience of the watchdog.
pub(super) fn run_time(context: &Context) -> Duration {
    Duration::from_millis(context.scaled(200)).min(super::calls::patience(context) / 4)
}

/// Batches of a run at effort 1.
pub(super) fn batches(context: &Context, count: u64) -> u32 {
    u32::try_from(context.scaled(count)).unwrap_or(u32::MAX)
}

pub(super) fn batches_over_many_keys(context: &Context) -> CaseResult {
    let seed = context.seed();
    for setup in setups(context) {
        for (keys, deletes, count) in [(2, false, 2000), (12, true, 500), (200, false, 60), (200, true, 60)] {
            let shape = Shape { keys, deletes, batches: batches(context, count) };
            let reader =
                |order: Order| -> Work { ("a read", Box::new(move |run: &Run| run.read_pairs(order, seed))) };
            for orders in [[Order::Forward, Order::Backward], [Order::Random, Order::Backward]] {
                run(context, setup, shape, orders.into_iter().map(reader).collect())?;
            }
        }
    }
    Ok(())
}

pub(super) fn lsns_beside_what_is_visible(context: &Context) -> CaseResult {
    for policy in [Policy::Manual, Policy::MaxLogSize(300)] {
        for keys in [2, 100] {
            let count = batches(context, if keys == 2 { 4000 } else { 200 });
            let shape = Shape { keys, deletes: false, batches: count };
            let setup = Setup { policy, ..setups(context).map(|setup| setup)[0] };
            let watch = || -> Work { ("last_lsn", Box::new(|run: &Run| run.watch())) };
            let sync: Work = (
                "sync",
                Box::new(|run: &Run| {
                    while !run.is_over() {
                        let before = run.engine.last_lsn();
                        let reached = run.engine.sync()?;
                        ensure!(
                            reached >= before,
                            "sync makes every visible change durable, but last_lsn was {before} before it, and it returns {reached}"
                        );
                        run.watch_durable()?;
                    }
                    Ok(())
                }),
            );
            run(context, setup, shape, vec![watch(), watch(), sync])?;
        }
    }
    Ok(())
}
