//! Statistics against a model, the engine's own methods, and the disk.

use super::audit::{Audit, Optional, values};
use super::case;
use crate::failure::{InWords, ensure, fail};
use crate::oracle::state_of;
use crate::rig::{Policy, Rig, Setup};
use crate::sim::{Fault, FaultKind, OpKind, Repeat, SimFs};
use crate::workload::{Op, random_ops};
use crate::{Case, CaseResult, Context, Level, Need};
use kv_core::{Batch, Engine, Error, OpenOptions, RecoveryReport, Stats};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    case(
        "stats::required_kv841_follow_every_operation",
        Level::Required,
        &[],
        "After every operation the statistics agree with a model, with last_lsn and with durable_lsn.",
        follow_every_operation,
    ),
    case(
        "stats::required_kv842_describe_the_recovered_store",
        Level::Required,
        &[Need::SimulatedFs],
        "After a crash the statistics and the report of the recovery describe the recovered state.",
        describe_the_recovered_store,
    ),
    case(
        "stats::required_kv843_do_not_count_what_was_refused",
        Level::Required,
        &[],
        "A refused call changes no statistics, and a closed engine still answers.",
        do_not_count_what_was_refused,
    ),
    case(
        "stats::required_kv844_of_a_poisoned_engine",
        Level::Required,
        &[Need::SimulatedFs],
        "The statistics of a poisoned engine show the visible state, and the last durable change.",
        of_a_poisoned_engine,
    ),
    case(
        "stats::required_kv845_measure_the_disk",
        Level::Required,
        &[Need::SimulatedFs, Need::Inline],
        "Sizes and counts of the disk are right, where the engine measures them.",
        measure_the_disk,
    ),
];

/// Every kind of operation, so that each statistic has a chance to be wrong.
fn every_kind() -> Vec<Op> {
    let put = |key, len| Op::Put { key, len };
    let delete = |key| Op::Delete { key };
    vec![
        delete(1),
        Op::Batch(vec![]),
        put(1, 40),
        put(1, 70),
        put(2, 9),
        put(2, 0),
        Op::Sync,
        delete(2),
        delete(2),
        Op::Batch(vec![(3, Some(20)), (4, Some(30)), (3, Some(10))]),
        Op::Batch(vec![(5, Some(20)), (5, None)]),
        Op::Batch(vec![(3, None), (6, None)]),
        Op::Batch(vec![(6, None), (7, None), (6, None)]),
        Op::Batch(vec![(4, None), (4, Some(31))]),
        put(8, 50),
        Op::Compact,
        put(8, 5),
        put(9, 80),
        Op::Sync,
    ]
}

fn follow_every_operation(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for policy in [Policy::Manual, Policy::Always, Policy::MaxLogSize(300)] {
        let rig = context.rig(Setup::tiny(context, policy))?;
        let mut audit = Audit::default();
        let last = vec![Op::Delete { key: 1 }, Op::Put { key: 1, len: 12 }];
        for ops in [every_kind(), random_ops(&mut rng, 150, 12), Vec::new(), last] {
            let engine = rig.open()?;
            audit.opened();
            audit.check(&*engine, "opening")?;
            for op in &ops {
                audit.run(&*engine, op)?;
                audit.check(&*engine, &op.describe())?;
            }
            engine.wait_durable(engine.last_lsn())?;
            audit.check(&*engine, "wait_durable")?;
            let stats = engine.stats();
            ensure!(
                stats.durable_lsn == engine.last_lsn(),
                "after wait_durable the statistics report durable_lsn {}, but {} is durable",
                stats.durable_lsn,
                engine.last_lsn()
            );
            engine.close()?;
        }
        context.explored().history();
    }
    Ok(())
}

