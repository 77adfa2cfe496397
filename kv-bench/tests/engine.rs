//! `kv-bench engine`, as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "it looks at files from outside the engines")]

mod command;

use command::kv_bench;
use serde_json::Value;

#[test]
fn every_row_is_judged_and_nothing_is_left_behind() {
    let out = tempfile::tempdir().unwrap();
    let output =
        kv_bench("engine", &["--quick", "--keys", "2000", "--kills", "2", "--repetitions", "1"], out.path());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for row in [
        "fill, 100 B, 1 thread",
        "get_many(64) uniform",
        "synced puts, 8 threads",
        "4x the memory budget",
        "overwrite uniform, 500 B, 200 keys",
        "resident memory after filling, 100 B, 2k keys",
        "an open, empty store: disk",
        "longest of put while filling",
        "open load, 80 %: longest put",
        "lets 80 % of memory be live",
        "kill -9, dumps: never, 2 kills",
        "tail in shared memory, p99.9 of put, 500 B, 2 threads",
        "first read after a kill, from a checkpoint, 20k keys",
        "reads during the warm-up",
        "while a checkpoint is written: more resident memory",
        "replay without checkpoint",
    ] {
        assert!(text.contains(row), "{row} is missing: {text}");
    }
    let left: Vec<_> =
        std::fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");

    let json = std::fs::read_to_string(out.path().join("engine.json")).unwrap();
    let results: Value = serde_json::from_str(&json).unwrap();
    let targets = results["targets"].as_array().unwrap();
    for target in targets {
        let verdict = &target["verdict"];
        let judged = verdict == "pass" || verdict == "miss" || verdict == "reported";
        assert_eq!(judged, target["value"].is_number(), "{target}");
        let needs_peer = target["target"].as_str().unwrap().contains("LMDB")
            || target["target"].as_str().unwrap().contains("peer");
        let expected = judged || (needs_peer && verdict["not_measured"].is_string());
        assert!(expected, "{target}");
    }
    let rows = results["rows"].as_array().unwrap();
    let measured = |engine: &str| rows.iter().any(|row| row["engine"] == engine);
    for engine in ["kv-log", "dashmap", "papaya", "scc", "HashMap in a lock", "kv-naive", "bare loop"] {
        assert!(measured(engine), "{engine}");
    }

    let document = out.path().join("document.md");
    std::fs::write(
        &document,
        "before\n<!-- results of kv-bench engine -->\n<!-- end of the results -->\nafter\n",
    )
    .unwrap();
    let output = kv_bench("publish", &[document.to_str().unwrap()], out.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&document).unwrap();
    assert!(text.starts_with("before\n") && text.ends_with("\nafter\n"), "{text}");
    assert!(
        text.contains("| fill, 100 B, 1 thread | >= 1.1x dashmap |") && text.contains("mean nothing"),
        "{text}"
    );
}

#[test]
fn rows_can_be_named() {
    let out = tempfile::tempdir().unwrap();
    let words = ["--quick", "--keys", "1000", "--repetitions", "1", "--only", "p99.9 of put under"];
    let output = kv_bench("engine", &words, out.path());
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("p99.9 of put under") && !text.contains("p99.9 of get") && !text.contains("fill"),
        "{text}"
    );
    let nothing = kv_bench("engine", &["--only", "no such row"], out.path());
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("--only"));
}
