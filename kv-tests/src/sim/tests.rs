use super::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use kv_core::Fs;
use kv_core::fs::{Dir, DirLock, FileExt, FsExt, LOCK_FILE, LockKind, OpenMode};
use kv_core::parts::Reserve;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const ROOT: &str = "/";
const LOG: &str = "/log";

fn root(disk: &SimFs) -> Arc<dyn Dir> {
    disk.open_dir(Path::new(ROOT)).unwrap()
}

fn lock(disk: &SimFs) -> Option<Box<dyn DirLock>> {
    root(disk).lock(LockKind::Exclusive).unwrap()
}

/// A disk with a synced file of 1,024 bytes of 1, overwritten with 2 without a sync.
fn overwritten() -> SimFs {
    let disk = SimFs::new();
    let file = disk.open(Path::new(LOG), OpenMode::CreateNew).unwrap();
    file.write_all_at(&[1; 1024], 0).unwrap();
    file.sync_data().unwrap();
    root(&disk).sync().unwrap();
    file.write_all_at(&[2; 1024], 0).unwrap();
    disk
}

fn read(disk: &SimFs) -> Vec<u8> {
    disk.read_file(Path::new(LOG)).unwrap()
}

#[test]
fn unsynced_sectors_are_kept_lost_and_torn_one_by_one() {
    let disk = overwritten();
    assert_eq!(read(&disk), [2; 1024]);
    assert_eq!(read(&disk.power_cut(PowerCut::LOSE_ALL)), [1; 1024]);
    assert_eq!(read(&disk.power_cut(PowerCut::KEEP_ALL)), [2; 1024]);
    assert_eq!(read(&disk.process_death()), [2; 1024]);
    let outcomes: BTreeSet<Vec<u8>> =
        (2..300).map(|seed| read(&disk.power_cut(PowerCut::seeded(seed)))).collect();
    let sector = |byte: u8, other: u8| [vec![byte; 512], vec![other; 512]].concat();
    for expected in [sector(1, 1), sector(1, 2), sector(2, 1), sector(2, 2)] {
        assert!(outcomes.contains(&expected), "{:?} never happened", (expected[0], expected[1023]));
    }
    assert!(outcomes.len() > 4, "no sector was ever torn");
}

#[test]
fn synced_bytes_always_survive() {
    let disk = overwritten();
    let file = disk.open(Path::new(LOG), OpenMode::ReadWrite).unwrap();
    file.sync_data().unwrap();
    for seed in 0..100 {
        assert_eq!(read(&disk.power_cut(PowerCut::seeded(seed))), [2; 1024]);
    }
}

#[test]
fn lengths_are_independent_of_data() {
    let disk = overwritten();
    let file = disk.open(Path::new(LOG), OpenMode::ReadWrite).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[3; 1024], 1024).unwrap();
    let images: Vec<Vec<u8>> = (0..300).map(|seed| read(&disk.power_cut(PowerCut::seeded(seed)))).collect();
    assert!(images.iter().all(|image| image.starts_with(&[2; 1024])));
    assert!(images.iter().any(|image| image.len() == 1024));
    assert!(images.iter().any(|image| image.len() == 2048 && image[1024..] == [0; 1024]));
    assert!(images.iter().any(|image| image.len() == 2048 && image[1024..] == [3; 1024]));
}

#[test]
fn names_are_durable_after_the_directory_is_synced() {
    let disk = overwritten();
    root(&disk).rename("log", "moved").unwrap();
    let names = |disk: &SimFs| disk.list(Path::new(ROOT)).unwrap();
    let outcomes: BTreeSet<Vec<String>> =
        (0..50).map(|seed| names(&disk.power_cut(PowerCut::seeded(seed)))).collect();
    assert_eq!(
        outcomes,
        BTreeSet::from([vec!["log".to_owned()], vec!["moved".to_owned()]]),
        "a rename is atomic"
    );
    root(&disk).sync().unwrap();
    disk.remove_file(Path::new("/moved")).unwrap();
    assert_eq!(names(&disk.power_cut(PowerCut::LOSE_ALL)), ["moved"]);
    root(&disk).sync().unwrap();
    assert!(names(&disk.power_cut(PowerCut::LOSE_ALL)).is_empty());
}

#[test]
fn after_the_cut_nothing_works() {
    let disk = SimFs::new();
    disk.cut_after(2);
    let file = disk.open(Path::new(LOG), OpenMode::CreateNew).unwrap();
    file.write_all_at(b"a", 0).unwrap();
    file.write_all_at(b"b", 1).unwrap_err();
    assert!(disk.has_lost_power());
    file.sync_data().unwrap_err();
    disk.list(Path::new(ROOT)).unwrap_err();
    assert_eq!(read(&disk.process_death()), b"a");
}

#[test]
fn a_failed_sync_shows_bytes_that_no_later_sync_saves() {
    let disk = overwritten();
    disk.inject(Fault { kind: FaultKind::Sync, nth: 0, repeat: Repeat::Once });
    let file = disk.open(Path::new(LOG), OpenMode::ReadWrite).unwrap();
    file.sync_data().unwrap_err();
    assert_eq!(read(&disk), [2; 1024]);
    file.sync_data().unwrap();
    assert_eq!(read(&disk.power_cut(PowerCut::LOSE_ALL)), [1; 1024]);
    assert_eq!(disk.faults_fired(), 1);
}

