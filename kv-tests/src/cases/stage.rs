//! A store on a gated disk: the case makes calls while the gate holds a sync, and judges each
//! promise of durability by the worst power cut at the moment of the promise.

use super::calls::{Running, patience, start};
use crate::executor;
use crate::failure::{ensure, fail};
use crate::rig::Setup;
use crate::sim::{Edge, Gate, PowerCut, SimFs, Stop};
use crate::{CaseResult, Context, Failure};
use kv_core::{Background, Engine, EngineExt, Env, Error, Lsn, Result};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Time for calls to run into the held operation, or to return too early. Too short a time weakens
/// a check, and makes none wrong.
pub(super) const SETTLE: Duration = Duration::from_millis(6);

/// Gives the threads of the case and the engine time to go on. A new thread runs after those that
/// a busy machine has let wait, so this takes longer there.
pub(super) fn settle() {
    thread::sleep(SETTLE);
    for _ in 0..3 {
        // The thread does nothing that could panic.
        let _ = thread::spawn(thread::yield_now).join();
    }
}

/// The keys and LSNs of the changes that were answered.
type Changes = Arc<Mutex<Vec<(String, Lsn)>>>;

/// How a caller makes its change durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Sync,
    WaitDurable,
    PollDurable,
    /// The policy does it: the call of the change waits.
    Put,
    /// The policy does it: the caller watches `durable_lsn`.
    Watch,
    /// The caller does not wait for durability.
    Visible,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Sync => "sync",
            Way::WaitDurable => "wait_durable",
            Way::PollDurable => "poll_durable",
            Way::Put | Way::Visible => "put",
            Way::Watch => "durable_lsn",
        }
    }

    /// Makes `lsn` durable; returns the LSN that the engine calls durable.
    fn make_durable(self, engine: &dyn Engine, lsn: Lsn, patience: Duration) -> Option<Result<Lsn>> {
        Some(match self {
            Way::Sync => engine.sync(),
            Way::WaitDurable => engine.wait_durable(lsn).map(|()| lsn),
            Way::PollDurable => executor::run(engine.durable(lsn), patience)?.map(|()| lsn),
            Way::Put => Ok(lsn),
            Way::Visible => Ok(Lsn::ZERO),
            Way::Watch => {
                let start = Instant::now();
                while engine.durable_lsn() < lsn {
                    if start.elapsed() > patience {
                        return None;
                    }
                    thread::sleep(Duration::from_micros(200));
                }
                Ok(engine.durable_lsn())
            }
        })
    }
}

/// A promise of durability, and the disk after the worst power cut at that moment.
#[derive(Debug)]
pub(super) struct Promise {
    pub(super) by: &'static str,
    key: Option<String>,
    pub(super) answer: Result<Lsn>,
    image: SimFs,
}

/// A question for `durable_lsn`.
#[derive(Debug)]
struct Asked {
    /// The highest LSN that was called durable before.
    floor: Lsn,
    durable: Lsn,
    /// `last_lsn` after it.
    last: Lsn,
    image: SimFs,
}

/// A store on a gated disk.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) context: Context,
    pub(super) setup: Setup,
    pub(super) disk: SimFs,
    pub(super) gate: Gate,
    pub(super) engine: Arc<dyn Engine>,
    changes: Changes,
    running: Vec<Running<Option<Promise>>>,
    asked: Vec<Running<Asked>>,
    promises: Vec<Promise>,
    calls: usize,
    /// Whether a caller joined that could be told too early by the held operation.
    is_fresh: bool,
}

impl Stage {
    /// Opens a new store with background threads; the gate is open.
    pub(super) fn new(context: &Context, setup: Setup) -> std::result::Result<Self, Failure> {
        let disk = SimFs::new();
        let (gate, fs) = Gate::before(disk.clone());
        let setup = Setup { background: Background::Threads, ..setup };
        let env = Env { fs, ..context.sim_rig(disk.clone(), setup).env() };
        let engine = context.factory().open(Path::new("/store"), &env, &setup.options())?;
        context.explored().history();
        Ok(Stage {
            context: context.clone(),
            setup,
            disk,
            gate,
            engine,
            changes: Changes::default(),
            running: Vec::new(),
            asked: Vec::new(),
            promises: Vec::new(),
            calls: 0,
            is_fresh: false,
        })
    }

