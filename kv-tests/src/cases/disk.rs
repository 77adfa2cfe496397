//! Full disks, processes without descriptors, refused removals: the engine refuses, and finds the
//! way out.

use super::case;
use super::errors::every_operation_fails;
use crate::failure::{ensure, fail};
use crate::oracle::{History, State, state_of};
use crate::rig::{Policy, Rig, Setup};
use crate::scenario::judge;
use crate::sim::{Fault, FaultKind, OpKind, PowerCut, Repeat, SimFs};
use crate::workload::{Op, run_op, run_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::{Engine, Error, Lsn};
use std::sync::Arc;

const SIMULATED: &[Need] = &[Need::SimulatedFs, Need::Inline];

pub(crate) const CASES: &[Case] = &[
    case(
        "disk::required_kv621_way_out_of_a_full_disk",
        Level::Required,
        SIMULATED,
        "On a disk without a free byte a store opens, reads, closes and deletes all keys, and its space is free again.",
        way_out_of_a_full_disk,
    ),
    case(
        "disk::required_kv622_a_refused_change_changes_nothing",
        Level::Required,
        SIMULATED,
        "A DiskFull that does not poison changed nothing; one that poisons is the cause that Poisoned names.",
        a_refused_change_changes_nothing,
    ),
    case(
        "disk::required_kv623_a_limit_of_file_sizes_is_a_full_disk",
        Level::Required,
        SIMULATED,
        "The limit of file sizes is DiskFull at every operation, and nothing is lost.",
        |context| fails_once_and_for_good(context, FaultKind::FileTooLarge),
    ),
    case(
        "disk::required_kv624_allocation_reserves_nothing",
        Level::Required,
        SIMULATED,
        "A full disk is DiskFull at every write, in allocated space too, and nothing is lost.",
        |context| fails_once_and_for_good(context, FaultKind::WriteDiskFull),
    ),
    case(
        "disk::required_kv625_no_descriptors",
        Level::Required,
        SIMULATED,
        "Without descriptors for any file the engine refuses the call or is poisoned, and loses nothing.",
        |context| fails_once_and_for_good(context, FaultKind::NoDescriptors),
    ),
    case(
        "disk::required_kv626_refused_removals",
        Level::Required,
        SIMULATED,
        "While no file can be removed a store goes on, loses nothing, and does not try for ever.",
        refused_removals,
    ),
];

fn fails_once_and_for_good(context: &Context, kind: FaultKind) -> CaseResult {
    every_operation_fails(context, kind, Repeat::Once)?;
    every_operation_fails(context, kind, Repeat::Always)
}

/// The bytes of all files.
fn used(disk: &SimFs) -> u64 {
    disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum()
}

/// An engine, and its changes since the open.
struct Handle<'a> {
    rig: &'a Rig,
    engine: Arc<dyn Engine>,
    history: History,
}

impl<'a> Handle<'a> {
    fn open(rig: &'a Rig) -> Result<Self, Failure> {
        let engine = rig
            .open()
            .map_err(|error| Failure::new(format!("a store on a full disk opens, but: {error}")))?;
        let mut history = History::default();
        let state = state_of(&*engine)?;
        if !state.is_empty() {
            history.begin(state.into_iter().map(|(key, value)| (key, Some(value))).collect());
            history.end(Some(engine.last_lsn()));
            history.told_durable(engine.last_lsn());
        }
        Ok(Handle { rig, engine, history })
    }

