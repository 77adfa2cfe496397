//! A store in inline mode whose policy notes every question. A model tells which changes are
//! pending at each of them, since when, and when the last dump was.
//!
//! The contract lets an engine dump earlier than its policy demands. The model learns of such a
//! dump by `durable_lsn` and by changes of the disk. Where it cannot know the moment, it accepts
//! every possible one.

use crate::failure::ensure;
use crate::oracle::{State, state_of};
use crate::recorder::{Question, Recorder};
use crate::rig::{Policy, Rig, Setup};
use crate::sim::{PowerCut, SimFs};
use crate::{CaseResult, Context, Failure};
use kv_core::{Action, Batch, Change, Engine, Lsn, OpenOptions, Pending, Result, Scale};
use std::sync::Arc;
use std::time::Duration;

/// Bytes that an engine may add to a change in its files: a few pages of a tree.
const OVERHEAD: u64 = 64 << 10;

/// A change that is not durable.
#[derive(Clone, Copy, Debug)]
struct Visible {
    lsn: Lsn,
    /// Its keys and values.
    bytes: u64,
    since: Duration,
}

/// What a call did that the model has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    /// A change with these bytes of keys and values.
    Change(Lsn, u64),
    /// A sync of everything pending.
    Sync,
    Nothing,
}

/// A store under watch.
#[derive(Debug)]
pub(crate) struct Modelled {
    context: Context,
    rig: Rig,
    disk: SimFs,
    options: OpenOptions,
    pub(crate) recorder: Arc<Recorder>,
    engine: Arc<dyn Engine>,
    state: State,
    /// The changes beyond `durable`, the oldest first.
    pending: Vec<Visible>,
    durable: Lsn,
    now: Duration,
    /// The last dump that the model knows of, or the open.
    dumped: Duration,
    /// The last moment when the engine may have dumped.
    may_have_dumped: Duration,
    /// The changes of the disk at the end of the last call.
    mutations: u64,
    /// The strongest answer during the last call.
    answered: Action,
    calls: Vec<String>,
}

impl Modelled {
    /// A new store whose policy is `recorder`.
    pub(crate) fn open(
        context: &Context,
        scale: Scale,
        recorder: Recorder,
    ) -> std::result::Result<Self, Failure> {
        let disk = SimFs::new();
        recorder.watch(&disk);
        let recorder = Arc::new(recorder);
        let setup = Setup { scale, ..Setup::tiny(context, Policy::Manual) };
        let rig = context.sim_rig(disk.clone(), setup);
        let options = OpenOptions { persistence: Arc::clone(&recorder) as _, ..setup.options() };
        let engine = rig.open_with(&options)?;
        let mut watched = Modelled {
            context: context.clone(),
            rig,
            options,
            recorder,
            durable: engine.durable_lsn(),
            engine,
            mutations: 0,
            answered: Action::Hold,
            disk,
            state: State::new(),
            pending: Vec::new(),
            now: Duration::ZERO,
            dumped: Duration::ZERO,
            may_have_dumped: Duration::ZERO,
            calls: vec!["open".to_owned()],
        };
        watched.check("open", Did::Nothing)?;
        watched.forget_dumps();
        Ok(watched)
    }

    /// Moves the clock.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.rig.advance(by);
        self.now += by;
        self.calls.push(format!("{by:?} pass"));
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> CaseResult {
        let lsn = self.engine.put(key, value)?;
        self.state.insert(key.to_vec(), value.to_vec());
        let did = Did::Change(lsn, (key.len() + value.len()) as u64);
        self.check(&format!("put of {} and {} B", key.len(), value.len()), did)
    }

    pub(crate) fn delete(&mut self, key: &[u8]) -> CaseResult {
        let lsn = self.engine.delete(key)?;
        self.state.remove(key);
        match lsn {
            Some(lsn) => self.check("delete", Did::Change(lsn, key.len() as u64)),
            None => self.check("delete of an absent key", Did::Nothing),
        }
    }

    pub(crate) fn apply(&mut self, batch: &Batch) -> CaseResult {
        let before = self.engine.last_lsn();
        let lsn = self.engine.apply(batch)?;
        let mut bytes = 0;
        for change in batch.effective_changes() {
            let key = change.key().to_vec();
            let len = key.len();
            bytes += match change {
                Change::Put { value, .. } => {
                    self.state.insert(key, value.clone());
                    len + value.len()
                }
                Change::Delete { .. } => self.state.remove(&key).map_or(0, |_| len),
            };
        }
        let what = format!("batch of {}", batch.changes().len());
        if lsn == before {
            return self.check(&format!("{what} that changes nothing"), Did::Nothing);
        }
        self.check(&what, Did::Change(lsn, bytes as u64))
    }

