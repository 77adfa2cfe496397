//! Standard output that fails or closes.

use crate::run::{ENGINES, command, kv, outcome, text};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Output};

/// Runs the command with an output device that is full.
#[expect(clippy::disallowed_methods, reason = "the device is no file of a store")]
fn onto_full_device(engine: &str, dir: &Path, words: &[&str], input: &[u8]) -> Output {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child = command(engine, dir, words).stdout(full).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Starts the command with an output pipe that no process reads.
fn onto_closed_pipe(engine: &str, dir: &Path, words: &[&str]) -> Child {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command(engine, dir, words).stdout(writer).spawn().unwrap()
}

#[test]
fn a_durable_change_without_an_answer_has_its_own_exit_code() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let output = onto_full_device(engine, dir.path(), &["put", "k", "v"], b"");
        let (code, _, complaint) = outcome(&output);
        assert_eq!(code, 3);
        let expected =
            "kv: the change is durable, but the answer could not be written to standard output: No space";
        assert!(complaint.starts_with(expected), "{complaint}");
        assert_eq!(outcome(&kv(engine, dir.path(), &["get", "k"], b"")), (0, "v\n", ""));

        let output = onto_full_device(engine, dir.path(), &["delete", "k"], b"");
        let (code, _, complaint) = outcome(&output);
        assert!(code == 3 && complaint.starts_with("kv: the change is durable, but"), "{complaint}");
        assert_eq!(kv(engine, dir.path(), &["get", "k"], b"").status.code(), Some(1));

        let child = onto_closed_pipe(engine, dir.path(), &["put", "k", "v"]);
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(3));
    }
}

#[test]
fn a_compaction_without_an_answer_has_the_same_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    assert!(kv("log", dir.path(), &["put", "k", "v"], b"").status.success());
    let output = onto_full_device("log", dir.path(), &["compact"], b"");
    let (code, _, complaint) = outcome(&output);
    assert!(code == 3 && complaint.starts_with("kv: the compaction is done, but"), "{complaint}");
}

#[test]
fn a_shell_without_output_says_what_is_durable() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let words = ["--durability", "manual", "shell"];
        let output = onto_full_device(engine, dir.path(), &words, b"put k v\n");
        let (code, _, complaint) = outcome(&output);
        assert_eq!(code, 3);
        let expected = "kv: every change up to here is durable, but the answer could not be written";
        assert!(complaint.starts_with(expected), "{complaint}");
        assert_eq!(outcome(&kv(engine, dir.path(), &["get", "k"], b"")), (0, "v\n", ""));
    }
}

#[test]
fn commands_that_read_fail_on_a_full_device_and_end_quietly_on_a_closed_pipe() {
    // Longer than the buffers of the output.
    let value = "v".repeat(30_000);
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        assert!(kv(engine, dir.path(), &["put", "k", &value], b"").status.success());
        let exports = ["json", "csv", "resp"].map(|format| ["export", "--format", format]);
        let others = [&["get", "k"][..], &["stats"], &["scan"]];
        for words in others.into_iter().chain(exports.iter().map(<[_; 3]>::as_slice)) {
            let output = onto_full_device(engine, dir.path(), words, b"");
            let (code, _, complaint) = outcome(&output);
            assert!(
                code == 1 && complaint.starts_with("kv: cannot write to standard output: "),
                "{complaint}"
            );
            let output = onto_closed_pipe(engine, dir.path(), words).wait_with_output().unwrap();
            assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{words:?}");
        }
        // No change, and no answer.
        let output = onto_full_device(engine, dir.path(), &["delete", "absent"], b"");
        let (code, _, complaint) = outcome(&output);
        assert!(code == 1 && complaint.starts_with("kv: cannot write to standard output: "), "{complaint}");
    }
}
