//! The engine. Lock order: the ticker's handle, then the state; all I/O is done under the state's lock.

use super::log::{self, Content, Map};
use super::{Defect, open};
use kv_core::{
    Acknowledge, Action, Background, Batch, Change, Checkpoint, Compact, Dir, DirExt, Engine, Env, Error,
    File, FileExt, Health, Lsn, OpenOptions, Pending, PointInTime, Reserve, Result, ScanVisitor, Stats,
    StoreLock, Value, Wakers,
};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Where a store lies.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: Arc<dyn Dir>,
    pub(super) env: Env,
    pub(super) defect: Option<Defect>,
    /// Until close.
    pub(super) lock: StoreLock,
    /// As long as the file would be, were it replaced now. A reader has none.
    pub(super) reserve: Option<Reserve>,
}

/// The reference engine. See [the module](crate::reference).
#[derive(Debug)]
pub struct Reference {
    shared: Arc<Shared>,
    ticker: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    place: Place,
    options: OpenOptions,
    /// Bytes of the longest key that was there at open, if that is beyond the limit.
    present_key_len_max: usize,
    health: Health,
    state: Mutex<State>,
    /// The map as it once was; only a defect looks at it.
    copy: Mutex<Map>,
    /// Something changed that the ticker should look at.
    changed: Condvar,
    /// The tasks that wait for a sync.
    tasks: Wakers,
}

#[derive(Debug)]
struct State {
    content: Content,
    /// The map as of open; only a defect looks at it.
    opened: Map,
    next: u64,
    durable: u64,
    /// The highest LSN that a task waits for.
    wanted: u64,
    file: Box<dyn File>,
    /// Bytes in the file.
    len: u64,
    /// Records that are not in the file yet.
    unwritten: Vec<u8>,
    pending: Pending,
    oldest: Duration,
    dumped: Duration,
    changes: u64,
    /// Bytes that the file would have, were it replaced, as of the last dump.
    dumped_len: u64,
    /// Files that could not be removed; only a defect has any.
    leftovers: Vec<String>,
    /// The answer of the first `close`.
    closed: Option<Result<()>>,
}

/// A file is compacted when it is longer than this, bytes, and twice as long as what it holds.
const TINY_FILE_LEN: u64 = 2048;
const FILE_LEN: u64 = 16 << 20;

