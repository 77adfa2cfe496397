use kv_core::fs::{Dir, DirExt, has_no_links};
use kv_core::{Error, Op, Point, Result};

use super::{Kept, List, Taken};
use crate::snapshot::{self, Facts, Loaded, SNAPSHOT, kept_name, parse_kept_name};

/// Gives the newest snapshot, `newest`, the name of an old one, durably. On a file system without
/// links it is copied.
pub(crate) fn keep(dir: &dyn Dir, newest: Taken) -> Result<()> {
    let name = kept_name(newest.lsn);
    match dir.link(SNAPSHOT, dir, &name) {
        Ok(()) => dir.sync_durably(),
        Err(error) if has_no_links(&error) => {
            let bytes = dir.read_file(SNAPSHOT, newest.bytes)?;
            dir.write_file_atomically(&name, &bytes)
        }
        Err(error) => Err(Error::io(Op::Create, &dir.path_of(&name), error)),
    }
}

/// The snapshots among `names`, with the newest one as it was `loaded`, and the points of `list`
/// that have a snapshot. The time of a snapshot that tells none is a later one, at the latest
/// `now_unix_ms`. And the snapshots that have expired.
///
/// # Errors
/// An old snapshot is newer than the newest one, unless `is_backup`: then it does not count. An old
/// snapshot is another one than its name says.
pub(crate) fn find(
    dir: &dyn Dir,
    names: &[String],
    loaded: Loaded,
    list: List,
    is_backup: bool,
    now_unix_ms: u64,
) -> Result<(Kept, Vec<Taken>)> {
    let List { mut points, expired } = list;
    let time_of_point =
        |lsn| points.iter().find(|point: &&Point| point.lsn == lsn).map(|point| point.unix_ms);
    let unix_ms = loaded.unix_ms.or_else(|| time_of_point(loaded.lsn)).unwrap_or(now_unix_ms);
    let newest = Taken { lsn: loaded.lsn, unix_ms, bytes: loaded.bytes };
    let (mut old, mut leftovers) = (Vec::new(), Vec::new());
    for name in names {
        let Some(lsn) = parse_kept_name(name) else { continue };
        if lsn < newest.lsn && expired.contains(&lsn) {
            let bytes = snapshot::read_facts(dir, name).unwrap_or_default().bytes;
            leftovers.push(Taken { lsn, unix_ms: 0, bytes });
            continue;
        }
        let Facts { bytes, identity, unix_ms } = match snapshot::read_facts(dir, name) {
            // As a damaged one, it fails when it is read.
            Err(error) if !error.is_refusal() && lsn != newest.lsn => Facts::default(),
            facts => facts?,
        };
        let is_other = identity.is_some_and(|identity| identity != (lsn, loaded.store_id));
        // A damaged one fails when it is read. The opening removes a second name of the newest one,
        // and must not remove another snapshot.
        if is_other || identity.is_none() && lsn == newest.lsn {
            let fault = "this is not the snapshot that its name says";
            return Err(Error::corruption(&dir.path_of(name), 0, fault));
        }
        if lsn > newest.lsn && !is_backup {
            let fault = format!("this snapshot of LSN {} is older than {name}", newest.lsn);
            return Err(Error::corruption(&dir.path_of(SNAPSHOT), 0, fault));
        }
        if lsn < newest.lsn {
            old.push((lsn, unix_ms.or_else(|| time_of_point(lsn)), bytes));
        }
    }
    old.sort_unstable();
    let mut later = unix_ms;
    let with_times = old.into_iter().rev().map(|(lsn, unix_ms, bytes)| {
        later = unix_ms.unwrap_or(later);
        Taken { lsn, unix_ms: later, bytes }
    });
    let mut old: Vec<Taken> = with_times.collect();
    old.reverse();
    // The list may still have points that expired, and whose snapshots are gone.
    let has_snapshot = |point: &Point| old.iter().chain([&newest]).any(|taken| taken.lsn == point.lsn);
    points.retain(has_snapshot);
    Ok((Kept { newest, old, points, lacks_points: false }, leftovers))
}