    /// A call that changes nothing and makes nothing durable. It may fail.
    pub(crate) fn idle<T>(&mut self, what: &str, call: impl FnOnce(&dyn Engine) -> T) -> CaseResult {
        let _ = call(&*self.engine);
        self.check(what, Did::Nothing)
    }

    /// A call that makes all pending changes durable.
    pub(crate) fn sync<T>(&mut self, what: &str, call: impl FnOnce(&dyn Engine) -> Result<T>) -> CaseResult {
        call(&*self.engine)?;
        self.check(what, Did::Sync)?;
        ensure!(
            self.pending.is_empty(),
            "after a {what} everything is durable, but durable_lsn is {} and last_lsn {}",
            self.durable,
            self.engine.last_lsn()
        );
        Ok(())
    }

    /// Closes the store, and opens it again.
    pub(crate) fn reopen(&mut self) -> CaseResult {
        self.sync("close", |engine| engine.close())?;
        self.engine = self.rig.open_with(&self.options)?;
        self.opened("open after a close")
    }

    /// The process dies, or the power fails. Then the next one opens the store.
    pub(crate) fn crash(&mut self, cut: Option<PowerCut>) -> CaseResult {
        let disk = cut.map_or_else(|| self.disk.process_death(), |cut| self.disk.power_cut(cut));
        self.recorder.watch(&disk);
        let rig = self.context.sim_rig(disk.clone(), self.rig.setup);
        // The new store has a clock of its own.
        rig.advance(self.now);
        let engine = rig.open_with(&self.options)?;
        self.state = state_of(&*engine)?;
        (self.rig, self.engine, self.disk) = (rig, engine, disk);
        self.recorder.take();
        self.pending.clear();
        self.opened("recovery")
    }

    fn opened(&mut self, what: &str) -> CaseResult {
        self.durable = self.engine.durable_lsn();
        self.check(what, Did::Nothing)?;
        self.forget_dumps();
        Ok(())
    }

    /// The store was opened now.
    fn forget_dumps(&mut self) {
        (self.dumped, self.may_have_dumped) = (self.now, self.now);
    }

    /// Checks that the changes that the disk must hold are there: after the death of the process,
    /// or after the worst power cut.
    pub(crate) fn check_disk(&self, cut: Option<PowerCut>) -> CaseResult {
        self.context.explored().crash_state();
        let disk = cut.map_or_else(|| self.disk.process_death(), |cut| self.disk.power_cut(cut));
        let recovered = self.context.sim_rig(disk, self.rig.setup).open()?;
        let by = if cut.is_some() { "a power cut" } else { "the death of the process" };
        let (found, expected) = (state_of(&*recovered)?, &self.state);
        let differs = expected
            .iter()
            .find(|(key, value)| found.get(*key) != Some(*value))
            .or_else(|| found.iter().find(|(key, _)| !expected.contains_key(*key)));
        let Some((key, _)) = differs else { return Ok(()) };
        let last = self.calls.last().map_or("", String::as_str);
        Err(self.told(format!(
            "after the {last} everything survives {by}, but key {key:?} has {}, not {}",
            length(found.get(key)),
            length(expected.get(key))
        )))
    }

