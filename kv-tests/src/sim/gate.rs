use super::{Fault, FaultKind, OpKind, Repeat, SimFs};
use kv_core::Fs;
use kv_core::fs::{Dir, DirId, DirLock, File, LockKind, OpenMode, SharedMemory};
use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The moment of an operation at which the gate holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Nothing has happened yet.
    Before,
    /// The operation has taken effect, and its caller does not know it yet.
    After,
}

/// A held operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    id: u64,
    /// Whether it has taken effect.
    pub edge: Edge,
    /// The operation.
    pub kind: OpKind,
    /// The name of the file or directory.
    pub name: String,
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let edge = match self.edge {
            Edge::Before => "before",
            Edge::After => "after",
        };
        write!(f, "held {edge} {:?} {}", self.kind, self.name)
    }
}

#[derive(Debug, Default)]
struct State {
    /// Which operations the gate holds. `None`: it is open.
    holds: Option<fn(OpKind) -> bool>,
    /// The held operations, the oldest first.
    held: VecDeque<Stop>,
    /// The held operation that must fail.
    failing: Option<u64>,
    next: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A gate in front of a simulated disk: it holds operations until a test lets them go. Dropping it
/// opens it.
///
/// Between two releases the test knows which operations of the disk have happened. So it can make a
/// call at a chosen moment of another thread's sync.
///
/// ```
/// use kv_core::fs::{FsExt, OpenMode};
/// use kv_tests::sim::{Edge, Gate, OpKind, SimFs};
/// use std::{path::Path, thread, time::Duration};
///
/// let disk = SimFs::new();
/// let (gate, fs) = Gate::before(disk.clone());
/// gate.shut(|kind| kind == OpKind::Create);
/// thread::scope(|scope| {
///     let gate = gate; // A panic here opens it, which ends the other thread.
///     scope.spawn(move || fs.open(Path::new("/file"), OpenMode::CreateNew).unwrap());
///     let stop = gate.stop(Duration::from_secs(10)).unwrap();
///     assert_eq!((stop.edge, stop.name.as_str()), (Edge::Before, "file"));
///     assert!(disk.files().is_empty());
/// });
/// assert_eq!(disk.files().len(), 1);
/// ```
#[derive(Debug)]
pub struct Gate(Arc<Shared>);

/// The disk behind the gate, as the engine sees it.
#[derive(Clone, Debug)]
struct GatedFs {
    disk: SimFs,
    gate: Arc<Shared>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the case lets this operation go. Returns whether it must fail.
    fn hold(&self, edge: Edge, kind: OpKind, path: &Path) -> bool {
        let mut state = self.lock();
        if !state.holds.is_some_and(|holds| holds(kind)) {
            return false;
        }
        let id = state.next;
        state.next += 1;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        state.held.push_back(Stop { id, edge, kind, name });
        self.changed.notify_all();
        while state.held.iter().any(|stop| stop.id == id) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failing.take_if(|failing| *failing == id).is_some()
    }
}

impl Gate {
    /// An open gate in front of `disk`, and the gated file system.
    pub fn before(disk: SimFs) -> (Gate, Arc<dyn Fs>) {
        let gate = Arc::new(Shared::default());
        (Gate(Arc::clone(&gate)), Arc::new(GatedFs { disk, gate }))
    }

    /// From now on, holds each operation of these kinds twice: before it and after it. Operations
    /// that are held already stay so.
    pub fn shut(&self, holds: fn(OpKind) -> bool) {
        self.0.lock().holds = Some(holds);
    }

    /// Lets all operations go, and holds no later one.
    pub fn open(&self) {
        let mut state = self.0.lock();
        state.holds = None;
        state.held.clear();
        self.0.changed.notify_all();
    }

    /// The oldest held operation; waits for one.
    pub fn stop(&self, wait: Duration) -> Option<Stop> {
        let state = self.0.lock();
        let none_held = |state: &mut State| state.held.is_empty();
        let (state, _) =
            self.0.changed.wait_timeout_while(state, wait, none_held).unwrap_or_else(PoisonError::into_inner);
        state.held.front().cloned()
    }

    /// Lets this operation go.
    pub fn release(&self, stop: &Stop) {
        self.0.lock().held.retain(|held| held.id != stop.id);
        self.0.changed.notify_all();
    }

