//! Latency under open load: operations are due at fixed times, however long the ones before take.
//!
//! A client that waits for each answer sends nothing while the store stalls, and so hides the stall
//! from all operations but one (*coordinated omission*; Schroeder, Wierman and Harchol-Balter,
//! "Open Versus Closed", NSDI 2006). Here, latency counts from the time when the operation was due.

use crate::failure::Failure;
use crate::load::{Access, Dataset, KEY_LEN_MAX, Planner, Shape, Truth, WRITES, sequence, touch};
use crate::process::probe::{histogram, nanoseconds};
use crate::process::{Measured, Run, Task};
use crate::subjects::{Policy, Subject, SubjectName};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::hint::{black_box, spin_loop};
use std::time::{Duration, Instant};

/// Half puts and half reads of zipfian keys by one thread: first at the highest rate, and then at a
/// share of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenLoad {
    pub(crate) subject: SubjectName,
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    /// Operations of each of the two parts.
    pub(crate) operations: u64,
    /// Share of the highest rate.
    pub(crate) load: f64,
}

/// One thread that carries out plans.
struct Client<'a> {
    subject: &'a dyn Subject,
    data: &'a Dataset,
    truth: Truth,
    value: Vec<u8>,
    touched: u64,
}

impl Task for OpenLoad {
    const NAME: &'static str = "open load";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let OpenLoad { subject, shape, keys, operations, load } = self;
        let data = Dataset::new(shape);
        let mut planner = Planner::new(keys, shape.seed);
        let [highest, open] =
            [1, 2].map(|phase| planner.plans(phase, Access::Zipfian, operations, 1, 0.5).concat());
        let subject = subject.under(Policy::Default).open(&run.dir)?;
        data.fill(0..keys, |_, key, value| subject.put(key, value))?;
        subject.sync()?;
        let truth = Truth::filled(keys);
        let mut client = Client { subject: &*subject, data: &data, truth, value: Vec::new(), touched: 0 };
        let start = Instant::now();
        for (place, entry) in (0..).zip(&highest) {
            client.carry_out(*entry, sequence(1, 0, place))?;
        }
        let highest_per_s = highest.len() as f64 / start.elapsed().as_secs_f64();
        let interval = 1.0 / (highest_per_s * load);
        let (mut puts, mut gets) = (histogram(), histogram());
        let start = Instant::now();
        for (place, entry) in (0..).zip(&open) {
            let due = start + Duration::from_secs_f64(interval * place as f64);
            while Instant::now() < due {
                spin_loop();
            }
            client.carry_out(*entry, sequence(2, 0, place))?;
            let of_kind: &mut Histogram<u64> = if entry & WRITES != 0 { &mut puts } else { &mut gets };
            of_kind.saturating_record(nanoseconds(due));
        }
        black_box(client.touched);
        let mut measured = Measured::default();
        measured.add("highest_per_s", highest_per_s);
        measured.add("done_per_s", open.len() as f64 / start.elapsed().as_secs_f64());
        for (name, histogram) in [("put", puts), ("get", gets)] {
            measured.add_tail(name, &histogram);
        }
        client.truth.verify(&*subject, &data)?;
        Ok(measured)
    }
}

impl Client<'_> {
    /// Carries out one entry of a plan.
    #[inline]
    fn carry_out(&mut self, entry: u32, sequence: u64) -> Result<(), Failure> {
        let mut key = [0; KEY_LEN_MAX];
        let index = u64::from(entry & !WRITES);
        let key = self.data.key(index, &mut key);
        if entry & WRITES == 0 {
            let touched = &mut self.touched;
            self.subject.read(key, &mut |value| *touched = touched.wrapping_add(touch(value)))?;
            return Ok(());
        }
        self.data.value(index, sequence, &mut self.value);
        self.truth.write(index, 0, sequence);
        self.subject.put(key, &self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn operations_come_at_the_share_of_the_highest_rate() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        for subject in [SubjectName::Log, SubjectName::Dashmap] {
            let task = OpenLoad { subject, shape, keys: 1000, operations: 5000, load: 0.1 };
            let measured = measured(&task);
            let of = |name: &str| measured.get(name).unwrap();
            assert!(of("done_per_s") <= 0.11 * of("highest_per_s"), "{measured:?}");
            assert!(of("put_p50_us") <= of("put_p9999_us") && of("get_p50_us") <= of("get_max_us"));
        }
    }
}
