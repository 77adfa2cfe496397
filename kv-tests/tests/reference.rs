//! The suite must pass the mutants' engine without a defect.

kv_tests::main!(kv_tests::reference::ReferenceFactory::default());
