//! Operation sequences, and running them against an engine.

use crate::oracle::{Effect, History};
use fastrand::Rng;
use kv_core::{Batch, Engine, Result};
use std::fmt;
use std::str::FromStr;

/// One operation. Keys are small numbers; every value is unique to the operation that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Put {
        key: u8,
        len: usize,
    },
    Delete {
        key: u8,
    },
    /// A put has a length, a delete has none.
    Batch(Vec<(u8, Option<usize>)>),
    Sync,
    /// A compaction, if the engine offers it.
    Compact,
    /// Close, and open again. [`run_op`] skips it: it has only an engine.
    Reopen,
}

impl Op {
    /// The text in a report.
    pub(crate) fn describe(&self) -> String {
        match self {
            Op::Put { key, len } => format!("put key {key}, {len} B"),
            Op::Delete { key } => format!("delete key {key}"),
            Op::Batch(changes) => {
                let change = |(key, len): &(u8, Option<usize>)| match len {
                    Some(len) => format!("put key {key}, {len} B"),
                    None => format!("delete key {key}"),
                };
                format!("batch of [{}]", changes.iter().map(change).collect::<Vec<_>>().join("; "))
            }
            Op::Sync => "sync".to_owned(),
            Op::Compact => "compact".to_owned(),
            Op::Reopen => "close, and open again".to_owned(),
        }
    }
}

/// As one word: `p1:9`, `d1`, `b1:9,2`, `s`, `c`, `r`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Put { key, len } => write!(f, "p{key}:{len}"),
            Op::Delete { key } => write!(f, "d{key}"),
            Op::Batch(changes) => {
                let word = |(key, len): &(u8, Option<usize>)| match len {
                    Some(len) => format!("{key}:{len}"),
                    None => key.to_string(),
                };
                write!(f, "b{}", changes.iter().map(word).collect::<Vec<_>>().join(","))
            }
            Op::Sync => f.write_str("s"),
            Op::Compact => f.write_str("c"),
            Op::Reopen => f.write_str("r"),
        }
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        let change = |text: &str| -> Option<(u8, Option<usize>)> {
            match text.split_once(':') {
                Some((key, len)) => Some((key.parse().ok()?, Some(len.parse().ok()?))),
                None => Some((text.parse().ok()?, None)),
            }
        };
        let parse = || -> Option<Op> {
            match word.split_at_checked(1)? {
                ("s", "") => Some(Op::Sync),
                ("c", "") => Some(Op::Compact),
                ("r", "") => Some(Op::Reopen),
                ("p", rest) => change(rest).and_then(|(key, len)| Some(Op::Put { key, len: len? })),
                ("d", rest) => Some(Op::Delete { key: rest.parse().ok()? }),
                ("b", "") => Some(Op::Batch(Vec::new())),
                ("b", rest) => rest.split(',').map(change).collect::<Option<_>>().map(Op::Batch),
                _ => None,
            }
        };
        parse().ok_or_else(|| format!("{word:?} is no operation"))
    }
}

/// `count` operations on `keys` keys.
pub(crate) fn random_ops(rng: &mut Rng, count: usize, keys: u8) -> Vec<Op> {
    (0..count)
        .map(|_| {
            let key = rng.u8(0..keys);
            match rng.u8(0..20) {
                0..=11 => Op::Put { key, len: rng.usize(4..90) },
                12..=15 => Op::Delete { key },
                16..=17 => Op::Batch(
                    (0..rng.usize(0..5))
                        .map(|_| (rng.u8(0..keys), rng.bool().then(|| rng.usize(4..60))))
                        .collect(),
                ),
                _ => Op::Sync,
            }
        })
        .collect()
}

/// The value that operation `number` writes: its number, repeated.
pub(crate) fn value(number: usize, len: usize) -> Vec<u8> {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes().into_iter().cycle().take(len).collect()
}

/// The effects of operation `number`.
pub(crate) fn effects_of(op: &Op, number: usize) -> Vec<Effect> {
    match op {
        Op::Put { key, len } => vec![(vec![*key], Some(value(number, *len)))],
        Op::Delete { key } => vec![(vec![*key], None)],
        Op::Batch(changes) => {
            changes.iter().map(|(key, len)| (vec![*key], len.map(|len| value(number, len)))).collect()
        }
        Op::Sync | Op::Compact | Op::Reopen => Vec::new(),
    }
}

/// Runs `ops` until one fails, and records the answers. The failed operation stays in flight: the
/// engine may have applied it or not.
pub(crate) fn run_ops(engine: &dyn Engine, ops: &[Op], history: &mut History) -> Result<()> {
    ops.iter().try_for_each(|op| run_op(engine, op, history))
}

/// Runs one operation.
pub(crate) fn run_op(engine: &dyn Engine, op: &Op, history: &mut History) -> Result<()> {
    let number = history.next_number();
    let effects = effects_of(op, number);
    history.begin(effects.clone());
    let lsn = match op {
        Op::Put { key, len } => Some(engine.put(&[*key], &value(number, *len))?),
        Op::Delete { key } => engine.delete(&[*key])?,
        Op::Batch(_) => {
            let before = engine.last_lsn();
            let mut batch = Batch::new();
            for (key, value) in &effects {
                match value {
                    Some(value) => batch.put(key, value),
                    None => batch.delete(key),
                };
            }
            let lsn = engine.apply(&batch)?;
            (lsn > before).then_some(lsn)
        }
        Op::Sync => {
            history.told_durable(engine.sync()?);
            None
        }
        Op::Compact => {
            if let Some(compact) = engine.as_compact() {
                compact.compact()?;
            }
            None
        }
        Op::Reopen => None,
    };
    history.end(lsn);
    history.told_durable(engine.durable_lsn());
    Ok(())
}
