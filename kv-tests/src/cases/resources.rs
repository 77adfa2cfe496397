//! Files, open handles, locks, threads and references: bounded while a store is open, and gone
//! afterwards.

use super::audit::values;
use super::case;
use super::left::settles;
use crate::failure::ensure;
use crate::oracle::state_of;
use crate::rig::{Policy, Rig, Setup};
use crate::sim::{Fault, FaultKind, Repeat, SimFs};
use crate::{Case, CaseResult, Context, Level, Need};
use kv_core::{Background, Engine, OpenOptions};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    case(
        "resources::required_kv681_the_same_work_takes_no_more",
        Level::Required,
        &[Need::SimulatedFs],
        "The same work repeated takes no more bytes, files and open handles than it took before.",
        the_same_work_takes_no_more,
    ),
    case(
        "resources::required_kv682_an_emptied_store_is_small",
        Level::Required,
        &[],
        "Deleting or shortening all values, then compacting or opening again, gives most of their space back.",
        an_emptied_store_is_small,
    ),
    case(
        "resources::required_kv683_a_dropped_engine_leaves_nothing",
        Level::Required,
        &[],
        "A dropped engine holds no file, lock, thread, policy, clock or file system, closed or not.",
        super::left::a_dropped_engine_leaves_nothing,
    ),
    case(
        "resources::required_kv684_a_failed_open_leaves_nothing",
        Level::Required,
        &[Need::SimulatedFs],
        "An open that fails holds no handle, no lock and no reference to what it was given.",
        super::left::a_failed_open_leaves_nothing,
    ),
    case(
        "resources::required_kv685_opening_again_and_again",
        Level::Required,
        &[Need::SimulatedFs],
        "A hundred opens and closes without a change leave no more files and bytes than ten.",
        opening_again_and_again,
    ),
    case(
        "resources::required_kv686_crashes_leave_no_strays",
        Level::Required,
        &[Need::SimulatedFs],
        "However often the process dies or fails, and at whichever operation, files do not add up.",
        crashes_leave_no_strays,
    ),
    case(
        "resources::required_kv687_overwriting_one_key",
        Level::Required,
        &[Need::SimulatedFs],
        "Ten thousand overwrites of one key keep the disk as small as a few values.",
        overwriting_one_key,
    ),
];

/// More than the smallest units of an engine, and what it holds in reserve, bytes.
const UNITS: u64 = 64 << 10;

/// The resources that a store takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    bytes: u64,
    files: usize,
    handles: usize,
    /// As the engine tells, if it measures it.
    memory: u64,
}

impl Use {
    const MOST: Use = Use { bytes: u64::MAX, files: usize::MAX, handles: usize::MAX, memory: u64::MAX };

    fn of(disk: &SimFs) -> Self {
        let files = disk.files();
        let bytes = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        Use { bytes, files: files.len(), handles: disk.open_handles(), memory: 0 }
    }

    fn min(self, other: Use) -> Self {
        Use {
            bytes: self.bytes.min(other.bytes),
            files: self.files.min(other.files),
            handles: self.handles.min(other.handles),
            memory: self.memory.min(other.memory),
        }
    }

    fn max(self, other: Use) -> Self {
        Use {
            bytes: self.bytes.max(other.bytes),
            files: self.files.max(other.files),
            handles: self.handles.max(other.handles),
            memory: self.memory.max(other.memory),
        }
    }

    /// Checks that this, measured later, is not more than `early` and a little.
    fn check(self, early: Use, what: &str) -> CaseResult {
        for (name, early, late, slack) in [
            ("bytes", early.bytes, self.bytes, early.bytes / 4 + (16 << 10)),
            ("files", early.files as u64, self.files as u64, early.files as u64 / 4 + 2),
            ("open handles", early.handles as u64, self.handles as u64, early.handles as u64 / 4 + 2),
            ("bytes of memory", early.memory, self.memory, early.memory / 2 + UNITS),
        ] {
            ensure!(
                late <= early + slack,
                "the same work repeated takes no more than before, but {what} takes {early} {name} at first \
                 and {late} later"
            );
        }
        Ok(())
    }
}

