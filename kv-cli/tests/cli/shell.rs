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
fn the_end_of_the_input_ends_the_shell() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        for durability in ["always", "periodic", "manual"] {
            let words = ["--durability", durability, "shell"];
            let output = kv(engine, dir.path(), &words, format!("put k {durability}\n").as_bytes());
            assert_eq!(outcome(&output), (0, "k\n", ""));
            let output = kv(engine, dir.path(), &["shell"], b"\r\nget k\r\n");
            assert_eq!(outcome(&output), (0, format!("{durability}\n").as_str(), ""));
        }
    }
}

const CUT: &str = "ERROR the last line has no line break, so it may be cut; it was not executed\n";

#[test]
fn a_line_that_the_end_of_the_input_cuts_is_not_executed() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        assert!(kv(engine, dir.path(), &["put", "acc", "1"], b"").status.success());
        for cut in ["delete acc", "put acc 99", "quit", "put acc 99\r", "d", " "] {
            let output = kv(engine, dir.path(), &["shell"], format!("get acc\n{cut}").as_bytes());
            assert_eq!(outcome(&output), (1, format!("1\n{CUT}").as_str(), ""), "{cut:?}");
        }
        assert_eq!(outcome(&kv(engine, dir.path(), &["get", "acc"], b"")), (0, "1\n", ""));
    }
}

#[test]
fn a_line_beyond_the_limit_is_refused_and_skipped() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let limits = ["--key-len-max=10", "--value-len-max=1000", "shell"];
        // Far longer than any buffer. The line holds the text of another command.
        let long = format!("put k {}", "\rquit get k ".repeat(100_000));
        let input = format!("put a 1\n{long}\nget a\nget k\n");
        let output = kv(engine, dir.path(), &limits, input.as_bytes());
        let (code, answers, complaint) = outcome(&output);
        assert_eq!((code, complaint), (0, ""));
        let lines: Vec<&str> = answers.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[2], lines[3]), (4, "a", "1", "NULL"), "{lines:?}");
        assert!(lines[1].starts_with("ERROR the line is longer than "), "{lines:?}");
        assert!(lines[1].contains("--value-len-max"), "{lines:?}");

        // One answer, even when the end of the input cuts the line.
        let output = kv(engine, dir.path(), &limits, long.as_bytes());
        let (code, answers, _) = outcome(&output);
        assert!(code == 1 && answers.lines().count() == 1 && answers.contains("longer than"), "{answers}");
    }
}

#[test]
fn the_limit_of_a_line_has_room_for_the_longest_key_and_value() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let (key, value) = ("ab".repeat(64), "0f".repeat(1 << 20));
        let input = format!("  put   {key} {value}\r\nget {key}\n");
        let output = kv(engine, dir.path(), &["--hex", "shell"], input.as_bytes());
        assert_eq!(outcome(&output), (0, format!("{key}\n{value}\n").as_str(), ""));
        // One byte too many is told as such.
        let output = kv(engine, dir.path(), &["--hex", "shell"], format!("put {key} {value}00\n").as_bytes());
        assert!(outcome(&output).1.contains("the limit is 1048576 (--value-len-max"));
    }
}

#[test]
fn a_line_without_end_takes_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command("naive", dir.path(), &["shell"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for _ in 0..256 {
        stdin.write_all(&vec![b'x'; 1 << 20]).unwrap();
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    drop(stdin);
    let peak_kb = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
    if let Some(peak_kb) = peak_kb {
        assert!(peak_kb.trim().parse::<u64>().unwrap() < 64 << 10, "{peak_kb} kB");
    }
    assert_eq!(child.wait().unwrap().code(), Some(1));
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
