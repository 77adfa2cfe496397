//! The calls that reach past states.

use super::Defect;
use super::engine::Reference;
use super::log::{self, Content, Map};
use super::past::{Made, Past as Kept};
use super::place::{BACKUP, FILE};
use super::state::{Shared, State};
use kv_core::fs::{DirExt, FileExt, FsExt, LockKind, OpenMode};
use kv_core::parts::{PastState, Timeline};
use kv_core::{
    BackupReport, Change, Error, Lsn, Moment, Op, Past, Point, PointInTime, Reach, RestorePlan, Result,
    Rounding, Target, Value, Version, Window,
};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, MutexGuard};

impl Shared {
    /// The state of an open store, after what has expired by now has gone.
    fn present(&self) -> Result<MutexGuard<'_, State>> {
        self.health.check_readable()?;
        let mut state = self.state();
        if !self.options.read_only {
            let now = self.place.env.clock.unix_time_ms();
            state.content.past.expire(self.place.defect, &*self.options.retention, now);
        }
        Ok(state)
    }

    fn timeline(&self, state: &State) -> Timeline {
        let past = &state.content.past;
        let early = u64::from(self.has(Defect::PastBeginsEarly));
        let last = if self.has(Defect::PastIsDurable) { state.durable } else { state.content.last };
        let window = Window {
            first_lsn: Lsn::new(past.base_lsn.saturating_sub(early)),
            last_lsn: Lsn::new(last.max(past.base_lsn)),
            first_unix_ms: past.base_unix_ms,
            last_unix_ms: self.place.env.clock.unix_time_ms(),
        };
        Timeline::new(window, past.made.iter().map(|made| (Lsn::new(made.lsn), made.unix_ms)))
    }

    fn moment(&self, state: &State, target: &Target) -> Result<Moment> {
        let timeline = self.timeline(state);
        let Window { last_lsn, last_unix_ms, .. } = timeline.window();
        let target = match target {
            Target::Lsn(lsn) if self.has(Defect::FutureIsNow) => &Target::Lsn((*lsn).min(last_lsn)),
            Target::UnixMs(time) if self.has(Defect::FutureIsNow) => {
                &Target::UnixMs((*time).min(last_unix_ms))
            }
            target => target,
        };
        let mut moment = timeline.moment(target, &state.content.past.points)?;
        let made = &state.content.past.made;
        if let Target::UnixMs(time) = target {
            let later = |one: &&Made| one.unix_ms > *time;
            let first = |one: &&Made| one.unix_ms == moment.unix_ms;
            let other = match self.place.defect {
                Some(Defect::TimeRoundsUp) => made.iter().find(later),
                Some(Defect::TimeRoundsToLate) => made.iter().find(first),
                _ => None,
            };
            moment.lsn = other.map_or(moment.lsn, |one| Lsn::new(one.lsn));
        }
        Ok(moment)
    }

    /// The state after all changes up to `lsn`.
    fn state_at(&self, state: &State, lsn: Lsn) -> Map {
        let Kept { base, made, .. } = &state.content.past;
        if made.is_empty() {
            return state.content.map.clone();
        }
        let mut map = base.clone();
        let mut count = made.partition_point(|made| made.lsn <= lsn.get());
        count += usize::from(self.has(Defect::PastIsLate));
        let kept =
            |change: &&Change| !self.has(Defect::PastKeepsDeleted) || matches!(change, Change::Put { .. });
        made.iter().take(count).flat_map(|made| &made.changes).filter(kept).for_each(|change| {
            log::apply(&mut map, change);
        });
        map
    }
}

impl PointInTime for Reference {
    fn window(&self) -> Result<Window> {
        let state = self.shared.present()?;
        Ok(self.shared.timeline(&state).window())
    }

    fn reach(&self) -> Result<Reach> {
        self.shared.health.check_readable()?;
        Ok(Reach::EveryLsn)
    }

