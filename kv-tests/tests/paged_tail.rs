//! The suite must pass the paged engine that keeps its changes in shared memory.

#[allow(dead_code, unused_imports, reason = "the defects are for another target")]
#[path = "paged/mod.rs"]
mod paged;

kv_tests::main!(paged::PagedFactory::with_tail());
