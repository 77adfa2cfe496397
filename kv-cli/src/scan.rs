//! The pairs of a store as lines.

use crate::failure::Failure;
use crate::progress::Meter;
use crate::text::Text;
use kv_core::{Engine, EngineExt};
use std::io::{self, Write};
use std::ops::ControlFlow;

/// Writes a line `KEY<TAB>VALUE` for each key that starts with `prefix`. Returns the number of
/// pairs that it leaves out because their lines would be ambiguous.
pub(crate) fn run(
    engine: &dyn Engine,
    prefix: &[u8],
    text: Text,
    out: &mut impl Write,
) -> Result<u64, Failure> {
    let meter = Meter::of_answer("printed", "pairs");
    let mut left_out = 0;
    each_pair(engine, prefix, |key, value| {
        meter.add_one();
        let (key, value) = (text.show(key), text.show(value));
        if is_ambiguous(&key, &value) {
            left_out += 1;
            return Ok(());
        }
        write_pair(out, &key, &value).map_err(Failure::Output)
    })?;
    out.flush().map_err(Failure::Output)?;
    Ok(left_out)
}

/// Calls `visit` for each pair whose key starts with `prefix`, until it fails.
pub(crate) fn each_pair(
    engine: &dyn Engine,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut visited = Ok(());
    engine.scan_prefix(prefix, &mut |key, value| {
        visited = visit(key, value);
        if visited.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    visited
}

/// Whether a reader cannot tell where the key, or the pair, ends. A tab in the value is no problem:
/// the first tab of a line ends the key.
fn is_ambiguous(key: &[u8], value: &[u8]) -> bool {
    key.iter().any(|byte| matches!(byte, b'\t' | b'\n')) || value.contains(&b'\n')
}

fn write_pair(out: &mut impl Write, key: &[u8], value: &[u8]) -> io::Result<()> {
    out.write_all(key)?;
    out.write_all(b"\t")?;
    out.write_all(value)?;
    out.write_all(b"\n")
}
