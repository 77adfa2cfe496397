#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares of counts")]

use crate::Failure;
use fastrand::Rng;
use kv_core::{Engine, EngineExt};
use serde::{Deserialize, Serialize};

/// What a workload is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mix {
    pub(crate) commands: u64,
    pub(crate) value_len: usize,
    pub(crate) read_fraction: f64,
    pub(crate) hit_rate: f64,
    pub(crate) hot_fraction: f64,
    pub(crate) hot_rate: f64,
    pub(crate) seed: u64,
}

/// One command on key number `key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Get { key: u64, hit: bool },
    Put { key: u64 },
    Delete { key: u64 },
}

pub(crate) const KEY_LEN: usize = 24;

/// The bytes of a key: its number, scattered.
pub(crate) fn key(number: u64) -> [u8; KEY_LEN] {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut key = [0; KEY_LEN];
    for (chunk, part) in key.as_chunks_mut::<8>().0.iter_mut().zip([mixed, number, mixed.rotate_left(29)]) {
        *chunk = part.to_le_bytes();
    }
    key
}

/// The value of a key: its number over pseudo-random bytes.
pub(crate) fn fill_value(number: u64, value: &mut [u8]) {
    let mut state = number.wrapping_add(0x1234_5678);
    for chunk in value.chunks_mut(8) {
        let bytes = state.to_le_bytes();
        chunk.copy_from_slice(bytes.get(..chunk.len()).unwrap_or_default());
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    }
}

/// Generates the commands of one thread, and knows which keys must be there.
#[derive(Debug)]
pub(crate) struct Workload {
    mix: Mix,
    rng: Rng,
    live: Vec<u64>,
    next_key: u64,
}

impl Workload {
    /// Threads use different keys.
    pub(crate) fn new(mix: &Mix, thread: u64) -> Self {
        let rng = Rng::with_seed(mix.seed ^ (thread << 32));
        Workload { mix: mix.clone(), rng, live: Vec::new(), next_key: thread << 40 }
    }

    pub(crate) fn next(&mut self) -> Command {
        if self.rng.f64() < self.mix.read_fraction && !self.live.is_empty() {
            return if self.rng.f64() < self.mix.hit_rate {
                let hot_len = (self.live.len() as f64 * self.mix.hot_fraction).ceil() as usize;
                let range = if hot_len > 0 && self.rng.f64() < self.mix.hot_rate {
                    0..hot_len
                } else {
                    0..self.live.len()
                };
                let at = self.rng.usize(range);
                Command::Get { key: self.live.get(at).copied().unwrap_or_default(), hit: true }
            } else {
                Command::Get { key: self.rng.u64(..) | 1 << 63, hit: false }
            };
        }
        if self.rng.f64() < 0.1 && !self.live.is_empty() {
            let at = self.rng.usize(0..self.live.len());
            return Command::Delete { key: self.live.swap_remove(at) };
        }
        self.live.push(self.next_key);
        self.next_key += 1;
        Command::Put { key: self.next_key - 1 }
    }

    /// Key and value bytes that are live.
    pub(crate) fn live_bytes(&self) -> u64 {
        (self.live.len() * (KEY_LEN + self.mix.value_len)) as u64
    }
}

/// Compares an engine with what must be in it: every key with its value, and nothing else.
pub(crate) fn verify(engine: &dyn Engine, workloads: &[Workload]) -> Result<(), Failure> {
    let mut count = 0;
    for workload in workloads {
        let mut expected = vec![0; workload.mix.value_len];
        for number in &workload.live {
            fill_value(*number, &mut expected);
            let mut same = false;
            let found = engine.read(&key(*number), &mut |value| same = value == expected)?;
            if !found || !same {
                return Err(format!(
                    "the engine is wrong: key {number} is {}",
                    if found { "another" } else { "missing" }
                )
                .into());
            }
        }
        count += workload.live.len();
    }
    let mut keys = 0usize;
    engine.scan(&mut |_, _| {
        keys += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    if keys == count {
        Ok(())
    } else {
        Err(format!("the engine is wrong: it holds {keys} keys, not {count}").into())
    }
}

/// Whether a key is there; for callers who do not look at values.
pub(crate) fn contains(engine: &dyn Engine, number: u64) -> Result<bool, Failure> {
    Ok(engine.contains_key(&key(number))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{Env, OpenOptions};

    fn mix() -> Mix {
        Mix {
            commands: 20_000,
            value_len: 32,
            read_fraction: 0.6,
            hit_rate: 0.8,
            hot_fraction: 0.1,
            hot_rate: 0.7,
            seed: 3,
        }
    }

    #[test]
    fn the_parameters_are_honoured() {
        let mut workload = Workload::new(&mix(), 0);
        let (mut gets, mut hits, mut deletes, mut puts) = (0, 0, 0, 0);
        for _ in 0..20_000 {
            match workload.next() {
                Command::Get { hit, .. } => {
                    gets += 1;
                    hits += i32::from(hit);
                }
                Command::Put { .. } => puts += 1,
                Command::Delete { .. } => deletes += 1,
            }
        }
        let near = |count: i32, share: f64, of: i32| {
            (count - (share * f64::from(of)) as i32).unsigned_abs() < (of / 40) as u32
        };
        assert!(near(gets, 0.6, 20_000) && near(hits, 0.8, gets), "{gets} {hits}");
        assert!(near(deletes, 0.1, puts + deletes), "{deletes} {puts}");
    }

    #[test]
    fn the_same_seed_gives_the_same_commands() {
        let (mut one, mut other) = (Workload::new(&mix(), 1), Workload::new(&mix(), 1));
        assert!((0..1000).all(|_| one.next() == other.next()));
    }

    #[test]
    fn a_lying_engine_is_caught() {
        let dir = tempfile::tempdir().unwrap();
        let engine = kv_naive::NaiveEngine::open(dir.path(), &Env::os(), OpenOptions::default()).unwrap();
        let mut workload = Workload::new(&Mix { read_fraction: 0.0, ..mix() }, 0);
        let mut value = vec![0; 32];
        for _ in 0..50 {
            match workload.next() {
                Command::Put { key: number } => {
                    fill_value(number, &mut value);
                    engine.put(&key(number), &value).unwrap();
                }
                Command::Delete { key: number } => drop(engine.delete(&key(number)).unwrap()),
                Command::Get { .. } => unreachable!("no reads were asked for"),
            }
        }
        let workloads = [workload];
        verify(&engine, &workloads).unwrap();
        let victim = key(workloads[0].live[3]);
        let right = engine.get(&victim).unwrap().unwrap();
        engine.put(&victim, b"wrong").unwrap();
        assert!(verify(&engine, &workloads).unwrap_err().to_string().contains("another"));
        engine.delete(&victim).unwrap();
        assert!(verify(&engine, &workloads).unwrap_err().to_string().contains("missing"));
        engine.put(&victim, &right).unwrap();
        engine.put(b"extra", b"").unwrap();
        assert!(verify(&engine, &workloads).unwrap_err().to_string().contains("keys"));
    }
}
