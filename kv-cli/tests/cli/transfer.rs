//! `kv export`, `kv import` and `kv copy`.

#![allow(clippy::disallowed_methods, reason = "the tests look for files that a copy leaves")]

use crate::run::{ENGINES, command, feed, kv, outcome, plain_command, text};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

/// Puts pairs of every kind: text, separators, bytes that are not UTF-8, empty ones.
fn fill(engine: &str, dir: &Path) {
    let lines = b"put 61 31\nput 2c22 0a0d0922\nput ff00 fe\nput c3bc c3bc\nput 65 \nput 66 ff\n";
    assert!(kv(engine, dir, &["shell", "--hex"], lines).status.success());
}

fn scan(engine: &str, dir: &Path) -> BTreeSet<String> {
    let output = kv(engine, dir, &["scan", "--hex"], b"");
    assert!(output.status.success());
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn exports_of_any_bytes_come_back_whole() {
    for (engine, other) in [("log", "naive"), ("naive", "log")] {
        for format in ["json", "csv", "resp"] {
            let dir = tempfile::tempdir().unwrap();
            let (from, to) = (dir.path().join("from"), dir.path().join("to"));
            fill(engine, &from);
            let output = kv(engine, &from, &["export", "--format", format], b"");
            assert!(output.status.success());
            assert_eq!(std::str::from_utf8(&output.stdout).is_ok(), format != "resp");
            let imported = kv(other, &to, &["import", "--format", format], &output.stdout);
            assert_eq!(outcome(&imported), (0, "6 pairs imported\n", ""), "{format}");
            assert_eq!(scan(other, &to), scan(engine, &from), "{format}");
            let part = kv(engine, &from, &["export", "--format", format, "a"], b"");
            assert!(text(&part.stdout).ends_with(match format {
                "json" => "{\"end\":{\"pairs\":1}}\n",
                "csv" => "1,,end\n",
                _ => "\r\nend 1\r\n",
            }));
        }
    }
}

#[test]
fn the_formats_are_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    kv("log", dir.path(), &["shell", "--hex"], b"put 61 31\n");
    let export =
        |format| text(&kv("log", dir.path(), &["export", "--format", format], b"").stdout).to_owned();
    assert_eq!(export("json"), "{\"key\":\"a\",\"value\":\"1\"}\n{\"end\":{\"pairs\":1}}\n");
    assert_eq!(export("csv"), "key,value,encoding\na,1,\n1,,end\n");
    kv("log", dir.path(), &["shell", "--hex"], b"put 61 ff\n");
    assert_eq!(export("json"), "{\"key\":\"a\",\"value\":{\"base64\":\"/w==\"}}\n{\"end\":{\"pairs\":1}}\n");
    assert_eq!(export("csv"), "key,value,encoding\nYQ==,/w==,base64\n1,,end\n");
}

/// Every cut of an export is noticed. What was taken is in the store.
#[test]
fn an_export_that_is_cut_anywhere_is_an_error() {
    for format in ["json", "csv", "resp"] {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        kv("log", &from, &["shell"], b"put a 1\nput b 22\nput c 333\n");
        let whole = kv("log", &from, &["export", "--format", format], b"").stdout;
        for cut in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
            let to = dir.path().join(format!("{format}{cut}"));
            let output = kv("naive", &to, &["import", "--format", format], &whole[..cut]);
            let (code, answer, complaint) = outcome(&output);
            assert_eq!((code, answer), (1, ""), "{format} cut at {cut}");
            assert!(
                complaint.starts_with(if format == "resp" { "kv: command " } else { "kv: line " }),
                "{complaint}"
            );
            let taken = scan("naive", &to).len();
            assert!(complaint.contains(&format!("; pairs stored before: {taken}\n")), "{complaint}");
        }
    }
}

#[test]
fn an_import_names_the_line_and_keeps_the_pairs_before() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let long = "k".repeat(65);
        for (fault, input) in [
            (
                "line 3: this is not JSON",
                "{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"b\",\"value\":\"2\"}\nx\n".to_owned(),
            ),
            (
                "line 2: the end line has no number",
                "{\"key\":\"a\",\"value\":\"1\"}\n{\"end\":1}\n".to_owned(),
            ),
            (
                "line 2: the export had 2 pairs, and this input has 1",
                "{\"key\":\"a\",\"value\":\"1\"}\n{\"end\":{\"pairs\":2}}\n".to_owned(),
            ),
            (
                "line 2: the input goes on behind",
                "{\"end\":{\"pairs\":0}}\n{\"end\":{\"pairs\":0}}\n".to_owned(),
            ),
            (
                "the key is 65 bytes long",
                format!("{{\"key\":\"a\",\"value\":\"1\"}}\n{{\"key\":\"{long}\",\"value\":\"2\"}}\n"),
            ),
        ] {
            let output = kv(engine, dir.path(), &["import", "--no-end"], input.as_bytes());
            let (code, _, complaint) = outcome(&output);
            assert!(code == 1 && complaint.contains(fault), "{fault}: {complaint}");
        }
        assert_eq!(scan(engine, dir.path()).len(), 2);
        let output = kv(engine, dir.path(), &["import", "--no-end"], b"{\"key\":\"z\",\"value\":\"1\"}\n");
        assert_eq!(outcome(&output), (0, "1 pair imported\n", ""));
        let output = kv(engine, dir.path(), &["import", "--no-end", "--format", "csv"], b"y,1\nx,2\n");
        assert_eq!(outcome(&output), (0, "2 pairs imported\n", ""));
    }
}

