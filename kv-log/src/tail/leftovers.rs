//! Leftovers: objects whose process is dead, and whose store was not opened since.
//!
//! An opening removes those of an earlier boot, and those whose store is gone. A user sees and
//! removes the others with a tool.

use kv_core::fs::{FsExt, SharedMemory};
use kv_core::{Env, Error, Op, Result};
use std::fs::TryLockError;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::control::{Control, NAME_PREFIX, Owner, Unreadable};
use crate::memory::CONTROL_LEN;

/// An object in shared memory that kv-log has made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
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
pub fn list(env: &Env) -> Result<Vec<Leftover>> {
    let memory = env.fs.shared_memory().ok_or(Error::Unsupported("this system has no shared memory"))?;
    let failed = |error| Error::io(Op::List, memory.path(), error);
    let (names, boot_id) = (memory.list().map_err(failed)?, memory.boot_id().map_err(failed)?);
    let names = names.into_iter().filter(|name| name.starts_with(NAME_PREFIX));
    Ok(names.map(|name| examine(env, &*memory, boot_id, name)).collect())
}

/// Removes an object, whatever its state.
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
pub(crate) fn remove_leftovers(env: &Env) {
    for leftover in list(env).unwrap_or_default() {
        if leftover.state == State::EarlierBoot {
            let _ = remove(env, &leftover.name);
        }
    }
}

fn examine(env: &Env, memory: &dyn SharedMemory, boot_id: u128, name: String) -> Leftover {
    let mut leftover = Leftover { name, store: None, bytes: 0, state: State::EarlierBoot };
    leftover.state = state(env, memory, boot_id, &mut leftover)
        .unwrap_or_else(|error| State::Unreadable(error.to_string()));
    leftover
}

fn state(env: &Env, memory: &dyn SharedMemory, boot_id: u128, leftover: &mut Leftover) -> io::Result<State> {
    let object = memory.open(&leftover.name)?;
    leftover.bytes = object.metadata()?.len();
    let is_used = matches!(object.try_lock(), Err(TryLockError::WouldBlock));
    let mut block = [0; CONTROL_LEN];
    object.read_exact_at(&mut block, 0)?;
    let owner = match Control::decode(&block) {
        Ok(control) => control.owner,
        // A process that has just made it locks it and writes the block in a moment.
        Err(Unreadable::NoControl) => return Err(io::Error::other("it has no control block")),
        Err(Unreadable::Version(version)) => {
            return Err(io::Error::other(format!("it has version {version}")));
        }
    };
    leftover.store = Some(owner.path.clone()).filter(|path| !path.as_os_str().is_empty());
    Ok(if is_used {
        State::InUse
    } else if owner.boot_id != boot_id {
        State::EarlierBoot
    } else if is_gone(env, &owner) {
        State::StoreGone
    } else {
        State::Waiting
    })
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
