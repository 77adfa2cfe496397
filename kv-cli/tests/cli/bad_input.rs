//! Bytes that are no text, in every format; directories that do not fit; what a crash has left.

#![allow(clippy::disallowed_methods, reason = "the tests make the files that a crash leaves")]

use crate::run::{feed, kv, outcome, plain_command, text};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Output;

/// A key and values that are not UTF-8.
const KEY: &[u8] = b"k\xff\x80";
const FIRST: &[u8] = b"v\xc3\x28";
const SECOND: &[u8] = b"\xf0\x9f";

/// Runs the command in a directory. The words need not be UTF-8.
fn run(dir: &Path, words: &[&[u8]]) -> Output {
    let mut command = plain_command();
    command.current_dir(dir).args(words.iter().map(|word| OsStr::from_bytes(word)));
    feed(command, b"")
}

/// Its standard output. It must succeed, or find a difference.
fn answer(dir: &Path, words: &[&[u8]], code: i32) -> Vec<u8> {
    let output = run(dir, words);
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A store `s` in a new directory: the key has two values.
fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for value in [FIRST, SECOND] {
        let put = answer(dir.path(), &[b"put", KEY, value, b"--dir", b"s"], 0);
        assert_eq!(put, [KEY, b"\n"].concat());
    }
    dir
}

#[test]
fn bytes_that_are_not_utf_8_pass_through_every_command() {
    let dir = store();
    let of_store = |words: &[&[u8]], code| answer(dir.path(), &[words, &[b"--dir", b"s"]].concat(), code);
    let line = |value: &[u8]| [value, b"\n"].concat();
    assert_eq!(of_store(&[b"get", KEY], 0), line(SECOND));
    assert_eq!(of_store(&[b"get", KEY, b"--at", b"1"], 0), line(FIRST));
    assert_eq!(of_store(&[b"scan", &KEY[..2]], 0), line(&[KEY, b"\t", SECOND].concat()));
    assert_eq!(of_store(&[b"scan", b"--hex"], 0), b"6bff80\tf09f\n");
    assert_eq!(of_store(&[b"bigkeys"], 0), b"5\tk\\xff\\x80\n");
    let history = of_store(&[b"history", KEY], 0);
    let lines: Vec<&str> = text(&history).lines().collect();
    assert!(lines[0].ends_with("\tput\tv\\xc3(") && lines[1].ends_with("\tput\t\\xf0\\x9f"), "{lines:?}");
    let history = of_store(&[b"history", b"--hex", b"6bff80"], 0);
    assert!(text(&history).lines().next().unwrap().ends_with("\tput\t76c328"), "{history:?}");
    let dump = answer(dir.path(), &[b"dump", b"s"], 0);
    assert!(text(&dump).contains("\tput\tk\\xff\\x80\tv\\xc3("), "{}", text(&dump));
    let diff = answer(dir.path(), &[b"diff", b"s", b"--at", b"1"], 1);
    assert_eq!(text(&diff), "- k\\xff\\x80\tv\\xc3(\n+ k\\xff\\x80\t\\xf0\\x9f\n");
    assert_eq!(of_store(&[b"revert", KEY, b"--to", b"1"], 0), line(FIRST));
    for format in ["json", "csv"] {
        let export = of_store(&[b"export", b"--format", format.as_bytes()], 0);
        assert!(text(&export).contains("base64"), "{}", text(&export));
        let copy = dir.path().join(format);
        let imported = kv("log", &copy, &["import", "--format", format], &export);
        assert_eq!(outcome(&imported), (0, "1 pair imported\n", ""));
        assert_eq!(answer(dir.path(), &[b"diff", b"s", format.as_bytes()], 0), b"");
    }
    assert_eq!(of_store(&[b"delete", KEY], 0), line(KEY));
}

#[test]
fn damage_in_a_key_that_is_not_utf_8_is_named_with_escapes() {
    let dir = store();
    let path = dir.path().join("s/0000000000000001.segment");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(SECOND.len()).position(|part| part == SECOND).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
    let found = answer(dir.path(), &[b"verify", b"s"], 1);
    assert!(text(&found).contains("key, perhaps: k\\xff\\x80\n"), "{}", text(&found));
    let found = answer(dir.path(), &[b"verify", b"--json", b"s"], 1);
    assert!(text(&found).contains(r"k\\xff\\x80"), "{}", text(&found));
    let saved = answer(dir.path(), &[b"repair", b"s", b"r"], 0);
    assert!(text(&saved).contains("older: perhaps key k\\xff\\x80: "), "{}", text(&saved));
    assert_eq!(answer(dir.path(), &[b"get", KEY, b"--dir", b"r"], 0), [FIRST, b"\n"].concat());
}

#[test]
fn a_backup_of_a_backup_is_a_backup_and_one_into_itself_is_refused() {
    let dir = store();
    let backup =
        |from: &str, into: &str| run(dir.path(), &[b"backup", into.as_bytes(), b"--dir", from.as_bytes()]);
    for (from, into) in [("s", "b1"), ("b1", "b2")] {
        let output = backup(from, into);
        assert_eq!(output.status.code(), Some(0), "{}", outcome(&output).2);
    }
    assert!(text(&answer(dir.path(), &[b"verify", b"b2"], 0)).contains("b2: sound; "));
    assert_eq!(answer(dir.path(), &[b"diff", b"s", b"b2"], 0), b"");
    answer(dir.path(), &[b"restore", b"b2", b"r", b"--to", b"1"], 0);
    assert_eq!(answer(dir.path(), &[b"get", KEY, b"--dir", b"r"], 0), [FIRST, b"\n"].concat());
    let output = run(dir.path(), &[b"put", b"a", b"1", b"--dir", b"b2"]);
    assert!(output.status.code() == Some(1) && outcome(&output).2.contains("the mark of a backup"));
    for into in ["b1", "./b1", "s/../b1"] {
        let output = backup("b1", into);
        let (code, _, complaint) = outcome(&output);
        assert!(code == 2 && complaint.contains("name another directory"), "{complaint}");
    }
}

#[test]
fn no_command_takes_an_unfinished_restore_for_a_store() {
    let dir = store();
    answer(dir.path(), &[b"restore", b"s", b"r", b"--to", b"1"], 0);
    // As after a crash before the manifest.
    fs::write(dir.path().join("r/RESTORE"), "").unwrap();
    fs::remove_file(dir.path().join("r/MANIFEST")).unwrap();
    for words in [
        [b"get".as_slice(), KEY, b"--dir", b"r"].as_slice(),
        &[b"put", KEY, b"1", b"--dir", b"r"],
        &[b"export", b"--dir", b"r"],
        &[b"history", KEY, b"--dir", b"r"],
        &[b"backup", b"b", b"--dir", b"r"],
        &[b"restore", b"r", b"r2", b"--to", b"1"],
        &[b"repair", b"r", b"r2"],
        &[b"verify", b"r"],
        &[b"inspect", b"r"],
        &[b"dump", b"r"],
        &[b"diff", b"s", b"r"],
        &[b"copy", b"r", b"c"],
    ] {
        let output = run(dir.path(), words);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_ne!(output.status.code(), Some(0), "{complaint}");
        assert!(complaint.contains("the mark of a restore that did not finish"), "{complaint}");
    }
    let output = run(dir.path(), &[b"restore", b"s", b"r", b"--to", b"1"]);
    let (code, _, complaint) = outcome(&output);
    assert!(code == 2 && complaint.contains("is not empty"), "{complaint}");
}
