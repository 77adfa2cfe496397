//! Options and arguments.

use crate::run::{ENGINES, feed, outcome, plain_command};

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
