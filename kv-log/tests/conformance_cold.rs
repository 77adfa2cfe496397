//! The conformance suite against this engine with the smallest memory budget, so that readers read
//! most records from files.

mod short_of_memory;

use kv_log::LogFactory;
use short_of_memory::short_of_memory;

kv_tests::main!(LogFactory::with("log, short of memory", short_of_memory));
