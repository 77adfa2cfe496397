//! The built command, as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "it looks at files from outside the engines")]

mod command;

use command::kv_bench;
use std::process::Command;

#[test]
fn a_small_comparison_leaves_a_report_and_nothing_else() {
    let out = tempfile::tempdir().unwrap();
    let words = ["--quick", "--commands", "2000", "--read-fraction", "0.2", "--value-len", "100"];
    let output = kv_bench("compare", &words, out.path());
    let (text, complaints) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{complaints}");
    for section in ["Speed in memory", "Mixed workloads", "Time to persist", "Recovery", "Loss after kill -9"]
    {
        assert!(text.contains(section), "{section} is missing: {text}");
    }
    let mut left: Vec<_> =
        std::fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["report.html", "results.json"]);

    let json = std::fs::read_to_string(out.path().join("results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_str(&json).unwrap();
    let rows = results["rows"].as_array().unwrap();
    for experiment in ["speed", "over_commands", "mixed", "persistence", "recovery", "kill"] {
        for engine in ["log", "naive"] {
            let measured = rows.iter().any(|row| {
                row["experiment"] == experiment && row["engine"].as_str().unwrap().starts_with(engine)
            });
            assert!(measured, "{experiment} of {engine} is missing");
        }
    }
    let page = std::fs::read_to_string(out.path().join("report.html")).unwrap();
    for title in [
        "Throughput over the number of commands",
        "Memory over the number of commands",
        "Latency of a put",
        "Latency of a get",
        "Time until a single put is durable",
        "Recovery time over data size",
        "Pairs wrong or missing after kill -9",
    ] {
        assert!(page.contains(title), "{title} is missing");
    }
    assert_eq!(page.matches("class=\"plot\"").count(), 7);
}

#[test]
fn nonsense_is_refused_before_anything_is_created() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    for words in [["--hit-rate", "1.5"], ["--commands", "0"], ["--hot-fraction", "0.9"], ["--engines", ""]] {
        let output = kv_bench("compare", &words, &out);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(complaints.starts_with("error: ") && complaints.contains(words[0]), "{complaints}");
        assert!(!out.exists());
    }
}

#[test]
fn a_run_that_fails_fails_the_command() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = kv_bench("compare", &["--quick"], file.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("kv-bench: cannot create"));

    let output = Command::new(env!("CARGO_BIN_EXE_kv-bench")).args(["worker", "{}"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
}
