//! Full disks on small real file systems. Each test mounts one, fills it, empties it by deletes,
//! and fills it again, with kills in between. Mounting needs root. Without root the tests are
//! ignored.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test looks at files as another process does")]

use kv_core::{Engine, EngineExt, Error, OpenOptions, Result};
use kv_log::{LogEngine, Options};
use kv_naive::NaiveEngine;
use libtest_mimic::{Arguments, Failed, Trial};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

/// The kind of a file system.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tmpfs,
    /// In an image that this program makes.
    Image(&'static str),
}

const KINDS: [(&str, Kind); 4] = [
    ("tmpfs", Kind::Tmpfs),
    ("ext4", Kind::Image("mkfs.ext4")),
    // Reserves no space ahead, because it has no fallocate.
    ("ext2", Kind::Image("mkfs.ext2")),
    ("xfs", Kind::Image("mkfs.xfs")),
];

/// A small file system, which is unmounted on drop.
struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    fn mount(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn new(kind: Kind, mib: u64) -> std::result::Result<Self, Failed> {
        let mounted = Mounted { dir: tempfile::tempdir()? };
        fs::create_dir(mounted.mount())?;
        match kind {
            Kind::Tmpfs => {
                run(Command::new("mount")
                    .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
                    .arg(mounted.mount()))?;
            }
            Kind::Image(program) => {
                let image = mounted.dir.path().join("image");
                fs::File::create(&image)?.set_len(mib << 20)?;
                run(Command::new(program).arg("-q").arg(&image))?;
                run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(mounted.mount()))?;
            }
        }
        Ok(mounted)
    }

    /// Free bytes.
    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.mount()).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(self.mount()));
    }
}

fn run(command: &mut Command) -> std::result::Result<(), Failed> {
    let output = command.stdin(Stdio::null()).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {told}").into()) }
}

fn is_missing(program: &str) -> bool {
    Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
}

type Open = fn(&Path) -> Result<Arc<dyn Engine>>;

fn open_log(dir: &Path) -> Result<Arc<dyn Engine>> {
    Ok(Arc::new(LogEngine::open(dir, Options::default())?))
}

fn open_naive(dir: &Path) -> Result<Arc<dyn Engine>> {
    Ok(Arc::new(NaiveEngine::open(dir, OpenOptions::default())?))
}

/// Puts values until the disk is full, and returns the number of keys. Syncs at intervals, so that
/// a store that keeps changes in memory notices the full disk in time.
fn fill(store: &dyn Engine, round: u8) -> u32 {
    for number in 0.. {
        let put = store.put(&u32::to_be_bytes(number), &[round; 1000]);
        match if number % 2048 == 2047 { put.and_then(|_| store.sync()) } else { put } {
            Ok(_) => {}
            Err(Error::DiskFull { .. } | Error::Poisoned { .. }) => return number,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("a disk is full before that");
}

/// Fills the rest of the disk with another file.
fn take_what_is_free(disk: &Mounted) {
    let _ = fs::write(disk.mount().join("hog"), vec![1; usize::try_from(disk.free()).unwrap() + (1 << 20)]);
}

fn drill(kind: Kind, mib: u64, open: Open) -> std::result::Result<(), Failed> {
    let disk = Mounted::new(kind, mib)?;
    let dir = disk.mount().join("store");
    let mut first = 0;
    for round in 0..3_u8 {
        let store = open(&dir)?;
        let count = fill(&*store, round);
        let kept = store.stats().keys;
        first = first.max(count);
        assert!(u64::from(count) > (mib << 20) / 1000 / 8, "round {round}: only {count} keys fit");
        assert!(count > first * 6 / 10, "round {round}: {count} keys fit now, {first} did before");
        take_what_is_free(&disk);
        // A store that dumps everything at once may be poisoned. The next opening is as after a
        // kill.
        let closed = store.close();
        drop(store);
        let store = open(&dir)?;
        let keys = store.to_sorted_vec()?;
        if closed.is_ok() {
            assert_eq!(keys.len() as u64, kept, "round {round}");
        }
        // Deletes scattered over all segments. The middle round stops before the end.
        let mut order: Vec<Vec<u8>> = keys.into_iter().map(|(key, _)| key).collect();
        fastrand::Rng::with_seed(u64::from(round)).shuffle(&mut order);
        for (number, key) in order.iter().enumerate() {
            if let Err(error) = store.delete(key) {
                let (free, names) = (
                    disk.free(),
                    fs::read_dir(&dir)?
                        .map(|entry| {
                            let entry = entry.unwrap();
                            (entry.file_name(), entry.metadata().unwrap().len())
                        })
                        .collect::<Vec<_>>(),
                );
                panic!(
                    "round {round}, delete {number}: {error}, {free} free, {:?}, {names:?}",
                    store.stats()
                );
            }
        }
        store.sync()?;
        if let Some(compact) = store.as_compact() {
            compact.compact()?;
        }
        store.close()?;
        fs::remove_file(disk.mount().join("hog"))?;
        assert!(disk.free() > (mib << 20) / 2, "round {round}: only {} bytes are free", disk.free());
        assert_eq!(open(&dir)?.stats().keys, 0);
    }
    Ok(())
}

/// Kills a store several times while it fills the disk and deletes.
fn kills(kind: Kind, mib: u64) -> std::result::Result<(), Failed> {
    let disk = Mounted::new(kind, mib)?;
    let dir = disk.mount().join("store");
    for round in 0..8_u64 {
        let mut child =
            Command::new(std::env::current_exe()?).env(CHILD, &dir).stdout(Stdio::null()).spawn()?;
        std::thread::sleep(std::time::Duration::from_millis(150 + 70 * round));
        child.kill()?;
        child.wait()?;
        let store = open_log(&dir)?;
        store.to_sorted_vec()?;
        store.close()?;
    }
    let store = open_log(&dir)?;
    for (key, _) in store.to_sorted_vec()? {
        store.delete(&key)?;
    }
    store.put_durable(b"after all", b"goes on")?;
    Ok(())
}

/// Tells a child process to fill the store in a directory until it is killed.
const CHILD: &str = "KV_LOG_SMALL_DISK_DIR";

fn fill_until_killed(dir: &Path) {
    let store = open_log(dir).unwrap();
    for round in (0..=u8::MAX).cycle() {
        let count = fill(&*store, round);
        for number in 0..count {
            store.delete(&u32::to_be_bytes(number * 7919 % count.max(1))).unwrap();
        }
    }
}

fn main() -> ExitCode {
    if let Some(dir) = std::env::var_os(CHILD) {
        fill_until_killed(Path::new(&dir));
        return ExitCode::SUCCESS;
    }
    let is_root = rustix::process::geteuid().is_root();
    let mut trials = Vec::new();
    for (name, kind) in KINDS {
        let missing = matches!(kind, Kind::Image(program) if is_missing(program));
        let why = if !is_root {
            " (needs root)"
        } else if missing {
            " (its mkfs is not installed)"
        } else {
            ""
        };
        // XFS has a minimal size.
        let mib = if name == "xfs" { 320 } else { 64 };
        let mut trial = |what: &str, test: Box<dyn FnOnce() -> std::result::Result<(), Failed> + Send>| {
            trials.push(Trial::test(format!("{name}_{what}{why}"), test).with_ignored_flag(!why.is_empty()));
        };
        trial("log", Box::new(move || drill(kind, mib, open_log)));
        trial("log_killed", Box::new(move || kills(kind, mib)));
        trial("naive", Box::new(move || drill(kind, mib, open_naive)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
