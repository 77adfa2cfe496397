//! How long opening takes after the process was killed, as data grow.

use crate::child;
use crate::dataset::{Dataset, Shape};
use crate::engines::Contender;
use crate::evaluation::Evaluation;
use crate::failure::Failure;
use crate::figure::{Figure, Kind, Series};
use crate::report::{Section, Table};
use crate::results::{median, parameters};
use crate::scratch::Scratch;
use crate::units;
use crate::verify::verify;
use crate::worker::{Measured, Run, Task, directory_bytes, milliseconds};
use kv_core::{FsExt, OsFs};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Keys of the largest store, unless they are too large for so many.
const KEYS: u64 = 200_000;
/// Bytes of the largest store.
const STORE_BYTES_MAX: u64 = 128 << 20;

/// Plans and reports.
pub(crate) fn run(evaluation: &mut Evaluation<'_>) -> Result<(), Failure> {
    let options = evaluation.options;
    let shape = evaluation.shape();
    let keys_max = shape.at_most(options.scaled(KEYS), STORE_BYTES_MAX);
    let mut table =
        Table::new(["engine", "keys", "data, MB", "recovery, ms", "MB/s", "disk, MB", "records replayed"]);
    let mut curves = Vec::new();
    for contender in options.engines.iter().map(|engine| engine.standard()) {
        let label = contender.label();
        let mut points = Vec::new();
        for keys in [8, 4, 2, 1].map(|part| keys_max.div_ceil(part)) {
            let dir = evaluation.scratch.fresh_dir();
            let run = |task| Run { dir: dir.clone(), task };
            child::kill_when_ready(&run(Task::FillUntilKilled { contender, shape, keys }))?;
            let mut runs = Vec::new();
            for _ in 0..options.repetitions() {
                runs.push(child::measure(&run(Task::Recover { contender, shape, keys }))?);
            }
            Scratch::remove(&dir)?;
            let parameters = parameters(&[
                ("keys", keys.into()),
                ("key_len", shape.key_len.into()),
                ("value_len", shape.value_len.into()),
            ]);
            evaluation.results.add_all("recovery", &label, &parameters, &runs);
            let of = |name: &str| median(&runs.iter().filter_map(|run| run.get(name)).collect::<Vec<_>>());
            let data_mb = (keys * shape.pair_len()) as f64 / 1e6;
            let recovery_ms = of("recovery_ms");
            points.push((data_mb, recovery_ms));
            table.push([
                label.clone(),
                units::count(keys),
                units::number(data_mb),
                units::number(recovery_ms),
                units::number(data_mb / recovery_ms * 1e3),
                units::number(of("disk_bytes") / 1e6),
                units::number(of("recovered_records")),
            ]);
        }
        curves.push(Series::new(&label, points).styled(contender.engine.place(), false));
    }
    evaluation.sections.push(Section {
        title: "Recovery after a kill".to_owned(),
        method: format!(
            "Puts of new keys, pairs of {} + {} bytes, and a sync; then the process is killed (SIGKILL). Time of the \
             next open, with the files in the system's cache; median of {} opens, none of which closes. After each, \
             every key and value is verified.",
            shape.key_len,
            shape.value_len,
            options.repetitions()
        ),
        table,
        figures: vec![Figure {
            title: "Recovery time over data size".to_owned(),
            x: "MB of keys and values".to_owned(),
            y: "ms".to_owned(),
            kind: Kind::Lines,
            series: curves,
        }],
    });
    Ok(())
}

/// Puts `keys` keys, makes them durable, says so, and waits to be killed.
pub(crate) fn fill_until_killed(
    dir: &Path,
    contender: Contender,
    shape: Shape,
    keys: u64,
) -> Result<(), Failure> {
    let data = Dataset::new(shape);
    let engine = contender.open(dir)?;
    data.fill(0..keys, |_, key, value| engine.put(key, value).map(drop))?;
    engine.sync()?;
    let failed = || Failure::io("report to the parent process");
    println!("ready");
    std::io::stdout().flush().map_err(failed())?;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        // Fails when the parent is gone: nobody will kill this process then.
        println!("still here");
        std::io::stdout().flush().map_err(failed())?;
    }
}

/// Reads all files: an engine may have written them past the system's cache.
fn bring_into_cache(dir: &Path) -> Result<(), Failure> {
    for name in OsFs.list_if_exists(dir)?.unwrap_or_default() {
        OsFs.read_file(&dir.join(name))?;
    }
    Ok(())
}

pub(crate) fn measure(
    dir: &Path,
    contender: Contender,
    shape: Shape,
    keys: u64,
) -> Result<Measured, Failure> {
    let data = Dataset::new(shape);
    let mut measured = Measured::default();
    measured.add("disk_bytes", directory_bytes(dir)?);
    bring_into_cache(dir)?;
    let start = Instant::now();
    let engine = contender.open(dir)?;
    measured.add("recovery_ms", milliseconds(start));
    let found = engine.stats().recovery;
    measured.add("recovered_records", found.records as f64);
    measured.add("recovered_bytes", found.bytes as f64);
    verify(&*engine, &data, (0..keys).map(|index| (index, index)))?;
    // The next open shall have as much to do as this one: the process ends without a close.
    std::mem::forget(engine);
    Ok(measured)
}
