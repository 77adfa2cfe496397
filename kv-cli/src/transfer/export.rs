use super::csv::Rows;
use super::json;
use crate::args::Format;
use crate::failure::Failure;
use crate::progress::Meter;
use kv_core::{Engine, EngineExt};
use std::io::{self, Write};
use std::ops::ControlFlow;

/// Writes every pair whose key starts with `prefix`.
pub(crate) fn export(
    engine: &dyn Engine,
    prefix: &[u8],
    format: Format,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let meter = Meter::of_pairs("exported");
    let mut pairs = 0;
    match format {
        Format::Json => {
            each_pair(engine, prefix, &meter, &mut pairs, |key, value| json::write_pair(out, key, value))?;
            json::write_end(out, pairs).and_then(|()| out.flush()).map_err(Failure::Output)
        }
        Format::Csv => {
            let mut rows = Rows::new(out).map_err(Failure::Output)?;
            each_pair(engine, prefix, &meter, &mut pairs, |key, value| rows.write_pair(key, value))?;
            rows.write_end(pairs).map_err(Failure::Output)
        }
    }
}

fn each_pair(
    engine: &dyn Engine,
    prefix: &[u8],
    meter: &Meter,
    pairs: &mut u64,
    mut write: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut written = Ok(());
    engine.scan_prefix(prefix, &mut |key, value| {
        *pairs += 1;
        meter.add_pairs(1);
        written = write(key, value);
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written.map_err(Failure::Output)
}