    /// Opens the store again after a failure, and checks the recovered state.
    fn reopen(self) -> Result<Self, Failure> {
        let Handle { rig, engine, mut history } = self;
        let closed = engine.close();
        history.told_durable(engine.durable_lsn());
        if closed.is_ok() {
            history.told_durable(history.last_lsn());
        }
        drop(engine);
        let again = Handle::open(rig)?;
        history.check(&state_of(&*again.engine)?)?;
        Ok(again)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> kv_core::Result<()> {
        self.history.begin(vec![(key.to_vec(), Some(value.to_vec()))]);
        let lsn = self.engine.put(key, value)?;
        self.history.end(Some(lsn));
        self.history.told_durable(self.engine.durable_lsn());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> kv_core::Result<Option<Lsn>> {
        self.history.begin(vec![(key.to_vec(), None)]);
        let lsn = self.engine.delete(key)?;
        self.history.end(lsn);
        self.history.told_durable(self.engine.durable_lsn());
        Ok(lsn)
    }
}

fn way_out_of_a_full_disk(context: &Context) -> CaseResult {
    for (policy, space, value_len) in
        [(Policy::MaxLogSize(1000), 240 << 10, 60), (Policy::Always, 160 << 10, 400)]
    {
        let disk = SimFs::new();
        let rig = context.sim_rig(disk.clone(), Setup::tiny(context, policy));
        let mut first_fill = None;
        for round in 0..3 {
            context.set_doing(format!("round {round} under {policy:?}"));
            disk.limit_space(Some(space));
            let mut store = fill(Handle::open(&rig)?, &vec![round; value_len])?;
            let filled = state_of(&*store.engine)?.len();
            let enough = *first_fill.get_or_insert(filled) / 2;
            ensure!(
                filled > enough && filled > 20,
                "round {round} under {policy:?}: {filled} keys fit on the disk, {} did at first",
                2 * enough
            );
            let full = used(&disk);
            disk.limit_space(Some(full));
            // A killed process must leave a store that opens, too.
            let killed = disk.process_death();
            killed.limit_space(Some(full));
            let left = context.sim_rig(killed, rig.setup);
            store.history.check(&state_of(&*Handle::open(&left)?.engine)?)?;
            for _ in 0..3 {
                let closed = store.engine.close();
                ensure!(closed.is_ok(), "a store on a full disk closes, but: {closed:?}");
                store = store.reopen()?;
            }
            empty(context, store)?;
            let left = used(&disk);
            ensure!(
                left < full / 2,
                "round {round} under {policy:?}: every key was deleted, but {left} of {full} bytes are still used"
            );
        }
    }
    Ok(())
}

/// Puts new keys until the disk is full. Opens the store again if a put poisoned it.
fn fill<'a>(mut store: Handle<'a>, value: &[u8]) -> Result<Handle<'a>, Failure> {
    for number in 0..100_000_u32 {
        match store.put(&number.to_be_bytes(), value) {
            Ok(()) => {}
            Err(Error::DiskFull { .. }) => {
                if let Ok(durable) = store.engine.sync() {
                    store.history.refuse();
                    store.history.check_visible(&state_of(&*store.engine)?)?;
                    store.history.told_durable(durable);
                    return Ok(store);
                }
                return store.reopen();
            }
            Err(error) => fail!("a put on a full disk is answered with: {error}"),
        }
    }
    Err(Failure::new("the disk is never full"))
}

/// Deletes all keys one by one, in random order.
fn empty(context: &Context, mut store: Handle<'_>) -> CaseResult {
    let remaining = |store: &Handle<'_>| -> Result<Vec<Vec<u8>>, Failure> {
        let mut keys: Vec<Vec<u8>> = state_of(&*store.engine)?.into_keys().collect();
        context.rng().shuffle(&mut keys);
        Ok(keys)
    };
    let (mut keys, mut reopened) = (remaining(&store)?, false);
    let all = keys.len();
    while let Some(key) = keys.pop() {
        match store.delete(&key) {
            Ok(Some(_)) => {}
            Ok(None) => fail!("a delete on a full disk does not find a present key"),
            Err(error) if reopened => {
                fail!(
                    "deletes succeed on a full disk, but {} of {all} keys are left: {error}",
                    keys.len() + 1
                )
            }
            Err(_) => {
                store = store.reopen()?;
                (keys, reopened) = (remaining(&store)?, true);
            }
        }
    }
    let synced = store.engine.sync();
    ensure!(synced.is_ok(), "deletes on a full disk can be synced, but: {synced:?}");
    if let Some(compact) = store.engine.as_compact() {
        compact.compact()?;
    }
    ensure!(state_of(&*store.engine)?.is_empty(), "every key was deleted, but some are present");
    store.engine.close()?;
    Ok(())
}

/// Overwrites and deletes on a nearly full disk, and opens a poisoned store again.
fn a_refused_change_changes_nothing(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let mut refusals = 0;
    for policy in [Policy::Always, Policy::MaxLogSize(300), Policy::Manual] {
        let disk = SimFs::new();
        let rig = context.sim_rig(disk.clone(), Setup::tiny(context, policy));
        let mut store = Handle::open(&rig)?;
        // The failure of the call before, if it failed: the only cause that a poisoned store may
        // name.
        let mut failed: Option<Error> = None;
        for number in 0..context.scaled(600) {
            if number % 40 == 0 {
                disk.limit_space(Some(used(&disk) + rng.u64(0..2000)));
            }
            // At first more keys than fit, then a few, which gives space back.
            let op = overwriting(&mut rng, if number % 200 < 150 { 200 } else { 24 });
            let before = store.engine.last_lsn();
            let known = store.history.clone();
            let answer = run_op(&*store.engine, &op, &mut store.history);
            match answer {
                Ok(()) => failed = None,
                Err(Error::Poisoned { cause }) => {
                    let told = failed.take().map(|error| error.to_string());
                    ensure!(
                        told.as_deref() == Some(&*cause.to_string()),
                        "{policy:?}, operation {number}: {cause} poisoned the store, but the call before answered {told:?}"
                    );
                    disk.limit_space(None);
                    // The change that poisoned may be there, and this one is not.
                    store.history = known;
                    store = store.reopen()?;
                }
                Err(error @ Error::DiskFull { .. }) => {
                    refusals += 1;
                    let what = format!("{policy:?}, operation {number}, {}: {error}", op.describe());
                    check_refusal(context, &disk, &mut store, before, &op)
                        .map_err(|failure| failure.with("refused", what))?;
                    failed = Some(error);
                }
                Err(error) => fail!("on a full disk {} is answered with: {error}", op.describe()),
            }
        }
    }
    context.explored().add_faults(refusals);
    ensure!(refusals > 5, "the harness is broken: hardly any change met a full disk");
    Ok(())
}

