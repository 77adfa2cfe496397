use crate::{Error, Lsn, Moment, Point, Result, Rounding, Target, Window};

/// From targets to states, and from LSNs to times: a part that engines share.
///
/// An engine marks times in its log: by the time of a mark, every change up to the mark's LSN had
/// been made. The ends of the window are marks, too. The clock may have been set back between two
/// marks.
#[derive(Clone, Debug)]
pub struct Timeline {
    window: Window,
    /// In the order of LSNs, each with the earliest time of all marks from it on. So the times are
    /// in order, too.
    marks: Vec<(Lsn, u64)>,
    /// Whether only marks are targets.
    is_of_moments: bool,
}

impl Timeline {
    /// Of a window with these marks, in any order. Marks outside the window do not count.
    pub fn new(window: Window, marks: impl IntoIterator<Item = (Lsn, u64)>) -> Self {
        let Window { first_lsn, last_lsn, first_unix_ms, last_unix_ms } = window;
        let inside = marks.into_iter().filter(|(lsn, _)| (first_lsn..=last_lsn).contains(lsn));
        let mut marks: Vec<(Lsn, u64)> =
            inside.chain([(first_lsn, first_unix_ms), (last_lsn, last_unix_ms)]).collect();
        marks.sort_unstable();
        let mut earliest = u64::MAX;
        for (_, time) in marks.iter_mut().rev() {
            earliest = earliest.min(*time);
            *time = earliest;
        }
        Timeline { window, marks, is_of_moments: false }
    }

    /// Of a window in which only these moments, its beginning and its end can be reached.
    pub fn of_moments(window: Window, moments: impl IntoIterator<Item = (Lsn, u64)>) -> Self {
        Timeline { is_of_moments: true, ..Timeline::new(window, moments) }
    }

    /// The window.
    pub fn window(&self) -> Window {
        self.window
    }

    /// The earliest time by which every change up to `lsn` is known to have been made, milliseconds
    /// since the Unix epoch.
    pub fn time_of(&self, lsn: Lsn) -> u64 {
        let from = self.marks.partition_point(|(marked, _)| *marked < lsn);
        self.marks.get(from).map_or(self.window.last_unix_ms, |(_, time)| *time)
    }

    /// The state that `target` leads to.
    ///
    /// # Errors
    /// [`Error::OutsideWindow`].
    pub fn moment(&self, target: &Target, points: &[Point]) -> Result<Moment> {
        let Window { first_lsn, last_lsn, first_unix_ms, last_unix_ms } = self.window;
        let exact = |lsn, unix_ms| Moment { lsn, unix_ms, rounding: Rounding::Exact };
        let found = match target {
            Target::Lsn(lsn) if self.is_of_moments && (first_lsn..=last_lsn).contains(lsn) => {
                let behind = self.marks.partition_point(|(marked, _)| marked <= lsn);
                behind.checked_sub(1).and_then(|at| self.marks.get(at)).map(|(marked, _)| {
                    let rounding = if marked == lsn { Rounding::Exact } else { Rounding::Down };
                    Moment { lsn: *marked, unix_ms: self.time_of(*marked), rounding }
                })
            }
            Target::Lsn(lsn) if (first_lsn..=last_lsn).contains(lsn) => Some(exact(*lsn, self.time_of(*lsn))),
            Target::UnixMs(time) if (first_unix_ms..=last_unix_ms).contains(time) => {
                let made = self.marks.iter().rfind(|(_, made)| made <= time);
                made.map(|(lsn, unix_ms)| {
                    let is_newest = *lsn == last_lsn;
                    let rounding = if is_newest { Rounding::Exact } else { Rounding::Down };
                    Moment { lsn: *lsn, unix_ms: *unix_ms, rounding }
                })
            }
            Target::Point(name) => {
                let point = points.iter().find(|point| point.name == *name);
                point.map(|point| exact(point.lsn, point.unix_ms))
            }
            Target::Lsn(_) | Target::UnixMs(_) => None,
        };
        let window = Box::new(self.window);
        found.ok_or_else(|| Error::OutsideWindow { target: Box::new(target.clone()), window })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline() -> Timeline {
        let window =
            Window { first_lsn: Lsn::new(4), last_lsn: Lsn::new(20), first_unix_ms: 100, last_unix_ms: 900 };
        // The clock was set back after the mark of LSN 12.
        let marks = [(12, 500), (2, 90), (8, 300), (15, 400), (25, 950)];
        Timeline::new(window, marks.map(|(lsn, time)| (Lsn::new(lsn), time)))
    }

    #[test]
    fn every_target_leads_to_a_state_or_names_the_window() {
        let lsn = |number| Target::Lsn(Lsn::new(number));
        let (exact, down) = (Rounding::Exact, Rounding::Down);
        for (target, reached) in [
            (lsn(3), None),
            (lsn(4), Some((4, 100, exact))),
            (lsn(5), Some((5, 300, exact))),
            (lsn(9), Some((9, 400, exact))),
            (lsn(20), Some((20, 900, exact))),
            (lsn(21), None),
            (Target::UnixMs(99), None),
            (Target::UnixMs(100), Some((4, 100, down))),
            (Target::UnixMs(299), Some((4, 100, down))),
            (Target::UnixMs(300), Some((8, 300, down))),
            (Target::UnixMs(400), Some((15, 400, down))),
            (Target::UnixMs(899), Some((15, 400, down))),
            (Target::UnixMs(900), Some((20, 900, exact))),
            (Target::UnixMs(901), None),
            (Target::Point("a".to_owned()), Some((7, 250, exact))),
            (Target::Point("b".to_owned()), None),
        ] {
            let point = Point { name: "a".to_owned(), lsn: Lsn::new(7), unix_ms: 250, expires_unix_ms: None };
            match (timeline().moment(&target, &[point]), reached) {
                (Ok(Moment { lsn, unix_ms, rounding }), Some(reached)) => {
                    assert_eq!((lsn.get(), unix_ms, rounding), reached, "{target}");
                }
                (Err(error @ Error::OutsideWindow { .. }), None) => {
                    let text = error.to_string();
                    assert!(text.contains("from LSN 4") && text.contains(&target.to_string()), "{text}");
                }
                (answer, _) => panic!("{target}: {answer:?}"),
            }
        }
    }

    #[test]
    fn an_lsn_between_two_moments_leads_to_the_earlier_one() {
        let marks = [(12, 500), (2, 90), (8, 300), (15, 400), (25, 950)];
        let moments = marks.map(|(lsn, time)| (Lsn::new(lsn), time));
        let timeline = Timeline::of_moments(timeline().window(), moments);
        let (exact, down) = (Rounding::Exact, Rounding::Down);
        for (lsn, reached) in [
            (3, None),
            (4, Some((4, 100, exact))),
            (7, Some((4, 100, down))),
            (8, Some((8, 300, exact))),
            (14, Some((12, 400, down))),
            (19, Some((15, 400, down))),
            (20, Some((20, 900, exact))),
            (21, None),
        ] {
            let found = timeline.moment(&Target::Lsn(Lsn::new(lsn)), &[]).ok();
            let found = found.map(|Moment { lsn, unix_ms, rounding }| (lsn.get(), unix_ms, rounding));
            assert_eq!(found, reached, "LSN {lsn}");
        }
    }
}
