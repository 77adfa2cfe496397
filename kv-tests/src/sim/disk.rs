use super::fault::{Fault, FaultState, Outcome, no_space};
use super::file::{FileBytes, SECTOR_LEN};
use super::power_cut::Dice;
use super::shared_memory::Objects;
use super::{OpKind, OpRecord, PowerCut};
use kv_core::fs::{DirId, LockKind};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Number of a directory or file on this disk.
pub(super) type NodeId = usize;

/// The directory `/`.
const ROOT: NodeId = 0;

#[derive(Clone, Debug)]
enum Node {
    File { bytes: FileBytes, name: PathBuf },
    Dir(Directory),
}

#[derive(Clone, Debug, Default)]
struct Directory {
    entries: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

type Place = (NodeId, String);

/// A change of directory entries that no directory sync covers yet.
#[derive(Clone, Debug)]
enum NameChange {
    Link { to: Place, node: NodeId },
    Unlink { from: Place, node: NodeId },
    Rename { from: Place, to: Place, node: NodeId },
}

impl NameChange {
    /// The one or two names that it changes.
    fn places(&self) -> [&Place; 2] {
        match self {
            NameChange::Link { to: place, .. } | NameChange::Unlink { from: place, .. } => [place, place],
            NameChange::Rename { from, to, .. } => [from, to],
        }
    }

    fn touches(&self, dir: NodeId) -> bool {
        self.places().iter().any(|place| place.0 == dir)
    }

    /// Whether both change the same name.
    fn meets(&self, other: &NameChange) -> bool {
        self.places().iter().any(|place| other.places().contains(place))
    }

    fn node(&self) -> NodeId {
        match self {
            NameChange::Link { node, .. }
            | NameChange::Unlink { node, .. }
            | NameChange::Rename { node, .. } => *node,
        }
    }

    fn describe(&self) -> String {
        match self {
            NameChange::Link { to, .. } => format!("creation of {}", to.1),
            NameChange::Unlink { from, .. } => format!("removal of {}", from.1),
            NameChange::Rename { from, to, .. } => format!("renaming of {} to {}", from.1, to.1),
        }
    }
}

/// The whole state. `SimFs` guards it with a lock.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    nodes: Vec<Node>,
    /// All directories. Of the nodes, most are files that were removed.
    dirs: Vec<NodeId>,
    /// Changes that the next sync of their directory makes durable.
    pending: Vec<NameChange>,
    /// Changes whose sync failed: the directory shows them, but no later sync makes them durable.
    /// They are older than the pending ones.
    dropped: Vec<NameChange>,
    /// The held locks of each directory.
    locks: BTreeMap<NodeId, Vec<LockKind>>,
    pub(super) log: Vec<OpRecord>,
    pub(super) mutations: u64,
    pub(super) cut_after: Option<u64>,
    pub(super) faults: FaultState,
    /// The limit for the bytes of all files together.
    pub(super) space: Option<u64>,
    /// The alignment of direct transfers that files report. `None`: they support no direct
    /// transfers.
    pub(super) direct_io_align: Option<usize>,
    pub(super) slow_syncs: SlowSyncs,
    /// The outcome for each unsynced thing in the crash that made this disk, one line each.
    pub(super) kept: Vec<String>,
    /// Every open file, directory and lock holds a clone.
    pub(super) handles: Arc<()>,
    /// The shared memory of the machine.
    pub(super) objects: Objects,
}

/// What a sync does before it begins, with no lock held.
#[derive(Clone, Default)]
pub(super) struct SlowSyncs(pub(super) Option<Arc<dyn Fn() + Send + Sync>>);

impl std::fmt::Debug for SlowSyncs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SlowSyncs").field(&self.0.is_some()).finish()
    }
}

impl Disk {
    pub(super) fn new() -> Self {
        Disk::of(vec![Node::Dir(Directory::default())], Vec::new())
    }

    fn of(nodes: Vec<Node>, kept: Vec<String>) -> Self {
        let is_dir = |id: &NodeId| matches!(nodes.get(*id), Some(Node::Dir(_)));
        Disk {
            dirs: (0..nodes.len()).filter(is_dir).collect(),
            nodes,
            pending: Vec::new(),
            dropped: Vec::new(),
            locks: BTreeMap::new(),
            log: Vec::new(),
            mutations: 0,
            cut_after: None,
            faults: FaultState::default(),
            space: None,
            direct_io_align: Some(SECTOR_LEN),
            slow_syncs: SlowSyncs::default(),
            kept,
            handles: Arc::default(),
            objects: Objects::default(),
        }
    }

    pub(super) fn inject(&mut self, fault: Fault) {
        self.faults = FaultState::new(fault);
    }

    pub(super) fn has_lost_power(&self) -> bool {
        self.cut_after.is_some_and(|count| self.mutations >= count)
    }

