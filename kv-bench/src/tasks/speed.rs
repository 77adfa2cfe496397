//! Operations a second: fill, reads, overwrites, one phase after the other on one subject.

use crate::failure::Failure;
use crate::load::{Access, Dataset, KEY_LEN_MAX, Planner, Shape, Truth, WRITES, sequence, touch};
use crate::process::threads::concurrently;
use crate::process::{Measured, Run, Task};
use crate::subjects::{Policy, Setup, Subject, SubjectName};
use serde::{Deserialize, Serialize};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Phases on one subject.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Speed {
    pub(crate) setup: Setup,
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    pub(crate) threads: u64,
    /// Reads of a phase; twice as many overwrites.
    pub(crate) operations: u64,
    pub(crate) phases: Phases,
}

/// The last phases of a run. Each includes those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Serialize, Deserialize)]
pub(crate) enum Phases {
    /// Fill.
    Fill,
    /// Read uniform, borrowed and kept.
    UniformReads,
    /// Read zipfian, borrowed and kept; both kinds of reads in groups, too. Look for absent keys.
    Reads,
    /// Write: half and half zipfian, then overwrite uniform.
    All,
}

/// After this time a phase of a foreign store ends, and counts for its operations so far. This
/// favours a slow store: its first moments are its fastest, because it is emptiest then.
const FOREIGN_LIMIT: Duration = Duration::from_secs(4);
/// The same for all others, long enough for every phase to end by itself.
const LIMIT: Duration = Duration::from_secs(40);
/// The indexes of absent keys have this bit.
const ABSENT: u64 = 1 << 63;
/// Operations between two looks at the clock.
const LOOK_EVERY: usize = 256;

/// The operation of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// The first value of a key.
    Fill,
    Read,
    Get,
    /// Reads a group of keys at a time.
    ReadMany,
    /// Looks for absent keys.
    Miss,
    /// Writes at the plan's marks, otherwise reads.
    Mixed,
    /// Overwrites.
    Write,
}

/// The work of the threads of a phase.
#[derive(Debug)]
struct Done {
    /// For each thread, the number of operations done, from the first of its plan on.
    operations: Vec<usize>,
    /// The sum of [`touch`] over all values read.
    touched: u64,
    per_s: f64,
}

impl Task for Speed {
    const NAME: &'static str = "speed";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Speed { setup, shape, keys, threads, operations, phases } = self;
        let subject = setup.open(&run.dir)?;
        let data = Dataset::new(shape);
        let foreign = SubjectName::FOREIGN.contains(&setup.subject);
        let mut session = Session {
            subject: &*subject,
            data: &data,
            threads,
            limit: if foreign { FOREIGN_LIMIT } else { LIMIT },
            truth: Truth::new(keys, threads),
            measured: Measured::default(),
        };
        let filled = session.fill(keys)?;
        if setup.policy != Policy::Manual {
            subject.sync()?;
        }
        let mut planner = Planner::new(filled, shape.seed);
        let operations = if filled < keys { operations.min(filled) } else { operations };
        for (phase, access, name, from) in [
            (1, Access::Uniform, "uniform", Phases::UniformReads),
            (2, Access::Zipfian, "zipfian", Phases::Reads),
        ] {
            if phases < from {
                break;
            }
            let plans = planner.plans(phase, access, operations, threads, 0.0);
            session.look(Work::Read, &format!("read_{name}_per_s"), &plans)?;
            session.look(Work::Get, &format!("get_{name}_per_s"), &plans)?;
            if subject.engine().is_some() && phases >= Phases::Reads {
                session.look(Work::ReadMany, &format!("read_many_{name}_per_s"), &plans)?;
            }
            if access == Access::Uniform && phases >= Phases::Reads {
                session.look(Work::Miss, "read_absent_per_s", &plans)?;
            }
        }
        if phases == Phases::All {
            let plans = planner.plans(3, Access::Zipfian, operations, threads, 0.5);
            session.write(Work::Mixed, 3, "mixed_zipfian_per_s", &plans)?;
            let plans = planner.plans(4, Access::Uniform, 2 * operations, threads, 0.0);
            session.write(Work::Write, 4, "overwrite_uniform_per_s", &plans)?;
        }
        if let Some(per_s) = session.measured.get("read_many_uniform_per_s") {
            session.measured.add("read_many_uniform_per_key_ns", 1e9 / per_s);
        }
        if let Some(engine) = subject.engine() {
            let stats = engine.stats();
            session.measured.add("index_per_key_bytes", stats.index_bytes as f64 / filled as f64);
            session.measured.add("stall_ms", stats.stall_time.as_secs_f64() * 1e3);
            let live = (filled * shape.pair_len()) as f64;
            session.measured.add("records_in_memory_per_live", stats.memory_bytes as f64 / live);
            session.measured.add("compactions", stats.compactions as f64);
        }
        session.measured.add("keys", filled as f64);
        session.truth.verify(&*subject, &data)?;
        let measured = session.measured;
        // The process exits without a close, which would only cost time.
        std::mem::forget(subject);
        Ok(measured)
    }
}

