//! Reads. No lock is held while a callback runs: a scan visits a copy of the tree that shares all
//! leaves, and a value is shared with the tree.

use super::commit::Store;
use super::defect::Defect;
use super::tree::{Entry, Leaf};
use kv_core::{Result, ScanVisitor, Value};
use std::ops::ControlFlow;
use std::sync::Arc;

impl Store {
    fn check_read(&self, key: &[u8]) -> Result<()> {
        if !self.broken.is(Defect::ReadsAfterClose) {
            self.health.check_readable()?;
        }
        if self.broken.is(Defect::PoisonEndsReads) && self.health.is_poisoned() {
            return Err(self.health.poisoned());
        }
        if self.broken.is(Defect::LongKeyIsAbsent) {
            return Ok(());
        }
        self.check_key(key)
    }

    /// Refuses a key that is longer than every key of the store can be.
    pub(crate) fn check_key(&self, key: &[u8]) -> Result<()> {
        let allowed = self.key_len_max + usize::from(self.broken.is(Defect::KeyLimitOffByOne));
        self.options.limits.check_key_with(key, allowed)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.check_read(key)?;
        Ok(self.view().tree.get(key).cloned())
    }

    pub(crate) fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.get(key)?;
        let _view = self.broken.is(Defect::ReadHoldsView).then(|| self.view());
        let _commit = self.broken.is(Defect::ReadHoldsCommitLock).then(|| self.commit());
        let is_skipped = |value: &Value| value.is_empty() && self.broken.is(Defect::ReadSkipsEmptyValue);
        let Some(value) = value.filter(|value| !is_skipped(value)) else { return Ok(false) };
        visit(&value);
        Ok(true)
    }

    pub(crate) fn read_many(
        &self,
        keys: &[&[u8]],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        let broken = self.broken;
        if !broken.is(Defect::ReadManyChecksAsItGoes) {
            keys.iter().try_for_each(|key| self.check_read(key))?;
        }
        let _view = broken.is(Defect::ReadManyHoldsView).then(|| self.view());
        let mut order: Vec<usize> = (0..keys.len()).collect();
        if broken.is(Defect::ReadManySortsKeys) {
            order.sort_by_key(|position| keys.get(*position));
        }
        if broken.is(Defect::ReadManyAtMost64) {
            order.truncate(64);
        }
        let mut previous: Option<Value> = None;
        for (nth, position) in order.into_iter().enumerate() {
            let Some(key) = keys.get(position) else { break };
            self.check_read(key)?;
            let is_repeated = keys.iter().take(position).any(|other| other == key);
            if is_repeated && broken.is(Defect::ReadManySkipsRepeatedKey) {
                continue;
            }
            let mut value = self.view().tree.get(key).cloned();
            if value.is_none() && nth > 0 && broken.is(Defect::ReadManyAbsentTakesPrevious) {
                value.clone_from(&previous);
            }
            if value.is_none() && broken.is(Defect::ReadManyEndsAtAbsent) {
                visit(position, None);
                break;
            }
            let is_none = value.as_ref().is_some_and(|value| value.is_empty())
                && broken.is(Defect::ReadManyEmptyIsNone);
            visit(position, value.as_deref().filter(|_| !is_none));
            previous = value;
        }
        Ok(())
    }

    pub(crate) fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        let broken = self.broken;
        if !broken.is(Defect::ScansAfterClose) {
            self.health.check_readable()?;
        }
        if broken.is(Defect::ScanByLeafNumber) {
            self.scan_by_leaf_number(visit);
            return Ok(());
        }
        if broken.is(Defect::ScanByPosition) {
            self.scan_by_position(visit);
            return Ok(());
        }
        if broken.is(Defect::ScanByLastKeyOfLeaf) {
            self.scan_by_last_key(visit);
            return Ok(());
        }
        let tree = Arc::clone(&self.view().tree);
        let _view = broken.is(Defect::ScanHoldsView).then(|| self.view());
        let _split = broken.is(Defect::ScanHoldsSplitLock).then(|| self.scratch.split());
        for leaf in &tree.leaves {
            if self.visit_leaf(leaf, visit).is_break() && !broken.is(Defect::ScanBreakEndsLeaf) {
                break;
            }
        }
        Ok(())
    }

    fn visit_leaf(&self, leaf: &Leaf, visit: &mut ScanVisitor<'_>) -> ControlFlow<()> {
        let skips = self.broken.is(Defect::ScanSkipsEmptyValues);
        leaf.iter()
            .filter(|entry| !(skips && entry.value.is_empty()))
            .try_for_each(|entry| visit(&entry.key, &entry.value))
    }

    /// A defect: a leaf's number changes when an earlier leaf splits or goes.
    fn scan_by_leaf_number(&self, visit: &mut ScanVisitor<'_>) {
        let leaf = |number: usize| self.view().tree.leaves.get(number).cloned();
        let _ = (0..).map_while(leaf).try_for_each(|leaf| self.visit_leaf(&leaf, visit));
    }

    /// A defect: an entry's position changes when an earlier one comes or goes.
    fn scan_by_position(&self, visit: &mut ScanVisitor<'_>) {
        let entry = |(number, position): (usize, usize)| -> Option<Entry> {
            self.view().tree.leaves.get(number)?.get(position).cloned()
        };
        let mut at = (0, 0);
        loop {
            match entry(at) {
                Some(found) => {
                    at.1 += 1;
                    if visit(&found.key, &found.value).is_break() {
                        return;
                    }
                }
                None if at.1 == 0 => return,
                None => at = (at.0 + 1, 0),
            }
        }
    }

    /// A defect: the scan goes on behind the first key of the leaf, and not behind the last one
    /// visited.
    fn scan_by_last_key(&self, visit: &mut ScanVisitor<'_>) {
        let mut first = self.view().tree.leaves.first().cloned();
        while let Some(leaf) = first {
            if self.visit_leaf(&leaf, visit).is_break() {
                return;
            }
            let Some(begin) = leaf.first().map(|entry| Arc::clone(&entry.key)) else { return };
            let view = self.view();
            first = view
                .tree
                .leaves
                .iter()
                .find(|leaf| leaf.first().is_some_and(|entry| entry.key > begin))
                .cloned();
        }
    }
}
