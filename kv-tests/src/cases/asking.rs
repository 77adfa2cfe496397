//! When a thread asks the policy: cases of the group `policy`.

use crate::failure::ensure;
use crate::recorder::{Question, Recorder, hold_for};
use crate::rig::{Policy, Rig, Setup};
use crate::{CaseResult, Context, Failure};
use kv_core::{Action, Background, Batch, Decision, Engine, Lsn, OpenOptions, Pending, Result};
use std::sync::Arc;
use std::task::{self, Waker};
use std::thread;
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_millis(5);

/// A watchdog against a deadlock, not a limit on speed.
fn patience(context: &Context) -> Duration {
    context.settings().timeout.min(Duration::from_mins(1)) / 2
}

/// A store with threads whose policy notes every question.
struct Store {
    rig: Rig,
    recorder: Arc<Recorder>,
    engine: Arc<dyn Engine>,
    patience: Duration,
}

impl Store {
    fn open(context: &Context, recorder: Recorder) -> std::result::Result<Self, Failure> {
        let setup = Setup { background: Background::Threads, ..Setup::tiny(context, Policy::Manual) };
        Self::open_in(context.rig(setup)?, Arc::new(recorder), patience(context))
    }

    fn open_in(rig: Rig, recorder: Arc<Recorder>, patience: Duration) -> std::result::Result<Self, Failure> {
        let options = OpenOptions { persistence: Arc::clone(&recorder) as _, ..rig.setup.options() };
        let engine = rig.open_with(&options)?;
        Ok(Store { rig, recorder, engine, patience })
    }

    /// Closes the store, and opens it again.
    fn reopened(self) -> std::result::Result<Self, Failure> {
        self.engine.close()?;
        let Store { rig, recorder, patience, .. } = self;
        Self::open_in(rig, recorder, patience)
    }

