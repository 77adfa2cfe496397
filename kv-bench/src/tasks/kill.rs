//! The loss when a process is killed: of all pairs, and of those reported durable.

use crate::failure::Failure;
use crate::load::{Command, Dataset, KEY_LEN_MAX, Mix, Shape, Workload};
use crate::process::{Measured, Run, Task, child};
use crate::subjects::{KvEngine, Policy, Setup, Subject};
use fastrand::Rng;
use kv_core::Lsn;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::time::{Duration, Instant};

/// Kills a writer in another process, reopens its store, and compares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kill {
    pub(crate) setup: Setup,
    pub(crate) shape: Shape,
    /// The kill comes this long after the start at the earliest, and
    pub(crate) after_ms_min: u64,
    /// this long after it at the latest.
    pub(crate) after_ms_max: u64,
}

/// Changes a store until its process is killed. Prints lines of two numbers: the commands made, and
/// how many of them, from the first on, are durable.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WriteUntilKilled(Kill);

/// Most commands a millisecond: about the rate of the study's client.
pub(crate) const PACE_PER_MS: u64 = 50;
/// Commands between two reports of the writer. It can be this far ahead of its last report.
pub(crate) const REPORT_EVERY: u64 = 32;
/// After so many bytes the writer only waits to be killed.
const WRITTEN_BYTES_MAX: u64 = 256 << 20;

impl Task for Kill {
    const NAME: &'static str = "kill";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        // The moments depend on seed and repetition only, so all subjects are killed at the same
        // ones.
        let mut rng = Rng::with_seed(self.shape.seed);
        let moments = std::iter::repeat_with(|| rng.u64(self.after_ms_min..=self.after_ms_max));
        let after = moments.take(usize::try_from(run.repetition + 1).unwrap_or(1)).last();
        let after = Duration::from_millis(after.unwrap_or(self.after_ms_max));
        let line = child::kill_after(&run.with(&WriteUntilKilled(self))?, after)?;
        let reported = line.map_or(Ok(Reported::default()), |line| Reported::parse(&line))?;
        let engine = KvEngine(self.setup.open_engine(&run.dir)?);
        let recovered = recovered(&engine, &Dataset::new(self.shape), reported.issued_max())?;
        Box::new(engine).close()?;
        let verdict = judge(|| commands(self.shape), reported, &recovered)?;
        let mut measured = Measured::default();
        measured.add("error_rate", verdict.error_percent());
        measured.add("commands_made", verdict.made as f64);
        measured.add("changes_lost", verdict.lost as f64);
        measured.add("durable_changes_lost", verdict.durable_lost() as f64);
        Ok(measured)
    }
}

impl Task for WriteUntilKilled {
    const NAME: &'static str = "write-until-killed";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Kill { setup, shape, .. } = self.0;
        let data = Dataset::new(shape);
        let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
        let mut commands = commands(shape);
        let engine = setup.open_engine(&run.dir)?;
        let report_every = if setup.policy == Policy::Always { 1 } else { REPORT_EVERY };
        let mut out = std::io::stdout().lock();
        let mut pending: VecDeque<Lsn> = VecDeque::new();
        let begin = Instant::now();
        let mut reported = Instant::now();
        for number in 0..shape.at_most(u64::MAX, WRITTEN_BYTES_MAX) {
            let lsn = match commands.next() {
                Command::Put { index } => {
                    data.value(index, number, &mut value);
                    engine.put(data.key(index, &mut key), &value)?
                }
                Command::Delete { index } => engine
                    .delete(data.key(index, &mut key))?
                    .ok_or_else(|| Failure::Wrong(format!("a delete did not find key {index}")))?,
                Command::Get { .. } => continue,
            };
            pending.push_back(lsn);
            let made = number + 1;
            if made.is_multiple_of(report_every) || reported.elapsed() > Duration::from_millis(1) {
                let durable = engine.durable_lsn();
                while pending.front().is_some_and(|lsn| *lsn <= durable) {
                    pending.pop_front();
                }
                writeln!(out, "{made} {}", made - pending.len() as u64)
                    .and_then(|()| out.flush())
                    .map_err(Failure::io("report to the parent process"))?;
                reported = Instant::now();
                let due = Duration::from_micros(made * 1000 / PACE_PER_MS);
                std::thread::sleep(due.saturating_sub(begin.elapsed()));
            }
        }
        // Longer than any kill takes. The limit ends a process that no parent kills.
        std::thread::sleep(Duration::from_secs(10));
        Ok(Measured::default())
    }
}

