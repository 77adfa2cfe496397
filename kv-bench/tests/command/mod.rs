use std::path::Path;
use std::process::{Command, Output};

/// Runs `kv-bench` with this subcommand, as a user would.
pub(crate) fn kv_bench(subcommand: &str, words: &[&str], out: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kv-bench"))
        .arg(subcommand)
        .args(words)
        .arg("--out")
        .arg(out)
        .output()
        .unwrap()
}
