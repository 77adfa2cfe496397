//! Files that the manifest does not name any more, and that are still there.
//!
//! They go with the next manifest. One that cannot be removed then (an immutable file, a directory
//! of another owner) is tried again ever more seldom, so that many of them cost next to nothing.

use kv_core::Dir;
use parking_lot::Mutex;
use std::io;

#[derive(Debug, Default)]
pub(crate) struct Leftovers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    files: Vec<Leftover>,
    /// Rounds of removal so far.
    round: u64,
}

#[derive(Debug)]
struct Leftover {
    name: String,
    bytes: u64,
    /// Removals that failed.
    failures: u32,
    /// The round from which on it is tried again.
    due: u64,
}

/// Rounds between two attempts at the same file, at most.
const PAUSE_MAX: u64 = 1 << 12;

/// Which files to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Due,
    All,
}

impl Leftovers {
    pub(crate) fn add(&self, name: String, bytes: u64) {
        self.0.lock().files.push(Leftover { name, bytes, failures: 0, due: 0 });
    }

    /// Removes those that can be removed.
    pub(crate) fn remove(&self, dir: &dyn Dir, attempt: Attempt) {
        let mut state = self.0.lock();
        state.round += 1;
        let round = state.round;
        state.files.retain_mut(|leftover| {
            if attempt == Attempt::Due && leftover.due > round {
                return true;
            }
            let is_left = remove_file(dir, &leftover.name).is_err();
            leftover.failures += 1;
            leftover.due = round + (1 << leftover.failures.min(63)).min(PAUSE_MAX);
            is_left
        });
    }

    /// Whether there are any whose removal was not tried yet: they wait for a manifest.
    pub(crate) fn any_untried(&self) -> bool {
        self.0.lock().files.iter().any(|leftover| leftover.failures == 0)
    }

    /// Files, and their bytes.
    pub(crate) fn count(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.files.len() as u64, state.files.iter().map(|leftover| leftover.bytes).sum())
    }
}

/// Removes a file, if it is there.
pub(crate) fn remove_file(dir: &dyn Dir, name: &str) -> io::Result<()> {
    match dir.remove_file(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{Fs, OpenMode};
    use kv_tests::sim::{Fault, FaultKind, OpKind, Repeat, SimFs};
    use std::path::Path;

    #[test]
    fn files_that_cannot_be_removed_are_tried_ever_more_seldom() {
        let disk = SimFs::new();
        let dir = disk.open_dir(Path::new("/")).unwrap();
        let leftovers = Leftovers::default();
        for number in 0..10 {
            dir.open(&number.to_string(), OpenMode::CreateNew).unwrap();
            leftovers.add(number.to_string(), 5);
        }
        disk.inject(Fault { kind: FaultKind::Denied, nth: 0, repeat: Repeat::Always });
        for _ in 0..1000 {
            leftovers.remove(&*dir, Attempt::Due);
        }
        let tried = || disk.ops().iter().filter(|op| op.kind == OpKind::Remove).count();
        assert!((50..200).contains(&tried()), "{}", tried());
        assert_eq!((leftovers.count(), leftovers.any_untried()), ((10, 50), false));
        disk.heal();
        leftovers.remove(&*dir, Attempt::All);
        assert_eq!((leftovers.count(), dir.list().unwrap().len()), ((0, 0), 0));
        leftovers.add("absent".to_owned(), 0);
        assert!(leftovers.any_untried());
        leftovers.remove(&*dir, Attempt::Due);
        assert_eq!(leftovers.count(), (0, 0));
    }
}
