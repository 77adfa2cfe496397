//! The calls that are under way. So the report of a deadlock names the call, its key, and the
//! callback that made it, and comes after seconds.

use kv_core::{
    BackupReport, Batch, Checkpoint, Compact, CompactionReport, Engine, Error, Lsn, Moment, Past, Point,
    PointInTime, Reach, RestorePlan, Result, ScanVisitor, Stats, Target, Value, Version, Window,
};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The calls of one case. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    threads: Arc<Mutex<Vec<Slot>>>,
}

/// The calls of one thread, the outermost first. Only its thread changes it, so the lock is free
/// but when the runner looks.
type Slot = Arc<Mutex<Vec<Call>>>;

#[derive(Debug)]
struct Call {
    name: &'static str,
    /// The first bytes of the key, and its length.
    key: Option<(Vec<u8>, usize)>,
    begun: Instant,
}

/// How many bytes of a key a report shows.
const KEY_SHOWN: usize = 16;

thread_local! {
    /// This thread's slot, and whose it is: the last case that this thread worked for.
    static SLOT: RefCell<Option<(Calls, Slot)>> = const { RefCell::new(None) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    /// The slot of this thread. `None` while the thread ends.
    fn slot(&self) -> Option<Slot> {
        SLOT.try_with(|slot| {
            let mut slot = slot.borrow_mut();
            match &*slot {
                Some((calls, slot)) if Arc::ptr_eq(&calls.threads, &self.threads) => Arc::clone(slot),
                _ => {
                    let new = Slot::default();
                    let mut threads = lock(&self.threads);
                    // A thread that has ended holds its slot no more.
                    threads.retain(|slot| Arc::strong_count(slot) > 1);
                    threads.push(Arc::clone(&new));
                    *slot = Some((self.clone(), Arc::clone(&new)));
                    new
                }
            }
        })
        .ok()
    }

    /// Notes that a call begins; it ends when the answer is dropped.
    pub(crate) fn begin(&self, name: &'static str, key: Option<&[u8]>) -> Under {
        let slot = self.slot();
        if let Some(slot) = &slot {
            let key = key.map(|key| (key.iter().take(KEY_SHOWN).copied().collect(), key.len()));
            lock(slot).push(Call { name, key, begun: Instant::now() });
        }
        Under { slot }
    }

    /// The call that has been under way for longer than `most`, in words.
    pub(crate) fn overdue(&self, most: Duration) -> Option<String> {
        let threads = lock(&self.threads).clone();
        threads.iter().find_map(|slot| {
            let calls = lock(slot);
            calls.last().filter(|call| call.begun.elapsed() > most)?;
            let mut text = String::new();
            for (depth, call) in calls.iter().rev().enumerate() {
                text.push_str(if depth == 0 { "" } else { ", in a callback of " });
                text.push_str(call.name);
                if let Some((key, len)) = &call.key {
                    // Writing to a string cannot fail.
                    let _ = write!(text, " of key \"{}\"", key.escape_ascii());
                    if *len > key.len() {
                        let _ = write!(text, " … ({len} bytes)");
                    }
                }
            }
            Some(text)
        })
    }
}

/// A call that is under way.
#[derive(Debug)]
pub(crate) struct Under {
    slot: Option<Slot>,
}

impl Drop for Under {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            lock(slot).pop();
        }
    }
}

/// An engine whose calls are watched.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Taken when it is dropped.
    engine: Option<Arc<dyn Engine>>,
    calls: Calls,
}

impl Watched {
    pub(crate) fn new(engine: Arc<dyn Engine>, calls: Calls) -> Self {
        Watched { engine: Some(engine), calls }
    }

    /// Runs a call.
    fn call<T>(&self, name: &'static str, key: Option<&[u8]>, call: impl FnOnce(&dyn Engine) -> T) -> T {
        let _under = self.calls.begin(name, key);
        // The engine is there until the drop.
        call(self.engine.as_deref().expect("a watched engine is used before its drop"))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _under = self.calls.begin("the drop of a handle", None);
        drop(self.engine.take());
    }
}

impl Engine for Watched {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn> {
        self.call("put", Some(key), |engine| engine.put(key, value))
    }

    fn delete(&self, key: &[u8]) -> Result<Option<Lsn>> {
        self.call("delete", Some(key), |engine| engine.delete(key))
    }

    fn apply(&self, batch: &Batch) -> Result<Lsn> {
        self.call("apply", batch.changes().first().map(kv_core::Change::key), |engine| engine.apply(batch))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.call("get", Some(key), |engine| engine.get(key))
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.call("read", Some(key), |engine| engine.read(key, visit))
    }

    fn read_many(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        self.call("read_many", keys.first().copied(), |engine| engine.read_many(keys, visit))
    }

    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.call("scan", None, |engine| engine.scan(visit))
    }

    fn sync(&self) -> Result<Lsn> {
        self.call("sync", None, |engine| engine.sync())
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.call("wait_durable", None, |engine| engine.wait_durable(lsn))
    }

    fn poll_durable(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.call("poll_durable", None, |engine| engine.poll_durable(lsn, cx))
    }

    fn durable_lsn(&self) -> Lsn {
        self.call("durable_lsn", None, |engine| engine.durable_lsn())
    }

    fn last_lsn(&self) -> Lsn {
        self.call("last_lsn", None, |engine| engine.last_lsn())
    }

    fn stats(&self) -> Stats {
        self.call("stats", None, |engine| engine.stats())
    }

    fn close(&self) -> Result<()> {
        self.call("close", None, |engine| engine.close())
    }

    fn as_checkpoint(&self) -> Option<&dyn Checkpoint> {
        self.engine.as_deref()?.as_checkpoint().map(|_| self as &dyn Checkpoint)
    }

    fn as_point_in_time(&self) -> Option<&dyn PointInTime> {
        self.engine.as_deref()?.as_point_in_time().map(|_| self as &dyn PointInTime)
    }

    fn as_compact(&self) -> Option<&dyn Compact> {
        self.engine.as_deref()?.as_compact().map(|_| self as &dyn Compact)
    }
}

