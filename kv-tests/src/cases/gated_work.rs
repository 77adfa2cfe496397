//! Writers and compactions while operations of the disk are held one after the other: cases of the
//! group `concurrency`.

use super::calls::{Running, patience, start};
use super::stage::Stage;
use crate::failure::{InWords, ensure, fail};
use crate::oracle::{History, State, state_of};
use crate::rig::{Policy, Setup};
use crate::sim::{OpKind, PowerCut, SimFs};
use crate::{CaseResult, Context, Failure, workload};
use fastrand::Rng;
use kv_core::{Engine, Error, Lsn, Scale};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// The keys of one writer.
const KEYS: u16 = 60;

/// A change, as its caller knows it.
type Change = (Lsn, Vec<u8>, Option<Vec<u8>>);

/// No other writer changes the keys of this one. So it knows the values that it must read.
struct Writer {
    name: u8,
    engine: Arc<dyn Engine>,
    rng: Rng,
    number: usize,
    model: State,
    changes: Vec<Change>,
    durable: Arc<AtomicU64>,
}

impl Writer {
    fn new(name: u8, stage: &Stage, durable: &Arc<AtomicU64>) -> Self {
        Writer {
            name,
            engine: Arc::clone(&stage.engine),
            rng: Rng::with_seed(stage.context.seed() ^ u64::from(name)),
            number: usize::from(name) * 1_000_000,
            model: State::new(),
            changes: Vec::new(),
            durable: Arc::clone(durable),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let [high, low] = self.rng.u16(0..KEYS).to_be_bytes();
        vec![low, self.name, high]
    }

    /// Changes one key, and reads it and another one.
    fn step(&mut self, syncs: bool) -> CaseResult {
        let key = self.key();
        self.number += 1;
        if self.rng.u8(0..10) < 7 {
            let value = workload::value(self.number, self.rng.usize(4..200));
            let lsn = self.engine.put(&key, &value)?;
            self.changes.push((lsn, key.clone(), Some(value.clone())));
            self.model.insert(key.clone(), value);
        } else {
            let deleted = self.engine.delete(&key)?;
            let was_there = self.model.remove(&key).is_some();
            ensure!(
                deleted.is_some() == was_there,
                "a delete of {key:?} answers {deleted}, but the key was {}",
                if was_there { "present" } else { "absent" },
                deleted = deleted.in_words()
            );
            self.changes.extend(deleted.map(|lsn| (lsn, key.clone(), None)));
        }
        for key in [key, self.key()] {
            let found = self.engine.get(&key)?;
            let expected = self.model.get(&key);
            ensure!(
                found.as_deref() == expected.map(Vec::as_slice),
                "the only writer of {key:?} reads {}, but wrote {}",
                brief(found.as_deref()),
                brief(expected.map(Vec::as_slice))
            );
        }
        if syncs && self.number.is_multiple_of(25) {
            self.engine.sync()?;
        }
        self.durable.fetch_max(self.engine.durable_lsn().get(), Ordering::AcqRel);
        Ok(())
    }
}

/// The number of the operation that wrote a value.
fn brief(value: Option<&[u8]>) -> String {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.first_chunk().copied().unwrap_or_default());
    value.map_or("nothing".to_owned(), |value| format!("value #{} of {} B", number(value), value.len()))
}

/// A crash during the work, and the LSN that was durable before.
struct Crash {
    image: SimFs,
    durable: Lsn,
}

/// The run: the threads at work, and the crashes so far.
struct Run {
    stage: Stage,
    durable: Arc<AtomicU64>,
    steady: Running<Result<Writer, Failure>>,
    bursts: mpsc::Sender<usize>,
    bursting: Running<Result<Writer, Failure>>,
    compacting: Option<Running<kv_core::Result<()>>>,
    crashes: Vec<Crash>,
}

/// Operations of the disk between two that the gate holds for a while.
const STRIDE: u64 = 7;

impl Run {
    fn begin(context: &Context, setup: Setup, compacts: bool) -> Result<Self, Failure> {
        let stage = Stage::new(context, setup)?;
        let syncs = setup.policy == Policy::Manual;
        let durable = Arc::new(AtomicU64::new(0));
        let mut steady = Writer::new(1, &stage, &durable);
        let mut bursting = Writer::new(2, &stage, &durable);
        for _ in 0..100 {
            steady.step(syncs)?;
            bursting.step(false)?;
        }
        stage.gate.shut(OpKind::is_mutation);
        let steady = start(context, "a call of a writer", move || {
            (0..200).try_for_each(|_| steady.step(syncs)).map(|()| steady)
        });
        let (bursts, orders) = mpsc::channel();
        let bursting = start(context, "a call of a writer", move || {
            while let Ok(count) = orders.recv() {
                (0..count).try_for_each(|_| bursting.step(false))?;
            }
            Ok(bursting)
        });
        let engine = Arc::clone(&stage.engine);
        let compacting = compacts.then(|| {
            start(context, "compact", move || {
                (0..6).try_for_each(|_| engine.as_compact().map_or(Ok(()), |one| one.compact().map(drop)))
            })
        });
        let crashes = Vec::new();
        Ok(Run { stage, durable, steady, bursts, bursting, compacting, crashes })
    }

