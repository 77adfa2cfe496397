//! A scenario: operations, and crashes or one fault of the disk. One line of text describes it. The
//! suite can run it again from that line, and shrink it while it still fails.
//!
//! ```text
//! max_log_size p1:9 b1:8,2 d1 s r p2:700 / cut 17 power 5 / cut 3 death
//! max_log_size p1:9 s / sync 2 once
//! ```
//!
//! The line has a policy, then operations: `p` put with key and length, `d` delete, `b` batch of
//! puts and deletes, `s` sync, `r` close and open again, `c` compact. After them come crashes, or
//! one injected fault. The first crash happens during the operations, each further one during the
//! recovery from the one before.

use crate::oracle::{History, state_of};
use crate::rig::{Policy, Setup};
use crate::sim::{Fault, FaultKind, OpKind, OpRecord, PowerCut, Repeat, SimFs};
use crate::workload::{Op, run_op};
use crate::{CaseResult, Context, Failure, failure::ensure};
use kv_core::{Engine, EngineExt, Error};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Operations, and one disturbance of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) policy: Policy,
    pub(crate) ops: Vec<Op>,
    pub(crate) trouble: Trouble,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The first crash happens during the operations, each further one during the recovery from the
    /// one before.
    Crashes(Vec<Crash>),
    /// Disk operations fail. The scenario uses the store on, and then opens it again.
    Fault(Fault),
}

/// An end without a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crash {
    /// The number of changes to the disk before it, counted from the crash before.
    pub(crate) after: u64,
    pub(crate) left: Left,
}

/// The disk content that a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// All written bytes: the process died, the machine did not.
    Written,
    /// The bytes that a power cut leaves.
    Power(PowerCut),
    /// All bytes, but the last write of a file reached the medium only up to this byte.
    Torn { bytes: u64, rest: Rest },
}

/// The bytes on the medium behind the torn end of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The file ends there.
    Cut,
    /// The file has its new length, with zeros in it.
    Zeros,
    /// Other bytes that the medium once held.
    Stale,
}

impl Left {
    pub(crate) fn image(self, disk: &SimFs) -> SimFs {
        match self {
            Left::Written => disk.process_death(),
            Left::Power(cut) => disk.power_cut(cut),
            Left::Torn { bytes, rest } => torn(disk, bytes, rest),
        }
    }
}

/// The disk with its last write torn after `bytes` bytes. Bytes equal to those on the medium cannot
/// be torn, so the tear moves behind an equal start.
fn torn(disk: &SimFs, bytes: u64, rest: Rest) -> SimFs {
    let image = disk.power_cut(PowerCut::KEEP_ALL);
    let Some(write) = last_write(disk) else { return image };
    let Some(mut content) = content_of(&image, &write) else { return image };
    let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    let bytes = bytes.max(unchanged_by(disk, &write));
    let (from, to) = (at(write.offset + bytes), at(write.offset + write.len));
    match rest {
        Rest::Cut => content.truncate(from),
        Rest::Zeros => content.iter_mut().take(to).skip(from).for_each(|byte| *byte = 0),
        Rest::Stale => {
            // Bytes from elsewhere in the same file: they look most like valid data.
            let stale: Vec<u8> = content.iter().copied().cycle().skip(64).take(to - from).collect();
            content.iter_mut().take(to).skip(from).zip(stale).for_each(|(byte, old)| *byte = old);
        }
    }
    image.damage(&write.path, Some(content));
    image
}

fn content_of(disk: &SimFs, write: &OpRecord) -> Option<Vec<u8>> {
    disk.files().into_iter().find(|(path, _)| *path == write.path).map(|(_, content)| content)
}

