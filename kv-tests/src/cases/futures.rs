//! Futures that wait for durability: cases of the group `durability`.

use crate::executor::{run, run_all};
use crate::failure::{InWords, ensure, fail};
use crate::rig::{Policy, Setup};
use crate::sim::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use crate::{CaseResult, Context, Failure};
use kv_core::{Background, Engine, EngineExt, Error, Lsn, Result, Scale};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// A watchdog against a lost wake-up, not a limit on speed.
fn patience(context: &Context) -> Duration {
    context.settings().timeout.min(Duration::from_mins(1)) / 2
}

fn with_threads(context: &Context, policy: Policy) -> Setup {
    Setup { background: Background::Threads, ..Setup::tiny(context, policy) }
}

/// Awaits `lsn`.
fn wait(context: &Context, engine: &dyn Engine, lsn: Lsn) -> std::result::Result<Result<()>, Failure> {
    let answer = run(engine.durable(lsn), patience(context));
    answer.ok_or_else(|| Failure::new(format!("the future that waits for LSN {lsn} was never woken")))
}

pub(super) fn a_future_waits_for_durability(context: &Context) -> CaseResult {
    let mut rigs = Vec::new();
    for policy in [Policy::Manual, Policy::Periodic] {
        rigs.push(context.real_rig(with_threads(context, policy))?);
        rigs.push(context.rig(Setup::tiny(context, policy))?);
    }
    for rig in rigs {
        let engine = rig.open()?;
        for number in 0..20u8 {
            let lsn = engine.put(&[number % 3], &[number; 60])?;
            wait(context, &*engine, lsn)??;
            ensure!(
                engine.durable_lsn() >= lsn,
                "the future that waits for LSN {lsn} is ready, durable is {}",
                engine.durable_lsn()
            );
        }
        let last = engine.last_lsn();
        wait(context, &*engine, Lsn::ZERO)??;
        let beyond = wait(context, &*engine, last.next())?;
        ensure!(
            matches!(beyond, Err(Error::InvalidArgument(_))),
            "a future that waits for an LSN that was never given out is answered with {beyond}",
            beyond = beyond.in_words()
        );
        engine.close()?;
        let closed = wait(context, &*engine, last)?;
        ensure!(
            matches!(closed, Err(Error::Closed)),
            "a future after close is answered with {closed}",
            closed = closed.in_words()
        );
    }
    Ok(())
}

pub(super) fn futures_share_syncs(context: &Context) -> CaseResult {
    const FUTURES: usize = 64;
    let disk = SimFs::new();
    let setup = Setup { scale: Scale::Normal, ..with_threads(context, Policy::Manual) };
    let engine = context.sim_rig(disk.clone(), setup).open()?;
    let puts: Result<Vec<Lsn>> =
        (0..FUTURES).map(|number| engine.put(&number.to_le_bytes(), &[7; 100])).collect();
    let syncs = || disk.ops().iter().filter(|op| op.kind.is_sync()).count();
    let before = syncs();
    let futures = puts?.into_iter().map(|lsn| engine.durable(lsn));
    let Some(answers) = run_all(futures, patience(context)) else {
        fail!("one of {FUTURES} futures was never woken")
    };
    answers.into_iter().collect::<Result<Vec<()>>>()?;
    let took = syncs() - before;
    ensure!(took > 0 && took < FUTURES / 2, "{FUTURES} futures that waited together took {took} syncs");
    Ok(())
}

pub(super) fn a_failing_disk_ends_every_future(context: &Context) -> CaseResult {
    for repeat in [Repeat::Once, Repeat::Always] {
        let disk = SimFs::new();
        let engine = context.sim_rig(disk.clone(), with_threads(context, Policy::Manual)).open()?;
        let durable = engine.put(b"k", b"durable")?;
        wait(context, &*engine, durable)??;
        // A sync that fails once may belong to a file that the engine prepares in the background.
        // Changes then become durable beside it, and the engine may be poisoned or not.
        let mut is_told = false;
        for round in 0..MOST_PREPARATIONS {
            is_told = a_sync_fails(context, &*engine, &disk, (repeat, round))?;
            if is_told {
                break;
            }
            disk.heal();
        }
        ensure!(is_told, "{MOST_PREPARATIONS} times a sync failed, and no future was told");
        let durable = engine.durable_lsn();
        wait(context, &*engine, durable)??;
        if engine.last_lsn() > durable {
            let late = wait(context, &*engine, engine.last_lsn())?;
            ensure!(
                matches!(late, Err(Error::Poisoned { .. })),
                "a future on a poisoned store is answered with {late}",
                late = late.in_words()
            );
        }
        let closed = engine.close();
        ensure!(
            matches!(closed, Err(Error::Poisoned { .. })),
            "closing a poisoned store is answered with {closed}",
            closed = closed.in_words()
        );
    }
    Ok(())
}

/// More syncs than an engine spends one after another on files that hold no change yet.
const MOST_PREPARATIONS: u8 = 20;