    fn points(&self) -> Result<Vec<Point>> {
        Ok(self.shared.present()?.content.past.points.clone())
    }

    fn pin(&self, name: &str, target: &Target, expires_unix_ms: Option<u64>) -> Result<Point> {
        self.shared.health.check_writable()?;
        let mut state = self.shared.present()?;
        let Moment { lsn, unix_ms, .. } = self.shared.moment(&state, target)?;
        let point = Point { name: name.to_owned(), lsn, unix_ms, expires_unix_ms };
        let before = state.content.past.points.clone();
        let points = &mut state.content.past.points;
        if self.shared.has(Defect::PointMoves) {
            points.retain(|point| point.name != name);
        }
        point.check_new(points)?;
        points.push(point.clone());
        points.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        if let Err(error) = self.shared.compact(&mut state) {
            state.content.past.points = before;
            return Err(self.shared.health.poison(error));
        }
        Ok(point)
    }

    fn unpin(&self, name: &str) -> Result<bool> {
        self.shared.health.check_writable()?;
        let mut state = self.shared.present()?;
        let before = state.content.past.points.len();
        state.content.past.points.retain(|point| point.name != name);
        if state.content.past.points.len() == before {
            return Ok(false);
        }
        self.shared.compact(&mut state).map_err(|error| self.shared.health.poison(error))?;
        Ok(true)
    }

    fn read_at(&self, target: &Target) -> Result<Past> {
        let state = self.shared.present()?;
        let moment = self.shared.moment(&state, target)?;
        let map = self.shared.state_at(&state, moment.lsn);
        let pairs: HashMap<Vec<u8>, Value> =
            map.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
        Ok(Past { moment, engine: Arc::new(PastState::new(moment.lsn, pairs)) })
    }

    fn history(&self, key: &[u8]) -> Result<Vec<Version>> {
        let state = self.shared.present()?;
        let Kept { base, base_lsn, base_unix_ms, made, .. } = &state.content.past;
        let first = if made.is_empty() { &state.content.map } else { base };
        let first = first.get(key).filter(|_| !self.shared.has(Defect::HistoryWithoutFirst));
        let first = first.map(|value| Version {
            lsn: Lsn::new(*base_lsn),
            unix_ms: *base_unix_ms,
            value: Some(Value::from(value.as_slice())),
        });
        let version = |made: &Made| {
            let change = made.changes.iter().rfind(|change| change.key() == key)?;
            let value = match change {
                Change::Put { value, .. } => Some(Value::from(value.as_slice())),
                Change::Delete { .. } if self.shared.has(Defect::HistoryWithoutDeletes) => return None,
                Change::Delete { .. } => None,
            };
            Some(Version { lsn: Lsn::new(made.lsn), unix_ms: made.unix_ms, value })
        };
        Ok(first.into_iter().chain(made.iter().filter_map(version)).collect())
    }

    fn plan(&self, target: &Target) -> Result<RestorePlan> {
        let state = self.shared.present()?;
        let moment = self.shared.moment(&state, target)?;
        Ok(RestorePlan { moment, files: 1, bytes: state.len })
    }

    fn restore(&self, target: &Target, into: &Path) -> Result<Moment> {
        let state = self.shared.present()?;
        let moment = self.shared.moment(&state, target)?;
        let lsn = if self.shared.has(Defect::RestoresNewest) { state.content.last } else { moment.lsn.get() };
        let map = self.shared.state_at(&state, Lsn::new(lsn));
        let reuses = self.shared.has(Defect::RestoreReusesLsns);
        let content = Content {
            // LSNs of the new store begin above those of this epoch.
            epoch: if reuses { 0 } else { state.content.epoch },
            last: if reuses { 0 } else { lsn },
            durable: if reuses { 0 } else { lsn },
            past: Kept::at(lsn, moment.unix_ms),
            map,
            ..Content::default()
        };
        self.write_store(&content, into)?;
        Ok(moment)
    }

