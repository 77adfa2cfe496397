use super::{Crash, Left, Rest, Scenario, Trouble};
use crate::rig::Policy;
use crate::sim::{Fault, FaultKind, PowerCut, Repeat};
use crate::workload::Op;
use std::fmt;
use std::str::FromStr;

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.policy.name())?;
        for op in &self.ops {
            write!(f, " {op}")?;
        }
        match &self.trouble {
            Trouble::Fault(fault) => {
                write!(
                    f,
                    " / {} {} {}",
                    name_of(KINDS, &fault.kind),
                    fault.nth,
                    name_of(REPEATS, &fault.repeat)
                )
            }
            Trouble::Crashes(crashes) => crashes.iter().try_for_each(|crash| match crash.left {
                Left::Written => write!(f, " / cut {} death", crash.after),
                Left::Power(cut) => write!(f, " / cut {} power {}", crash.after, cut.seed()),
                Left::Torn { bytes, rest } => {
                    write!(f, " / cut {} torn {bytes} {}", crash.after, name_of(RESTS, &rest))
                }
            }),
        }
    }
}

const KINDS: &[(&str, FaultKind)] = &[
    ("any", FaultKind::AnyIo),
    ("mutation", FaultKind::MutationIo),
    ("read", FaultKind::ReadIo),
    ("sync", FaultKind::Sync),
    ("denied", FaultKind::Denied),
    ("full", FaultKind::DiskFull),
    ("write_full", FaultKind::WriteDiskFull),
    ("too_large", FaultKind::FileTooLarge),
    ("no_descriptors", FaultKind::NoDescriptors),
    ("remove_refused", FaultKind::RemoveRefused),
    ("short", FaultKind::ShortTransfer),
    ("interrupted", FaultKind::Interrupted),
    ("panic", FaultKind::Panic),
];
const RESTS: &[(&str, Rest)] = &[("cut", Rest::Cut), ("zeros", Rest::Zeros), ("stale", Rest::Stale)];
const REPEATS: &[(&str, Repeat)] =
    &[("once", Repeat::Once), ("always", Repeat::Always), ("alternate", Repeat::Alternate)];

fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: &T) -> &'static str {
    names.iter().find(|(_, named)| named == value).map_or("?", |(name, _)| name)
}

fn of_name<T: Copy>(names: &[(&str, T)], name: &str) -> Option<T> {
    names.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut parts = line.split('/').map(str::trim);
        let mut words = parts.next().unwrap_or_default().split_whitespace();
        let policy = words.next().unwrap_or_default();
        let policy = Policy::ALL
            .into_iter()
            .find(|known| known.name() == policy)
            .ok_or_else(|| format!("{policy:?} is no policy"))?;
        let ops = words.map(Op::from_str).collect::<Result<_, _>>()?;
        let mut crashes = Vec::new();
        for part in parts {
            let words: Vec<&str> = part.split_whitespace().collect();
            let number = |text: &str| text.parse().map_err(|_| format!("{text:?} in {part:?} is no number"));
            match words.as_slice() {
                ["cut", after, "death"] => crashes.push(Crash { after: number(after)?, left: Left::Written }),
                ["cut", after, "power", seed] => {
                    let left = Left::Power(PowerCut::seeded(number(seed)?));
                    crashes.push(Crash { after: number(after)?, left });
                }
                ["cut", after, "torn", bytes, rest] => {
                    let rest = of_name(RESTS, rest).ok_or_else(|| format!("{rest:?} leaves nothing"))?;
                    let left = Left::Torn { bytes: number(bytes)?, rest };
                    crashes.push(Crash { after: number(after)?, left });
                }
                [kind, nth, repeat] if crashes.is_empty() => {
                    let no_fault = || format!("{part:?} is no trouble");
                    let kind = of_name(KINDS, kind).ok_or_else(no_fault)?;
                    let repeat = of_name(REPEATS, repeat).ok_or_else(no_fault)?;
                    let trouble = Trouble::Fault(Fault { kind, nth: number(nth)?, repeat });
                    return Ok(Scenario { policy, ops, trouble });
                }
                _ => return Err(format!("{part:?} is no trouble")),
            }
        }
        Ok(Scenario { policy, ops, trouble: Trouble::Crashes(crashes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::random_ops;
    use fastrand::Rng;

    #[test]
    fn a_line_tells_all_of_it() {
        let mut rng = Rng::with_seed(7);
        for round in 0..200u64 {
            let count = rng.usize(0..12);
            let mut ops = random_ops(&mut rng, count, 9);
            ops.push(Op::Reopen);
            ops.push(Op::Compact);
            let crash = |after, seed| Crash { after, left: Left::Power(PowerCut::seeded(seed)) };
            let trouble = match round % 3 {
                0 => Trouble::Crashes(vec![
                    crash(round, 5),
                    Crash { after: 1, left: Left::Written },
                    Crash { after: 2, left: Left::Torn { bytes: round, rest: Rest::Stale } },
                ]),
                1 => Trouble::Crashes(vec![]),
                _ => Trouble::Fault(Fault { kind: FaultKind::Sync, nth: round, repeat: Repeat::Alternate }),
            };
            let policy = rng.choice(Policy::ALL).unwrap();
            let scenario = Scenario { policy, ops, trouble };
            assert_eq!(scenario.to_string().parse(), Ok(scenario.clone()), "{scenario}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (line, complaint) in [
            ("sometimes p1:2", "\"sometimes\" is no policy"),
            ("always p1", "\"p1\" is no operation"),
            ("always / cut x death", "\"x\" in"),
            ("always / explode 1 once", "is no trouble"),
        ] {
            let error = line.parse::<Scenario>().unwrap_err();
            assert!(error.contains(complaint), "{line}: {error}");
        }
    }
}