/// The length of the equal start of a write: the bytes that the medium already held. Direct I/O
/// writes whole sectors, so it repeats such bytes.
pub(crate) fn unchanged_by(disk: &SimFs, write: &OpRecord) -> u64 {
    let [after, before] =
        [PowerCut::KEEP_ALL, PowerCut::LOSE_ALL].map(|cut| content_of(&disk.power_cut(cut), write));
    let start = usize::try_from(write.offset).unwrap_or(usize::MAX);
    let of = |content: Option<Vec<u8>>| content.unwrap_or_default().into_iter().skip(start);
    let same = of(after).zip(of(before)).take_while(|(after, before)| after == before).count() as u64;
    same.min(write.len)
}

/// The last operation of the disk, if it was a write.
pub(crate) fn last_write(disk: &SimFs) -> Option<OpRecord> {
    disk.ops().pop().filter(|op| op.kind == OpKind::Write)
}

/// The result of running operations.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) disk: SimFs,
    pub(crate) history: History,
    /// `None` after a failed open.
    pub(crate) engine: Option<Arc<dyn Engine>>,
    pub(crate) error: Option<Error>,
}

impl Run {
    /// Runs `ops` on `disk` until one fails.
    pub(crate) fn on(context: &Context, disk: SimFs, setup: Setup, ops: &[Op]) -> Self {
        let mut run = Run { disk: disk.clone(), history: History::default(), engine: None, error: None };
        let rig = context.sim_rig(disk, setup);
        match rig.open() {
            Ok(engine) => run.engine = Some(engine),
            Err(error) => run.error = Some(error),
        }
        for op in ops {
            let Some(engine) = &run.engine else { break };
            let result = if *op == Op::Reopen {
                let closed = engine.close();
                run.history.told_durable(engine.durable_lsn());
                if closed.is_ok() {
                    run.history.told_durable(run.history.last_lsn());
                }
                run.engine = None;
                closed.and_then(|()| rig.open()).map(|engine| run.engine = Some(engine))
            } else {
                run_op(&**engine, op, &mut run.history)
            };
            if let Err(error) = result {
                run.error = Some(error);
                break;
            }
        }
        if let Some(engine) = &run.engine {
            run.history.told_durable(engine.durable_lsn());
        }
        run
    }

    /// Runs `ops` on a disk that loses power after `cut` changes, then closes the store. `None`
    /// when the whole run, its close included, makes fewer changes.
    pub(crate) fn until_cut(context: &Context, setup: Setup, ops: &[Op], cut: u64) -> Option<Self> {
        let disk = SimFs::new();
        disk.cut_after(cut);
        let mut run = Run::on(context, disk, setup, ops);
        // Dropping the last handle closes the store; the close cannot report an error.
        run.engine = None;
        run.disk.has_lost_power().then_some(run)
    }
}

/// Recovers from `image` and judges the recovered state; then uses the store, and opens it once
/// more.
pub(crate) fn judge(context: &Context, setup: Setup, image: &SimFs, history: &History) -> CaseResult {
    context.explored().crash_state();
    let rig = context.sim_rig(image.clone(), setup);
    let in_recovery = |error: Error| Failure::new(format!("an engine recovers from a crash, but: {error}"));
    let engine = rig.open().map_err(in_recovery)?;
    let state = state_of(&*engine)?;
    history.check(&state)?;
    history.check_last_lsn(&state, engine.last_lsn())?;
    ensure!(
        engine.durable_lsn() == engine.last_lsn(),
        "recovered changes are durable, but durable_lsn is {} and last_lsn {}",
        engine.durable_lsn(),
        engine.last_lsn()
    );
    let lsn = engine.put_durable(b"new", b"value")?;
    ensure!(
        lsn > history.last_lsn(),
        "LSN {lsn} is used again: the engine gave out {} before",
        history.last_lsn()
    );
    // A crash, not a close: the second recovery has work to do, too.
    let after = image.power_cut(PowerCut::LOSE_ALL);
    drop(engine);
    let again = context.sim_rig(after, setup).open().map_err(in_recovery)?;
    let mut expected = state;
    expected.insert(b"new".to_vec(), b"value".to_vec());
    ensure!(state_of(&*again)? == expected, "the second recovery gives another state than the first");
    Ok(())
}

impl Scenario {
    pub(crate) fn setup(&self, context: &Context) -> Setup {
        Setup::tiny(context, self.policy)
    }