impl Checkpoint for Watched {
    fn checkpoint(&self) -> Result<Lsn> {
        self.call("checkpoint", None, |engine| match engine.as_checkpoint() {
            Some(checkpoint) => checkpoint.checkpoint(),
            None => Err(Error::Unsupported("a checkpoint on request")),
        })
    }
}

impl Compact for Watched {
    fn compact(&self) -> Result<CompactionReport> {
        self.call("compact", None, |engine| match engine.as_compact() {
            Some(compact) => compact.compact(),
            None => Err(Error::Unsupported("compaction on request")),
        })
    }
}

impl Watched {
    /// Runs a call for past states.
    fn past<T>(
        &self,
        name: &'static str,
        key: Option<&[u8]>,
        call: impl FnOnce(&dyn PointInTime) -> Result<T>,
    ) -> Result<T> {
        self.call(name, key, |engine| match engine.as_point_in_time() {
            Some(past) => call(past),
            None => Err(Error::Unsupported("past states")),
        })
    }
}

impl PointInTime for Watched {
    fn window(&self) -> Result<Window> {
        self.past("window", None, |past| past.window())
    }

    fn reach(&self) -> Result<Reach> {
        self.past("reach", None, |past| past.reach())
    }

    fn points(&self) -> Result<Vec<Point>> {
        self.past("points", None, |past| past.points())
    }

    fn pin(&self, name: &str, target: &Target, expires_unix_ms: Option<u64>) -> Result<Point> {
        self.past("pin", None, |past| past.pin(name, target, expires_unix_ms))
    }

    fn unpin(&self, name: &str) -> Result<bool> {
        self.past("unpin", None, |past| past.unpin(name))
    }

    fn read_at(&self, target: &Target) -> Result<Past> {
        let Past { moment, engine } = self.past("read_at", None, |past| past.read_at(target))?;
        Ok(Past { moment, engine: Arc::new(Watched::new(engine, self.calls.clone())) })
    }

    fn history(&self, key: &[u8]) -> Result<Vec<Version>> {
        self.past("history", Some(key), |past| past.history(key))
    }

    fn plan(&self, target: &Target) -> Result<RestorePlan> {
        self.past("plan", None, |past| past.plan(target))
    }

    fn backup(&self, into: &Path) -> Result<BackupReport> {
        self.past("backup", None, |past| past.backup(into))
    }

    fn restore(&self, target: &Target, into: &Path) -> Result<Moment> {
        self.past("restore", None, |past| past.restore(target, into))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::ReferenceFactory;
    use crate::sim::SimFs;
    use kv_core::{Background, Clock, EngineFactory, Env, OpenOptions};

    /// Long enough for a call to be overdue.
    fn pause() {
        std::thread::sleep(Duration::from_millis(2));
    }

    /// A clock that notes the call that reads it.
    #[derive(Debug, Default)]
    struct Spy {
        calls: Calls,
        seen: Mutex<Option<String>>,
    }

    impl Clock for Spy {
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }

        fn unix_time_ms(&self) -> u64 {
            pause();
            *lock(&self.seen) = self.calls.overdue(Duration::ZERO);
            0
        }
    }

    #[test]
    fn calls_for_past_states_and_reads_of_them_are_named() {
        let spy = Arc::new(Spy::default());
        let clock = Arc::clone(&spy) as Arc<dyn Clock>;
        let env = Env { fs: Arc::new(SimFs::new()), clock, background: Background::Inline };
        let factory = ReferenceFactory::default();
        let engine = factory.open(Path::new("/store"), &env, &OpenOptions::default()).unwrap();
        let watched = Watched::new(engine, spy.calls.clone());
        let lsn = watched.put(b"key", b"value").unwrap();
        let past = watched.as_point_in_time().unwrap();
        past.window().unwrap();
        assert_eq!(lock(&spy.seen).as_deref(), Some("window"));
        let (state, mut seen) = (past.read_at(&Target::Lsn(lsn)).unwrap().engine, None);
        let visit = &mut |_: &[u8]| {
            pause();
            seen = spy.calls.overdue(Duration::ZERO);
        };
        assert!(state.read(b"key", visit).unwrap());
        assert_eq!(seen.as_deref(), Some("read of key \"key\""));
    }

    #[test]
    fn an_overdue_call_is_named_with_its_key_and_the_callback_around_it() {
        let calls = Calls::default();
        assert_eq!(calls.overdue(Duration::ZERO), None);
        let scan = calls.begin("scan", None);
        let put = calls.begin("put", Some(b"k\0"));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(
            calls.overdue(Duration::ZERO).as_deref(),
            Some("put of key \"k\\x00\", in a callback of scan")
        );
        assert_eq!(calls.overdue(Duration::from_mins(1)), None);
        drop(put);
        let other = calls.clone();
        std::thread::spawn(move || {
            let _get = other.begin("get", Some(&[b'x'; 30]));
            drop(scan);
            std::thread::sleep(Duration::from_millis(2));
            let text = other.overdue(Duration::ZERO).unwrap();
            assert_eq!(text, "get of key \"xxxxxxxxxxxxxxxx\" … (30 bytes)");
        })
        .join()
        .unwrap();
        assert_eq!(calls.overdue(Duration::ZERO), None);
    }
}