    /// Begins to put a new key and to make it durable. Waits until the put has returned, or blocks.
    pub(super) fn join(&mut self, way: Way) -> CaseResult {
        self.calls += 1;
        let key = format!("key {:03}", self.calls);
        let (engine, changes, disk) =
            (Arc::clone(&self.engine), Arc::clone(&self.changes), self.disk.clone());
        let patience = patience(&self.context);
        let (visible, is_visible) = std::sync::mpsc::channel();
        let call = format!("{} for a put of {key:?}", way.name());
        self.running.push(start(&self.context, call, move || {
            let answer = match engine.put(key.as_bytes(), value(&key).as_bytes()) {
                Ok(lsn) => {
                    changes.lock().unwrap_or_else(PoisonError::into_inner).push((key.clone(), lsn));
                    let _ = visible.send(());
                    way.make_durable(&*engine, lsn, patience)?
                }
                Err(error) => Err(error),
            };
            let image = disk.power_cut(PowerCut::LOSE_ALL);
            Some(Promise { by: way.name(), key: Some(key).filter(|_| way != Way::Visible), answer, image })
        }));
        // An engine may make the put wait for the held operation.
        if is_visible.recv_timeout(SETTLE).is_err() {
            settle();
        }
        self.is_fresh = true;
        self.collect()
    }

    /// Begins to ask for `durable_lsn`, a promise as any other.
    pub(super) fn ask(&mut self) -> CaseResult {
        self.collect()?;
        let told = self.promises.iter().filter_map(|promise| promise.answer.as_ref().ok());
        let floor = told.max().copied().unwrap_or_default();
        let (engine, disk) = (Arc::clone(&self.engine), self.disk.clone());
        let asked = start(&self.context, "durable_lsn", move || {
            let (durable, last) = (engine.durable_lsn(), engine.last_lsn());
            Asked { floor, durable, last, image: disk.power_cut(PowerCut::LOSE_ALL) }
        });
        self.asked.push(asked);
        settle();
        self.collect()
    }

    /// Begins to close the store. The answer promises durability up to `last_lsn`.
    pub(super) fn close(&mut self) {
        let (engine, disk) = (Arc::clone(&self.engine), self.disk.clone());
        self.running.push(start(&self.context, "close", move || {
            let closed = engine.close();
            let image = disk.power_cut(PowerCut::LOSE_ALL);
            let answer = closed.map(|()| engine.last_lsn());
            Some(Promise { by: "close", key: None, answer, image })
        }));
    }

