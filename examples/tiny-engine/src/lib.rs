//! A storage engine in one file: a sorted map in memory, and one file with the whole map. Every
//! sync replaces the file atomically.
//!
//! The engine is slow and correct. It is the engine to learn from: read this file, then run the
//! suite on it with `cargo test`. `tests/conformance.rs` also adds a case of the engine's own.
//!
//! To begin your engine with a copy of this directory, replace the two `path` lines in its
//! `Cargo.toml`. The comment there shows how.

use kv_core::fs::{Dir, DirExt, FsExt, LOCK_FILE, LockKind, is_system_file};
use kv_core::parts::{Health, Reserve, StoreLock};
use kv_core::{
    Acknowledge, Action, Batch, Capabilities, Change, Checkpoint, Compact, Engine, EngineFactory, Env, Error,
    Lsn, Op, OpenOptions, Pending, PointInTime, RecoveryReport, Result, ScanVisitor, Stats, Value,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

const FILE: &str = "TINY";
/// LSNs that each write of the file reserves, so that the engine uses none twice after a crash.
const RESERVED: u64 = 1 << 32;
/// Bytes of the reserve beyond the length of the file: each of the two may begin one more block.
const RESERVE_SLACK: u64 = 12 << 10;

#[derive(Debug)]
struct State {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    last: u64,
    next: u64,
    durable: u64,
    pending: Pending,
    first_pending: Duration,
    /// The time of the last dump, or of the open.
    dumped: Duration,
    /// Length of the file, bytes.
    file_len: u64,
    /// Changes since open.
    changes: u64,
    /// The answer of the first `close`.
    closed: Option<Result<()>>,
}

/// The engine.
#[derive(Debug)]
pub struct Tiny {
    dir: Arc<dyn Dir>,
    lock: StoreLock,
    /// Disk space as long as the file: a replacement that is not longer always finds room.
    reserve: Reserve,
    env: Env,
    options: OpenOptions,
    /// Length of the longest possible key, bytes: the limit, or a longer key that the store held at
    /// open.
    present_key_len_max: usize,
    /// The report of the recovery.
    recovery: RecoveryReport,
    health: Health,
    state: Mutex<State>,
}

/// Opens [`Tiny`] engines.
#[derive(Debug)]
pub struct TinyFactory;

impl EngineFactory for TinyFactory {
    fn name(&self) -> &str {
        "tiny"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new()
    }

    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        options.limits.validate()?;
        if options.read_only {
            return Err(Error::Unsupported("opening for reading only"));
        }
        let check = |names: &[String]| {
            let not_a_store = |detail| Err(Error::NotAStore { path: dir.to_path_buf(), detail });
            let foreign = |name: &&String| {
                ![LOCK_FILE, Reserve::FILE, "TINY.tmp"].contains(&name.as_str()) && !is_system_file(name)
            };
            if names.iter().any(|name| name == FILE) {
                Ok(true)
            } else if let Some(name) = names.iter().find(foreign) {
                not_a_store(format!("it holds {name}"))
            } else if options.create_if_missing {
                Ok(false)
            } else {
                not_a_store("there is none".to_owned())
            }
        };
        // Taking the lock may create a file, so this check refuses a foreign directory before.
        check(&env.fs.list_if_exists(dir)?.unwrap_or_default())?;
        env.fs.create_dir_durably(dir)?;
        // From here on the engine uses the directory through its handle: its path may lead
        // elsewhere later.
        let handle = env.fs.open_dir(dir).map_err(|error| Error::io(Op::Open, dir, error))?;
        let lock = StoreLock::new(dir, handle.lock_or_refuse(LockKind::Exclusive)?);
        let exists = check(&handle.names()?)?;
        let dir = handle;
        let bytes = if exists { dir.read_file(FILE, u64::MAX)? } else { Vec::new() };
        let (map, last, ceiling) = if exists {
            decode(&bytes).ok_or_else(|| Error::corruption(&dir.path_of(FILE), 0, "the file is damaged"))?
        } else {
            (BTreeMap::new(), 0, 0)
        };
        let longest = map.keys().map(Vec::len).max().unwrap_or_default();
        let present_key_len_max = longest.max(options.limits.key_len_max);
        let state = State {
            map,
            last,
            next: ceiling.max(last) + 1,
            durable: last,
            pending: Pending::default(),
            first_pending: Duration::ZERO,
            dumped: env.clock.monotonic(),
            file_len: bytes.len() as u64,
            changes: 0,
            closed: None,
        };
        let mut recovery = RecoveryReport::default();
        (recovery.records, recovery.last_lsn) = (state.map.len() as u64, Lsn::new(last));
        (recovery.bytes, recovery.files) = (state.file_len, u64::from(exists));
        let (env, options, health, state) =
            (env.clone(), options.clone(), Health::default(), Mutex::new(state));
        let reserve = Reserve::open(Arc::clone(&dir));
        let tiny = Tiny { dir, lock, reserve, env, options, present_key_len_max, recovery, health, state };
        // Reserves LSNs on disk before the engine gives one out.
        tiny.write(&mut tiny.state(), RESERVED)?;
        Ok(Arc::new(tiny))
    }
}

