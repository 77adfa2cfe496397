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

#[cfg(all(test, not(shuttle)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::Options;
    use kv_core::{Action, Background, Clock, Engine, Env, Greedy, Manual, ManualClock, Never};
    use kv_tests::sim::SimFs;
    use std::ops::Range;
    use std::sync::Arc;
    use std::time::Duration;

    struct Place {
        disk: SimFs,
        clock: Arc<ManualClock>,
    }

    impl Place {
        /// Where it is 1000 ms after the epoch.
        fn new() -> Self {
            Place { disk: SimFs::new(), clock: Arc::new(ManualClock::new(1000)) }
        }

        fn open(&self) -> LogEngine {
            let (fs, clock) = (Arc::new(self.disk.clone()), Arc::clone(&self.clock) as Arc<dyn Clock>);
            let env = Env { fs, clock, background: Background::Inline };
            let options = Options {
                segment_bytes: 2048,
                persistence: Arc::new(Manual),
                compaction: Arc::new(Never),
                ..Options::default()
            };
            LogEngine::open_in(Path::new("/store"), &env, options).unwrap()
        }

        /// Lets a second pass.
        fn wait(&self) {
            self.clock.advance(Duration::from_secs(1));
        }
    }

    fn put(engine: &LogEngine, keys: Range<u32>) {
        for key in keys {
            engine.put(&key.to_be_bytes(), &[7; 100]).unwrap();
        }
    }

    /// The state that a time leads to.
    fn state_at(engine: &LogEngine, unix_ms: u64) -> Lsn {
        engine.plan(&Target::UnixMs(unix_ms)).unwrap().moment.lsn
    }

    /// The number of marks in the log.
    fn marks(engine: &LogEngine) -> usize {
        engine.store.flusher.make_all_durable().unwrap();
        engine.store.catalog.hold_past().0.marks(Background::Inline).len()
    }

    /// The space of a victim would come free with the reader only, and its outputs take more.
    #[test]
    fn a_full_disk_compacts_no_segment_that_a_reader_holds() {
        let disk = SimFs::new();
        let env = Env { fs: Arc::new(disk.clone()), background: Background::Inline, ..Env::os() };
        let options = Options {
            segment_bytes: 2048,
            compaction: Arc::new(Greedy { disk_utilization_min: 0.0, ..Greedy::default() }),
            ..Options::default()
        };
        let engine = LogEngine::open_in(Path::new("/store"), &env, options).unwrap();
        (0..8).for_each(|_| put(&engine, 0..50));
        engine.store.flusher.make_all_durable().unwrap();
        let files = disk.files().into_iter().filter(|(path, _)| path.starts_with("/store"));
        disk.limit_space(Some(files.map(|(_, bytes)| bytes.len() as u64).sum()));
        let overwrite =
            || (0..500_u32).try_for_each(|key| engine.put(&(key % 50).to_be_bytes(), &[7; 100]).map(drop));

        let (files, held) = engine.store.catalog.hold_past();
        for _ in 0..5 {
            assert!(matches!(overwrite(), Err(Error::DiskFull { .. })));
        }
        assert_eq!(engine.stats().compactions, 0);
        drop((files, held));
        overwrite().unwrap();
        assert!(engine.stats().compactions > 0);
    }

    #[test]
    fn a_flush_of_sealed_segments_leaves_its_changes_at_their_time() {
        let place = Place::new();
        let engine = place.open();
        put(&engine, 0..50);
        engine.store.flusher.flush_sealed().unwrap();
        let durable = engine.durable_lsn();
        assert!(durable > Lsn::new(20) && durable < Lsn::new(50));
        place.wait();
        put(&engine, 50..100);
        place.wait();
        // The flush of this call dates the later changes.
        assert_eq!(state_at(&engine, 1000), durable);
        assert!(state_at(&engine, 1999) == durable && state_at(&engine, 2000) > durable);
        assert_eq!(state_at(&engine, 3000), Lsn::new(100));
    }

    #[test]
    fn a_segment_gets_no_mark_for_changes_that_have_one() {
        let place = Place::new();
        let engine = place.open();
        for key in 0..5 {
            put(&engine, key..key + 1);
            engine.store.flusher.flush(Action::WriteAndSync).unwrap();
            engine.store.log.seal_active().unwrap();
        }
        engine.close().unwrap();
        for _ in 0..3 {
            let engine = place.open();
            assert_eq!(marks(&engine), 5);
            engine.close().unwrap();
        }
    }

    /// The changes were made before the opening. Nothing tells when.
    #[test]
    fn an_opening_dates_the_changes_that_a_dead_process_left() {
        let mut place = Place::new();
        let dead = place.open();
        put(&dead, 0..30);
        // The roll-over has dated these.
        let sealed_to = dead.store.log.end.lock().active.sealed_to.lsn;
        assert!(sealed_to > Lsn::ZERO && sealed_to < Lsn::new(30));
        place.disk = place.disk.process_death();
        place.wait();
        let engine = place.open();
        place.wait();
        put(&engine, 30..35);
        assert_eq!((state_at(&engine, 1999), state_at(&engine, 2000)), (sealed_to, Lsn::new(30)));
        let (before, last) = (marks(&engine), engine.last_lsn());
        engine.close().unwrap();
        let engine = place.open();
        assert_eq!((marks(&engine), engine.last_lsn()), (before, last));
    }
}
