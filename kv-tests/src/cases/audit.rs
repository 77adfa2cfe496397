//! What the statistics of an engine must say, and values that no engine compresses.

use crate::failure::{CaseResult, ensure};
use crate::workload::{Op, value};
use fastrand::Rng;
use kv_core::{Batch, Engine, Stats};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;

/// A statistic that an engine need not measure: always zero, or always right.
#[derive(Debug, Default)]
pub(super) struct Optional {
    is_measured: bool,
    /// The step after which it was zero, and should not have been.
    missing: Option<String>,
}

impl Optional {
    pub(super) fn check(
        &mut self,
        name: &str,
        after: &str,
        found: u64,
        right: impl RangeBounds<u64> + Debug,
    ) -> CaseResult {
        self.is_measured |= found > 0;
        if !right.contains(&found) {
            ensure!(found == 0, "after {after} the statistic {name} is in {right:?}, but it is {found}");
            self.missing.get_or_insert_with(|| after.to_owned());
        }
        match &self.missing {
            Some(missing) if self.is_measured => Err(crate::Failure::new(format!(
                "a statistic that is not zero is right, but {name}, which the engine measures, is zero after {missing}"
            ))),
            _ => Ok(()),
        }
    }
}

/// A model of a store, and the statistics that follow from it.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// The length of each value.
    lens: BTreeMap<u8, usize>,
    changes: u64,
    begun: usize,
    before: Stats,
    live_bytes: Optional,
}

impl Audit {
    /// Counters begin at zero.
    pub(super) fn opened(&mut self) {
        (self.changes, self.before) = (0, Stats::default());
    }

    pub(super) fn keys(&self) -> u64 {
        self.lens.len() as u64
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Runs one operation, also against the model.
    pub(super) fn run(&mut self, engine: &dyn Engine, op: &Op) -> kv_core::Result<()> {
        self.begun += 1;
        let (number, put) = (self.begun, |key: u8, len: usize| vec![(key, Some(len))]);
        let changes = match op {
            Op::Put { key, len } => {
                engine.put(&[*key], &value(number, *len))?;
                put(*key, *len)
            }
            Op::Delete { key } => {
                engine.delete(&[*key])?;
                vec![(*key, None)]
            }
            Op::Batch(changes) => {
                let mut batch = Batch::new();
                for (key, len) in changes {
                    match len {
                        Some(len) => batch.put(&[*key], &value(number, *len)),
                        None => batch.delete(&[*key]),
                    };
                }
                engine.apply(&batch)?;
                changes.clone()
            }
            Op::Sync => {
                engine.sync()?;
                Vec::new()
            }
            Op::Compact => {
                engine.as_compact().map(kv_core::Compact::compact).transpose()?;
                Vec::new()
            }
            Op::Reopen => Vec::new(),
        };
        self.change(changes);
        Ok(())
    }

    /// The last change of a key counts, and a delete counts only if it finds its key.
    fn change(&mut self, changes: Vec<(u8, Option<usize>)>) {
        let last: BTreeMap<u8, Option<usize>> = changes.into_iter().collect();
        let changes_it = |(key, len): (&u8, &Option<usize>)| len.is_some() || self.lens.contains_key(key);
        self.changes += u64::from(last.iter().any(changes_it));
        for (key, len) in last {
            match len {
                Some(len) => self.lens.insert(key, len),
                None => self.lens.remove(&key),
            };
        }
    }

    /// Checks the statistics. A thread of the engine may move `durable_lsn` meanwhile.
    pub(super) fn check(&mut self, engine: &dyn Engine, after: &str) -> CaseResult {
        let (last, durable) = (engine.last_lsn(), engine.durable_lsn());
        let stats = engine.stats();
        ensure!(
            stats.keys == self.keys(),
            "the statistics count the keys present, but after {after} they report {} keys of {}",
            stats.keys,
            self.keys()
        );
        ensure!(
            stats.last_lsn == last,
            "after {after} the statistics report last_lsn {}, but last_lsn() is {last}",
            stats.last_lsn
        );
        ensure!(
            (durable..=engine.durable_lsn()).contains(&stats.durable_lsn),
            "after {after} the statistics report durable_lsn {}, but durable_lsn() is {durable}",
            stats.durable_lsn
        );
        ensure!(
            stats.changes == self.changes,
            "the statistics count puts, deletes that found their key, and batches that changed something, \
             but after {after} they report {} changes of {}",
            stats.changes,
            self.changes
        );
        let live = self.lens.values().map(|len| 1 + *len as u64).sum::<u64>();
        self.live_bytes.check("live_bytes", after, stats.live_bytes, live..=live)?;
        ensure!(
            stats.leftover_files == 0,
            "every removal succeeded, but after {after} {} files count as left over",
            stats.leftover_files
        );
        self.check_counters(after, &stats)?;
        self.before = stats;
        Ok(())
    }

    fn check_counters(&self, after: &str, now: &Stats) -> CaseResult {
        let before = &self.before;
        for (name, before, now) in [
            ("dumps", before.dumps, now.dumps),
            ("syncs", before.syncs, now.syncs),
            ("bytes_written", before.bytes_written, now.bytes_written),
            ("stalls", before.stalls, now.stalls),
            ("compactions", before.compactions, now.compactions),
            ("memory_compactions", before.memory_compactions, now.memory_compactions),
            ("evictions", before.evictions, now.evictions),
            ("fetches", before.fetches, now.fetches),
            ("compacted_bytes", before.compacted_bytes, now.compacted_bytes),
            ("compaction_failures", before.compaction_failures, now.compaction_failures),
        ] {
            ensure!(
                now >= before,
                "a counter never falls, but after {after} {name} fell from {before} to {now}"
            );
        }
        Ok(())
    }
}

/// Values of random bytes.
pub(super) fn values(rng: &mut Rng, count: usize, len: usize) -> Vec<Vec<u8>> {
    (0..count).map(|_| std::iter::repeat_with(|| rng.u8(..)).take(len).collect()).collect()
}
