//! `diff` and `bigkeys`: looks at all pairs of stores.

use crate::failure::{Differences, Failure};
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
    let mut differences = Differences::default();
    each_pair(first, b"", |key, value| {
        let other = second.get(key)?;
        match &other {
            Some(other) if **other == *value => return Ok(()),
            Some(_) => differences.values += 1,
            None => differences.only_first += 1,
        }
        write_pair(out, '-', text, key, value)?;
        other.map_or(Ok(()), |other| write_pair(out, '+', text, key, &other))
    })?;
    each_pair(second, b"", |key, value| {
        if first.contains_key(key)? {
            return Ok(());
        }
        differences.only_second += 1;
        write_pair(out, '+', text, key, value)
    })?;
    out.flush().map_err(Failure::Output)?;
    Ok(differences)
}

fn write_pair(out: &mut impl Write, sign: char, text: Text, key: &[u8], value: &[u8]) -> Result<(), Failure> {
    writeln!(out, "{sign} {}\t{}", text.escape(key), text.escape(value)).map_err(Failure::Output)
}

/// Writes the `top` largest pairs whose keys start with `prefix`, the largest first.
pub(crate) fn bigkeys(
    engine: &dyn Engine,
    prefix: &[u8],
    top: usize,
    text: Text,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut largest = BinaryHeap::new();
    engine.scan_prefix(prefix, &mut |key, value| {
        largest.push(Reverse((key.len() + value.len(), Reverse(key.to_vec()))));
        if largest.len() > top {
            largest.pop();
        }
        ControlFlow::Continue(())
    })?;
    let write = || -> io::Result<()> {
        for Reverse((bytes, Reverse(key))) in largest.into_sorted_vec() {
            writeln!(out, "{bytes}\t{}", text.escape(&key))?;
        }
        out.flush()
    };
    write().map_err(Failure::Output)
}
