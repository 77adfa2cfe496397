//! What is lost when the process is killed: of all pairs, and of those reported durable.

use crate::child;
use crate::dataset::{Dataset, KEY_LEN_MAX, Shape};
use crate::engines::{Contender, EngineName, Policy};
use crate::evaluation::Evaluation;
use crate::failure::Failure;
use crate::figure::{Figure, Kind, Series};
use crate::report::{Section, Table};
use crate::results::{median, parameters};
use crate::scratch::Scratch;
use crate::units;
use crate::worker::{Run, Task};
use crate::workload::{Command, Mix, Workload};
use fastrand::Rng;
use kv_core::{Engine, Lsn};
use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

const CONTENDERS: [Contender; 7] = [
    Contender::new(EngineName::Log, Policy::Always),
    Contender::new(EngineName::Log, Policy::Periodic(10)),
    Contender::new(EngineName::Log, Policy::MaxLogSize(1 << 20)),
    Contender::new(EngineName::Log, Policy::Default),
    Contender::new(EngineName::Naive, Policy::MaxLogSize(1 << 15)),
    Contender::new(EngineName::Naive, Policy::MaxLogSize(1 << 20)),
    Contender::new(EngineName::Naive, Policy::MaxLogSize(1 << 25)),
];

/// Most commands a millisecond: about what the study's client made.
const PACE_PER_MS: u64 = 50;
/// Commands between two reports of the writer; it may be this much further than it said.
const REPORT_EVERY: u64 = 32;
/// After so many bytes the writer only waits to be killed.
const WRITTEN_BYTES_MAX: u64 = 256 << 20;

/// Plans and reports.
pub(crate) fn run(evaluation: &mut Evaluation<'_>) -> Result<(), Failure> {
    let options = evaluation.options;
    let shape = evaluation.shape();
    let (shortest_ms, longest_ms) = if options.quick { (150, 300) } else { (500, 1000) };
    let kills = options.repetitions();
    let mut table = Table::new([
        "engine",
        "kills",
        "commands made",
        "error rate, %",
        "least, %",
        "most, %",
        "changes lost",
        "durable ones lost",
    ]);
    let mut bars = Vec::new();
    for contender in CONTENDERS.into_iter().filter(|contender| options.has(contender.engine)) {
        let mut outcomes = Vec::new();
        // The same moments for all.
        let mut rng = Rng::with_seed(options.seed);
        for _ in 0..kills {
            let dir = evaluation.scratch.fresh_dir();
            let run = Run { dir: dir.clone(), task: Task::WriteUntilKilled { contender, shape } };
            let after = Duration::from_millis(rng.u64(shortest_ms..=longest_ms));
            outcomes.push(kill_once(&run, contender, shape, after)?);
            Scratch::remove(&dir)?;
        }
        let label = contender.label();
        let parameters = parameters(&[
            ("killed_after_ms_min", shortest_ms.into()),
            ("killed_after_ms_max", longest_ms.into()),
            ("pace_per_ms", PACE_PER_MS.into()),
            ("key_len", shape.key_len.into()),
            ("value_len", shape.value_len.into()),
        ]);
        let of = |value: fn(&Verdict) -> f64| outcomes.iter().map(value).collect::<Vec<_>>();
        let rates = of(Verdict::error_percent);
        let made = of(|verdict| verdict.made as f64);
        let lost = of(|verdict| verdict.lost as f64);
        let results = &mut evaluation.results;
        results.add("kill", &label, &parameters, "error_rate", "%", &rates);
        results.add("kill", &label, &parameters, "commands_made", "", &made);
        results.add("kill", &label, &parameters, "changes_lost", "", &lost);
        let durable_lost = of(|verdict| verdict.durable_lost() as f64);
        results.add("kill", &label, &parameters, "durable_changes_lost", "", &durable_lost);
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rates.iter().copied().fold(0.0, f64::max);
        table.push([
            label.clone(),
            kills.to_string(),
            units::number(median(&made)),
            format!("{:.2}", median(&rates)),
            format!("{least:.2}"),
            format!("{most:.2}"),
            units::number(median(&lost)),
            units::number(durable_lost.iter().sum()),
        ]);
        bars.push(Series::new(&label, [(median(&rates), most)]).styled(contender.engine.place(), false));
    }
    evaluation.sections.push(Section {
        title: "Loss after kill -9".to_owned(),
        method: format!(
            "A process puts new keys, and deletes with one command in ten, pairs of {} + {} bytes, at most {PACE_PER_MS} \
             commands a ms, and reports what it has made and what is durable, at least every {REPORT_EVERY} commands. It is killed \
             (SIGKILL) at a random moment, {shortest_ms} to {longest_ms} ms after its start. Error rate: (wrong + \
             missing) / all pairs that its acknowledged commands make. The recovered state must be the state after a \
             prefix of the commands that holds everything reported durable, else the evaluation fails. The system \
             goes on running, so this is not a power cut: what was handed to it survives.",
            shape.key_len, shape.value_len
        ),
        table,
        figures: vec![Figure {
            title: "Pairs wrong or missing after kill -9: median, and most".to_owned(),
            x: String::new(),
            y: "% of all pairs".to_owned(),
            kind: Kind::Bars,
            series: bars,
        }],
    });
    Ok(())
}

