//! The suite against the tiny engine.

kv_tests::main!(tiny_engine::TinyFactory);
