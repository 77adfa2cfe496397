//! Past states: every LSN, times, points, histories. `moments_kept.rs` tests how long they are
//! kept, `restores.rs` how they are restored.

use super::backups::{
    a_backup_holds_every_state, a_backup_under_writers_is_a_prefix, a_failed_backup_leaves_the_earlier_one,
};
use super::case;
use super::moments_kept::{
    a_crash_leaves_the_window, expired_states_go, points_hold_their_states, points_survive_a_crash,
};
use super::restores::{a_failed_restore_leaves_no_store, a_restore_is_a_store};
use crate::failure::{InWords, ensure, fail};
use crate::oracle::{History, State, state_of, summary};
use crate::rig::{Keeps, Policy, Rig, Setup};
use crate::workload::{Op, random_ops, run_op};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use fastrand::Rng;
use kv_core::{Engine, Error, Lsn, Moment, PointInTime, Reach, Rounding, Target, Version, Window};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[
    case(
        "moments::required_kv951_every_lsn_of_a_history",
        Level::Required,
        &[Need::PointInTime],
        "The state at every LSN of a history is the one that the changes up to it made.",
        every_lsn_of_a_history,
    ),
    case(
        "moments::required_kv952_expired_states_go",
        Level::Required,
        &[Need::PointInTime, Need::Inline],
        "The window holds what the policy keeps, never goes back, and gives up what expires.",
        expired_states_go,
    ),
    case(
        "moments::required_kv953_times_are_rounded_down",
        Level::Required,
        &[Need::PointInTime, Need::Inline],
        "A time leads to no later change, and to every change that was durable by then.",
        times_are_rounded_down,
    ),
    case(
        "moments::required_kv954_the_window_is_named",
        Level::Required,
        &[Need::PointInTime],
        "A target outside the window is OutsideWindow, and names the window.",
        the_window_is_named,
    ),
    case(
        "moments::required_kv955_points_hold_their_states",
        Level::Required,
        &[Need::PointInTime, Need::Inline],
        "A point keeps its state through changes, compactions and opens, until it goes.",
        points_hold_their_states,
    ),
    case(
        "moments::required_kv956_histories_have_every_version",
        Level::Required,
        &[Need::PointInTime],
        "The history of a key has each of its puts and deletes in the window.",
        histories_have_every_version,
    ),
    case(
        "moments::required_kv957_a_past_state_stays",
        Level::Required,
        &[Need::PointInTime],
        "A past state that is open for reading stays as it is while the store changes and closes.",
        a_past_state_stays,
    ),
    case(
        "moments::required_kv958_a_restore_is_a_store",
        Level::Required,
        &[Need::PointInTime],
        "A restored store has the target's state, takes changes with higher LSNs, and leaves its source alone.",
        a_restore_is_a_store,
    ),
    case(
        "moments::required_kv959_a_failed_restore_leaves_no_store",
        Level::Required,
        &[Need::PointInTime, Need::SimulatedFs, Need::Inline],
        "A restore that a crash or a full disk ends leaves the whole store or none.",
        a_failed_restore_leaves_no_store,
    ),
    case(
        "moments::required_kv960_a_crash_leaves_the_window",
        Level::Required,
        &[Need::PointInTime, Need::SimulatedFs, Need::Inline],
        "After a power cut at any disk operation every state in the window is as it was.",
        a_crash_leaves_the_window,
    ),
    case(
        "moments::required_kv961_points_survive_a_crash",
        Level::Required,
        &[Need::PointInTime, Need::SimulatedFs],
        "A point that was made survives a power cut, and a removed one does not come back.",
        points_survive_a_crash,
    ),
    case(
        "moments::required_kv962_a_backup_holds_every_state",
        Level::Required,
        &[Need::PointInTime, Need::ReadOnly],
        "Each of a chain of backups holds every state of the window, and opens for reading only.",
        a_backup_holds_every_state,
    ),
    case(
        "moments::required_kv963_a_failed_backup_leaves_the_earlier_one",
        Level::Required,
        &[Need::PointInTime, Need::ReadOnly, Need::SimulatedFs, Need::Inline],
        "A backup that a crash or a full disk ends leaves every state of the earlier one.",
        a_failed_backup_leaves_the_earlier_one,
    ),
    case(
        "moments::stochastic_kv964_a_backup_under_writers_is_a_prefix",
        Level::Stochastic,
        &[Need::PointInTime, Need::ReadOnly],
        "A backup that is made under writers is a prefix with every change of earlier calls.",
        a_backup_under_writers_is_a_prefix,
    ),
];

