//! Operation sequences, and running them against an engine.

use crate::oracle::{Effect, History};
use fastrand::Rng;
use kv_core::{Batch, Engine, Result};

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
    /// Puts with a length, deletes without.
    Batch(Vec<(u8, Option<usize>)>),
    Sync,
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

/// The value that operation `number` writes: its number, again and again.
pub(crate) fn value(number: usize, len: usize) -> Vec<u8> {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes().into_iter().cycle().take(len).collect()
}

fn effects(op: &Op, number: usize) -> Vec<Effect> {
    match op {
        Op::Put { key, len } => vec![(vec![*key], Some(value(number, *len)))],
        Op::Delete { key } => vec![(vec![*key], None)],
        Op::Batch(changes) => {
            changes.iter().map(|(key, len)| (vec![*key], len.map(|len| value(number, len)))).collect()
        }
        Op::Sync => Vec::new(),
    }
}

/// Runs `ops` until one fails, and writes down what was answered. What fails is in flight: it may or may
/// not have happened.
pub(crate) fn run_ops(engine: &dyn Engine, ops: &[Op], history: &mut History) -> Result<()> {
    for (number, op) in ops.iter().enumerate() {
        let effects = effects(op, number);
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
        };
        history.end(lsn);
        history.told_durable(engine.durable_lsn());
    }
    Ok(())
}