/// The map, the last LSN, and the highest reserved LSN.
type Stored = (BTreeMap<Vec<u8>, Vec<u8>>, u64, u64);

fn encode(state: &State, reserved: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ceiling = state.next - 1 + reserved;
    for number in [state.last, ceiling, state.map.len() as u64] {
        bytes.extend(number.to_le_bytes());
    }
    for part in state.map.iter().flat_map(|(key, value)| [key, value]) {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part);
    }
    bytes.extend(checksum(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Stored> {
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    (checksum(body) == u64::from_le_bytes(*sum)).then_some(())?;
    let mut rest = body;
    let number = |rest: &mut &[u8]| {
        let (first, others) = rest.split_first_chunk::<8>()?;
        *rest = others;
        Some(u64::from_le_bytes(*first))
    };
    let (last, ceiling, count) = (number(&mut rest)?, number(&mut rest)?, number(&mut rest)?);
    let mut map = BTreeMap::new();
    for _ in 0..count {
        let mut part = || {
            let len = usize::try_from(number(&mut rest)?).ok()?;
            let (part, others) = rest.split_at_checked(len)?;
            rest = others;
            Some(part.to_vec())
        };
        map.insert(part()?, part()?);
    }
    Some((map, last, ceiling))
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Tiny {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, state: &mut State, reserved: u64) -> Result<()> {
        let bytes = encode(state, reserved);
        self.replace(&bytes, state.file_len).map_err(|error| self.health.poison(error))?;
        state.file_len = bytes.len() as u64;
        state.durable = state.last;
        state.pending = Pending::default();
        state.dumped = self.env.clock.monotonic();
        Ok(())
    }

    /// Replaces the file, which is `file_len` bytes long. A longer replacement needs free space,
    /// and first grows the reserve for the next one. Any other replacement may take its space from
    /// the reserve.
    fn replace(&self, bytes: &[u8], file_len: u64) -> Result<()> {
        // Another process may have removed the directory or its lock file.
        self.lock.check()?;
        let len = bytes.len() as u64;
        if len > file_len {
            self.reserve.hold(len + RESERVE_SLACK);
            self.dir.write_file_atomically(FILE, bytes)
        } else {
            self.reserve.write_file_atomically(FILE, bytes)?;
            self.reserve.hold(len + RESERVE_SLACK);
            Ok(())
        }
    }

    /// A present key may be longer than the limits, if an earlier open had higher ones.
    fn check_key(&self, key: &[u8]) -> Result<()> {
        self.options.limits.check_key_with(key, self.present_key_len_max)
    }

    /// Applies changes under one LSN, if they change anything, and writes the file if the policy
    /// says so.
    fn change(&self, changes: &[&Change]) -> Result<Option<Lsn>> {
        let mut state = self.state();
        // Checked under the state's lock: the store may be closed or poisoned while this call waits
        // for it.
        self.health.check_writable()?;
        let present =
            |change: &&&Change| matches!(change, Change::Put { .. }) || state.map.contains_key(change.key());
        let changes: Vec<&Change> = changes.iter().filter(present).copied().collect();
        if changes.is_empty() {
            return Ok(None);
        }
        let mut bytes = 0;
        for change in changes {
            bytes += change.key().len() as u64;
            match change {
                Change::Put { key, value } => {
                    bytes += value.len() as u64;
                    state.map.insert(key.clone(), value.clone());
                }
                Change::Delete { key } => drop(state.map.remove(key)),
            }
        }
        let lsn = state.next;
        (state.last, state.next) = (lsn, lsn + 1);
        let now = self.env.clock.monotonic();
        if state.pending.records == 0 {
            state.first_pending = now;
        }
        state.changes += 1;
        state.pending.records += 1;
        state.pending.bytes += bytes;
        state.pending.oldest_age = now - state.first_pending;
        state.pending.since_last_dump = now - state.dumped;
        let decision = self.options.persistence.decide(&state.pending);
        // The engine has no thread that could ask again later, so it writes the file at once.
        let dump = decision.action != Action::Hold
            || decision.ask_again_in.is_some()
            || self.options.persistence.acknowledge() == Acknowledge::WhenDurable;
        if dump {
            self.write(&mut state, RESERVED)?;
        }
        Ok(Some(Lsn::new(lsn)))
    }
}

impl Engine for Tiny {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        let mut batch = Batch::new();
        batch.put(key, value);
        self.apply(&batch)
    }

    fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        self.check_key(key)?;
        self.change(&[&Change::Delete { key: key.to_vec() }])
    }

    fn apply(&self, batch: &Batch) -> Result<Lsn> {
        self.options.limits.check_batch_with(batch, self.present_key_len_max)?;
        Ok(self.change(&batch.effective_changes())?.unwrap_or_else(|| self.last_lsn()))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.health.check_readable()?;
        self.check_key(key)?;
        Ok(self.state().map.get(key).map(|value| Value::from(value.as_slice())))
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.get(key)?;
        if let Some(value) = &value {
            visit(value);
        }
        Ok(value.is_some())
    }

    fn read_many(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        self.health.check_readable()?;
        keys.iter().try_for_each(|key| self.check_key(key))?;
        for (position, key) in keys.iter().enumerate() {
            if !self.read(key, &mut |value| visit(position, Some(value)))? {
                visit(position, None);
            }
        }
        Ok(())
    }

    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.health.check_readable()?;
        // The scan visits a copy, so that the callback may call the engine.
        let map = self.state().map.clone();
        let _ = map.iter().try_for_each(|(key, value)| visit(key, value));
        Ok(())
    }

    fn sync(&self) -> Result<Lsn> {
        let mut state = self.state();
        self.health.check_writable()?;
        if state.pending.records > 0 {
            self.write(&mut state, RESERVED)?;
        }
        Ok(Lsn::new(state.durable))
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.health.check_readable()?;
        if lsn > self.last_lsn() {
            return Err(Error::InvalidArgument(format!("LSN {lsn} was not given out yet")));
        }
        if lsn > self.durable_lsn() {
            self.sync()?;
        }
        Ok(())
    }

    fn poll_durable(&self, lsn: Lsn, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        // The engine has no thread that could sync later, so the poll syncs. It never returns
        // `Pending`.
        Poll::Ready(self.wait_durable(lsn))
    }

    fn durable_lsn(&self) -> Lsn {
        Lsn::new(self.state().durable)
    }

    fn last_lsn(&self) -> Lsn {
        Lsn::new(self.state().last)
    }

    fn stats(&self) -> Stats {
        let (state, mut stats) = (self.state(), Stats::default());
        stats.keys = state.map.len() as u64;
        stats.changes = state.changes;
        (stats.last_lsn, stats.durable_lsn) = (Lsn::new(state.last), Lsn::new(state.durable));
        stats.recovery = self.recovery.clone();
        stats
    }

    fn close(&self) -> Result<()> {
        let mut state = self.state();
        if let Some(answer) = &state.closed {
            return answer.clone();
        }
        let result = self.health.check_writable().and_then(|()| self.write(&mut state, 0));
        self.health.close();
        self.lock.release();
        state.closed = Some(result.clone());
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

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = self.close();
    }
}
