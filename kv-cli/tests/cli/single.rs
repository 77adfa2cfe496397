//! Single commands.

use std::ffi::OsString;
use std::path::Path;
use std::time::SystemTime;

use crate::run::{ENGINES, command, kv, outcome};
use std::io::{BufRead, BufReader, Write};

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
    let end = ": it holds files of a store of the naive engine; add --engine naive\n";
    assert!(complaint.ends_with(end), "{complaint}");
    let dir = tempfile::tempdir().unwrap();
    assert!(kv("log", dir.path(), &["put", "k", "v"], b"").status.success());
    let output = kv("naive", dir.path(), &["get", "k"], b"");
    let (code, _, complaint) = outcome(&output);
    assert!(code == 1 && complaint.ends_with("of the log engine; add --engine log\n"), "{complaint}");
}

#[test]
fn a_missing_store_is_told_in_words_of_the_command_line() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        for words in [&["get", "k"][..], &["delete", "k"], &["stats"], &["compact"]] {
            for place in [&missing, dir.path()] {
                let output = kv(engine, place, words, b"");
                let place = place.display();
                let expected = format!(
                    "kv: {place} is not a store of this engine: there is no kv-{engine} store here; correct the path\n"
                );
                assert_eq!(outcome(&output), (1, "", expected.as_str()), "{words:?}");
            }
        }
        assert!(!missing.exists());
    }
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

/// All files below a directory: names, bytes, modification times.
#[expect(clippy::disallowed_methods, reason = "a test looks at files as another process does")]
fn state_of(dir: &Path) -> Vec<(OsString, Vec<u8>, SystemTime)> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut state: Vec<_> = entries
        .map(|entry| {
            let changed = entry.metadata().unwrap().modified().unwrap();
            (entry.file_name(), std::fs::read(entry.path()).unwrap(), changed)
        })
        .collect();
    state.sort();
    state
}

#[test]
fn commands_that_read_write_nothing_and_run_beside_each_other() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        assert!(kv(engine, dir.path(), &["put", "k", "v"], b"").status.success());
        let before = state_of(dir.path());
        for words in [&["get", "k"][..], &["scan"], &["stats"]] {
            assert_eq!(outcome(&kv(engine, dir.path(), words, b"")).0, 0, "{words:?}");
        }
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        assert_eq!(outcome(&kv(engine, dir.path(), &["get", "k"], b"")), (0, "v\n", ""));
                    }
                });
            }
        });
        assert_eq!(state_of(dir.path()), before);
    }
}