/// Checks that the refused change left the store as it was, or poisoned it by the dump that it
/// started.
fn check_refusal(
    context: &Context,
    disk: &SimFs,
    store: &mut Handle<'_>,
    before: Lsn,
    op: &Op,
) -> CaseResult {
    let engine = &*store.engine;
    let visible = state_of(engine)?;
    let after = engine.last_lsn();
    if after == before && visible == store.history.state() {
        // The disk must be as it was, too, unless a write failed.
        if is_writable(engine) {
            store.history.refuse();
            // Earlier changes may be durable since.
            store.history.told_durable(engine.durable_lsn());
            let image = disk.power_cut(PowerCut::LOSE_ALL);
            let recovered: State = state_of(&*context.sim_rig(image, store.rig.setup).open()?)?;
            context.explored().crash_state();
            return store.history.check(&recovered);
        }
        return Ok(());
    }
    ensure!(
        !is_writable(engine),
        "a DiskFull that does not poison changed nothing, but {} moved last_lsn from {before} to {after}{}",
        op.describe(),
        if visible == store.history.state() { "" } else { ", and it is visible" }
    );
    Ok(())
}

/// Whether the engine accepts changes. Deleting an absent key changes nothing.
fn is_writable(engine: &dyn Engine) -> bool {
    !matches!(engine.delete(b"there is no such key"), Err(Error::Poisoned { .. }))
}

/// One change; its values are large enough to start a compaction soon.
fn overwriting(rng: &mut fastrand::Rng, keys: u8) -> Op {
    let key = rng.u8(0..keys);
    match rng.u8(0..12) {
        0..=6 => Op::Put { key, len: rng.usize(20..200) },
        7..=9 => Op::Delete { key },
        10 => Op::Batch(vec![(key, Some(100)), ((key + 1) % keys, None), ((key + 2) % keys, Some(50))]),
        _ => Op::Sync,
    }
}

fn refused_removals(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    let attempts = |count: usize| -> Result<usize, Failure> {
        let mut rng = context.rng();
        let disk = SimFs::new();
        disk.inject(Fault { kind: FaultKind::RemoveRefused, nth: 0, repeat: Repeat::Always });
        let rig = context.sim_rig(disk.clone(), setup);
        let mut history = History::default();
        let ops: Vec<Op> = (0..count).map(|_| overwriting(&mut rng, 8)).collect();
        let goes_on =
            |error| Failure::new(format!("while no file can be removed a store goes on, but: {error}"));
        for part in ops.chunks(count.div_ceil(3)) {
            let engine = rig.open().map_err(goes_on)?;
            ensure!(
                state_of(&*engine)? == history.state(),
                "files that the engine could not remove bring back another state"
            );
            run_ops(&*engine, part, &mut history).map_err(goes_on)?;
            engine.close().map_err(goes_on)?;
        }
        history.told_durable(history.last_lsn());
        context.explored().add_faults(disk.faults_fired());
        judge(context, setup, &disk.power_cut(PowerCut::LOSE_ALL), &history)?;
        Ok(disk.ops().iter().filter(|op| op.kind == OpKind::Remove).count())
    };
    // An engine may try each file some times: then the attempts grow with the operations, once a
    // run is long enough. If it tries each file for ever they grow with their square.
    let (few, more, many) = (attempts(600)?, attempts(1200)?, attempts(2400)?);
    let (first, second) = (more.saturating_sub(few), many.saturating_sub(more));
    ensure!(
        second <= 3 * first + 50,
        "while no file can be removed, 600, 1200 and 2400 operations made {few}, {more} and {many} attempts: more and more for each operation"
    );
    Ok(())
}
