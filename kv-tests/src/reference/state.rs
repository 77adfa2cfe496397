//! The state of an open store, shared by callers and the ticker. Lock order: `copy`, then `state`.

use super::Defect;
use super::log::{Content, Map};
use super::place::Place;
use kv_core::fs::File;
use kv_core::parts::{Health, Wakers};
use kv_core::{OpenOptions, Pending, Result, Value};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
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
    /// The tasks that wait for a sync.
    pub(super) tasks: Wakers,
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
    pub(super) file: Box<dyn File>,
    /// Bytes in the file.
    pub(super) len: u64,
    /// Records that are not in the file yet.
    pub(super) unwritten: Vec<u8>,
    pub(super) pending: Pending,
    pub(super) oldest: Duration,
    pub(super) dumped: Duration,
    pub(super) changes: u64,
    /// Whether the ticker waits for the time of an answer; only a defect asks.
    pub(super) is_ticker_waiting_for_time: bool,
    /// Length of a file that replaces this one, as of the last dump, bytes.
    pub(super) dumped_len: u64,
    /// Files that the engine could not remove; only a defect has any.
    pub(super) leftovers: Vec<String>,
    /// The answer of the first `close`.
    pub(super) closed: Option<Result<()>>,
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
        let now = place.env.clock.monotonic();
        // A reader cannot sync the newer changes.
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
            is_ticker_waiting_for_time: false,
            dumped_len: len,
            leftovers: Vec::new(),
            closed: None,
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

/// The bytes of all keys and values.
pub(super) fn live_bytes(map: &Map) -> u64 {
    map.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
}
