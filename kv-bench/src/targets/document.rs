//! The results as Markdown, and their place in a document.

use super::judge::Judged;
use crate::failure::Failure;
use crate::process::scratch::write;
use crate::report::results::Header;
use crate::report::section::Table;
use std::path::Path;

/// The commands with results.
pub(crate) const COMMANDS: [&str; 2] = ["engine", "moments"];

/// The line of a document after the results of a command.
const END: &str = "<!-- end of the results -->";

/// The line before them.
fn begin(command: &str) -> String {
    format!("<!-- results of kv-bench {command} -->")
}

/// The file with the results of the last run.
pub(super) fn file(command: &str) -> String {
    format!("{command}.md")
}

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

/// Puts the results of the last runs, whose output directory is `out`, into the document.
pub(crate) fn publish(out: &Path, document: &Path) -> Result<(), Failure> {
    let read =
        |path: &Path| std::fs::read_to_string(path).map_err(Failure::io(format!("read {}", path.display())));
    let mut text = read(document)?;
    let measured: Vec<&str> =
        COMMANDS.into_iter().filter(|command| out.join(file(command)).exists()).collect();
    if measured.is_empty() {
        let files = COMMANDS.map(file).join(" nor ");
        return Err(Failure::Worker(format!(
            "{} holds neither {files}: nothing was measured",
            out.display()
        )));
    }
    for command in measured {
        let results = read(&out.join(file(command)))?;
        let missing = || {
            Failure::Worker(format!("{} has no lines {:?} and {END:?}", document.display(), begin(command)))
        };
        text = replaced(&text, command, &results).ok_or_else(missing)?;
    }
    write(document, &text)
}

/// `text` with `results` between the two marks of `command`. `None` if it lacks a mark.
fn replaced(text: &str, command: &str, results: &str) -> Option<String> {
    let begin = begin(command);
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n\n{results}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_replace_earlier_ones_and_nothing_else() {
        let [engine, moments] = COMMANDS.map(begin);
        let text = format!("# Title\n\n{engine}\nold\n{END}\n\n{moments}\n{END}\nrest\n");
        let once = replaced(&text, "engine", "| a |\n").unwrap();
        let expected = format!("# Title\n\n{engine}\n\n| a |\n\n{END}\n\n{moments}\n{END}\nrest\n");
        assert_eq!(once, expected);
        assert_eq!(replaced(&once, "engine", "| a |\n").unwrap(), once);
        let both = replaced(&once, "moments", "| b |\n").unwrap();
        assert!(both.ends_with(&format!("| a |\n\n{END}\n\n{moments}\n\n| b |\n\n{END}\nrest\n")));
        for text in ["no marks", engine.as_str(), END] {
            assert_eq!(replaced(text, "engine", "| a |\n"), None);
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
