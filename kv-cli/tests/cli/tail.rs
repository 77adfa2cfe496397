//! `kv tail`.

#![allow(clippy::disallowed_methods, reason = "the tests damage the files of a store")]

use crate::run::{kv, outcome, plain_command, text};
use kv_core::{Batch, Engine, Never};
use kv_log::{LogEngine, Options};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

fn tail(words: &[&str], dir: &Path) -> Output {
    plain_command().arg("tail").args(words).arg(dir).output().unwrap()
}

#[test]
fn what_is_there_is_printed_from_any_lsn_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("s");
    let input = b"put a 1\nput b 2\ndelete a\nput c \x01\n";
    assert!(kv("log", &dir, &["shell"], input).status.success());
    let all = "1\tput\ta\t1\n2\tput\tb\t2\n3\tdelete\ta\t\n4\tput\tc\t\\x01\n";
    assert_eq!(outcome(&tail(&["--no-follow"], &dir)), (0, all, ""));
    for (from, lines) in [("0", 4), ("1", 4), ("3", 2), ("4", 1), ("5", 0)] {
        let output = tail(&["--no-follow", "--from", from], &dir);
        let (code, answer, complaint) = outcome(&output);
        assert_eq!((code, answer.lines().count(), complaint), (0, lines, ""), "{from}");
        assert!(all.ends_with(answer));
    }
    let output = tail(&["--no-follow", "--hex", "--from", "4"], &dir);
    assert_eq!(outcome(&output), (0, "4\tput\t63\t01\n", ""));
}

#[test]
fn as_json_any_bytes_are_told_as_in_an_export() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("s");
    assert!(kv("log", &dir, &["shell"], b"put a 1\nput \xff \t\"\x01\ndelete a\n").status.success());
    let lines = "{\"key\":\"a\",\"kind\":\"put\",\"lsn\":1,\"more\":false,\"value\":\"1\"}\n\
        {\"key\":{\"base64\":\"/w==\"},\"kind\":\"put\",\"lsn\":2,\"more\":false,\"value\":\"\\t\\\"\\u0001\"}\n\
        {\"key\":\"a\",\"kind\":\"delete\",\"lsn\":3,\"more\":false,\"value\":null}\n";
    assert_eq!(outcome(&tail(&["--no-follow", "--json"], &dir)), (0, lines, ""));
    let line = "{\"key\":\"ff\",\"kind\":\"put\",\"lsn\":2,\"more\":false,\"value\":\"092201\"}";
    let output = tail(&["--no-follow", "--json", "--hex", "--from", "2"], &dir);
    assert_eq!(outcome(&output).1.lines().next(), Some(line));
}

/// A batch is one change of several keys.
#[test]
fn as_json_a_batch_goes_on_in_the_next_line() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), Options::default()).unwrap();
    store.apply(Batch::new().put(b"a", b"1").put(b"b", b"2")).unwrap();
    store.close().unwrap();
    let output = tail(&["--no-follow", "--json"], dir.path());
    let (code, answer, complaint) = outcome(&output);
    let more: Vec<bool> = answer.lines().map(|line| line.contains("\"more\":true")).collect();
    assert_eq!((code, &more[..], complaint), (0, &[true, false][..], ""), "{answer}");
}

#[test]
fn changes_of_other_processes_are_printed_until_a_signal_ends_it() {
    for (signal, number) in [("INT", 2), ("TERM", 15)] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("s");
        assert!(kv("log", &dir, &["put", "before", "0"], b"").status.success());
        let mut child = plain_command().arg("tail").args(["--from", "0"]).arg(&dir).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "1\tput\tbefore\t0");
        for round in ["1", "2", "3"] {
            assert!(kv("log", &dir, &["put", "key", round], b"").status.success());
            let line = lines.next().unwrap().unwrap();
            assert!(line.ends_with(&format!("\tput\tkey\t{round}")), "{line}");
        }
        let kill = format!("kill -{signal} {}", child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.signal(), text(&output.stderr)), (Some(number), ""));
        assert!(lines.next().is_none());
    }
}

/// The first signal asks it to end in order, which it cannot while nobody reads its output.
#[test]
fn a_second_signal_ends_it_even_if_its_reader_stalls() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogEngine::open(dir.path(), Options::default()).unwrap();
    for key in 0..2000_u32 {
        store.put(&key.to_le_bytes(), &[b'v'; 1000]).unwrap();
    }
    store.close().unwrap();
    let mut child = plain_command().args(["tail", "--from", "0"]).arg(dir.path()).spawn().unwrap();
    let mut answer = BufReader::new(child.stdout.take().unwrap());
    // It watches for signals by then.
    answer.read_line(&mut String::new()).unwrap();
    let kill = format!("kill -TERM {}", child.id());
    let ended = (0..1000).find_map(|_| {
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        thread::sleep(Duration::from_millis(10));
        child.try_wait().unwrap()
    });
    assert_eq!(ended.and_then(|status| status.signal()), Some(15));
}

#[test]
fn without_following_damage_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 4096, compaction: Arc::new(Never), ..Options::default() };
    let store = LogEngine::open(dir.path(), options).unwrap();
    for key in 0..100_u32 {
        store.put(&key.to_le_bytes(), &[b'v'; 100]).unwrap();
    }
    store.close().unwrap();
    let path = dir.path().join("0000000000000002.segment");
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let output = tail(&["--no-follow"], dir.path());
    let (code, answer, complaint) = outcome(&output);
    assert_eq!(code, 1, "{complaint}");
    assert!(answer.lines().next_back().is_some_and(|line| line.starts_with("100\t")), "{answer}");
    assert!(complaint.contains("is damaged at offset") && complaint.contains("kv repair"), "{complaint}");
}

#[test]
fn a_damaged_end_is_not_printed_and_a_directory_without_a_store_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("s");
    assert!(kv("log", &dir, &["put", "a", "first"], b"").status.success());
    assert!(kv("log", &dir, &["put", "b", "second"], b"").status.success());
    let path = dir.join("0000000000000001.segment");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|part| part == b"second").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    // The newest segment may still be written, so it is not called damaged.
    assert_eq!(outcome(&tail(&["--no-follow"], &dir)), (0, "1\tput\ta\tfirst\n", ""));
    let (missing, other) = (dir.join("missing"), tempfile::tempdir().unwrap());
    for no_store in [&missing, other.path()] {
        let output = tail(&["--no-follow"], no_store);
        let (code, answer, complaint) = outcome(&output);
        assert_eq!((code, answer), (1, ""));
        assert!(complaint.contains("there is no kv-log store here"), "{complaint}");
    }
}