/// One subject, from phase to phase.
struct Session<'a> {
    subject: &'a dyn Subject,
    data: &'a Dataset,
    threads: u64,
    limit: Duration,
    truth: Truth,
    measured: Measured,
}

impl Session<'_> {
    /// Puts keys `0..keys`, or as many as the time limit allows; returns `n` such that it put all
    /// of `0..n`.
    fn fill(&mut self, keys: u64) -> Result<u64, Failure> {
        let step = usize::try_from(self.threads).unwrap_or(1);
        let all = || 0..u32::try_from(keys).unwrap_or(u32::MAX);
        let plans: Vec<Vec<u32>> =
            (0..step).map(|thread| all().skip(thread).step_by(step).collect()).collect();
        let done = self.run(Work::Fill, 0, &plans)?;
        for (plan, operations) in plans.iter().zip(&done.operations) {
            plan.iter().take(*operations).for_each(|index| self.truth.fill(u64::from(*index)));
        }
        self.measured.add("fill_per_s", done.per_s);
        let complete = done.operations.iter().sum::<usize>() as u64 == keys;
        let rounds = done.operations.iter().min().copied().unwrap_or_default();
        Ok(if complete { keys } else { (rounds * step).max(1) as u64 })
    }

    /// A phase of reads. Every value must be the first of its key, unless the keys are absent.
    fn look(&mut self, work: Work, metric: &str, plans: &[Vec<u32>]) -> Result<(), Failure> {
        let done = self.run(work, 0, plans)?;
        let (mut expected, mut value) = (0, Vec::new());
        for (plan, operations) in plans.iter().zip(&done.operations).filter(|_| work != Work::Miss) {
            for index in plan.iter().take(*operations) {
                self.data.value(u64::from(*index), u64::from(*index), &mut value);
                expected += touch(&value);
            }
        }
        if done.touched != expected {
            return Err(Failure::Wrong("the reads did not see the values of the puts".to_owned()));
        }
        self.measured.add(metric, done.per_s);
        Ok(())
    }

    /// A phase that changes values.
    fn write(&mut self, work: Work, phase: u64, metric: &str, plans: &[Vec<u32>]) -> Result<(), Failure> {
        let done = self.run(work, phase, plans)?;
        for (thread, (plan, operations)) in (0..).zip(plans.iter().zip(&done.operations)) {
            for (place, entry) in (0..).zip(plan.iter().take(*operations)) {
                if work == Work::Write || entry & WRITES != 0 {
                    let index = u64::from(entry & !WRITES);
                    self.truth.write(index, thread, sequence(phase, thread, place));
                }
            }
        }
        self.measured.add(metric, done.per_s);
        Ok(())
    }

    /// Runs the plans, one a thread. The clock starts with the first thread once all are ready, and
    /// stops with the last.
    fn run(&self, work: Work, phase: u64, plans: &[Vec<u32>]) -> Result<Done, Failure> {
        let ready = Barrier::new(plans.len());
        let finished = concurrently((0..).zip(plans), |(thread, plan)| {
            ready.wait();
            let begin = Instant::now();
            let change = |place| sequence(phase, thread, place);
            let done = work_through(self.subject, self.data, work, plan, self.limit, change)?;
            Ok((done, begin, Instant::now()))
        })?;
        let operations: Vec<usize> = finished.iter().map(|((operations, _), ..)| *operations).collect();
        let begin = finished.iter().map(|(_, begin, _)| *begin).min();
        let end = finished.iter().map(|(.., end)| *end).max();
        let seconds = end.zip(begin).map_or(f64::NAN, |(end, begin)| (end - begin).as_secs_f64());
        Ok(Done {
            touched: finished.iter().map(|((_, touched), ..)| touched).sum(),
            per_s: operations.iter().sum::<usize>() as f64 / seconds,
            operations,
        })
    }
}