impl Reference {
    pub(super) fn new(
        place: Place,
        options: OpenOptions,
        content: Content,
        file: Box<dyn File>,
        len: u64,
    ) -> Self {
        let mut content = content;
        if place.has(Defect::CountsReservedLsns) && !content.clean {
            content.last = (content.epoch << 32) - 1;
        }
        let now = place.env.clock.monotonic();
        // A reader cannot sync the rest.
        let knows_less = options.read_only && !place.has(Defect::ReaderCallsAllDurable);
        let durable = if knows_less { content.durable } else { content.last };
        let takes_changes = !options.read_only || place.has(Defect::ReadOnlyTakesChanges);
        let health = if takes_changes { Health::default() } else { Health::read_only() };
        let reuses = place.has(Defect::LsnReuse);
        let longest = content.map.keys().map(Vec::len).max().filter(|_| !place.has(Defect::RefusesLongKeys));
        let limit = options.limits.key_len_max;
        let present_key_len_max = longest.filter(|longest| *longest > limit).unwrap_or_default();
        let state = State {
            next: if reuses { content.last + 1 } else { content.epoch << 32 },
            durable,
            wanted: 0,
            opened: content.map.clone(),
            content,
            file,
            len,
            unwritten: Vec::new(),
            pending: Pending::default(),
            oldest: now,
            dumped: now,
            changes: 0,
            dumped_len: len,
            leftovers: Vec::new(),
            closed: None,
        };
        let copy = Mutex::new(state.content.map.clone());
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared {
            place,
            options,
            present_key_len_max,
            health,
            state,
            copy,
            changed,
            tasks: Wakers::default(),
        });
        Reference { shared, ticker: Mutex::new(None) }
    }

    /// A thread that dumps when the policy's time has come, though nobody calls.
    pub(super) fn start_ticker(&self) {
        let shared = Arc::clone(&self.shared);
        *self.ticker.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(thread::spawn(move || shared.tick()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, defect: Defect) -> bool {
        self.place.has(defect)
    }

    fn tick(&self) {
        let mut state = self.state();
        loop {
            // A failure poisons: the next caller hears of it.
            if state.wanted > state.durable && state.closed.is_none() && !self.health.is_poisoned() {
                let _ = self.dump(&mut state, Action::WriteAndSync);
            }
            state = self.wake_tasks(state);
            // From here to the wait the lock is held: a notification that comes after these looks ends the wait.
            if state.closed.is_some() || self.health.is_poisoned() {
                break;
            }
            if state.wanted > state.durable {
                continue;
            }
            let again = self.obey_policy(&mut state).unwrap_or(None);
            let wake = |error: PoisonError<_>| error.into_inner();
            state = match again {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(after) => self.changed.wait_timeout(state, after).unwrap_or_else(wake).0,
            };
        }
    }

    /// Wakes the tasks that have their answer, without the lock.
    fn wake_tasks<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let durable = Lsn::new(state.durable);
        drop(state);
        if self.health.is_poisoned() {
            if !self.has(Defect::FuturesNotToldOfFailure) {
                self.tasks.wake_all();
            }
        } else {
            self.tasks.wake_up_to(durable);
        }
        self.state()
    }

    /// Asks the policy, dumps if it says so, and returns when it wants to be asked again.
    fn obey_policy(&self, state: &mut State) -> Result<Option<Duration>> {
        if state.pending.records == 0 || self.has(Defect::PolicyIgnored) {
            return Ok(None);
        }
        let now = self.place.env.clock.monotonic();
        state.pending.oldest_age = now.saturating_sub(state.oldest);
        state.pending.since_last_dump = now.saturating_sub(state.dumped);
        let decision = self.options.persistence.decide(&state.pending);
        if decision.action != Action::Hold {
            self.dump(state, decision.action)?;
        }
        Ok(decision.ask_again_in)
    }

    /// With this defect, lets others have the lock for a moment.
    fn let_go<'a>(&'a self, state: MutexGuard<'a, State>, defect: Defect) -> MutexGuard<'a, State> {
        if !self.has(defect) {
            return state;
        }
        drop(state);
        thread::yield_now();
        self.state()
    }

    /// Applies changes under one LSN; `None` if they change nothing.
    fn change(&self, changes: &[&Change]) -> Result<Option<Lsn>> {
        let mut state = self.state();
        self.check_writable()?;
        self.remove_leftovers(&mut state);
        let present = |change: &&&Change| {
            matches!(change, Change::Put { .. })
                || state.content.map.contains_key(change.key())
                || self.has(Defect::IdleDeleteTakesLsn)
        };
        let changes: Vec<&Change> = changes.iter().filter(present).copied().collect();
        if changes.is_empty() {
            return Ok(None);
        }
        state = self.let_go(state, Defect::CheckThenAct);
        let lsn = state.next;
        state.next += 1;
        state = self.let_go(state, Defect::LsnDrawnEarly);
        let takes_back = self.has(Defect::TakesBack) || self.has(Defect::FullDiskTakesLsn);
        let before = takes_back.then(|| (state.content.map.clone(), state.unwritten.clone()));
        self.log(&mut state, lsn, &changes);
        let torn = self.has(Defect::TornValue) && changes.len() == 1;
        for change in changes {
            if torn {
                state = self.apply_in_halves(state, change);
            }
            log::apply(&mut state.content.map, change);
            state = self.let_go(state, Defect::BatchKeyByKey);
        }
        state.content.last = state.content.last.max(lsn);
        state.changes += 1;
        state = self.let_go(state, Defect::TakesBack);
        let acknowledged = self.acknowledge(&mut state);
        if acknowledged.is_err()
            && let Some(before) = before
        {
            (state.content.map, state.unwritten) = before;
        }
        match acknowledged {
            Err(_) if self.has(Defect::FailureToldLate) => Ok(Some(Lsn::new(lsn))),
            acknowledged => acknowledged.map(|()| Some(Lsn::new(lsn))),
        }
    }

    /// Lets readers in when half of a value is there.
    fn apply_in_halves<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        change: &Change,
    ) -> MutexGuard<'a, State> {
        if let Change::Put { key, value } = change {
            let half = value.iter().take(value.len() / 2).copied().collect();
            state.content.map.insert(key.clone(), half);
        }
        drop(state);
        thread::yield_now();
        self.state()
    }

    /// Adds the records of a change to what is to be written.
    fn log(&self, state: &mut State, lsn: u64, changes: &[&Change]) {
        let (epoch, durable) = (state.content.epoch, state.durable);
        let before = state.unwritten.len();
        if self.has(Defect::SplitBatch) {
            for change in changes {
                state.unwritten.extend(log::record(epoch, lsn, durable, [*change]));
            }
        } else if self.has(Defect::DeleteNotLogged) {
            let puts = changes.iter().copied().filter(|change| matches!(change, Change::Put { .. }));
            state.unwritten.extend(log::record(epoch, lsn, durable, puts));
        } else {
            state.unwritten.extend(log::record(epoch, lsn, durable, changes.iter().copied()));
        }
        if state.pending.records == 0 {
            state.oldest = self.place.env.clock.monotonic();
        }
        state.pending.records += 1;
        state.pending.bytes += (state.unwritten.len() - before) as u64;
    }

    /// Returns when the caller may: at once, or when the change is durable.
    fn acknowledge(&self, state: &mut State) -> Result<()> {
        let must_wait = self.options.persistence.acknowledge() == Acknowledge::WhenDurable;
        if must_wait && self.has(Defect::AcknowledgeBeforeDump) {
            return Ok(());
        }
        if must_wait {
            return self.dump(state, Action::WriteAndSync);
        }
        if !self.has(Defect::LostWakeUp) {
            self.changed.notify_one();
        }
        self.obey_policy(state).map(drop)
    }

    /// Writes what is unwritten and, if asked, syncs. A failure poisons.
    fn dump(&self, state: &mut State, action: Action) -> Result<()> {
        let goes_on = |error: &Error| match error {
            Error::DiskFull { .. } => self.has(Defect::FullDiskIgnored) || self.has(Defect::FullDiskTakesLsn),
            Error::Io { source, .. } => self.has(Defect::FewDescriptorsIgnored) && is_few_descriptors(source),
            _ => false,
        };
        match self.try_dump(state, action) {
            Err(Error::DiskFull { op, path, source })
                if self.has(Defect::FileTooLargeIsIo) && source.kind() == ErrorKind::FileTooLarge =>
            {
                Err(self.health.poison(Error::Io { op, path, source }))
            }
            Err(error) if goes_on(&error) || self.has(Defect::Retries) => Err(error),
            result => result.map_err(|error| self.health.poison(error)),
        }
    }

    /// Dumps what is left, so that the file says where it ends.
    fn dump_for_good(&self, state: &mut State) -> Result<()> {
        if state.pending.records > 0 {
            self.dump(state, Action::WriteAndSync)?;
        }
        self.compact(state).map_err(|error| self.health.poison(error))
    }

    fn try_dump(&self, state: &mut State, action: Action) -> Result<()> {
        let path = self.place.dir.path_of(open::FILE);
        if self.has(Defect::DurableBeforeWrite) {
            state.durable = state.content.last;
        }
        if !state.unwritten.is_empty() {
            // First the reserve: on a disk that fills up, the records are refused and not the way out.
            let whole = log::file_len(&state.content.map);
            self.place.hold_reserve(whole);
            match self.write(state).map_err(|error| Error::io("write", &path, error)) {
                // Nothing was added to the store: a new file fits into the reserve.
                Err(Error::DiskFull { .. }) if self.place.reserve.is_some() && whole <= state.dumped_len => {
                    return self.compact(state);
                }
                written => written?,
            }
            state.dumped_len = whole;
            state.len += state.unwritten.len() as u64;
            state.unwritten.clear();
        }
        state.dumped = self.place.env.clock.monotonic();
        if action != Action::WriteAndSync {
            return Ok(());
        }
        if !self.has(Defect::NoFileSync) {
            let synced = state.file.sync_data().map_err(|error| Error::sync(&path, error));
            if !self.has(Defect::SwallowsSyncError) {
                synced?;
            }
        }
        // A directory that is gone keeps nothing.
        self.place.check_lock()?;
        state.durable = state.content.last;
        state.pending = Pending::default();
        self.compact_if_worth_it(state)
    }

    fn write(&self, state: &State) -> io::Result<()> {
        if self.has(Defect::ShortWriteIgnored) {
            return state.file.write_at(&state.unwritten, state.len).map(drop);
        }
        match state.file.write_all_at(&state.unwritten, state.len) {
            Err(error) if self.has(Defect::TrustsAllocation) && error.kind() == ErrorKind::StorageFull => {
                Ok(())
            }
            written => written,
        }
    }

    fn compact_if_worth_it(&self, state: &mut State) -> Result<()> {
        let longest = match self.options.scale {
            kv_core::Scale::Tiny => TINY_FILE_LEN,
            kv_core::Scale::Normal => FILE_LEN,
        };
        if state.len <= longest || state.len <= 2 * live_bytes(&state.content.map) {
            return Ok(());
        }
        self.compact(state)
    }

    /// Replaces the file by one with a single record.
    fn compact(&self, state: &mut State) -> Result<()> {
        let whole = std::mem::take(&mut state.content.map);
        if self.has(Defect::CompactionLosesKey) {
            state.content.map = whole.clone();
            state.content.map.pop_last();
        } else if self.has(Defect::CompactionResurrects) {
            state.content.map = state.opened.clone();
            state.content.map.extend(whole.clone());
        } else if self.has(Defect::CompactionReverts) {
            let was = |key: &Vec<u8>| state.opened.get(key).cloned();
            state.content.map = whole
                .iter()
                .map(|(key, now)| (key.clone(), was(key).unwrap_or_else(|| now.clone())))
                .collect();
        } else {
            state.content.map.clone_from(&whole);
        }
        state.content.durable = state.durable;
        let replaced = self.place.replace(&state.content);
        state.content.map = whole;
        (state.file, state.len) = replaced?;
        (state.dumped_len, state.durable) = (state.len, state.content.last);
        state.unwritten.clear();
        state.pending = Pending::default();
        if self.has(Defect::UnlinksAgain) {
            state.leftovers.push(format!("old.{}", state.leftovers.len()));
        }
        Ok(())
    }

    fn remove_leftovers(&self, state: &mut State) {
        let is_refused = |error: io::Error| error.kind() == ErrorKind::PermissionDenied;
        state.leftovers.retain(|name| self.place.dir.remove_file(name).is_err_and(is_refused));
    }

    /// What [`Defect::StaleWhenBusy`] reads.
    fn get_stale(&self, key: &[u8]) -> Option<Value> {
        let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(state) = self.state.try_lock() {
            copy.clone_from(&state.content.map);
        }
        copy.get(key).map(|value| Value::from(value.as_slice()))
    }

    fn check_key(&self, key: &[u8]) -> Result<()> {
        let mut limits = self.options.limits;
        limits.key_len_max += usize::from(self.has(Defect::KeyLimitOffByOne));
        limits.check_key(key)
    }

    /// A key that is there may be longer than the limits: they were higher once.
    fn check_present_key(&self, key: &[u8]) -> Result<()> {
        if key.len() <= self.present_key_len_max { Ok(()) } else { self.check_key(key) }
    }

    fn check_writable(&self) -> Result<()> {
        if self.has(Defect::PoisonIgnored) {
            self.health.check_readable()
        } else {
            self.health.check_writable()
        }
    }

    fn check_readable(&self) -> Result<()> {
        if self.has(Defect::ReadsAfterClose) { Ok(()) } else { self.health.check_readable() }
    }
}

