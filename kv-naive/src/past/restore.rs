//! Writes a past state as a new store.
//!
//! | after | the new directory holds | an opening |
//! |---|---|---|
//! | the mark | `LOCK`, and the mark | refuses it: the mark is not a file of a store |
//! | the snapshot | `SNAPSHOT` as well | refuses it |
//! | the identity | the whole store, and the mark | opens it |
//! | the end | the whole store | opens it |

use kv_core::fs::{Dir, DirExt};
use kv_core::parts::Destination;
use kv_core::{Env, Error, Moment, Op, Result};
use std::path::Path;

use super::view::State;
use crate::directory::RESTORE_MARK as MARK;
use crate::identity::{self, IDENTITY, Identity};
use crate::snapshot::{self, Head, SNAPSHOT, write_pairs};

/// Writes a store with `state` to the directory `into`. Its only moment is `moment`.
pub(super) fn write_store(env: &Env, into: &Path, state: &State, moment: Moment) -> Result<()> {
    let destination = Destination::for_store(&*env.fs, into)?;
    let dir = &*destination.dir;
    let written = write_files(dir, env.draw_store_id(into), state, moment);
    written.inspect_err(|_| {
        // The identity goes first, so that no part passes for a store.
        for name in [IDENTITY, SNAPSHOT, snapshot::TEMPORARY, MARK] {
            for name in [name, &format!("{name}.tmp")] {
                let _ = dir.remove_file(name);
            }
        }
    })
}

fn write_files(dir: &dyn Dir, store_id: u32, state: &State, moment: Moment) -> Result<()> {
    dir.write_file_atomically(MARK, b"")?;
    let Moment { lsn, unix_ms, .. } = moment;
    let pairs = state.iter().map(|(key, entry)| (key.as_slice(), &*entry.value, entry.lsn));
    write_pairs(dir, Head { store_id, lsn, unix_ms: Some(unix_ms) }, pairs)?;
    dir.replace_durably(snapshot::TEMPORARY, SNAPSHOT)?;
    // As after an orderly close: new changes get the LSNs from the next one on.
    dir.write_file_atomically(IDENTITY, &identity::encode(Identity { store_id, lsn_ceiling: lsn }))?;
    dir.remove_file(MARK).map_err(|error| Error::io(Op::Remove, &dir.path_of(MARK), error))?;
    dir.sync_durably()
}
