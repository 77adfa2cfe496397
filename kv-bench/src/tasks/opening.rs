//! The next open of a store, by the log engine, from a disk whose cache is cold: the time to the
//! first read, the warm-up, and reads meanwhile.

use crate::failure::Failure;
use crate::load::{Dataset, KEY_LEN_MAX, Shape, Truth, sequence, touch};
use crate::process::cache::evict;
use crate::process::probe::milliseconds;
use crate::process::{Measured, Run, Task, child};
use crate::subjects::{KvEngine, Subject};
use fastrand::Rng;
use kv_log::{OnRequest, Options};
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Another process fills a store and ends. Then this process opens it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Opening {
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    pub(crate) before: Before,
    /// Whether a thread reads during the warm-up.
    pub(crate) reads: bool,
}

/// The end of the process before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Before {
    /// It wrote a checkpoint, overwrote a hundredth of the keys, and was killed.
    KilledAfterCheckpoint,
    /// The same without a checkpoint.
    Killed,
    /// It closed the store, which wrote a checkpoint.
    Closed,
}

/// Fills a store and ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FillAndEnd(Opening);

/// Limits of the process before, and of the warm-up.
const LIMIT: Duration = Duration::from_mins(5);
/// Reads between two looks at the warm-up.
const READS_A_LOOK: u64 = 64;
/// Time of the reads of a warm store.
const WARM_READS: Duration = Duration::from_millis(500);

impl Opening {
    /// Keys that the process before overwrites.
    fn changes(&self) -> u64 {
        if self.before == Before::Closed { 0 } else { self.keys / 100 }
    }

    /// The indexes of those keys, in the order of the changes.
    fn changed(&self) -> impl Iterator<Item = u64> {
        let (mut rng, keys) = (Rng::with_seed(self.shape.seed), self.keys);
        std::iter::repeat_with(move || rng.u64(..keys)).take(usize::try_from(self.changes()).unwrap_or(0))
    }

    fn truth(&self) -> Truth {
        let mut truth = Truth::filled(self.keys);
        for (place, index) in (0..).zip(self.changed()) {
            truth.write(index, 0, sequence(1, 0, place));
        }
        truth
    }
}

impl Task for Opening {
    const NAME: &'static str = "opening";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let prepare = run.with(&FillAndEnd(self))?;
        match self.before {
            Before::Closed => child::measure(&prepare, LIMIT).map(drop)?,
            _ => child::kill_when_ready(&prepare)?,
        }
        evict(&run.dir)?;
        let data = Dataset::new(self.shape);
        let options = Options { checkpoint: Arc::new(OnRequest), ..Options::default() };
        let mut key = [0; KEY_LEN_MAX];
        let first_key = data.key(self.keys / 2, &mut key);
        let start = Instant::now();
        let subject = KvEngine::open_log(&run.dir, options)?;
        let open_ms = milliseconds(start);
        let is_found = subject.read(first_key, &mut |value| {
            black_box(touch(value));
        })?;
        let first_read_ms = milliseconds(start);
        if !is_found {
            return Err(Failure::Wrong("the first read did not find its key".to_owned()));
        }
        let mut measured = Measured::default();
        self.warm_up(&subject, &data, &mut measured)?;
        let report = subject.0.stats().recovery;
        let is_from_checkpoint = report.checkpoint_bytes > 0;
        // A small store gets no checkpoint when it closes.
        if self.before != Before::Closed
            && is_from_checkpoint != (self.before == Before::KilledAfterCheckpoint)
        {
            return Err(Failure::Wrong(format!(
                "the open did not use the checkpoint as planned: {report:?}"
            )));
        }
        measured.add("open_ms", open_ms);
        measured.add("first_read_ms", first_read_ms);
        measured.add("replayed_records", report.records as f64);
        measured.add("adopted_bytes", report.adopted_bytes as f64);
        if is_from_checkpoint {
            let per_key = report.checkpoint_bytes as f64 / report.checkpoint_keys as f64;
            measured.add("checkpoint_per_key_bytes", per_key);
        }
        self.truth().verify(&subject, &data)?;
        // The process exits without a close, which would only cost time.
        std::mem::forget(subject);
        Ok(measured)
    }
}

impl Opening {
    /// Waits until the store is warm, and reads meanwhile or not.
    fn warm_up(&self, subject: &KvEngine, data: &Dataset, measured: &mut Measured) -> Result<(), Failure> {
        let left = || subject.0.stats().warm_up_bytes;
        let (start, bytes) = (Instant::now(), left());
        if !self.reads {
            while left() > 0 {
                if start.elapsed() > LIMIT {
                    return Err(Failure::Wrong(format!("the warm-up hangs, {} bytes are left", left())));
                }
                thread::sleep(Duration::from_micros(200));
            }
            if bytes > 0 {
                measured.add("warm_up_bytes_per_s", bytes as f64 / start.elapsed().as_secs_f64());
            }
            return Ok(());
        }
        let mut rng = Rng::with_seed(self.shape.seed);
        let mut read_while = |goes_on: &dyn Fn(Instant) -> bool| {
            let (start, mut reads, mut touched) = (Instant::now(), 0, 0_u64);
            let mut key = [0; KEY_LEN_MAX];
            while reads == 0 || goes_on(start) {
                for _ in 0..READS_A_LOOK {
                    let key = data.key(rng.u64(..self.keys), &mut key);
                    subject.read(key, &mut |value| touched = touched.wrapping_add(touch(value)))?;
                }
                reads += READS_A_LOOK;
            }
            black_box(touched);
            Ok::<_, Failure>(reads as f64 / start.elapsed().as_secs_f64())
        };
        let meanwhile = read_while(&|start| left() > 0 && start.elapsed() < LIMIT)?;
        measured.add("read_meanwhile_per_s", meanwhile);
        measured.add("read_warm_per_s", read_while(&|start| start.elapsed() < WARM_READS)?);
        Ok(())
    }
}

impl Task for FillAndEnd {
    const NAME: &'static str = "fill-and-end";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let task = self.0;
        let mut options = Options::default();
        if task.before != Before::Closed {
            options.checkpoint = Arc::new(OnRequest);
        }
        let subject = KvEngine::open_log(&run.dir, options)?;
        let data = Dataset::new(task.shape);
        data.fill(0..task.keys, |_, key, value| subject.put(key, value))?;
        subject.sync()?;
        if task.before == Before::KilledAfterCheckpoint {
            let checkpoint = subject.0.as_checkpoint();
            checkpoint.ok_or_else(|| Failure::Worker("it writes no checkpoints".to_owned()))?.checkpoint()?;
        }
        let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
        for (place, index) in (0..).zip(task.changed()) {
            data.value(index, sequence(1, 0, place), &mut value);
            subject.put(data.key(index, &mut key), &value)?;
        }
        if task.before == Before::Closed {
            Box::new(subject).close()?;
            return Ok(Measured::default());
        }
        loop {
            // The write fails once the parent is gone, which ends a process that no parent will
            // kill.
            println!("ready");
            std::io::stdout().flush().map_err(Failure::io("report to the parent process"))?;
            thread::sleep(Duration::from_secs(1));
        }
    }
}