fn is_few_descriptors(error: &io::Error) -> bool {
    const EMFILE: i32 = 24;
    error.raw_os_error() == Some(EMFILE)
}

/// What a user would say a map weighs.
fn live_bytes(map: &Map) -> u64 {
    map.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
}

impl Engine for Reference {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        self.shared.check_key(key)?;
        self.shared.options.limits.check_value(value)?;
        let change = Change::Put { key: key.to_vec(), value: value.to_vec() };
        Ok(self.shared.change(&[&change])?.unwrap_or_default())
    }

    fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        self.shared.check_present_key(key)?;
        self.shared.change(&[&Change::Delete { key: key.to_vec() }])
    }

    fn apply(&self, batch: &Batch) -> Result<Lsn> {
        let checked = self.shared.options.limits.check_batch_with(batch, self.shared.present_key_len_max);
        if self.shared.has(Defect::PartialBatch) && checked.is_err() {
            let first: Vec<&Change> = batch.changes().iter().take(1).collect();
            self.shared.change(&first)?;
        }
        checked?;
        if self.shared.has(Defect::FirstOfBatchWins) {
            let reversed: Batch = batch.changes().iter().rev().cloned().collect();
            let first: Vec<Change> = reversed.effective_changes().into_iter().cloned().collect();
            return Ok(self
                .shared
                .change(&first.iter().collect::<Vec<_>>())?
                .unwrap_or_else(|| self.last_lsn()));
        }
        Ok(self.shared.change(&batch.effective_changes())?.unwrap_or_else(|| self.last_lsn()))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.shared.check_readable()?;
        self.shared.check_present_key(key)?;
        if self.shared.has(Defect::StaleWhenBusy) {
            return Ok(self.shared.get_stale(key));
        }
        Ok(self.state().content.map.get(key).map(|value| Value::from(value.as_slice())))
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        // A copy, so that the callback may call the engine.
        let value = self.get(key)?;
        if let Some(value) = &value {
            visit(value);
        }
        Ok(value.is_some())
    }

    fn read_many(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        keys.iter().try_for_each(|key| self.shared.check_present_key(key))?;
        for (position, key) in keys.iter().enumerate() {
            let value = self.get(key)?;
            // A loop that forgets what the last key left behind.
            let stale = self.shared.has(Defect::ReadManyKeepsLast) && value.is_none() && position > 0;
            let before = if stale { keys.get(position - 1) } else { None };
            let before = before.map(|key| self.get(key)).transpose()?.flatten();
            visit(position, value.or(before).as_deref());
        }
        Ok(())
    }

    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.shared.check_readable()?;
        let mut map = self.state().content.map.clone();
        if self.shared.has(Defect::ScanSkips) {
            map.pop_last();
        }
        for (key, value) in &map {
            if visit(key, value).is_break() && !self.shared.has(Defect::ScanDoesNotBreak) {
                break;
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<Lsn> {
        let mut state = self.state();
        self.shared.health.check_writable()?;
        if state.pending.records > 0 {
            self.shared.dump(&mut state, Action::WriteAndSync)?;
        }
        Ok(Lsn::new(state.durable))
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.shared.health.check_readable()?;
        if lsn > self.last_lsn() {
            return Err(Error::InvalidArgument(format!("LSN {lsn} was not given out yet")));
        }
        let lazy = self.shared.has(Defect::WaitsForOthers) && self.state().pending.records < 2;
        if lsn > self.durable_lsn() && !lazy { self.sync().map(drop) } else { Ok(()) }
    }

    fn poll_durable(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let shared = &*self.shared;
        shared.health.check_readable()?;
        if shared.place.env.background == Background::Inline || lsn > self.last_lsn() {
            return Poll::Ready(self.wait_durable(lsn));
        }
        let check = || {
            if self.durable_lsn() >= lsn || shared.has(Defect::FutureDoesNotWait) {
                return Some(Ok(()));
            }
            shared.health.check_writable().err().map(Err)
        };
        let answer = if shared.has(Defect::WakerForgotten) {
            check().map_or(Poll::Pending, Poll::Ready)
        } else {
            shared.tasks.poll(lsn, cx, check)
        };
        if answer.is_pending() && !shared.has(Defect::FutureAsksForNothing) {
            let mut state = self.state();
            state.wanted = state.wanted.max(lsn.get());
            shared.changed.notify_one();
        }
        answer
    }

    fn durable_lsn(&self) -> Lsn {
        Lsn::new(self.state().durable)
    }

    fn last_lsn(&self) -> Lsn {
        Lsn::new(self.state().content.last)
    }

    fn stats(&self) -> Stats {
        let now = self.state();
        let mut stats = Stats::default();
        stats.keys = now.content.map.len() as u64;
        stats.live_bytes = live_bytes(&now.content.map);
        stats.memory_bytes = stats.live_bytes + now.unwritten.len() as u64;
        stats.unflushed_bytes = now.unwritten.len() as u64;
        stats.disk_bytes = now.len;
        stats.changes = now.changes;
        stats.last_lsn = Lsn::new(now.content.last);
        stats.durable_lsn = Lsn::new(now.durable);
        stats
    }

    fn close(&self) -> Result<()> {
        let mut state = self.state();
        match &state.closed {
            Some(_) if self.shared.has(Defect::CloseForgetsFailure) => return Ok(()),
            Some(answer) => return answer.clone(),
            None => {}
        }
        let is_reader = self.shared.options.read_only;
        let mut result = if is_reader { Ok(()) } else { self.shared.health.check_writable() };
        if result.is_ok() && !is_reader && !self.shared.has(Defect::CloseDoesNotDump) {
            result = self.shared.dump_for_good(&mut state);
        }
        self.shared.health.close();
        state.closed = Some(result.clone());
        if self.shared.has(Defect::UnlocksLate) {
            let shared = Arc::clone(&self.shared);
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(5));
                shared.place.lock.release();
            });
        } else {
            self.shared.place.lock.release();
        }
        self.shared.changed.notify_all();
        drop(state);
        self.shared.tasks.wake_all();
        let ticker = self.ticker.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A ticker that wakes a task may drop the last handle with it.
        if let Some(ticker) = ticker.filter(|ticker| ticker.thread().id() != thread::current().id()) {
            // It panics only if the engine has, and then somebody has heard of it.
            let _ = ticker.join();
        }
        result
    }

    fn as_checkpoint(&self) -> Option<&dyn Checkpoint> {
        None
    }

    fn as_point_in_time(&self) -> Option<&dyn PointInTime> {
        None
    }

    fn as_compact(&self) -> Option<&dyn Compact> {
        None
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure.
        let _ = self.close();
    }
}
