use kv_core::{Lsn, Point, RetentionPolicy, RetentionView, Superseded, Window};

/// A snapshot that was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) lsn: Lsn,
    /// Its changes had been made by then.
    pub(crate) unix_ms: u64,
    pub(crate) bytes: u64,
}

/// The snapshots of a store, and its points.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) newest: Taken,
    /// In the order of their LSNs.
    pub(crate) old: Vec<Taken>,
    /// In the order of their names.
    pub(crate) points: Vec<Point>,
    /// Whether the list of points could not be read. Then nothing expires: a point may hold any old
    /// snapshot.
    pub(crate) lacks_points: bool,
}

impl Kept {
    /// The points that have not expired.
    pub(crate) fn points_at(&self, now_unix_ms: u64) -> Vec<Point> {
        self.points.iter().filter(|point| !point.is_expired(now_unix_ms)).cloned().collect()
    }

    /// The old snapshots that no point holds, as the policy sees them.
    fn superseded(&self, now_unix_ms: u64) -> Vec<(Lsn, Superseded)> {
        let next = self.old.iter().skip(1).chain([&self.newest]);
        if self.lacks_points {
            return Vec::new();
        }
        let held = self.points_at(now_unix_ms);
        let is_free = |lsn: Lsn| held.iter().all(|point| point.lsn != lsn);
        let free = self.old.iter().zip(next).filter(|(old, _)| is_free(old.lsn));
        free.map(|(old, next)| {
            (old.lsn, Superseded { lsn: next.lsn, unix_ms: next.unix_ms, bytes: old.bytes })
        })
        .collect()
    }

    /// Takes out the old snapshots that neither the policy nor a point keeps.
    pub(crate) fn expire(&mut self, policy: &dyn RetentionPolicy, now_unix_ms: u64) -> Vec<Taken> {
        let (lsns, superseded): (Vec<Lsn>, Vec<Superseded>) =
            self.superseded(now_unix_ms).into_iter().unzip();
        let count = policy.expired(&RetentionView { superseded: &superseded, now_unix_ms });
        self.take_out(lsns.get(..count.min(lsns.len())).unwrap_or_default())
    }

    /// Takes out the oldest snapshots that no point holds, until they have `bytes` bytes.
    pub(crate) fn give_up(&mut self, bytes: u64, now_unix_ms: u64) -> Vec<Taken> {
        let mut freed = 0;
        let oldest = self.superseded(now_unix_ms).into_iter().take_while(|(_, one)| {
            let is_short = freed < bytes;
            freed += one.bytes;
            is_short
        });
        let lsns: Vec<Lsn> = oldest.map(|(lsn, _)| lsn).collect();
        self.take_out(&lsns)
    }

    /// Takes out old snapshots, and points that may be left without theirs.
    pub(crate) fn take_out(&mut self, lsns: &[Lsn]) -> Vec<Taken> {
        self.points.retain(|point| !lsns.contains(&point.lsn));
        self.old.extract_if(.., |old| lsns.contains(&old.lsn)).collect()
    }

    /// This, after the snapshot `new` was taken: without those that then expire, and these.
    pub(crate) fn after(&self, new: Taken, policy: &dyn RetentionPolicy) -> (Kept, Vec<Taken>) {
        let mut after = self.clone();
        if new.lsn > self.newest.lsn {
            after.old.push(self.newest);
        }
        after.newest = new;
        let expired = after.expire(policy, new.unix_ms);
        (after, expired)
    }

    /// Whether snapshots may stay, so that they must tell their times.
    pub(crate) fn may_keep(&self, policy: &dyn RetentionPolicy, now_unix_ms: u64) -> bool {
        let fresh = [Superseded { lsn: self.newest.lsn, unix_ms: now_unix_ms, bytes: 0 }];
        self.lacks_points
            || !self.points.is_empty()
            || policy.expired(&RetentionView { superseded: &fresh, now_unix_ms }) == 0
    }

    /// Bytes that only past states need.
    pub(crate) fn past_bytes(&self) -> u64 {
        self.old.iter().map(|old| old.bytes).sum()
    }

    /// The window of a store whose newest change has the LSN `last_lsn`.
    pub(crate) fn window(&self, last_lsn: Lsn, now_unix_ms: u64) -> Window {
        let first = self.old.first().unwrap_or(&self.newest);
        // The clock may have been set back.
        let last_unix_ms = now_unix_ms.max(first.unix_ms);
        Window {
            first_lsn: first.lsn,
            last_lsn: last_lsn.max(self.newest.lsn),
            first_unix_ms: first.unix_ms,
            last_unix_ms,
        }
    }

