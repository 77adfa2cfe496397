//! Copies a store into a new one. The copy is made beside its place, under the name `TO.partial`.
//! So a copy that did not finish is recognised by its name.

use super::sink::Sink;
use crate::args::Args;
use crate::failure::Failure;
use crate::progress::Meter;
use crate::scan::each_pair;
use crate::store;
use kv_core::fs::FsExt;
use kv_core::{Error, Fs, Op, OsFs};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Copies every pair of the store in `from` to a new store in `to`, unless `is_stopped` says to
/// stop. Returns their number.
pub(crate) fn copy(
    args: &Args,
    from: &Path,
    to: &Path,
    is_stopped: &dyn Fn() -> bool,
) -> Result<u64, Failure> {
    refuse_unless_empty(to)?;
    let partial = partial_of(to);
    if OsFs.list_if_exists(&partial)?.is_some() {
        let text = format!(
            "{} is there, left by a copy that did not finish; remove it, and copy again",
            partial.display()
        );
        return Err(Failure::Usage(text));
    }
    let copied = fill(args, from, &partial, is_stopped).and_then(|pairs| {
        publish(&partial, to)?;
        Ok(pairs)
    });
    if copied.is_err() {
        // If this fails, its name tells that it is unfinished.
        let _ = std::fs::remove_dir_all(&partial);
    }
    copied
}

fn refuse_unless_empty(to: &Path) -> Result<(), Failure> {
    match OsFs.list_if_exists(to)?.unwrap_or_default().first() {
        Some(name) => Err(Failure::Usage(format!(
            "{} is not empty: it holds {name}; name a directory that is missing or empty",
            to.display()
        ))),
        None => Ok(()),
    }
}

fn partial_of(to: &Path) -> PathBuf {
    let mut name = OsString::from(to.file_name().unwrap_or_default());
    name.push(".partial");
    to.with_file_name(name)
}

fn fill(args: &Args, from: &Path, partial: &Path, is_stopped: &dyn Fn() -> bool) -> Result<u64, Failure> {
    let source = store::open_any(args, from)?;
    let target = store::create(args, partial)?;
    let meter = Meter::of_pairs("copied");
    let mut sink = Sink::new(&*target, &meter);
    each_pair(&*source, b"", |key, value| {
        if is_stopped() {
            return Err(Failure::Copy("interrupted; nothing was left behind".to_owned()));
        }
        sink.put(key, value).map_err(Failure::Store)
    })?;
    let taken = sink.taken;
    target.close()?;
    source.close()?;
    Ok(taken)
}

/// Gives the finished copy its name, durably.
#[expect(clippy::disallowed_methods, reason = "it renames a directory, not a file of a store")]
fn publish(partial: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::rename(partial, to).map_err(|error| Error::io(Op::Rename, partial, error))?;
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = OsFs.open_dir(parent).and_then(|dir| dir.sync());
    match synced {
        // A file system that has no such sync.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        synced => Ok(synced.map_err(|error| Error::sync(parent, error))?),
    }
}