/// Carries out a plan until it ends or the time is up; returns the number of operations, and the
/// sum of [`touch`] over the values read.
fn work_through(
    subject: &dyn Subject,
    data: &Dataset,
    work: Work,
    plan: &[u32],
    limit: Duration,
    sequence: impl Fn(u64) -> u64,
) -> Result<(usize, u64), Failure> {
    if work == Work::ReadMany {
        return read_groups(subject, data, plan);
    }
    let (mut key, mut value, mut touched) = ([0; KEY_LEN_MAX], Vec::new(), 0u64);
    let absent = if work == Work::Miss { ABSENT } else { 0 };
    let start = Instant::now();
    let mut place = 0;
    for part in plan.chunks(LOOK_EVERY) {
        for entry in part {
            let index = u64::from(entry & !WRITES);
            let writes = entry & WRITES != 0;
            let key = data.key(index | absent, &mut key);
            match work {
                Work::Fill => {
                    data.value(index, index, &mut value);
                    subject.put(key, &value)?;
                }
                Work::Write | Work::Mixed if work == Work::Write || writes => {
                    data.value(index, sequence(place), &mut value);
                    subject.put(key, &value)?;
                }
                Work::Get => {
                    subject.get(key, &mut |value| touched += touch(value))?;
                }
                Work::Miss => {
                    // Any value that is seen counts, also an empty one or one of zeros.
                    subject.read(key, &mut |value| touched += 1 + touch(value))?;
                }
                _ => {
                    subject.read(key, &mut |value| touched += touch(value))?;
                }
            }
            place += 1;
        }
        if start.elapsed() > limit {
            break;
        }
    }
    Ok((usize::try_from(place).unwrap_or(usize::MAX), touched))
}

/// Keys in a group.
const GROUP: usize = 64;

/// Reads a plan's keys, a group at a time; returns as [`work_through`] does.
fn read_groups(subject: &dyn Subject, data: &Dataset, plan: &[u32]) -> Result<(usize, u64), Failure> {
    let engine = subject.engine().ok_or_else(|| Failure::Wrong("only engines read groups".to_owned()))?;
    let mut buffers = [[0; KEY_LEN_MAX]; GROUP];
    let mut touched = 0;
    for group in plan.chunks(GROUP) {
        let keys: Vec<&[u8]> =
            group.iter().zip(&mut buffers).map(|(index, key)| data.key(u64::from(*index), key)).collect();
        engine.read_many(&keys, &mut |_, value| touched += value.map_or(0, touch))?;
    }
    Ok((plan.len(), touched))
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_small_run_of_each() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        for subject in [SubjectName::Log, SubjectName::Naive, SubjectName::Dashmap] {
            let groups = if subject == SubjectName::Dashmap { 0 } else { 2 };
            for (phases, rates) in [
                (Phases::Fill, 1),
                (Phases::UniformReads, 3),
                (Phases::Reads, 6 + groups),
                (Phases::All, 8 + groups),
            ] {
                let setup = subject.standard();
                let task = Speed { setup, shape, keys: 2001, threads: 2, operations: 3000, phases };
                let measured = measured(&task);
                assert_eq!(measured.values.keys().filter(|name| name.ends_with("_per_s")).count(), rates);
                assert_eq!(measured.get("keys"), Some(2001.0));
            }
        }
    }
}
