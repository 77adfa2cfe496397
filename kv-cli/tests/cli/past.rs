//! The commands for past states, and for backups.

#![allow(clippy::disallowed_methods, reason = "the tests damage the files of a store")]

use crate::run::{command, feed, kv, outcome, plain_command};
use kv_naive::{Engine, EngineExt, KeepPast, NaiveEngine, OpenOptions, PointInTime};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Runs the command on the store `s` of a directory.
fn run(dir: &Path, words: &[&str]) -> Output {
    kv("log", &dir.join("s"), words, b"")
}

/// Its standard output. It must succeed.
fn answer(dir: &Path, words: &[&str]) -> String {
    let output = run(dir, words);
    let (code, answer, complaint) = outcome(&output);
    assert_eq!((code, complaint), (0, ""), "{words:?}");
    answer.to_owned()
}

fn restore(dir: &Path, to: &str) -> Output {
    let mut command = plain_command();
    command.current_dir(dir).args(["restore", "s", "r", "--to", to]);
    feed(command, b"")
}

/// A store in which `b` was deleted by mistake.
fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let lines = b"put a 1\nput b 2\nput a 3\n";
    assert!(kv("log", &dir.path().join("s"), &["shell"], lines).status.success());
    // The marks of the log have times of different milliseconds.
    thread::sleep(Duration::from_millis(20));
    assert!(run(dir.path(), &["delete", "b"]).status.success());
    dir
}

/// The columns of a line.
fn columns(line: &str) -> Vec<&str> {
    line.split('\t').collect()
}

#[test]
fn a_mistake_is_found_in_the_history_and_undone_by_lsn_and_by_time() {
    let dir = store();
    let history = answer(dir.path(), &["history", "b"]);
    let lines: Vec<Vec<&str>> = history.lines().map(columns).collect();
    let [put, delete] = lines.as_slice() else { panic!("{history}") };
    assert_eq!((put[0], put[2], put[3]), ("2", "put", "2"));
    assert_eq!((delete[2], delete[3]), ("delete", ""));
    // The time of the put's mark: the delete came later.
    for to in [put[0], "3", put[1]] {
        let output = restore(dir.path(), to);
        let (code, answer, complaint) = outcome(&output);
        assert_eq!((code, complaint), (0, ""), "{to}");
        assert!(answer.starts_with("r: LSN "), "{answer}");
        let found = kv("log", &dir.path().join("r"), &["get", "b"], b"");
        assert_eq!(outcome(&found), (0, "2\n", ""), "{to}");
        fs::remove_dir_all(dir.path().join("r")).unwrap();
    }
    assert_eq!(answer(dir.path(), &["get", "a", "--at", "1"]), "1\n");
    assert_eq!(answer(dir.path(), &["revert", "b", "--to", "3"]), "2\n");
    assert_eq!(answer(dir.path(), &["get", "b"]), "2\n");
    assert_eq!(answer(dir.path(), &["revert", "b", "--to", "1"]), "NULL\n");
    assert_eq!(outcome(&run(dir.path(), &["get", "b"])), (1, "NULL\n", ""));
    assert_eq!(outcome(&run(dir.path(), &["history", "absent"])), (1, "NULL\n", ""));
}

#[test]
fn past_states_that_lie_in_the_log_alone_survive_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let lines = b"put a 1\nput b 2\ndelete a\ndelete b\n";
    assert!(kv("log", &dir.path().join("s"), &["shell"], lines).status.success());
    assert_eq!(answer(dir.path(), &["revert", "a", "--to", "2"]), "1\n");
    assert!(run(dir.path(), &["compact"]).status.success());
    // The default policy of an application keeps nothing. A command does not know that.
    let stats = answer(dir.path(), &["stats"]);
    let kept = stats.lines().find_map(|line| line.strip_prefix("past_bytes ")).unwrap();
    assert!(kept.trim().parse::<u64>().unwrap() > 0, "{stats}");
    assert!(run(dir.path(), &["put", "c", "3"]).status.success());
    assert_eq!(answer(dir.path(), &["revert", "b", "--to", "2"]), "2\n");
    assert_eq!(answer(dir.path(), &["get", "b", "--at", "2"]), "2\n");
}