    /// Runs and judges the scenario. Returns whether its crash or fault happened.
    pub(crate) fn check(&self, context: &Context) -> Result<bool, Failure> {
        match &self.trouble {
            Trouble::Crashes(_) => match self.crashed(context) {
                Some((image, history)) => {
                    judge(context, self.setup(context), &image, &history).map(|()| true)
                }
                None => Ok(false),
            },
            Trouble::Fault(fault) => self.check_fault(context, *fault).map(|fired| fired > 0),
        }
    }

    /// The disk after the last crash, and the history. `None` if one of the crashes does not
    /// happen.
    fn crashed(&self, context: &Context) -> Option<(SimFs, History)> {
        let Trouble::Crashes(crashes) = &self.trouble else { return None };
        let (first, further) = crashes.split_first()?;
        let setup = self.setup(context);
        let run = Run::until_cut(context, setup, &self.ops, first.after)?;
        let mut image = first.left.image(&run.disk);
        for crash in further {
            image.cut_after(crash.after);
            drop(context.sim_rig(image.clone(), setup).open());
            if !image.has_lost_power() {
                return None;
            }
            image = crash.left.image(&image);
        }
        Some((image, run.history))
    }

    /// Runs the operations on a disk with a fault, and judges the engine. Returns how often the
    /// fault struck.
    pub(crate) fn check_fault(&self, context: &Context, fault: Fault) -> Result<u64, Failure> {
        let setup = self.setup(context);
        let typed = |error: &Error| match fault.kind {
            kind if kind.is_disk_full() => {
                matches!(error, Error::DiskFull { .. } | Error::Poisoned { .. })
            }
            _ => matches!(error, Error::Io { .. } | Error::Poisoned { .. }),
        };
        let disk = SimFs::new();
        disk.inject(fault);
        let Run { mut history, engine, error, .. } = Run::on(context, disk.clone(), setup, &self.ops);
        let mut fired = disk.faults_fired();
        if let Some(error) = error {
            ensure!(typed(&error), "a failure of the disk is answered with: {error}");
            match engine.as_deref() {
                Some(engine) if fault.kind.may_be_refused() => {
                    disk.heal();
                    if matches!(engine.sync(), Err(Error::Poisoned { .. })) {
                        check_poisoned(engine, &history)?;
                    } else {
                        check_going_on(engine, &mut history, &self.ops)?;
                    }
                }
                Some(engine) if fault.kind != FaultKind::ReadIo => check_poisoned(engine, &history)?,
                _ => {}
            }
        }
        // The close makes changes durable, or fails if the fault strikes it.
        let closed = engine.map(|engine| {
            let closed = engine.close();
            history.told_durable(engine.durable_lsn());
            closed
        });
        fired = fired.max(disk.faults_fired());
        if fired == 0 {
            return Ok(0);
        }
        if let Some(Err(error)) = closed {
            ensure!(typed(&error), "closing on a failing disk is answered with: {error}");
        }
        for cut in [PowerCut::LOSE_ALL, PowerCut::KEEP_ALL, PowerCut::seeded(fired + disk.mutations())] {
            let image = disk.power_cut(cut);
            judge(context, setup, &image, &history).map_err(|failure| {
                failure.with("kept", image.kept().join("\n")).with_image(disk.power_cut(cut))
            })?;
        }
        // Without a reboot the next process reads all written bytes, synced or not. Everything that
        // it then reports as durable must be durable.
        disk.heal();
        let image = disk.process_death();
        judge(context, setup, &image, &history).map_err(|failure| {
            failure
                .with("where", "opened again without a reboot: reads show bytes that no sync saved")
                .with_image(disk.process_death())
        })?;
        Ok(fired)
    }