fn describe_the_recovered_store(context: &Context) -> CaseResult {
    for (number, policy) in (2..).step_by(8).zip([Policy::Manual, Policy::MaxLogSize(300), Policy::Always]) {
        let setup = Setup::tiny(context, policy);
        let disk = SimFs::new();
        let engine = context.sim_rig(disk.clone(), setup).open()?;
        let mut audit = Audit::default();
        let ops = [every_kind(), random_ops(&mut context.rng(), 60, 12)].concat();
        ops.iter().try_for_each(|op| audit.run(&*engine, op))?;
        let cuts = (number..number + context.scaled(6)).chain([0, 1]);
        let images: Vec<SimFs> = cuts.map(|draw| disk.power_cut(context.power_cut(draw))).collect();
        for image in [disk.process_death()].into_iter().chain(images) {
            context.explored().crash_state();
            let rig = context.sim_rig(image.clone(), setup);
            if context.factory().capabilities().read_only {
                let reader = rig.open_with(&OpenOptions { read_only: true, ..setup.options() })?;
                check_opened(&*reader, &image, "opening for reading only")?;
            }
            let engine = rig.open()?;
            check_opened(&*engine, &image, "a crash")?;
            engine.close()?;
            drop(engine);
            let engine = rig.open()?;
            check_opened(&*engine, &image, "a crash, a close and an open")?;
            let torn = engine.stats().recovery.torn_bytes;
            ensure!(torn == 0, "a close leaves nothing unfinished, but recovery reports {torn} torn bytes");
        }
    }
    Ok(())
}

/// Checks the statistics of an engine that has just been opened.
fn check_opened(engine: &dyn Engine, disk: &SimFs, after: &str) -> CaseResult {
    let found = state_of(engine)?;
    let stats = engine.stats();
    let live: usize = found.iter().map(|(key, value)| key.len() + value.len()).sum();
    ensure!(
        stats.keys == found.len() as u64,
        "after {after} the statistics count {} keys, but a scan finds {}",
        stats.keys,
        found.len()
    );
    ensure!(
        stats.live_bytes == 0 || stats.live_bytes == live as u64,
        "after {after} the statistics report {} bytes of keys and values, but a scan finds {live}",
        stats.live_bytes
    );
    ensure!(stats.changes == 0, "counters start at open, but after {after} {} changes count", stats.changes);
    ensure!(stats.unflushed_bytes == 0, "after {after} {} bytes count as unwritten", stats.unflushed_bytes);
    ensure!(
        (stats.last_lsn, stats.durable_lsn) == (engine.last_lsn(), engine.durable_lsn()),
        "after {after} the statistics report LSN {}, durable {}, but the engine is at {}, durable {}",
        stats.last_lsn,
        stats.durable_lsn,
        engine.last_lsn(),
        engine.durable_lsn()
    );
    let mut report = stats.recovery;
    report.duration = Duration::ZERO;
    let disk_len: usize = disk.files().iter().map(|(_, bytes)| bytes.len()).sum();
    if report != RecoveryReport::default() {
        ensure!(
            report.last_lsn == engine.last_lsn(),
            "after {after} the recovery reports {} as the last change recovered, but last_lsn is {}",
            report.last_lsn,
            engine.last_lsn()
        );
        ensure!(
            found.is_empty() || report.records > 0 && report.files > 0 && report.bytes > 0,
            "after {after} the recovery found {} keys, but reports {} records, {} bytes and {} files",
            found.len(),
            report.records,
            report.bytes,
            report.files
        );
        ensure!(
            report.torn_bytes <= disk_len as u64,
            "after {after} the recovery reports {} torn bytes, but all files have {disk_len}",
            report.torn_bytes
        );
    }
    Ok(())
}

