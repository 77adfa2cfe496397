//! `kv scan`.

use crate::run::{ENGINES, kv, outcome};
use std::path::Path;

/// The lines of the output, sorted, since engines keep no order.
fn scan(engine: &str, dir: &Path, words: &[&str]) -> (i32, Vec<String>, String) {
    let output = kv(engine, dir, &[&["scan"], words].concat(), b"");
    let (code, answer, complaint) = outcome(&output);
    let mut lines: Vec<String> = answer.split_terminator('\n').map(str::to_owned).collect();
    lines.sort_unstable();
    (code, lines, complaint.to_owned())
}

#[test]
fn a_scan_prints_the_pairs_under_a_prefix() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        kv(engine, dir.path(), &["shell"], b"put ab 1\nput a 2 3\nput b \nput c 4\ndelete c\n");
        let owned = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        let scan = |words: &[&str]| scan(engine, dir.path(), words);
        assert_eq!(scan(&[]), (0, owned(&["a\t2 3", "ab\t1", "b\t"]), String::new()));
        assert_eq!(scan(&["a"]), (0, owned(&["a\t2 3", "ab\t1"]), String::new()));
        assert_eq!(scan(&["ab"]), (0, owned(&["ab\t1"]), String::new()));
        assert_eq!(scan(&["x"]), (0, vec![], String::new()));
        assert_eq!(scan(&["--hex", "6162"]), (0, owned(&["6162\t31"]), String::new()));
        assert_eq!(scan(&["--hex", "616"]).0, 2);
    }
}

#[test]
fn a_pair_without_unambiguous_text_is_left_out_and_told() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        for (key, value) in
            [("tab\there", "1"), ("line\nhere", "2"), ("k1", "1\n2"), ("k2", "1\t2"), ("k3", "3")]
        {
            assert!(kv(engine, dir.path(), &["put", key, value], b"").status.success());
        }
        let (code, lines, complaint) = scan(engine, dir.path(), &[]);
        assert_eq!((code, lines), (1, vec!["k2\t1\t2".to_owned(), "k3\t3".to_owned()]));
        assert!(complaint.contains("left out for a tab or a line break: 3 (--hex"), "{complaint}");
        let (code, lines, complaint) = scan(engine, dir.path(), &["--hex"]);
        assert_eq!((code, lines.len(), complaint.as_str()), (0, 5, ""));
        assert_eq!(scan(engine, dir.path(), &["k2"]).0, 0);
    }
}

#[test]
fn a_scan_creates_no_store() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let (code, lines, complaint) = scan(engine, &dir.path().join("s"), &[]);
        assert!(code == 1 && lines.is_empty() && complaint.contains("is not a store"), "{complaint}");
        assert!(!dir.path().join("s").exists());
    }
}
