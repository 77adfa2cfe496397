use super::csv::Rows;
use super::{json, resp};
use crate::args::Format;
use crate::failure::Failure;
use crate::progress::Meter;
use crate::scan::each_pair;
use kv_core::Engine;
use std::io::Write;

/// Writes every pair whose key starts with `prefix`.
pub(crate) fn export(
    engine: &dyn Engine,
    prefix: &[u8],
    format: Format,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let meter = Meter::of_answer("exported", "pairs");
    let mut pairs = 0;
    let mut count = || {
        pairs += 1;
        meter.add_one();
    };
    match format {
        Format::Json => {
            each_pair(engine, prefix, |key, value| {
                count();
                json::write_pair(out, key, value).map_err(Failure::Output)
            })?;
            json::write_end(out, pairs).and_then(|()| out.flush()).map_err(Failure::Output)
        }
        Format::Resp => {
            each_pair(engine, prefix, |key, value| {
                count();
                resp::write_pair(out, key, value).map_err(Failure::Output)
            })?;
            resp::write_end(out, pairs).and_then(|()| out.flush()).map_err(Failure::Output)
        }
        Format::Csv => {
            let mut rows = Rows::new(out).map_err(Failure::Output)?;
            each_pair(engine, prefix, |key, value| {
                count();
                rows.write_pair(key, value).map_err(Failure::Output)
            })?;
            rows.write_end(pairs).map_err(Failure::Output)
        }
    }
}
