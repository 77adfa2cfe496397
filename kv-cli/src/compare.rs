//! `diff` and `bigkeys`: looks at all pairs of stores.

use crate::failure::{Differences, Failure};
use crate::progress::Meter;
use crate::scan::each_pair;
use crate::text::Text;
use kv_core::{Engine, EngineExt};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};
use std::ops::ControlFlow;

/// Writes each pair that only one of two stores has.
pub(crate) fn diff(
    first: &dyn Engine,
    second: &dyn Engine,
    text: Text,
    out: &mut impl Write,
) -> Result<Differences, Failure> {
    let meter = Meter::of_pairs("compared");
    let mut differences = Differences::default();
    each_pair(first, b"", |key, value| {
        meter.add_one();
        let other = second.get(key)?;
        match &other {
            Some(other) if **other == *value => return Ok(()),
            Some(_) => differences.values += 1,
            None => differences.only_first += 1,
        }
        let write = |out: &mut _| {
            write_pair(out, '-', text, key, value)?;
            other.map_or(Ok(()), |other| write_pair(out, '+', text, key, &other))
        };
        meter.answer(out, write).map_err(Failure::Output)
    })?;
    each_pair(second, b"", |key, value| {
        meter.add_one();
        if first.contains_key(key)? {
            return Ok(());
        }
        differences.only_second += 1;
        meter.answer(out, |out| write_pair(out, '+', text, key, value)).map_err(Failure::Output)
    })?;
    out.flush().map_err(Failure::Output)?;
    Ok(differences)
}

fn write_pair(out: &mut impl Write, sign: char, text: Text, key: &[u8], value: &[u8]) -> io::Result<()> {
    writeln!(out, "{sign} {}\t{}", text.escape(key), text.escape(value))
}

/// Writes the `top` largest pairs whose keys start with `prefix`, the largest first.
pub(crate) fn bigkeys(
    engine: &dyn Engine,
    prefix: &[u8],
    top: usize,
    text: Text,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let meter = Meter::of_pairs("looked at");
    let mut largest = BinaryHeap::new();
    engine.scan_prefix(prefix, &mut |key, value| {
        meter.add_one();
        largest.push(Reverse((key.len() + value.len(), Reverse(key.to_vec()))));
        if largest.len() > top {
            largest.pop();
        }
        ControlFlow::Continue(())
    })?;
    drop(meter);
    let write = || -> io::Result<()> {
        for Reverse((bytes, Reverse(key))) in largest.into_sorted_vec() {
            writeln!(out, "{bytes}\t{}", text.escape(&key))?;
        }
        out.flush()
    };
    write().map_err(Failure::Output)
}