#[test]
fn a_failed_sync_of_a_directory_shows_names_that_no_later_sync_saves() {
    let disk = overwritten();
    let (dir, names) = (root(&disk), |disk: &SimFs| disk.list(Path::new(ROOT)).unwrap());
    dir.open("new", OpenMode::CreateNew).unwrap();
    dir.rename("log", "moved").unwrap();
    disk.create_dir(Path::new("/dir")).unwrap();
    disk.inject(Fault { kind: FaultKind::Sync, nth: 0, repeat: Repeat::Once });
    dir.sync().unwrap_err();
    dir.sync().unwrap();
    assert_eq!(names(&disk), ["dir", "moved", "new"]);
    assert_eq!(names(&disk.power_cut(PowerCut::LOSE_ALL)), ["dir", "log"]);
    assert_eq!(names(&disk.power_cut(PowerCut::KEEP_ALL)), ["dir", "moved", "new"]);
    // New changes of the same names become durable, also if the old ones are lost.
    dir.remove_file("new").unwrap();
    dir.rename("moved", "log").unwrap();
    dir.sync().unwrap();
    for seed in 0..50 {
        assert_eq!(names(&disk.power_cut(PowerCut::seeded(seed))), ["dir", "log"]);
    }
}

#[test]
fn a_directory_is_locked_once_until_its_holder_goes() {
    let disk = SimFs::new();
    let held = lock(&disk).unwrap();
    assert!(lock(&disk).is_none() && root(&disk).lock(LockKind::Shared).unwrap().is_none());
    assert!(lock(&disk.process_death()).is_some());
    drop(held);
    let readers = [(); 2].map(|()| root(&disk).lock(LockKind::Shared).unwrap().unwrap());
    assert!(lock(&disk).is_none());
    drop(readers);
    assert!(lock(&disk).is_some());
}