    /// Keys and values of the changes that are not durable, bytes.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.pending.iter().map(|change| change.bytes).sum()
    }

    /// The age of the oldest change that is not durable.
    pub(crate) fn oldest_age(&self) -> Duration {
        self.pending.first().map_or(Duration::ZERO, |change| self.now.saturating_sub(change.since))
    }

    /// The strongest answer during the last call.
    pub(crate) fn answered(&self) -> Action {
        self.answered
    }

    /// Checks the questions during the call that just ended, and that the engine obeyed the
    /// answers.
    fn check(&mut self, what: &str, did: Did) -> CaseResult {
        self.calls.push(what.to_owned());
        let (before, durable) = (self.durable, self.engine.durable_lsn());
        let had_pending = !self.pending.is_empty();
        if let Did::Change(lsn, bytes) = did {
            self.pending.push(Visible { lsn, bytes, since: self.now });
        }
        let questions = self.recorder.take();
        self.answered = questions.iter().map(|asked| asked.answer.action).max().unwrap_or(Action::Hold);
        let is_moved = durable != before;
        self.check_questions(&questions, durable, is_moved)?;
        if let Did::Change(lsn, _) = did {
            if questions.is_empty() && durable < lsn {
                return Err(self
                    .told(format!("the engine asks the policy after a change, but not after this {what}")));
            }
            if self.answered == Action::WriteAndSync && durable < lsn {
                return Err(self.told(format!(
                    "the policy answered the {what} with WriteAndSync, but its LSN {lsn} is not durable when the call returns: durable_lsn is {durable}"
                )));
            }
        }
        let mutations = self.disk.mutations();
        if self.answered != Action::Hold || did == Did::Sync && had_pending {
            self.forget_dumps();
        } else if mutations != self.mutations || did == Did::Sync {
            self.may_have_dumped = self.now;
        }
        self.pending.retain(|change| change.lsn > durable);
        (self.durable, self.mutations) = (durable, mutations);
        Ok(())
    }

    fn check_questions(&self, questions: &[Question], durable: Lsn, is_moved: bool) -> CaseResult {
        let Some((asked, earlier)) = questions.split_last() else { return Ok(()) };
        for one in earlier {
            self.check_records(&one.pending, 1)?;
        }
        // The engine may have made some changes durable before it asked.
        let is_exact = !is_moved || asked.mutations == self.mutations;
        let durable_count =
            if is_exact { 0 } else { self.pending.iter().filter(|one| one.lsn <= durable).count() };
        let (_, least) = self.pending.split_at(durable_count.min(self.pending.len()));
        self.check_records(&asked.pending, (least.len() as u64).max(1))?;
        self.check_bytes(&asked.pending, least)?;
        self.check_age(&asked.pending, least)?;
        self.check_dump(asked)
    }

    /// Checks that the policy is told of at least so many changes, and of no more than there are.
    fn check_records(&self, told: &Pending, least: u64) -> CaseResult {
        let most = self.pending.len() as u64;
        if told.records == 0 || most == 0 {
            return Err(self.told(format!(
                "the engine does not ask while nothing is pending, but it asks with {} records, and {most} changes are pending",
                told.records
            )));
        }
        let records = told.records;
        if (least..=most).contains(&records) {
            return Ok(());
        }
        Err(self.told(format!(
            "Pending::records counts the changes that are not durable, a batch as one: {most}, but the policy is told of {records}"
        )))
    }

    fn check_bytes(&self, told: &Pending, least: &[Visible]) -> CaseResult {
        let sum = |changes: &[Visible]| changes.iter().map(|change| change.bytes).sum::<u64>();
        let (least, most) = (sum(least), sum(&self.pending) + OVERHEAD * self.pending.len() as u64);
        if told.bytes < least {
            return Err(self.told(format!(
                "Pending::bytes counts at least the keys and values of the pending changes, {least} B, but the policy is told of {} B",
                told.bytes
            )));
        }
        if told.bytes > most {
            return Err(self.told(format!(
                "Pending::bytes counts pending changes only: {} of them, with keys and values of {} B, but the policy is told of {} B",
                self.pending.len(),
                sum(&self.pending),
                told.bytes
            )));
        }
        Ok(())
    }

    fn check_age(&self, told: &Pending, least: &[Visible]) -> CaseResult {
        let age = |change: Option<&Visible>| {
            change.map_or(Duration::ZERO, |change| self.now.saturating_sub(change.since))
        };
        let (youngest, oldest) = (age(least.first().or(self.pending.last())), age(self.pending.first()));
        if (youngest..=oldest).contains(&told.oldest_age) {
            return Ok(());
        }
        Err(self.told(format!(
            "Pending::oldest_age is the time since the oldest pending change, {oldest:?}, but the policy is told {:?}",
            told.oldest_age
        )))
    }

    fn check_dump(&self, asked: &Question) -> CaseResult {
        let latest = if asked.mutations == self.mutations { self.may_have_dumped } else { self.now };
        let (least, most) = (self.now.saturating_sub(latest), self.now.saturating_sub(self.dumped));
        let told = asked.pending.since_last_dump;
        if (least..=most).contains(&told) {
            return Ok(());
        }
        Err(self.told(format!(
            "Pending::since_last_dump is the time since the last dump or the open, {most:?}, but the policy is told {told:?}"
        )))
    }

    fn told(&self, violated: String) -> Failure {
        let last = self.calls.len().saturating_sub(12);
        let calls = self.calls.get(last..).unwrap_or_default().join("\n");
        Failure::new(violated).with("last calls", calls)
    }
}

fn length(value: Option<&Vec<u8>>) -> String {
    value.map_or("no value".to_owned(), |value| format!("a value of {} B", value.len()))
}
