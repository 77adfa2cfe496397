//! The catalog's side of compaction: the manifest names the outputs in place of the victims.

use kv_core::fs::DirExt;
use kv_core::{Lsn, Result};
use std::sync::Arc;

use super::archive::Archived;
use super::catalog::Catalog;
use super::content::Entry;
use super::leftovers::Which;
use crate::segments::Segment;
use crate::working::Working;

/// A segment that a compaction has replaced.
#[derive(Clone, Debug)]
pub(crate) struct Replaced {
    pub(crate) segment: Arc<Segment>,
    /// Whether states before the compaction need something of it that the outputs do not hold.
    pub(crate) is_needed_before: bool,
}

impl Catalog {
    /// Makes the manifest name the outputs of a compaction in place of its victims. Archives the
    /// victims that past states need: states from `horizon` on do not need them. The files of the
    /// others are leftovers then. `left` counts the images of the victims from the moment at which
    /// they leave the catalog. If there is no room for the manifest, it removes the outputs' files.
    pub(crate) fn exchange(
        &self,
        victims: &[Replaced],
        outputs: &[Arc<Segment>],
        horizon: Lsn,
        last_lsn: Lsn,
        left: &mut Working<'_>,
    ) -> Result<()> {
        self.change(|stored| {
            // The index may point at another image of the same file, of which the survivors know
            // nothing. A panic here poisons the store.
            let are_current = victims.iter().all(|victim| self.is_current(&victim.segment));
            assert!(are_current, "a victim was replaced during its compaction");
            let mut next = stored.manifest.clone();
            let replaced_unix_ms = self.context.env.clock.unix_time_ms();
            for Replaced { segment, is_needed_before } in victims {
                next.segments.remove(&segment.id);
                let (kind, len) = (segment.kind, segment.file_len() as u64);
                if *is_needed_before {
                    let archived = Archived { kind, len, replaced_lsn: horizon, replaced_unix_ms };
                    next.archive.segments.insert(segment.id, archived);
                }
            }
            for output in outputs {
                let entry = Entry { kind: output.kind, sealed: true, durable_len: output.end() as u64 };
                next.segments.insert(output.id, entry);
            }
            let synced = if outputs.is_empty() { Ok(()) } else { self.context.dir.sync_durably() };
            if let Err(error) = synced.and_then(|()| self.store(stored, next, last_lsn)) {
                for output in outputs {
                    self.discard_unless_named(output, &error);
                }
                return Err(error);
            }
            let mut segments = self.segments.lock();
            for Replaced { segment: victim, is_needed_before } in victims {
                segments.remove(&victim.id);
                left.take(victim.resident_bytes());
                if self.context.options.memory_budget.is_none() && !victim.is_from_checkpoint {
                    // All images are in memory, so no reader reads the file. Open, it would keep
                    // its space.
                    victim.file.close();
                }
                if !is_needed_before {
                    self.add_leftover(victim);
                }
            }
            segments.extend(outputs.iter().map(|output| (output.id, Arc::clone(output))));
            Ok(())
        })
    }

    /// Removes the files that the stored manifest does not name. Without a lock of the catalog: it
    /// takes long, and writers may wait for a segment.
    pub(crate) fn remove_victims(&self) {
        self.leftovers.remove(Which::Due);
    }
}
