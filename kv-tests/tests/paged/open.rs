//! Opening: recovery or creation, and then the next generation.

use super::commit::{Opened, Store, View};
use super::control::Control;
use super::defect::{Broken, Defect};
use super::engine::Paged;
use super::format::{CONTROL, is_of_generation, snapshot_name, wal_name};
use super::generation::{Files, Pinned};
use super::scratch::ProcessLock;
use super::snapshot;
use super::tail::Place;
use super::tree::Tree;
use super::wal;
use kv_core::fs::{Dir, DirExt, FsExt, LOCK_FILE, LockKind, is_system_file};
use kv_core::parts::{Reserve, StoreLock};
use kv_core::{
    Capabilities, Change, Engine, EngineFactory, Env, Error, Lsn, Op, OpenOptions, RecoveryReport, Result,
};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// Opens the engine; without a defect by default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PagedFactory {
    broken: Broken,
    safety: Safety,
}

/// How changes survive the death of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Safety {
    /// The policy says when the operating system gets them.
    #[default]
    ByPolicy,
    /// The operating system has each before its call returns.
    HandedOver,
    /// Shared memory has each before its call returns, or the operating system.
    InTail,
}

impl PagedFactory {
    pub(crate) fn with_defect(defect: Defect) -> Self {
        let factory = match defect {
            defect if defect.is_of_process_safety() => PagedFactory::process_safe(),
            defect if defect.is_of_tail() => PagedFactory::with_tail(),
            _ => PagedFactory::default(),
        };
        PagedFactory { broken: Broken::with(defect), ..factory }
    }

    /// Opens engines that hand each change to the operating system before its call returns.
    pub(crate) fn process_safe() -> Self {
        PagedFactory { safety: Safety::HandedOver, ..PagedFactory::default() }
    }

    /// Opens engines that keep each change in shared memory.
    pub(crate) fn with_tail() -> Self {
        PagedFactory { safety: Safety::InTail, ..PagedFactory::default() }
    }
}

impl EngineFactory for PagedFactory {
    fn name(&self) -> &'static str {
        "paged"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().compact(true).read_only(true).process_safe(self.safety != Safety::ByPolicy)
    }

    fn open(&self, dir: &Path, env: &Env, options: &OpenOptions) -> Result<Arc<dyn Engine>> {
        options.limits.validate()?;
        let mut store = open(dir, env, options, self.safety == Safety::InTail, self.broken)?;
        store.is_process_safe = self.safety != Safety::ByPolicy;
        Ok(Arc::new(Paged::start(store)?))
    }
}