/// The capability of an engine whose factory says that it has it.
pub(super) fn past_of(engine: &dyn Engine) -> Result<&dyn PointInTime, Failure> {
    engine.as_point_in_time().ok_or_else(|| Failure::new("the engine has no PointInTime"))
}

/// The LSN of the state that the target `lsn` leads to.
pub(super) fn reached(reach: &Reach, lsn: Lsn) -> Lsn {
    match reach {
        Reach::EveryLsn => lsn,
        Reach::Moments(moments) => {
            moments.iter().rev().map(|(moment, _)| *moment).find(|moment| *moment <= lsn).unwrap_or(lsn)
        }
    }
}

/// A store that keeps past states, and the model of its changes.
pub(super) struct Kept {
    pub(super) rig: Rig,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) history: History,
    /// The time before each change, and whether it was durable, by LSN.
    pub(super) times: Vec<(Lsn, u64)>,
    /// The durable LSNs that the engine told.
    told: BTreeSet<Lsn>,
}

impl Kept {
    pub(super) fn new(context: &Context, policy: Policy, keeps: Keeps) -> Result<Self, Failure> {
        let rig = context.rig(Setup { keeps, ..Setup::tiny(context, policy) })?;
        let engine = rig.open()?;
        Ok(Kept { rig, engine, history: History::default(), times: Vec::new(), told: BTreeSet::new() })
    }

    pub(super) fn past(&self) -> Result<&dyn PointInTime, Failure> {
        past_of(&*self.engine)
    }

    pub(super) fn now(&self) -> u64 {
        self.rig.env().clock.unix_time_ms()
    }

    pub(super) fn run(&mut self, op: &Op) -> CaseResult {
        let before = self.now();
        if *op == Op::Reopen {
            self.engine.close()?;
            self.engine = self.rig.open()?;
            self.told.insert(self.engine.durable_lsn());
            return Ok(());
        }
        let last = self.history.last_change();
        run_op(&*self.engine, op, &mut self.history)?;
        self.told.insert(self.engine.durable_lsn());
        if self.history.last_change() > last {
            self.times.push((self.history.last_change(), before));
        }
        Ok(())
    }

    /// The model's state after all changes up to `lsn`.
    pub(super) fn state_at(&self, lsn: Lsn) -> State {
        let states = self.history.states();
        let found = states.into_iter().rev().find(|(made, _)| *made <= lsn);
        found.map(|(_, state)| state).unwrap_or_default()
    }

    /// Checks the state that `target` leads to, and returns the moment.
    pub(super) fn check(&self, target: &Target) -> Result<Moment, Failure> {
        let past = self.past()?.read_at(target)?;
        let (found, expected) = (state_of(&*past.engine)?, self.state_at(past.moment.lsn));
        if found != expected {
            return Err(Failure::new(format!("the state at {target} is not the one that the changes made"))
                .with("reached", format!("{:?}", past.moment))
                .with("found", summary(&found))
                .with("expected", summary(&expected)));
        }
        Ok(past.moment)
    }

    /// Checks the state at every LSN of the model from `first` on, and at the LSN before each.
    pub(super) fn check_every_lsn(&self, first: Lsn) -> CaseResult {
        let reach = self.past()?.reach()?;
        for (lsn, _) in self.history.states() {
            for lsn in [lsn.get().saturating_sub(1), lsn.get()].map(Lsn::new) {
                if lsn < first {
                    continue;
                }
                let (moment, expected) = (self.check(&Target::Lsn(lsn))?, reached(&reach, lsn));
                let is_exact = moment.rounding == Rounding::Exact;
                ensure!(
                    moment.lsn == expected && is_exact == (expected == lsn),
                    "LSN {lsn} leads to {moment:?}, not to LSN {expected}"
                );
            }
        }
        Ok(())
    }

    /// Checks the moments of a store that keeps all states.
    fn check_moments(&self) -> CaseResult {
        let Reach::Moments(moments) = self.past()?.reach()? else { return Ok(()) };
        let Window { first_lsn, last_lsn, .. } = self.past()?.window()?;
        let lsns: Vec<Lsn> = moments.iter().map(|(lsn, _)| *lsn).collect();
        ensure!(lsns.is_sorted_by(|one, next| one < next), "the moments are not in order: {moments:?}");
        let ends = (lsns.first(), lsns.last());
        ensure!(
            ends == (Some(&first_lsn), Some(&last_lsn)),
            "the moments {moments:?} do not reach from LSN {first_lsn} to {last_lsn}"
        );
        let missing = self.told.iter().find(|lsn| !lsns.contains(lsn));
        ensure!(missing.is_none(), "{missing:?} was durable, and is not among the moments {moments:?}");
        Ok(())
    }
}

