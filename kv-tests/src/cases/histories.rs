//! Random calls of threads, and their answers as a history.

use crate::Failure;
use crate::linearizability::{Answer, Call, Key, Number, Operation, State};
use crate::workload;
use fastrand::Rng;
use kv_core::{Batch, Engine, Error, Lsn};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

/// The kinds of calls to draw.
#[derive(Clone, Copy)]
pub(super) struct Mix {
    pub(super) keys: Key,
    pub(super) batches: bool,
}

impl Mix {
    /// Draws calls for 2 to 4 threads, 36 at most. Numbers grow from `first`, so that none repeats.
    pub(super) fn draw(self, rng: &mut Rng, first: Number) -> Vec<Vec<Call>> {
        let threads = rng.usize(2..=4);
        let mut number = first;
        (0..threads)
            .map(|_| {
                let reads_percent = *rng.choice(&[20, 50, 80]).unwrap_or(&50);
                (0..rng.usize(4..=36 / threads))
                    .map(|_| {
                        number += 1;
                        self.call(rng, reads_percent, number)
                    })
                    .collect()
            })
            .collect()
    }

    fn call(self, rng: &mut Rng, reads_percent: u8, number: Number) -> Call {
        let key = rng.u8(0..self.keys);
        if rng.u8(0..100) < reads_percent {
            return Call::Get(key);
        }
        match rng.u8(0..10) {
            0..=3 if self.batches => {
                let mut others: Vec<Key> = (0..self.keys).filter(|other| *other != key).collect();
                rng.shuffle(&mut others);
                others.truncate(rng.usize(1..=others.len()));
                let mut changes: Vec<_> =
                    others.into_iter().map(|key| (key, (rng.u8(0..4) > 0).then_some(number))).collect();
                changes.insert(rng.usize(0..=changes.len()), (key, Some(number)));
                Call::Batch(changes)
            }
            0..=6 => Call::Put(key, number),
            _ => Call::Delete(key),
        }
    }
}

/// The bytes of the value with this number.
pub(super) fn value(number: Number) -> Vec<u8> {
    let lens = [4, 12, 40, 90];
    let len = lens.get(number as usize % lens.len()).copied().unwrap_or(4);
    workload::value(number as usize, len)
}

pub(super) fn number(bytes: &[u8]) -> Option<Number> {
    let number = u32::from_le_bytes(*bytes.first_chunk()?);
    (value(number) == bytes).then_some(number)
}

pub(super) fn found(bytes: Option<&[u8]>) -> Answer {
    match bytes.map(number) {
        None => Answer::Found(None),
        Some(Some(number)) => Answer::Found(Some(number)),
        Some(None) => Answer::Garbage,
    }
}

pub(super) fn perform(engine: &dyn Engine, thread: usize, call: &Call) -> kv_core::Result<Answer> {
    Ok(match call {
        Call::Get(key) if thread.is_multiple_of(2) => found(engine.get(&[*key])?.as_deref()),
        Call::Get(key) => {
            let mut answer = Answer::Found(None);
            engine.read(&[*key], &mut |bytes| answer = found(Some(bytes)))?;
            answer
        }
        Call::Put(key, number) => Answer::Changed(engine.put(&[*key], &value(*number))?),
        Call::Delete(key) => engine.delete(&[*key])?.map_or(Answer::Absent, Answer::Changed),
        Call::Batch(changes) => {
            let mut batch = Batch::new();
            for (key, number) in changes {
                match number {
                    Some(number) => batch.put(&[*key], &value(*number)),
                    None => batch.delete(&[*key]),
                };
            }
            Answer::Changed(engine.apply(&batch)?)
        }
    })
}

/// The answers to one thread, until an error ended it.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) operations: Vec<Operation>,
    pub(super) durable: Lsn,
    pub(super) error: Option<Error>,
}

/// Runs the calls of each thread, and `meanwhile` on this thread; all begin together.
pub(super) fn run(
    engine: &dyn Engine,
    calls: &[Vec<Call>],
    meanwhile: impl FnOnce(),
) -> Result<Vec<Seen>, Failure> {
    let (clock, missing) = (AtomicU64::new(0), AtomicUsize::new(calls.len() + 1));
    let begin = || {
        missing.fetch_sub(1, Ordering::AcqRel);
        // Threads spin here. A barrier would wake one after the other, and a round is shorter than
        // a wake-up.
        while missing.load(Ordering::Acquire) > 0 {
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = calls
            .iter()
            .enumerate()
            .map(|(thread, calls)| {
                let (clock, begin) = (&clock, &begin);
                scope.spawn(move || {
                    begin();
                    run_thread(engine, thread, calls, clock)
                })
            })
            .collect();
        begin();
        meanwhile();
        let joined = threads.into_iter().map(|thread| {
            thread.join().map_err(|_| Failure::new("no operation panics, but one did among threads"))
        });
        joined.collect()
    })
}

pub(super) fn run_thread(engine: &dyn Engine, thread: usize, calls: &[Call], clock: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    for call in calls {
        let called = clock.fetch_add(1, Ordering::SeqCst);
        let answer = perform(engine, thread, call);
        let at = clock.fetch_add(1, Ordering::SeqCst);
        let returned = answer.as_ref().ok().map(|answer| (at, *answer));
        if let Some(error) = answer.err() {
            // After `Closed` a change took no effect. After any other error it may have taken
            // effect.
            let in_flight = !matches!(error, Error::Closed) && !matches!(call, Call::Get(_));
            if in_flight {
                seen.operations.push(Operation { thread, call: call.clone(), called, returned });
            }
            seen.error = Some(error);
            break;
        }
        seen.operations.push(Operation { thread, call: call.clone(), called, returned });
        seen.durable = seen.durable.max(engine.durable_lsn());
    }
    seen
}

/// Reads all keys after all other operations.
pub(super) fn read_all(
    engine: &dyn Engine,
    mix: Mix,
    operations: &mut Vec<Operation>,
) -> Result<State, Failure> {
    let mut state = State::new();
    let times = operations.iter().map(|one| one.returned.map_or(one.called, |(at, _)| at));
    let now = times.max().unwrap_or(0) + 1;
    let thread = operations.iter().map(|one| one.thread + 1).max().unwrap_or(0);
    for (key, called) in (0..mix.keys).zip((now..).step_by(2)) {
        let call = Call::Get(key);
        let answer = perform(engine, thread, &call)?;
        if let Answer::Found(Some(number)) = answer {
            state.insert(key, number);
        }
        operations.push(Operation { thread, call, called, returned: Some((called + 1, answer)) });
    }
    Ok(state)
}