fn open(path: &Path, env: &Env, options: &OpenOptions, has_tail: bool, broken: Broken) -> Result<Store> {
    let start = env.clock.monotonic();
    // Before the lock, which may leave a file: never in a foreign directory. Behind the lock the
    // directory is judged again.
    is_store(path, &env.fs.list_if_exists(path)?.unwrap_or_default(), options)?;
    if !options.read_only {
        env.fs.create_dir_durably(path)?;
    }
    let dir = env.fs.open_dir(path).map_err(|error| Error::io(Op::Open, path, error))?;
    let lock = StoreLock::new(path, lock(&*dir, options, broken)?);
    let names = dir.names()?;
    let is_new = !is_store(path, &names, options)?;
    let control = if is_new {
        Control { store_id: env.draw_store_id(path), ..Control::default() }
    } else {
        Control::read(&*dir, broken)?
    };
    if broken.is(Defect::RefusedOpenRemovesStrays) {
        strays(&names, &control).for_each(|name| drop(dir.remove_file(name)));
    }
    let mut recovered = recover(&*dir, &control, options, broken)?;
    let place = if has_tail { Place::of(env, &*dir, &control, broken) } else { None };
    let in_files = Arc::clone(&recovered.view.tree);
    if let Some(place) = &place {
        recovered.adopt(place, &control, broken);
    }
    let control = Control { opening: control.generation + 1, ..control };

    let reserve = if options.read_only { Reserve::none } else { Reserve::open }(Arc::clone(&dir));
    let mut files = Files::new(dir, lock, reserve, control, options.scale, broken);
    files.found(recovered.snapshot_len, recovered.wal_len);
    let floor = control.ceiling.max(recovered.view.last_lsn);
    let (mut durable_lsn, next_lsn) = (recovered.durable_lsn, floor.saturating_add(1));
    if options.read_only && broken.is(Defect::ReaderRemovesStrays) {
        strays(&names, &control).for_each(|name| files.discard(name.clone(), 0));
    }
    let gives_up = if options.read_only { Defect::ReaderTakesTail } else { Defect::TailGivenUpEarly };
    if broken.is(gives_up)
        && let Some(place) = &place
    {
        place.remove();
    }
    if !options.read_only {
        if is_new {
            files.create_store()?;
        } else if !broken.is(Defect::RecoveredNamesNotSynced) {
            // A process that died may have renamed `CONTROL` a moment ago. Until that is durable, a
            // power cut brings the generation before back.
            files.dir().sync_durably()?;
        }
        if !broken.is(Defect::StraysStay) {
            strays(&names, &control).for_each(|name| files.discard(name.clone(), 0));
        }
        let resumes = broken.is(Defect::RecoveryTrustsCache) || broken.is(Defect::RecoveryOnlySyncs);
        if resumes && control.generation > 0 {
            files.resume(&recovered.log, next_lsn, broken.is(Defect::RecoveryOnlySyncs))?;
        } else {
            let tree = if broken.is(Defect::AdoptsInMemoryOnly) {
                in_files
            } else {
                Arc::clone(&recovered.view.tree)
            };
            files.begin_generation(&Pinned {
                tree,
                last_lsn: recovered.view.last_lsn,
                next_lsn,
                snapshot_len: recovered.view.snapshot_len(),
                durable_lsn: Lsn::new(durable_lsn),
            })?;
        }
        durable_lsn = recovered.view.last_lsn;
    }
    let tail = place
        .filter(|_| !options.read_only)
        .and_then(|place| place.begin(&control, options.scale).ok())
        .map(|tail| (tail, control.opening));
    if broken.is(Defect::DurableStartsAtZero) {
        durable_lsn = 0;
    }
    let mut recovery = recovered.report;
    recovery.duration = env.clock.monotonic().saturating_sub(start);
    let longest = recovered.view.tree.entries().map(|entry| entry.key.len()).max().unwrap_or_default();
    let mut view = recovered.view;
    if broken.is(Defect::LastLsnIsReserved) {
        view.last_lsn = floor;
    }
    let key_len_max = options.limits.key_len_max;
    let longest = if broken.is(Defect::LongPresentKeysRefused) { 0 } else { longest };
    let opened =
        Opened { view, next_lsn, durable_lsn, key_len_max: longest.max(key_len_max), recovery, files, tail };
    Ok(Store::new(opened, env, options, broken))
}

fn lock(dir: &dyn Dir, options: &OpenOptions, broken: Broken) -> Result<Box<dyn kv_core::fs::DirLock>> {
    if broken.is(Defect::LocksOnlyInProcess) && dir.path().starts_with(std::env::temp_dir()) {
        return ProcessLock::take(dir);
    }
    let is_shared = options.read_only && !broken.is(Defect::ReadersExclude);
    dir.lock_or_refuse(if is_shared { LockKind::Shared } else { LockKind::Exclusive })
}

/// Whether the directory holds a store. An error where it holds none, and none may begin.
fn is_store(dir: &Path, names: &[String], options: &OpenOptions) -> Result<bool> {
    let not_a_store = |detail| Err(Error::NotAStore { path: dir.to_path_buf(), detail });
    if names.iter().any(|name| name == CONTROL) {
        return Ok(true);
    }
    if names.iter().any(|name| is_of_generation(name)) {
        return Err(Error::corruption(&dir.join(CONTROL), 0, "it is missing"));
    }
    let temporary = format!("{CONTROL}.tmp");
    let is_own = |name: &str| [LOCK_FILE, Reserve::FILE, &temporary].contains(&name) || is_system_file(name);
    if let Some(foreign) = names.iter().find(|name| !is_own(name)) {
        return not_a_store(format!("it holds {foreign}"));
    }
    if options.read_only || !options.create_if_missing {
        return not_a_store("there is none".to_owned());
    }
    Ok(false)
}

/// Files that a crash or a failure left.
fn strays<'a>(names: &'a [String], control: &Control) -> impl Iterator<Item = &'a String> {
    let present = [snapshot_name(control.generation), wal_name(control.generation)];
    let temporary = format!("{CONTROL}.tmp");
    names
        .iter()
        .filter(move |name| (is_of_generation(name) && !present.contains(name)) || **name == temporary)
}

