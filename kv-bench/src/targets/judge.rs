//! From measured values to verdicts, as pure functions.

use super::row::{Against, Bound, Metric, Row};
use crate::experiment::Outcome;
use crate::report::results::median;
use crate::units;
use serde::Serialize;
use std::collections::BTreeMap;

/// The values of each metric, one a repetition.
pub(crate) type Series = BTreeMap<Metric, Vec<f64>>;

/// All values of the outcomes.
pub(crate) fn series(outcomes: &[Outcome]) -> Series {
    let mut series = Series::new();
    for outcome in outcomes {
        for (subject, runs) in outcome.subjects() {
            for name in runs.names() {
                let metric = Metric::new(&outcome.experiment.name, subject, name);
                series.insert(metric, runs.values(name));
            }
        }
    }
    series
}

/// The verdict on a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// The value meets the target.
    Pass,
    /// It does not.
    Miss,
    /// It has no target.
    Reported,
    /// This command did not measure it, for this reason.
    NotMeasured(String),
}

impl Verdict {
    /// The verdict in the table.
    pub(crate) fn text(&self) -> String {
        match self {
            Verdict::Pass => "pass".to_owned(),
            Verdict::Miss => "MISS".to_owned(),
            Verdict::Reported => "–".to_owned(),
            Verdict::NotMeasured(_) => "not measured".to_owned(),
        }
    }
}

/// A row with its values and verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Judged {
    pub(crate) row: String,
    /// `>= 1.1x dashmap`.
    pub(crate) target: String,
    /// Median of ours.
    pub(crate) ours: Option<f64>,
    /// Median of the other value, if the row has one.
    pub(crate) theirs: Option<f64>,
    /// The other value's subject, or its name if ours has the same subject.
    pub(crate) against: Option<String>,
    /// The judged value: the ratio or the difference of the medians, or ours if there is no other.
    pub(crate) value: Option<f64>,
    /// Least and most of the single repetitions.
    pub(crate) spread: Option<(f64, f64)>,
    pub(crate) verdict: Verdict,
}

/// Judges `row` by the measured values.
pub(crate) fn judge(row: &Row, series: &Series) -> Judged {
    let mut judged = Judged {
        row: row.name.clone(),
        target: row.target(),
        ours: None,
        theirs: None,
        against: None,
        value: None,
        spread: None,
        verdict: Verdict::Miss,
    };
    let Some(values) = series.get(&row.ours).filter(|values| !values.is_empty()) else {
        judged.verdict = Verdict::NotMeasured(format!("{} was not run", row.ours.subject));
        return judged;
    };
    judged.ours = Some(median(values));
    let other = match &row.against {
        Against::Nothing => None,
        Against::BestOf(others) => Some(best(others, series)),
        Against::Less(other) => Some(series.get(other).map(|values| (other, values))),
    };
    // How one value of ours compares with one of theirs.
    let compare = |ours: f64, theirs: f64| match &row.against {
        Against::Less(_) => ours - theirs,
        _ => ours / theirs,
    };
    let (value, singles) = match other {
        None => (median(values), values.clone()),
        Some(None) => {
            judged.verdict = Verdict::NotMeasured(row.missing_others());
            return judged;
        }
        Some(Some((other, theirs))) => {
            judged.theirs = Some(median(theirs));
            // Of two values of one subject, the name of the value tells them apart.
            let is_own = other.subject == row.ours.subject;
            judged.against = Some(if is_own { &other.name } else { &other.subject }.clone());
            let singles = values.iter().zip(theirs).map(|(ours, theirs)| compare(*ours, *theirs));
            // Of the medians: a slow moment of the machine spoils one run, not the value.
            (compare(median(values), median(theirs)), singles.collect())
        }
    };
    judged.value = Some(value).filter(|value| value.is_finite());
    let least = singles.iter().copied().fold(f64::INFINITY, f64::min);
    let most = singles.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    judged.spread = Some((least, most));
    judged.verdict = row.bound.verdict(value);
    judged
}

/// The measured one of `others` with the best median.
fn best<'a>(others: &'a [Metric], series: &'a Series) -> Option<(&'a Metric, &'a Vec<f64>)> {
    let measured = others.iter().filter_map(|other| Some((other, series.get(other)?)));
    measured.max_by(|(_, a), (_, b)| median(a).total_cmp(&median(b)))
}

impl Bound {
    /// The verdict on `value`. NaN meets no bound.
    pub(crate) fn verdict(self, value: f64) -> Verdict {
        let is_met = match self {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
            Bound::Reported => return Verdict::Reported,
        };
        if is_met { Verdict::Pass } else { Verdict::Miss }
    }
}