#[test]
fn a_signal_ends_an_import_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command("log", dir.path(), &["import"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for key in 0..50_000 {
        writeln!(stdin, "{{\"key\":\"key{key}\",\"value\":\"{}\"}}", "v".repeat(100)).unwrap();
    }
    // The input stays open. The import waits for more.
    std::thread::sleep(Duration::from_millis(200));
    let status = std::process::Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(status.unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2));
    let stored = scan("log", dir.path()).len();
    assert!(stored > 10_000, "{stored}");
}

/// Damage to one record of a batch costs the whole batch.
#[test]
fn every_imported_and_copied_pair_is_a_change_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (store, copied) = (dir.path().join("s"), dir.path().join("c"));
    let lines: Vec<String> = (0..20).map(|key| format!("k{key},v\n")).collect();
    kv("log", &store, &["import", "--no-end", "--format", "csv"], lines.concat().as_bytes());
    assert!(copy("log", &store, &copied).status.success());
    for dir in [store, copied] {
        let dump = kv("log", &dir, &["dump", "--lsn", "1..20"], b"");
        let lsns: Vec<&str> =
            text(&dump.stdout).lines().map(|line| line.split('\t').nth(2).unwrap()).collect();
        assert_eq!(lsns, (1..=20).map(|lsn| lsn.to_string()).collect::<Vec<_>>());
    }
}

fn copy(engine: &str, from: &Path, to: &Path) -> Output {
    let mut command = plain_command();
    command.args(["copy", "--engine", engine]).arg(from).arg(to);
    feed(command, b"")
}

#[test]
fn a_copy_goes_between_engines() {
    for from_engine in ENGINES {
        for to_engine in ENGINES {
            let dir = tempfile::tempdir().unwrap();
            let (from, to) = (dir.path().join("from"), dir.path().join("to"));
            fill(from_engine, &from);
            fs::create_dir(&to).unwrap();
            assert_eq!(outcome(&copy(to_engine, &from, &to)), (0, "6 pairs copied\n", ""));
            assert_eq!(scan(to_engine, &to), scan(from_engine, &from));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
            let output = copy(to_engine, &from, &to);
            let (code, _, complaint) = outcome(&output);
            assert!(code == 2 && complaint.contains("is not empty"), "{complaint}");
        }
    }
}

#[test]
fn a_copy_that_fails_leaves_nothing_and_one_that_died_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let output = copy("naive", &from, &to);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("is not a store"));
    let long = "k".repeat(65);
    kv("log", &from, &["put", "--key-len-max", "65", &long, "1"], b"");
    let output = copy("naive", &from, &to);
    assert!(
        output.status.code() == Some(1) && text(&output.stderr).contains("--key-len-max BYTES raises it")
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    fs::create_dir(dir.path().join("to.partial")).unwrap();
    let output = copy("naive", &from, &to);
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("a copy that did not finish"));
}

#[test]
fn a_signal_ends_a_copy_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let mut input = Vec::new();
    for key in 0..200_000 {
        writeln!(input, "put key{key} {key}").unwrap();
    }
    assert!(kv("log", &from, &["shell"], &input).status.success());
    let mut command = plain_command();
    command.arg("copy").arg(&from).arg(&to);
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while !dir.path().join("to.partial").join("MANIFEST").exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let kill = format!("kill -INT {}", child.id());
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let status = child.wait().unwrap();
    let left = fs::read_dir(dir.path()).unwrap().count();
    // A fast copy may have ended before.
    match std::os::unix::process::ExitStatusExt::signal(&status) {
        Some(2) => assert_eq!(left, 1),
        _ => assert!(status.success() && left == 2, "{status:?}"),
    }
}

/// A line of JSON is a row of CSV as well, so without this the wrong format would store nonsense.
#[test]
fn an_export_in_csv_begins_with_its_header() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let lines = b"{\"key\":\"a\",\"value\":\"1\"}\n{\"end\":{\"pairs\":1}}\n";
        let output = kv(engine, dir.path(), &["import", "--format", "csv"], lines);
        let expected = "kv: line 1: an export in CSV begins with key,value,encoding; choose another --format, or add \
                        --no-end for the rows of another tool; pairs stored before: 0\n";
        assert_eq!(outcome(&output), (1, "", expected));
        let output = kv(engine, dir.path(), &["import", "--format", "csv", "--no-end"], b"a,1\n");
        assert_eq!(outcome(&output), (0, "1 pair imported\n", ""));
    }
}

/// The input stays open: an answer must not wait for the end of what is too long.
#[test]
fn an_import_ends_once_its_input_is_longer_than_any_pair() {
    let inputs = [
        ("json", "{\"key\":\"a\",\"value\":\"", "line 1: the line is longer than 6316 bytes"),
        ("csv", "key,value,encoding\na,\"", "line 2: the row is longer than 6316 bytes"),
        ("resp", "*3\r\n$", "command 1: "),
        ("resp", "*", "command 1: "),
    ];
    for (format, start, fault) in inputs {
        let dir = tempfile::tempdir().unwrap();
        let words = ["--key-len-max=10", "--value-len-max=1000", "import", "--format", format];
        let mut child = command("log", &dir.path().join("s"), &words).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // The command may end meanwhile, and close the pipe.
        let _ = stdin.write_all(format!("{start}{}", "1".repeat(100_000)).as_bytes());
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(10));
        }
        let has_ended = child.try_wait().unwrap().is_some();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let (code, answer, complaint) = outcome(&output);
        assert!(has_ended, "{format}: {complaint}");
        assert_eq!((code, answer), (1, ""), "{format}");
        assert!(complaint.contains(fault), "{format}: {complaint}");
    }
}
