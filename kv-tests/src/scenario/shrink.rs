use super::{Crash, Left, Run, Scenario, Trouble};
use crate::sim::{Fault, PowerCut, SimFs};
use crate::workload::Op;
use crate::{Context, Failure};

/// The maximum of runs for shrinking.
const SHRINK_RUNS: u32 = 3000;

impl Scenario {
    /// The report of a failure, with the smallest scenario found that still fails.
    pub(crate) fn report(self, context: &Context, failure: Failure) -> Failure {
        let (small, failure) = self.shrunk(context, failure);
        let setup = small.setup(context);
        let mut failure = failure
            .with("policy", format!("{:?}", small.policy))
            .with("operations", small.ops.iter().map(Op::describe).collect::<Vec<_>>().join("\n"));
        match &small.trouble {
            Trouble::Fault(fault) => {
                failure = failure
                    .with("fault", format!("{:?}, number {}, {:?}", fault.kind, fault.nth, fault.repeat));
                let disk = SimFs::new();
                disk.inject(*fault);
                let run = Run::on(context, disk.clone(), setup, &small.ops);
                failure = failure.with("disk", last_ops(&disk));
                drop(run);
            }
            Trouble::Crashes(crashes) => {
                let points = crashes.iter().map(|crash| format!("after {} changes to the disk", crash.after));
                let points = points.collect::<Vec<_>>().join(", and during recovery ");
                failure = failure.with("crash", points);
                if let Some(first) = crashes.first()
                    && let Some(run) = Run::until_cut(context, setup, &small.ops, first.after)
                {
                    failure = failure.with("disk", last_ops(&run.disk));
                }
                if let Some((image, _)) = small.crashed(context) {
                    failure = failure.with("kept", image.kept().join("\n")).with_image(image);
                }
            }
        }
        failure.with("scenario", small.to_string())
    }

    /// The smallest scenario found that still fails, and its failure.
    fn shrunk(self, context: &Context, failure: Failure) -> (Scenario, Failure) {
        let mut best = (self, failure);
        let mut budget = SHRINK_RUNS;
        'smaller: loop {
            for candidate in best.0.smaller() {
                if budget == 0 {
                    break 'smaller;
                }
                budget -= 1;
                if let Err(failure) = candidate.check(context) {
                    best = (candidate, failure);
                    continue 'smaller;
                }
            }
            break;
        }
        best
    }

    /// Scenarios one step smaller than this one, the largest steps first.
    fn smaller(&self) -> Vec<Scenario> {
        let mut candidates = Vec::new();
        if let Trouble::Crashes(crashes) = &self.trouble {
            for index in (1..crashes.len()).rev() {
                let mut fewer = crashes.clone();
                fewer.remove(index);
                candidates.push(Trouble::Crashes(fewer));
            }
            for simple in [PowerCut::LOSE_ALL, PowerCut::KEEP_ALL] {
                let simpler: Vec<Crash> = crashes
                    .iter()
                    .map(|crash| Crash { left: crash.left.simpler(simple), ..*crash })
                    .collect();
                if simpler != *crashes
                    && crashes.iter().all(|crash| crash.left != Left::Power(PowerCut::LOSE_ALL))
                {
                    candidates.push(Trouble::Crashes(simpler));
                }
            }
        }
        let mut candidates: Vec<Scenario> =
            candidates.into_iter().map(|trouble| Scenario { trouble, ..self.clone() }).collect();
        // With fewer operations the crash or fault comes earlier. Its new place is unknown, so each
        // is a candidate.
        let mut chunk = self.ops.len().div_ceil(2);
        while chunk > 0 {
            for start in (0..self.ops.len()).step_by(chunk) {
                let mut ops = self.ops.clone();
                ops.drain(start..(start + chunk).min(ops.len()));
                candidates.extend(self.trouble.earlier().map(|trouble| Scenario {
                    ops: ops.clone(),
                    trouble,
                    policy: self.policy,
                }));
            }
            chunk /= 2;
        }
        candidates
    }
}

impl Left {
    fn simpler(self, cut: PowerCut) -> Self {
        if matches!(self, Left::Power(_)) { Left::Power(cut) } else { self }
    }
}

impl Trouble {
    /// The same crash or fault at this place or an earlier one: at most 24 places, the nearest
    /// first.
    fn earlier(&self) -> impl Iterator<Item = Trouble> + '_ {
        let now = match self {
            Trouble::Crashes(crashes) => crashes.first().map_or(0, |crash| crash.after),
            Trouble::Fault(fault) => fault.nth,
        };
        let step = (now / 24).max(1);
        (0..=now).rev().step_by(usize::try_from(step).unwrap_or(1)).map(move |at| match self {
            Trouble::Fault(fault) => Trouble::Fault(Fault { nth: at, ..*fault }),
            Trouble::Crashes(crashes) => {
                let mut crashes = crashes.clone();
                if let Some(first) = crashes.first_mut() {
                    first.after = at;
                }
                Trouble::Crashes(crashes)
            }
        })
    }
}

fn last_ops(disk: &SimFs) -> String {
    let ops = disk.ops();
    let last: Vec<String> = ops.iter().rev().take(6).rev().map(ToString::to_string).collect();
    format!("{} operations, the last:\n{}", ops.len(), last.join("\n"))
}
