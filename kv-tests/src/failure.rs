use crate::sim::SimFs;
use std::fmt;

/// The result of a case.
pub type CaseResult = Result<(), Failure>;

/// A violation of the contract: one sentence, and the facts that lead there.
#[derive(Clone, Debug)]
pub struct Failure {
    violated: String,
    facts: Vec<(&'static str, String)>,
    /// The disk image that the engine failed on.
    image: Option<SimFs>,
}

impl Failure {
    /// A failure with the violated sentence of the contract.
    pub fn new(violated: impl Into<String>) -> Self {
        Failure { violated: violated.into(), facts: Vec::new(), image: None }
    }

    /// Adds a fact, unless the failure has one of this name.
    #[must_use]
    pub fn with(mut self, name: &'static str, fact: impl Into<String>) -> Self {
        if self.facts.iter().all(|(known, _)| *known != name) {
            self.facts.push((name, fact.into()));
        }
        self
    }

    /// Keeps the disk image from before the engine opened it.
    #[must_use]
    pub(crate) fn with_image(mut self, image: SimFs) -> Self {
        self.image = Some(image);
        self
    }

    pub(crate) fn image(&self) -> Option<&SimFs> {
        self.image.as_ref()
    }

    /// The fact of this name.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|(known, _)| *known == name).map(|(_, fact)| fact.as_str())
    }

    /// The violated sentence.
    pub fn violated(&self) -> &str {
        &self.violated
    }
}

/// An operation that must succeed failed.
impl From<kv_core::Error> for Failure {
    fn from(error: kv_core::Error) -> Self {
        Failure::new(format!("an operation that must succeed failed: {error}"))
    }
}

/// The suite's own I/O failed.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::new(format!("the suite could not do its own I/O: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "violated: {}", self.violated)?;
        for (name, fact) in &self.facts {
            let mut lines = fact.lines();
            write!(f, "\n{:>10}: {}", name, lines.next().unwrap_or_default())?;
            for line in lines {
                write!(f, "\n            {line}")?;
            }
        }
        Ok(())
    }
}

/// Returns a [`Failure`] with a formatted sentence from the case.
///
/// ```
/// # fn case() -> kv_tests::CaseResult {
/// kv_tests::fail!("the log has {} segments, not one", 2)
/// # }
/// # assert_eq!(case().unwrap_err().violated(), "the log has 2 segments, not one");
/// ```
#[macro_export]
macro_rules! fail {
    ($($text:tt)+) => {
        return Err($crate::Failure::new(format!($($text)+)))
    };
}

/// Returns a [`Failure`] with a formatted sentence from the case, unless the condition holds.
///
/// ```
/// # fn case() -> kv_tests::CaseResult {
/// let segments = 2;
/// kv_tests::ensure!(segments == 1, "the log has {segments} segments, not one");
/// # Ok(())
/// # }
/// # assert_eq!(case().unwrap_err().violated(), "the log has 2 segments, not one");
/// ```
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::Failure::new(format!($($text)+)));
        }
    };
}

pub(crate) use {ensure, fail};
/// An answer of the engine in the words of a report.
pub(crate) trait InWords {
    fn in_words(&self) -> String;
}

impl<T> InWords for kv_core::Result<T> {
    fn in_words(&self) -> String {
        match self {
            Ok(_) => "success".to_owned(),
            Err(error) => format!("the error {:?}", error.to_string()),
        }
    }
}

impl InWords for Option<kv_core::Error> {
    fn in_words(&self) -> String {
        match self {
            None => "success".to_owned(),
            Some(error) => format!("the error {:?}", error.to_string()),
        }
    }
}

impl InWords for Option<kv_core::Lsn> {
    fn in_words(&self) -> String {
        match self {
            None => "that nothing changed".to_owned(),
            Some(lsn) => format!("LSN {lsn}"),
        }
    }
}