    /// The first step of every operation: logs and counts it, fails without power, and applies the
    /// injected fault. Returns how many of `len` bytes a transfer may move.
    pub(super) fn begin(&mut self, kind: OpKind, path: &Path, offset: u64, len: u64) -> io::Result<u64> {
        self.check_power()?;
        self.log.push(OpRecord { kind, path: path.to_path_buf(), offset, len });
        if kind.is_mutation() {
            self.mutations += 1;
        }
        match self.faults.next(kind, len) {
            Outcome::Works => Ok(len),
            Outcome::WorksByHalf => Ok(len / 2),
            Outcome::Fails(error) => Err(error),
            Outcome::Panics => std::panic::resume_unwind(Box::new("an injected panic")),
        }
    }

    /// The first operation without power is where the process stops: what its threads store in
    /// shared memory later is lost.
    fn check_power(&mut self) -> io::Result<()> {
        if self.has_lost_power() {
            self.objects.stop();
            return Err(io::Error::other("the simulated disk has lost power"));
        }
        Ok(())
    }

    /// The first step of an operation on shared memory: fails without power, and counts it.
    pub(super) fn begin_shared(&mut self, is_mutation: bool) -> io::Result<()> {
        self.check_power()?;
        self.mutations += u64::from(is_mutation);
        Ok(())
    }

    /// The identity of a directory.
    pub(super) fn dir_id(id: NodeId) -> DirId {
        DirId { device: 1, inode: id as u64 }
    }