/// The commands of the writer, the same in both processes.
fn commands(shape: Shape) -> Workload {
    let mix = Mix { shape, commands: 0, read_fraction: 0.0, hit_rate: 1.0, hot_fraction: 0.0, hot_rate: 0.0 };
    Workload::new(&mix, 0)
}

/// The store's state: for each index, the sequence of its value.
fn recovered(subject: &dyn Subject, data: &Dataset, issued_max: u64) -> Result<HashMap<u64, u64>, Failure> {
    let mut recovered = HashMap::new();
    let mut key = [0; KEY_LEN_MAX];
    // Each command puts at most one key.
    for index in 0..issued_max {
        let mut sequence = None;
        subject.read(data.key(index, &mut key), &mut |value| {
            sequence = Some(data.sequence_of(index, value));
        })?;
        if let Some(sequence) = sequence {
            recovered.insert(index, sequence?);
        }
    }
    let keys = subject.count()?;
    if keys == recovered.len() as u64 {
        Ok(recovered)
    } else {
        Err(Failure::Wrong(format!("it holds {keys} keys, but the writer put only {}", recovered.len())))
    }
}

/// The last line of a writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reported {
    /// Commands acknowledged.
    made: u64,
    /// The first so many of them are durable.
    durable: u64,
}

impl Reported {
    fn parse(line: &str) -> Result<Self, Failure> {
        let numbers = line.split_once(' ').and_then(|(made, durable)| {
            Some(Reported { made: made.parse().ok()?, durable: durable.parse().ok()? })
        });
        numbers.ok_or_else(|| Failure::Worker(format!("it reported {line:?}")))
    }

    /// Commands that the writer can have begun by then.
    fn issued_max(self) -> u64 {
        self.made + REPORT_EVERY + 1
    }
}

/// The state of a killed store, held against the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    /// Commands in the ground truth.
    made: u64,
    /// Pairs in the ground truth.
    pairs: u64,
    /// Pairs of it that the store lacks or holds with another value.
    errors: u64,
    /// Commands of it that are undone.
    lost: u64,
    /// Commands of it that were reported durable.
    durable: u64,
}

impl Verdict {
    /// Commands that are undone although the writer reported them durable.
    fn durable_lost(&self) -> u64 {
        (self.durable + self.lost).saturating_sub(self.made)
    }

    fn error_percent(&self) -> f64 {
        if self.pairs == 0 { 0.0 } else { self.errors as f64 * 100.0 / self.pairs as f64 }
    }
}

/// Compares the recovered state with the commands. The only right states are those after a prefix
/// of the commands that holds all durable ones.
fn judge(
    commands: impl Fn() -> Workload,
    reported: Reported,
    recovered: &HashMap<u64, u64>,
) -> Result<Verdict, Failure> {
    // The number of keys that differ between the recovered state and the state after the commands
    // so far.
    let mut different = recovered.len();
    let mut prefix = (different == 0).then_some(0);
    let mut workload = commands();
    for number in 0..reported.issued_max() {
        match workload.next() {
            Command::Put { index } => match recovered.get(&index) {
                Some(sequence) if *sequence == number => different -= 1,
                Some(_) => {}
                None => different += 1,
            },
            // A wrong value never becomes right: its key counts once or twice from here on.
            Command::Delete { index } => {
                if recovered.contains_key(&index) {
                    different += 1;
                } else {
                    different -= 1;
                }
            }
            Command::Get { .. } => {}
        }
        if different == 0 {
            prefix = Some(number + 1);
        }
    }
    let prefix = prefix.ok_or_else(|| {
        Failure::Wrong(format!(
            "after a kill it holds the state after no prefix of the commands ({reported:?})"
        ))
    })?;
    // The writer also made the recovered commands that it had not reported yet.
    let made = reported.made.max(prefix);
    let truth = state_after(commands(), made);
    let errors = truth.iter().filter(|(index, sequence)| recovered.get(index) != Some(sequence)).count();
    let (pairs, lost, durable) = (truth.len() as u64, made - prefix, reported.durable);
    let verdict = Verdict { made, pairs, errors: errors as u64, lost, durable };
    match verdict.durable_lost() {
        0 => Ok(verdict),
        lost => Err(Failure::Wrong(format!(
            "a kill lost {lost} changes that were reported durable ({reported:?})"
        ))),
    }
}

