//! How long past states are kept: by the policy, by points, and across crashes.

use super::moments::{Kept, long_ops, past_of, reached};
use super::sweeps::three_cuts;
use crate::failure::{InWords, ensure, fail};
use crate::oracle::state_of;
use crate::rig::{Keeps, Policy, Setup};
use crate::scenario::{Left, Run};
use crate::sim::{PowerCut, SimFs};
use crate::workload::Op;
use crate::{CaseResult, Context};
use kv_core::{Error, Lsn, Past, Point, Target};
use std::time::Duration;

pub(super) fn expired_states_go(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for keeps in [Keeps::Ms(40), Keeps::Bytes(400), Keeps::Nothing] {
        let mut kept = Kept::new(context, Policy::MaxLogSize(300), keeps)?;
        let mut first = Lsn::ZERO;
        for (number, op) in long_ops(&mut rng, 120).iter().enumerate() {
            kept.rig.advance(Duration::from_millis(2));
            kept.run(op)?;
            let window = kept.past()?.window()?;
            ensure!(
                window.first_lsn >= first,
                "the window began at LSN {first}, and now begins at LSN {}",
                window.first_lsn
            );
            first = window.first_lsn;
            let bytes = kept.engine.stats().past_bytes;
            match keeps {
                Keeps::Ms(ms) => ensure!(
                    first == Lsn::ZERO || window.first_unix_ms + ms <= kept.now(),
                    "the policy keeps {ms} ms, and the window begins at {} of {} ms",
                    window.first_unix_ms,
                    kept.now()
                ),
                Keeps::Bytes(max) => {
                    ensure!(bytes <= max, "the policy keeps {max} bytes, and the past takes {bytes}");
                }
                _ => ensure!(bytes == 0, "the policy keeps nothing, and the past takes {bytes} bytes"),
            }
            if number % 30 == 29 {
                kept.check_every_lsn(first)?;
            }
            if let Some(before) = first.get().checked_sub(1) {
                let refused = kept.past()?.read_at(&Target::Lsn(Lsn::new(before)));
                ensure!(
                    matches!(refused, Err(Error::OutsideWindow { .. })),
                    "a state before the window is answered with {}, not OutsideWindow",
                    refused.in_words()
                );
            }
        }
        if matches!(keeps, Keeps::Ms(_)) {
            // A compaction may supersede records once more.
            for _ in 0..5 {
                kept.rig.advance(Duration::from_secs(1));
                kept.run(&Op::Compact)?;
                kept.run(&Op::Reopen)?;
            }
            let bytes = kept.engine.stats().past_bytes;
            ensure!(bytes == 0, "every past state has expired, and they take {bytes} bytes");
        }
    }
    Ok(())
}

pub(super) fn points_hold_their_states(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let mut kept = Kept::new(context, Policy::MaxLogSize(300), Keeps::Nothing)?;
    for op in long_ops(&mut rng, 20) {
        kept.run(&op)?;
    }
    let newest = Target::Lsn(kept.engine.last_lsn());
    let pinned = kept.past()?.pin("b", &newest, None)?;
    kept.rig.advance(Duration::from_millis(5));
    for op in long_ops(&mut rng, 50) {
        kept.run(&op)?;
    }
    let expires = kept.now() + 100;
    let newest = Target::Lsn(kept.engine.last_lsn());
    let expiring = kept.past()?.pin("a", &newest, Some(expires))?;
    let again = kept.past()?.pin("b", &newest, None);
    ensure!(
        matches!(again, Err(Error::InvalidArgument(_))),
        "a second point of one name is answered with {}, not InvalidArgument",
        again.in_words()
    );
    for op in long_ops(&mut rng, 50) {
        kept.run(&op)?;
    }
    let points = kept.past()?.points()?;
    ensure!(points == [expiring.clone(), pinned.clone()], "two points were made, and there are {points:?}");
    for point in &points {
        let moment = kept.check(&Target::Point(point.name.clone()))?;
        ensure!(moment.lsn == point.lsn, "point {:?} leads to LSN {}", point.name, moment.lsn);
    }
    kept.check_every_lsn(pinned.lsn)?;

    ensure!(kept.past()?.unpin("b")?, "a point that is there is not found");
    ensure!(!kept.past()?.unpin("b")?, "a removed point is removed again");
    for op in [Op::Put { key: 1, len: 50 }, Op::Compact, Op::Reopen] {
        kept.run(&op)?;
    }
    kept.check_every_lsn(expiring.lsn)?;
    kept.rig.advance(Duration::from_millis(101));
    for op in [Op::Put { key: 1, len: 50 }, Op::Compact, Op::Reopen] {
        kept.run(&op)?;
    }
    let (points, bytes) = (kept.past()?.points()?, kept.engine.stats().past_bytes);
    ensure!(points.is_empty(), "every point is removed or has expired, and there are {points:?}");
    ensure!(bytes == 0, "no policy and no point keeps a past state, and they take {bytes} bytes");
    let names = ["", "c", "c", &"n".repeat(Point::NAME_LEN_MAX + 1)];
    let newest = Target::Lsn(kept.engine.last_lsn());
    let answers = names.map(|name| kept.past().map(|past| past.pin(name, &newest, None).is_ok()));
    for ((name, answer), is_good) in names.iter().zip(answers).zip([false, true, false, false]) {
        ensure!(answer? == is_good, "a point of the name {name:?} is taken, or refused, wrongly");
    }
    Ok(())
}

