use crate::{Engine, Error, Lsn, Result, Value};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Engines that can go back to a past state.
///
/// # Contract
///
/// **States.** Every target names a prefix of the log order: the state after all changes up to an
/// LSN, and none beyond. The answer says which LSN it reached, at what time, and whether it
/// rounded. Every change of an earlier call counts, durable or not.
///
/// **The window** reaches from [`first_lsn`](Window::first_lsn) to the newest change. Each LSN in
/// it is a target. A target outside it, in the future included, is
/// [`OutsideWindow`](Error::OutsideWindow), which names the window. The
/// [`RetentionPolicy`](crate::RetentionPolicy) decides how far the window reaches back. Its
/// beginning never goes back, and passes no state that the policy or a point keeps: not by a
/// compaction, an open, or a crash.
///
/// **Time.** A time is a target from the window's first time to the present. It leads to the
/// last change that the engine knows to have been made at or before it. As long as the clock is not
/// set back, no change of the state was made after that time, and a later time never leads to an
/// earlier state. A change that a sync made durable by that time is in the state. The present
/// leads to the newest change.
///
/// **Moments.** Some engines do not keep the state of every LSN. They keep the states of some LSNs,
/// the *moments*, which [`reach`](Self::reach) lists. The first and the last state of the window
/// are moments. Each dump leaves one, until the policy lets it go. A target between two moments
/// leads to the earlier one, and the answer says that it was rounded. A point keeps its own moment
/// only. A delete in a history has the LSN of the first moment without the key.
///
/// **Points.** A point is a state with a name. It keeps the window open back to its state, until
/// it is removed or expires. A point survives a close and a crash. An engine may limit the files
/// that past states take: beyond that limit the oldest states go, and the points that need them.
///
/// **Reading** a past state changes nothing in the store. The engine of a past state is open for
/// reading only. It shows the same state as long as it lives, also while the store is changed,
/// compacted and closed. Any number of them may be open.
///
/// **History.** The history of a key has each version that a state in the window shows, in log
/// order: its put or delete, and its LSN.
///
/// **Restoring** writes a new store, and changes nothing in this one. The new store holds exactly
/// the target's state, and its new changes get higher LSNs than the target. The directory must be
/// missing or empty. A restore that fails, or that a crash ends, leaves no store that can be opened
/// with another state.
///
/// **A backup** holds every state of the window, with the points, up to one LSN: at least every
/// change of earlier calls. Writers go on meanwhile. It opens for reading only, and then has the
/// past states of its store. Another backup into the same directory brings it up to date. A backup
/// that fails, or that a crash ends, leaves each state that the earlier one held, unless it has
/// expired since.
pub trait PointInTime: Send + Sync {
    /// The oldest and the newest state that can be reached now.
    ///
    /// # Errors
    /// [`Closed`](Error::Closed), or an I/O error.
    fn window(&self) -> Result<Window>;

    /// The states of the window that are targets: see *Moments*.
    ///
    /// # Errors
    /// As for [`window`](Self::window).
    fn reach(&self) -> Result<Reach>;

    /// The points, in the order of their names.
    ///
    /// # Errors
    /// As for [`window`](Self::window).
    fn points(&self) -> Result<Vec<Point>>;

    /// Gives the state of `target` a name of 1 to [`Point::NAME_LEN_MAX`] bytes. The point is
    /// durable on return. It expires at `expires_unix_ms`, milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) for a name that a point has, or that none
    /// can have, and for one point too many;
    /// [`OutsideWindow`](Error::OutsideWindow); as for [`Engine::sync`].
    fn pin(&self, name: &str, target: &Target, expires_unix_ms: Option<u64>) -> Result<Point>;

    /// Removes a point, and says whether there was one. That is durable on return.
    ///
    /// # Errors
    /// As for [`Engine::sync`].
    fn unpin(&self, name: &str) -> Result<bool>;

    /// Opens a past state for reading.
    ///
    /// # Errors
    /// [`OutsideWindow`](Error::OutsideWindow); as for [`Engine::sync`] and
    /// [`Engine::get`].
    fn read_at(&self, target: &Target) -> Result<Past>;

    /// The versions of `key` in the window, the oldest first. The oldest one may be older than the
    /// window: its put shows in the window's first state.
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at).
    fn history(&self, key: &[u8]) -> Result<Vec<Version>>;

    /// What a restore of `target` would reach and read. It writes nothing.
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at).
    fn plan(&self, target: &Target) -> Result<RestorePlan>;

    /// Writes a new store with the state of `target` to the directory `into`.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if `into` is not empty; I/O errors of
    /// `into`, which do not poison this store; as for [`read_at`](Self::read_at).
    fn restore(&self, target: &Target, into: &Path) -> Result<Moment>;

    /// Writes a backup to the directory `into`, which is missing, empty, or an earlier backup of
    /// this store. The backup is durable, and its bytes were read back.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if `into` is something else; I/O errors of
    /// `into`, which do not poison this store; as for [`read_at`](Self::read_at).
    fn backup(&self, into: &Path) -> Result<BackupReport>;
}

