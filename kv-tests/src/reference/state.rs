//! The state of an open store, shared by callers and the ticker. Lock order: `copy`, then `state`.

use super::Defect;
use super::log::{Content, Map};
use super::place::Place;
use super::visits::Visits;
use kv_core::fs::File;
use kv_core::parts::{Health, Wakers};
use kv_core::{Error, Lsn, OpenOptions, Pending, RecoveryReport, Result, Scale, Value};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) place: Place,
    pub(super) options: OpenOptions,
    /// Length of the longest key that the store held at open, if that is beyond the limit;
    /// otherwise 0.
    pub(super) present_key_len_max: usize,
    pub(super) health: Health,
    pub(super) state: Mutex<State>,
    /// An earlier copy of the map; only a defect reads it.
    pub(super) copy: Mutex<Map>,
    /// Wakes the ticker: it has something to do.
    pub(super) changed: Condvar,
    /// A `close` has begun; only a defect reads it.
    /// The tasks that wait for a sync.
    pub(super) tasks: Wakers,
    /// Wakes callers that wait for another one's sync; only defects do.
    pub(super) synced: Condvar,
    pub(super) visits: Visits,
    /// The position of a scan; only a defect shares it.
    pub(super) cursor: Mutex<usize>,
    /// A lock that only defects take: scans share it, and a new key excludes them.
    pub(super) structure: RwLock<()>,
    pub(super) is_closing: AtomicBool,
    /// The report of the recovery.
    pub(super) recovery: RecoveryReport,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) content: Content,
    /// The map at open; only a defect reads it.
    pub(super) opened: Map,
    pub(super) next: u64,
    pub(super) durable: u64,
    /// The highest LSN that a task waits for.
    pub(super) wanted: u64,
    pub(super) file: Arc<dyn File>,
    /// Bytes in the file.
    pub(super) len: u64,
    /// Records that are not in the file yet.
    pub(super) unwritten: Vec<u8>,
    pub(super) pending: Pending,
    pub(super) oldest: Duration,
    pub(super) dumped: Duration,
    pub(super) changes: u64,
    pub(super) dumps: u64,
    pub(super) syncs: u64,
    pub(super) bytes_written: u64,
    /// Whether the ticker waits for the time of an answer; only a defect asks.
    pub(super) is_ticker_waiting_for_time: bool,
    /// Length of a file that replaces this one, as of the last dump, bytes.
    pub(super) dumped_len: u64,
    /// Files that the engine could not remove; only a defect has any.
    pub(super) leftovers: Vec<String>,
    /// The answer of the first `close`.
    pub(super) closed: Option<Result<()>>,
    /// Whether a caller leads a sync without the lock; only defects do.
    pub(super) is_syncing: bool,
    /// The durable LSN before the last such sync.
    pub(super) durable_before: u64,
}

impl Shared {
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
        if place.has(Defect::OpenTakesLsn) {
            content.last = content.epoch << 32;
        }
        if place.has(Defect::NormalScaleStartsOver) && options.scale == Scale::Normal {
            content.map.clear();
        }
        if place.has(Defect::ReopenTakesLsn) && content.bytes > 0 {
            content.last += 1;
        }
        let recovery = report(&content, place.has(Defect::RecoveryReportsNextLsn));
        let now = place.env.clock.monotonic();
        // A reader cannot sync the newer changes.
        let knows_less = options.read_only && !place.has(Defect::ReaderCallsAllDurable);
        let durable = match knows_less {
            _ if place.has(Defect::NothingDurableAtOpen) => 0,
            true => content.durable,
            false => content.last,
        };
        let counted = if place.has(Defect::ChangesCountRecovered) { content.map.len() as u64 } else { 0 };
        let takes_changes = !options.read_only || place.has(Defect::ReadOnlyTakesChanges);
        let health = if takes_changes { Health::default() } else { Health::read_only() };
        let reuses = place.has(Defect::LsnReuse);
        let longest = content.map.keys().map(Vec::len).max().filter(|_| !place.has(Defect::RefusesLongKeys));
        let limit = options.limits.key_len_max;
        let present_key_len_max = longest.filter(|longest| *longest > limit).unwrap_or_default();
        let state = State {
            next: if reuses {
                content.last + 1
            } else {
                (content.epoch << 32).max(content.last + u64::from(place.has(Defect::OpenTakesLsn)))
            },
            durable,
            wanted: 0,
            opened: content.map.clone(),
            content,
            file: file.into(),
            len,
            unwritten: Vec::new(),
            pending: Pending::default(),
            oldest: now,
            dumped: now,
            changes: counted,
            dumps: 0,
            syncs: 0,
            bytes_written: 0,
            is_ticker_waiting_for_time: false,
            dumped_len: len,
            leftovers: Vec::new(),
            closed: None,
            is_syncing: false,
            durable_before: durable,
        };
        let copy = Mutex::new(state.content.map.clone());
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Shared {
            place,
            options,
            present_key_len_max,
            health,
            state,
            copy,
            changed,
            tasks: Wakers::default(),
            synced: Condvar::new(),
            visits: Visits::default(),
            cursor: Mutex::new(0),
            structure: RwLock::new(()),
            is_closing: AtomicBool::new(false),
            recovery,
        };
        shared.count_recovered(&mut shared.state());
        shared
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has(&self, defect: Defect) -> bool {
        self.place.has(defect)
    }

    /// Whether the engine is closed, and has this defect, which forgets it.
    pub(super) fn is_closed_but(&self, defect: Defect) -> bool {
        self.has(defect) && matches!(self.health.check_readable(), Err(Error::Closed))
    }

    /// The read of [`Defect::StaleWhenBusy`].
    pub(super) fn get_stale(&self, key: &[u8]) -> Option<Value> {
        let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(state) = self.state.try_lock() {
            copy.clone_from(&state.content.map);
        }
        copy.get(key).map(|value| Value::from(value.as_slice()))
    }

    pub(super) fn check_key(&self, key: &[u8]) -> Result<()> {
        let mut limits = self.options.limits;
        limits.key_len_max += usize::from(self.has(Defect::KeyLimitOffByOne));
        limits.check_key(key)
    }

    /// A present key may be longer than the limits, if an earlier open had higher ones.
    pub(super) fn check_present_key(&self, key: &[u8]) -> Result<()> {
        if key.len() <= self.present_key_len_max { Ok(()) } else { self.check_key(key) }
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        if self.has(Defect::PoisonIgnored) {
            self.health.check_readable()
        } else {
            self.health.check_writable()
        }
    }

    pub(super) fn check_readable(&self) -> Result<()> {
        if self.has(Defect::ReadsAfterClose) { Ok(()) } else { self.health.check_readable() }
    }
}

/// What recovery found.
fn report(content: &Content, names_next: bool) -> RecoveryReport {
    let mut report = RecoveryReport::default();
    report.records = content.records;
    report.bytes = content.bytes;
    report.files = u64::from(content.bytes > 0);
    report.torn_bytes = content.torn_bytes;
    report.last_lsn = Lsn::new(content.last + u64::from(names_next));
    report
}

/// The bytes of all keys and values.
pub(super) fn live_bytes(map: &Map) -> u64 {
    map.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
}