    /// The report of a failure, with the smallest scenario found that still fails.
    pub(crate) fn report(self, context: &Context, failure: Failure) -> Failure {
        let (small, failure) = self.shrunk(context, failure);
        let setup = small.setup(context);
        let mut failure = failure
            .with("policy", format!("{:?}", small.policy))
            .with("operations", small.ops.iter().map(Op::describe).collect::<Vec<_>>().join("\n"));
        match &small.trouble {
            Trouble::Fault(fault) => {
                failure = failure
                    .with("fault", format!("{:?}, number {}, {:?}", fault.kind, fault.nth, fault.repeat));
                let disk = SimFs::new();
                disk.inject(*fault);
                let run = Run::on(context, disk.clone(), setup, &small.ops);
                failure = failure.with("disk", last_ops(&disk));
                drop(run);
            }
            Trouble::Crashes(crashes) => {
                let points = crashes.iter().map(|crash| format!("after {} changes to the disk", crash.after));
                let points = points.collect::<Vec<_>>().join(", and during recovery ");
                failure = failure.with("crash", points);
                if let Some(first) = crashes.first()
                    && let Some(run) = Run::until_cut(context, setup, &small.ops, first.after)
                {
                    failure = failure.with("disk", last_ops(&run.disk));
                }
                if let Some((image, _)) = small.crashed(context) {
                    failure = failure.with("kept", image.kept().join("\n")).with_image(image);
                }
            }
        }
        failure.with("scenario", small.to_string())
    }

    /// The smallest scenario found that still fails, and its failure.
    fn shrunk(self, context: &Context, failure: Failure) -> (Scenario, Failure) {
        let mut best = (self, failure);
        let mut budget = SHRINK_RUNS;
        'smaller: loop {
            for candidate in best.0.smaller() {
                if budget == 0 {
                    break 'smaller;
                }
                budget -= 1;
                if let Err(failure) = candidate.check(context) {
                    best = (candidate, failure);
                    continue 'smaller;
                }
            }
            break;
        }
        best
    }

    /// Scenarios one step smaller than this one, the largest steps first.
    fn smaller(&self) -> Vec<Scenario> {
        let mut candidates = Vec::new();
        if let Trouble::Crashes(crashes) = &self.trouble {
            for index in (1..crashes.len()).rev() {
                let mut fewer = crashes.clone();
                fewer.remove(index);
                candidates.push(Trouble::Crashes(fewer));
            }
            for simple in [PowerCut::LOSE_ALL, PowerCut::KEEP_ALL] {
                let simpler: Vec<Crash> = crashes
                    .iter()
                    .map(|crash| Crash { left: crash.left.simpler(simple), ..*crash })
                    .collect();
                if simpler != *crashes
                    && crashes.iter().all(|crash| crash.left != Left::Power(PowerCut::LOSE_ALL))
                {
                    candidates.push(Trouble::Crashes(simpler));
                }
            }
        }
        let mut candidates: Vec<Scenario> =
            candidates.into_iter().map(|trouble| Scenario { trouble, ..self.clone() }).collect();
        // With fewer operations the crash or fault comes earlier. Its new place is unknown, so each
        // is a candidate.
        let mut chunk = self.ops.len().div_ceil(2);
        while chunk > 0 {
            for start in (0..self.ops.len()).step_by(chunk) {
                let mut ops = self.ops.clone();
                ops.drain(start..(start + chunk).min(ops.len()));
                candidates.extend(self.trouble.earlier().map(|trouble| Scenario {
                    ops: ops.clone(),
                    trouble,
                    policy: self.policy,
                }));
            }
            chunk /= 2;
        }
        candidates
    }
}

/// The maximum of runs for shrinking.
const SHRINK_RUNS: u32 = 3000;

impl Left {
    fn simpler(self, cut: PowerCut) -> Self {
        if matches!(self, Left::Power(_)) { Left::Power(cut) } else { self }
    }
}

