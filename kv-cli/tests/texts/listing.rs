//! The listing: what the rows collected, as text, compared with the file beside this one.

use std::collections::HashSet;
use std::fmt::{Display, Write};
use std::path::Path;

/// The accepted listing.
const ACCEPTED: &str = include_str!("errors.txt");

/// Set to 1, it makes the test write the listing in place of comparing it.
const ACCEPT: &str = "KV_TEXTS_ACCEPT";

const PREAMBLE: &str = "\
Every error text that a user can see: a situation, and below it the text. Read each one as a user
would. Does it say what happened, where, and what to do?

The test `texts` of kv-cli provokes them and compares them with this file. To accept new texts:
KV_TEXTS_ACCEPT=1 cargo test -p kv-cli --test texts
";

/// A situation in the words of a user, and the text that the user gets.
pub(crate) type Row = (&'static str, String);

/// Rows that belong together.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// The text of the error in `answer`.
#[track_caller]
pub(crate) fn text<T>(answer: Result<T, impl Display>) -> String {
    match answer {
        Err(error) => error.to_string(),
        Ok(_) => panic!("there is no error"),
    }
}

/// Compares `sections` with the accepted listing, or accepts them.
pub(crate) fn check(sections: &[Section]) {
    assert_situations_differ(sections);
    let listing = render(sections);
    if std::env::var_os(ACCEPT).is_some_and(|value| value == "1") {
        accept(&listing);
    } else if listing != ACCEPTED {
        panic!(
            "the error texts differ from kv-cli/tests/texts/errors.txt:\n{}\
             Read the new ones as a user would. To accept them: {ACCEPT}=1 cargo test -p kv-cli --test texts",
            differences(ACCEPTED, &listing)
        );
    }
}

fn assert_situations_differ(sections: &[Section]) {
    let mut seen = HashSet::new();
    for section in sections {
        for (situation, _) in &section.rows {
            assert!(seen.insert((section.title, situation)), "{situation}: twice in {}", section.title);
        }
    }
}

fn render(sections: &[Section]) -> String {
    let mut listing = PREAMBLE.to_owned();
    for Section { title, rows } in sections {
        write!(listing, "\n== {title} ==\n").unwrap();
        for (situation, text) in rows {
            write!(listing, "\n# {situation}\n{text}\n").unwrap();
        }
    }
    listing
}

#[expect(clippy::disallowed_methods, reason = "the listing is no file of a store")]
fn accept(listing: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/texts/errors.txt");
    std::fs::write(path, listing).unwrap();
}

/// The lines that only one of two listings has: `-` those of `old`, `+` those of `new`.
fn differences(old: &str, new: &str) -> String {
    let mut found = String::new();
    for (sign, one, other) in [('-', old, new), ('+', new, old)] {
        let known: HashSet<&str> = other.lines().collect();
        for line in one.lines().filter(|line| !known.contains(line)) {
            writeln!(found, "{sign} {line}").unwrap();
        }
    }
    if found.is_empty() { "the same lines in another order\n".to_owned() } else { found }
}
