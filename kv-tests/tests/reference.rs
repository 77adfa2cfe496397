//! The suite passes a correct engine.

kv_tests::main!(kv_tests::reference::ReferenceFactory::default());
