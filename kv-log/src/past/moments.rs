//! The calls that reach past states of an open store.

use kv_core::{
    BackupReport, Error, Lsn, Moment, Past, Point, PointInTime, Reach, RestorePlan, Result, Target, Version,
    Window,
};
use std::path::Path;

use super::reachable::{Reachable, points_of, window_of};
use crate::engine::LogEngine;
use crate::progress::silently;
use crate::store::Store;

/// Makes every change of earlier calls durable, and takes hold of the files.
fn reach(store: &Store) -> Result<Reachable> {
    let (last_lsn, now) = present(store)?;
    if !store.context.options.read_only {
        store.flusher.make_durable(last_lsn)?;
    }
    let (files, held) = store.catalog.hold_past();
    Ok(Reachable::new(&store.context.env, files, Some(held), last_lsn, now))
}

/// As [`reach`], up to the end of the files. No flush runs meanwhile, so the files end at one place
/// of the log.
fn reach_newest(store: &Store) -> Result<Reachable> {
    let (last_lsn, _) = present(store)?;
    if store.context.options.read_only {
        return reach(store);
    }
    store.flusher.make_durable(last_lsn)?;
    let no_flush = store.flusher.exclude();
    let (files, held) = store.catalog.hold_past();
    let durable_lsn = store.progress.durable_lsn();
    let now = store.context.env.clock.unix_time_ms();
    drop(no_flush);
    Ok(Reachable::new(&store.context.env, files, Some(held), durable_lsn, now))
}

/// The LSN of the newest change, and the present time.
fn present(store: &Store) -> Result<(Lsn, u64)> {
    store.context.health.check_readable()?;
    let last_lsn = store.log.end.last_lsn();
    // After the LSN: every change up to it was made by then.
    Ok((last_lsn, store.context.env.clock.unix_time_ms()))
}

impl PointInTime for LogEngine {
    fn window(&self) -> Result<Window> {
        let (last_lsn, now) = present(&self.store)?;
        Ok(window_of(&self.store.catalog.archive(), last_lsn, now))
    }

    fn reach(&self) -> Result<Reach> {
        self.store.context.health.check_readable()?;
        Ok(Reach::EveryLsn)
    }

    fn points(&self) -> Result<Vec<Point>> {
        self.store.context.health.check_readable()?;
        Ok(points_of(&self.store.catalog.archive(), self.store.context.env.clock.unix_time_ms()))
    }

    fn pin(&self, name: &str, target: &Target, expires_unix_ms: Option<u64>) -> Result<Point> {
        self.store.context.health.check_writable()?;
        let reachable = reach(&self.store)?;
        let Moment { lsn, unix_ms, .. } = reachable.moment(target)?;
        let point = Point { name: name.to_owned(), lsn, unix_ms, expires_unix_ms };
        self.store.catalog.change_points(self.store.log.end.last_lsn(), |archive| {
            // The window may have moved since.
            if lsn < archive.first_lsn {
                let Window { last_lsn, last_unix_ms, .. } = reachable.window();
                let window = Box::new(window_of(archive, last_lsn, last_unix_ms));
                return Err(Error::OutsideWindow { target: Box::new(target.clone()), window });
            }
            archive.pin(point.clone())
        })?;
        Ok(point)
    }

    fn unpin(&self, name: &str) -> Result<bool> {
        self.store.context.health.check_writable()?;
        let last_lsn = self.store.log.end.last_lsn();
        // A point that is not there costs no manifest.
        if !self.points()?.iter().any(|point| point.name == name) {
            return Ok(false);
        }
        self.store.catalog.change_points(last_lsn, |archive| Ok(archive.unpin(name)))
    }

    fn read_at(&self, target: &Target) -> Result<Past> {
        reach(&self.store)?.read_at(target)
    }

    fn history(&self, key: &[u8]) -> Result<Vec<Version>> {
        reach(&self.store)?.history(key)
    }

    fn plan(&self, target: &Target) -> Result<RestorePlan> {
        reach(&self.store)?.plan(target)
    }

    fn backup(&self, into: &Path) -> Result<BackupReport> {
        reach_newest(&self.store)?.backup(into)
    }

    fn restore(&self, target: &Target, into: &Path) -> Result<Moment> {
        reach(&self.store)?.restore(target, into, &silently)
    }
}
