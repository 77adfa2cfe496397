//! Small runs in the tests' own process.

use crate::process::scratch::remove_tails;
use crate::process::{Measured, Run, Task};

/// Carries out a task in a directory that goes with the call.
pub(super) fn measured<T: Task + Copy>(task: &T) -> Measured {
    let dir = tempfile::tempdir().unwrap();
    let input = serde_json::to_value(task).unwrap();
    let run =
        Run { task: T::NAME.to_owned(), input, dir: dir.path().to_owned(), repetition: 0, warm_bytes: 0 };
    let measured = task.measure(&run);
    // Some tasks end without a close.
    remove_tails(dir.path());
    measured.unwrap()
}
