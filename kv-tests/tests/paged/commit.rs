//! A change's way: log order, visibility, the policy's question, the dump.
//!
//! Locks, in this order: the leadership, the files, the commit lock, the view.

use super::defect::{Broken, Defect};
use super::generation::{Counters, Files};
use super::scratch::Scratch;
use super::snapshot;
use super::tail::Tail;
use super::tree::Tree;
use super::wal::{self, RECORD_HEAD};
use kv_core::parts::{Health, Leadership, Pacing, Position, Progress};
use kv_core::{
    Acknowledge, Action, Background, Batch, Change, Decision, Env, Lsn, OpenOptions, Pending, RecoveryReport,
    Result, Value,
};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// The visible state.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) tree: Arc<Tree>,
    pub(crate) last_lsn: u64,
    pub(crate) keys: u64,
    pub(crate) live_bytes: u64,
}

impl View {
    pub(crate) fn snapshot_len(&self) -> u64 {
        snapshot::len(self.keys, self.live_bytes)
    }

    pub(crate) fn change(&mut self, change: &Change, broken: Broken) {
        let tree = Arc::make_mut(&mut self.tree);
        let key = change.key();
        let (added, old) = match change {
            Change::Put { value, .. } => {
                (value.len() + key.len(), tree.insert(key, Value::from(value.as_slice())))
            }
            Change::Delete { .. } => (0, tree.remove(key)),
        };
        let is_put = matches!(change, Change::Put { .. });
        let was_present = old.is_some() && !(is_put && broken.is(Defect::KeysCountPuts));
        self.keys = (self.keys + u64::from(is_put)).saturating_sub(u64::from(was_present));
        let removed = old.map_or(0, |old| old.len() + key.len());
        let removed = if is_put && broken.is(Defect::LiveBytesKeepOverwritten) { 0 } else { removed };
        self.live_bytes = (self.live_bytes + added as u64).saturating_sub(removed as u64);
    }
}

/// The end of the log order. Its lock is held while a change takes its LSN and becomes visible.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) next_lsn: u64,
    /// Records that no file has.
    pub(crate) buffer: Vec<u8>,
    pub(crate) position: Position,
    /// The tail, and the number of the opening. None: changes are handed over one by one.
    pub(crate) tail: Option<(Tail, u64)>,
}

impl Commit {
    /// Keeps the record that begins at `start` of the buffer in the tail. Returns whether it fits.
    fn keep_in_tail(&mut self, lsn: u64, start: usize) -> bool {
        let payload = self.buffer.get(start + RECORD_HEAD..).unwrap_or_default();
        self.tail.as_mut().is_some_and(|(tail, opening)| tail.push(*opening, lsn, payload))
    }
}

/// The parts of an open store.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) broken: Broken,
    /// Whether the operating system has each change before its call returns.
    pub(crate) is_process_safe: bool,
    pub(crate) scratch: Scratch,
    pub(crate) env: Env,
    pub(crate) options: OpenOptions,
    pub(crate) path: PathBuf,
    /// Length of the longest key that can be present, bytes.
    pub(crate) key_len_max: usize,
    pub(crate) recovery: RecoveryReport,
    pub(crate) health: Health,
    pub(crate) pacing: Pacing,
    pub(crate) progress: Progress,
    pub(crate) leadership: Leadership,
    pub(crate) counters: Arc<Counters>,
    view: RwLock<View>,
    commit: Mutex<Commit>,
    /// For the leader; none in a closed store.
    files: Mutex<Option<Files>>,
}

/// The state that recovery found, and its files.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) view: View,
    pub(crate) next_lsn: u64,
    pub(crate) durable_lsn: u64,
    pub(crate) key_len_max: usize,
    pub(crate) recovery: RecoveryReport,
    pub(crate) files: Files,
    pub(crate) tail: Option<(Tail, u64)>,
}

impl Store {
    pub(crate) fn new(opened: Opened, env: &Env, options: &OpenOptions, broken: Broken) -> Self {
        let Opened { view, next_lsn, durable_lsn, key_len_max, recovery, files, tail } = opened;
        let position = Position { lsn: Lsn::new(view.last_lsn), changes: 0, bytes: 0 };
        Store {
            broken,
            is_process_safe: false,
            scratch: Scratch::new(view.last_lsn),
            env: env.clone(),
            options: options.clone(),
            path: files.dir().path().to_path_buf(),
            key_len_max,
            recovery,
            health: if options.read_only { Health::read_only() } else { Health::default() },
            pacing: Pacing::default(),
            progress: Progress::new(Lsn::new(durable_lsn), env.clock.monotonic()),
            leadership: Leadership::default(),
            counters: files.counters(),
            view: RwLock::new(view),
            commit: Mutex::new(Commit { next_lsn, buffer: Vec::new(), position, tail }),
            files: Mutex::new(Some(files)),
        }
    }

