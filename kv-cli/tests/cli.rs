//! The built command, as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn kv(engine: &str, dir: &Path, words: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kv"))
        .args(["--engine", engine, "--dir"])
        .arg(dir)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_shell_answers_one_line_each_and_what_it_stored_stays() {
    for engine in ["log", "naive"] {
        let dir = tempfile::tempdir().unwrap();
        let input = "put a one two  three\nget a\nget b\nput b 2\ndelete b\ndelete b\nput a\nfly\nstatistic\nquit\nget a\n";
        let output = kv(engine, dir.path(), &["shell"], input);
        assert!(output.status.success());
        let lines: Vec<&str> = text(&output.stdout).lines().collect();
        assert_eq!(lines.len(), 9, "{lines:?}");
        assert_eq!(lines.get(..6).unwrap(), ["a", "one two  three", "NULL", "b", "b", "NULL"]);
        assert!(lines.get(6..8).unwrap().iter().all(|line| line.starts_with("ERROR")), "{lines:?}");
        assert!(lines.last().unwrap().starts_with("keys=1 "), "{lines:?}");

        let output = kv(engine, dir.path(), &["get", "a"], "");
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "one two  three\n"));
    }
}

#[test]
fn single_commands_and_their_exit_codes() {
    for engine in ["log", "naive"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        let output = kv(engine, &dir, &["get", "k"], "");
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("is not a store"), "{}", text(&output.stderr));
        assert!(!dir.exists(), "a get created a store");

        let run = |words: &[&str]| {
            let output = kv(engine, &dir, words, "");
            (output.status.code().unwrap(), text(&output.stdout).to_owned())
        };
        assert_eq!(run(&["put", "k", "v"]), (0, "k\n".to_owned()));
        assert_eq!(run(&["get", "k"]), (0, "v\n".to_owned()));
        let (code, stats) = run(&["stats"]);
        assert!(code == 0 && stats.lines().any(|line| line.split_whitespace().eq(["keys", "1"])), "{stats}");
        assert_eq!(run(&["delete", "k"]), (0, "k\n".to_owned()));
        assert_eq!(run(&["delete", "k"]), (1, "NULL\n".to_owned()));
        assert_eq!(run(&["fly"]).0, 2);
        let long = "x".repeat(65);
        let output = kv(engine, &dir, &["put", &long, "v"], "");
        assert!(text(&output.stderr).contains("limit is 64"), "{}", text(&output.stderr));
    }
}

#[test]
fn the_wrong_engine_is_told() {
    let dir = tempfile::tempdir().unwrap();
    assert!(kv("naive", dir.path(), &["put", "k", "v"], "").status.success());
    let output = kv("log", dir.path(), &["put", "k", "v"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not a file of a kv-log store"), "{}", text(&output.stderr));
}
