//! The conformance suite against this engine.

kv_tests::main!(kv_naive::NaiveFactory);
