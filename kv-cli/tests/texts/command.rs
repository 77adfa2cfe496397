//! The texts of the command `kv`, apart from those of clap.

use crate::disk::DIR;
use crate::listing::Row;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The complaint of `kv` on standard error, or the answers of its shell.
fn complaint(dir: &Path, output: &Output) -> String {
    let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    String::from_utf8(text.clone()).unwrap().trim_end().replace(dir.to_str().unwrap(), DIR)
}

/// A directory for a store, and ways to call the command on it.
pub(crate) struct Kv(tempfile::TempDir);

impl Kv {
    pub(crate) fn new() -> Self {
        Kv(tempfile::tempdir().unwrap())
    }

    /// With a store that has a key `k`.
    pub(crate) fn with_store() -> Self {
        let kv = Kv::new();
        assert!(kv.command("put k v").output().unwrap().status.success());
        kv
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
        command.arg("--dir").arg(self.0.path()).args(words.split_whitespace());
        command
    }

    pub(crate) fn complaint(&self, words: &str) -> String {
        complaint(self.0.path(), &self.command(words).output().unwrap())
    }

    fn onto_full_device(&self, words: &str, input: &str) -> String {
        self.complaint_to(self.command(words).stdout(full_device()), input)
    }

    fn shell(&self, words: &str, input: &str) -> String {
        self.complaint_to(self.command(words).arg("shell").stdout(Stdio::piped()), input)
    }

    /// Without `--dir`.
    pub(crate) fn complaint_of(&self, words: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
        complaint(self.0.path(), &command.args(words.split_whitespace()).output().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn fed(&self, words: &str, input: &str) -> String {
        self.complaint_to(self.command(words).stdout(Stdio::piped()), input)
    }

    fn complaint_to(&self, command: &mut Command, input: &str) -> String {
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        complaint(self.0.path(), &child.wait_with_output().unwrap())
    }
}

#[expect(clippy::disallowed_methods, reason = "the device is no file of a store")]
fn full_device() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the directory is no store")]
fn directory() -> File {
    File::open("/").unwrap()
}

pub(crate) fn rows() -> Vec<Row> {
    let (none, store) = (Kv::new(), Kv::with_store());
    let long = "k".repeat(65);
    let pair = Kv::with_store();
    pair.shell("--hex", "put 6b 310a32\n");
    vec![
        ("kv get k, without --dir", {
            let output = Command::new(env!("CARGO_BIN_EXE_kv")).args(["get", "k"]).output().unwrap();
            complaint(none.0.path(), &output)
        }),
        ("kv get k: there is no store", none.complaint("get k")),
        ("kv delete k: there is no store", none.complaint("delete k")),
        ("kv --engine naive get k: it is a store of the log engine", store.complaint("--engine naive get k")),
        ("kv put: the key is too long", store.complaint(&format!("put {long} v"))),
        ("kv put: the value is too long", store.complaint("--value-len-max 1 put k vv")),
        ("kv --key-len-max 65536 put k v", store.complaint("--key-len-max 65536 put k v")),
        ("kv --value-len-max 1000000000 put k v", store.complaint("--value-len-max 1000000000 put k v")),
        ("kv --hex get xyz", store.complaint("--hex get xyz")),
        ("kv --engine naive compact", {
            let kv = Kv::new();
            kv.complaint("--engine naive put k v");
            kv.complaint("--engine naive compact")
        }),
        ("kv scan: a value holds a line break", pair.complaint("scan")),
        ("kv get k > /dev/full", store.onto_full_device("get k", "")),
        ("kv put k v > /dev/full", store.onto_full_device("put k v", "")),
        ("kv compact > /dev/full", store.onto_full_device("compact", "")),
        ("kv shell > /dev/full", store.onto_full_device("shell", "get k\n")),
        ("kv shell < a directory", {
            complaint(store.0.path(), &store.command("shell").stdin(directory()).output().unwrap())
        }),
    ]
}

pub(crate) fn shell() -> Vec<Row> {
    let kv = Kv::with_store();
    let long = "k".repeat(65);
    vec![
        ("an unknown command", kv.shell("", "fly\n")),
        ("a key that is too long", kv.shell("", &format!("get {long}\n"))),
        (
            "a line that is too long",
            kv.shell("--value-len-max 100", &format!("put k {}\n", "v".repeat(1000))),
        ),
        ("a last line without a line break", kv.shell("", "put k w")),
        ("a key that is not hexadecimal, with --hex", kv.shell("--hex", "get xyz\n")),
        ("a value that holds a line break", {
            kv.shell("--hex", "put 6c 310a32\n");
            kv.shell("", "get l\n")
        }),
    ]
}