pub(super) fn a_crash_leaves_the_window(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for keeps in [Keeps::All, Keeps::Bytes(500)] {
        let mut ops = long_ops(&mut rng, 40);
        ops.push(Op::Compact);
        let setup = Setup { keeps, ..Setup::tiny(context, Policy::MaxLogSize(300)) };
        // Every operation at a larger effort.
        let step = usize::try_from(context.scaled(1)).unwrap_or(1);
        for cut in (1..).step_by(5_usize.div_ceil(step)) {
            let Some(run) = Run::until_cut(context, setup, &ops, cut) else { break };
            for left in three_cuts(context, cut) {
                context.explored().crash_state();
                check_window(context, setup, &left.image(&run.disk), &run, &left, keeps)?;
            }
        }
    }
    Ok(())
}

/// Checks every state in the window of the store on `image`.
fn check_window(
    context: &Context,
    setup: Setup,
    image: &SimFs,
    run: &Run,
    left: &Left,
    keeps: Keeps,
) -> CaseResult {
    let engine = context.sim_rig(image.process_death(), setup).open()?;
    let past = past_of(&*engine)?;
    let (window, reach) = (past.window()?, past.reach()?);
    ensure!(
        keeps != Keeps::All || window.first_lsn == Lsn::ZERO,
        "after a crash the window begins at LSN {}, and the policy keeps all states",
        window.first_lsn
    );
    let lost = run.told.iter().find(|lsn| keeps == Keeps::All && reached(&reach, **lsn) != **lsn);
    ensure!(
        lost.is_none(),
        "after {left:?} the dump of {lost:?} is no moment, and the policy keeps all states"
    );
    for (lsn, state) in run.history.states() {
        // What lies between two moments leads to one of them.
        if lsn < window.first_lsn || lsn > window.last_lsn || reached(&reach, lsn) != lsn {
            continue;
        }
        let Past { moment, engine } = past.read_at(&Target::Lsn(lsn))?;
        ensure!(moment.lsn == lsn, "after {left:?} LSN {lsn} leads to {moment:?}");
        if state_of(&*engine)? != state {
            fail!("after {left:?} the state at LSN {lsn} is not the one that the changes made");
        }
    }
    Ok(())
}

pub(super) fn points_survive_a_crash(context: &Context) -> CaseResult {
    let (disk, setup) = (SimFs::new(), Setup::tiny(context, Policy::Manual));
    let engine = context.sim_rig(disk.clone(), setup).open()?;
    engine.put(b"k", b"1")?;
    let target = Target::Lsn(engine.last_lsn());
    past_of(&*engine)?.pin("p", &target, Some(u64::MAX - 1))?;
    engine.put(b"k", b"2")?;
    engine.sync()?;
    let after_pin = disk.power_cut(PowerCut::LOSE_ALL);
    past_of(&*engine)?.unpin("p")?;
    let after_unpin = disk.power_cut(PowerCut::LOSE_ALL);
    let engine = context.sim_rig(after_pin, setup).open()?;
    let points = past_of(&*engine)?.points()?;
    let found = past_of(&*engine)?.read_at(&Target::Point("p".to_owned()))?.engine.get(b"k")?;
    ensure!(found.as_deref() == Some(&b"1"[..]), "after a power cut a point leads to {found:?}");
    let expires = points.first().and_then(|point| point.expires_unix_ms);
    ensure!(expires == Some(u64::MAX - 1), "after a power cut the points are {points:?}");
    let engine = context.sim_rig(after_unpin, setup).open()?;
    let points = past_of(&*engine)?.points()?;
    ensure!(points.is_empty(), "a removed point is back after a power cut: {points:?}");
    Ok(())
}