    fn dir(&self, id: NodeId) -> io::Result<&Directory> {
        match self.nodes.get(id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn dir_mut(&mut self, id: NodeId) -> io::Result<&mut Directory> {
        match self.nodes.get_mut(id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file(&mut self, id: NodeId) -> io::Result<&mut FileBytes> {
        match self.nodes.get_mut(id) {
            Some(Node::File { bytes, .. }) => Ok(bytes),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Checks that the disk has room for the file `id` with `len` bytes. Unlinked files take no
    /// room.
    pub(super) fn check_space(&mut self, id: NodeId, len: usize) -> io::Result<()> {
        let Some(space) = self.space else { return Ok(()) };
        let grows_by = len.saturating_sub(self.file(id)?.len());
        if grows_by == 0 || (self.used() + grows_by) as u64 <= space { Ok(()) } else { Err(no_space()) }
    }

    /// Bytes of all files that have a name.
    fn used(&self) -> usize {
        let named: BTreeSet<NodeId> = self.names().collect();
        let len = |id: &NodeId| match self.nodes.get(*id) {
            Some(Node::File { bytes, .. }) => bytes.len(),
            _ => 0,
        };
        named.iter().map(len).sum()
    }

    /// Number of the names of a file.
    pub(super) fn link_count(&self, id: NodeId) -> u64 {
        self.names().filter(|named| *named == id).count() as u64
    }

    /// The nodes to which the entries of all directories lead.
    fn names(&self) -> impl Iterator<Item = NodeId> {
        let dirs = self.dirs.iter().filter_map(|id| self.dir(*id).ok());
        dirs.flat_map(|dir| dir.entries.values().copied())
    }

    /// The directory and name of a path; the name need not exist.
    fn place(&self, path: &Path) -> io::Result<Place> {
        let names = names(path)?;
        let (last, parents) = names.split_last().ok_or(io::ErrorKind::AlreadyExists)?;
        let mut dir = ROOT;
        for name in parents {
            dir = *self.dir(dir)?.entries.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        self.dir(dir)?;
        Ok((dir, last.clone()))
    }

    pub(super) fn lookup(&self, path: &Path) -> io::Result<NodeId> {
        if names(path)?.is_empty() {
            return Ok(ROOT);
        }
        let (dir, name) = self.place(path)?;
        self.dir(dir)?.entries.get(&name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The file or directory called `name` in a directory.
    pub(super) fn entry(&self, dir: NodeId, name: &str) -> io::Result<NodeId> {
        self.dir(dir)?.entries.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Creates a file in a directory; `path` is its present path.
    pub(super) fn create_file(&mut self, dir: NodeId, name: &str, path: PathBuf) -> io::Result<NodeId> {
        self.create((dir, name.to_owned()), Node::File { bytes: FileBytes::default(), name: path })
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<NodeId> {
        self.create(self.place(path)?, Node::Dir(Directory::default()))
    }

    fn create(&mut self, place: Place, node: Node) -> io::Result<NodeId> {
        let id = self.nodes.len();
        if !self.is_linked(place.0) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let dir = self.dir_mut(place.0)?;
        if dir.entries.contains_key(&place.1) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        dir.entries.insert(place.1.clone(), id);
        self.dirs.extend(matches!(node, Node::Dir(_)).then_some(id));
        self.nodes.push(node);
        self.pending.push(NameChange::Link { to: place, node: id });
        Ok(id)
    }

    pub(super) fn remove_file(&mut self, dir: NodeId, name: &str) -> io::Result<()> {
        let node = self.entry(dir, name)?;
        self.file(node)?;
        self.dir_mut(dir)?.entries.remove(name);
        self.pending.push(NameChange::Unlink { from: (dir, name.to_owned()), node });
        Ok(())
    }

    /// Renames a file within a directory; `path` is its new path.
    pub(super) fn rename(&mut self, dir: NodeId, from: &str, to: &str, path: PathBuf) -> io::Result<()> {
        let node = self.entry(dir, from)?;
        self.file(node)?;
        if let Ok(replaced) = self.entry(dir, to) {
            self.file(replaced)?;
        }
        // As the system does: two names of one file both stay.
        if self.entry(dir, to).ok() == Some(node) {
            return Ok(());
        }
        let entries = &mut self.dir_mut(dir)?.entries;
        entries.remove(from);
        entries.insert(to.to_owned(), node);
        if let Some(Node::File { name, .. }) = self.nodes.get_mut(node) {
            *name = path;
        }
        self.pending.push(NameChange::Rename {
            from: (dir, from.to_owned()),
            to: (dir, to.to_owned()),
            node,
        });
        Ok(())
    }

    /// Gives a file of a directory another name, in the same directory or in another.
    pub(super) fn link(&mut self, dir: NodeId, name: &str, into: NodeId, other: &str) -> io::Result<()> {
        let node = self.entry(dir, name)?;
        self.file(node)?;
        if !self.is_linked(into) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let entries = &mut self.dir_mut(into)?.entries;
        if entries.contains_key(other) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        entries.insert(other.to_owned(), node);
        self.pending.push(NameChange::Link { to: (into, other.to_owned()), node });
        Ok(())
    }

    pub(super) fn list(&self, dir: NodeId) -> io::Result<Vec<String>> {
        Ok(self.dir(dir)?.entries.keys().cloned().collect())
    }

    pub(super) fn sync_dir(&mut self, dir: NodeId) -> io::Result<()> {
        self.dir(dir)?;
        let (now, later) = std::mem::take(&mut self.pending).into_iter().partition(|c| c.touches(dir));
        self.pending = later;
        let now: Vec<NameChange> = now;
        for change in now {
            self.dropped.retain(|dropped| !dropped.meets(&change));
            self.settle(&change);
        }
        Ok(())
    }

    /// The sync of a directory failed. The creation of a directory stays pending, because an engine
    /// cannot repeat it.
    pub(super) fn fail_sync_dir(&mut self, dir: NodeId) {
        let (dropped, pending): (Vec<_>, _) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change| change.touches(dir) && self.dir(change.node()).is_err());
        self.pending = pending;
        self.dropped.extend(dropped);
    }

    /// Moves a directory, or removes it with its content, in the cache and on the medium.
    pub(super) fn move_dir(&mut self, from: &Path, to: Option<&Path>) -> io::Result<()> {
        let id = self.lookup(from)?;
        self.dir(id)?;
        let (from, to) = (self.place(from)?, to.map(|to| self.place(to)).transpose()?);
        let parent = self.dir_mut(from.0)?;
        parent.entries.remove(&from.1);
        parent.durable.remove(&from.1);
        if let Some((parent, name)) = to {
            let parent = self.dir_mut(parent)?;
            parent.entries.insert(name.clone(), id);
            parent.durable.insert(name, id);
        } else {
            let dir = self.dir_mut(id)?;
            dir.entries.clear();
            dir.durable.clear();
        }
        Ok(())
    }

    /// Whether a path leads to this directory.
    pub(super) fn is_linked(&self, dir: NodeId) -> bool {
        let mut reached = vec![ROOT];
        while let Some(id) = reached.pop() {
            if id == dir {
                return true;
            }
            let entries = self.dir(id).map(|dir| &dir.entries).into_iter().flatten();
            reached.extend(entries.map(|(_, id)| *id).filter(|id| self.dir(*id).is_ok()));
        }
        false
    }

    /// Applies a name change to the medium.
    fn settle(&mut self, change: &NameChange) {
        let mut durable = |dir: NodeId, change: &mut dyn FnMut(&mut Directory)| {
            if let Some(Node::Dir(dir)) = self.nodes.get_mut(dir) {
                change(dir);
            }
        };
        match change {
            NameChange::Link { to, node } => durable(to.0, &mut |dir| {
                dir.durable.insert(to.1.clone(), *node);
            }),
            NameChange::Unlink { from, node } => {
                durable(from.0, &mut |dir| {
                    if dir.durable.get(&from.1) == Some(node) {
                        dir.durable.remove(&from.1);
                    }
                });
            }
            // If an earlier renaming was lost, the file has an older name on the medium. That goes.
            NameChange::Rename { from, to, node } => {
                durable(from.0, &mut |dir| {
                    let Directory { entries, durable } = dir;
                    let is_old = |name: &String| *name == from.1 || entries.get(name) != Some(node);
                    durable.retain(|name, id| id != node || !is_old(name));
                    durable.insert(to.1.clone(), *node);
                });
            }
        }
    }

    /// Takes a lock of a directory, if no other holder excludes it.
    pub(super) fn lock(&mut self, dir: NodeId, kind: LockKind) -> io::Result<bool> {
        self.dir(dir)?;
        let holders = self.locks.entry(dir).or_default();
        let excluded = match kind {
            LockKind::Exclusive => !holders.is_empty(),
            LockKind::Shared => holders.contains(&LockKind::Exclusive),
        };
        if !excluded {
            holders.push(kind);
        }
        Ok(!excluded)
    }

    pub(super) fn unlock(&mut self, dir: NodeId, kind: LockKind) {
        let holders = self.locks.entry(dir).or_default();
        if let Some(at) = holders.iter().position(|holder| *holder == kind) {
            holders.swap_remove(at);
        }
    }

    /// The disk that the next process finds after the death of this one.
    pub(super) fn after_process_death(&self) -> Disk {
        let kept = vec!["everything written (the process died, the machine did not)".to_owned()];
        let (pending, dropped) = (self.pending.clone(), self.dropped.clone());
        let objects = self.objects.after_process_death();
        Disk { pending, dropped, objects, ..Disk::of(self.nodes.clone(), kept) }
    }

    /// The disk after a power cut.
    pub(super) fn after_power_cut(&self, cut: PowerCut) -> Disk {
        let mut dice = cut.dice();
        let mut image = Disk::of(self.nodes.clone(), vec![format!("power cut: {cut}")]);
        image.objects = self.objects.after_power_cut();
        for change in self.dropped.iter().chain(&self.pending) {
            let keeps = dice.keeps_name();
            if keeps {
                image.settle(change);
            }
            image.kept.push(format!("{} {}", change.describe(), if keeps { "kept" } else { "lost" }));
        }
        let mut stale = |dice: &mut Dice| self.stale_sector(dice);
        for node in &mut image.nodes {
            match node {
                Node::Dir(dir) => dir.entries.clone_from(&dir.durable),
                Node::File { bytes, name } => {
                    let (left, line) = bytes.after_power_cut(&mut dice, &mut stale);
                    *bytes = left;
                    image.kept.extend(line.map(|line| format!("{}: {line}", name.display())));
                }
            }
        }
        image
    }

    /// All files under their present names.
    pub(super) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut dirs = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = dirs.pop() {
            for (name, child) in self.dir(id).map(|dir| dir.entries.clone()).unwrap_or_default() {
                match self.nodes.get(child) {
                    Some(Node::Dir(_)) => dirs.push((path.join(name), child)),
                    Some(Node::File { bytes, .. }) => files.push((path.join(name), bytes.current().to_vec())),
                    None => {}
                }
            }
        }
        files
    }

    /// Replaces or removes a file, in the cache and on the medium.
    pub(super) fn damage(&mut self, path: &Path, bytes: Option<Vec<u8>>) {
        let Ok((dir, name)) = self.place(path) else { return };
        let node = bytes.map(|bytes| {
            self.nodes.push(Node::File { bytes: FileBytes::holding(bytes), name: path.to_path_buf() });
            self.nodes.len() - 1
        });
        if let Ok(dir) = self.dir_mut(dir) {
            for entries in [&mut dir.entries, &mut dir.durable] {
                match node {
                    Some(node) => entries.insert(name.clone(), node),
                    None => entries.remove(&name),
                };
            }
        }
    }

    /// A sector that some file of this disk once held; removed files count, too.
    fn stale_sector(&self, dice: &mut Dice) -> Vec<u8> {
        let files: Vec<&[u8]> = self
            .nodes
            .iter()
            .filter_map(|node| match node {
                Node::File { bytes, .. } => Some(bytes.durable()).filter(|bytes| !bytes.is_empty()),
                Node::Dir(_) => None,
            })
            .collect();
        let Some(file) = files.get(dice.index(files.len())) else { return vec![0xa5; SECTOR_LEN] };
        let start = dice.index(file.len().div_ceil(SECTOR_LEN)) * SECTOR_LEN;
        file.iter().skip(start).take(SECTOR_LEN).copied().collect()
    }
}

/// The names on the way from the root to `path`.
fn names(path: &Path) -> io::Result<Vec<String>> {
    path.components()
        .filter(|component| !matches!(component, Component::RootDir | Component::CurDir))
        .map(|component| match component {
            Component::Normal(name) => Ok(name.to_string_lossy().into_owned()),
            _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
        })
        .collect()
}
