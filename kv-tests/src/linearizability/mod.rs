//! The judge of concurrent histories: threads, few keys, overlapping operations.
//!
//! A history is *linearizable* (Herlihy and Wing, "Linearizability: A Correctness Condition for Concurrent
//! Objects", TOPLAS 1990) if each operation can be given a moment between its call and its return such that the
//! answers are those of a plain map, one operation after the other. The contract demands more: the changes
//! among them stand in the order of their LSNs. And across a crash the history must be *durably linearizable* in
//! the buffered sense (Izraelevitz, Mendes and Scott, "Linearizability of Persistent Memory Objects", DISC
//! 2016): what is recovered is the state after a prefix of that order, with every change that was reported durable.
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