/// Puts, and awaits the changes while a sync fails. Returns whether a put or a future was answered
/// with the failure. A change whose future was answered with `Ok` must survive a power cut.
fn a_sync_fails(
    context: &Context,
    engine: &dyn Engine,
    disk: &SimFs,
    (repeat, round): (Repeat, u8),
) -> Result<bool, Failure> {
    let durable = engine.durable_lsn();
    let puts: Result<Vec<Lsn>> = (0..8u8).map(|number| engine.put(&[number], &[round; 7])).collect();
    let lsns = match puts {
        Err(Error::Poisoned { .. }) if round > 0 => return Ok(true),
        puts => puts?,
    };
    disk.inject(Fault { kind: FaultKind::Sync, nth: 0, repeat });
    let futures = lsns.into_iter().map(|lsn| engine.durable(lsn));
    let Some(answers) = run_all(futures, patience(context)) else {
        fail!("the sync failed, and a future that waits for it was never woken")
    };
    context.explored().add_faults(disk.faults_fired());
    ensure!(
        repeat == Repeat::Once || engine.durable_lsn() == durable,
        "durable_lsn moved though every sync failed"
    );
    let rig = context.sim_rig(disk.power_cut(PowerCut::LOSE_ALL), with_threads(context, Policy::Manual));
    let recovered = rig.open()?;
    let mut is_told = false;
    for (number, answer) in (0u8..).zip(answers) {
        match answer {
            Ok(()) if repeat == Repeat::Once => {
                let found = recovered.get(&[number])?;
                ensure!(
                    found.as_deref() == Some(&[round; 7][..]),
                    "a future was answered with Ok, but after a power cut its key {number} holds {found:?}"
                );
            }
            Err(Error::Io { .. } | Error::Poisoned { .. }) => is_told = true,
            answer => fail!(
                "the sync failed, and a future that waits for it is answered with {answer}",
                answer = answer.in_words()
            ),
        }
    }
    Ok(is_told)
}

/// Counts its wakes.
#[derive(Default)]
struct Counter(AtomicU32);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

pub(super) fn a_dropped_future_leaves_nothing(context: &Context) -> CaseResult {
    let rig = context.real_rig(with_threads(context, Policy::Manual))?;
    let engine = rig.open()?;
    let task = Arc::new(Counter::default());
    let waker = Waker::from(Arc::clone(&task));
    for round in 0..50u8 {
        let lsn = engine.put(b"k", &[round])?;
        for _ in 0..20 {
            let polled = engine.poll_durable(lsn, &mut std::task::Context::from_waker(&waker));
            ensure!(!matches!(polled, Poll::Ready(Err(_))), "a poll is answered with {polled:?}");
        }
        // The owners: the task, its waker, one entry, and one waker that the engine is about to
        // wake.
        let owners = Arc::strong_count(&task);
        ensure!(owners <= 4, "after polling again and again the engine holds {} wakers", owners - 2);
    }
    wait(context, &*engine, engine.last_lsn())??;
    let start = Instant::now();
    while Arc::strong_count(&task) > 2 {
        ensure!(start.elapsed() < patience(context), "the engine keeps the waker of a future that is gone");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Models a task whose future holds the store, and that only the engine's waker keeps alive.
#[derive(Default)]
struct Owner(Mutex<Option<Arc<dyn Engine>>>);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        let engine = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(engine);
    }
}

pub(super) fn a_waker_may_hold_the_last_handle(context: &Context) -> CaseResult {
    let rig = context.real_rig(with_threads(context, Policy::Manual))?;
    let engine = rig.open()?;
    let lsn = engine.put(b"k", b"v")?;
    let task = Arc::new(Owner(Mutex::new(Some(Arc::clone(&engine)))));
    let waker = Waker::from(task);
    // An engine that answers at once keeps no waker, so the case wakes it.
    if let Poll::Ready(answer) = engine.poll_durable(lsn, &mut std::task::Context::from_waker(&waker)) {
        answer?;
        waker.wake_by_ref();
    }
    drop((waker, engine));
    let start = Instant::now();
    let engine = loop {
        match rig.open() {
            Err(Error::Locked { .. }) if start.elapsed() < patience(context) => {
                thread::sleep(Duration::from_millis(1));
            }
            opened => break opened?,
        }
    };
    ensure!(engine.durable_lsn() == lsn, "the store was not closed in order");
    ensure!(engine.get(b"k")?.as_deref() == Some(b"v".as_slice()), "a value that was waited for is gone");
    Ok(())
}

/// Futures, waiting threads, syncing threads, and a close at the end, all at once.
pub(super) fn futures_among_threads(context: &Context) -> CaseResult {
    let rounds = context.scaled(200);
    for policy in [Policy::Manual, Policy::MaxLogSize(300)] {
        let rig = context.real_rig(with_threads(context, policy))?;
        let engine = rig.open()?;
        let work = |writer: u8| -> CaseResult {
            for round in 0..rounds {
                let lsn = engine.put(&[writer], &round.to_le_bytes())?;
                match (writer, round % 16) {
                    (0, 0) => engine.wait_durable(lsn)?,
                    (0, 8) => drop(engine.sync()?),
                    _ => wait(context, &*engine, lsn)??,
                }
                ensure!(engine.durable_lsn() >= lsn, "LSN {lsn} was waited for, and is not durable");
            }
            Ok(())
        };
        let results: Vec<_> = thread::scope(|scope| {
            let work = &work;
            let writers: Vec<_> = (0..4).map(|writer| scope.spawn(move || work(writer))).collect();
            writers.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        for result in results {
            result.map_err(|_| Failure::new("no operation panics, but one did"))??;
        }
        let lsn = engine.put(b"k", b"last")?;
        let future = engine.durable(lsn);
        let (waited, closed) = thread::scope(|scope| {
            let waiting = scope.spawn(|| run(future, patience(context)));
            let closed = engine.close();
            (waiting.join(), closed)
        });
        closed?;
        context.explored().history();
        match waited {
            // The first poll may come before or after the close.
            Ok(Some(Ok(()) | Err(Error::Closed))) => {}
            Ok(Some(answer)) => {
                fail!("a future that waits while the store is closed is answered with {}", answer.in_words())
            }
            Ok(None) => fail!("a future that waits while the store is closed is never woken"),
            Err(_) => fail!("no operation panics, but a poll while the store is closed did"),
        }
    }
    Ok(())
}