#[test]
fn a_past_state_is_compared_with_the_present_and_with_another_store() {
    let dir = store();
    let diff = |words: &[&str]| {
        let mut command = plain_command();
        command.current_dir(dir.path()).arg("diff").args(words);
        feed(command, b"")
    };
    let output = diff(&["s", "--at", "2"]);
    let (code, answer, _) = outcome(&output);
    let mut lines: Vec<&str> = answer.lines().collect();
    lines.sort_unstable();
    assert_eq!((code, lines), (1, vec!["+ a\t3", "- a\t1", "- b\t2"]));
    assert_eq!(restore(dir.path(), "2").status.code(), Some(0));
    assert_eq!(outcome(&diff(&["s", "r", "--at", "2"])), (0, "", ""));
    let output = diff(&["s"]);
    let (code, _, complaint) = outcome(&output);
    assert!(code == 2 && complaint.contains("DIR2"), "{complaint}");
}

#[test]
fn a_point_keeps_its_state_through_other_commands() {
    let dir = store();
    let pinned = answer(dir.path(), &["pin", "before", "--at", "2"]);
    assert!(pinned.starts_with("before\t2\t") && pinned.ends_with("\texpires never\n"), "{pinned}");
    for number in 0..50 {
        answer(dir.path(), &["put", "a", &number.to_string()]);
    }
    answer(dir.path(), &["compact"]);
    answer(dir.path(), &["put", "a", "last"]);
    assert_eq!(answer(dir.path(), &["get", "b", "--at", "before"]), "2\n");
    assert_eq!(answer(dir.path(), &["get", "b", "--at", "point:before"]), "2\n");
    let points = answer(dir.path(), &["points"]);
    assert!(points.starts_with("past states: from LSN ") && points.contains("\nbefore\t2\t"), "{points}");
    let again = run(dir.path(), &["pin", "before"]);
    let complaint = "kv: there is a point \"before\"; choose another name, or remove that point\n";
    assert_eq!(outcome(&again), (2, "", complaint));
    assert_eq!(answer(dir.path(), &["unpin", "before"]), "before\n");
    assert_eq!(outcome(&run(dir.path(), &["unpin", "before"])), (1, "NULL\n", ""));
    let expiring = answer(dir.path(), &["pin", "soon", "--expires", "2100-01-01T00:00:00+01:00"]);
    assert!(expiring.ends_with("\texpires 2099-12-31T23:00:00.000Z\n"), "{expiring}");
    let expired = run(dir.path(), &["pin", "late", "--expires", "2020-01-01T00:00:00Z"]);
    let complaint =
        "kv: 2020-01-01T00:00:00.000Z is over, so the point would be gone at once; name a later time\n";
    assert_eq!(outcome(&expired), (2, "", complaint));
}

#[test]
fn a_wrong_moment_is_told_with_the_window_or_the_forms() {
    let dir = store();
    for (to, part) in [
        ("99999999", "cannot go to LSN 99999999: the past states reach from LSN 0 ("),
        ("1980-01-01T00:00:00Z", "cannot go to 1980-01-01T00:00:00.000Z: the past states reach from LSN 0 ("),
        ("2999-01-01T00:00:00Z", "cannot go to 2999-01-01T00:00:00.000Z: "),
        ("monday", "cannot go to \"monday\", which is no LSN, no time and no point (kv points lists them): "),
    ] {
        let output = restore(dir.path(), to);
        let (code, answer, complaint) = outcome(&output);
        assert_eq!((code, answer), (1, ""), "{to}");
        assert!(complaint.contains(part), "{complaint}");
        assert!(!dir.path().join("r").exists(), "{to}");
    }
    for to in ["2026-11-26T16:41:05", "2026-11-26", ""] {
        let output = restore(dir.path(), to);
        assert_eq!(output.status.code(), Some(2), "{to}");
        assert!(outcome(&output).2.contains("a time with a zone"), "{to}");
    }
    fs::create_dir(dir.path().join("r")).unwrap();
    fs::write(dir.path().join("r/letter"), "").unwrap();
    let output = restore(dir.path(), "2");
    assert!(output.status.code() == Some(2) && outcome(&output).2.contains("is not empty: it holds letter"));
}

