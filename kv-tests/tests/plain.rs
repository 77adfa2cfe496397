//! The suite as plain `#[test]`s, against a correct engine.

kv_tests::conformance!(kv_tests::reference::ReferenceFactory::default());
