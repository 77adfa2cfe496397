//! Leftovers: files to remove once the manifest that no longer names them is durable.
//!
//! They are removed after the next manifest is stored. If a removal fails (an immutable file, a
//! directory of another owner), the file is tried again after ever longer pauses, so that many such
//! files cost little.

use kv_core::SegmentId;
use kv_core::fs::{Dir, OpenMode};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::directory;

#[derive(Debug)]
pub(super) struct Leftovers {
    dir: Arc<dyn Dir>,
    state: Mutex<State>,
    /// Bytes that came free with the removed files.
    freed_bytes: AtomicU64,
    /// Shared by the threads that remove files.
    removing: RwLock<()>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Leftover>,
    /// Files that a reader of past states still reads, and how many do.
    held: BTreeMap<String, usize>,
    /// Number of removal rounds so far.
    round: u64,
}

#[derive(Debug)]
struct Leftover {
    name: String,
    bytes: u64,
    /// Removals that failed.
    failures: u32,
    /// The first round that tries it again.
    due: u64,
}

/// Rounds between two attempts at the same file, at most.
const PAUSE_MAX: u64 = 1 << 12;

/// The files to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Due,
    All,
}

impl Leftovers {
    /// In `dir`; none at first.
    pub(super) fn new(dir: Arc<dyn Dir>) -> Self {
        Leftovers { dir, state: Mutex::default(), freed_bytes: AtomicU64::new(0), removing: RwLock::new(()) }
    }

    /// Adds the file of a segment, which takes `bytes` bytes.
    pub(super) fn add(&self, id: SegmentId, bytes: u64) {
        self.add_file(directory::segment_file_name(id), bytes);
    }

    /// Adds the files of several segments, with their bytes.
    pub(super) fn add_all(&self, segments: Vec<(SegmentId, u64)>) {
        for (id, bytes) in segments {
            self.add(id, bytes);
        }
    }

    /// Adds a checkpoint, which takes `bytes` bytes.
    pub(super) fn add_checkpoint(&self, id: SegmentId, bytes: u64) {
        self.add_file(directory::checkpoint_file_name(id), bytes);
    }

    /// Gives back the space of a checkpoint that the manifest does not name, or that it may name
    /// and nothing needs.
    pub(super) fn discard_checkpoint(&self, id: SegmentId) {
        self.discard_file(directory::checkpoint_file_name(id), 0);
    }

    fn add_file(&self, name: String, bytes: u64) {
        self.state.lock().files.push(Leftover { name, bytes, failures: 0, due: 0 });
    }

    /// Gives back the space of a segment's file that no manifest ever named, and that would hold
    /// `end` bytes. A power cut may bring the file back. Its id is reserved, so the next opening
    /// recognises it as an orphan.
    pub(super) fn discard(&self, id: SegmentId, end: usize) {
        self.discard_file(directory::segment_file_name(id), end);
    }

    fn discard_file(&self, name: String, end: usize) {
        // Emptied first: the file may be open, or its removal may fail.
        let emptied = self.dir.open(&name, OpenMode::ReadWrite).and_then(|file| file.set_len(0));
        let bytes = if emptied.is_ok() { 0 } else { end as u64 };
        if remove_file(&*self.dir, &name).is_err() {
            self.add_file(name, bytes);
        }
    }

    /// Removes those that can be removed.
    pub(super) fn remove(&self, attempt: Which) {
        let _removing = self.removing.read();
        let (round, mut tried) = {
            let mut state = self.state.lock();
            state.round += 1;
            let State { files, held, round } = &mut *state;
            let is_due = |leftover: &mut Leftover| {
                (attempt == Which::All || leftover.due <= *round) && !held.contains_key(&leftover.name)
            };
            let tried: Vec<Leftover> = files.extract_if(.., is_due).collect();
            (*round, tried)
        };
        // Without the lock, because it takes long.
        tried.retain_mut(|leftover| {
            leftover.failures += 1;
            leftover.due = round + (1 << leftover.failures.min(63)).min(PAUSE_MAX);
            let frees = self.holds_space_alone(&leftover.name);
            let is_gone = remove_file(&*self.dir, &leftover.name).is_ok();
            if is_gone && frees {
                self.freed_bytes.fetch_add(leftover.bytes, Ordering::Relaxed);
            }
            !is_gone
        });
        if !tried.is_empty() {
            self.state.lock().files.append(&mut tried);
        }
    }

    /// Keeps the files of these segments until the answer is dropped.
    pub(super) fn hold(self: &Arc<Self>, ids: impl Iterator<Item = SegmentId>) -> Held {
        let names: Vec<String> = ids.map(directory::segment_file_name).collect();
        let mut state = self.state.lock();
        for name in &names {
            *state.held.entry(name.clone()).or_default() += 1;
        }
        drop(state);
        Held { leftovers: Arc::clone(self), names }
    }