/// Index and sequence of each pair that the first `count` commands leave.
fn state_after(mut workload: Workload, count: u64) -> HashMap<u64, u64> {
    let mut state = HashMap::new();
    for number in 0..count {
        match workload.next() {
            Command::Put { index } => {
                state.insert(index, number);
            }
            Command::Delete { index } => {
                state.remove(&index);
            }
            Command::Get { .. } => {}
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::SubjectName;

    const SHAPE: Shape = Shape { key_len: 24, value_len: 64, seed: 5 };

    fn after(count: u64) -> HashMap<u64, u64> {
        state_after(commands(SHAPE), count)
    }

    fn judged(made: u64, durable: u64, recovered: &HashMap<u64, u64>) -> Result<Verdict, Failure> {
        judge(|| commands(SHAPE), Reported { made, durable }, recovered)
    }

    #[test]
    fn prefixes_are_recognized_and_losses_counted() {
        for count in [0, 1, 17, 400, 500, 510] {
            let verdict = judged(500, count.min(300), &after(count)).unwrap();
            assert!(verdict.made >= 500 && verdict.made - verdict.lost >= count, "{verdict:?}");
            let truth = after(verdict.made);
            assert_eq!(verdict.pairs, truth.len() as u64);
            assert_eq!(verdict.lost == 0, verdict.errors == 0);
        }
        let all = judged(500, 500, &after(500)).unwrap();
        assert!(all.lost == 0 && all.error_percent() < 1e-9);
        assert!((judged(500, 0, &after(0)).unwrap().error_percent() - 100.0).abs() < 1e-9);
        assert!(judged(0, 0, &after(0)).unwrap().error_percent() < 1e-9);
    }

    #[test]
    fn durable_loss_holes_and_stale_values_are_caught() {
        let message = |result: Result<Verdict, Failure>| result.unwrap_err().to_string();
        assert!(
            message(judged(500, 450, &after(400))).contains("lost 50 changes that were reported durable")
        );
        assert!(message(judged(500, 401, &after(400))).contains("lost 1 changes"));
        assert_eq!(judged(500, 400, &after(400)).unwrap().durable_lost(), 0);
        let mut holed = after(500);
        let victim = *holed.keys().min().unwrap();
        let sequence = holed.remove(&victim).unwrap();
        assert!(message(judged(500, 0, &holed)).contains("after no prefix"));
        holed.insert(victim, sequence + 1);
        assert!(message(judged(500, 0, &holed)).contains("after no prefix"));
        let mut undeleted = after(500);
        let deleted = (0..500).find(|index| !undeleted.contains_key(index)).unwrap();
        undeleted.insert(deleted, deleted);
        assert!(message(judged(500, 0, &undeleted)).contains("after no prefix"));
    }

    #[test]
    fn reports_are_read() {
        assert_eq!(Reported::parse("12 3").unwrap(), Reported { made: 12, durable: 3 });
        assert!(Reported::parse("12").is_err() && Reported::parse("a b").is_err());
    }

    #[test]
    fn a_store_is_read_back_and_foreign_keys_and_values_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let engine = SubjectName::Log.standard().open(dir.path()).unwrap();
        let data = Dataset::new(SHAPE);
        let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
        for (index, sequence) in after(100) {
            data.value(index, sequence, &mut value);
            engine.put(data.key(index, &mut key), &value).unwrap();
        }
        assert_eq!(recovered(&*engine, &data, 100).unwrap(), after(100));
        engine.put(b"foreign", b"").unwrap();
        assert!(recovered(&*engine, &data, 100).is_err());
        engine.delete(b"foreign").unwrap();
        engine.put(data.key(0, &mut key), b"a value of no command").unwrap();
        assert!(recovered(&*engine, &data, 100).is_err());
    }
}
