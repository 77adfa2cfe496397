//! The shell: lines in, lines out.

use crate::run::{ENGINES, command, kv, outcome};
use std::io::{BufRead, BufReader, Write};

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
