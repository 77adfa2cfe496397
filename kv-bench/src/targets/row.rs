//! A row of a table: a metric, the other one that it is compared with, and the target. Plain data.

/// The range of values that meet a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// There is no target: the table only reports the value.
    Reported,
}

/// One measured value of one subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Metric {
    /// The experiment's name.
    pub(crate) experiment: String,
    /// The subject's name in that experiment.
    pub(crate) subject: String,
    /// The value's name.
    pub(crate) name: String,
}

/// The other value that ours is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Against {
    /// None: our value is judged itself.
    Nothing,
    /// The best of the measured ones.
    BestOf(Vec<Metric>),
    /// This one is subtracted from ours: the difference is judged.
    Less(Metric),
}

/// One target.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) bound: Bound,
    /// The text after the number of the bound: `x dashmap`.
    pub(crate) of: &'static str,
    pub(crate) ours: Metric,
    pub(crate) against: Against,
}

impl Metric {
    pub(crate) fn new(experiment: &str, subject: &str, name: &str) -> Self {
        Metric { experiment: experiment.to_owned(), subject: subject.to_owned(), name: name.to_owned() }
    }
}

impl Row {
    /// `>= 1.1x dashmap`.
    pub(crate) fn target(&self) -> String {
        let (sign, bound) = match self.bound {
            Bound::AtLeast(bound) => (">=", bound),
            Bound::AtMost(bound) => ("<=", bound),
            Bound::Reported => return format!("none{}", self.of),
        };
        // Rounds to three decimals, because a bound times a factor has more.
        format!("{sign} {}{}", (bound * 1e3).round() / 1e3, self.of)
    }

    /// The metrics that its verdict needs.
    pub(crate) fn metrics(&self) -> Vec<&Metric> {
        match &self.against {
            Against::Nothing => vec![&self.ours],
            Against::BestOf(others) => std::iter::once(&self.ours).chain(others).collect(),
            Against::Less(other) => vec![&self.ours, other],
        }
    }

    /// The reason why a row has nothing to be compared with.
    pub(crate) fn missing_others(&self) -> String {
        let others = self.metrics().into_iter().skip(1);
        let names: Vec<&str> = others.map(|other| other.subject.as_str()).collect();
        format!("none of {} was run; build with --features peers", names.join(", "))
    }
}

/// A row. `ours` and each of `others` are a subject and the name of its value.
pub(crate) fn row(
    name: impl Into<String>,
    bound: Bound,
    of: &'static str,
    experiment: &str,
    ours: (&str, &str),
    others: &[(&str, &str)],
) -> Row {
    let metric = |(subject, name): &(&str, &str)| Metric::new(experiment, subject, name);
    let against = match others {
        [] => Against::Nothing,
        others => Against::BestOf(others.iter().map(metric).collect()),
    };
    Row { name: name.into(), bound, of, ours: metric(&ours), against }
}