fn the_same_work_takes_no_more(context: &Context) -> CaseResult {
    for policy in [Policy::MaxLogSize(2000), Policy::Manual] {
        for opens in [true, false] {
            let disk = SimFs::new();
            let rig = context.sim_rig(disk.clone(), Setup::tiny(context, policy));
            let values = values(&mut context.rng(), 40, 60);
            let mut engine = rig.open()?;
            // The least of each period: readers of other stores may hold files back for a moment.
            let mut periods = [Use::MOST; 4];
            for (period, least) in periods.iter_mut().enumerate() {
                for round in 0..15 {
                    work(&*engine, &values)?;
                    let stats = engine.stats();
                    let memory = stats.memory_bytes + stats.index_bytes;
                    *least = least.min(Use { memory, ..Use::of(&disk) });
                    if opens && round % 5 == 4 {
                        engine.close()?;
                        drop(engine);
                        ensure!(
                            settles(context, &|| disk.open_handles() == 0)?,
                            "after the drop in period {period} {} handles are open",
                            disk.open_handles()
                        );
                        engine = rig.open()?;
                    }
                }
            }
            let [_, early, _, mut late] = periods;
            // Readers of other stores may hold removed files even longer.
            settles(context, &|| disk.open_handles() <= early.handles + early.handles / 4 + 2)?;
            late.handles = late.handles.min(disk.open_handles());
            let how = if opens { "reopened now and then" } else { "never reopened" };
            late.check(early, &format!("a store under {policy:?}, {how},"))?;
            context.explored().history();
        }
    }
    Ok(())
}

/// Fills, overwrites, deletes, compacts.
fn work(engine: &dyn Engine, values: &[Vec<u8>]) -> CaseResult {
    for step in [1, 3] {
        for (key, value) in (0..=u8::MAX).zip(values).step_by(step) {
            engine.put(&[key], value)?;
        }
        engine.sync()?;
    }
    for (key, _) in (0..=u8::MAX).zip(values) {
        engine.delete(&[key])?;
    }
    engine.sync()?;
    if let Some(compact) = engine.as_compact() {
        compact.compact()?;
    }
    Ok(())
}

/// The bytes of all files of a closed store.
fn disk_bytes(rig: &Rig) -> Result<u64, crate::Failure> {
    use kv_core::fs::{FsExt, OpenMode};
    let fs = rig.fs();
    let mut bytes = 0;
    for name in fs.list(rig.dir())? {
        bytes += fs.open(&rig.dir().join(name), OpenMode::Read)?.len()?;
    }
    Ok(bytes)
}

fn an_emptied_store_is_small(context: &Context) -> CaseResult {
    const COUNT: u16 = 800;
    for replacement in [None, Some(b"".as_slice())] {
        for at_once in [false, true] {
            let rig = context.rig(Setup::tiny(context, Policy::MaxLogSize(100_000)))?;
            let values = values(&mut context.rng(), COUNT.into(), 500);
            let engine = rig.open()?;
            for (key, value) in (0..COUNT).zip(&values) {
                engine.put(&key.to_be_bytes(), value)?;
            }
            engine.sync()?;
            let full = disk_bytes(&rig)?;
            let mut batch = kv_core::Batch::new();
            for key in 0..COUNT {
                match (replacement, at_once) {
                    (None, false) => drop(engine.delete(&key.to_be_bytes())?),
                    (Some(value), false) => drop(engine.put(&key.to_be_bytes(), value)?),
                    (None, true) => drop(batch.delete(&key.to_be_bytes())),
                    (Some(value), true) => drop(batch.put(&key.to_be_bytes(), value)),
                }
            }
            engine.apply(&batch)?;
            engine.sync()?;
            let engine = give_back(&rig, engine)?;
            let left = disk_bytes(&rig)?;
            let how = if replacement.is_none() { "deleting all keys" } else { "emptying all values" };
            ensure!(
                left <= full / 4 + UNITS,
                "{how} gives most of their space back, but of {full} bytes on the disk {left} are left"
            );
            engine.close()?;
            let found = state_of(&*rig.open()?)?.len();
            let expected = if replacement.is_none() { 0 } else { usize::from(COUNT) };
            ensure!(found == expected, "after {how} the store holds {found} keys, not {expected}");
        }
    }
    Ok(())
}

/// Compacts, or opens again.
fn give_back(rig: &Rig, engine: Arc<dyn Engine>) -> Result<Arc<dyn Engine>, crate::Failure> {
    if let Some(compact) = engine.as_compact() {
        compact.compact()?;
        return Ok(engine);
    }
    engine.close()?;
    drop(engine);
    Ok(rig.open()?)
}