/// The state of a generation.
struct Recovered {
    view: View,
    /// The newest change that is known to be synced.
    durable_lsn: u64,
    report: RecoveryReport,
    snapshot_len: u64,
    wal_len: u64,
    log: wal::Scanned,
}

impl Recovered {
    /// Replays the changes in the tail that the files lack.
    fn adopt(&mut self, place: &Place, control: &Control, broken: Broken) {
        let view = &mut self.view;
        let last_lsn = view.last_lsn;
        let adopted = place.adopt(control, last_lsn, &mut |is_put, key, value| {
            let (key, value) = (key.to_vec(), value.to_vec());
            view.change(&if is_put { Change::Put { key, value } } else { Change::Delete { key } }, broken);
        });
        view.last_lsn = adopted.last_lsn;
        self.report.records += adopted.records;
        self.report.adopted_bytes = adopted.bytes;
        self.report.last_lsn = Lsn::new(adopted.last_lsn);
    }
}

fn recover(dir: &dyn Dir, control: &Control, options: &OpenOptions, broken: Broken) -> Result<Recovered> {
    let tree = Arc::new(Tree::new(options.scale));
    let mut recovered = Recovered {
        view: View { tree, last_lsn: 0, keys: 0, live_bytes: 0 },
        durable_lsn: 0,
        report: RecoveryReport::default(),
        snapshot_len: 0,
        wal_len: 0,
        log: wal::Scanned::default(),
    };
    if control.generation == 0 {
        return Ok(recovered);
    }
    let (snapshot, wal) = (snapshot_name(control.generation), wal_name(control.generation));
    let view = &mut recovered.view;
    let put = |key: &[u8], value: &[u8]| Change::Put { key: key.to_vec(), value: value.to_vec() };
    let bytes = match read(dir, &snapshot) {
        Err(Error::Corruption { .. }) if broken.is(Defect::MissingSnapshotIsEmpty) => {
            snapshot::encode(control, snapshot::Head::default(), &view.tree, broken)
        }
        read => read?,
    };
    let mut load = |key: &[u8], value: &[u8]| view.change(&put(key, value), broken);
    let (head, count) = snapshot::decode(&bytes, &dir.path_of(&snapshot), control, broken, &mut load)?;

    let log = match read(dir, &wal) {
        Err(Error::Corruption { .. }) if broken.is(Defect::MissingLogIsEmpty) => {
            wal::header(control.store_id, control.generation).0
        }
        read => read?,
    };
    let mut replay = |is_put: bool, key: &[u8], value: &[u8]| {
        let change = if is_put { put(key, value) } else { Change::Delete { key: key.to_vec() } };
        view.change(&change, broken);
    };
    let scanned = wal::scan(&log, &dir.path_of(&wal), control, head.last_lsn, broken, &mut replay)?;
    view.last_lsn = scanned.last_lsn;
    if view.keys == 0 && broken.is(Defect::EmptyStoreForgetsLsn) {
        view.last_lsn = 0;
    }
    let all_durable = control.end.is_some() || broken.is(Defect::ReaderCallsAllDurable);
    let marked = head.durable_lsn.max(scanned.marked_lsn);
    recovered.durable_lsn = if all_durable { scanned.last_lsn } else { marked };
    (recovered.snapshot_len, recovered.wal_len) = (bytes.len() as u64, log.len() as u64);
    let report = &mut recovered.report;
    report.records =
        if broken.is(Defect::LoadedNotReported) { scanned.records } else { count + scanned.records };
    report.bytes = recovered.snapshot_len + recovered.wal_len;
    report.files = 2;
    report.torn_bytes = if broken.is(Defect::TornBytesNotReported) { 0 } else { scanned.torn_bytes };
    report.last_lsn = Lsn::new(recovered.view.last_lsn);
    recovered.log = scanned;
    Ok(recovered)
}

/// A file of the present generation.
fn read(dir: &dyn Dir, name: &str) -> Result<Vec<u8>> {
    dir.read_file(name, u64::MAX).map_err(|error| match &error {
        Error::Io { path, source, .. } if source.kind() == ErrorKind::NotFound => {
            Error::corruption(path, 0, "it is missing")
        }
        _ => error,
    })
}
