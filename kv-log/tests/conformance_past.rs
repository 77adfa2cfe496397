//! The conformance suite against stores that keep past states, as far as a few segments reach. So
//! every case of crashes and faults also meets archived segments, and segments that expire.

use kv_core::KeepPast;
use kv_log::{LogFactory, Options};
use std::sync::Arc;

kv_tests::main!(
    LogFactory::with("log, with a past", |open| {
        let options = Options::from(open);
        // A case of past states chooses itself.
        let chosen = format!("{:?}", options.retention) != "KeepNothing";
        let few: Arc<dyn kv_core::RetentionPolicy> = Arc::new(KeepPast::all().bytes_max(6000));
        Options { retention: if chosen { Arc::clone(&options.retention) } else { few }, ..options }
    }),
    skip = [
        ("moments::required_kv952_expired_states_go", "the case wants a store that keeps nothing"),
        ("moments::required_kv955_points_hold_their_states", "the case wants a store that keeps nothing"),
    ]
);
