//! The built command, as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

const ENGINES: [&str; 2] = ["log", "naive"];

fn command(engine: &str, dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
    command.args(["--engine", engine, "--dir"]).arg(dir).args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn kv(engine: &str, dir: &Path, words: &[&str], input: &[u8]) -> Output {
    let mut child = command(engine, dir, words).spawn().unwrap();
    // A command that refuses to start does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Exit code, standard output, standard error.
fn outcome(output: &Output) -> (i32, &str, &str) {
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_shell_answers_one_line_each_and_what_it_stored_stays() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let input =
            b"put a one two  three\nget a\nget b\nput b 2\ndelete b\ndelete b\nput a\nfly\nstatistic\nquit\nget a\n";
        let output = kv(engine, dir.path(), &["shell"], input);
        let (code, answers, complaints) = outcome(&output);
        assert_eq!((code, complaints), (0, ""));
        let lines: Vec<&str> = answers.lines().collect();
        assert_eq!(lines.len(), 9, "{lines:?}");
        assert_eq!(lines.get(..6).unwrap(), ["a", "one two  three", "NULL", "b", "b", "NULL"]);
        assert!(lines.get(6..8).unwrap().iter().all(|line| line.starts_with("ERROR")), "{lines:?}");
        assert!(lines.last().unwrap().starts_with("keys=1 "), "{lines:?}");

        let output = kv(engine, dir.path(), &["get", "a"], b"");
        assert_eq!(outcome(&output), (0, "one two  three\n", ""));
    }
}

#[test]
fn the_end_of_the_input_ends_the_shell_even_amid_a_line() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        for durability in ["always", "periodic", "manual"] {
            let words = ["--durability", durability, "shell"];
            let output = kv(engine, dir.path(), &words, format!("put k {durability}").as_bytes());
            assert_eq!(outcome(&output), (0, "k\n", ""));
            let output = kv(engine, dir.path(), &["shell"], b"\r\nget k\r\n");
            assert_eq!(outcome(&output), (0, format!("{durability}\n").as_str(), ""));
        }
    }
}

#[test]
fn a_program_that_asks_one_question_at_a_time_is_answered() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let mut child = command(engine, dir.path(), &["shell"]).spawn().unwrap();
        let (mut questions, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut answers = BufReader::new(answers).lines();
        for (question, answer) in [("put k 1", "k"), ("get k", "1"), ("delete k", "k"), ("get k", "NULL")] {
            writeln!(questions, "{question}").unwrap();
            assert_eq!(answers.next().unwrap().unwrap(), answer);
        }
        drop(questions);
        assert!(answers.next().is_none());
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn single_commands_and_their_exit_codes() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        for words in [&["get", "k"][..], &["delete", "k"], &["stats"]] {
            let output = kv(engine, &dir, words, b"");
            let (code, answer, complaint) = outcome(&output);
            assert_eq!((code, answer), (1, ""));
            assert!(complaint.starts_with("kv: ") && complaint.contains("is not a store"), "{complaint}");
            assert!(!dir.exists(), "{words:?} created a store");
        }

        let run = |words: &[&str]| {
            let output = kv(engine, &dir, words, b"");
            let (code, answer, _) = outcome(&output);
            (code, answer.to_owned())
        };
        assert_eq!(run(&["put", "k", "v"]), (0, "k\n".to_owned()));
        assert_eq!(run(&["get", "k"]), (0, "v\n".to_owned()));
        assert_eq!(run(&["get", "absent"]), (1, "NULL\n".to_owned()));
        let (code, stats) = run(&["stats"]);
        assert!(code == 0 && stats.lines().any(|line| line.split_whitespace().eq(["keys", "1"])), "{stats}");
        let (code, stats) = run(&["stats", "--json"]);
        assert!(code == 0 && stats.starts_with("{\"keys\":1,"), "{stats}");
        assert_eq!(run(&["delete", "k"]), (0, "k\n".to_owned()));
        assert_eq!(run(&["delete", "k"]), (1, "NULL\n".to_owned()));
        assert_eq!(run(&["fly"]).0, 2);
        assert_eq!(run(&["put", "k"]).0, 2);
        assert_eq!(run(&["--durability", "hope", "get", "k"]).0, 2);
        let long = "x".repeat(65);
        let output = kv(engine, &dir, &["put", &long, "v"], b"");
        let (code, _, complaint) = outcome(&output);
        assert!(code == 1 && complaint.contains("limit is 64"), "{complaint}");
    }
}

#[test]
fn hex_reaches_every_byte() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let run = |words: &[&str], input: &[u8]| {
            let output = kv(engine, dir.path(), words, input);
            let (code, answer, _) = outcome(&output);
            (code, answer.to_owned())
        };
        assert_eq!(run(&["--hex", "put", "00FF", "0a0d00"], b""), (0, "00ff\n".to_owned()));
        assert_eq!(run(&["--hex", "get", "00ff"], b""), (0, "0a0d00\n".to_owned()));
        assert_eq!(run(&["--hex", "put", "0", ""], b"").0, 2);
        assert_eq!(run(&["--hex", "put", "61", "310a32"], b""), (0, "61\n".to_owned()));
        // A value of two lines would be two answers.
        let (code, answer) = run(&["shell"], b"get a\nget b\n");
        assert!(code == 0 && answer.starts_with("ERROR") && answer.ends_with("\nNULL\n"), "{answer}");
        let answers = run(&["--hex", "shell"], b"get 61\nget zz\nput 62 ff\ndelete 62\n");
        assert_eq!(answers.1.lines().next(), Some("310a32"));
        assert!(answers.1.lines().nth(1).unwrap().starts_with("ERROR"));
        assert!(answers.1.ends_with("\n62\n62\n"), "{answers:?}");
    }
}

#[test]
fn the_wrong_engine_is_told() {
    let dir = tempfile::tempdir().unwrap();
    assert!(kv("naive", dir.path(), &["put", "k", "v"], b"").status.success());
    let output = kv("log", dir.path(), &["put", "k", "v"], b"");
    let (code, _, complaint) = outcome(&output);
    assert_eq!(code, 1);
    assert!(complaint.contains("not a file of a kv-log store"), "{complaint}");
}

#[test]
fn a_store_in_use_is_told() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let mut shell = command(engine, dir.path(), &["shell"]).spawn().unwrap();
        let mut questions = shell.stdin.take().unwrap();
        questions.write_all(b"put k v\n").unwrap();
        let mut answer = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut answer).unwrap();
        let output = kv(engine, dir.path(), &["get", "k"], b"");
        let (code, _, complaint) = outcome(&output);
        assert!(code == 1 && complaint.contains("is open elsewhere"), "{complaint}");
        drop(questions);
        assert!(shell.wait().unwrap().success());
    }
}
