//! Speed in memory: puts and gets of the log engine, which writes to disk meanwhile, against tables that
//! never persist.

use crate::dataset::{Dataset, KEY_LEN_MAX, Shape, touch};
use crate::engines::{Contender, EngineName, Policy};
use crate::evaluation::Evaluation;
use crate::failure::Failure;
use crate::report::{Section, Table};
use crate::results::{median, parameters};
use crate::units;
use crate::verify::verify;
use crate::worker::{Measured, Task};
use dashmap::DashMap;
use fastrand::Rng;
use kv_core::Engine;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const METRICS: [(&str, &str); 3] = [("put", "put_per_s"), ("read", "read_per_s"), ("get", "get_per_s")];

/// Runs the contenders in an order that turns with each repetition, and reports medians and ratios.
pub(crate) fn run(evaluation: &mut Evaluation<'_>) -> Result<(), Failure> {
    let options = evaluation.options;
    let keys = options.scaled(300_000);
    let mut contenders: Vec<Option<Contender>> = Vec::new();
    if options.has(EngineName::Log) {
        contenders.push(Some(EngineName::Log.standard()));
    }
    if options.has(EngineName::Naive) {
        contenders.push(Some(Contender::new(EngineName::Naive, Policy::Manual)));
    }
    contenders.push(None);
    let labels: Vec<String> = contenders
        .iter()
        .map(|contender| contender.map_or("bare dashmap".to_owned(), Contender::label))
        .collect();
    let compares = options.has(EngineName::Log);
    // Ratios are what is asked for, and single runs scatter: some more of them.
    let repetitions = options.repetitions() + if options.quick { 0 } else { 2 };

    let mut header = vec!["operation".to_owned(), "values".to_owned(), "threads".to_owned()];
    header.extend(labels.iter().map(|label| format!("{label}, 1/s")));
    if compares {
        header.extend(labels.iter().skip(1).map(|label| format!("log / {label}")));
    }
    let mut table = Table::new(header);
    for value_len in [100, 500] {
        for threads in [1, 2] {
            let shape = Shape { value_len, ..evaluation.shape() };
            let mut measured = vec![Vec::new(); contenders.len()];
            for repetition in 0..repetitions {
                for turn in 0..contenders.len() {
                    let at = (turn + repetition) % contenders.len();
                    let (Some(contender), Some(measured)) = (contenders.get(at), measured.get_mut(at)) else {
                        continue;
                    };
                    let task = Task::Speed { contender: *contender, shape, keys, threads };
                    measured.push(evaluation.scratch.measure(task)?);
                }
            }
            let parameters = parameters(&[
                ("keys", keys.into()),
                ("key_len", shape.key_len.into()),
                ("value_len", value_len.into()),
                ("threads", threads.into()),
            ]);
            for (label, runs) in labels.iter().zip(&measured) {
                let stalls: Vec<f64> = runs.iter().filter_map(|run| run.get("put_stall_ms")).collect();
                evaluation.results.add("speed", label, &parameters, "put_stall_ms", "ms", &stalls);
            }
            for (operation, metric) in METRICS {
                let rates: Vec<Vec<f64>> = measured
                    .iter()
                    .map(|runs| runs.iter().filter_map(|run: &Measured| run.get(metric)).collect())
                    .collect();
                let mut row = vec![operation.to_owned(), format!("{value_len} B"), threads.to_string()];
                for (label, rates) in labels.iter().zip(&rates) {
                    let rate = evaluation.results.add("speed", label, &parameters, metric, "1/s", rates);
                    row.push(units::number(rate));
                }
                if let (true, [log, tables @ ..]) = (compares, rates.as_slice()) {
                    for (label, table) in labels.iter().skip(1).zip(tables) {
                        // Medians first: a slow moment of the machine then spoils one run, not a ratio.
                        let ratio = median(log) / median(table);
                        let metric = format!("{operation}_ratio_to_{label}");
                        evaluation.results.add("speed", "log", &parameters, &metric, "x", &[ratio]);
                        row.push(format!("{ratio:.2}x"));
                    }
                }
                table.push(row);
            }
        }
    }
    evaluation.sections.push(Section {
        title: "Speed in memory".to_owned(),
        method: format!(
            "{} puts of new keys of {} bytes, then reads and gets of each in random order, a byte of every cache \
             line looked at. `read` borrows the value, `get` returns one that can be kept. The log writes to disk \
             while the puts go on, and lets them wait when too much is unwritten (put_stall_ms tells how long); the gets begin when it has. Neither table is ever written. Threads share the \
             keys. Median of {} runs in processes of their own, in turning order.",
            units::count(keys),
            evaluation.shape().key_len,
            repetitions
        ),
        table,
        figures: Vec::new(),
    });
    Ok(())
}

