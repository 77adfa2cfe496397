use crate::fs::{Dir, DirExt, File, OpenMode};
use crate::{Error, Result};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Space on the disk that an engine holds back for the way out of a full disk: a part that engines
/// share.
///
/// The space lies in a file of its own, [`Reserve::FILE`]. When an operation finds the disk full,
/// the engine [gives](Self::give) a part of it back to the disk, and tries the operation again.
/// Once there is room, it [holds](Self::hold) as much as before. Nothing depends on the file:
/// it holds no data, is never synced, and may be missing. Another process may take the space
/// between the two steps.
///
/// ```
/// use kv_core::{Fs, OsFs, parts::Reserve};
///
/// # let dir = tempfile::tempdir().unwrap();
/// let reserve = Reserve::open(OsFs.open_dir(dir.path()).unwrap());
/// reserve.hold(64 << 10);
/// assert_eq!(reserve.len(), 64 << 10);
/// // 48 KiB of it for an operation that found the disk full. The rest is for others.
/// assert!(reserve.give(48 << 10, 16 << 10));
/// assert!(!reserve.give(1, 16 << 10));
/// assert_eq!(reserve.len(), 16 << 10);
/// ```
#[derive(Debug)]
pub struct Reserve {
    dir: Arc<dyn Dir>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    file: Option<Box<dyn File>>,
    len: u64,
}

/// File systems give out space in such units, bytes.
const BLOCK_LEN: u64 = 4096;

impl Reserve {
    /// Name of its file.
    pub const FILE: &str = "RESERVE";

    /// No reserve: for a store that is only read.
    pub fn none(dir: Arc<dyn Dir>) -> Self {
        Reserve { dir, held: Mutex::default() }
    }

    /// The reserve of a store, as it was left.
    pub fn open(dir: Arc<dyn Dir>) -> Self {
        let found = dir.open(Self::FILE, OpenMode::ReadWrite).and_then(|file| {
            let len = file.len()?;
            Ok(Held { file: Some(file), len })
        });
        Reserve { dir, held: Mutex::new(found.unwrap_or_default()) }
    }

    /// How many bytes are held.
    pub fn len(&self) -> u64 {
        self.held().len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Holds `len` bytes, rounded up to blocks, or as many as the disk has room for: then the
    /// answer is `false`. Gives back the excess where that is half or more. Where a reserve cannot
    /// be had for another reason (a limit of file sizes), the store has to do with less, and the
    /// answer is `true`.
    pub fn hold(&self, len: u64) -> bool {
        let len = len.next_multiple_of(BLOCK_LEN);
        let mut held = self.held();
        if held.len >= 2 * len {
            held.shrink(len);
        }
        let (mut missing, mut is_full) = (len.saturating_sub(held.len), false);
        while missing >= BLOCK_LEN {
            let wanted = held.len + missing;
            match held.grow(&*self.dir, wanted).map_err(|error| error.kind()) {
                Ok(()) if held.len == len => break,
                Err(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => is_full = true,
                // A part: perhaps there is room for more.
                Ok(()) | Err(io::ErrorKind::FileTooLarge) => {}
                Err(_) => return true,
            }
            missing = if missing > BLOCK_LEN { (missing / 2).next_multiple_of(BLOCK_LEN) } else { 0 };
        }
        !is_full
    }

    /// Gives `len` bytes back to the disk, rounded up to blocks, or as many as there are above
    /// `keep`. `false` when there is nothing to give.
    pub fn give(&self, len: u64, keep: u64) -> bool {
        let mut held = self.held();
        let left = held.len.saturating_sub(len.max(1).next_multiple_of(BLOCK_LEN));
        let left = left.max(keep.next_multiple_of(BLOCK_LEN));
        left < held.len && held.shrink(left)
    }

    /// Carries out `operation`; where it finds the disk full, gives it `len` bytes of the reserve,
    /// and carries it out once more. If that fails as well, the reserve takes its space back.
    ///
    /// # Errors
    /// As `operation` answers, the second time if there is one.
    pub fn lend<T>(&self, len: u64, keep: u64, mut operation: impl FnMut() -> Result<T>) -> Result<T> {
        let before = self.len();
        match operation() {
            Err(Error::DiskFull { .. }) if self.give(len, keep) => operation().inspect_err(|_| {
                self.hold(before);
            }),
            answer => answer,
        }
    }

    /// As [`DirExt::write_file_atomically`], on a full disk with space from the reserve.
    ///
    /// # Errors
    /// As there.
    pub fn write_file_atomically(&self, name: &str, content: &[u8]) -> Result<()> {
        let len = content.len() as u64 + BLOCK_LEN;
        self.lend(len, 0, || self.dir.write_file_atomically(name, content))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn grow(&mut self, dir: &dyn Dir, len: u64) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => dir.open(Reserve::FILE, OpenMode::CreateOrTruncate)?,
        };
        let grown = file.allocate(len);
        if grown.is_err() {
            // A part of it may have been found before the disk was full.
            let _ = file.set_len(self.len);
        }
        self.file = Some(file);
        grown?;
        self.len = len;
        Ok(())
    }

    fn shrink(&mut self, len: u64) -> bool {
        let is_shrunk = self.file.as_ref().is_some_and(|file| file.set_len(len).is_ok());
        if is_shrunk {
            self.len = len;
        }
        is_shrunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Op;
    use crate::fs::{Fs, FsExt, OsFs};

    #[test]
    fn it_grows_gives_and_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Reserve::open(OsFs.open_dir(dir.path()).unwrap());
        let reserve = open();
        assert!(reserve.is_empty() && !reserve.give(1, 0));
        assert_eq!(OsFs.list(dir.path()).unwrap(), [""; 0], "there is no file before there is space in it");
        reserve.hold(10_000);
        assert_eq!((reserve.len(), open().len()), (12_288, 12_288));
        assert!(reserve.give(1, 4096) && reserve.len() == 8192);
        assert!(reserve.give(10_000, 4096), "as much as may go");
        assert_eq!((reserve.len(), open().len()), (4096, 4096));
        assert!(!reserve.give(1, 4096) && !reserve.give(1, 1));
        open().hold(1 << 20);
        let reserve = open();
        reserve.hold(600_000);
        assert_eq!(reserve.len(), 1 << 20, "a little too much stays");
        reserve.hold(500_000);
        assert_eq!(reserve.len(), 503_808);
    }

    #[test]
    fn it_lends_once_and_only_where_the_disk_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::open(OsFs.open_dir(dir.path()).unwrap());
        reserve.hold(8192);
        let full = || Error::io(Op::Write, dir.path(), io::ErrorKind::StorageFull.into());
        let mut calls = 0;
        let mut failing = |times, error: Error| {
            calls = 0;
            reserve.lend(8192, 0, || {
                calls += 1;
                if calls <= times { Err(error.clone()) } else { Ok(calls) }
            })
        };
        assert_eq!(failing(0, full()).unwrap(), 1);
        assert!(matches!(failing(1, Error::Closed), Err(Error::Closed)));
        assert_eq!(failing(1, full()).unwrap(), 2);
        assert!(reserve.is_empty());
        reserve.hold(8192);
        assert!(matches!(failing(9, full()), Err(Error::DiskFull { .. })));
        assert_eq!(reserve.len(), 8192);
        assert!(reserve.give(8192, 0));
        assert!(matches!(failing(1, full()), Err(Error::DiskFull { .. })), "nothing is left");
        assert_eq!(calls, 1);
    }
}
