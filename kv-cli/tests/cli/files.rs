//! `kv inspect`, `kv dump`, `kv verify` and `kv repair`.

#![allow(clippy::disallowed_methods, reason = "the tests damage the files of a store")]

use crate::run::{ENGINES, command, feed, kv, outcome, plain_command, text};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Output;

const FIRST: &str = "0000000000000001.segment";

/// Runs the command without `--dir`.
fn run(words: &[&str], paths: &[&Path]) -> Output {
    let mut command = plain_command();
    command.args(words).args(paths);
    feed(command, b"")
}

/// A store with the keys `k0` to `k9`, and a damaged copy of it: a bit of the value of `k3`.
struct Stores {
    dir: tempfile::TempDir,
}

impl Stores {
    fn new() -> Self {
        let stores = Stores { dir: tempfile::tempdir().unwrap() };
        for dir in [stores.sound(), stores.damaged()] {
            let lines: Vec<String> = (0..10).map(|key| format!("put k{key} value {key}\n")).collect();
            assert!(kv("log", &dir, &["shell"], lines.concat().as_bytes()).status.success());
        }
        let path = stores.damaged().join(FIRST);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(7).position(|part| part == b"value 3").unwrap();
        bytes[at + 6] ^= 1;
        fs::write(path, bytes).unwrap();
        stores
    }

    fn sound(&self) -> PathBuf {
        self.dir.path().join("sound")
    }

    fn damaged(&self) -> PathBuf {
        self.dir.path().join("damaged")
    }

    fn repaired(&self) -> PathBuf {
        self.dir.path().join("repaired")
    }
}

#[test]
fn the_exit_code_of_verify_tells_sound_from_damaged_from_not_checked() {
    let stores = Stores::new();
    let output = run(&["verify"], &[&stores.sound()]);
    let (code, answer, complaint) = outcome(&output);
    assert!(
        code == 0 && answer.contains("sound; segments: 1, records: 10, ") && complaint.is_empty(),
        "{answer}"
    );

    let output = run(&["verify"], &[&stores.damaged()]);
    let (code, answer, complaint) = outcome(&output);
    let place = format!("damaged: {} at byte ", stores.damaged().join(FIRST).display());
    assert!(code == 1 && answer.starts_with(&place) && answer.contains("key, perhaps: k3\n"), "{answer}");
    assert!(complaint.contains("is damaged in 1 place; kv repair"), "{complaint}");

    let output = run(&["verify"], &[stores.dir.path()]);
    let (code, answer, complaint) = outcome(&output);
    assert_eq!((code, answer), (2, ""));
    assert!(
        complaint.starts_with("kv: not checked: ") && complaint.contains("is not a store"),
        "{complaint}"
    );
    // The other way to name the directory.
    assert!(kv("log", &stores.sound(), &["verify"], b"").status.success());
    let output = kv("log", &stores.sound(), &["verify", "x"], b"");
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("given twice"));
}

#[test]
fn verify_says_when_a_writer_has_the_store() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let mut child = command(engine, dir.path(), &["shell"]).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"put k v\n").unwrap();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let output = run(&["verify"], &[dir.path()]);
        let (code, _, complaint) = outcome(&output);
        assert!(code == 2 && complaint.contains("is open elsewhere"), "{complaint}");
        drop(stdin);
        assert!(child.wait().unwrap().success());
        assert!(run(&["verify"], &[dir.path()]).status.success());
    }
}

#[test]
fn verify_checks_a_store_of_the_other_engine() {
    let dir = tempfile::tempdir().unwrap();
    kv("naive", dir.path(), &["shell"], b"put a 1\nput b 2\n");
    let output = run(&["verify"], &[dir.path()]);
    assert!(output.status.success() && text(&output.stdout).contains("sound; records: 2, "));
    let path = dir.path().join("SNAPSHOT");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - 30;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let output = run(&["verify", "--json"], &[dir.path()]);
    let (code, answer, complaint) = outcome(&output);
    let json: serde_json::Value = serde_json::from_str(answer).unwrap();
    assert_eq!(
        (code, &json["sound"], &json["damages"][0]["file"]),
        (1, &false.into(), &path.to_str().into())
    );
    assert!(complaint.contains("restore a copy"), "{complaint}");
}

#[test]
fn a_repair_saves_the_rest_and_names_the_loss() {
    let stores = Stores::new();
    let before = fs::read(stores.damaged().join(FIRST)).unwrap();
    let output = run(&["repair"], &[&stores.damaged(), &stores.repaired()]);
    let (code, answer, complaint) = outcome(&output);
    assert_eq!((code, complaint), (0, ""));
    assert!(
        answer.contains("older: perhaps key k3: its change of LSN 4 is lost, and it is absent\n"),
        "{answer}"
    );
    assert!(answer.contains(": 9 keys saved from "), "{answer}");
    assert_eq!(fs::read(stores.damaged().join(FIRST)).unwrap(), before);
    let output = run(&["diff"], &[&stores.sound(), &stores.repaired()]);
    assert_eq!(text(&output.stdout), "- k3\tvalue 3\n");
    // Not a second time into the same directory.
    let output = run(&["repair"], &[&stores.damaged(), &stores.repaired()]);
    let (code, answer, complaint) = outcome(&output);
    assert!(code == 2 && answer.is_empty() && complaint.contains("is not empty"), "{complaint}");
    let json = run(&["repair", "--json"], &[&stores.damaged(), &stores.dir.path().join("second")]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["keys"], &json["older"][0]["key"]), (&9.into(), &"k3".into()));
}

