//! Calls that wait for callbacks: only defects do.

use super::Defect;
use super::state::Shared;
use super::visits::Kind;
use kv_core::Change;
use std::thread;

impl Shared {
    /// Waits for callbacks before a change, where a defect demands it.
    pub(super) fn wait_before_change(&self, changes: &[&Change]) {
        let thread = thread::current().id();
        if self.has(Defect::ReadPinsKey) {
            let is_named = |key: &[u8]| changes.iter().any(|change| change.key() == key);
            self.visits.wait_while(|visit| visit.kind == Kind::Read && is_named(&visit.key));
        }
        if self.has(Defect::CallbackStopsWriters) {
            self.visits.wait_while(|visit| visit.kind == Kind::Scan && visit.thread != thread);
        }
    }

    /// Waits for callbacks before a sync, where a defect demands it.
    pub(super) fn wait_before_sync(&self) {
        if self.has(Defect::SyncWaitsForReadMany) {
            self.visits.wait_while(|visit| visit.kind == Kind::ReadMany);
        }
    }

    /// Waits for callbacks before the statistics, where a defect demands it.
    pub(super) fn wait_before_stats(&self) {
        if self.has(Defect::StatsWaitForScan) {
            self.visits.wait_while(|visit| visit.kind == Kind::Scan);
        }
    }
}
