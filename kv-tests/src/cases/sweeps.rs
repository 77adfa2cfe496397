//! Sweeps over the moments of a crash, and the operations for them.

use crate::oracle::History;
use crate::rig::{Policy, Setup};
use crate::scenario::{Crash, Left, Run, Scenario, Trouble, judge, left_by};
use crate::sim::SimFs;
use crate::workload::Op;
use crate::{CaseResult, Context, Failure};
use fastrand::Rng;

/// Crashes after `from` changes to the disk, then after `step` more, and so on to the end. Judges
/// every disk that the crashes leave.
pub(super) fn crash_everywhere(
    context: &Context,
    policy: Policy,
    ops: &[Op],
    from: u64,
    step: u64,
    lefts: &dyn Fn(u64) -> Vec<Left>,
) -> CaseResult {
    let setup = Setup::tiny(context, policy);
    for after in (from..).step_by(usize::try_from(step).unwrap_or(1)) {
        let Some(run) = Run::until_cut(context, setup, ops, after) else { break };
        for left in lefts(after) {
            let crash = [Crash { after, left }];
            check_image(context, policy, ops, &crash, &left.image(&run.disk), &run.history)?;
        }
    }
    Ok(())
}

pub(super) fn check_image(
    context: &Context,
    policy: Policy,
    ops: &[Op],
    crashes: &[Crash],
    image: &SimFs,
    history: &History,
) -> CaseResult {
    judge(context, Setup::tiny(context, policy), image, &left_by(crashes, history)).map_err(|failure| {
        let trouble = Trouble::Crashes(crashes.to_vec());
        Scenario { policy, ops: ops.to_vec(), trouble }.report(context, failure)
    })
}

/// Few keys and large values, so that written data is soon garbage.
pub(super) fn overwriting(rng: &mut Rng, count: usize) -> Vec<Op> {
    let mut change = || {
        let key = rng.u8(0..6);
        if rng.u8(0..3) == 0 { Op::Delete { key } } else { Op::Put { key, len: rng.usize(50..200) } }
    };
    (0..count).map(|_| change()).collect()
}

/// All lost, all kept, and a draw.
pub(super) fn three_cuts(context: &Context, cut: u64) -> Vec<Left> {
    [0, 1, cut + 2].into_iter().map(|draw| Left::Power(context.power_cut(draw))).collect()
}

/// How many mutations a whole run makes.
pub(super) fn mutations_of(context: &Context, setup: Setup, ops: &[Op]) -> Result<u64, Failure> {
    let disk = SimFs::new();
    match Run::on(context, disk.clone(), setup, ops).error {
        Some(error) => Err(error.into()),
        None => Ok(disk.mutations()),
    }
}
