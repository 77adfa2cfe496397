//! The table: each sentence of the contract, and the cases that judge it.

mod calls;
mod engine;
mod past;
mod surroundings;

/// A sentence of the contract.
pub(crate) struct Judged {
    pub(crate) sentence: &'static str,
    /// The numbers of the cases.
    pub(crate) by: &'static [&'static str],
    /// The reason why no case judges it, or why no defect belongs to its cases.
    pub(crate) why_not: &'static str,
}

/// The documentation of an item.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// The file, from the root of the workspace.
    pub(crate) file: &'static str,
    /// The start of the line behind the documentation.
    pub(crate) item: &'static str,
    pub(crate) judged: &'static [Judged],
}

const fn by(sentence: &'static str, by: &'static [&'static str]) -> Judged {
    Judged { sentence, by, why_not: "" }
}

const fn undisturbed(sentence: &'static str, by: &'static [&'static str], why_not: &'static str) -> Judged {
    Judged { sentence, by, why_not }
}

const fn not(sentence: &'static str, why_not: &'static str) -> Judged {
    Judged { sentence, by: &[], why_not }
}

pub(crate) const INTRODUCTION: &str = "\
# The contract, sentence by sentence

Each sentence of the contract has a case of `kv-tests` that judges it, and a deliberate defect that
the case must find. A test holds this table against the documentation of `kv-core`, the list of
cases, and the lists of defects. Defects of two engines take part: `kv_tests::reference`, and the
paged engine of `kv-tests/tests/paged`. [testing.md](testing.md) explains the cases.
";

/// The sections, in the order of the document.
pub(crate) fn sections() -> impl Iterator<Item = &'static Section> {
    [engine::SECTIONS, calls::SECTIONS, surroundings::SECTIONS, past::SECTIONS].into_iter().flatten()
}