    /// The LSNs and times of the snapshots, in their order.
    pub(crate) fn moments(&self) -> Vec<(Lsn, u64)> {
        self.old.iter().chain([&self.newest]).map(|taken| (taken.lsn, taken.unix_ms)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{KeepNothing, KeepPast};
    use std::time::Duration;

    fn taken(lsn: u64) -> Taken {
        Taken { lsn: Lsn::new(lsn), unix_ms: lsn * 10, bytes: 100 }
    }

    fn kept(points: &[(u64, Option<u64>)]) -> Kept {
        let point = |(lsn, expires_unix_ms): &(u64, Option<u64>)| Point {
            name: lsn.to_string(),
            lsn: Lsn::new(*lsn),
            unix_ms: lsn * 10,
            expires_unix_ms: *expires_unix_ms,
        };
        Kept {
            newest: taken(9),
            old: [1, 3, 5, 7].map(taken).to_vec(),
            points: points.iter().map(point).collect(),
            lacks_points: false,
        }
    }

    fn lsns(taken: &[Taken]) -> Vec<u64> {
        taken.iter().map(|one| one.lsn.get()).collect()
    }

    #[test]
    fn the_oldest_go_and_those_of_points_stay() {
        for (policy, points, goes) in [
            (KeepPast::all(), &[][..], &[][..]),
            (KeepPast::all().count_max(2), &[], &[1, 3]),
            (KeepPast::all().count_max(2), &[(1, None)], &[3]),
            (KeepPast::all().count_max(2), &[(1, Some(90))], &[1, 3]),
            (KeepPast::all().count_max(0), &[(5, None), (9, None)], &[1, 3, 7]),
            (KeepPast::all().bytes_max(250), &[], &[1, 3]),
            // Snapshot 3 was superseded at time 50, snapshot 5 at time 70.
            (KeepPast::of_time(Duration::from_millis(30)), &[], &[1, 3]),
        ] {
            let mut kept = kept(points);
            assert_eq!(lsns(&kept.expire(&policy, 90)), goes, "{policy:?} {points:?}");
            assert_eq!(kept.old.len() + goes.len(), 4);
            assert!(kept.expire(&policy, 90).is_empty());
        }
        let mut kept = kept(&[(1, Some(90)), (3, None), (5, Some(90)), (9, Some(90))]);
        assert_eq!(lsns(&kept.expire(&KeepPast::all().count_max(2), 90)), [1]);
        let points: Vec<u64> = kept.points.iter().map(|point| point.lsn.get()).collect();
        assert_eq!(points, [3, 5, 9], "a point goes with its snapshot");
        let mut kept = self::kept(&[]);
        assert_eq!(lsns(&kept.expire(&KeepNothing, 90)), [1, 3, 5, 7]);
        assert_eq!((kept.past_bytes(), kept.window(Lsn::new(12), 95).first_lsn), (0, Lsn::new(9)));
    }

    #[test]
    fn a_full_disk_takes_as_many_as_it_needs() {
        for (bytes, points, goes) in [
            (0, &[][..], &[][..]),
            (1, &[], &[1]),
            (100, &[], &[1]),
            (101, &[], &[1, 3]),
            (101, &[(1, None)], &[3, 5]),
            (1000, &[(7, None)], &[1, 3, 5]),
        ] {
            assert_eq!(lsns(&kept(points).give_up(bytes, 90)), goes, "{bytes} {points:?}");
        }
    }

    #[test]
    fn a_snapshot_supersedes_the_newest_one() {
        let (after, expired) = kept(&[]).after(taken(11), &KeepPast::all().count_max(3));
        assert_eq!((lsns(&after.old), lsns(&expired)), (vec![5, 7, 9], vec![1, 3]));
        assert_eq!(after.newest, taken(11));
        // The same state again replaces it.
        let (after, expired) = kept(&[]).after(taken(9), &KeepPast::all());
        assert_eq!((lsns(&after.old), lsns(&expired)), (vec![1, 3, 5, 7], vec![]));
        let (after, expired) = kept(&[(9, None)]).after(taken(11), &KeepNothing);
        assert_eq!((lsns(&after.old), lsns(&expired)), (vec![9], vec![1, 3, 5, 7]));
    }

    #[test]
    fn only_a_store_that_may_keep_snapshots_tells_their_times() {
        assert!(!kept(&[]).may_keep(&KeepNothing, 90));
        assert!(!kept(&[]).may_keep(&KeepPast::all().count_max(0), 90));
        assert!(kept(&[(9, None)]).may_keep(&KeepNothing, 90));
        assert!(kept(&[]).may_keep(&KeepPast::all().count_max(1), 90));
    }
}
