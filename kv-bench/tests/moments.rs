//! `kv-bench moments`, as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "it looks at files from outside the engines")]

mod command;

use command::kv_bench;
use serde_json::Value;

#[test]
fn every_row_is_judged_and_published_and_nothing_is_left_behind() {
    let out = tempfile::tempdir().unwrap();
    let output = kv_bench("moments", &["--quick", "--keys", "2000", "--repetitions", "1"], out.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut left: Vec<_> =
        std::fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["moments.json", "moments.md"]);

    let json = std::fs::read_to_string(out.path().join("moments.json")).unwrap();
    let results: Value = serde_json::from_str(&json).unwrap();
    let targets = results["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 8);
    for target in targets {
        assert!(target["value"].is_number(), "{target}");
        let verdict = &target["verdict"];
        assert!(verdict == "pass" || verdict == "miss" || verdict == "reported", "{target}");
    }

    let document = out.path().join("document.md");
    let marks = "<!-- results of kv-bench moments -->\n<!-- end of the results -->\n";
    std::fs::write(&document, marks).unwrap();
    let output = kv_bench("publish", &[document.to_str().unwrap()], out.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&document).unwrap();
    for part in [
        "| throughput with a window of one hour, overwrite zipfian, 2 000 keys of 100 B | >= 0.9x without |",
        "| <= 0.1 more than without |",
        "| restore, a tenth back, 2 000 keys of 500 B | >= 0.6x copy of the files |",
        "| read_at ready, a tenth back, 2 000 keys of 100 B | <= 0.5 s |",
        "| second backup with 1 % new data, 2 000 keys of 500 B: bytes | <= 0.05x first |",
        "| verify, warm, 4 000 keys of 500 B | >= 1.5 GB/s |",
        "| repair of one damaged segment, 4 000 keys of 500 B | >= 1x copy of the files |",
        "(copy_bytes_per_s)",
        "mean nothing",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
}

#[test]
fn results_that_are_not_there_are_not_published() {
    let out = tempfile::tempdir().unwrap();
    let document = out.path().join("document.md");
    std::fs::write(&document, "text\n").unwrap();
    let output = kv_bench("publish", &[document.to_str().unwrap()], out.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("neither engine.md nor moments.md"));
    assert_eq!(std::fs::read_to_string(&document).unwrap(), "text\n");
}
