use crate::{CaseResult, Context};
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
    /// Changes survive the death of the process when their calls return.
    ProcessSafe,
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
            Need::ProcessSafe => capabilities.process_safe,
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
            Need::ProcessSafe => "process_safe",
            Need::ChildProcess => "a child process",
        })
    }
}

/// One checked property: plain data.
///
/// The suite's cases are listed by [`all_cases`](crate::all_cases). An engine's author can write
/// more of them, and pass them to [`main!`](crate::main). The id of such a case is
/// `own::level_property`, for example `own::required_a_sync_forgets_deleted_values`. The suite has
/// no group `own`, so these ids never clash with its own.
///
/// ```
/// use kv_tests::{Case, CaseResult, Context, Level, Policy, Setup, ensure};
///
/// const CASE: Case = Case {
///     id: "own::required_a_value_survives_a_hundred_opens",
///     level: Level::Required,
///     needs: &[],
///     summary: "A value survives a hundred opens and closes.",
///     run: a_value_survives_a_hundred_opens,
/// };
///
/// fn a_value_survives_a_hundred_opens(context: &Context) -> CaseResult {
///     let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
///     rig.open()?.put(b"key", b"value")?;
///     for number in 0..context.scaled(100) {
///         let engine = rig.open()?;
///         let found = engine.get(b"key")?;
///         ensure!(found.as_deref() == Some(&b"value"[..]), "open {number} finds {found:?}");
///         engine.close()?;
///     }
///     Ok(())
/// }
///
/// # use kv_tests::reference::ReferenceFactory as MyFactory;
/// # use kv_tests::{Settings, Verdict, run_case};
/// # let factory: std::sync::Arc<dyn kv_core::EngineFactory> = std::sync::Arc::new(MyFactory::default());
/// # let (verdict, _) = run_case(&CASE, &factory, &Settings::default());
/// # assert!(matches!(verdict, Verdict::Passed), "{verdict:?}");
/// // kv_tests::main!(MyFactory, cases = &[CASE]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Stable name: `group::level_kvNNN_property`; `own::level_property` for an author's own case.
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
    /// The group of the cases that do not belong to the suite.
    const OWN: &str = "own::";

    /// The first unmet requirement.
    pub(crate) fn unmet(&self, capabilities: Capabilities, can_fork: bool) -> Option<Need> {
        self.needs.iter().copied().find(|need| !need.is_met(capabilities, can_fork))
    }
}

/// Checks that the cases of an engine's author have ids of their own, which no case of `suite` has,
/// and that each id says its level.
///
/// # Errors
/// Names the first case that breaks a rule, and the rule.
pub(crate) fn check_own(own: &[Case], suite: &[Case]) -> Result<(), String> {
    for (position, case) in own.iter().enumerate() {
        let id = case.id;
        if suite.iter().any(|known| known.id == id) {
            return Err(format!("the suite has a case {id}: an own case needs an id that begins with own::"));
        }
        if own.iter().take(position).any(|known| known.id == id) {
            return Err(format!("two own cases have the id {id}"));
        }
        let Some(name) = id.strip_prefix(Case::OWN) else {
            return Err(format!("the id of the own case {id} does not begin with own::"));
        };
        let level = case.level.as_str();
        let property = name.strip_prefix(level).and_then(|rest| rest.strip_prefix('_')).unwrap_or_default();
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if property.is_empty() || !property.bytes().all(is_word) {
            return Err(format!(
                "the id of the own case {id} must be own::{level}_ and a name in lower case, digits and _"
            ));
        }
        if case.summary.trim().is_empty() {
            return Err(format!("the own case {id} has no summary"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::all_cases;

    const GOOD: Case = Case {
        id: "own::required_2_opens",
        level: Level::Required,
        needs: &[],
        summary: "Opens twice.",
        run: |_| Ok(()),
    };

    #[test]
    fn own_cases_have_ids_and_summaries_of_their_own() {
        check_own(&[], &all_cases()).unwrap();
        check_own(&[GOOD, Case { id: "own::required_3_opens", ..GOOD }], &all_cases()).unwrap();
        let with_id = |id| Case { id, ..GOOD };
        let malformed = "must be own::required_ and a name in lower case, digits and _";
        for (cases, complaint) in [
            (
                vec![with_id("model::required_kv101_last_put_wins")],
                "the suite has a case model::required_kv101_last_put_wins",
            ),
            (vec![with_id("model::required_kv999_new")], "kv999_new does not begin with own::"),
            (vec![GOOD, GOOD], "two own cases have the id own::required_2_opens"),
            (vec![with_id("own::stochastic_2_opens")], malformed),
            (vec![with_id("own::required_")], malformed),
            (vec![with_id("own::required_two opens")], malformed),
            (vec![Case { summary: " ", ..GOOD }], "own::required_2_opens has no summary"),
        ] {
            let error = check_own(&cases, &all_cases()).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn the_suite_has_no_group_own() {
        assert!(all_cases().iter().all(|case| !case.id.starts_with(Case::OWN)));
    }

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
