use kv_core::{Engine, KeepNothing, RetentionPolicy, RetentionView};
use std::sync::atomic::{AtomicBool, Ordering};

/// Keeps every past state of a store that has any. In a store without past states, it keeps none.
///
/// A command does not know the retention policy of the store's application. It must not remove a
/// past state that the application keeps, not even on a full disk.
///
/// The policy keeps everything until [`look_at`](Self::look_at) finds no past states in the open
/// store. The command holds the writer's lock then, so no other process adds one.
#[derive(Debug, Default)]
pub(crate) struct KeepFound {
    found_none: AtomicBool,
}

impl KeepFound {
    /// Looks for past states in `engine`, which is open with this policy. If an answer is missing,
    /// the policy still keeps everything.
    pub(crate) fn look_at(&self, engine: &dyn Engine) {
        let found_none = engine.as_point_in_time().is_none_or(|past| {
            past.window().is_ok_and(|window| window.first_lsn == window.last_lsn)
                && past.points().is_ok_and(|points| points.is_empty())
        });
        // The flag publishes no other memory.
        self.found_none.store(found_none, Ordering::Relaxed);
    }

    fn keeps(&self) -> bool {
        !self.found_none.load(Ordering::Relaxed)
    }
}

impl RetentionPolicy for KeepFound {
    fn expired(&self, view: &RetentionView<'_>) -> usize {
        if self.keeps() { 0 } else { KeepNothing.expired(view) }
    }

    fn yields_to_full_disk(&self) -> bool {
        !self.keeps()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use kv_core::{EngineExt, EngineFactory, Env, KeepPast, Lsn, OpenOptions, Target};
    use kv_log::LogFactory;
    use kv_naive::NaiveFactory;
    use std::path::Path;
    use std::sync::Arc;

    const FACTORIES: [&dyn EngineFactory; 2] = [&LogFactory, &NaiveFactory];

    fn open(factory: &dyn EngineFactory, dir: &Path, retention: Arc<dyn RetentionPolicy>) -> Arc<dyn Engine> {
        factory.open(dir, &Env::os(), &OpenOptions { retention, ..OpenOptions::default() }).unwrap()
    }

    /// Opens the store with a policy that looks at it.
    fn open_and_look(factory: &dyn EngineFactory, dir: &Path) -> (Arc<dyn Engine>, Arc<KeepFound>) {
        let policy = Arc::new(KeepFound::default());
        let engine = open(factory, dir, Arc::<KeepFound>::clone(&policy));
        assert!(policy.keeps() && !policy.yields_to_full_disk(), "the opening gives up nothing");
        policy.look_at(&*engine);
        (engine, policy)
    }

    /// Changes the value twice. The engines supersede its earlier values.
    fn supersede(engine: &dyn Engine) {
        for value in [b"1", b"2"] {
            engine.put_durable(b"k", value).unwrap();
        }
        if let Some(compact) = engine.as_compact() {
            compact.compact().unwrap();
        }
    }

    fn first_lsn(engine: &dyn Engine) -> Lsn {
        engine.as_point_in_time().unwrap().window().unwrap().first_lsn
    }

    #[test]
    fn past_states_that_a_store_has_stay_and_new_ones_join_them() {
        for factory in FACTORIES {
            let dir = tempfile::tempdir().unwrap();
            let application = open(factory, dir.path(), Arc::new(KeepPast::all()));
            supersede(&*application);
            let first = first_lsn(&*application);
            application.close().unwrap();
            let (engine, policy) = open_and_look(factory, dir.path());
            assert!(policy.keeps() && !policy.yields_to_full_disk(), "{}", factory.name());
            supersede(&*engine);
            assert_eq!(first_lsn(&*engine), first, "{}", factory.name());
            for (lsn, value) in [(1, b"1"), (2, b"2"), (3, b"1")] {
                let past = engine.as_point_in_time().unwrap().read_at(&Target::Lsn(Lsn::new(lsn))).unwrap();
                assert_eq!(past.engine.get(b"k").unwrap().as_deref(), Some(value.as_slice()), "LSN {lsn}");
            }
            engine.close().unwrap();
        }
    }

    #[test]
    fn a_store_without_past_states_begins_to_keep_none() {
        for factory in FACTORIES {
            let dir = tempfile::tempdir().unwrap();
            let (engine, policy) = open_and_look(factory, dir.path());
            assert!(!policy.keeps() && policy.yields_to_full_disk(), "{}", factory.name());
            supersede(&*engine);
            assert_eq!(first_lsn(&*engine), Lsn::new(2), "{}", factory.name());
            assert_eq!(engine.stats().past_bytes, 0, "{}", factory.name());
            engine.close().unwrap();
        }
    }

    #[test]
    fn a_point_alone_is_a_past_state() {
        for factory in FACTORIES {
            let dir = tempfile::tempdir().unwrap();
            let application = open(factory, dir.path(), Arc::new(KeepNothing));
            application.as_point_in_time().unwrap().pin("p", &Target::Lsn(Lsn::ZERO), None).unwrap();
            application.close().unwrap();
            let (engine, policy) = open_and_look(factory, dir.path());
            assert!(policy.keeps(), "{}", factory.name());
            engine.close().unwrap();
        }
    }
}
