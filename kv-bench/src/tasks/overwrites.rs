//! Overwrites of uniform keys for a while, by one thread.

use crate::failure::Failure;
use crate::load::{Dataset, KEY_LEN_MAX, Truth, sequence};
use crate::subjects::Subject;
use fastrand::Rng;
use std::time::{Duration, Instant};

/// Overwrites between two looks at the clock.
const LOOK_EVERY: u64 = 256;

/// Overwrites keys `0..keys` in an order that follows from the seed. It keeps no list of them, so
/// that it takes no memory.
pub(super) struct Overwrites<'a> {
    subject: &'a dyn Subject,
    data: &'a Dataset,
    keys: u64,
    seed: u64,
    rng: Rng,
    done: u64,
    value: Vec<u8>,
}

impl<'a> Overwrites<'a> {
    pub(super) fn new(subject: &'a dyn Subject, data: &'a Dataset, keys: u64, seed: u64) -> Self {
        Overwrites { subject, data, keys, seed, rng: Rng::with_seed(seed), done: 0, value: Vec::new() }
    }

    /// Overwrites at full speed for this long; returns the rate, 1/s.
    pub(super) fn run_for(&mut self, time: Duration) -> Result<f64, Failure> {
        let (start, before) = (Instant::now(), self.done);
        let mut key = [0; KEY_LEN_MAX];
        while start.elapsed() < time {
            for _ in 0..LOOK_EVERY {
                let index = self.rng.u64(..self.keys);
                self.data.value(index, sequence(1, 0, self.done), &mut self.value);
                self.subject.put(self.data.key(index, &mut key), &self.value)?;
                self.done += 1;
            }
        }
        Ok((self.done - before) as f64 / start.elapsed().as_secs_f64())
    }

    /// The truth after the fill and these overwrites.
    pub(super) fn truth(&self) -> Truth {
        let (mut truth, mut rng) = (Truth::filled(self.keys), Rng::with_seed(self.seed));
        for place in 0..self.done {
            truth.write(rng.u64(..self.keys), 0, sequence(1, 0, place));
        }
        truth
    }
}
