//! A store with a past: a fill, overwrites of uniform keys, and a moment among them.

use crate::failure::Failure;
use crate::load::{Dataset, KEY_LEN_MAX, Shape, Truth, sequence};
use crate::subjects::{KvEngine, Subject};
use fastrand::Rng;
use kv_core::{KeepPast, Lsn, PointInTime, Target};
use std::path::Path;
use std::sync::Arc;

/// A store of the log engine that keeps its whole past. As many overwrites as keys follow the fill.
pub(super) struct History {
    pub(super) store: KvEngine,
    pub(super) data: Dataset,
    /// The state before the last tenth of all changes.
    pub(super) target: Target,
    pub(super) then: Truth,
    pub(super) now: Truth,
}

impl History {
    /// Writes it to the directory `dir`.
    pub(super) fn write(dir: &Path, shape: Shape, keys: u64) -> Result<Self, Failure> {
        let options = kv_log::Options { retention: Arc::new(KeepPast::all()), ..options(keys, shape) };
        let store = KvEngine::open_log(dir, options)?;
        let data = Dataset::new(shape);
        data.fill(0..keys, |_, key, value| store.put(key, value))?;
        let [mut then, mut now] = [Truth::filled(keys), Truth::filled(keys)];
        let (mut rng, mut lsn) = (Rng::with_seed(shape.seed), Lsn::ZERO);
        let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
        for place in 0..keys {
            let (index, sequence) = (rng.u64(..keys), sequence(1, 0, place));
            data.value(index, sequence, &mut value);
            let put = store.0.put(data.key(index, &mut key), &value)?;
            now.write(index, 0, sequence);
            if place < keys - keys / 5 {
                then.write(index, 0, sequence);
                lsn = put;
            }
        }
        store.sync()?;
        Ok(History { store, data, target: Target::Lsn(lsn), then, now })
    }

    pub(super) fn past(&self) -> Result<&dyn PointInTime, Failure> {
        past(&self.store)
    }
}

/// The past states of a store.
pub(super) fn past(store: &KvEngine) -> Result<&dyn PointInTime, Failure> {
    store.0.as_point_in_time().ok_or_else(|| Failure::Wrong("it has no past states".to_owned()))
}

/// The default options, with segments that are short enough for the data to lie in many.
pub(super) fn options(keys: u64, shape: Shape) -> kv_log::Options {
    let segment_bytes = (keys * shape.pair_len() / 32).next_power_of_two().clamp(1 << 14, 16 << 20);
    let segment_bytes = usize::try_from(segment_bytes).unwrap_or(16 << 20);
    kv_log::Options { segment_bytes, ..kv_log::Options::default() }
}
