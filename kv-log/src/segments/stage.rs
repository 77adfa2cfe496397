//! The life of a segment, from its creation to its release.

use std::sync::atomic::{AtomicU8, Ordering};

/// The stage of a segment. Whether its image is whole, shrunk or gone is independent of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// It holds no record that a reader may see: a spare, or a segment that is being filled.
    Blank,
    /// Writers append to it.
    Active,
    /// Its last record is the seal, and its end is final.
    Sealed,
    /// Sealed, written and synced: compaction and eviction may take it.
    Durable,
    /// The index holds no location in it. It waits for readers.
    Retired,
}

/// The allowed transitions, and the actor of each.
///
/// | from | to | actor |
/// |---|---|---|
/// | blank | active | the writer that rolls over; recovery, for the segment in which the log goes on |
/// | blank | sealed | the compactor, for an output; recovery, for a segment with a seal or a torn one |
/// | blank | retired | recovery, or the compaction worker of an idle store, for a spare |
/// | active | sealed | the thread that rolls over |
/// | sealed | durable | the flusher; the compactor, for an output; recovery |
/// | durable | retired | the compactor; the evictor, for an image that compaction had changed |
const TRANSITIONS: [(Stage, Stage); 6] = [
    (Stage::Blank, Stage::Active),
    (Stage::Blank, Stage::Sealed),
    (Stage::Blank, Stage::Retired),
    (Stage::Active, Stage::Sealed),
    (Stage::Sealed, Stage::Durable),
    (Stage::Durable, Stage::Retired),
];

/// The current stage of a segment.
#[derive(Debug)]
pub(super) struct CurrentStage(AtomicU8);

impl CurrentStage {
    pub(super) fn new(stage: Stage) -> Self {
        CurrentStage(AtomicU8::new(stage as u8))
    }

    /// Whether the stage is `least` or a later one. Acquire pairs with the Release in
    /// [`advance`](Self::advance): a thread that sees a stage also sees the work that led to it.
    #[inline]
    pub(super) fn has_reached(&self, least: Stage) -> bool {
        self.0.load(Ordering::Acquire) >= least as u8
    }

    /// Goes on to `next`.
    ///
    /// # Panics
    /// The transition is not in [`TRANSITIONS`]: the engine's own logic is wrong.
    pub(super) fn advance(&self, next: Stage) {
        let before = self.0.swap(next as u8, Ordering::AcqRel);
        let is_allowed = TRANSITIONS.iter().any(|(from, to)| (*from as u8, *to) == (before, next));
        assert!(is_allowed, "a segment cannot go from stage {before} to {next:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: [Stage; 5] = [Stage::Blank, Stage::Active, Stage::Sealed, Stage::Durable, Stage::Retired];

    #[test]
    fn a_segment_goes_through_its_life_in_order() {
        let life = CurrentStage::new(Stage::Blank);
        for next in [Stage::Active, Stage::Sealed, Stage::Durable, Stage::Retired] {
            assert!(!life.has_reached(next));
            life.advance(next);
            assert!(life.has_reached(next));
        }
    }

    #[test]
    fn every_transition_outside_the_table_panics() {
        for from in STAGES {
            for to in STAGES {
                let life = CurrentStage::new(from);
                let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| life.advance(to)));
                assert_eq!(answer.is_ok(), TRANSITIONS.contains(&(from, to)), "{from:?} to {to:?}");
            }
        }
        assert!(TRANSITIONS.iter().all(|(from, to)| (*from as u8) < *to as u8), "no life goes back");
    }
}
