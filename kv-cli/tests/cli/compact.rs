//! `kv compact`.

use crate::run::{kv, outcome};
use std::fmt::Write;

/// The value of `name` in a table of figures.
fn figure(table: &str, name: &str) -> u64 {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn compacting_gives_back_the_bytes_of_dead_records() {
    let dir = tempfile::tempdir().unwrap();
    let mut input = String::new();
    for round in 10..22 {
        for key in 0..20 {
            // Too little dead data for the close of the shell to compact it.
            writeln!(input, "put key{key} {round}{}", "x".repeat(200)).unwrap();
        }
    }
    assert!(kv("log", dir.path(), &["shell"], input.as_bytes()).status.success());
    let output = kv("log", dir.path(), &["compact"], b"");
    let (code, table, complaint) = outcome(&output);
    assert_eq!((code, complaint), (0, ""));
    assert!(figure(table, "victims") > 0 && figure(table, "freed_bytes") > 0, "{table}");
    for name in ["outputs", "copied_bytes"] {
        figure(table, name);
    }
    let output = kv("log", dir.path(), &["compact", "--json"], b"");
    let (code, json, _) = outcome(&output);
    assert!(code == 0 && json.starts_with("{\"victims\":") && json.ends_with("}\n"), "{json}");
    let output = kv("log", dir.path(), &["get", "key7"], b"");
    assert!(outcome(&output).1.starts_with("21xxx"));
}

#[test]
fn an_engine_that_cannot_compact_is_told() {
    let dir = tempfile::tempdir().unwrap();
    assert!(kv("naive", dir.path(), &["put", "k", "v"], b"").status.success());
    let output = kv("naive", dir.path(), &["compact"], b"");
    let (code, answer, complaint) = outcome(&output);
    assert_eq!((code, answer), (1, ""));
    assert!(complaint.contains("does not compact on request"), "{complaint}");
}

#[test]
fn compacting_creates_no_store() {
    for engine in ["log", "naive"] {
        let dir = tempfile::tempdir().unwrap();
        let output = kv(engine, &dir.path().join("s"), &["compact"], b"");
        let (code, _, complaint) = outcome(&output);
        assert!(code == 1 && complaint.contains("is not a store"), "{complaint}");
        assert!(!dir.path().join("s").exists());
    }
}