impl Judged {
    /// Cells of the table: row, target, ours, theirs, value, spread, verdict.
    pub(crate) fn cells(&self) -> [String; 7] {
        let number = |value: Option<f64>| value.map_or("–".to_owned(), units::number);
        let theirs = match (&self.against, self.theirs) {
            (Some(subject), Some(value)) => format!("{} ({subject})", units::number(value)),
            _ => "–".to_owned(),
        };
        let spread = self.spread.map_or("–".to_owned(), |(least, most)| format!("{least:.2} to {most:.2}"));
        [
            self.row.clone(),
            self.target.clone(),
            number(self.ours),
            theirs,
            self.value.map_or("–".to_owned(), |value| format!("{value:.2}")),
            spread,
            self.verdict.text(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(subject: &str) -> Metric {
        Metric::new("speed", subject, "put_per_s")
    }

    fn row(bound: Bound, against: Against) -> Row {
        Row { name: "put".to_owned(), bound, of: "x", ours: metric("log"), against }
    }

    fn series(of: &[(&str, &[f64])]) -> Series {
        of.iter().map(|(name, values)| (metric(name), values.to_vec())).collect()
    }

    #[test]
    fn the_ratio_of_medians_is_judged_and_single_ratios_are_the_spread() {
        let row = row(Bound::AtLeast(1.5), Against::BestOf(vec![metric("a"), metric("b"), metric("c")]));
        let measured =
            series(&[("log", &[30.0, 10.0, 20.0]), ("a", &[5.0, 5.0, 5.0]), ("b", &[10.0, 10.0, 40.0])]);
        let judged = judge(&row, &measured);
        assert_eq!(judged.against.as_deref(), Some("b"), "the subject with the best median");
        assert_eq!((judged.ours, judged.theirs, judged.value), (Some(20.0), Some(10.0), Some(2.0)));
        assert_eq!(judged.spread, Some((0.5, 3.0)));
        assert_eq!(judged.verdict, Verdict::Pass);
        assert_eq!(judged.cells()[3], "10.0 (b)");
    }

    #[test]
    fn bounds_include_their_ends_and_refuse_nan() {
        for (bound, value, met) in [
            (Bound::AtLeast(2.0), 2.0, true),
            (Bound::AtLeast(2.0), 1.99, false),
            (Bound::AtMost(2.0), 2.0, true),
            (Bound::AtMost(2.0), 2.01, false),
            (Bound::AtLeast(0.0), f64::NAN, false),
            (Bound::AtMost(9.0), f64::NAN, false),
        ] {
            let expected = if met { Verdict::Pass } else { Verdict::Miss };
            assert_eq!(bound.verdict(value), expected, "{bound:?} {value}");
        }
        assert_eq!(Bound::Reported.verdict(9.0), Verdict::Reported);
    }

    #[test]
    fn a_row_without_a_divisor_judges_the_value_itself() {
        let judged = judge(&row(Bound::AtMost(1.0), Against::Nothing), &series(&[("log", &[2.0, 1.0, 0.5])]));
        assert_eq!((judged.value, judged.spread), (Some(1.0), Some((0.5, 2.0))));
        assert_eq!(judged.verdict, Verdict::Pass);
    }

    #[test]
    fn another_value_of_the_same_subject_is_told_by_its_name() {
        let copy = Metric::new("speed", "log", "copy_per_s");
        let row = row(Bound::AtLeast(0.5), Against::BestOf(vec![copy.clone()]));
        let mut measured = series(&[("log", &[1.0])]);
        measured.insert(copy, vec![2.0]);
        let judged = judge(&row, &measured);
        assert_eq!((judged.value, judged.against.as_deref()), (Some(0.5), Some("copy_per_s")));
    }

    #[test]
    fn a_difference_is_judged_where_the_row_asks_for_one() {
        let row = row(Bound::AtMost(0.5), Against::Less(metric("a")));
        let judged = judge(&row, &series(&[("log", &[2.0, 3.0, 2.5]), ("a", &[2.0, 2.0, 3.0])]));
        assert_eq!((judged.ours, judged.theirs, judged.value), (Some(2.5), Some(2.0), Some(0.5)));
        assert_eq!((judged.spread, judged.verdict), (Some((-0.5, 1.0)), Verdict::Pass));
        let Verdict::NotMeasured(why) = judge(&row, &series(&[("log", &[1.0])])).verdict else {
            panic!("a was not measured")
        };
        assert!(why.contains('a'), "{why}");
    }

    #[test]
    fn a_missing_metric_is_named_and_never_passes() {
        let against = || Against::BestOf(vec![metric("LMDB")]);
        let alone = series(&[("log", &[1.0])]);
        let Verdict::NotMeasured(why) = judge(&row(Bound::AtLeast(0.0), against()), &alone).verdict else {
            panic!("LMDB was not measured")
        };
        assert!(why.contains("LMDB"), "{why}");
        let nothing = judge(&row(Bound::AtLeast(0.0), against()), &Series::new());
        assert!(matches!(nothing.verdict, Verdict::NotMeasured(_)) && nothing.value.is_none());
        assert_eq!(nothing.cells()[2..], ["–", "–", "–", "–", "not measured"]);
    }
}