    /// Lets the disk work until the threads have ended; returns the changes in log order.
    fn drive(&mut self) -> Result<Vec<Change>, Failure> {
        let mut worked = Instant::now();
        let (mut stops, mut ended) = (0u64, Vec::new());
        while ended.len() < 2 {
            if let Some(stop) = self.stage.gate.stop(Duration::from_micros(300)) {
                stops += 1;
                worked = Instant::now();
                if stops % STRIDE == 0 && stops / STRIDE < 60 {
                    self.hold();
                }
                self.stage.gate.release(&stop);
            }
            if let Some(compacted) =
                self.compacting.as_ref().map(|one| one.within(Duration::ZERO)).transpose()?
                && let Some(answer) = compacted
            {
                answer?;
                self.compacting = None;
            }
            let is_first = ended.is_empty();
            let running = if is_first { &self.steady } else { &self.bursting };
            if let Some(writer) = running.within(Duration::ZERO)? {
                ended.push(writer?);
                if is_first {
                    self.bursts = mpsc::channel().0;
                }
            }
            if worked.elapsed() > patience(&self.stage.context) {
                return Err(running.stuck("beside a slow disk"));
            }
        }
        self.stage.gate.open();
        if let Some(compacting) = self.compacting.take() {
            compacting.answer("beside writers")??;
        }
        let mut changes: Vec<Change> = ended.iter().flat_map(|writer| writer.changes.clone()).collect();
        changes.sort();
        let model: State = ended.into_iter().flat_map(|writer| writer.model).collect();
        check_state("after the work", &state_of(&*self.stage.engine)?, &model)?;
        self.check_end(&model)?;
        Ok(changes)
    }

    /// While an operation is held, the other writer works, and the power fails.
    fn hold(&mut self) {
        let _ = self.bursts.send(3);
        std::thread::sleep(Duration::from_millis(1));
        let durable = Lsn::new(self.durable.load(Ordering::Acquire));
        if self.crashes.len() < 20 {
            self.crashes.push(Crash { image: self.stage.disk.power_cut(PowerCut::LOSE_ALL), durable });
        }
    }

    /// After a sync, a power cut takes nothing.
    fn check_end(&self, model: &State) -> CaseResult {
        self.stage.engine.sync()?;
        let image = self.stage.disk.power_cut(PowerCut::LOSE_ALL);
        check_state("after a sync and a power cut", &self.recover(&image)?, model)
    }

    fn recover(&self, image: &SimFs) -> Result<State, Failure> {
        self.stage.context.explored().crash_state();
        let quiet = Setup { background: self.stage.context.quiet_background(), ..self.stage.setup };
        Ok(state_of(&*self.stage.context.sim_rig(image.clone(), quiet).open()?)?)
    }

    fn check_crashes(&self, changes: Vec<Change>) -> CaseResult {
        let mut history = History::default();
        for (lsn, key, value) in changes {
            history.begin(vec![(key, value)]);
            history.end(Some(lsn));
        }
        history.check_order()?;
        for crash in &self.crashes {
            let mut history = history.clone();
            history.told_durable(crash.durable);
            history.check(&self.recover(&crash.image)?)?;
        }
        Ok(())
    }
}

fn check_state(when: &str, found: &State, model: &State) -> CaseResult {
    for key in found.keys().chain(model.keys()) {
        let (found, expected) = (found.get(key), model.get(key));
        if found != expected {
            let brief = |value: Option<&Vec<u8>>| brief(value.map(Vec::as_slice));
            fail!("{when} {key:?} holds {}, but its only writer left {}", brief(found), brief(expected));
        }
    }
    Ok(())
}

fn run(context: &Context, compacts: bool) -> CaseResult {
    for policy in [Policy::MaxLogSize(300), Policy::Manual] {
        let setup = Setup { scale: Scale::Tiny, ..Setup::tiny(context, policy) };
        let mut run = Run::begin(context, setup, compacts)?;
        let about = |failure: Failure| {
            failure.with("policy", format!("{policy:?}, with threads: a replay may differ"))
        };
        let changes = run.drive().map_err(about)?;
        run.check_crashes(changes).map_err(about)?;
        let closed = run.stage.engine.close();
        ensure!(
            !matches!(closed, Err(Error::Poisoned { .. })),
            "a close answers {closed} on a healthy disk",
            closed = closed.in_words()
        );
    }
    Ok(())
}

pub(super) fn writers_beside_a_slow_disk(context: &Context) -> CaseResult {
    run(context, false)
}

pub(super) fn compaction_beside_writers(context: &Context) -> CaseResult {
    run(context, true)
}
