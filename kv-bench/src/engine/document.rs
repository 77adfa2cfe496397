//! The results as Markdown, and their place in a document.

use super::judge::Judged;
use crate::failure::Failure;
use crate::process::scratch::write;
use crate::report::results::Header;
use crate::report::section::Table;
use std::path::Path;

/// The file with the results of the last run.
pub(super) const FILE: &str = "engine.md";

/// The lines of a document around the results.
const BEGIN: &str = "<!-- results of kv-bench engine -->";
const END: &str = "<!-- end of the results -->";

/// The machine, the run and the verdicts.
pub(super) fn markdown(header: &Header, summary: &str, targets: &Table) -> String {
    let minutes = (header.duration_s / 60.0).round();
    let mut run = Table::new(["", ""]);
    run.push(["machine".to_owned(), header.machine.to_string()]);
    run.push(["repetitions".to_owned(), header.repetitions.to_string()]);
    run.push(["duration".to_owned(), format!("{minutes} minutes")]);
    run.push(["targets", summary]);
    if header.quick || !header.optimized {
        run.push(["warning", "a short or unoptimized run: its figures mean nothing"]);
    }
    format!("{}\n{}", run.markdown(), targets.markdown())
}

/// The table of the targets. Misses stand out.
pub(super) fn targets(judged: &[Judged]) -> Table {
    let mut table = Table::new(["what", "target", "kv-log", "against", "value", "spread", "verdict"]);
    for judged in judged {
        table.push(judged.cells());
    }
    table
}

/// Puts the results of the last run, whose output directory is `out`, into the document.
pub(crate) fn publish(out: &Path, document: &Path) -> Result<(), Failure> {
    let read =
        |path: &Path| std::fs::read_to_string(path).map_err(Failure::io(format!("read {}", path.display())));
    let (results, text) = (read(&out.join(FILE))?, read(document)?);
    let missing = || Failure::Worker(format!("{} has no lines {BEGIN:?} and {END:?}", document.display()));
    write(document, &replaced(&text, &results).ok_or_else(missing)?)
}

/// `text` with `results` between its two marks. `None` if it lacks a mark.
fn replaced(text: &str, results: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{results}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_replace_earlier_ones_and_nothing_else() {
        let text = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nrest\n");
        let once = replaced(&text, "| a |\n").unwrap();
        assert_eq!(once, format!("# Title\n\n{BEGIN}\n\n| a |\n\n{END}\n\nrest\n"));
        assert_eq!(replaced(&once, "| a |\n").unwrap(), once);
        for text in ["no marks", BEGIN, END] {
            assert_eq!(replaced(text, "| a |\n"), None);
        }
    }

    #[test]
    fn figures_that_mean_nothing_say_so() {
        let mut header = Header::new(1, true, 5, Path::new("/"));
        let table = Table::new(["what"]);
        assert!(markdown(&header, "1 pass", &table).contains("mean nothing"));
        (header.quick, header.optimized) = (false, true);
        let text = markdown(&header, "1 pass", &table);
        assert!(!text.contains("mean nothing") && text.contains("| targets | 1 pass |"), "{text}");
    }
}
