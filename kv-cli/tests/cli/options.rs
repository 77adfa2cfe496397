//! Options and arguments.

use crate::run::{ENGINES, feed, kv, outcome, plain_command};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

#[test]
fn options_stand_before_or_after_the_command() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().to_str().unwrap();
        let all = ["--engine", engine, "--dir", dir, "--hex", "--durability", "always"];
        for (before, after) in
            [(&all[..], &[][..]), (&[], &all), (&all[..2], &all[2..]), (&all[4..], &all[..4])]
        {
            let mut command = plain_command();
            command.args(before).args(["put", "61", "62"]).args(after);
            assert_eq!(outcome(&feed(command, b"")), (0, "61\n", ""), "{before:?} {after:?}");
            let mut command = plain_command();
            command.args(before).arg("shell").args(after);
            assert_eq!(outcome(&feed(command, b"get 61\n")), (0, "62\n", ""), "{before:?} {after:?}");
        }
    }
}

#[test]
fn a_missing_directory_option_is_told() {
    let mut command = plain_command();
    command.args(["get", "k"]);
    let output = feed(command, b"");
    let (code, answer, complaint) = outcome(&output);
    assert_eq!((code, answer), (2, ""));
    assert!(complaint.contains("--dir DIR"), "{complaint}");
}

#[test]
fn arguments_are_any_bytes() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let run = |words: &[&[u8]]| {
            let mut command = plain_command();
            command.args(["--engine", engine, "--dir"]).arg(dir.path());
            command.args(words.iter().map(|word| OsStr::from_bytes(word)));
            let output = feed(command, b"");
            (output.status.code().unwrap(), output.stdout)
        };
        assert_eq!(run(&[b"put", b"k\xff", b"v\xfe\x80"]), (0, b"k\xff\n".to_vec()));
        assert_eq!(run(&[b"get", b"k\xff"]), (0, b"v\xfe\x80\n".to_vec()));
        assert_eq!(run(&[b"--hex", b"get", b"6bff"]), (0, b"76fe80\n".to_vec()));
        assert_eq!(run(&[b"--hex", b"get", b"\xff\xff"]).0, 2);
        assert_eq!(run(&[b"delete", b"k\xff"]), (0, b"k\xff\n".to_vec()));
        assert_eq!(kv(engine, dir.path(), &["get", "k"], b"").status.code(), Some(1));
    }
}
