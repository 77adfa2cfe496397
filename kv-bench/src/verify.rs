//! Compares an engine with the ground truth. Figures of a run count only after this.

use crate::dataset::{Dataset, KEY_LEN_MAX};
use crate::failure::Failure;
use crate::workload::Workload;
use kv_core::Engine;
use std::ops::ControlFlow;

/// Checks that `engine` holds exactly the keys of `live`, index and sequence each, with their values.
pub(crate) fn verify(
    engine: &dyn Engine,
    data: &Dataset,
    live: impl Iterator<Item = (u64, u64)>,
) -> Result<(), Failure> {
    let mut buffer = [0; KEY_LEN_MAX];
    let mut expected = 0u64;
    for (index, sequence) in live {
        expected += 1;
        let mut right = false;
        let found = engine
            .read(data.key(index, &mut buffer), &mut |value| right = data.is_value(index, sequence, value))?;
        if !found {
            return Err(Failure::Wrong(format!("key {index} is missing")));
        }
        if !right {
            return Err(Failure::Wrong(format!("key {index} has another value")));
        }
    }
    // Every expected key is there, so the same number of keys means that there are no others.
    let mut keys = 0u64;
    engine.scan(&mut |_, _| {
        keys += 1;
        ControlFlow::Continue(())
    })?;
    if keys == expected {
        Ok(())
    } else {
        Err(Failure::Wrong(format!("it holds {keys} keys, and not {expected}")))
    }
}

/// The same for what workloads leave behind.
pub(crate) fn verify_workloads(
    engine: &dyn Engine,
    data: &Dataset,
    workloads: &[Workload],
) -> Result<(), Failure> {
    verify(engine, data, workloads.iter().flat_map(Workload::live).map(|index| (index, index)))
}