#[test]
fn inspect_lists_every_file() {
    let stores = Stores::new();
    fs::write(stores.damaged().join("notes"), b"abc").unwrap();
    let output = run(&["inspect"], &[&stores.damaged()]);
    let (code, table, complaint) = outcome(&output);
    assert_eq!((code, complaint), (0, ""));
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..3], ["0000000000000001", "log", "damaged"]);
    assert_eq!((row[5], row[8], row[9]), ("9", "1", "10"));
    for part in [
        "\nkeys ",
        "\ndurable_lsn ",
        "\nstray file       notes ",
        "\nmanifest         MANIFEST ",
        "\ndamaged: ",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let output = run(&["inspect", "--json"], &[&stores.sound()]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["keys"], &json["segments"][0]["state"]), (&10.into(), &"active".into()));
    assert_eq!(json["damages"].as_array().unwrap().len(), 0);
}

#[test]
fn a_dump_prints_records_and_damage() {
    let stores = Stores::new();
    let dump = |words: &[&str], dir: &Path| {
        let output = run(&[&["dump"], words].concat(), &[dir]);
        (output.status.code().unwrap(), text(&output.stdout).to_owned())
    };
    let (code, all) = dump(&[], &stores.sound());
    let first: Vec<&str> = all.lines().next().unwrap().split('\t').collect();
    assert_eq!((code, first.len()), (0, 6));
    assert_eq!((first[0], &first[2..]), ("0000000000000001", &["1", "put", "k0", "value 0"][..]));
    assert!(all.lines().any(|line| line.contains("\tmark\t\tdurable_lsn=")), "{all}");
    let (_, part) = dump(&["--lsn", "3..4"], &stores.sound());
    assert_eq!(
        part.lines().map(|line| line.rsplit('\t').next().unwrap()).collect::<Vec<_>>(),
        ["value 2", "value 3"]
    );
    let (_, hex) = dump(&["--hex", "--lsn", "1"], &stores.sound());
    assert!(hex.ends_with("\tput\t6b30\t76616c75652030\n"), "{hex}");
    let (_, damaged) = dump(&["--segment", "1"], &stores.damaged());
    assert!(damaged.lines().any(|line| line.starts_with("# /") && line.contains("at byte")), "{damaged}");
    assert_eq!(dump(&["--segment", "2"], &stores.sound()), (2, String::new()));
    assert_eq!(dump(&["--lsn", "4..3"], &stores.sound()).0, 2);
}

#[test]
fn every_command_refuses_a_store_of_format_version_1() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::create_dir(&log).unwrap();
    fs::write(log.join("MANIFEST"), include_bytes!("../../../kv-wal-format/testdata/v1_manifest_empty.seg"))
        .unwrap();
    fs::write(log.join(FIRST), include_bytes!("../../../kv-wal-format/testdata/v1_log_sealed.seg")).unwrap();
    let naive = dir.path().join("naive");
    assert!(kv("naive", &naive, &["put", "a", "1"], b"").status.success());
    for file in ["NAIVE", "SNAPSHOT"] {
        let mut bytes = fs::read(naive.join(file)).unwrap();
        bytes[8] = 1;
        fs::write(naive.join(file), bytes).unwrap();
    }
    let of_any = ["shell", "get k", "put k v", "delete k", "scan", "export", "stats", "verify"];
    let of_log = ["compact", "inspect", "dump"];
    let calls = [("log", &log, &of_any[..]), ("log", &log, &of_log), ("naive", &naive, &of_any)];
    for (engine, store, commands) in calls {
        for words in commands {
            let words: Vec<&str> = words.split(' ').collect();
            let output = kv(engine, store, &words, b"put k v\n");
            let (code, answer, complaint) = outcome(&output);
            assert!(code != 0 && answer.is_empty(), "{engine} {words:?}: {code}, {answer}");
            assert!(complaint.contains("has format version 1, this release reads version 2"), "{complaint}");
        }
    }
    let output = run(&["repair"], &[&log, &dir.path().join("repaired")]);
    let (code, answer, complaint) = outcome(&output);
    assert!(code == 1 && answer.is_empty(), "{code}, {answer}");
    assert!(complaint.contains("use a release that reads version 1"), "{complaint}");
    assert!(!dir.path().join("repaired").exists());
}
