//! The calls that reach past states.

use kv_core::{
    BackupReport, Env, Moment, Past, Point, PointInTime, Reach, RestorePlan, Result, Target, Version, Window,
};
use std::path::Path;

use super::backup::write_backup;
use super::restore::write_store;
use super::view::View;
use crate::engine::NaiveEngine;
use crate::store::Store;

/// Every change of earlier calls is in the view.
fn view(store: &Store) -> Result<View<'_>> {
    store.health.check_readable()?;
    View::of(&store.snapshotter, &store.table)
}

impl NaiveEngine {
    fn env(&self) -> &Env {
        self.store().env()
    }
}

impl PointInTime for NaiveEngine {
    fn window(&self) -> Result<Window> {
        Ok(view(self.store())?.window())
    }

    fn reach(&self) -> Result<Reach> {
        Ok(Reach::Moments(view(self.store())?.moments()))
    }

    fn points(&self) -> Result<Vec<Point>> {
        self.store().health.check_readable()?;
        self.store().snapshotter.files().points()
    }

    fn pin(&self, name: &str, target: &Target, expires_unix_ms: Option<u64>) -> Result<Point> {
        let store = self.store();
        store.health.check_writable()?;
        let view = view(store)?;
        let Moment { lsn, unix_ms, .. } = view.moment(target)?;
        let point = Point { name: name.to_owned(), lsn, unix_ms, expires_unix_ms };
        // Before a snapshot is made for it.
        point.check_new(&self.points()?)?;
        let (cut, _leading) = view.into_cut(lsn);
        store.snapshotter.change_points(cut, |kept| {
            kept.points.push(point.clone());
            Ok(point)
        })
    }

    fn unpin(&self, name: &str) -> Result<bool> {
        let store = self.store();
        store.health.check_writable()?;
        // A point that is not there costs no file.
        if !self.points()?.iter().any(|point| point.name == name) {
            return Ok(false);
        }
        let _leading = store.snapshotter.lead()?;
        store.snapshotter.change_points(None, |kept| {
            let before = kept.points.len();
            kept.points.retain(|point| point.name != name);
            Ok(kept.points.len() < before)
        })
    }

    fn read_at(&self, target: &Target) -> Result<Past> {
        view(self.store())?.read_at(target)
    }

    fn history(&self, key: &[u8]) -> Result<Vec<Version>> {
        view(self.store())?.history(key)
    }

    fn plan(&self, target: &Target) -> Result<RestorePlan> {
        view(self.store())?.plan(target)
    }

    fn restore(&self, target: &Target, into: &Path) -> Result<Moment> {
        let view = view(self.store())?;
        let moment = view.moment(target)?;
        let state = view.state(moment.lsn)?;
        write_store(self.env(), into, &state, moment)?;
        Ok(moment)
    }

    fn backup(&self, into: &Path) -> Result<BackupReport> {
        self.store().health.check_readable()?;
        write_backup(self.env(), &self.store().snapshotter, into)
    }
}
