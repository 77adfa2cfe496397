//! Tests for any storage engine written against `kv-core`: conformance to the contract, and
//! consistency after crashes. A simulated disk loses power at every operation. On the real disk the
//! suite kills processes.
//!
//! Write an [`EngineFactory`](kv_core::EngineFactory), and declare a test target with
//! `harness = false`. The target is one line:
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
//! Each case is one test: `cargo test` filters, `--list` and nextest work. A case that needs a
//! capability that the engine lacks is shown as ignored, with the reason.
//!
//! # Map
//!
//! | file | holds |
//! |---|---|
//! | `case.rs`, `cases/` | the cases, one file for each group |
//! | `sim/` | the simulated disk: [`sim::SimFs`] |
//! | `conformance.rs` | the suite as plain tests, beside others in one target |
//! | `oracle.rs` | the judge of recovered states |
//! | `linearizability/` | the judge of concurrent histories |
//! | `workload.rs`, `rig.rs`, `context.rs` | operation sequences; a store under test; the tools of a case |
//! | `recorder.rs`, `modelled.rs` | a policy that notes every question; a store with a model of what is pending |
//! | `scenario/` | a run in one line of text: run, judged, shrunk, replayed |
//! | `reference/` | the mutants' home: an engine with deliberate defects, to test the suite |
//! | `runner.rs`, `settings.rs`, `explored.rs`, `failure.rs` | trials, seed and effort, counts, reports |
//! | `replay.rs` | the command that replays a failure |
//! | `watch.rs` | the calls that are under way, for the report of a deadlock |
//! | `verdicts.rs` | the verdicts as lines of JSON, and the list of known failures |
//! | `servant.rs` | a child process that runs operations for a case |
//! | `around.rs` | an engine around another one, for a factory that counts or disturbs |
//! | `executor.rs` | runs futures on the caller's thread |
//!
//! # Fault model
//!
//! | event | effect on the disk |
//! |---|---|
//! | death of the process | all completed writes survive, so also what a `Write` of the policy handed over |
//! | power cut | see [`sim`] |
//! | errors, at each operation in turn | EIO, ENOSPC, EFBIG, EMFILE, EINTR, short transfers, failed syncs, refused removals |
//! | full disk | no free byte |
//! | damage to a closed store | any change of a file's bytes; missing, swapped and foreign files |
//! | other processes | they rename or remove the directory of an open store, or its lock file |
//!
//! Out of scope: drives that lie about flushes, checksums forged on purpose, other processes that
//! write the files.
//!
//! # Effort and replay
//!
//! `KV_TESTS_EFFORT` multiplies the number of histories and crash states (default 1).
//! `KV_TESTS_SEED` is the seed of all random draws (default 1). `KV_TESTS_TIMEOUT_S` limits the
//! time of a case; a longer one is reported as a deadlock (default 300).
//!
//! A failure prints the violated sentence, the fewest operations that still fail, and the crash
//! point. It also prints the bytes that the disk kept, and where a copy of the disk is. Its last
//! line is a command that replays it; `KV_TESTS_SCENARIO` in it names the operations and the crash.
//! A run ends with the numbers of explored histories, crashes and faults.
//!
//! # Cases of your own
//!
//! An engine promises more than the contract. Test such a promise with a case of your own: pass a
//! list of [`Case`]s to [`main!`] as `cases`. The suite selects, runs, reports and replays them
//! like its own. Their ids begin with `own::`, a group that the suite never uses.
//!
//! A case gets a [`Context`], and opens stores through it. A [`Rig`] is one store: its disk, its
//! clock, and the [`Setup`] to open it with. [`Context::rig`] takes the simulated disk if the
//! engine supports it, [`Context::real_rig`] the real one, and [`Context::sim_rig`] a
//! [`sim::SimFs`] on which the case cuts the power or injects faults.
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
//! use kv_tests::sim::{PowerCut, SimFs};
//! use kv_tests::{Case, CaseResult, Context, Level, Need, Policy, Setup, ensure};
//!
//! const CASES: &[Case] = &[Case {
//!     id: "own::required_stats_count_recovered_keys",
//!     level: Level::Required,
//!     needs: &[Need::SimulatedFs],
//!     summary: "After a power cut the statistics count the recovered keys.",
//!     run: stats_count_recovered_keys,
//! }];
//!
//! fn stats_count_recovered_keys(context: &Context) -> CaseResult {
//!     let (disk, setup) = (SimFs::new(), Setup::tiny(context, Policy::Always));
//!     let engine = context.sim_rig(disk.clone(), setup).open()?;
//!     engine.put(b"a", b"1")?;
//!     engine.put(b"b", b"2")?;
//!     let after_cut = disk.power_cut(PowerCut::LOSE_ALL);
//!     let keys = context.sim_rig(after_cut, setup).open()?.stats().keys;
//!     ensure!(keys == 2, "after a power cut the statistics count {keys} of 2 keys");
//!     Ok(())
//! }
//!
//! kv_tests::main!(MyFactory, cases = CASES);
//! ```
//!
//! # Adding a case to the suite
//!
//! Add a function and an entry in its group's `CASES`, with the next free number in the id. Ids are
//! stable: the opt-outs of other projects name them. The guide is `docs/testing.md` of the
//! workspace.

#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod around;
mod case;
mod cases;
mod conformance;
mod context;
mod executor;
mod explored;
mod failure;
mod linearizability;
mod modelled;
mod oracle;
mod recorder;
#[doc(hidden)]
pub mod reference;
mod replay;
mod rig;
mod runner;
mod scenario;
mod servant;
mod settings;
pub mod sim;
mod verdicts;
mod watch;
mod workload;

#[doc(hidden)]
pub use conformance::check_plain;
#[doc(hidden)]
pub use kv_core;

pub use case::{Case, Level, Need};
pub use cases::all_cases;
pub use context::Context;
pub use explored::Explored;
pub use failure::{CaseResult, Failure};
pub use rig::{Keeps, Policy, Rig, Setup};
pub use runner::{Suite, Verdict, run, run_case};
pub use settings::Settings;

/// The `main` of a test target without harness: the whole suite against one engine.
///
/// The first argument is an expression whose value implements
/// [`EngineFactory`](kv_core::EngineFactory). `skip` lists the cases that the engine does not pass,
/// each with a reason. The suite shows such a case as ignored. An extra trial fails once the engine
/// passes it. `cases` adds [cases of your own](crate#cases-of-your-own): an expression of type
/// `&'static [Case]`. With both, `cases` comes first.
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
    ($factory:expr, cases = $cases:expr $(,)?) => {
        $crate::main!($factory, cases = $cases, skip = []);
    };
    ($factory:expr, skip = [$(($id:expr, $reason:expr)),* $(,)?] $(,)?) => {
        $crate::main!($factory, cases = &[], skip = [$(($id, $reason)),*]);
    };
    ($factory:expr, cases = $cases:expr, skip = [$(($id:expr, $reason:expr)),* $(,)?] $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            $crate::run($factory, &$crate::suite!($cases, &[$(($id, $reason)),*]))
        }
    };
}

/// The suite as a test target runs it, with cases of its author, and opt-outs.
#[doc(hidden)]
#[macro_export]
macro_rules! suite {
    ($cases:expr, $skip:expr) => {
        $crate::Suite {
            manifest_dir: env!("CARGO_MANIFEST_DIR"),
            target: env!("CARGO_CRATE_NAME"),
            file: file!(),
            cases: $cases,
            skip: $skip,
            images: option_env!("CARGO_TARGET_TMPDIR"),
        }
    };
}
