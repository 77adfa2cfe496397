//! Memory that holds no live record stays below its ceiling. Alone in its process: readers of other
//! tests would hold retired memory.

use kv_core::{Background, Engine, Env, Manual};
use kv_log::{LogEngine, Options};
use std::sync::Arc;

const KEYS: u32 = 4000;
const VALUE: [u8; 1000] = [7; 1000];

/// Memory that holds no live key or value, bytes.
fn slack(store: &LogEngine) -> u64 {
    let stats = store.stats();
    (stats.memory_bytes + stats.retired_bytes).saturating_sub(stats.live_bytes)
}

/// The ceiling of a full store, and the headers of its records.
const CEILING: u64 = (1 << 20) + KEYS as u64 * 1004 / 4 + KEYS as u64 * 32;

#[test]
fn overwriting_stays_below_the_ceiling() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env { background: Background::Inline, ..Env::os() };
    let persistence = Arc::new(Manual);
    let options = Options { slack_share: 0.25, slack_bytes: 1 << 20, persistence, ..Options::default() };
    let store = LogEngine::open_in(dir.path(), &env, options).unwrap();
    for key in 0..KEYS {
        store.put(&key.to_be_bytes(), &VALUE).unwrap();
    }
    let mut most = 0;
    for round in 0..20 {
        for key in 0..KEYS {
            store.put(&(key * 7919 % KEYS).to_be_bytes(), &VALUE).unwrap();
            if key % 100 == 0 {
                most = most.max(slack(&store));
            }
        }
        assert!(most <= CEILING, "{most} bytes of {CEILING} in round {round}: {:?}", store.stats());
    }
    assert!(most > CEILING / 4, "{most} bytes: the test makes too few dead records");
    assert_eq!(store.stats().slack_excesses, 0);
    assert!(store.stats().memory_compactions > 20);
}
