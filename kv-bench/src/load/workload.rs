//! Commands from a seed, and the ground truth of each moment.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares of counts")]

use super::dataset::Shape;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// The share of deletes among the commands that do not read, as in the study. The rest put keys.
const DELETE_SHARE: f64 = 0.1;

/// The parameters of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mix {
    pub(crate) shape: Shape,
    /// Commands in all.
    pub(crate) commands: u64,
    /// Share of commands that read.
    pub(crate) read_fraction: f64,
    /// Probability that a read finds its key.
    pub(crate) hit_rate: f64,
    /// Share of hot keys; 0: no key is hot.
    pub(crate) hot_fraction: f64,
    /// Share of the hitting reads that go to hot keys, if any key is hot.
    pub(crate) hot_rate: f64,
}

/// One command on the key of an index. Each key is put once, with its index as the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Read. It finds its key if `hit`.
    Get { index: u64, hit: bool },
    /// Put a new key.
    Put { index: u64 },
    /// Delete an existing key.
    Delete { index: u64 },
}

/// Generates the commands of one thread, and knows the live keys after each.
///
/// The ground truth costs four bytes a live key.
#[derive(Debug)]
pub(crate) struct Workload {
    mix: Mix,
    rng: Rng,
    first_index: u64,
    live: Vec<u32>,
    next: u32,
}

/// No command puts indexes from here on.
const ABSENT: u64 = 1 << 63;

impl Workload {
    /// The commands of `thread`. Threads use disjoint keys.
    pub(crate) fn new(mix: &Mix, thread: u64) -> Self {
        Workload {
            mix: *mix,
            rng: Rng::with_seed(mix.shape.seed ^ (thread << 48)),
            first_index: thread << 32,
            live: Vec::new(),
            next: 0,
        }
    }

    /// The next command. It counts as done.
    #[inline]
    pub(crate) fn next(&mut self) -> Command {
        if self.live.is_empty() {
            return self.put();
        }
        if self.rng.f64() < self.mix.read_fraction {
            return self.get();
        }
        if self.rng.f64() < DELETE_SHARE {
            let at = self.rng.usize(0..self.live.len());
            return Command::Delete { index: self.first_index + u64::from(self.live.swap_remove(at)) };
        }
        self.put()
    }

    fn put(&mut self) -> Command {
        let index = self.next;
        self.live.push(index);
        self.next += 1;
        Command::Put { index: self.first_index + u64::from(index) }
    }

    fn get(&mut self) -> Command {
        if self.rng.f64() >= self.mix.hit_rate {
            return Command::Get { index: self.rng.u64(..) | ABSENT, hit: false };
        }
        let hot = self.hot_len();
        let range = if hot == 0 || hot == self.live.len() {
            0..self.live.len()
        } else if self.rng.f64() < self.mix.hot_rate {
            0..hot
        } else {
            hot..self.live.len()
        };
        let index = self.live.get(self.rng.usize(range)).copied().unwrap_or_default();
        Command::Get { index: self.first_index + u64::from(index), hit: true }
    }

    /// The number of hot keys, which are the first of the list.
    fn hot_len(&self) -> usize {
        (self.live.len() as f64 * self.mix.hot_fraction).ceil() as usize
    }

    /// Indexes of the live keys.
    pub(crate) fn live(&self) -> impl ExactSizeIterator<Item = u64> {
        self.live.iter().map(|index| self.first_index + u64::from(*index))
    }

    /// Bytes of the live keys and values.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live.len() as u64 * self.mix.shape.pair_len()
    }

    /// Memory of the ground truth, bytes.
    pub(crate) fn truth_bytes(&self) -> u64 {
        size_of_val(self.live.as_slice()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn mix() -> Mix {
        Mix {
            shape: Shape { key_len: 24, value_len: 32, seed: 3 },
            commands: 20_000,
            read_fraction: 0.6,
            hit_rate: 0.8,
            hot_fraction: 0.1,
            hot_rate: 0.7,
        }
    }

    /// Whether `part` of `whole` is `share`, within two points.
    fn near(part: u32, whole: u32, share: f64) -> bool {
        (f64::from(part) / f64::from(whole) - share).abs() < 0.02
    }

    #[test]
    fn the_parameters_are_honoured() {
        for (read_fraction, hit_rate, hot_fraction, hot_rate) in
            [(0.6, 0.8, 0.1, 0.7), (0.2, 0.1, 0.05, 0.9), (0.8, 0.99, 0.2, 0.2), (0.4, 0.6, 0.2, 0.6)]
        {
            let mix = Mix { read_fraction, hit_rate, hot_fraction, hot_rate, ..mix() };
            let mut workload = Workload::new(&mix, 0);
            let (mut gets, mut hits, mut hot_hits, mut deletes, mut puts) = (0, 0, 0, 0, 0);
            for _ in 0..20_000 {
                let hot: HashSet<u64> = workload.live().take(workload.hot_len().min(50)).collect();
                let small = workload.hot_len() <= 50;
                match workload.next() {
                    Command::Get { hit: false, .. } => gets += 1,
                    Command::Get { index, hit: true } => {
                        (gets, hits) = (gets + 1, hits + 1);
                        // Counts only while the hot keys are few enough to list.
                        hot_hits += u32::from(small && hot.contains(&index));
                    }
                    Command::Put { .. } => puts += 1,
                    Command::Delete { .. } => deletes += 1,
                }
            }
            assert!(near(gets, 20_000, read_fraction) && near(hits, gets, hit_rate), "{gets} {hits}");
            assert!(near(deletes, puts + deletes, DELETE_SHARE), "{deletes} {puts}");
            assert!(hot_hits > 0);
        }
    }

    #[test]
    fn hot_keys_get_their_rate() {
        let mut workload = Workload::new(&Mix { read_fraction: 0.0, ..mix() }, 0);
        for _ in 0..500 {
            workload.next();
        }
        workload.mix = Mix { read_fraction: 1.0, hit_rate: 1.0, ..mix() };
        let hot: HashSet<u64> = workload.live().take(workload.hot_len()).collect();
        let mut hits = 0;
        for _ in 0..20_000 {
            let Command::Get { index, hit: true } = workload.next() else {
                panic!("only hits were asked for")
            };
            hits += u32::from(hot.contains(&index));
        }
        assert!(near(hits, 20_000, 0.7), "{hits}");
    }

    #[test]
    fn reads_and_deletes_name_live_keys_and_misses_do_not() {
        let mut workload = Workload::new(&mix(), 1);
        let mut there = HashSet::new();
        for _ in 0..20_000 {
            match workload.next() {
                Command::Get { index, hit } => assert_eq!(there.contains(&index), hit),
                Command::Put { index } => assert!(there.insert(index)),
                Command::Delete { index } => assert!(there.remove(&index)),
            }
        }
        assert_eq!(workload.live().collect::<HashSet<_>>(), there);
        assert_eq!(workload.live_bytes(), there.len() as u64 * 56);
    }

    #[test]
    fn the_same_seed_gives_the_same_commands_and_threads_differ() {
        let commands = |thread| {
            let mut workload = Workload::new(&mix(), thread);
            std::iter::repeat_with(|| workload.next()).take(1000).collect::<Vec<_>>()
        };
        assert_eq!(commands(1), commands(1));
        assert_ne!(commands(0), commands(1));
    }
}