#[test]
fn direct_io_is_refused_unless_it_is_aligned_and_moves_whole_sectors() {
    let disk = overwritten();
    let file = disk.open(Path::new(LOG), OpenMode::ReadWrite).unwrap();
    let align = file.set_direct_io(true).unwrap().unwrap();
    assert_eq!(align, 512);
    let memory = vec![3; 4 * align];
    let start = memory.as_ptr().align_offset(align);
    let sectors = &memory[start..start + 2 * align];
    for (bytes, offset) in [(&sectors[..511], 0), (&sectors[..512], 8), (&sectors[8..520], 0)] {
        let error = file.write_at(bytes, offset).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
    disk.inject(Fault { kind: FaultKind::ShortTransfer, nth: 0, repeat: Repeat::Once });
    assert_eq!(file.write_at(&sectors[..512], 0).unwrap(), 512);
    assert_eq!(file.write_at(sectors, 512).unwrap(), 1024);
    assert_eq!(file.set_direct_io(false).unwrap(), None);
    file.write_all_at(&[4], 7).unwrap();
    assert_eq!(read(&disk), [&[3; 7][..], &[4], &[3; 1528]].concat());
    assert_eq!(read(&disk.power_cut(PowerCut::LOSE_ALL)), [1; 1024]);
}

#[test]
fn a_limited_disk_refuses_growth_until_space_is_free() {
    let disk = overwritten();
    disk.limit_space(Some(1536));
    let (fs, other) = (&disk, Path::new(ROOT).join("other"));
    let file = fs.open(&other, OpenMode::CreateNew).unwrap();
    file.allocate(512).unwrap();
    file.write_at(&[5; 512], 0).unwrap();
    let is_full = |answer: std::io::Result<()>| answer.unwrap_err().kind() == std::io::ErrorKind::StorageFull;
    assert!(is_full(file.allocate(513)) && is_full(file.write_at(&[5; 2], 511).map(drop)));
    assert_eq!(file.len().unwrap(), 512);
    fs.open(Path::new(LOG), OpenMode::ReadWrite).unwrap().set_len(1023).unwrap();
    file.write_at(&[5; 2], 511).unwrap();
    assert!(is_full(file.allocate(514)));
    fs.remove_file(Path::new(LOG)).unwrap();
    file.allocate(1536).unwrap();
}

#[test]
fn a_handle_stays_with_its_directory_and_its_lock_tells_when_that_is_gone() {
    let disk = SimFs::new();
    let (store, moved) = (Path::new("/store"), Path::new("/moved"));
    disk.create_dir(store).unwrap();
    let handle = disk.open_dir(store).unwrap();
    let held = handle.lock(LockKind::Exclusive).unwrap().unwrap();
    disk.move_dir(store, Some(moved)).unwrap();
    disk.create_dir(store).unwrap();
    handle.open("x", OpenMode::CreateNew).unwrap();
    held.check().unwrap();
    assert_eq!((disk.list(store).unwrap(), disk.list(moved).unwrap()), (vec![], names([LOCK_FILE, "x"])));
    handle.remove_file(LOCK_FILE).unwrap();
    assert!(held.check().is_err());
    handle.open(LOCK_FILE, OpenMode::CreateNew).unwrap();
    assert!(held.check().is_err(), "it was replaced");
    disk.move_dir(moved, None).unwrap();
    assert!(held.check().is_err() && handle.open("y", OpenMode::CreateNew).is_err());
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

/// The disks that a process may leave if it dies while it creates `path`, or after that.
fn left_by_creator(disk: &SimFs, path: &str) -> Vec<SimFs> {
    let mut left = Vec::new();
    for mutations in 0.. {
        let disk = disk.process_death();
        disk.cut_after(mutations);
        let created = disk.create_dir_durably(Path::new(path));
        left.push(disk.process_death());
        if created.is_ok() {
            break;
        }
    }
    left
}

#[test]
fn a_created_directory_is_durable_if_the_creators_of_its_parents_died() {
    let mut states = 0;
    for first in left_by_creator(&SimFs::new(), "/a/b") {
        for second in left_by_creator(&first, "/a/b/c") {
            second.create_dir_durably(Path::new("/a/b/c/d")).unwrap();
            let names = second.power_cut(PowerCut::LOSE_ALL).list(Path::new("/a/b/c"));
            assert_eq!(names.unwrap(), ["d"], "after {:?} and {:?}", first.ops(), second.ops());
            states += 1;
        }
    }
    assert!(states > 10, "{states}");
}

#[test]
fn a_reserve_holds_as_many_bytes_as_the_disk_has_room_for() {
    const BLOCK: u64 = 4096;
    for room in (0..60).map(|number| number * 1777) {
        let disk = SimFs::new();
        disk.limit_space(Some(room));
        let reserve = Reserve::open(disk.open_dir(Path::new("/")).unwrap());
        assert!(!reserve.hold(1 << 20));
        assert_eq!(reserve.len(), room / BLOCK * BLOCK, "of {room}");
    }
}

#[test]
fn a_link_is_another_name_of_the_same_bytes() {
    let disk = overwritten();
    disk.create_dir(Path::new("/into")).unwrap();
    root(&disk).sync().unwrap();
    let into = disk.open_dir(Path::new("/into")).unwrap();
    root(&disk).link("log", &*into, "kept").unwrap();
    let taken = root(&disk).link("log", &*into, "kept").unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AlreadyExists);
    let kept = Path::new("/into/kept");
    let has = |disk: &SimFs| disk.list(Path::new("/into")).unwrap() == ["kept"];
    assert!(!has(&disk.power_cut(PowerCut::LOSE_ALL)) && has(&disk.power_cut(PowerCut::KEEP_ALL)));
    into.sync().unwrap();
    // The sync of the directory is none of the file. A sync of the file counts for both names.
    assert_eq!(disk.power_cut(PowerCut::LOSE_ALL).read_file(kept).unwrap(), [1; 1024]);
    disk.open(Path::new(LOG), OpenMode::ReadWrite).unwrap().sync_data().unwrap();
    // Another file takes the first name, also on the medium. The second one stays.
    disk.open(Path::new("/new"), OpenMode::CreateNew).unwrap().write_all_at(&[3], 0).unwrap();
    root(&disk).rename("new", "log").unwrap();
    for cut in [PowerCut::LOSE_ALL, PowerCut::KEEP_ALL] {
        assert_eq!(disk.power_cut(cut).read_file(kept).unwrap(), [2; 1024]);
    }
    root(&disk).sync().unwrap();
    assert_eq!(disk.power_cut(PowerCut::LOSE_ALL).read_file(kept).unwrap(), [2; 1024]);
}

#[test]
fn a_linked_file_takes_its_space_once_and_keeps_its_names_when_one_is_renamed() {
    let disk = SimFs::new();
    let file = disk.open(Path::new(LOG), OpenMode::CreateNew).unwrap();
    file.write_all_at(&[1; 1024], 0).unwrap();
    let dir = root(&disk);
    dir.link("log", &*dir, "kept").unwrap();
    dir.sync().unwrap();
    disk.limit_space(Some(2048));
    file.write_all_at(&[2; 1024], 1024).unwrap();
    assert!(file.write_all_at(&[2], 2048).is_err());
    dir.rename("log", "kept").unwrap();
    assert_eq!(disk.list(Path::new(ROOT)).unwrap(), ["kept", "log"], "both are names of the same file");
    dir.rename("log", "moved").unwrap();
    for (cut, name) in [(PowerCut::LOSE_ALL, "log"), (PowerCut::KEEP_ALL, "moved")] {
        assert_eq!(disk.power_cut(cut).list(Path::new(ROOT)).unwrap(), ["kept", name]);
    }
    dir.remove_file("moved").unwrap();
    assert!(file.write_all_at(&[2], 2048).is_err(), "its bytes are there under the other name");
    dir.remove_file("kept").unwrap();
    disk.open(Path::new(LOG), OpenMode::CreateNew).unwrap().write_all_at(&[3; 2048], 0).unwrap();
}