    /// Whether the removal of any of them was not tried yet. Those wait for a manifest.
    pub(super) fn any_untried(&self) -> bool {
        self.state.lock().files.iter().any(|leftover| leftover.failures == 0)
    }

    /// Whether the space of a file comes free once nothing needs it. A link in a backup would hold
    /// it, and so would a reader of past states.
    pub(super) fn holds_space_alone(&self, name: &str) -> bool {
        let is_held = self.state.lock().held.contains_key(name);
        !is_held && !self.dir.link_count(name).is_ok_and(|count| count > 1)
    }

    /// Bytes that have come free with removed files so far. Waits for removals that other threads
    /// have begun: they may have taken the files that the caller asks for.
    pub(super) fn freed_bytes(&self) -> u64 {
        let _no_removal = self.removing.write();
        self.freed_bytes.load(Ordering::Relaxed)
    }

    /// Number of the files, and their bytes.
    pub(super) fn count(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.files.len() as u64, state.files.iter().map(|leftover| leftover.bytes).sum())
    }
}

/// Files that stay, although the store may not need them any more. They go with the leftovers after
/// it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    leftovers: Arc<Leftovers>,
    names: Vec<String>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.leftovers.state.lock();
        for name in &self.names {
            if let Some(count) = state.held.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    state.held.remove(name);
                }
            }
        }
    }
}

/// Removes a file, if it is there.
fn remove_file(dir: &dyn Dir, name: &str) -> io::Result<()> {
    match dir.remove_file(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::Fs;
    use kv_tests::sim::{Fault, FaultKind, Gate, OpKind, Repeat, SimFs};
    use std::path::Path;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn bytes_that_another_thread_frees_count_once_it_is_done() {
        let (gate, fs) = Gate::before(SimFs::new());
        let dir = fs.open_dir(Path::new("/")).unwrap();
        let leftovers = Leftovers::new(Arc::clone(&dir));
        dir.open("file", OpenMode::CreateNew).unwrap();
        leftovers.add_file("file".to_owned(), 5);
        gate.shut(|kind| kind == OpKind::Remove);
        thread::scope(|scope| {
            let gate = gate; // A panic here opens it, which ends the other threads.
            scope.spawn(|| leftovers.remove(Which::Due));
            assert!(gate.stop(Duration::from_secs(10)).is_some());
            // This thread finds nothing to remove.
            leftovers.remove(Which::Due);
            let freed = scope.spawn(|| leftovers.freed_bytes());
            while !leftovers.removing.is_locked_exclusive() {
                assert!(!freed.is_finished(), "it has not waited");
                thread::yield_now();
            }
            gate.open();
            assert_eq!(freed.join().unwrap(), 5);
        });
    }

    #[test]
    fn a_file_whose_removal_fails_is_tried_after_ever_longer_pauses() {
        let disk = SimFs::new();
        let dir = disk.open_dir(Path::new("/")).unwrap();
        let leftovers = Arc::new(Leftovers::new(Arc::clone(&dir)));
        for number in 0..10 {
            dir.open(&number.to_string(), OpenMode::CreateNew).unwrap();
            leftovers.add_file(number.to_string(), 5);
        }
        disk.inject(Fault { kind: FaultKind::Denied, nth: 0, repeat: Repeat::Always });
        for _ in 0..1000 {
            leftovers.remove(Which::Due);
        }
        let tried = || disk.ops().iter().filter(|op| op.kind == OpKind::Remove).count();
        assert!((50..200).contains(&tried()), "{}", tried());
        assert_eq!((leftovers.count(), leftovers.any_untried()), ((10, 50), false));
        disk.heal();
        leftovers.remove(Which::All);
        assert_eq!((leftovers.count(), dir.list().unwrap().len()), ((0, 0), 0));
        let id = SegmentId::new(7);
        dir.open(&directory::segment_file_name(id), OpenMode::CreateNew).unwrap();
        let held = [leftovers.hold([id].into_iter()), leftovers.hold([id].into_iter())];
        leftovers.add(id, 5);
        for held in held {
            leftovers.remove(Which::All);
            assert_eq!((leftovers.count(), dir.list().unwrap().len()), ((1, 5), 1));
            drop(held);
        }
        leftovers.remove(Which::Due);
        assert_eq!((leftovers.count(), dir.list().unwrap().len()), ((0, 0), 0));
        leftovers.add_file("absent".to_owned(), 0);
        assert!(leftovers.any_untried());
        leftovers.remove(Which::Due);
        assert_eq!(leftovers.count(), (0, 0));
    }
}
