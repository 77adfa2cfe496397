//! A scenario: operations, and crashes or one fault of the disk. One line of text describes it. The
//! suite can run it again from that line, and shrink it while it still fails.
//!
//! ```text
//! max_log_size p1:9 b1:8,2 d1 s r p2:700 / cut 17 power 5 / cut 3 death
//! max_log_size p1:9 s / sync 2 once
//! ```
//!
//! The line has a policy, then operations: `p` put with key and length, `d` delete, `b` batch of
//! puts and deletes, `s` sync, `r` close and open again, `c` compact. After them come crashes, or
//! one injected fault. The first crash happens during the operations, each further one during the
//! recovery from the one before.
//!
//! | file | holds |
//! |---|---|
//! | `crash.rs` | a crash, and the disk that it leaves |
//! | `run.rs` | a run of operations, and the judge of the disk that it leaves |
//! | `check.rs` | a scenario: run and judged |
//! | `shrink.rs` | the smallest scenario that still fails, and its report |
//! | `line.rs` | the line of text: written and parsed |

mod check;
mod crash;
mod line;
mod run;
mod shrink;

pub(crate) use check::{Scenario, Trouble};
pub(crate) use crash::{Crash, Left, Rest, bytes_of, last_write, left_by, unchanged_by};
pub(crate) use run::{Run, judge};
