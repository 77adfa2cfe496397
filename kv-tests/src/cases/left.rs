//! What is left of an engine that was dropped, and of an open that failed: nothing.

use crate::failure::{InWords, ensure, fail};
use crate::rig::{Policy, Rig, Setup};
use crate::sim::{Fault, FaultKind, Repeat, SimFs};
use crate::{CaseResult, Context, Failure};
use kv_core::{Background, Engine, Env, Error, Limits, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What an engine is given. The engine drops its references when it is dropped.
struct Given {
    env: Env,
    options: OpenOptions,
    before: [usize; 3],
}

impl Given {
    fn new(env: Env, options: OpenOptions) -> Self {
        let mut given = Given { env, options, before: [0; 3] };
        given.before = given.references();
        given
    }

    fn references(&self) -> [usize; 3] {
        [
            Arc::strong_count(&self.env.fs),
            Arc::strong_count(&self.env.clock),
            Arc::strong_count(&self.options.persistence),
        ]
    }

    fn open(&self, context: &Context, dir: &Path) -> kv_core::Result<Arc<dyn Engine>> {
        context.factory().open(dir, &self.env, &self.options)
    }

    /// Checks that nothing else holds what was given, after a moment for threads that have just
    /// ended.
    /// Checks that nothing else holds what was given.
    fn check_released(&self, context: &Context, disk: Option<&SimFs>, after: &str) -> CaseResult {
        let handles = || disk.map_or(0, SimFs::open_handles);
        if settles(context, &|| self.references() == self.before && handles() == 0)? {
            return Ok(());
        }
        let held = ["the file system", "the clock", "the persistence policy"]
            .into_iter()
            .zip(self.references().into_iter().zip(self.before))
            .find(|(_, (now, before))| now > before);
        match held {
            Some((held, _)) => fail!("after {after} the engine is gone, but something still holds {held}"),
            None => fail!("after {after} the engine is gone, but {} of its handles are open", handles()),
        }
    }
}

/// Whether this becomes true in a moment. Threads may have just ended. An engine may leave memory
/// to readers that other stores of the process have, and free it in a later call of any store.
pub(super) fn settles(context: &Context, is_settled: &dyn Fn() -> bool) -> Result<bool, Failure> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let start = Instant::now();
    while !is_settled() {
        if start.elapsed() > PATIENCE {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
        let engine = context.rig(Setup::tiny(context, Policy::Manual))?.open()?;
        engine.put(b"k", b"v")?;
        engine.close()?;
    }
    Ok(true)
}

/// How an engine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Dropped,
    ClosedTwice,
    Failed,
}

pub(super) fn a_dropped_engine_leaves_nothing(context: &Context) -> CaseResult {
    for policy in [Policy::Manual, Policy::AnyOf, Policy::Always] {
        for background in [Background::Inline, Background::Threads] {
            let capabilities = context.factory().capabilities();
            if background == Background::Inline && !capabilities.inline {
                continue;
            }
            for end in [End::Closed, End::Dropped, End::ClosedTwice, End::Failed] {
                let setup = Setup { background, ..Setup::tiny(context, policy) };
                let disk = capabilities.simulated_fs.then(SimFs::new);
                let rig = match &disk {
                    Some(disk) => context.sim_rig(disk.clone(), setup),
                    None => context.rig(setup)?,
                };
                end_of(context, &rig, disk.as_ref(), end)?;
                if capabilities.read_only && end != End::Failed {
                    let given = Given::new(rig.env(), OpenOptions { read_only: true, ..setup.options() });
                    let reader = given.open(context, rig.dir())?;
                    reader.get(b"k")?;
                    if end == End::Closed {
                        reader.close()?;
                    }
                    drop(reader);
                    given.check_released(context, disk.as_ref(), "the drop of a reader")?;
                }
            }
        }
    }
    Ok(())
}