fn do_not_count_what_was_refused(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    let rig = context.rig(setup)?;
    let engine = rig.open()?;
    let mut audit = Audit::default();
    audit.opened();
    every_kind().iter().try_for_each(|op| audit.run(&*engine, op))?;
    let long_key = vec![0; setup.limits.key_len_max + 1];
    let long_value = vec![0; setup.limits.value_len_max + 1];
    let (mut bad_key, mut bad_value) = (Batch::new(), Batch::new());
    bad_key.put(b"a", b"1").delete(&[1]).put(&long_key, b"");
    bad_value.put(b"a", b"1").delete(&[1]).put(b"b", &long_value);
    let refusals = [
        ("a put of a long key", engine.put(&long_key, b"").err()),
        ("a put of a long value", engine.put(b"k", &long_value).err()),
        ("a delete of a long key", engine.delete(&long_key).err()),
        ("a batch with a long key", engine.apply(&bad_key).err()),
        ("a batch with a long value", engine.apply(&bad_value).err()),
    ];
    for (call, error) in refusals {
        ensure!(
            matches!(error, Some(Error::TooLarge { .. })),
            "{call} is answered with {error}, not TooLarge",
            error = error.in_words()
        );
        audit.check(&*engine, call)?;
    }
    engine.close()?;
    let _ = (engine.put(b"k", b"v"), engine.delete(&[1]));
    let (stats, keys) = (engine.stats(), audit.keys());
    ensure!(
        (stats.last_lsn, stats.durable_lsn) == (engine.last_lsn(), engine.last_lsn()),
        "the statistics of a closed engine report LSN {}, durable {}, but it closed at {}",
        stats.last_lsn,
        stats.durable_lsn,
        engine.last_lsn()
    );
    ensure!(
        [0, keys].contains(&stats.keys) && [0, audit.changes()].contains(&stats.changes),
        "the statistics of a closed engine report {} keys and {} changes; it closed with {keys} keys, \
         after {} changes",
        stats.keys,
        stats.changes,
        audit.changes()
    );
    Ok(())
}

fn of_a_poisoned_engine(context: &Context) -> CaseResult {
    let disk = SimFs::new();
    let engine = context.sim_rig(disk.clone(), Setup::tiny(context, Policy::Manual)).open()?;
    let mut audit = Audit::default();
    audit.opened();
    every_kind().iter().try_for_each(|op| audit.run(&*engine, op))?;
    let durable = engine.sync()?;
    for op in [Op::Put { key: 20, len: 30 }, Op::Delete { key: 1 }] {
        audit.run(&*engine, &op)?;
    }
    disk.inject(Fault { kind: FaultKind::MutationIo, nth: 0, repeat: Repeat::Always });
    let Err(_) = engine.sync() else { fail!("a sync succeeds on a disk that takes nothing") };
    context.explored().add_faults(disk.faults_fired());
    audit.check(&*engine, "a failed sync")?;
    for answer in [engine.put(b"k", b"v").err(), engine.delete(&[8]).err(), engine.sync().err()] {
        ensure!(
            matches!(answer, Some(Error::Poisoned { .. })),
            "after a failed sync a call is answered with {answer}, not Poisoned",
            answer = answer.in_words()
        );
    }
    audit.check(&*engine, "calls that were refused as Poisoned")?;
    let stats = engine.stats();
    ensure!(
        stats.durable_lsn == durable,
        "durable_lsn stands still after a failed sync at {durable}, but the statistics report {}",
        stats.durable_lsn
    );
    let _ = engine.close();
    let stats = engine.stats();
    ensure!(
        (stats.last_lsn, stats.durable_lsn) == (engine.last_lsn(), engine.durable_lsn()),
        "the statistics of a poisoned engine that was closed report LSN {}, durable {}, not {} and {}",
        stats.last_lsn,
        stats.durable_lsn,
        engine.last_lsn(),
        engine.durable_lsn()
    );
    Ok(())
}

/// The statistics that describe the disk.
struct DiskAudit<'a> {
    disk: &'a SimFs,
    /// The operations of the disk that were checked.
    seen: usize,
    before: Stats,
    /// The present values: number and bytes.
    present: Vec<Vec<u8>>,
    fields: [Optional; 5],
}

