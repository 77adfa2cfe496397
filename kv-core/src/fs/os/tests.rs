use super::*;
use crate::fs::{DirExt, FileExt, FsExt};
use crate::{Error, Result};

#[test]
fn a_link_leads_to_the_bytes_until_its_own_removal() {
    let dir = tempfile::tempdir().unwrap();
    OsFs.create_dir(&dir.path().join("into")).unwrap();
    let (handle, into) =
        (OsFs.open_dir(dir.path()).unwrap(), OsFs.open_dir(&dir.path().join("into")).unwrap());
    handle.write_file_atomically("x", b"one").unwrap();
    assert_eq!(handle.link_count("x").unwrap(), 1);
    handle.link("x", &*into, "y").unwrap();
    assert_eq!((handle.link_count("x").unwrap(), into.link_count("y").unwrap()), (2, 2));
    let again = handle.link("x", &*into, "y").unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(handle.link("absent", &*into, "z").unwrap_err().kind(), io::ErrorKind::NotFound);
    handle.write_file_atomically("x", b"two").unwrap();
    assert_eq!(into.read_file("y", 9).unwrap(), b"one");
    into.remove_file("y").unwrap();
    assert_eq!(into.link_count("y").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(handle.read_file("x", 9).unwrap(), b"two");
}

fn lock(dir: &Path, kind: LockKind) -> Result<Box<dyn DirLock>> {
    OsFs.open_dir(dir).unwrap().lock_or_refuse(kind)
}

fn is_locked(dir: &Path, kind: LockKind) -> bool {
    matches!(lock(dir, kind), Err(Error::Locked { .. }))
}

#[test]
fn a_writer_excludes_all_and_readers_exclude_writers() {
    let dir = tempfile::tempdir().unwrap();
    let reader = lock(dir.path(), LockKind::Shared).unwrap();
    assert_eq!(OsFs.list(dir.path()).unwrap(), [""; 0], "a reader leaves nothing");
    drop(reader);
    for _ in 0..2 {
        let writer = lock(dir.path(), LockKind::Exclusive).unwrap();
        writer.check().unwrap();
        assert!(is_locked(dir.path(), LockKind::Exclusive) && is_locked(dir.path(), LockKind::Shared));
        drop(writer);
        let readers = [(); 2].map(|()| lock(dir.path(), LockKind::Shared).unwrap());
        assert!(is_locked(dir.path(), LockKind::Exclusive));
        drop(readers);
    }
}

#[test]
fn two_locks_through_one_handle_are_independent() {
    let dir = tempfile::tempdir().unwrap();
    let handle = OsFs.open_dir(dir.path()).unwrap();
    let mut readers = [(); 2].map(|()| Some(handle.lock_or_refuse(LockKind::Shared).unwrap()));
    readers[0] = None;
    assert!(is_locked(dir.path(), LockKind::Exclusive), "the other reader has gone");
    drop(readers);
    let writer = handle.lock_or_refuse(LockKind::Exclusive).unwrap();
    assert!(handle.lock(LockKind::Exclusive).unwrap().is_none());
    assert!(handle.lock(LockKind::Shared).unwrap().is_none());
    OsFs.remove_file(&dir.path().join(LOCK_FILE)).unwrap();
    assert!(is_locked(dir.path(), LockKind::Exclusive), "a refused lock released the writer's");
    drop(writer);
    lock(dir.path(), LockKind::Exclusive).unwrap();
}

#[test]
fn without_its_lock_file_a_directory_stays_locked_and_the_holder_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let writer = lock(dir.path(), LockKind::Exclusive).unwrap();
    OsFs.remove_file(&dir.path().join(LOCK_FILE)).unwrap();
    assert!(is_locked(dir.path(), LockKind::Exclusive));
    assert_eq!(writer.check().unwrap_err().kind(), io::ErrorKind::NotFound);
    OsFs.open(&dir.path().join(LOCK_FILE), OpenMode::CreateNew).unwrap();
    assert_eq!(writer.check().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(!writer.is_dir_removed());
    drop(writer);
    lock(dir.path(), LockKind::Exclusive).unwrap().check().unwrap();
}

#[test]
#[expect(clippy::disallowed_methods, reason = "another process does it")]
fn a_handle_stays_with_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("store"), dir.path().join("moved"));
    OsFs.create_dir_durably(&old).unwrap();
    let handle = OsFs.open_dir(&old).unwrap();
    let held = handle.lock_or_refuse(LockKind::Exclusive).unwrap();
    std::fs::rename(&old, &new).unwrap();
    OsFs.create_dir_durably(&old).unwrap();
    handle.write_file_atomically("x", b"one").unwrap();
    held.check().unwrap();
    assert!(!held.is_dir_removed());
    assert_eq!(OsFs.list(&old).unwrap(), [""; 0]);
    assert_eq!(OsFs.list(&new).unwrap(), [LOCK_FILE, "x"]);
    std::fs::remove_dir_all(&new).unwrap();
    assert_eq!(held.check().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(held.is_dir_removed());
    handle.write_file_atomically("x", b"two").unwrap_err();
}

/// A child inherits the open files of its parent until it executes its program.
#[test]
fn processes_that_are_being_started_hold_no_lock() {
    let (dir, stop) = (tempfile::tempdir().unwrap(), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::process::Command::new("true").status().unwrap();
                }
            });
        }
        let reopened = (0..300).try_for_each(|_| lock(dir.path(), LockKind::Exclusive).map(drop));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        reopened.unwrap();
    });
}

#[test]
fn allocated_space_reads_as_zeros_and_writes_past_the_end_fill_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsFs.open(&dir.path().join("x"), OpenMode::CreateNew).unwrap();
    file.allocate(4096).unwrap();
    assert_eq!(file.len().unwrap(), 4096);
    file.write_all_at(b"end", 5000).unwrap();
    let mut buf = vec![1; 6000];
    assert_eq!(file.read_full_at(&mut buf, 0).unwrap(), 5003);
    assert!(buf.iter().take(5000).all(|byte| *byte == 0));
    assert_eq!(buf.get(5000..5003), Some(b"end".as_slice()));
    let again = OsFs.open(&dir.path().join("x"), OpenMode::CreateNew).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn direct_io_writes_what_reads_through_the_cache_find() {
    // In the working directory: the system's place for temporary files may be memory.
    let dir = tempfile::tempdir_in(".").unwrap();
    let file = OsFs.open(&dir.path().join("x"), OpenMode::CreateNew).unwrap();
    file.write_all_at(b"through the cache", 0).unwrap();
    let Some(align) = file.set_direct_io(true).unwrap() else { return };
    let mut buffer = vec![7; 3 * align];
    let start = buffer.as_ptr().align_offset(align);
    let blocks = buffer.get_mut(start..start + 2 * align).unwrap();
    file.write_all_at(blocks, align as u64).unwrap();
    let refused = file.write_at(blocks.get(..100).unwrap(), 0).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(file.set_direct_io(false).unwrap(), None);
    let mut read = vec![0; 4 * align];
    assert_eq!(file.read_full_at(&mut read, 0).unwrap(), 3 * align);
    assert_eq!(read.get(..17), Some(b"through the cache".as_slice()));
    assert!(read.get(align..3 * align).unwrap().iter().all(|byte| *byte == 7));
}