#[test]
fn a_store_of_the_naive_engine_reaches_the_snapshots_of_its_points() {
    let dir = tempfile::tempdir().unwrap();
    let naive = |words: &[&str]| {
        let output = kv("naive", &dir.path().join("n"), words, b"");
        (output.status.code().unwrap(), outcome(&output).1.to_owned())
    };
    naive(&["put", "a", "1"]);
    assert!(naive(&["pin", "p"]).1.starts_with("p\t1\t"));
    // No command gives up what there is.
    naive(&["put", "a", "2"]);
    naive(&["delete", "a"]);
    let (code, points) = naive(&["points"]);
    assert!(
        code == 0 && points.contains("to LSN 3 (") && points.contains(", only at LSN 1, 2, 3\n"),
        "{points}"
    );
    assert_eq!(naive(&["get", "a", "--at", "p"]), (0, "1\n".to_owned()));
    assert_eq!(naive(&["get", "a"]).0, 1);
    let (_, history) = naive(&["history", "a"]);
    let kinds: Vec<&str> = history.lines().map(|line| line.split('\t').nth(2).unwrap()).collect();
    assert_eq!(kinds, ["put", "put", "delete"]);
    let [backup, restored] = ["b", "r"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    assert_eq!(naive(&["backup", &backup]).0, 0);
    let mut command = plain_command();
    command.args(["restore", &backup, &restored, "--to", "2"]);
    assert!(feed(command, b"").status.success());
    let get = kv("naive", &dir.path().join("r"), &["get", "a"], b"");
    assert_eq!(outcome(&get), (0, "2\n", ""));
    let written = kv("naive", &dir.path().join("b"), &["put", "a", "3"], b"");
    assert!(written.status.code() == Some(1) && outcome(&written).2.contains("it is a backup"));
    assert_eq!(naive(&["revert", "a", "--to", "1"]).0, 0);
    assert_eq!(naive(&["get", "a"]).1, "1\n");
    let verify = || {
        let mut command = plain_command();
        command.arg("verify").arg(dir.path().join("n"));
        let output = feed(command, b"");
        (output.status.code().unwrap(), outcome(&output).1.to_owned())
    };
    assert_eq!(verify().0, 0);
    let old = dir.path().join("n/SNAPSHOT.0000000000000002");
    let mut bytes = fs::read(&old).unwrap();
    bytes.pop();
    fs::write(&old, bytes).unwrap();
    let (code, answer) = verify();
    assert!(code == 1 && answer.contains("SNAPSHOT.0000000000000002 is damaged"), "{answer}");
}

#[test]
fn a_backup_copies_what_is_not_there_and_restores() {
    let dir = store();
    let backup = |expected: i32| {
        let output = run(dir.path(), &["backup", dir.path().join("b").to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(expected), "{}", outcome(&output).2);
        (outcome(&output).1.to_owned(), outcome(&output).2.to_owned())
    };
    let (first, _) = backup(0);
    assert!(first.contains("; copied: 1 files, "), "{first}");
    answer(dir.path(), &["put", "c", "4"]);
    backup(0);
    let of_backup = |words: &[&str]| kv("log", &dir.path().join("b"), words, b"");
    assert_eq!(outcome(&of_backup(&["get", "c"])), (0, "4\n", ""));
    assert_eq!(outcome(&of_backup(&["get", "b", "--at", "3"])), (0, "2\n", ""));
    let written = of_backup(&["put", "c", "5"]);
    assert!(written.status.code() == Some(1) && outcome(&written).2.contains("the mark of a backup"));
    let mut verify = plain_command();
    verify.arg("verify").arg(dir.path().join("b"));
    let verified = feed(verify, b"");
    assert_eq!(verified.status.code(), Some(0), "{}", outcome(&verified).1);
    fs::remove_dir_all(dir.path().join("b")).unwrap();
    fs::create_dir(dir.path().join("b")).unwrap();
    fs::write(dir.path().join("b/letter"), "").unwrap();
    let (_, complaint) = backup(2);
    assert!(complaint.contains("is not empty: it holds letter"), "{complaint}");
}

#[test]
fn a_store_that_does_not_open_is_restored_to_before_its_damage() {
    let dir = store();
    let path = dir.path().join("s/0000000000000001.segment");
    let mut bytes = fs::read(&path).unwrap();
    // The value of the third change.
    let at = bytes.windows(2).position(|part| part == b"a3").unwrap();
    bytes[at + 1] ^= 1;
    fs::write(path, bytes).unwrap();
    assert_eq!(run(dir.path(), &["get", "a"]).status.code(), Some(1));
    assert_eq!(answer(dir.path(), &["get", "a", "--at", "2"]), "1\n");
    let plan = answer(dir.path(), &["plan", "--to", "2"]);
    assert!(plan.starts_with("LSN 2, ") && plan.contains("1 files to read"), "{plan}");
    assert_eq!(restore(dir.path(), "2").status.code(), Some(0));
    let found = kv("log", &dir.path().join("r"), &["get", "a"], b"");
    assert_eq!(outcome(&found), (0, "1\n", ""));
    fs::remove_dir_all(dir.path().join("r")).unwrap();
    let beyond = restore(dir.path(), "3");
    assert!(outcome(&beyond).2.contains("past states reach from LSN 0 ("));
}

#[test]
fn past_states_reach_to_the_last_change_before_a_kill() {
    if !Path::new("/dev/shm").is_dir() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let shell = &["shell", "--durability", "manual"];
    let mut child = command("log", &dir.path().join("s"), shell).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"put a 1\nput a 2\nput b 3\ndelete a\n").unwrap();
    assert_eq!(BufReader::new(child.stdout.take().unwrap()).lines().take(4).count(), 4);
    child.kill().unwrap();
    child.wait().unwrap();
    let lsns = || -> Vec<String> {
        answer(dir.path(), &["history", "a"]).lines().map(|line| columns(line)[0].to_owned()).collect()
    };
    assert_eq!(lsns(), ["1", "2", "4"]);
    assert_eq!(answer(dir.path(), &["get", "a", "--at", "3"]), "2\n");
    assert_eq!(restore(dir.path(), "3").status.code(), Some(0));
    assert_eq!(outcome(&kv("log", &dir.path().join("r"), &["get", "b"], b"")), (0, "3\n", ""));
    // This opening adopts the changes, and keeps their past states.
    answer(dir.path(), &["compact"]);
    assert_eq!(lsns(), ["1", "2", "4"]);
    assert_eq!(answer(dir.path(), &["get", "a", "--at", "1"]), "1\n");
    assert_eq!(outcome(&run(dir.path(), &["get", "a"])), (1, "NULL\n", ""));
}

/// A put that meets the end of the application finds the store locked at one moment, and free at
/// the next.
#[test]
fn a_put_that_races_with_the_end_of_the_application_keeps_the_past_states() {
    let dir = tempfile::tempdir().unwrap();
    let options = || OpenOptions { retention: Arc::new(KeepPast::all()), ..OpenOptions::default() };
    let application = NaiveEngine::open(dir.path(), options()).unwrap();
    for value in [b"1", b"2"] {
        application.put_durable(b"k", value).unwrap();
    }
    let first = application.window().unwrap().first_lsn;
    application.close().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if let Ok(application) = NaiveEngine::open(dir.path(), options()) {
                    application.close().unwrap();
                }
            }
        });
        let is_done = || kv("naive", dir.path(), &["put", "k", "3"], b"").status.success();
        let done = (0..400).filter(|_| is_done()).take(100).count();
        is_over.store(true, Ordering::Relaxed);
        assert!(done > 0, "every put found the store locked");
    });
    let application = NaiveEngine::open(dir.path(), options()).unwrap();
    assert_eq!(application.window().unwrap().first_lsn, first);
}

#[test]
fn nothing_is_written_into_the_store_itself() {
    let dir = store();
    let dir = &dir.path().join("s");
    let inside = dir.join("new/one");
    for words in [&["restore", "--to", "1"][..], &["backup"], &["repair"], &["copy"]] {
        let mut command = plain_command();
        command.args(words).arg(dir).arg(&inside);
        let output = feed(command, b"");
        let (code, answer, complaint) = outcome(&output);
        let expected =
            format!("kv: {} lies in {}; name a directory outside of it\n", inside.display(), dir.display());
        assert_eq!((code, answer, complaint), (2, "", expected.as_str()), "{words:?}");
        assert!(!dir.join("new").exists(), "{words:?}");
    }
}
