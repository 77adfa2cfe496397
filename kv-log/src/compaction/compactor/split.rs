//! Splits the large files of a small store that is idle.

use kv_core::{Lsn, Result};
use std::sync::Arc;

use super::Compactor;
use crate::segments::Segment;

/// A file is split only if its records are on average shorter than this part of an output.
const LARGE_PART: usize = 8;

/// The most bytes of files that are split.
const SPLIT_BYTES_MAX: usize = 64 << 20;

impl Compactor {
    /// Splits large files of a small store that is idle, because a store has to hold space for the
    /// survivors of its largest file. Ends once the newest change is not that of `last` any more.
    pub(crate) fn split_large(&self, last: Lsn) -> Result<()> {
        let _alone = self.exclude();
        let _poison = self.context.health.poison_on_panic(self.context.path());
        let is_over = || self.context.signals.pacing.is_stopping() || self.log.end.last_lsn() != last;
        let mut victims = self.files_to_split();
        while !victims.is_empty() && !is_over() {
            self.context.health.check_writable()?;
            // Until readers have left the victims, both copies are in memory.
            let mut some = victims.clone();
            self.keep_copies_few(&mut some);
            match self.disk.compact(&some) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(self.after_failure(error)?),
                // The victims stay as they are.
                Err(_) => {
                    self.count_unreadable();
                    return Ok(());
                }
            }
            victims.retain(|victim| !some.iter().any(|done| done.id == victim.id));
        }
        Ok(())
    }

    /// The files that are much larger than an output of compaction. None, if there is much in them.
    fn files_to_split(&self) -> Vec<Arc<Segment>> {
        let part = self.log.slack.output_bytes();
        let mut large = self.catalog.segments();
        large.retain(|segment| {
            // Large records cannot be split.
            let records = segment.survivors_max();
            let are_small = segment.file_len() < records.saturating_mul(part / LARGE_PART);
            segment.is_durable() && segment.file_len() > part + part / 2 && are_small
        });
        let bytes: usize = large.iter().map(|segment| segment.file_len()).sum();
        if bytes > SPLIT_BYTES_MAX { Vec::new() } else { large }
    }
}