    /// Waits until `lsn` is durable, without a call that could make it so.
    fn becomes_durable(&self, lsn: Lsn, expected: &str) -> CaseResult {
        let start = Instant::now();
        while self.engine.durable_lsn() < lsn {
            if start.elapsed() > self.patience {
                let questions = self.recorder.take();
                let last: Vec<String> = questions.iter().rev().take(4).rev().map(describe).collect();
                return Err(Failure::new(format!(
                    "{expected}, but {} s later LSN {lsn} is still not durable",
                    self.patience.as_secs()
                ))
                .with("questions", format!("{}, the last:\n{}", questions.len(), last.join("\n"))));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn describe(question: &Question) -> String {
    let Pending { bytes, records, oldest_age, since_last_dump } = question.pending;
    let Decision { action, ask_again_in } = question.answer;
    format!(
        "{records} records, {bytes} B, {oldest_age:?} old, {since_last_dump:?} since the last dump: {action:?}, ask again in {ask_again_in:?}"
    )
}

type Call<T> = fn(&dyn Engine) -> Result<T>;

/// A change of each kind. The keys are present.
const CHANGES: [(&str, Call<Lsn>); 3] = [
    ("put", |engine| engine.put(b"put", b"v")),
    ("delete", |engine| engine.delete(b"delete").map(Option::unwrap_or_default)),
    ("batch", |engine| {
        let mut batch = Batch::new();
        batch.put(b"batch", b"v").delete(b"absent");
        engine.apply(&batch)
    }),
];

/// Holds for a short time, then syncs.
fn soon() -> impl FnMut(&Pending) -> Decision + Send + 'static {
    let mut due = None;
    move |_| {
        let now = Instant::now();
        let at = *due.get_or_insert(now + SHORT);
        if now < at {
            return hold_for(at - now);
        }
        due = None;
        Decision::now(Action::WriteAndSync)
    }
}

/// What comes before the change that names a time.
const BEFORE: [(&str, Call<()>); 4] = [
    ("open", |_| Ok(())),
    ("sync", |engine| engine.put(b"x", b"y").and_then(|_| engine.sync()).map(drop)),
    ("wait_durable", |engine| engine.put(b"x", b"y").and_then(|lsn| engine.wait_durable(lsn))),
    ("poll_durable", |engine| {
        let lsn = engine.put(b"x", b"y")?;
        while engine.poll_durable(lsn, &mut task::Context::from_waker(Waker::noop()))?.is_pending() {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }),
];

pub(super) fn asked_again_when_the_time_has_passed(context: &Context) -> CaseResult {
    for (name, change) in CHANGES {
        for (before, prepare) in BEFORE {
            for is_asleep in [false, true] {
                let store = Store::open(context, Recorder::always(Action::Hold))?;
                store.engine.put(b"delete", b"v")?;
                let store = store.reopened()?;
                if is_asleep {
                    store.recorder.answer(|_| hold_for(HOUR));
                }
                prepare(&*store.engine)?;
                if is_asleep {
                    // Gives the thread time to fall asleep. The case is valid without that, too.
                    thread::sleep(Duration::from_millis(2));
                }
                store.recorder.answer(soon());
                let lsn = change(&*store.engine)?;
                let asked =
                    format!("after {before} and a {name} the policy wants to be asked again in {SHORT:?}");
                store.becomes_durable(lsn, &asked)?;
            }
        }
    }
    // The first change in the life of the store.
    let store = Store::open(context, Recorder::new(soon()))?;
    let lsn = store.engine.put(b"k", b"v")?;
    store.becomes_durable(
        lsn,
        &format!("the first answer of a new store wants to be asked again in {SHORT:?}"),
    )
}

pub(super) fn a_sooner_time_counts(context: &Context) -> CaseResult {
    // The answers to the changes before.
    let later = [Some(HOUR), None];
    for (name, change) in CHANGES {
        for later in later {
            for is_asked_by_thread in [false, true] {
                let store = Store::open(context, Recorder::always(Action::Hold))?;
                store.engine.put(b"delete", b"v")?;
                store.engine.sync()?;
                let hold = Decision { action: Action::Hold, ask_again_in: later };
                if is_asked_by_thread {
                    // The thread itself gets the answer that names the later time.
                    let mut is_first = true;
                    store.recorder.answer(move |_| {
                        if std::mem::take(&mut is_first) { hold_for(Duration::from_millis(1)) } else { hold }
                    });
                } else {
                    store.recorder.answer(move |_| hold);
                }
                store.engine.put(b"first", b"v")?;
                // Gives the thread time to fall asleep. The case is valid without that, too.
                thread::sleep(Duration::from_millis(4));
                store.recorder.answer(soon());
                let lsn = change(&*store.engine)?;
                let wanted =
                    format!("after an answer to ask again in {later:?}, a {name} makes it {SHORT:?}");
                store.becomes_durable(lsn, &wanted)?;
            }
        }
    }
    Ok(())
}

/// Holds four times for a moment, then syncs. Each answer but the first and the last takes
/// `action`.
fn in_steps(action: Action) -> impl FnMut(&Pending) -> Decision + Send + 'static {
    let (mut step, mut due) = (0, Instant::now());
    move |_| {
        let now = Instant::now();
        // A question before the time gets the same answer again.
        if step > 0 && now < due {
            return hold_for(due - now);
        }
        step += 1;
        due = now + Duration::from_millis(2);
        match step {
            1 => hold_for(due - now),
            2..5 => Decision { action, ask_again_in: Some(due - now) },
            _ => Decision::now(Action::WriteAndSync),
        }
    }
}

pub(super) fn asked_again_and_again(context: &Context) -> CaseResult {
    for action in [Action::Hold, Action::Write] {
        for (name, change) in CHANGES {
            let store = Store::open(context, Recorder::always(Action::Hold))?;
            store.engine.put(b"delete", b"v")?;
            let store = store.reopened()?;
            for round in 0..2 {
                store.recorder.answer(in_steps(action));
                let lsn = change(&*store.engine)?;
                let wanted = format!(
                    "after a {name} (round {round}) the policy answers {action:?} and a time, and wants to be asked again after each of five"
                );
                store.becomes_durable(lsn, &wanted)?;
                store.engine.put(b"delete", b"v")?;
                store.engine.sync()?;
            }
        }
    }
    Ok(())
}

pub(super) fn changes_during_a_dump_stay_pending(context: &Context) -> CaseResult {
    let setup = Setup { background: Background::Threads, ..Setup::tiny(context, Policy::Manual) };
    let recorder = Arc::new(Recorder::always(Action::WriteAndSync));
    // Real syncs take their time, so many of the changes arrive during one.
    let store = Store::open_in(context.real_rig(setup)?, recorder, patience(context))?;
    let mut rng = context.rng();
    for round in 0..context.scaled(40) {
        let (mut lsn, puts) = (Lsn::ZERO, rng.u8(2..5));
        for number in 0..puts {
            lsn = store.engine.put(&[number], &round.to_le_bytes())?;
            thread::sleep(Duration::from_micros(rng.u64(0..300)));
        }
        store.becomes_durable(lsn, "the policy answers every question with WriteAndSync")?;
        // A late question may still be one of the round before.
        let most = 8;
        for asked in store.recorder.take() {
            ensure!(
                (1..=most).contains(&asked.pending.records),
                "1 to {most} changes are pending, but the policy is asked about {} records",
                asked.pending.records
            );
        }
    }
    Ok(())
}

pub(super) fn an_idle_thread_asks_nothing(context: &Context) -> CaseResult {
    let pause = Duration::from_millis(4);
    for action in [Action::Hold, Action::Write, Action::WriteAndSync] {
        let answer = Decision { action, ask_again_in: Some(pause) };
        let store = Store::open(context, Recorder::new(move |_| answer))?;
        for number in 0..3u8 {
            let lsn = store.engine.put(b"k", &[number])?;
            match action {
                Action::Hold => drop(store.engine.sync()?),
                Action::Write => store.engine.wait_durable(lsn)?,
                Action::WriteAndSync => store.becomes_durable(lsn, "the policy answers with WriteAndSync")?,
            }
            // The thread may have begun a question before the changes were durable.
            thread::sleep(pause);
            let late = store.recorder.take();
            thread::sleep(4 * pause);
            let asked = store.recorder.take();
            let idle = asked.iter().chain(&late).find(|asked| asked.pending.records == 0);
            ensure!(
                idle.is_none() && asked.len() < 2,
                "the only change is durable, but the engine asks the policy {} times in {:?}, about {} records",
                asked.len(),
                4 * pause,
                asked.last().or(idle).map_or(0, |asked| asked.pending.records)
            );
        }
    }
    Ok(())
}
