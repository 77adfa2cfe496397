//! Warnings of an opening.

#![allow(clippy::disallowed_methods, reason = "the test looks into shared memory")]

use crate::run::{command, kv, outcome, plain_command};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The objects in shared memory of the store in `dir`.
fn tails(dir: &Path) -> Vec<PathBuf> {
    let listed = plain_command().args(["tails", "--json"]).output().unwrap();
    let lines = outcome(&listed).1.lines();
    let objects = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    objects
        .filter(|object| object["store"].as_str() == dir.to_str())
        .map(|object| Path::new("/dev/shm").join(object["name"].as_str().unwrap()))
        .collect()
}

#[test]
fn a_tail_that_does_not_fit_is_told_on_standard_error() {
    if !Path::new("/dev/shm").is_dir() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let mut shell = command("log", &dir, &["shell", "--durability", "manual"]).spawn().unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    stdin.write_all(b"put k 1\n").unwrap();
    assert_eq!(BufReader::new(shell.stdout.take().unwrap()).lines().take(1).count(), 1);
    shell.kill().unwrap();
    shell.wait().unwrap();
    let objects: Vec<(PathBuf, Vec<u8>)> =
        tails(&dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    assert!(!objects.is_empty());
    assert_eq!(outcome(&kv("log", &dir, &["put", "k", "2"], b"")), (0, "k\n", ""));
    // The put was another opening, so they do not fit the store now.
    for (path, bytes) in &objects {
        let mut object = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
        object.write_all(bytes).unwrap();
    }
    for (words, answer) in [(&["get", "k"][..], "2\n"), (&["put", "k", "3"], "k\n")] {
        let output = kv("log", &dir, words, b"");
        let (code, found, complaint) = outcome(&output);
        assert_eq!((code, found), (0, answer), "{words:?}");
        let warnings: Vec<&str> = complaint.lines().collect();
        assert!(!warnings.is_empty() && warnings.len() <= objects.len(), "{complaint}");
        for warning in warnings {
            assert!(
                warning.starts_with("kv: warning: /dev/shm/")
                    && warning.ends_with(" is ignored: it is of an earlier opening of the store"),
                "{warning}"
            );
        }
    }
    // The last put removed them.
    assert_eq!(outcome(&kv("log", &dir, &["get", "k"], b"")), (0, "3\n", ""));
}