impl Trouble {
    /// The same crash or fault at this place or an earlier one: at most 24 places, the nearest
    /// first.
    fn earlier(&self) -> impl Iterator<Item = Trouble> + '_ {
        let now = match self {
            Trouble::Crashes(crashes) => crashes.first().map_or(0, |crash| crash.after),
            Trouble::Fault(fault) => fault.nth,
        };
        let step = (now / 24).max(1);
        (0..=now).rev().step_by(usize::try_from(step).unwrap_or(1)).map(move |at| match self {
            Trouble::Fault(fault) => Trouble::Fault(Fault { nth: at, ..*fault }),
            Trouble::Crashes(crashes) => {
                let mut crashes = crashes.clone();
                if let Some(first) = crashes.first_mut() {
                    first.after = at;
                }
                Trouble::Crashes(crashes)
            }
        })
    }
}

fn last_ops(disk: &SimFs) -> String {
    let ops = disk.ops();
    let last: Vec<String> = ops.iter().rev().take(6).rev().map(ToString::to_string).collect();
    format!("{} operations, the last:\n{}", ops.len(), last.join("\n"))
}

/// Checks a poisoned engine: it reads on, refuses changes, and its durable LSN stays.
fn check_poisoned(engine: &dyn Engine, history: &History) -> CaseResult {
    let visible = state_of(engine)?;
    history
        .check_visible(&visible)
        .map_err(|failure| failure.with("where", "reading on after the failure"))?;
    let durable = engine.durable_lsn();
    let present = visible.keys().next();
    let deleted = present.map(|key| engine.delete(key).err());
    for answer in
        [Some(engine.put(b"after", b"x").err()), deleted, Some(engine.sync().err())].into_iter().flatten()
    {
        ensure!(
            matches!(answer, Some(Error::Poisoned { .. })),
            "after a failed write or sync a change or sync is answered with {answer:?}, not Poisoned"
        );
    }
    ensure!(engine.durable_lsn() == durable, "durable_lsn moved after a failure");
    Ok(())
}

/// Checks an engine that refused a call without being poisoned: the call changed nothing, and the
/// engine accepts changes once the reason for the refusal is gone.
fn check_going_on(engine: &dyn Engine, history: &mut History, ops: &[Op]) -> CaseResult {
    history.refuse();
    history
        .check_visible(&state_of(engine)?)
        .map_err(|failure| failure.with("where", "after a change that was refused"))?;
    let stays_open = |op: &&Op| **op != Op::Reopen;
    for op in ops.iter().filter(stays_open).chain(&[Op::Sync]) {
        run_op(engine, op, history).map_err(|error| {
            Failure::new(format!(
                "once the reason for a refusal is gone, an engine that is not poisoned accepts changes, but: {error}"
            ))
        })?;
    }
    Ok(())
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.policy.name())?;
        for op in &self.ops {
            write!(f, " {op}")?;
        }
        match &self.trouble {
            Trouble::Fault(fault) => {
                write!(
                    f,
                    " / {} {} {}",
                    name_of(KINDS, &fault.kind),
                    fault.nth,
                    name_of(REPEATS, &fault.repeat)
                )
            }
            Trouble::Crashes(crashes) => crashes.iter().try_for_each(|crash| match crash.left {
                Left::Written => write!(f, " / cut {} death", crash.after),
                Left::Power(cut) => write!(f, " / cut {} power {}", crash.after, cut.seed()),
                Left::Torn { bytes, rest } => {
                    write!(f, " / cut {} torn {bytes} {}", crash.after, name_of(RESTS, &rest))
                }
            }),
        }
    }
}

const KINDS: &[(&str, FaultKind)] = &[
    ("any", FaultKind::AnyIo),
    ("mutation", FaultKind::MutationIo),
    ("read", FaultKind::ReadIo),
    ("sync", FaultKind::Sync),
    ("denied", FaultKind::Denied),
    ("full", FaultKind::DiskFull),
    ("write_full", FaultKind::WriteDiskFull),
    ("too_large", FaultKind::FileTooLarge),
    ("no_descriptors", FaultKind::NoDescriptors),
    ("remove_refused", FaultKind::RemoveRefused),
    ("short", FaultKind::ShortTransfer),
    ("interrupted", FaultKind::Interrupted),
    ("panic", FaultKind::Panic),
];
const RESTS: &[(&str, Rest)] = &[("cut", Rest::Cut), ("zeros", Rest::Zeros), ("stale", Rest::Stale)];
const REPEATS: &[(&str, Repeat)] =
    &[("once", Repeat::Once), ("always", Repeat::Always), ("alternate", Repeat::Alternate)];

fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: &T) -> &'static str {
    names.iter().find(|(_, named)| named == value).map_or("?", |(name, _)| name)
}

fn of_name<T: Copy>(names: &[(&str, T)], name: &str) -> Option<T> {
    names.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut parts = line.split('/').map(str::trim);
        let mut words = parts.next().unwrap_or_default().split_whitespace();
        let policy = words.next().unwrap_or_default();
        let policy = Policy::ALL
            .into_iter()
            .find(|known| known.name() == policy)
            .ok_or_else(|| format!("{policy:?} is no policy"))?;
        let ops = words.map(Op::from_str).collect::<Result<_, _>>()?;
        let mut crashes = Vec::new();
        for part in parts {
            let words: Vec<&str> = part.split_whitespace().collect();
            let number = |text: &str| text.parse().map_err(|_| format!("{text:?} in {part:?} is no number"));
            match words.as_slice() {
                ["cut", after, "death"] => crashes.push(Crash { after: number(after)?, left: Left::Written }),
                ["cut", after, "power", seed] => {
                    let left = Left::Power(PowerCut::seeded(number(seed)?));
                    crashes.push(Crash { after: number(after)?, left });
                }
                ["cut", after, "torn", bytes, rest] => {
                    let rest = of_name(RESTS, rest).ok_or_else(|| format!("{rest:?} leaves nothing"))?;
                    let left = Left::Torn { bytes: number(bytes)?, rest };
                    crashes.push(Crash { after: number(after)?, left });
                }
                [kind, nth, repeat] if crashes.is_empty() => {
                    let no_fault = || format!("{part:?} is no trouble");
                    let kind = of_name(KINDS, kind).ok_or_else(no_fault)?;
                    let repeat = of_name(REPEATS, repeat).ok_or_else(no_fault)?;
                    let trouble = Trouble::Fault(Fault { kind, nth: number(nth)?, repeat });
                    return Ok(Scenario { policy, ops, trouble });
                }
                _ => return Err(format!("{part:?} is no trouble")),
            }
        }
        Ok(Scenario { policy, ops, trouble: Trouble::Crashes(crashes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::random_ops;
    use fastrand::Rng;

    #[test]
    fn a_line_tells_all_of_it() {
        let mut rng = Rng::with_seed(7);
        for round in 0..200u64 {
            let count = rng.usize(0..12);
            let mut ops = random_ops(&mut rng, count, 9);
            ops.push(Op::Reopen);
            ops.push(Op::Compact);
            let crash = |after, seed| Crash { after, left: Left::Power(PowerCut::seeded(seed)) };
            let trouble = match round % 3 {
                0 => Trouble::Crashes(vec![
                    crash(round, 5),
                    Crash { after: 1, left: Left::Written },
                    Crash { after: 2, left: Left::Torn { bytes: round, rest: Rest::Stale } },
                ]),
                1 => Trouble::Crashes(vec![]),
                _ => Trouble::Fault(Fault { kind: FaultKind::Sync, nth: round, repeat: Repeat::Alternate }),
            };
            let policy = rng.choice(Policy::ALL).unwrap();
            let scenario = Scenario { policy, ops, trouble };
            assert_eq!(scenario.to_string().parse(), Ok(scenario.clone()), "{scenario}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (line, complaint) in [
            ("sometimes p1:2", "\"sometimes\" is no policy"),
            ("always p1", "\"p1\" is no operation"),
            ("always / cut x death", "\"x\" in"),
            ("always / explode 1 once", "is no trouble"),
        ] {
            let error = line.parse::<Scenario>().unwrap_err();
            assert!(error.contains(complaint), "{line}: {error}");
        }
    }
}
