//! Tests for any storage engine written against `kv-core`: conformance to the contract, and consistency after
//! crashes, on a simulated disk that loses power at every operation and on the real one with killed processes.
//!
//! Write an [`EngineFactory`](kv_core::EngineFactory), declare a test target with `harness = false`, and let it be
//! one line:
//!
//! ```no_run
//! # use kv_core::{Capabilities, Engine, EngineFactory, Env, OpenOptions, Result};
//! # struct MyFactory;
//! # impl EngineFactory for MyFactory {
//! #     fn name(&self) -> &str { "mine" }
//! #     fn capabilities(&self) -> Capabilities { Capabilities::new() }
//! #     fn open(&self, _: &std::path::Path, _: &Env, _: &OpenOptions) -> Result<std::sync::Arc<dyn Engine>> {
//! #         Err(kv_core::Error::Closed)
//! #     }
//! # }
//! kv_tests::main!(MyFactory);
//! ```
//!
//! Each case is one test: `cargo test` filters, `--list` and nextest work. A case that the engine cannot take part
//! in, for lack of a capability, is shown as ignored with the reason.
//!
//! # Map
//!
//! | file | holds |
//! |---|---|
//! | `case.rs`, `cases/` | what is checked, a file a group |
//! | `sim/` | the simulated disk: [`sim::SimFs`] |
//! | `oracle.rs` | the judge of recovered states |
//! | `linearizability/` | the judge of concurrent histories |
//! | `workload.rs`, `rig.rs`, `context.rs` | operation sequences; a store under test; what a case works with |
//! | `scenario.rs` | a run that one line tells: carried out, judged, shrunk, replayed |
//! | `reference/` | a correct engine to learn from, and its deliberate defects: [`mod@reference`] |
//! | `runner.rs`, `settings.rs`, `explored.rs`, `failure.rs` | trials, seed and effort, counts, reports |
//!
//! # Fault model
//!
//! Death of the process: all completed writes survive. Power cut: see [`sim`]. Errors: EIO, ENOSPC, EFBIG, EMFILE, short
//! transfers, EINTR, failed syncs, refused removals, at each operation in turn. A disk without a free byte. At rest: any
//! damage to the bytes of a file, and files that are missing, swapped or foreign. From outside: the directory of an open
//! store is renamed or removed, or its lock file is. Out of scope: drives that lie about flushes, checksums forged on
//! purpose, other processes that write the files.
//!
//! # Effort and replay
//!
//! `KV_TESTS_EFFORT` multiplies the number of histories and crash states (default 1), `KV_TESTS_SEED` sets where
//! chance begins (default 1), `KV_TESTS_TIMEOUT_S` when a case that does not end is called a deadlock (default 300). A
//! failure prints what was violated, the fewest operations that still fail, the crash point, what the disk kept, where
//! the disk was copied to, and the command that replays it, with that scenario in `KV_TESTS_SCENARIO`. The end of a run
//! prints how much was explored.
//!
//! # Adding a case
//!
//! Add a function and an entry in its group's `CASES`, with the next free number in the id. Ids are stable: other
//! people's opt-outs name them. The workspace's `docs/testing.md` is the guide to all of this.

#![forbid(unsafe_code)]

mod case;
mod cases;
mod conformance;
mod context;
mod executor;
mod explored;
mod failure;
mod linearizability;
mod oracle;
pub mod reference;
mod rig;
mod runner;
mod scenario;
mod settings;
pub mod sim;
mod workload;

#[doc(hidden)]
pub use conformance::check_plain;
#[doc(hidden)]
pub use kv_core;

pub use case::{Case, Level, Need, all_cases};
pub use context::Context;
pub use explored::Explored;
pub use failure::{CaseResult, Failure};
pub use rig::{Policy, Rig, Setup};
pub use runner::{Suite, Verdict, run, run_case};
pub use settings::Settings;

/// The `main` of a test target without harness: the whole suite against one engine.
///
/// The first argument is an expression whose value implements
/// [`EngineFactory`](kv_core::EngineFactory). An engine that does not pass a case says so, with a reason:
/// the case is then shown as ignored, and an extra trial fails once the engine passes it.
///
/// ```no_run
/// # use kv_core::{Capabilities, Engine, EngineFactory, Env, OpenOptions, Result};
/// # struct MyFactory;
/// # impl EngineFactory for MyFactory {
/// #     fn name(&self) -> &str { "mine" }
/// #     fn capabilities(&self) -> Capabilities { Capabilities::new() }
/// #     fn open(&self, _: &std::path::Path, _: &Env, _: &OpenOptions) -> Result<std::sync::Arc<dyn Engine>> {
/// #         Err(kv_core::Error::Closed)
/// #     }
/// # }
/// kv_tests::main!(MyFactory, skip = [
///     ("durability::required_kv806_periodic_dumps_by_itself", "no background threads yet"),
/// ]);
/// ```
#[macro_export]
macro_rules! main {
    ($factory:expr $(,)?) => {
        $crate::main!($factory, skip = []);
    };
    ($factory:expr, skip = [$(($id:expr, $reason:expr)),* $(,)?] $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            $crate::run(
                $factory,
                &$crate::Suite {
                    package: env!("CARGO_PKG_NAME"),
                    target: env!("CARGO_CRATE_NAME"),
                    file: file!(),
                    skip: &[$(($id, $reason)),*],
                    images: option_env!("CARGO_TARGET_TMPDIR"),
                },
            )
        }
    };
}
