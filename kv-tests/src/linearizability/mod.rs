//! The judge of concurrent histories: threads, few keys, overlapping operations.
//!
//! A history is *linearizable* if it equals a run of single operations on a plain map. Each
//! operation takes effect at one moment between its call and its return (Herlihy and Wing,
//! "Linearizability: A Correctness Condition for Concurrent Objects", TOPLAS 1990).
//!
//! The contract demands two things more. The changes take effect in the order of their LSNs. Across
//! a crash the history is *durably linearizable* in the buffered sense (Izraelevitz, Mendes and
//! Scott, "Linearizability of Persistent Memory Objects", DISC 2016). That means: the recovered
//! state is the state after a prefix of that order, and the prefix holds every change that was
//! reported durable.
//!
//! | file | holds |
//! |---|---|
//! | `history.rs` | what was called, when, and what was answered; how it is printed |
//! | `checker.rs` | the search for an order: sound and complete |
//! | `minimal.rs` | the verdict, with the least history that shows it |

mod checker;
mod history;
mod minimal;
#[cfg(test)]
mod tests;

pub(crate) use history::{Answer, Call, Crash, History, Key, Number, Operation, State};
pub(crate) use minimal::judge;
