//! Calls while a store is closed: cases of the group `handles`.

use crate::failure::{InWords, ensure, fail};
use crate::rig::{Policy, Rig, Setup};
use crate::sim::{PowerCut, SimFs};
use crate::{CaseResult, Context, Failure};
use kv_core::{Background, Engine, Error};
use std::ops::ControlFlow;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

pub(super) fn operations_during_close(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for round in 0..context.scaled(16) {
        let policy = rng.choice(Policy::ALL).unwrap_or(Policy::Manual);
        let setup = Setup { background: Background::Threads, ..Setup::tiny(context, policy) };
        let disk = SimFs::new();
        let rig = context.sim_rig(disk.clone(), setup);
        closed_at_work(context, &rig, &disk, Duration::from_micros(rng.u64(0..3000)))
            .map_err(|failure| failure.with("round", format!("{round}, {policy:?}")))?;
    }
    Ok(())
}

/// Writers, readers, and two threads that close.
fn closed_at_work(context: &Context, rig: &Rig, disk: &SimFs, wait: Duration) -> CaseResult {
    const WRITERS: u8 = 2;
    let engine = rig.open()?;
    let (engine, both) = (&*engine, &Barrier::new(2));
    let (written, images) = thread::scope(|scope| {
        let writers: Vec<_> =
            (0..WRITERS).map(|key| scope.spawn(move || write_until_closed(engine, key))).collect();
        let others = [
            scope.spawn(|| until_closed("sync", || engine.sync().map(drop))),
            scope.spawn(|| until_closed("scan", || engine.scan(&mut |_, _| ControlFlow::Continue(())))),
            scope.spawn(|| until_closed("wait_durable", || engine.wait_durable(engine.last_lsn()))),
            scope.spawn(|| {
                until_closed("compact", || {
                    let _ = engine.stats();
                    engine
                        .as_compact()
                        .map_or_else(|| engine.get(b"k").map(drop), |compact| compact.compact().map(drop))
                })
            }),
        ];
        thread::sleep(wait);
        let closers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    both.wait();
                    engine.close().map(|()| disk.power_cut(PowerCut::LOSE_ALL))
                })
            })
            .collect();
        let images: Result<Vec<SimFs>, Failure> = closers
            .into_iter()
            .map(|closer| closer.join().map_err(|_| Failure::new("close panics"))?.map_err(Failure::from))
            .collect();
        let mut written = Vec::new();
        for writer in writers {
            written.push(writer.join().map_err(|_| Failure::new("put panics during close"))??);
        }
        for other in others {
            other.join().map_err(|_| Failure::new("an operation panics during close"))??;
        }
        Ok::<_, Failure>((written, images?))
    })?;
    for image in images {
        context.explored().crash_state();
        let again = context.sim_rig(image, rig.setup).open()?;
        for (key, number) in written.iter().enumerate() {
            let key = u8::try_from(key).unwrap_or_default();
            let found =
                again.get(&[key])?.and_then(|value| value.first_chunk().map(|n| u64::from_le_bytes(*n)));
            ensure!(
                // The last put may have been answered with Closed, and be there all the same.
                [*number, number + 1].contains(&found.unwrap_or(0)),
                "a close returned, and a power cut right after it takes changes: of key {key} put {number} was answered, and {found:?} is left"
            );
        }
    }
    Ok(())
}

/// Puts 1, 2, 3 … under `key`; returns the last number that the engine took.
fn write_until_closed(engine: &dyn Engine, key: u8) -> Result<u64, Failure> {
    for number in 1u64.. {
        match engine.put(&[key], &number.to_le_bytes()) {
            Ok(_) => {}
            Err(Error::Closed) => return Ok(number - 1),
            Err(error) => fail!("a put during close is answered with \"{error}\", not Closed"),
        }
    }
    Ok(0)
}

fn until_closed(name: &str, operation: impl Fn() -> kv_core::Result<()>) -> CaseResult {
    loop {
        match operation() {
            Ok(()) => thread::yield_now(),
            Err(Error::Closed) => return Ok(()),
            Err(error) => fail!("a {name} during close is answered with \"{error}\", not Closed"),
        }
    }
}

pub(super) fn borrowed_values_survive_a_close(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    for rig in [context.rig(setup)?, context.real_rig(setup)?] {
        let engine = rig.open()?;
        for key in 0..20u8 {
            engine.put(&[key], &[key; 150])?;
        }
        let changed = thread::scope(|scope| {
            let (mut closer, mut changed, mut visited) = (None, None, 0);
            let scanned = engine.scan(&mut |key, value| {
                let before = value.to_vec();
                visited += 1;
                if closer.is_none() {
                    closer = Some(scope.spawn(|| engine.close()));
                    // The close may wait for this callback, or free what it reads.
                    thread::sleep(Duration::from_millis(30));
                }
                if value != before || key.first().is_none_or(|key| before != [*key; 150]) {
                    changed = Some(key.to_vec());
                }
                ControlFlow::Continue(())
            });
            if !matches!(scanned, Ok(()) | Err(Error::Closed)) {
                fail!(
                    "a scan during close is answered with {scanned}, not Closed",
                    scanned = scanned.in_words()
                );
            }
            ensure!(
                scanned.is_err() || visited == 20,
                "a scan succeeds while another thread closes the store, but visits {visited} of 20 keys"
            );
            match closer.map(thread::ScopedJoinHandle::join) {
                Some(Ok(answer)) => answer?,
                _ => fail!("a scan visits no key, or close panics"),
            }
            Ok::<_, Failure>(changed)
        })?;
        ensure!(
            changed.is_none(),
            "another thread closed the store, and the value of key {changed:?} changed under the callback"
        );
    }
    Ok(())
}
