//! Slots: the numbers through which locations find their segment.

use parking_lot::Mutex;

use super::SEGMENTS_MAX;

/// Gives out slots, and takes them back.
#[derive(Debug)]
pub(super) struct Slots(Mutex<Free>);

#[derive(Debug)]
struct Free {
    returned: Vec<u16>,
    /// The first slot that was never used.
    unused_from: usize,
}

impl Default for Slots {
    fn default() -> Self {
        Slots(Mutex::new(Free { returned: Vec::new(), unused_from: 0 }))
    }
}

impl Slots {
    /// Takes a slot if more than `kept` are free.
    pub(super) fn reserve(&self, kept: usize) -> Option<u16> {
        let mut free = self.0.lock();
        if free.returned.len() + SEGMENTS_MAX - free.unused_from <= kept {
            return None;
        }
        if let Some(slot) = free.returned.pop() {
            return Some(slot);
        }
        let slot = u16::try_from(free.unused_from).ok()?;
        free.unused_from += 1;
        Some(slot)
    }

    pub(super) fn give_back(&self, slot: u16) {
        self.0.lock().returned.push(slot);
    }

    /// All slots that were ever given out are below this number.
    pub(super) fn used_max(&mut self) -> usize {
        self.0.get_mut().unused_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_slots_are_kept_for_compaction() {
        let slots = Slots::default();
        let growth = std::iter::from_fn(|| slots.reserve(10)).count();
        assert_eq!(growth, SEGMENTS_MAX - 10);
        let last: Vec<u16> = std::iter::from_fn(|| slots.reserve(0)).collect();
        assert_eq!(last.len(), 10);
        slots.give_back(last[0]);
        assert!(slots.reserve(1).is_none() && slots.reserve(0).is_some());
    }
}