/// Random operations with compactions and opens among them.
pub(super) fn long_ops(rng: &mut Rng, count: usize) -> Vec<Op> {
    let mut ops = random_ops(rng, count, 6);
    for (every, op) in [(11, Op::Compact), (17, Op::Reopen)] {
        let places = (every..count).step_by(every);
        places.for_each(|at| ops.insert(at, op.clone()));
    }
    ops
}

fn every_lsn_of_a_history(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for policy in [Policy::Manual, Policy::Always, Policy::MaxLogSize(300)] {
        for _ in 0..context.scaled(2) {
            let mut kept = Kept::new(context, policy, Keeps::All)?;
            for (number, op) in long_ops(&mut rng, 60).iter().enumerate() {
                kept.run(op)?;
                if number % 20 == 19 {
                    kept.check_every_lsn(Lsn::ZERO)?;
                }
            }
            let Window { first_lsn, last_lsn, .. } = kept.past()?.window()?;
            let last = kept.engine.last_lsn();
            ensure!(
                (first_lsn, last_lsn) == (Lsn::ZERO, last),
                "the window of a store that keeps all states reaches from LSN {first_lsn} to {last_lsn}, not from 0 to {last}"
            );
            kept.check_every_lsn(Lsn::ZERO)?;
            kept.check_moments()?;
        }
    }
    Ok(())
}

fn times_are_rounded_down(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for policy in [Policy::Manual, Policy::Always, Policy::AnyOf] {
        let mut kept = Kept::new(context, policy, Keeps::All)?;
        let begun = kept.now();
        // What each sync reported, and when.
        let mut synced: Vec<(Lsn, u64)> = Vec::new();
        for op in long_ops(&mut rng, 60) {
            kept.rig.advance(Duration::from_millis(rng.u64(0..3)));
            kept.run(&op)?;
            synced.push((kept.engine.durable_lsn(), kept.now()));
        }
        let mut last = Lsn::ZERO;
        for time in begun..=kept.now() {
            let moment = kept.check(&Target::UnixMs(time))?;
            let Moment { lsn, unix_ms, rounding } = moment;
            let later = kept.times.iter().find(|(made, at)| *made <= lsn && *at > time);
            ensure!(
                later.is_none(),
                "time {time} leads to LSN {lsn}, of which a change was made later: {later:?}"
            );
            let missed = synced.iter().find(|(durable, at)| *durable > lsn && *at <= time);
            ensure!(
                missed.is_none(),
                "time {time} leads to LSN {lsn}, but more was durable by then: {missed:?}"
            );
            ensure!(lsn >= last, "time {time} leads to LSN {lsn}, and the time before to {last}");
            ensure!(unix_ms <= time, "time {time} leads to the later time {unix_ms}");
            let missing = kept.times.iter().find(|(made, at)| *made > lsn && *at < time);
            ensure!(
                rounding == Rounding::Down || missing.is_none(),
                "time {time} is said to lead to LSN {lsn} exactly, but {missing:?} was made before"
            );
            last = lsn;
        }
        let newest = kept.engine.last_lsn();
        ensure!(last == newest, "the present leads to LSN {last}, the newest change has {newest}");
    }
    Ok(())
}

fn the_window_is_named(context: &Context) -> CaseResult {
    let mut kept = Kept::new(context, Policy::Manual, Keeps::All)?;
    for op in long_ops(&mut context.rng(), 20) {
        kept.run(&op)?;
    }
    let window = kept.past()?.window()?;
    let outside = [
        Target::Lsn(window.last_lsn.next()),
        Target::Lsn(Lsn::new(u64::MAX)),
        Target::UnixMs(window.first_unix_ms - 1),
        Target::UnixMs(window.last_unix_ms + 3_600_000),
        Target::Point("absent".to_owned()),
    ];
    for target in outside {
        let into = kept.rig.dir().with_file_name("into");
        let past = kept.past()?;
        let answers = [
            ("read_at", past.read_at(&target).err()),
            ("plan", past.plan(&target).err()),
            ("pin", past.pin("new", &target, None).err()),
            ("restore", past.restore(&target, &into).err()),
        ];
        for (call, answer) in answers {
            let names = |one: &Window| one.first_lsn == window.first_lsn && one.last_lsn == window.last_lsn;
            match &answer {
                Some(Error::OutsideWindow { target: of, window }) if **of == target && names(window) => {}
                other => fail!("{call} of {target} is answered with {}, not OutsideWindow", other.in_words()),
            }
        }
        let points = past.points()?;
        ensure!(points.is_empty(), "a refused pin left {points:?}");
    }
    kept.check(&Target::Lsn(window.last_lsn)).map(drop)
}

