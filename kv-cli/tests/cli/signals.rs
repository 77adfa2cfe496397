//! Signals to a shell, and to a restore.

use crate::run::{ENGINES, command, kv, outcome, plain_command, text};
use kv_naive::{Engine, Manual, NaiveEngine, OpenOptions};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

const MANUAL_SHELL: [&str; 3] = ["shell", "--durability", "manual"];
/// Names, and the numbers that they have on every Unix.
const SIGNALS: [(&str, i32); 2] = [("INT", 2), ("TERM", 15)];

fn send(signal: &str, child: &Child) {
    let kill = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// Whether a running child ignores the signal with this number. If the tests themselves run where
/// it is ignored (under nohup, or in the background of a script), a child cannot undo that.
fn ignores(child: &Child, signal: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    ignored >> (signal - 1) & 1 == 1
}

/// The value of `keys` in the figures of the store.
fn keys(engine: &str, dir: &Path) -> String {
    let output = kv(engine, dir, &["shell"], b"statistic\n");
    text(&output.stdout).split(' ').next().unwrap().to_owned()
}

/// A shell of every engine, for every signal, in a directory of its own.
fn with_shells(check: impl Fn(&str, &Path, (&str, i32), Child)) {
    for engine in ENGINES {
        for signal in SIGNALS {
            let dir = tempfile::tempdir().unwrap();
            let child = command(engine, dir.path(), &MANUAL_SHELL).spawn().unwrap();
            check(engine, dir.path(), signal, child);
        }
    }
}

#[test]
fn a_signal_makes_every_answered_change_durable() {
    with_shells(|engine, dir, (signal, number), mut child| {
        let mut stdin = child.stdin.take().unwrap();
        let writer = thread::spawn(move || {
            for key in 0..50_000 {
                writeln!(stdin, "put key{key} value").unwrap();
            }
            stdin
        });
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(answers.take(50_000).last().unwrap().unwrap(), "key49999");
        // The input stays open.
        let _stdin = writer.join().unwrap();
        send(signal, &child);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.signal(), text(&output.stderr)), (Some(number), ""), "{engine}");
        assert_eq!(keys(engine, dir), "keys=50000", "{engine} {signal}");
    });
}

#[test]
fn a_signal_amid_changes_loses_none_that_was_answered() {
    with_shells(|engine, dir, (signal, number), mut child| {
        let mut stdin = child.stdin.take().unwrap();
        // Writes until the shell has ended.
        let writer = thread::spawn(move || {
            (0..u64::MAX).take_while(|key| writeln!(stdin, "put key{key} value").is_ok()).count()
        });
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut answered = String::new();
        for _ in 0..1_000 {
            answers.read_line(&mut answered).unwrap();
        }
        send(signal, &child);
        // A second signal while the shell may be closing the store.
        send(signal, &child);
        answers.read_to_string(&mut answered).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(number), "{engine}");
        writer.join().unwrap();
        let whole = answered.rsplit_once('\n').unwrap().0;
        let answered = whole.lines().filter(|answer| !answer.starts_with("ERROR")).count();
        let stored: usize = keys(engine, dir).strip_prefix("keys=").unwrap().parse().unwrap();
        assert!(answered >= 1_000 && stored >= answered, "{engine}: {answered} answered, {stored} stored");
    });
}

#[test]
fn the_exit_code_tells_that_closing_failed() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let mut child = command(engine, &store, &MANUAL_SHELL).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"put k v\n").unwrap();
        let mut answer = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut answer).unwrap();
        std::fs::remove_dir_all(&store).unwrap();
        send("TERM", &child);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{engine}");
        assert!(text(&output.stderr).starts_with("kv: "), "{engine}: {}", text(&output.stderr));
    }
}

/// A shell under `sh`, which runs `before` first.
fn shell_after(before: &str, dir: &Path) -> Child {
    let kv = plain_command();
    let mut sh = Command::new("sh");
    sh.args(["-c", &format!("{before}; exec \"$@\"")]).arg0("sh").arg("sh").arg(kv.get_program());
    sh.args(MANUAL_SHELL).arg("--dir").arg(dir);
    sh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_hang_up_ends_a_shell_unless_nohup_ignores_it() {
    for (before, ends) in [("trap - HUP", true), ("trap '' HUP", false)] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = shell_after(before, dir.path());
        let mut stdin = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        stdin.write_all(b"put k v\n").unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        if ends && ignores(&child, 1) {
            continue;
        }
        send("HUP", &child);
        if ends {
            assert_eq!(child.wait().unwrap().signal(), Some(1));
        } else {
            stdin.write_all(b"get k\n").unwrap();
            answers.read_line(&mut answer).unwrap();
            assert_eq!(answer, "k\nv\n");
            drop(stdin);
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
        assert_eq!(keys("log", dir.path()), "keys=1");
    }
}

#[test]
fn a_signal_ends_a_restore_of_the_naive_engine_and_leaves_the_mark() {
    let dir = tempfile::tempdir().unwrap();
    let [store, restored] = ["s", "r"].map(|name| dir.path().join(name));
    let options = OpenOptions { persistence: Arc::new(Manual), ..OpenOptions::default() };
    let engine = NaiveEngine::open(&store, options).unwrap();
    for key in 0..64_u8 {
        engine.put(&[key], &vec![key; 1 << 20]).unwrap();
    }
    engine.close().unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let mut restore = plain_command();
        restore.arg("restore").args([&store, &restored]).args(["--to", "64"]);
        let mut child = restore.spawn().unwrap();
        while !restored.join("SNAPSHOT.tmp").exists() {
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
        }
        // At once: the snapshot is soon whole.
        kill_process(Pid::from_child(&child), signal).unwrap();
        let is_ignored = ignores(&child, signal.as_raw());
        let ended = child.wait().unwrap();
        if is_ignored {
            assert!(ended.success(), "{ended}");
            std::fs::remove_dir_all(&restored).unwrap();
            continue;
        }
        assert_eq!(ended.signal(), Some(signal.as_raw()));
        let output = kv("naive", &restored, &["get", "k"], b"");
        let (code, _, complaint) = outcome(&output);
        assert!(code == 1 && complaint.contains("a restore into it was not finished"), "{complaint}");
        std::fs::remove_dir_all(&restored).unwrap();
    }
}
