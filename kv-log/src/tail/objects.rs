//! The objects of all stores in shared memory: a user lists and removes them with a tool. An
//! opening removes those of an earlier boot.

use kv_core::fs::{FsExt, SharedMemory};
use kv_core::{Env, Error, Op, Result};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::control::{Control, NAME_PREFIX, Owner, Unreadable};

/// An object in shared memory that kv-log has made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Object {
    /// Its name in the shared memory.
    pub name: String,
    /// The directory of its store. `None` if it is unknown.
    pub store: Option<PathBuf>,
    /// Its length, bytes.
    pub bytes: u64,
    /// Whether it is needed.
    pub state: State,
}

/// Whether an object is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// An open store uses it.
    InUse,
    /// Its process is dead. The next opening of the store recovers changes from it.
    Waiting,
    /// Its store is gone: no directory of this identity is at its path or beside it.
    StoreGone,
    /// It is of an earlier boot of the machine.
    EarlierBoot,
    /// It cannot be read: it belongs to another user or another release, or was never in use.
    Unreadable(String),
}

/// Lists the objects of all stores of this machine.
///
/// # Errors
/// There is no shared memory, or it cannot be read.
pub fn list(env: &Env) -> Result<Vec<Object>> {
    let memory = env.fs.shared_memory().ok_or(Error::Unsupported("this system has no shared memory"))?;
    let failed = |error| Error::io(Op::List, memory.path(), error);
    let (names, boot_id) = (names(&*memory).map_err(failed)?, memory.boot_id().map_err(failed)?);
    Ok(names.map(|name| examine(env, &*memory, boot_id, name)).collect())
}

/// Removes an object in any state.
///
/// # Errors
/// It is not one of kv-log's. The system refuses.
pub fn remove(env: &Env, name: &str) -> Result<()> {
    let memory = env.fs.shared_memory().ok_or(Error::Unsupported("this system has no shared memory"))?;
    if !name.starts_with(NAME_PREFIX) {
        return Err(Error::InvalidArgument(format!("{name} is no object of a kv-log store")));
    }
    memory.remove(name).map_err(|error| Error::io(Op::Remove, &memory.path().join(name), error))
}

/// Removes the objects of an earlier boot. Those of a store that is gone stay for a user to remove:
/// its file system may only be unmounted.
pub(crate) fn remove_outdated(env: &Env) {
    let Some(memory) = env.fs.shared_memory() else { return };
    let (Ok(names), Ok(boot_id)) = (names(&*memory), memory.boot_id()) else { return };
    for name in names {
        let (_, found) = look(&*memory, &name);
        if found.is_ok_and(|(is_used, owner)| !is_used && owner.boot_id != boot_id) {
            let _ = memory.remove(&name);
        }
    }
}

/// The names of kv-log's objects.
fn names(memory: &dyn SharedMemory) -> io::Result<impl Iterator<Item = String> + use<>> {
    Ok(memory.list()?.into_iter().filter(|name| name.starts_with(NAME_PREFIX)))
}

/// The length of an object, and whether a process uses it and whose it is.
fn look(memory: &dyn SharedMemory, name: &str) -> (u64, io::Result<(bool, Owner)>) {
    let mut bytes = 0;
    let found = memory.open(name).and_then(|object| {
        bytes = object.metadata()?.len();
        let is_used = matches!(object.try_lock(), Err(TryLockError::WouldBlock));
        Ok((is_used, read_owner(&object)?))
    });
    (bytes, found)
}

fn read_owner(object: &File) -> io::Result<Owner> {
    match Control::read(object)? {
        Ok(control) => Ok(control.owner),
        // A process that has just made it locks it and writes the block in a moment.
        Err(Unreadable::NoControl) => Err(io::Error::other("it has no control block")),
        Err(Unreadable::Version(version)) => Err(io::Error::other(format!("it has version {version}"))),
    }
}

fn examine(env: &Env, memory: &dyn SharedMemory, boot_id: u128, name: String) -> Object {
    let (bytes, found) = look(memory, &name);
    let (is_used, owner) = match found {
        Ok(found) => found,
        Err(error) => {
            return Object { name, store: None, bytes, state: State::Unreadable(error.to_string()) };
        }
    };
    let state = if is_used {
        State::InUse
    } else if owner.boot_id != boot_id {
        State::EarlierBoot
    } else if is_gone(env, &owner) {
        State::StoreGone
    } else {
        State::Waiting
    };
    let store = Some(owner.path).filter(|path| !path.as_os_str().is_empty());
    Object { name, store, bytes, state }
}

/// Whether the directory of a store is neither at its path nor, under another name, beside it. In
/// doubt, it is not gone.
fn is_gone(env: &Env, owner: &Owner) -> bool {
    if owner.path.as_os_str().is_empty() || may_be(env, &owner.path, owner) {
        return false;
    }
    let Some(parent) = owner.path.parent() else { return false };
    match env.fs.list_if_exists(parent) {
        Ok(Some(names)) => !names.iter().any(|name| may_be(env, &parent.join(name), owner)),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Whether the store's directory may be at `path`.
fn may_be(env: &Env, path: &Path, owner: &Owner) -> bool {
    match env.fs.open_dir(path).and_then(|dir| dir.id()) {
        Ok(id) => id == owner.dir,
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}