    /// Lets this operation go, a sync held before it takes effect: it fails.
    pub fn fail(&self, stop: &Stop) {
        self.0.lock().failing = Some(stop.id);
        self.release(stop);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

impl GatedFs {
    fn pass<T>(&self, kind: OpKind, path: &Path, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let fails = self.gate.hold(Edge::Before, kind, path);
        if fails {
            self.disk.inject(Fault { kind: FaultKind::Sync, nth: 0, repeat: Repeat::Once });
        }
        let result = operation();
        if fails {
            self.disk.heal();
        }
        self.gate.hold(Edge::After, kind, path);
        result
    }
}

impl Fs for GatedFs {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let dir = self.pass(OpKind::Open, path, || self.disk.open_dir(path))?;
        Ok(Arc::new(GatedDir { fs: self.clone(), dir }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.pass(OpKind::CreateDir, path, || self.disk.create_dir(path))
    }

    fn shared_memory(&self) -> Option<Arc<dyn SharedMemory>> {
        self.disk.shared_memory()
    }
}

#[derive(Debug)]
struct GatedDir {
    fs: GatedFs,
    dir: Arc<dyn Dir>,
}

impl Dir for GatedDir {
    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn id(&self) -> io::Result<DirId> {
        self.dir.id()
    }

    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let creates = matches!(mode, OpenMode::CreateNew | OpenMode::CreateOrTruncate);
        let kind = if creates { OpKind::Create } else { OpKind::Open };
        let file = self.fs.pass(kind, Path::new(name), || self.dir.open(name, mode))?;
        Ok(Box::new(GatedFile { fs: self.fs.clone(), file, name: name.to_owned() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.fs.pass(OpKind::Rename, Path::new(to), || self.dir.rename(from, to))
    }

    fn link(&self, name: &str, into: &dyn Dir, other_name: &str) -> io::Result<()> {
        let into: &dyn Any = into;
        let Some(into) = into.downcast_ref::<GatedDir>() else {
            return Err(io::ErrorKind::CrossesDevices.into());
        };
        let link = || self.dir.link(name, &*into.dir, other_name);
        self.fs.pass(OpKind::Link, Path::new(other_name), link)
    }

    fn link_count(&self, name: &str) -> io::Result<u64> {
        self.fs.pass(OpKind::Open, Path::new(name), || self.dir.link_count(name))
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        self.fs.pass(OpKind::Remove, Path::new(name), || self.dir.remove_file(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.fs.pass(OpKind::List, self.dir.path(), || self.dir.list())
    }

    fn sync(&self) -> io::Result<()> {
        self.fs.pass(OpKind::SyncDir, self.dir.path(), || self.dir.sync())
    }

    fn lock(&self, kind: LockKind) -> io::Result<Option<Box<dyn DirLock>>> {
        self.fs.pass(OpKind::LockDir, self.dir.path(), || self.dir.lock(kind))
    }
}

#[derive(Debug)]
struct GatedFile {
    fs: GatedFs,
    file: Box<dyn File>,
    name: String,
}

impl GatedFile {
    fn pass<T>(&self, kind: OpKind, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.fs.pass(kind, Path::new(&self.name), operation)
    }
}

impl File for GatedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.pass(OpKind::Read, || self.file.read_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.pass(OpKind::Write, || self.file.write_at(buf, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.pass(OpKind::Sync, || self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.pass(OpKind::Sync, || self.file.sync_all())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.pass(OpKind::SetLen, || self.file.set_len(len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.pass(OpKind::Allocate, || self.file.allocate(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.pass(OpKind::Len, || self.file.len())
    }

    fn set_direct_io(&self, on: bool) -> io::Result<Option<usize>> {
        self.file.set_direct_io(on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::PowerCut;
    use kv_core::fs::{FileExt, FsExt};
    use std::thread;

    const PATIENCE: Duration = Duration::from_mins(1);

    fn synced(disk: &SimFs) -> bool {
        disk.power_cut(PowerCut::LOSE_ALL).files().iter().any(|(_, bytes)| bytes == b"hello")
    }

    #[test]
    fn a_sync_is_held_before_and_after_it_takes_effect() {
        let disk = SimFs::new();
        let (gate, fs) = Gate::before(disk.clone());
        let file = fs.open(Path::new("/log"), OpenMode::CreateNew).unwrap();
        fs.open_dir(Path::new("/")).unwrap().sync().unwrap();
        file.write_all_at(b"hello", 0).unwrap();
        gate.shut(OpKind::is_sync);
        let syncing = thread::spawn(move || file.sync_data());
        let stop = gate.stop(PATIENCE).unwrap();
        assert_eq!((stop.edge, synced(&disk)), (Edge::Before, false));
        gate.release(&stop);
        // The released operation may still be on its way out of the queue's front.
        let stop = gate.stop(PATIENCE).unwrap();
        assert_eq!((stop.edge, synced(&disk)), (Edge::After, true));
        gate.release(&stop);
        syncing.join().unwrap().unwrap();
        assert_eq!(gate.stop(Duration::ZERO), None);
    }

    #[test]
    fn a_held_sync_can_fail_and_an_open_gate_holds_nothing() {
        let disk = SimFs::new();
        let (gate, fs) = Gate::before(disk.clone());
        let file = fs.open(Path::new("/log"), OpenMode::CreateNew).unwrap();
        file.write_all_at(b"hello", 0).unwrap();
        gate.shut(OpKind::is_sync);
        let syncing = thread::spawn(move || (file.sync_data().is_err(), file.sync_data().is_ok()));
        let stop = gate.stop(PATIENCE).unwrap();
        gate.fail(&stop);
        let stop = gate.stop(PATIENCE).unwrap();
        assert_eq!(stop.edge, Edge::After);
        gate.open();
        assert_eq!(syncing.join().unwrap(), (true, true));
        assert!(!synced(&disk), "no later sync saves the bytes of a failed one");
    }
}