    /// Tries to open the store again while the first engine has not let it go for certain. An open
    /// that succeeds must find every change that was answered before.
    pub(super) fn try_to_open(&self, during: &str) -> std::result::Result<bool, Failure> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let image = self.disk.power_cut(PowerCut::LOSE_ALL);
        let quiet = Setup { background: self.context.quiet_background(), ..self.setup };
        match self.context.sim_rig(self.disk.clone(), quiet).open() {
            Err(Error::Locked { .. }) => return Ok(false),
            opened => drop(opened?),
        }
        let keys: Vec<&String> = changes.iter().map(|(key, _)| key).collect();
        if let Some((key, found)) = first_missing(&self.context, self.setup, &image, &keys)? {
            fail!(
                "{during} gives the directory away before every change is durable: another open succeeds, and after a power cut at that moment {key:?} {found}"
            );
        }
        Ok(true)
    }

    /// Takes the answers that have come.
    fn collect(&mut self) -> CaseResult {
        for running in std::mem::take(&mut self.running) {
            match running.within(Duration::ZERO)? {
                None => self.running.push(running),
                Some(Some(promise)) => self.promises.push(promise),
                Some(None) => return Err(running.stuck("")),
            }
        }
        for asked in std::mem::take(&mut self.asked) {
            // An engine may let the question wait for the held operation.
            let Some(Asked { floor, durable, last, image }) = asked.within(Duration::ZERO)? else {
                self.asked.push(asked);
                continue;
            };
            ensure!(durable <= last, "durable_lsn is {durable}, and last_lsn after it only {last}");
            ensure!(
                durable >= floor,
                "LSN {floor} was called durable, and durable_lsn went back to {durable}"
            );
            self.promises.push(Promise { by: "durable_lsn", key: None, answer: Ok(durable), image });
        }
        Ok(())
    }

    /// Lets the engine work until every call has returned. Calls `at_stop` while the gate holds an
    /// operation; it returns whether the operation shall fail.
    pub(super) fn drive(
        &mut self,
        mut at_stop: impl FnMut(&mut Stage, &Stop) -> std::result::Result<bool, Failure>,
    ) -> CaseResult {
        let mut worked = Instant::now();
        loop {
            self.collect()?;
            let Some(running) = self.running.first() else { return Ok(()) };
            let Some(stop) = self.gate.stop(Duration::from_millis(1)) else {
                if worked.elapsed() > patience(&self.context) {
                    return Err(running.stuck("among concurrent syncs"));
                }
                continue;
            };
            worked = Instant::now();
            // Calls that the operation before this one released return now.
            if stop.edge == Edge::Before && stop.kind.is_sync() && std::mem::take(&mut self.is_fresh) {
                settle();
            }
            if at_stop(self, &stop)? {
                self.context.explored().add_faults(1);
                self.gate.fail(&stop);
            } else {
                self.gate.release(&stop);
            }
        }
    }

    /// The promises so far.
    pub(super) fn promises(&self) -> &[Promise] {
        &self.promises
    }

    /// Checks each promise against the disk at its moment: the caller's own change is present, and
    /// so is every change up to the LSN that was called durable.
    pub(super) fn check_promises(&self) -> CaseResult {
        self.check_each(|promise| promise.image.clone(), "at that moment")
    }

    /// Checks each promise against the disk after a power cut now.
    pub(super) fn check_promises_now(&self) -> CaseResult {
        let image = self.disk.power_cut(PowerCut::LOSE_ALL);
        self.check_each(|_| image.clone(), "later")
    }

    fn check_each(&self, image: impl Fn(&Promise) -> SimFs, at: &str) -> CaseResult {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for promise in &self.promises {
            let Ok(durable) = promise.answer else { continue };
            let covered = changes.iter().filter(|(_, lsn)| *lsn <= durable).map(|(key, _)| key);
            let keys: Vec<&String> = covered.chain(&promise.key).collect();
            if let Some((key, found)) = first_missing(&self.context, self.setup, &image(promise), &keys)? {
                let lsn = changes.iter().find(|(known, _)| known == key).map(|(_, lsn)| *lsn);
                fail!(
                    "{} reported LSN {durable} as durable, but after a power cut {at} {key:?} of LSN {} {found}",
                    promise.by,
                    lsn.unwrap_or_default()
                );
            }
        }
        Ok(())
    }

    /// Checks that all answered changes survive a power cut now.
    pub(super) fn check_all_durable(&self, after: &str) -> CaseResult {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let image = self.disk.power_cut(PowerCut::LOSE_ALL);
        let keys: Vec<&String> = changes.iter().map(|(key, _)| key).collect();
        if let Some((key, found)) = first_missing(&self.context, self.setup, &image, &keys)? {
            fail!("after {after} every change is durable, but after a power cut {key:?} {found}");
        }
        Ok(())
    }
}

/// The value under a key of a stage: longer than a sector, so that a torn one shows.
pub(super) fn value(key: &str) -> String {
    key.repeat(20)
}

/// The first of `keys` that a store on `image` lacks, with the difference.
pub(super) fn first_missing<'a>(
    context: &Context,
    setup: Setup,
    image: &SimFs,
    keys: &[&'a String],
) -> std::result::Result<Option<(&'a String, String)>, Failure> {
    context.explored().crash_state();
    let quiet = Setup { background: context.quiet_background(), ..setup };
    let engine = context.sim_rig(image.process_death(), quiet).open()?;
    for key in keys {
        match engine.get(key.as_bytes())? {
            Some(found) if *found == *value(key).as_bytes() => {}
            Some(_) => return Ok(Some((key, "has another value".to_owned()))),
            None => return Ok(Some((key, "is gone".to_owned()))),
        }
    }
    Ok(None)
}
