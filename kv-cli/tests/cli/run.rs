//! Runs the built command.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

pub(crate) const ENGINES: [&str; 2] = ["log", "naive"];

pub(crate) fn command(engine: &str, dir: &Path, words: &[&str]) -> Command {
    let mut command = plain_command();
    command.args(["--engine", engine, "--dir"]).arg(dir).args(words);
    command
}

/// The command without arguments.
pub(crate) fn plain_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn kv(engine: &str, dir: &Path, words: &[&str], input: &[u8]) -> Output {
    feed(command(engine, dir, words), input)
}

/// Runs `command` with `input`, and reads its answers at the same time.
pub(crate) fn feed(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // A command that refuses to start does not read its input.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    })
}

/// Exit code, standard output, standard error.
pub(crate) fn outcome(output: &Output) -> (i32, &str, &str) {
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
