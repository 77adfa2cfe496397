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

#[test]
fn options_raise_the_limits_of_keys_and_values() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let (long_key, long_value) = ("k".repeat(65), "v".repeat(2 << 20));
        let put = format!("put {long_key} 1\n");
        for words in [&["put", &long_key, "1"][..], &["get", &long_key], &["delete", &long_key]] {
            kv(engine, dir.path(), &["put", "k", "v"], b"");
            let output = kv(engine, dir.path(), words, b"");
            let (code, _, complaint) = outcome(&output);
            assert!(code == 1 && complaint.contains("65 bytes long, the limit is 64"), "{complaint}");
            assert!(complaint.contains("--key-len-max BYTES raises it"), "{complaint}");
        }
        let output = kv(engine, dir.path(), &["shell"], put.as_bytes());
        let (_, answer, _) = outcome(&output);
        assert!(answer.starts_with("ERROR") && answer.contains("--key-len-max"), "{answer}");
        let output = kv(engine, dir.path(), &["--value-len-max", "3", "put", "k", "1234"], b"");
        let (code, _, complaint) = outcome(&output);
        assert!(code == 1 && complaint.contains("--value-len-max BYTES raises it"), "{complaint}");

        let output = kv(engine, dir.path(), &["put", "--key-len-max", "65", &long_key, "1"], b"");
        assert_eq!(outcome(&output), (0, format!("{long_key}\n").as_str(), ""));
        let input = format!("put v {long_value}\nget {long_key}\n");
        let words = ["shell", "--key-len-max=65535", "--value-len-max=20000000"];
        let output = kv(engine, dir.path(), &words, input.as_bytes());
        assert_eq!(outcome(&output), (0, "v\n1\n", ""));
        // The store opens, and old values are read, under smaller limits.
        let output = kv(engine, dir.path(), &["get", "v"], b"");
        assert_eq!(outcome(&output), (0, format!("{long_value}\n").as_str(), ""));
    }
}

#[test]
fn limits_beyond_the_engine_are_wrong_usage() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        for wrong in ["--key-len-max=65536", "--value-len-max=4294967296", "--key-len-max=-1"] {
            let output = kv(engine, &dir.path().join("s"), &["put", wrong, "k", "v"], b"");
            let (code, answer, complaint) = outcome(&output);
            assert_eq!((code, answer), (2, ""), "{complaint}");
            assert!(complaint.contains("-len-max"), "{complaint}");
            assert!(!dir.path().join("s").exists());
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let output = kv("log", dir.path(), &["put", "--value-len-max=1000000000", "k", "v"], b"");
    let (code, _, complaint) = outcome(&output);
    assert!(code == 2 && complaint.contains("lower --key-len-max or --value-len-max"), "{complaint}");
}

#[test]
fn commands_without_other_words_take_the_directory_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("s");
    assert_eq!(outcome(&kv("log", &store, &["put", "k", "v"], b"")), (0, "k\n", ""));
    let run = |words: &[&str]| {
        let mut command = plain_command();
        command.current_dir(dir.path()).args(words);
        feed(command, b"")
    };
    for words in [
        ["points", "s"].as_slice(),
        &["plan", "s", "--to", "1"],
        &["stats", "s"],
        &["compact", "s"],
        &["checkpoint", "s"],
        &["backup", "s", "b"],
        &["inspect", "s"],
        &["dump", "s"],
        &["verify", "s"],
    ] {
        let output = run(words);
        let (code, answer, complaint) = outcome(&output);
        assert!((code, complaint) == (0, "") && !answer.is_empty(), "{words:?}: {complaint}");
        let output = run(&[words, &["--dir", "s"]].concat());
        let (code, _, complaint) = outcome(&output);
        assert!(code == 2 && complaint.contains("the directory is given twice"), "{words:?}: {complaint}");
    }
    let output = run(&["backup", "b2", "--dir", "s"]);
    let (code, answer, _) = outcome(&output);
    assert!(code == 0 && answer.starts_with("b2: LSN 1, "), "{answer}");
    let output = run(&["backup", "b3"]);
    let (code, _, complaint) = outcome(&output);
    assert!(code == 2 && complaint.contains("no directory is given"), "{complaint}");
}