    fn backup(&self, into: &Path) -> Result<BackupReport> {
        self.write_backup(into)
    }
}

impl Reference {
    /// Writes a backup: the file as it would replace the present one, and a mark.
    fn write_backup(&self, into: &Path) -> Result<BackupReport> {
        let state = self.shared.present()?;
        let fs = &self.shared.place.env.fs;
        let names = fs.list_if_exists(into)?.unwrap_or_default();
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        if has(FILE) && !has(BACKUP) && !self.shared.has(Defect::BackupIntoStore) {
            return Err(Error::InvalidArgument(format!("{} is a store, and no backup", into.display())));
        }
        let content = &state.content;
        let is_short = self.shared.has(Defect::BackupIsDurable) && state.durable < content.last;
        let (last, map, past) = if is_short {
            let mut past = content.past.clone();
            past.made.retain(|made| made.lsn <= state.durable);
            (state.durable, self.shared.state_at(&state, Lsn::new(state.durable)), past)
        } else {
            (content.last, content.map.clone(), content.past.clone())
        };
        let bytes = log::file(content.epoch, last, last.min(state.durable), &map, &past);
        let moment = Moment {
            lsn: Lsn::new(last),
            unix_ms: self.shared.place.env.clock.unix_time_ms(),
            rounding: Rounding::Exact,
        };
        let len = bytes.len() as u64;
        let report = BackupReport {
            moment,
            files: 1,
            bytes: len,
            files_copied: 1,
            bytes_copied: len,
            files_linked: 0,
            bytes_linked: 0,
        };
        if has(FILE) && self.shared.has(Defect::BackupOnlyOnce) {
            return Ok(report);
        }
        fs.create_dir_durably(into)?;
        let dir = fs.open_dir(into).map_err(|error| Error::io(Op::Open, into, error))?;
        let _lock = dir.lock_or_refuse(LockKind::Exclusive)?;
        if !self.shared.has(Defect::BackupIsAStore) {
            dir.write_file_atomically(BACKUP, b"")?;
        }
        if self.shared.has(Defect::BackupInPlace) {
            let io = |error| Error::io(Op::Write, into, error);
            let file = dir.open(FILE, OpenMode::CreateOrTruncate).map_err(io)?;
            file.write_all_at(&bytes, 0).map_err(io)?;
            file.sync_all().map_err(io)?;
            dir.sync_durably()?;
        } else {
            dir.write_file_atomically(FILE, &bytes)?;
        }
        Ok(report)
    }

    /// Writes a new store. It becomes one when its file gets its name.
    fn write_store(&self, content: &Content, into: &Path) -> Result<()> {
        let fs = &self.shared.place.env.fs;
        let is_empty = |names: &[String]| match names.iter().find(|name| *name == FILE) {
            Some(name) if !self.shared.has(Defect::RestoresIntoStore) => {
                let text = format!("{} is not empty: it holds {name}", into.display());
                Err(Error::InvalidArgument(text))
            }
            _ => Ok(()),
        };
        is_empty(&fs.list_if_exists(into)?.unwrap_or_default())?;
        let bytes = log::file(content.epoch, content.last, content.durable, &content.map, &content.past);
        if self.shared.has(Defect::RestoreIsNotSynced) {
            let io = |error| Error::io(Op::CreateDir, into, error);
            let _ = fs.create_dir(into);
            let file = fs.open_dir(into).map_err(io)?.open(FILE, OpenMode::CreateOrTruncate).map_err(io)?;
            return file.write_all_at(&bytes, 0).map_err(io);
        }
        fs.create_dir_durably(into)?;
        let dir = fs.open_dir(into).map_err(|error| Error::io(Op::Open, into, error))?;
        let _lock = dir.lock_or_refuse(LockKind::Exclusive)?;
        is_empty(&dir.names()?)?;
        dir.write_file_atomically(FILE, &bytes)
    }
}