/// What is measured: an engine, or a table without one.
trait Store: Sync {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure>;
    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, Failure>;
    /// Gets a value that can be kept; returns what [`touch`] makes of it.
    fn get(&self, key: &[u8]) -> Result<Option<u64>, Failure>;
}

impl Store for Arc<dyn Engine> {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        Engine::put(&**self, key, value)?;
        Ok(())
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, Failure> {
        Ok(Engine::read(&**self, key, visit)?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<u64>, Failure> {
        Ok(Engine::get(&**self, key)?.map(|value| touch(&value)))
    }
}

/// The volatile table that an engine is held against.
type Volatile = DashMap<Vec<u8>, Vec<u8>, foldhash::fast::RandomState>;

impl Store for Volatile {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, Failure> {
        Ok(DashMap::get(self, key).map(|value| visit(value.value())).is_some())
    }

    fn get(&self, key: &[u8]) -> Result<Option<u64>, Failure> {
        Ok(DashMap::get(self, key).map(|value| value.value().clone()).map(|value| touch(&value)))
    }
}

pub(crate) fn measure(
    dir: &Path,
    contender: Option<Contender>,
    shape: Shape,
    keys: u64,
    threads: u64,
) -> Result<Measured, Failure> {
    let data = Dataset::new(shape);
    let mut measured = Measured::default();
    if let Some(contender) = contender {
        let engine = contender.open(dir)?;
        puts(&engine, &data, keys, threads, &mut measured)?;
        measured.add("put_stall_ms", engine.stats().stall_time.as_secs_f64() * 1e3);
        if contender.policy != Policy::Manual {
            engine.sync()?;
        }
        gets(&engine, &data, keys, threads, &mut measured)?;
        verify(&*engine, &data, (0..keys).map(|index| (index, index)))?;
        // The process ends without a close, and what it would write.
        std::mem::forget(engine);
    } else {
        let table = Volatile::default();
        puts(&table, &data, keys, threads, &mut measured)?;
        gets(&table, &data, keys, threads, &mut measured)?;
    }
    Ok(measured)
}

fn puts(
    store: &impl Store,
    data: &Dataset,
    keys: u64,
    threads: u64,
    measured: &mut Measured,
) -> Result<(), Failure> {
    let (rate, _) = timed(keys, threads, |range| {
        data.fill(range, |_, key, value| store.put(key, value))?;
        Ok(0)
    })?;
    measured.add("put_per_s", rate);
    Ok(())
}

fn gets(
    store: &impl Store,
    data: &Dataset,
    keys: u64,
    threads: u64,
    measured: &mut Measured,
) -> Result<(), Failure> {
    let mut order: Vec<u64> = (0..keys).collect();
    Rng::with_seed(data.shape().seed).shuffle(&mut order);
    let mut value = Vec::new();
    let expected: u64 = (0..keys)
        .map(|index| {
            data.value(index, index, &mut value);
            touch(&value)
        })
        .sum();
    let at = |place: u64| usize::try_from(place).ok().and_then(|place| order.get(place)).copied();
    let read = timed(keys, threads, |range| {
        let (mut key, mut sum) = ([0; KEY_LEN_MAX], 0u64);
        for index in range.filter_map(at) {
            store.read(data.key(index, &mut key), &mut |value| sum += touch(value))?;
        }
        Ok(sum)
    })?;
    let got = timed(keys, threads, |range| {
        let (mut key, mut sum) = ([0; KEY_LEN_MAX], 0u64);
        for index in range.filter_map(at) {
            sum += store.get(data.key(index, &mut key))?.unwrap_or_default();
        }
        Ok(sum)
    })?;
    if read.1 != expected || got.1 != expected {
        return Err(Failure::Wrong("the gets did not see the values that were put".to_owned()));
    }
    measured.add("read_per_s", read.0);
    measured.add("get_per_s", got.0);
    Ok(())
}

/// Shares `0..keys` among threads; returns keys a second, and the sum of what the threads return.
fn timed(
    keys: u64,
    threads: u64,
    work: impl Fn(std::ops::Range<u64>) -> Result<u64, Failure> + Sync,
) -> Result<(f64, u64), Failure> {
    let start = Instant::now();
    let sum = std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || work(thread * keys / threads..(thread + 1) * keys / threads)))
            .collect();
        running.into_iter().try_fold(0, |sum, thread| {
            let part = thread.join().map_err(|_| Failure::Wrong("a thread panicked".to_owned()))?;
            Ok::<_, Failure>(sum + part?)
        })
    })?;
    Ok((keys as f64 / start.elapsed().as_secs_f64(), sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_run_of_each() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        for contender in [Some(EngineName::Log.standard()), Some(EngineName::Naive.standard()), None] {
            let dir = tempfile::tempdir().unwrap();
            let measured = measure(dir.path(), contender, shape, 1001, 2).unwrap();
            assert_eq!(measured.values.len(), if contender.is_some() { 4 } else { 3 });
        }
    }
}
