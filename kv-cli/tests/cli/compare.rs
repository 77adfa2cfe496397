//! `kv diff`, `kv bigkeys`, `kv completions`, `kv man` and the examples of `--help`.

#![allow(clippy::disallowed_methods, reason = "the tests read manual pages")]

use crate::run::{ENGINES, feed, kv, outcome, plain_command, text};
use std::fs;

#[test]
fn a_diff_shows_what_only_one_store_has() {
    for (first, second) in [("log", "naive"), ("naive", "log"), ("log", "log")] {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        kv(first, &a, &["shell"], b"put same 1\nput a 1\nput both old\n");
        kv(second, &b, &["shell"], b"put same 1\nput b 2 3\nput both new\n");
        let diff = |words: &[&str]| {
            let mut command = plain_command();
            command.arg("diff").args(words).arg(&a).arg(&b);
            feed(command, b"")
        };
        let output = diff(&[]);
        let (code, answer, complaint) = outcome(&output);
        let mut lines: Vec<&str> = answer.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["+ b\t2 3", "+ both\tnew", "- a\t1", "- both\told"]);
        let expected =
            "kv: the stores differ; keys only in the first: 1, only in the second: 1, with two values: 1\n";
        assert_eq!((code, complaint), (1, expected));
        assert!(text(&diff(&["--hex"]).stdout).contains("- 61\t31\n"));
        kv(second, &b, &["shell"], b"put a 1\nput both old\ndelete b\n");
        assert_eq!(outcome(&diff(&[])), (0, "", ""));
    }
}

#[test]
fn the_largest_pairs_come_first() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        kv(engine, dir.path(), &["shell"], b"put a 333\nput b 1\nput c 55555\nput x/d 7777777\nput e \n");
        let big = |words: &[&str]| {
            let output = kv(engine, dir.path(), &[&["bigkeys"], words].concat(), b"");
            assert!(output.status.success());
            text(&output.stdout).to_owned()
        };
        assert_eq!(big(&[]), "10\tx/d\n6\tc\n4\ta\n2\tb\n1\te\n");
        assert_eq!(big(&["--top", "2"]), "10\tx/d\n6\tc\n");
        assert_eq!(big(&["--top", "0"]), "");
        assert_eq!(big(&["x/"]), "10\tx/d\n");
    }
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let mut command = plain_command();
        command.args(["completions", shell]);
        let output = feed(command, b"");
        let (code, script, _) = outcome(&output);
        assert_eq!(code, 0);
        for name in ["verify", "repair", "export", "bigkeys"] {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("man1");
    let mut command = plain_command();
    command.arg("man").arg(&into);
    let output = feed(command, b"");
    let mut help = plain_command();
    help.arg("--help");
    let overview = feed(help, b"");
    let names = commands(text(&overview.stdout));
    let answer = format!("{} pages in {}\n", names.len() + 1, into.display());
    assert_eq!(outcome(&output), (0, answer.as_str(), ""));
    let page = |name: &str| fs::read_to_string(into.join(name)).unwrap();
    for name in names {
        let (title, page) = (format!("kv-{name}"), page(&format!("kv-{name}.1")));
        assert!(page.contains(&format!(".TH {title} 1  \"kv ")), "{page}");
        assert!(page.contains(".SH EXTRA") && page.contains("Example"), "{name}: {page}");
    }
    let overview = page("kv.1");
    assert!(overview.contains("kv\\-restore(1)") && overview.contains("Exit codes"), "{overview}");
    // A page that is there is replaced.
    let mut again = plain_command();
    again.arg("man").arg(&into);
    assert!(feed(again, b"").status.success());
}

/// The names of the commands in the overview.
fn commands(overview: &str) -> Vec<&str> {
    let commands = overview.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = commands.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").collect()
}

#[test]
fn every_command_has_an_example() {
    let help = |words: &[&str]| {
        let mut command = plain_command();
        command.args(words).arg("--help");
        let output = feed(command, b"");
        assert!(output.status.success());
        text(&output.stdout).to_owned()
    };
    let overview = help(&[]);
    let names = commands(&overview);
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        if overview.contains(&format!("\n  {name} ")) {
            let text = help(&[name]);
            assert!(text.contains("Example") && text.contains(&format!("kv {name}")), "{name}: {text}");
        }
    }
}
