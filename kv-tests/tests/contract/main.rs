//! Every sentence of the contract has a case that judges it, and a defect that the case finds.
//!
//! The table in `table/` names the cases of each sentence. `docs/contract.md` is made of it:
//!
//! ```text
//! KV_CONTRACT_ACCEPT=1 cargo test -p kv-tests --test contract
//! ```

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "../by_case/mod.rs"]
mod by_case;
mod sentences;
mod table;

use kv_tests::{Level, all_cases};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use table::{Judged, Section, sections};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The defects that one of these cases must find.
fn defects_of(numbers: &[&str]) -> BTreeSet<String> {
    let found = by_case::all().into_iter().filter(|(_, number)| numbers.contains(number));
    found.map(|(defect, _)| defect).collect()
}

#[test]
fn the_table_has_every_sentence_of_the_contract() {
    for Section { file, item, judged, .. } in sections() {
        let source = std::fs::read_to_string(workspace().join(file)).unwrap();
        let written = sentences::sentences(&source, item);
        let listed: Vec<&str> = judged.iter().map(|judged| judged.sentence).collect();
        for sentence in &written {
            assert!(listed.contains(&sentence.as_str()), "{item}: the table lacks {sentence:?}");
        }
        assert_eq!(listed, written, "{item}: the table has other sentences, or another order");
    }
}

#[test]
fn every_sentence_has_a_case_and_a_defect() {
    for Judged { sentence, by, why_not } in sections().flat_map(|section| section.judged) {
        for number in *by {
            by_case::case(number);
        }
        let is_judged = !defects_of(by).is_empty();
        assert_ne!(is_judged, !why_not.is_empty(), "a case with a defect, or a reason: {sentence:?}");
    }
}

/// The contract does not demand optional cases.
#[test]
fn every_case_judges_a_sentence() {
    let judged = sections().flat_map(|section| section.judged);
    let named: BTreeSet<&str> = judged.flat_map(|judged| judged.by).copied().collect();
    let mut idle: Vec<&str> =
        all_cases().iter().filter(|case| case.level != Level::Optional).map(|case| case.id).collect();
    idle.retain(|id| !named.iter().any(|number| id.contains(&format!("_{number}_"))));
    assert!(idle.is_empty(), "these cases judge no sentence: {idle:?}");
}

#[test]
fn the_document_shows_the_table() {
    let path = workspace().join("docs/contract.md");
    let rendered = render();
    if std::env::var_os("KV_CONTRACT_ACCEPT").is_some() {
        #[expect(clippy::disallowed_methods, reason = "a document, not a store")]
        std::fs::write(&path, &rendered).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == rendered, "docs/contract.md is old; see the head of kv-tests/tests/contract/main.rs");
}

fn render() -> String {
    let mut text = table::INTRODUCTION.to_owned();
    for Section { title, item, judged, .. } in sections() {
        write!(text, "\n## {title}\n\nThe documentation of `{item}`.\n\n").unwrap();
        text += "| sentence | judged by | defects that must be found |\n|---|---|---|\n";
        for Judged { sentence, by, why_not } in *judged {
            let defects = Vec::from_iter(defects_of(by)).join(", ");
            let judge = if by.is_empty() { format!("– ({why_not})") } else { by.join(", ") };
            let found =
                if defects.is_empty() && !by.is_empty() { format!("– ({why_not})") } else { defects };
            writeln!(text, "| {sentence} | {judge} | {found} |").unwrap();
        }
    }
    text
}