/// The commands of the writer: the same in both processes.
fn commands(shape: Shape) -> Workload {
    let mix = Mix { shape, commands: 0, read_fraction: 0.0, hit_rate: 1.0, hot_fraction: 0.0, hot_rate: 0.0 };
    Workload::new(&mix, 0)
}

/// Carries out commands, and reports on lines of two numbers: commands made, and how many of them, from the
/// first on, are durable.
pub(crate) fn write_until_killed(dir: &Path, contender: Contender, shape: Shape) -> Result<(), Failure> {
    let data = Dataset::new(shape);
    let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
    let mut commands = commands(shape);
    let engine = contender.open(dir)?;
    let report_every = if contender.policy == Policy::Always { 1 } else { REPORT_EVERY };
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
                .ok_or_else(|| Failure::Wrong(format!("key {index} was not there to delete")))?,
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
    // Longer than any kill takes; and no longer than that, should nobody kill it.
    std::thread::sleep(Duration::from_secs(10));
    Ok(())
}

/// Kills a writer, reopens its store, and compares.
fn kill_once(run: &Run, contender: Contender, shape: Shape, after: Duration) -> Result<Verdict, Failure> {
    let said = child::kill_after(run, after)?;
    let reported = said.map_or(Ok(Reported::default()), |line| Reported::parse(&line))?;
    let engine = contender.open(&run.dir)?;
    let recovered = recovered(&*engine, &Dataset::new(shape), reported.issued_max())?;
    engine.close()?;
    judge(|| commands(shape), reported, &recovered)
}

/// What the store holds: for each index, the sequence of its value.
fn recovered(engine: &dyn Engine, data: &Dataset, issued_max: u64) -> Result<HashMap<u64, u64>, Failure> {
    let mut recovered = HashMap::new();
    let mut key = [0; KEY_LEN_MAX];
    // Each command puts at most one key.
    for index in 0..issued_max {
        let mut sequence = None;
        engine.read(data.key(index, &mut key), &mut |value| {
            sequence = Some(data.sequence_of(index, value));
        })?;
        if let Some(sequence) = sequence {
            recovered.insert(index, sequence?);
        }
    }
    let mut keys = 0;
    engine.scan(&mut |_, _| {
        keys += 1;
        ControlFlow::Continue(())
    })?;
    if keys == recovered.len() {
        Ok(recovered)
    } else {
        Err(Failure::Wrong(format!("it holds {keys} keys, of which only {} were ever put", recovered.len())))
    }
}

/// The last words of a writer.
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

    /// Commands that may have been begun by then.
    fn issued_max(self) -> u64 {
        self.made + REPORT_EVERY + 1
    }
}

/// What became of a killed store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    /// Commands in the ground truth.
    made: u64,
    /// Pairs in the ground truth.
    pairs: u64,
    /// Pairs of it that are missing or have another value.
    errors: u64,
    /// Commands of it that are undone.
    lost: u64,
    /// Commands of it that were reported durable.
    durable: u64,
}

impl Verdict {
    /// Commands that are undone although they were reported durable.
    fn durable_lost(&self) -> u64 {
        (self.durable + self.lost).saturating_sub(self.made)
    }

    fn error_percent(&self) -> f64 {
        if self.pairs == 0 { 0.0 } else { self.errors as f64 * 100.0 / self.pairs as f64 }
    }
}

/// Compares what was recovered with the commands. Anything but the state after a prefix of them that holds
/// all durable ones is an error.
fn judge(
    commands: impl Fn() -> Workload,
    reported: Reported,
    recovered: &HashMap<u64, u64>,
) -> Result<Verdict, Failure> {
    // How many keys differ between what was recovered and the state after the commands so far.
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
            // A wrong value never gets right: such a key counts once or twice from here on.
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
            "after a kill its state is not that after any prefix of the commands ({reported:?})"
        ))
    })?;
    // What was not reported and is there all the same was made as well.
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
        assert!(message(judged(500, 0, &holed)).contains("not that after any prefix"));
        holed.insert(victim, sequence + 1);
        assert!(message(judged(500, 0, &holed)).contains("not that after any prefix"));
        let mut undeleted = after(500);
        let deleted = (0..500).find(|index| !undeleted.contains_key(index)).unwrap();
        undeleted.insert(deleted, deleted);
        assert!(message(judged(500, 0, &undeleted)).contains("not that after any prefix"));
    }

    #[test]
    fn reports_are_read() {
        assert_eq!(Reported::parse("12 3").unwrap(), Reported { made: 12, durable: 3 });
        assert!(Reported::parse("12").is_err() && Reported::parse("a b").is_err());
    }

    #[test]
    fn a_store_is_read_back_and_strangers_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let engine = EngineName::Log.standard().open(dir.path()).unwrap();
        let data = Dataset::new(SHAPE);
        let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
        for (index, sequence) in after(100) {
            data.value(index, sequence, &mut value);
            engine.put(data.key(index, &mut key), &value).unwrap();
        }
        assert_eq!(recovered(&*engine, &data, 100).unwrap(), after(100));
        engine.put(b"stranger", b"").unwrap();
        assert!(recovered(&*engine, &data, 100).is_err());
        engine.delete(b"stranger").unwrap();
        engine.put(data.key(0, &mut key), b"a value that nobody wrote").unwrap();
        assert!(recovered(&*engine, &data, 100).is_err());
    }
}