impl DiskAudit<'_> {
    /// Keys and values are not durable yet, and have this number of bytes.
    fn check_pending(&mut self, engine: &dyn Engine, bytes: u64) -> CaseResult {
        let ops = self.disk.ops();
        let wrote = ops.iter().skip(self.seen).any(|op| op.kind == OpKind::Write);
        let least = if wrote { 0 } else { bytes };
        let [unflushed, ..] = &mut self.fields;
        unflushed.check("unflushed_bytes", "a put without a dump", engine.stats().unflushed_bytes, least..)
    }

    /// Keys and values of this number of bytes have become durable since the last check.
    fn check_synced(&mut self, engine: &dyn Engine, after: &str, bytes: u64) -> CaseResult {
        let (stats, ops) = (engine.stats(), self.disk.ops());
        let new = ops.get(self.seen..).unwrap_or_default();
        let written: u64 = new.iter().filter(|op| op.kind == OpKind::Write).map(|op| op.len).sum();
        let synced = new.iter().filter(|op| op.kind.is_sync()).count() as u64;
        self.seen = ops.len();
        let [unflushed, on_disk, dumps, syncs, bytes_written] = &mut self.fields;
        unflushed.check("unflushed_bytes", after, stats.unflushed_bytes, ..=0)?;
        let dumped = u64::from(bytes > 0);
        dumps.check("dumps", after, stats.dumps.saturating_sub(self.before.dumps), dumped..)?;
        syncs.check("syncs", after, stats.syncs.saturating_sub(self.before.syncs), dumped..=synced)?;
        let grown = stats.bytes_written.saturating_sub(self.before.bytes_written);
        bytes_written.check("bytes_written", after, grown, bytes..=written)?;
        let files = self.disk.files();
        let len = |files: Vec<&(PathBuf, Vec<u8>)>| files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let holds = |file: &&(PathBuf, Vec<u8>)| {
            self.present.iter().filter_map(|value| value.get(..16)).any(|part| contains(&file.1, part))
        };
        let (least, most): (u64, u64) =
            (len(files.iter().filter(holds).collect()), len(files.iter().collect()));
        on_disk.check("disk_bytes", after, stats.disk_bytes, least..=most)?;
        self.before = stats;
        Ok(())
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    let first = part.first().copied().unwrap_or_default();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(part) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

fn measure_the_disk(context: &Context) -> CaseResult {
    for policy in [Policy::Manual, Policy::Always] {
        let disk = SimFs::new();
        let rig = context.sim_rig(disk.clone(), Setup::tiny(context, policy));
        let mut present = values(&mut context.rng(), 30, 150);
        let fields = <[Optional; 5]>::default();
        let mut audit =
            DiskAudit { disk: &disk, seen: 0, before: Stats::default(), present: Vec::new(), fields };
        for round in 0..4u8 {
            let engine = rig.open()?;
            audit.seen = disk.ops().len();
            audit.before = engine.stats();
            audit.check_synced(&*engine, "opening", 0)?;
            for (number, value) in (0..).zip(&mut present) {
                // Changed in place: the old value shall not be found any more.
                for byte in value.iter_mut() {
                    *byte = byte.wrapping_mul(3).wrapping_add(round);
                }
                put_and_measure(&mut audit, &*engine, number, value, policy)?;
            }
            empty_and_measure(&mut audit, &rig, &*engine, &present)?;
        }
        context.explored().history();
    }
    Ok(())
}

fn put_and_measure(
    audit: &mut DiskAudit<'_>,
    engine: &dyn Engine,
    number: u8,
    value: &[u8],
    policy: Policy,
) -> CaseResult {
    let bytes = 1 + value.len() as u64;
    engine.put(&[number], value)?;
    if policy == Policy::Manual {
        audit.check_pending(engine, bytes)?;
        engine.sync()?;
    }
    let at = usize::from(number);
    match audit.present.get_mut(at) {
        Some(present) => *present = value.to_vec(),
        None => audit.present.push(value.to_vec()),
    }
    audit.check_synced(engine, "a synced put", bytes)
}

/// Overwrites keys many times, compacts, deletes a third of the keys, and closes.
fn empty_and_measure(
    audit: &mut DiskAudit<'_>,
    rig: &Rig,
    engine: &dyn Engine,
    present: &[Vec<u8>],
) -> CaseResult {
    for (number, value) in (0..400u16).zip(present.iter().take(4).cycle()) {
        engine.put(&[number.to_le_bytes()[0] % 4], value)?;
        if number % 20 == 19 {
            engine.sync()?;
        }
    }
    audit.check_synced(engine, "four hundred synced puts", 400)?;
    if let Some(compact) = engine.as_compact() {
        compact.compact()?;
        audit.check_synced(engine, "a compaction", 0)?;
    }
    for (number, _) in (0..=u8::MAX).zip(present).step_by(3) {
        engine.delete(&[number])?;
        engine.sync()?;
    }
    for (_, value) in audit.present.iter_mut().enumerate().filter(|(number, _)| number % 3 == 0) {
        value.clear();
    }
    audit.check_synced(engine, "synced deletes", 1)?;
    rig.advance(Policy::INTERVAL);
    engine.close()?;
    Ok(())
}
