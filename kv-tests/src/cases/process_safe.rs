//! Changes of an engine that is process-safe: cases of the group `crash`.

use crate::failure::ensure;
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Setup};
use crate::sim::SimFs;
use crate::workload::{random_ops, run_op};
use crate::{CaseResult, Context, Failure};
use kv_core::{Background, Engine};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

pub(super) fn each_change_survives_a_death(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let count = usize::try_from(context.scaled(60)).unwrap_or(60);
    for (policy, background) in Policy::ALL
        .into_iter()
        .flat_map(|policy| [context.quiet_background(), Background::Threads].map(|with| (policy, with)))
    {
        let setup = Setup { background, ..Setup::tiny(context, policy) };
        let disk = SimFs::new();
        let engine = context.sim_rig(disk.clone(), setup).open()?;
        let mut history = History::default();
        for (number, op) in random_ops(&mut rng, count, 8).iter().enumerate() {
            run_op(&*engine, op, &mut history)?;
            history.told_written();
            context.explored().crash_state();
            let left = context.sim_rig(disk.process_death(), Setup::tiny(context, policy)).open()?;
            history.after_death().check(&state_of(&*left)?).map_err(|failure| {
                failure
                    .with("policy", format!("{policy:?}, {background:?}"))
                    .with("where", format!("after operation {number}: {}", op.describe()))
            })?;
        }
    }
    Ok(())
}

/// The limit that ends a writer.
const OVER: u64 = u64::MAX;

/// A writer: it puts ascending numbers under its own key.
struct Writer {
    key: [u8; 1],
    /// The number of its last put that returned.
    answered: AtomicU64,
}

/// The most puts of a writer between two looks. Otherwise the store grows with the time that the
/// judge takes, and the judge takes longer with a larger store.
const PUTS_A_LOOK: u64 = 300;

impl Writer {
    /// Puts until `limit`, which the judge raises, is `OVER`.
    fn work(&self, engine: &dyn Engine, limit: &AtomicU64) -> CaseResult {
        for number in 1u64.. {
            while number > limit.load(Ordering::Acquire) {
                thread::yield_now();
            }
            if limit.load(Ordering::Acquire) == OVER {
                break;
            }
            engine.put(&self.key, &number.to_le_bytes())?;
            self.answered.store(number, Ordering::Release);
        }
        Ok(())
    }

    /// The number of the put that a recovered store shows.
    fn found(&self, engine: &dyn Engine) -> Result<u64, Failure> {
        let value = engine.get(&self.key)?;
        Ok(value.and_then(|value| Some(u64::from_le_bytes(*value.first_chunk()?))).unwrap_or_default())
    }
}

pub(super) fn changes_of_threads_survive_a_death(context: &Context) -> CaseResult {
    for policy in [Policy::Manual, Policy::AnyOf, Policy::Always] {
        let setup = Setup { background: Background::Threads, ..Setup::tiny(context, policy) };
        let disk = SimFs::new();
        let engine = context.sim_rig(disk.clone(), setup).open()?;
        let limit = Arc::new(AtomicU64::new(0));
        let writers: Vec<Arc<Writer>> =
            (0..3).map(|key| Arc::new(Writer { key: [key], answered: AtomicU64::new(0) })).collect();
        let threads: Vec<_> = writers
            .iter()
            .map(|writer| {
                let (writer, engine, limit) = (Arc::clone(writer), Arc::clone(&engine), Arc::clone(&limit));
                thread::spawn(move || writer.work(&*engine, &limit))
            })
            .collect();
        let judged = (0..context.scaled(60)).try_for_each(|_| {
            limit.fetch_add(PUTS_A_LOOK, Ordering::AcqRel);
            thread::sleep(std::time::Duration::from_micros(200));
            let answered: Vec<u64> =
                writers.iter().map(|writer| writer.answered.load(Ordering::Acquire)).collect();
            context.explored().crash_state();
            let left = context.sim_rig(disk.process_death(), Setup::tiny(context, policy)).open()?;
            for (writer, answered) in writers.iter().zip(answered) {
                let found = writer.found(&*left)?;
                ensure!(
                    found >= answered,
                    "under {policy:?} put {answered} of a thread had returned, but after the death of the process its key shows put {found}"
                );
            }
            Ok(())
        });
        limit.store(OVER, Ordering::Release);
        for thread in threads {
            thread.join().map_err(|_| Failure::new("no operation panics, but a put did"))??;
        }
        judged?;
    }
    Ok(())
}