    pub(crate) fn view(&self) -> std::sync::RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn view_mut(&self) -> std::sync::RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn commit(&self) -> MutexGuard<'_, Commit> {
        self.commit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn files(&self) -> MutexGuard<'_, Option<Files>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_thread(&self) -> bool {
        self.env.background == Background::Threads && !self.options.read_only
    }

    pub(crate) fn position(&self) -> Position {
        self.commit().position
    }

    /// Makes the effective changes of a batch visible, under one LSN if they change anything.
    pub(crate) fn change(&self, changes: &[&Change], is_batch: bool) -> Result<Option<Lsn>> {
        let is_in_tail;
        let lsn = {
            let mut commit = self.commit();
            // The store may have been closed or poisoned while this call waited for the lock.
            self.health.check_writable()?;
            let Some(changing) = self.changing(changes, is_batch) else { return Ok(None) };
            let lsn = commit.next_lsn;
            commit.next_lsn += 1;
            let buffered = commit.buffer.len();
            wal::push_record(&mut commit.buffer, lsn, &changing, self.broken);
            let bytes = commit.buffer.len() - buffered;
            let is_ignored = commit.tail.is_none() && self.broken.is(Defect::MissingTailIgnored);
            is_in_tail = commit.keep_in_tail(lsn, buffered) || is_ignored;
            self.show(lsn, &changing);
            self.count(&mut commit, lsn, &changing, bytes as u64);
            self.progress.changed(&*self.env.clock);
            lsn
        };
        self.after_change(Lsn::new(lsn), changes, is_batch, is_in_tail)?;
        Ok(Some(Lsn::new(lsn)))
    }

    /// Those of `changes` that change anything. The caller holds the commit lock.
    fn changing<'a>(&self, changes: &[&'a Change], is_batch: bool) -> Option<Vec<&'a Change>> {
        let view = self.view();
        let broken = self.broken;
        let is_changing = |change: &&&Change| match change {
            Change::Put { key, value } => {
                let is_same = || view.tree.get(key).is_some_and(|old| *old == *value);
                !(broken.is(Defect::SameValueTakesNoLsn) && is_same())
            }
            Change::Delete { key } => view.tree.get(key).is_some(),
        };
        let changing: Vec<&Change> = changes.iter().filter(is_changing).copied().collect();
        let takes_lsn = broken.is(Defect::IdleBatchTakesLsn) && is_batch && !changes.is_empty();
        (!changing.is_empty() || takes_lsn).then_some(changing)
    }

    /// Makes changes visible at once. The caller holds the commit lock.
    fn show(&self, lsn: u64, changes: &[&Change]) {
        let broken = self.broken;
        if broken.is(Defect::LastLsnBeforeVisible) {
            self.scratch.publish(lsn);
        }
        let mut view = self.view_mut();
        let mut leaf = None;
        for change in changes {
            if broken.is(Defect::BatchVisibleByLeaf) {
                let number = view.tree.leaf_of(change.key());
                if leaf.replace(number).is_some_and(|before| before != number) {
                    drop(view);
                    std::thread::yield_now();
                    view = self.view_mut();
                }
            }
            if view.tree.would_split(change.key()) {
                let _held = broken.is(Defect::ScanHoldsSplitLock).then(|| self.scratch.split());
                if broken.is(Defect::SplitHidesKeys) {
                    view = self.show_split(view, change);
                    continue;
                }
            }
            view.change(change, broken);
        }
        view.last_lsn = lsn;
        drop(view);
        if broken.is(Defect::LastLsnAfterVisible) {
            std::thread::yield_now();
            self.scratch.publish(lsn);
        }
    }

    /// A defect: readers see a leaf without its upper half while it splits.
    fn show_split<'a>(
        &'a self,
        mut view: std::sync::RwLockWriteGuard<'a, View>,
        change: &Change,
    ) -> std::sync::RwLockWriteGuard<'a, View> {
        let whole = Arc::clone(&view.tree);
        let number = whole.leaf_of(change.key());
        if let Some(leaf) = Arc::make_mut(&mut view.tree).leaves.get_mut(number) {
            let half = leaf.len() / 2;
            Arc::make_mut(leaf).truncate(half);
        }
        drop(view);
        std::thread::yield_now();
        let mut view = self.view_mut();
        view.tree = whole;
        view.change(change, self.broken);
        view
    }

    fn count(&self, commit: &mut Commit, lsn: u64, changes: &[&Change], bytes: u64) {
        let broken = self.broken;
        let is_delete = changes.iter().all(|change| matches!(change, Change::Delete { .. }));
        let mut records = 1;
        if broken.is(Defect::BatchEntriesArePending) {
            records = changes.len() as u64;
        }
        if is_delete && broken.is(Defect::DeletesNotPending) {
            records = 0;
        }
        let keys: usize = changes.iter().map(|change| change.key().len()).sum();
        let bytes = if broken.is(Defect::KeysNotPending) {
            bytes.saturating_sub(keys as u64 + 32 * changes.len() as u64)
        } else {
            bytes
        };
        commit.position.lsn = Lsn::new(lsn);
        commit.position.changes += records;
        commit.position.bytes += bytes;
    }

    /// Asks the policy, with no lock held, and does what it says.
    fn after_change(&self, lsn: Lsn, changes: &[&Change], is_batch: bool, is_in_tail: bool) -> Result<()> {
        let broken = self.broken;
        let is_delete = matches!(changes, [Change::Delete { .. }]);
        let is_skipped = (is_batch && broken.is(Defect::NotAskedAfterBatch))
            || (is_delete && broken.is(Defect::NotAskedAfterDelete));
        let when_durable = self.options.persistence.acknowledge() == Acknowledge::WhenDurable;
        let is_handed_over = match broken {
            broken if broken.is(Defect::ClaimsProcessSafety) => false,
            broken if broken.is(Defect::BatchesNotProcessSafe) => !is_batch,
            broken if broken.is(Defect::DeletesNotProcessSafe) => !is_delete,
            _ => self.is_process_safe && !is_in_tail,
        };
        if is_handed_over {
            self.hand_over(lsn)?;
        }
        if is_skipped && !when_durable {
            return Ok(());
        }
        let now = self.env.clock.monotonic();
        let decision = self.decide_after_change(now);
        if when_durable && !(broken.is(Defect::HoldAcknowledgesEarly) && decision.action == Action::Hold) {
            return self.make_durable(lsn);
        }
        match (self.env.background, decision.action) {
            (Background::Threads, _) => {
                self.pacing.after_change(now, self.passed_on(decision));
                Ok(())
            }
            (Background::Inline, Action::Hold) => Ok(()),
            (Background::Inline, Action::Write) => self.dump(Action::Write),
            (Background::Inline, Action::WriteAndSync) => self.make_durable(lsn),
        }
    }

    fn decide_after_change(&self, now: Duration) -> Decision {
        let hold = Decision::now(Action::Hold);
        if self.broken.is(Defect::InlineAskAgainIsBinding) && self.scratch.is_before_ask(now) {
            return hold;
        }
        let decision = Store::decide(self, now);
        self.scratch.ask_at(decision.ask_again_in.map(|pause| now + pause));
        if decision.action == Action::WriteAndSync && self.broken.is(Defect::DumpsOneChangeLate) {
            let is_first = self.progress.pending(self.position(), now).records < 2;
            return if is_first { hold } else { decision };
        }
        decision
    }

    /// The answer as the thread gets to know it.
    fn passed_on(&self, decision: Decision) -> Decision {
        let is_first = self.progress.pending(self.position(), Duration::ZERO).records < 2;
        let is_ignored = self.broken.is(Defect::SoonerAskIgnored) && !is_first;
        if is_ignored && decision.action == Action::Hold { Decision::now(Action::Hold) } else { decision }
    }

    /// The policy's answer for all visible changes.
    pub(crate) fn decide(&self, now: Duration) -> Decision {
        let pending = self.pending(now);
        if pending.records == 0 && !self.broken.is(Defect::AsksWhenIdle) {
            return Decision::now(Action::Hold);
        }
        let mut decision = self.options.persistence.decide(&pending);
        if self.broken.is(Defect::WriteIsHold) && decision.action == Action::Write {
            decision.action = Action::Hold;
        }
        if self.broken.is(Defect::DueTimeIgnored) {
            decision.ask_again_in = None;
        }
        decision
    }

    fn pending(&self, now: Duration) -> Pending {
        let broken = self.broken;
        let end = self.position();
        let mut pending = self.progress.pending(end, now);
        if broken.is(Defect::LastChangeNotPending) {
            pending.records = pending.records.saturating_sub(1);
        }
        if broken.is(Defect::WrittenIsNotPending) && self.progress.unflushed_bytes(end) == 0 {
            pending = Pending { since_last_dump: pending.since_last_dump, ..Pending::default() };
        }
        if broken.is(Defect::WrittenBytesNotPending) {
            pending.bytes = self.progress.unflushed_bytes(end);
        }
        if broken.is(Defect::AgeOfNewestPending) {
            pending.oldest_age = Duration::ZERO;
        }
        if broken.is(Defect::AgeSinceLastDump) {
            pending.oldest_age = pending.since_last_dump;
        }
        if broken.is(Defect::DumpTimeIsOpenTime) {
            pending.since_last_dump = now.saturating_sub(self.scratch.opened_at(now));
        }
        pending
    }

    /// Applies a batch's changes after the checks of its sizes.
    pub(crate) fn check_batch(&self, batch: &Batch) -> Result<()> {
        let present = if self.broken.is(Defect::BatchRefusesLongPresentKeys) { 0 } else { self.key_len_max };
        self.options.limits.check_batch_with(batch, present)
    }

    pub(crate) fn make_all_durable(&self) -> Result<()> {
        let last = self.view().last_lsn;
        self.make_durable(Lsn::new(last))
    }
}