/// The report of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// Its newest state.
    pub moment: Moment,
    /// Files that it holds.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The files that were copied. Those that were neither copied nor linked were there.
    pub files_copied: u64,
    /// Their bytes.
    pub bytes_copied: u64,
    /// The files that got another name instead of a copy: store and backup share their bytes.
    pub files_linked: u64,
    /// Their bytes.
    pub bytes_linked: u64,
}

/// The past states that can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The oldest state.
    pub first_lsn: Lsn,
    /// The newest state.
    pub last_lsn: Lsn,
    /// The changes up to `first_lsn` had been made by then, milliseconds since the Unix epoch.
    pub first_unix_ms: u64,
    /// The present.
    pub last_unix_ms: u64,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Window { first_lsn, last_lsn, first_unix_ms, last_unix_ms } = self;
        write!(f, "from LSN {first_lsn} ({first_unix_ms} ms) to LSN {last_lsn} ({last_unix_ms} ms)")
    }
}

/// The states of a window that can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The state after each LSN.
    EveryLsn,
    /// Only these states, in the order of their LSNs. The changes up to each LSN had been made by
    /// the time beside it, milliseconds since the Unix epoch.
    Moments(Vec<(Lsn, u64)>),
}

/// The name of a past state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// After every change up to and including this one.
    Lsn(Lsn),
    /// After the last change that is known to have been made at or before this time, milliseconds
    /// since the Unix epoch.
    UnixMs(u64),
    /// The state of the point with this name.
    Point(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Lsn(lsn) => write!(f, "LSN {lsn}"),
            Target::UnixMs(time) => write!(f, "time {time} ms"),
            Target::Point(name) => write!(f, "point {name:?}"),
        }
    }
}

/// The state that a target led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The state is the one after every change up to this LSN.
    pub lsn: Lsn,
    /// Those changes had been made by then, milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// How the target was rounded.
    pub rounding: Rounding,
}

/// How a target was rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Not at all.
    Exact,
    /// To an earlier state. The store may also have had changes between this state and the target's
    /// time or LSN.
    Down,
}

/// A named state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its name: no other point has it.
    pub name: String,
    /// The state is the one after every change up to this LSN.
    pub lsn: Lsn,
    /// Those changes had been made by then, milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// When it expires, milliseconds since the Unix epoch. `None`: never.
    pub expires_unix_ms: Option<u64>,
}

impl Point {
    /// The longest name, bytes.
    pub const NAME_LEN_MAX: usize = 64;
    /// The most points of a store.
    pub const COUNT_MAX: usize = 256;

    /// Whether it has expired by this time, milliseconds since the Unix epoch.
    pub fn is_expired(&self, now_unix_ms: u64) -> bool {
        self.expires_unix_ms.is_some_and(|time| time <= now_unix_ms)
    }

    /// Checks that this point can join `points`.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument): see [`PointInTime::pin`].
    pub fn check_new(&self, points: &[Point]) -> Result<()> {
        let Point { name, .. } = self;
        let refuse = |text| Err(Error::InvalidArgument(text));
        if name.is_empty() || name.len() > Self::NAME_LEN_MAX {
            let (len, max) = (name.len(), Self::NAME_LEN_MAX);
            return refuse(format!("the name of a point has {len} bytes, it must have 1 to {max}"));
        }
        if points.iter().any(|point| point.name == *name) {
            return refuse(format!("there is a point {name:?}; choose another name, or remove that point"));
        }
        if points.len() >= Self::COUNT_MAX {
            return refuse(format!("there are {} points, the most there can be; remove one", points.len()));
        }
        Ok(())
    }
}

/// A past state that is open for reading.
#[derive(Debug)]
pub struct Past {
    /// The state that was reached.
    pub moment: Moment,
    /// Its keys and values. Changes are [`ReadOnly`](Error::ReadOnly).
    pub engine: Arc<dyn Engine>,
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The LSN of its put or delete.
    pub lsn: Lsn,
    /// It had been made by then, milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// Its value. `None`: the key was deleted.
    pub value: Option<Value>,
}

/// What a restore would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestorePlan {
    /// The state that it would reach.
    pub moment: Moment,
    /// Files that it would read.
    pub files: u64,
    /// Bytes that it would read.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str) -> Point {
        Point { name: name.to_owned(), lsn: Lsn::ZERO, unix_ms: 0, expires_unix_ms: None }
    }

    #[test]
    fn a_point_has_a_short_name_of_its_own() {
        let longest = "n".repeat(Point::NAME_LEN_MAX);
        let points = [point("a")];
        for name in ["b", &longest] {
            point(name).check_new(&points).unwrap();
        }
        for name in ["", "a", &format!("{longest}n")] {
            assert!(matches!(point(name).check_new(&points), Err(Error::InvalidArgument(_))), "{name}");
        }
        let many: Vec<Point> = (0..Point::COUNT_MAX).map(|number| point(&number.to_string())).collect();
        assert!(matches!(point("b").check_new(&many), Err(Error::InvalidArgument(_))));
        point("b").check_new(&many[1..]).unwrap();
    }
}