fn histories_have_every_version(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for keeps in [Keeps::All, Keeps::Bytes(600)] {
        let mut kept = Kept::new(context, Policy::MaxLogSize(300), keeps)?;
        for op in long_ops(&mut rng, 80) {
            kept.run(&op)?;
        }
        let (first, reach) = (kept.past()?.window()?.first_lsn, kept.past()?.reach()?);
        for key in 0..7_u8 {
            let versions = expected_versions(&kept.history, key, first, &reach);
            let found = kept.past()?.history(&[key])?;
            // The first one may be older than the window.
            let plain = |version: &Version| {
                (version.lsn.max(first), version.value.as_ref().map(|value| value.to_vec()))
            };
            let found: Vec<_> = found.iter().map(plain).collect();
            let lens = |versions: &[(Lsn, Option<Vec<u8>>)]| {
                let len = |(lsn, value): &(Lsn, Option<Vec<u8>>)| (*lsn, value.as_ref().map(Vec::len));
                format!("{:?}", versions.iter().map(len).collect::<Vec<_>>())
            };
            ensure!(
                found == versions,
                "the history of key {key} has the versions {}, not {}",
                lens(&found),
                lens(&versions)
            );
        }
    }
    Ok(())
}

/// The versions of `key` that the states in reach show, from the window's `first` on.
fn expected_versions(history: &History, key: u8, first: Lsn, reach: &Reach) -> Vec<(Lsn, Option<Vec<u8>>)> {
    // Each state of the key, and when it began.
    let mut states: Vec<(Lsn, Option<Vec<u8>>)> = vec![(Lsn::ZERO, None)];
    for (lsn, state) in history.states() {
        let value = state.get([key].as_slice()).cloned();
        if states.last().is_some_and(|(_, before)| *before != value) {
            states.push((lsn, value));
        }
    }
    let shown = |at: Lsn| states.iter().rfind(|(lsn, _)| *lsn <= at).cloned().unwrap_or_default();
    let moments: Vec<Lsn> = match reach {
        Reach::EveryLsn => [first].into_iter().chain(states.iter().map(|(lsn, _)| *lsn)).collect(),
        Reach::Moments(moments) => moments.iter().map(|(lsn, _)| *lsn).collect(),
    };
    let mut versions = Vec::new();
    let (mut before, mut is_present) = (None, false);
    for moment in moments.into_iter().filter(|moment| *moment >= first) {
        let (lsn, value) = shown(moment);
        if before != Some(lsn) && (value.is_some() || is_present) {
            // A moment does not tell when the key was deleted before it.
            let lsn = if value.is_some() { lsn.max(first) } else { moment };
            is_present = value.is_some();
            versions.push((lsn, value));
        }
        before = Some(lsn);
    }
    versions
}

fn a_past_state_stays(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let mut kept = Kept::new(context, Policy::MaxLogSize(300), Keeps::Bytes(300))?;
    for op in long_ops(&mut rng, 20) {
        kept.run(&op)?;
    }
    let targets = [kept.past()?.window()?.first_lsn, kept.engine.last_lsn()];
    let mut open = Vec::new();
    for lsn in targets {
        open.push((kept.past()?.read_at(&Target::Lsn(lsn))?.engine, kept.state_at(lsn), lsn));
    }
    for op in long_ops(&mut rng, 60) {
        kept.run(&op)?;
    }
    for key in 0..7 {
        kept.run(&Op::Delete { key })?;
    }
    kept.run(&Op::Compact)?;
    for round in 0..2 {
        for (engine, state, lsn) in &open {
            ensure!(state_of(&**engine)? == *state, "the state at LSN {lsn} changed after it was opened");
            let refused = [engine.put(b"k", b"v").err(), engine.delete(b"k").err(), engine.sync().err()];
            for error in refused {
                ensure!(
                    matches!(error, Some(Error::ReadOnly)),
                    "a change of a past state is answered with {}, not ReadOnly",
                    error.in_words()
                );
            }
            let (last, durable) = (engine.last_lsn(), engine.durable_lsn());
            ensure!(last == *lsn && durable <= last, "the state at LSN {lsn} says it is at LSN {last}");
        }
        if round == 0 {
            kept.engine.close()?;
        }
    }
    for (engine, ..) in open {
        engine.close()?;
        let closed = engine.get(b"k");
        ensure!(matches!(closed, Err(Error::Closed)), "a closed past state answers {closed:?}");
    }
    Ok(())
}
