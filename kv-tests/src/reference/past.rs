//! The past states that are kept: a map, and the changes since then. And the points.

use super::Defect;
use super::log::{self, Map};
use super::state::{Shared, State};
use kv_core::{Change, Lsn, Point, RetentionPolicy, RetentionView, Superseded};

/// The past states of a store. The newest state is the map of the content.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// The oldest state. It is empty while `made` is: then the newest state is the only one.
    pub(super) base: Map,
    pub(super) base_lsn: u64,
    pub(super) base_unix_ms: u64,
    /// The changes since then, in the order of their LSNs.
    pub(super) made: Vec<Made>,
    /// In the order of their names.
    pub(super) points: Vec<Point>,
}

/// A change in the window.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) lsn: u64,
    pub(super) unix_ms: u64,
    pub(super) changes: Vec<Change>,
}

impl Past {
    /// Of a store whose only state is the one at `lsn`.
    pub(super) fn at(lsn: u64, unix_ms: u64) -> Self {
        Past { base_lsn: lsn, base_unix_ms: unix_ms, ..Past::default() }
    }

    /// Notes the first record of a file.
    pub(super) fn begin(&mut self, lsn: u64, unix_ms: u64, points: Vec<Point>) {
        *self = Past { points, ..Past::at(lsn, unix_ms) };
    }

    /// Notes a change that recovery found, before it changes `map`.
    pub(super) fn recovered(&mut self, map: &Map, made: Made) {
        if self.made.is_empty() {
            self.base.clone_from(map);
        }
        self.made.push(made);
    }

    /// With a defect, forgets what it recovered.
    pub(super) fn opened(&mut self, defect: Option<Defect>, map: &Map, last: u64) {
        if defect == Some(Defect::PastEndsAtOpen) && self.base_lsn < last {
            let points = std::mem::take(&mut self.points);
            self.begin(last, self.base_unix_ms, points);
            self.base.clone_from(map);
        }
        if defect == Some(Defect::PointsEndAtOpen) {
            self.points.clear();
        }
    }

    /// Bytes that only past states need.
    pub(super) fn bytes(&self) -> u64 {
        self.made.iter().map(|made| log::record_len(&made.changes)).sum()
    }

    /// Drops the points that have expired, and the past states that neither the policy nor a point
    /// keeps.
    pub(super) fn expire(&mut self, defect: Option<Defect>, policy: &dyn RetentionPolicy, now_unix_ms: u64) {
        if defect != Some(Defect::PointsNeverExpire) {
            self.points.retain(|point| !point.is_expired(now_unix_ms));
        }
        let superseded: Vec<Superseded> = self.made.iter().map(Made::superseded).collect();
        let mut count = policy.expired(&RetentionView { superseded: &superseded, now_unix_ms });
        match defect {
            Some(Defect::PastExpiresEarly) => count += 1,
            Some(Defect::PastNeverExpires) => count = 0,
            _ => {}
        }
        self.drop_oldest(defect, count);
    }

    /// Drops so many changes, up to the first point.
    fn drop_oldest(&mut self, defect: Option<Defect>, count: usize) {
        let held = self.points.iter().map(|point| point.lsn.get()).min();
        let held = held.filter(|_| defect != Some(Defect::PointsHoldNothing)).unwrap_or(u64::MAX);
        let count = count.min(self.made.partition_point(|made| made.lsn <= held));
        for made in self.made.drain(..count) {
            made.changes.iter().for_each(|change| log::apply(&mut self.base, change));
            (self.base_lsn, self.base_unix_ms) = (made.lsn, made.unix_ms);
        }
        if self.made.is_empty() {
            self.base.clear();
        }
    }
}

impl Made {
    fn superseded(&self) -> Superseded {
        let (lsn, bytes) = (Lsn::new(self.lsn), log::record_len(&self.changes));
        Superseded { lsn, unix_ms: self.unix_ms, bytes }
    }
}

impl Shared {
    /// Keeps the state before a change, if the policy or a point wants it.
    pub(super) fn keep_past(&self, state: &mut State, lsn: u64, changes: &[&Change]) {
        let unix_ms = self.place.env.clock.unix_time_ms();
        let changes = changes.iter().copied().cloned().collect();
        let (map, past, policy) = (&state.content.map, &mut state.content.past, &*self.options.retention);
        let made = Made { lsn, unix_ms, changes };
        if past.made.is_empty() {
            let view = RetentionView { superseded: &[made.superseded()], now_unix_ms: unix_ms };
            let goes = policy.expired(&view) > 0 && !self.has(Defect::PastNeverExpires);
            if goes && past.points.is_empty() {
                (past.base_lsn, past.base_unix_ms) = (lsn, unix_ms);
                return;
            }
            past.base.clone_from(map);
        }
        past.made.push(made);
        past.expire(self.place.defect, policy, unix_ms);
    }

    /// Drops the window on a full disk, unless the policy wants it to stay. Says whether that
    /// dropped anything.
    pub(super) fn give_up_past(&self, state: &mut State) -> bool {
        if !self.options.retention.yields_to_full_disk() {
            return false;
        }
        let past = &mut state.content.past;
        let before = past.made.len();
        past.drop_oldest(self.place.defect, before);
        past.made.len() < before
    }
}
