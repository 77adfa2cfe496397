use crate::{CaseResult, Context, cases};
use kv_core::Capabilities;
use std::fmt;

/// How binding a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The contract demands it, and every run checks the same.
    Required,
    /// Good engines do it; the contract does not demand it.
    Optional,
    /// The contract demands it, but the check is a sample: threads, random histories, real kills.
    Stochastic,
}

impl Level {
    /// The level as written in case ids.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Required => "required",
            Level::Optional => "optional",
            Level::Stochastic => "stochastic",
        }
    }
}

/// A capability or facility that a case requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// All I/O goes through `Env::fs`.
    SimulatedFs,
    /// Background work can run inline.
    Inline,
    /// The engine compacts on request.
    Compact,
    /// The engine writes checkpoints.
    Checkpoint,
    /// The engine restores past states.
    PointInTime,
    /// The engine opens stores for reading only.
    ReadOnly,
    /// The test binary can run itself as a child process: [`main!`](crate::main) started it.
    ChildProcess,
}

impl Need {
    fn is_met(self, capabilities: Capabilities, can_fork: bool) -> bool {
        match self {
            Need::SimulatedFs => capabilities.simulated_fs,
            Need::Inline => capabilities.inline,
            Need::Compact => capabilities.compact,
            Need::Checkpoint => capabilities.checkpoint,
            Need::PointInTime => capabilities.point_in_time,
            Need::ReadOnly => capabilities.read_only,
            Need::ChildProcess => can_fork,
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Need::SimulatedFs => "simulated_fs",
            Need::Inline => "inline",
            Need::Compact => "compact",
            Need::Checkpoint => "checkpoint",
            Need::PointInTime => "point_in_time",
            Need::ReadOnly => "read_only",
            Need::ChildProcess => "a child process",
        })
    }
}

/// One checked property: plain data, listed by [`all_cases`].
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Stable name: `group::level_kvNNN_property`.
    pub id: &'static str,
    /// How binding the case is; also part of the id.
    pub level: Level,
    /// The requirements; the suite skips the case for an engine that lacks one.
    pub needs: &'static [Need],
    /// The contract's demand, in one sentence.
    pub summary: &'static str,
    /// The check.
    pub run: fn(&Context) -> CaseResult,
}

impl Case {
    /// The first unmet requirement.
    pub(crate) fn unmet(&self, capabilities: Capabilities, can_fork: bool) -> Option<Need> {
        self.needs.iter().copied().find(|need| !need.is_met(capabilities, can_fork))
    }
}

/// All cases, in the order of their ids' numbers.
pub fn all_cases() -> Vec<Case> {
    [
        cases::model::CASES,
        cases::batch::CASES,
        cases::scan::CASES,
        cases::lifecycle::CASES,
        cases::directory::CASES,
        cases::read_only::CASES,
        cases::crash::CASES,
        cases::errors::CASES,
        cases::disk::CASES,
        cases::corruption::CASES,
        cases::concurrency::CASES,
        cases::linearizability::CASES,
        cases::durability::CASES,
        cases::process::CASES,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_say_group_level_and_number() {
        let mut numbers = Vec::new();
        for case in all_cases() {
            let (_, name) = case.id.split_once("::").expect(case.id);
            let rest = name.strip_prefix(case.level.as_str()).expect(case.id);
            let number = rest.strip_prefix("_kv").and_then(|rest| rest.split('_').next()).expect(case.id);
            numbers.push(number.parse::<u32>().expect(case.id));
            assert!(case.summary.ends_with('.'), "{}", case.id);
        }
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(numbers, sorted, "numbers must grow");
    }
}
