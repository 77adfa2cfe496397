//! The commands of the documents, run as they stand there, with their output.
//!
//! In a block of the language `console`, a line that starts with `$ ` is a command. The lines below
//! it are its output. To write the output anew:
//! `KV_DOCS_ACCEPT=1 cargo test -p kv-cli documents`. (With `--test cli` cargo does not build the
//! example that a document runs.)

#![allow(clippy::disallowed_methods, reason = "a document is no file of a store")]

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The output of a command, in the directory of the example.
fn run(dir: &Path, line: &str) -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_kv")).parent().unwrap().display();
    let path = format!("{bin}:{bin}/examples:{}", env::var("PATH").unwrap());
    let script = format!("exec 2>&1; {line}");
    let output =
        Command::new("sh").args(["-c", &script]).current_dir(dir).env("PATH", path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The shape of an output: sizes, identities and times differ from system to system.
fn shape(output: &str) -> String {
    let words = output.split_whitespace();
    let words = words.map(|word| word.trim_matches(|char: char| char.is_ascii_digit() || char == '.'));
    let words = words.filter(|word| !["", "KiB", "MiB", "B"].contains(word));
    words.collect::<Vec<_>>().join(" ")
}

/// Runs the commands of a document. Returns it with their output.
fn replay(document: &str) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let (mut replayed, mut differences) = (String::new(), String::new());
    let (mut is_console, mut expected, mut found) = (false, String::new(), String::new());
    for line in document.split_inclusive('\n') {
        let command = line.strip_prefix("$ ").filter(|_| is_console);
        let is_fence = line.starts_with("```");
        if is_console && command.is_none() && !is_fence {
            expected.push_str(line);
            continue;
        }
        if shape(&expected) != shape(&found) {
            write!(differences, "expected:\n{expected}found:\n{found}").unwrap();
        }
        replayed.push_str(&found);
        (expected, found) = (String::new(), String::new());
        replayed.push_str(line);
        if let Some(command) = command {
            found = run(dir.path(), command.trim_end());
        }
        if is_fence {
            is_console = line.trim_end() == "```console";
        }
    }
    (replayed, differences)
}

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let document = fs::read_to_string(&path).unwrap();
    assert!(document.contains("```console\n$ "), "{name} has no commands");
    let (replayed, differences) = replay(&document);
    if env::var_os("KV_DOCS_ACCEPT").is_some_and(|value| value == "1") {
        fs::write(&path, replayed).unwrap();
    } else {
        assert!(differences.is_empty(), "{name}: the output of commands differs\n{differences}");
    }
}

#[test]
fn the_readme_of_the_command_shows_real_output() {
    check("README.md");
}

/// The drill: past states, a restore, a repair, and a backup while a thread writes.
#[test]
fn the_readme_of_the_project_shows_real_output() {
    check("../README.md");
}

#[test]
fn the_operations_manual_shows_real_output() {
    check("../docs/operations.md");
}

#[test]
fn another_output_is_noticed() {
    let document = |output: &str| format!("```console\n$ echo 3 fish\n{output}```\n");
    let (replayed, differences) = replay(&document("4 fish\n"));
    assert_eq!((replayed, differences.as_str()), (document("3 fish\n"), ""));
    assert!(replay(&document("3 birds\n")).1.contains("fish"));
    assert!(replay(&document("")).1.contains("fish"));
}
