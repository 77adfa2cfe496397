//! Damage to a store that was not closed.

use super::places::places;
use super::stored::{check_error, data_files, enough, explain, fill, flipped};
use crate::failure::ensure;
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Setup};
use crate::sim::{PowerCut, SimFs};
use crate::workload::{Op, run_op};
use crate::{CaseResult, Context, Failure};
use kv_core::parts::Reserve;
use kv_core::{Lsn, Scale};
use std::path::Path;

/// A store whose process died, and the LSNs that its syncs reached.
struct Crashed {
    disk: SimFs,
    setup: Setup,
    history: History,
    dumps: Vec<Lsn>,
}

/// Runs `ops`, and cuts the power.
fn crashed(context: &Context, setup: Setup, ops: &[Op], cut: PowerCut) -> Result<Crashed, Failure> {
    let disk = SimFs::new();
    // A first session, so that the files of an earlier one lie there, too.
    fill(
        &context.sim_rig(disk.clone(), setup),
        &[Op::Put { key: 30, len: 20 }, Op::Delete { key: 30 }],
        5000,
    )?;
    let engine = context.sim_rig(disk.clone(), setup).open()?;
    let (mut history, mut dumps) = (History::default(), vec![Lsn::ZERO]);
    for op in ops {
        run_op(&*engine, op, &mut history)?;
        if dumps.last() != Some(&engine.durable_lsn()) {
            dumps.push(engine.durable_lsn());
        }
    }
    let disk = disk.power_cut(cut);
    Ok(Crashed { disk, setup, history, dumps })
}

pub(super) fn damage_before_a_durable_change(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let put = |key, len| Op::Put { key, len };
    let mut ops = Vec::new();
    for round in 0..5 {
        ops.extend([
            put(round, 60),
            put(round + 5, 40),
            Op::Batch(vec![(round, Some(9)), (9, None)]),
            Op::Sync,
        ]);
    }
    // The newest changes are durable under Always only: a cut may tear them.
    ops.extend([put(11, 50), put(12, 700), put(13, 50)]);
    let normal = |policy| Setup { scale: Scale::Normal, ..Setup::tiny(context, policy) };
    let setups = [
        Setup::tiny(context, Policy::Always),
        Setup::tiny(context, Policy::Manual),
        Setup::tiny(context, Policy::MaxLogSize(300)),
        normal(Policy::Always),
    ];
    for (setup, draw) in setups.into_iter().flat_map(|setup| [0, 2, 3].map(|draw| (setup, draw))) {
        if setup.scale == Scale::Normal && draw > 0 {
            continue;
        }
        let crashed = crashed(context, setup, &ops, context.power_cut(draw))?;
        let layout = format!("{:?}, {:?}, cut {draw}", setup.policy, setup.scale);
        let mut files = data_files(&crashed.disk);
        files.retain(|(path, _)| !path.ends_with(Reserve::FILE));
        let mut all = Vec::new();
        for (path, whole) in &files {
            all.extend(places(whole, &mut rng, 30).into_iter().map(|at| (path, whole, at)));
        }
        rng.shuffle(&mut all);
        let most = if setup.scale == Scale::Tiny { 40 } else { 10 };
        for (path, whole, at) in all.into_iter().take(usize::try_from(context.scaled(most)).unwrap_or(40)) {
            let what = format!("byte {at} of {} xor 0x10", whole.len());
            crashed.check(context, path, &what, flipped(whole, at, 0x10), &layout)?;
        }
    }
    enough(context)
}

impl Crashed {
    /// Damages one byte. It may cost the changes of the last sync, and no earlier ones.
    fn check(&self, context: &Context, path: &Path, what: &str, bytes: Vec<u8>, layout: &str) -> CaseResult {
        context.explored().damage();
        context.set_doing(format!("{layout}: {}: {what}", path.display()));
        let image = self.disk.process_death();
        image.damage(path, Some(bytes.clone()));
        let before_last = self.dumps.iter().rev().nth(1).copied().unwrap_or(Lsn::ZERO);
        let owed = self.history.as_if_durable(before_last);
        let judged = match context.sim_rig(image, self.setup).open() {
            Err(error) => check_error(&error, &[path], false),
            Ok(engine) => match state_of(&*engine) {
                Err(error) => check_error(&error, &[path], false),
                Ok(state) => owed.check(&state).and_then(|()| {
                    let last = engine.last_lsn();
                    ensure!(
                        last >= before_last,
                        "a damaged store opens at LSN {last}, before the durable LSN {before_last}"
                    );
                    Ok(())
                }),
            },
        };
        judged.map_err(|failure| explain(failure, &self.disk, path, what, Some(bytes)).with("layout", layout))
    }
}