fn end_of(context: &Context, rig: &Rig, disk: Option<&SimFs>, end: End) -> CaseResult {
    let setup = rig.setup;
    let given = Given::new(rig.env(), setup.options());
    let engine = given.open(context, rig.dir())?;
    for key in 0..30u8 {
        engine.put(&[key], &[key; 90])?;
    }
    let lsn = engine.put(b"k", b"v")?;
    // The waker of a task that never polls again.
    let waker = std::task::Waker::noop();
    let _ = engine.poll_durable(lsn, &mut std::task::Context::from_waker(waker));
    match (end, disk) {
        (End::Closed, _) => engine.close()?,
        (End::ClosedTwice, _) => engine.close().and_then(|()| engine.close())?,
        (End::Failed, Some(disk)) => {
            disk.inject(Fault { kind: FaultKind::MutationIo, nth: 0, repeat: Repeat::Always });
            let _ = (engine.put(b"k", b"w"), engine.sync(), engine.close());
            context.explored().add_faults(disk.faults_fired());
            disk.heal();
        }
        _ => {}
    }
    drop(engine);
    let what = format!("the end ({end:?}) of a store under {:?} with {:?}", setup.policy, setup.background);
    given.check_released(context, disk, &what)?;
    rig.open().map(drop).map_err(|error| {
        crate::Failure::new(format!("after {what} the directory can be opened again, but: {error}"))
    })
}

pub(super) fn a_failed_open_leaves_nothing(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    let disk = SimFs::new();
    let rig = context.sim_rig(disk.clone(), setup);
    let too_long = Limits { key_len_max: Limits::FORMAT_KEY_LEN_MAX + 1, ..Limits::default() };
    let refused = |options: OpenOptions, dir: &str, expected: fn(&Error) -> bool, why: &str| -> CaseResult {
        let given = Given::new(rig.env(), options);
        let before = disk.open_handles();
        match given.open(context, Path::new(dir)) {
            Err(error) if expected(&error) => {}
            other => fail!("{why} is answered with {other}", other = other.in_words()),
        }
        let is_closed = settles(context, &|| disk.open_handles() <= before)?;
        ensure!(
            is_closed,
            "a failed open leaves nothing open, but {why} leaves {} handles",
            disk.open_handles() - before
        );
        ensure!(
            settles(context, &|| given.references() == given.before)?,
            "a failed open holds nothing, but after {why} something holds what it was given"
        );
        Ok(())
    };
    let options = || setup.options();
    let is_not_a_store = |error: &Error| matches!(error, Error::NotAStore { .. });
    let must_exist = OpenOptions { create_if_missing: false, ..options() };
    refused(must_exist, "/none", is_not_a_store, "opening a missing store")?;
    let limits = OpenOptions { limits: too_long, ..options() };
    refused(limits, "/none", |error| matches!(error, Error::InvalidArgument(_)), "an open with long keys")?;
    let engine = rig.open()?;
    engine.put(b"k", &[7; 700])?;
    refused(options(), "/store", |error| matches!(error, Error::Locked { .. }), "opening a locked store")?;
    engine.close()?;
    drop(engine);
    open_with_faults(context, &rig, &disk)
}

/// Every operation of an open fails.
fn open_with_faults(context: &Context, rig: &Rig, disk: &SimFs) -> CaseResult {
    for nth in 0.. {
        let image = disk.process_death();
        image.inject(Fault { kind: FaultKind::AnyIo, nth, repeat: Repeat::Once });
        let rig = context.sim_rig(image.clone(), rig.setup);
        let given = Given::new(rig.env(), rig.setup.options());
        let opened = given.open(context, rig.dir());
        if image.faults_fired() == 0 {
            return Ok(());
        }
        context.explored().add_faults(1);
        let is_open = opened.is_ok();
        drop(opened);
        let how = if is_open { "that succeeded, and the drop," } else { "that failed" };
        let what = format!("an open {how} with a fault at its operation {nth}");
        given.check_released(context, Some(&image), &what)?;
        image.heal();
        rig.open().map(drop).map_err(|error| {
            crate::Failure::new(format!("after {what} the store can be opened, but: {error}"))
        })?;
    }
    Ok(())
}