fn opening_again_and_again(context: &Context) -> CaseResult {
    let disk = SimFs::new();
    let rig = context.sim_rig(disk.clone(), Setup::tiny(context, Policy::MaxLogSize(300)));
    let can_read = context.factory().capabilities().read_only;
    let reader = OpenOptions { read_only: true, ..rig.setup.options() };
    rig.open()?.put(b"key", &[1; 200])?;
    let (mut early, mut late) = (Use::default(), Use::default());
    for number in 1..=100 {
        let engine = rig.open()?;
        let open = Use::of(&disk);
        if number % 3 > 0 {
            engine.close()?;
        }
        drop(engine);
        if can_read && number % 5 == 0 {
            rig.open_with(&reader)?.get(b"key")?;
        }
        ensure!(
            settles(context, &|| disk.open_handles() == 0)?,
            "after close and drop number {number} {} handles are open",
            disk.open_handles()
        );
        let closed = Use::of(&disk);
        let most = if number <= 10 { &mut early } else { &mut late };
        *most = most.max(open).max(closed);
    }
    late.check(early, "opening and closing a store")?;
    let found = rig.open()?.get(b"key")?;
    ensure!(found.as_deref() == Some(&[1; 200][..]), "a hundred opens changed a value");
    Ok(())
}

fn crashes_leave_no_strays(context: &Context) -> CaseResult {
    /// Each of so many operations is struck three times.
    const POINTS: u64 = 60;
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    let values = values(&mut context.rng(), 12, 70);
    let (disk, runs) = (SimFs::new(), 3);
    for _ in 0..runs {
        let engine = context.sim_rig(disk.clone(), setup).open()?;
        work(&*engine, &values)?;
        engine.close()?;
    }
    let (baseline, mutations) = (Use::of(&disk), disk.mutations() / runs);
    for dies in [true, false] {
        let mut disk = SimFs::new();
        for generation in 0..context.scaled(POINTS * 3) {
            let rig = context.sim_rig(disk.clone(), setup);
            let nth = generation % POINTS * mutations.max(POINTS) / POINTS;
            if dies {
                disk.cut_after(disk.mutations() + nth);
            } else {
                disk.inject(Fault { kind: FaultKind::MutationIo, nth, repeat: Repeat::Once });
            }
            let _ = rig.open().map_err(crate::Failure::from).and_then(|engine| work(&*engine, &values));
            if dies {
                context.explored().crash_state();
                disk = disk.process_death();
            } else {
                context.explored().add_faults(disk.faults_fired());
                disk.heal();
            }
        }
        let rig = context.sim_rig(disk.clone(), setup);
        for _ in 0..2 {
            let engine = rig.open()?;
            work(&*engine, &values)?;
            engine.close()?;
        }
        let what = if dies { "a store whose process died" } else { "a store whose disk failed" };
        let left = Use { handles: 0, ..Use::of(&disk) };
        left.check(baseline, &format!("{what} at one operation after the other"))?;
    }
    Ok(())
}

/// The bytes on the disk. Threads get a moment to compact, and puts that wake them.
fn settled_bytes(
    engine: &dyn Engine,
    disk: &SimFs,
    background: Background,
    value: &[u8],
) -> Result<u64, crate::Failure> {
    let start = Instant::now();
    loop {
        let bytes = Use::of(disk).bytes;
        let is_late = start.elapsed() > Duration::from_secs(5);
        if bytes <= 4 * UNITS || background == Background::Inline || is_late {
            return Ok(bytes);
        }
        std::thread::sleep(Duration::from_millis(2));
        engine.put(b"key", value)?;
        engine.sync()?;
    }
}

fn overwriting_one_key(context: &Context) -> CaseResult {
    const COUNT: u32 = 10_000;
    let quiet = context.quiet_background();
    for (policy, background) in
        [(Policy::MaxLogSize(4000), quiet), (Policy::Manual, quiet), (Policy::AnyOf, Background::Threads)]
    {
        let disk = SimFs::new();
        let rig = context.sim_rig(disk.clone(), Setup { background, ..Setup::tiny(context, policy) });
        let engine = rig.open()?;
        let mut most = 0;
        for number in 0..COUNT {
            let mut value = [0x5a; 100];
            value[..4].copy_from_slice(&number.to_le_bytes());
            engine.put(b"key", &value)?;
            if number % 500 == 499 {
                engine.sync()?;
                most = most.max(settled_bytes(&*engine, &disk, background, &value)?);
            }
        }
        ensure!(
            most <= 4 * UNITS,
            "a store of one key with 100 bytes takes {most} bytes on the disk while it is overwritten \
             {COUNT} times under {policy:?}"
        );
        engine.close()?;
        drop(engine);
        let left = Use::of(&disk).bytes;
        ensure!(left <= 4 * UNITS, "a closed store of one key with 100 bytes takes {left} bytes");
        let found = rig.open()?.get(b"key")?;
        let last = (COUNT - 1).to_le_bytes();
        ensure!(
            found.as_deref().and_then(|value| value.get(..4)) == Some(&last[..]),
            "after {COUNT} overwrites and an open the value is not the last one"
        );
    }
    Ok(())
}
