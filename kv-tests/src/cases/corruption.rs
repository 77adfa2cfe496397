//! Damage to a closed store: the engine reports it, or has lost nothing.

use super::case;
use super::places::telling_places;
use super::stored::{Stored, another_store, check_error, data_files, enough, explain, flipped};
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Setup};
use crate::sim::{PowerCut, SimFs};
use crate::workload::{Op, random_ops, run_op};
use crate::{Case, CaseResult, Context, Level, Need};
use kv_core::Lsn;

const SIMULATED: &[Need] = &[Need::SimulatedFs, Need::Inline];

pub(crate) const CASES: &[Case] = &[
    case(
        "corruption::required_kv651_flipped_bits",
        Level::Required,
        SIMULATED,
        "A flipped bit at any place of a closed store is an error that names the file, or changes nothing.",
        flipped_bits,
    ),
    case(
        "corruption::required_kv652_flipped_bits_after_a_crash",
        Level::Required,
        SIMULATED,
        "After a crash a flipped bit is an error, or costs at most the changes of the last sync: never a hole, never more.",
        flipped_bits_after_a_crash,
    ),
    case(
        "corruption::required_kv653_zeroed_sectors",
        Level::Required,
        SIMULATED,
        "A zeroed sector of a closed store is an error that names the file, or changes nothing.",
        zeroed_sectors,
    ),
    case(
        "corruption::required_kv654_truncated_files",
        Level::Required,
        SIMULATED,
        "A file of a closed store that was cut at any length is an error that names it, or changes nothing.",
        truncated_files,
    ),
    case(
        "corruption::required_kv655_missing_files",
        Level::Required,
        SIMULATED,
        "A missing file of a closed store is an error, or changes nothing.",
        missing_files,
    ),
    case(
        "corruption::required_kv656_swapped_and_foreign_files",
        Level::Required,
        SIMULATED,
        "Two swapped files, or a file of another store, are an error, or change nothing.",
        swapped_and_foreign_files,
    ),
    case(
        "corruption::required_kv657_garbage",
        Level::Required,
        SIMULATED,
        "Garbage in a file of a closed store is an error that names it, or changes nothing; no panic.",
        garbage,
    ),
];

/// Bits to flip: one in each telling byte, another one for each further effort, at most all.
fn bits(context: &Context, bytes: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    let each = usize::try_from(context.scaled(1).min(8)).unwrap_or(8);
    let places = telling_places(context, bytes).into_iter();
    places.flat_map(move |at| (0..each).map(move |nth| (at, 1u8 << ((at * 5 + nth) % 8))))
}

fn flipped_bits(context: &Context) -> CaseResult {
    let stored = Stored::closed(context)?;
    for (path, whole) in &stored.files {
        for (at, mask) in bits(context, whole) {
            let damaged = Some(flipped(whole, at, mask));
            let what = || format!("byte {at} of {} xor {mask:#04x}", whole.len());
            context.set_doing(format!("{}: {}", path.display(), what()));
            stored
                .check(context, &[(path, damaged.clone())], true)
                .map_err(|failure| explain(failure, &stored.disk, path, &what(), damaged))?;
        }
    }
    enough(context)
}

/// Everything is durable, but the store was not closed. The engine cannot tell damage at the end
/// from a torn write, so the newest dump may be lost. Later records cover the dumps before it.
fn flipped_bits_after_a_crash(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    let setup = Setup::tiny(context, Policy::MaxLogSize(300));
    let disk = SimFs::new();
    let engine = context.sim_rig(disk.clone(), setup).open()?;
    let mut history = History::default();
    let mut dumps = vec![Lsn::ZERO];
    let mut ops = random_ops(&mut rng, 50, 12);
    ops.push(Op::Put { key: 1, len: 50 });
    ops.push(Op::Sync);
    for op in &ops {
        run_op(&*engine, op, &mut history)?;
        if dumps.last() != Some(&engine.durable_lsn()) {
            dumps.push(engine.durable_lsn());
        }
    }
    let crashed = disk.power_cut(PowerCut::LOSE_ALL);
    drop(engine);
    let before_last = dumps.iter().rev().nth(1).copied().unwrap_or(Lsn::ZERO);
    let owed = history.as_if_durable(before_last);
    for (path, whole) in data_files(&crashed) {
        for (at, mask) in bits(context, &whole) {
            context.explored().damage();
            let damaged = flipped(&whole, at, mask);
            let what = format!("byte {at} of {} xor {mask:#04x}", whole.len());
            context.set_doing(format!("{}: {what}", path.display()));
            let image = crashed.process_death();
            image.damage(&path, Some(damaged.clone()));
            let judged = match context.sim_rig(image, setup).open() {
                Err(error) => check_error(&error, &[&path], true),
                Ok(engine) => match state_of(&*engine) {
                    Err(error) => check_error(&error, &[&path], true),
                    Ok(state) => owed.check(&state),
                },
            };
            judged.map_err(|failure| explain(failure, &crashed, &path, &what, Some(damaged)))?;
        }
    }
    enough(context)
}

fn zeroed_sectors(context: &Context) -> CaseResult {
    const SECTOR_LEN: usize = 512;
    let stored = Stored::closed(context)?;
    for (path, whole) in &stored.files {
        // Whole sectors, and halves that begin in the middle of one.
        for start in (0..whole.len()).step_by(SECTOR_LEN / 2) {
            let mut damaged = whole.clone();
            damaged.iter_mut().skip(start).take(SECTOR_LEN).for_each(|byte| *byte = 0);
            let what = format!("{SECTOR_LEN} bytes from {start} of {} zeroed", whole.len());
            context.set_doing(format!("{}: {what}", path.display()));
            stored
                .check(context, &[(path, Some(damaged.clone()))], true)
                .map_err(|failure| explain(failure, &stored.disk, path, &what, Some(damaged)))?;
        }
    }
    enough(context)
}

fn truncated_files(context: &Context) -> CaseResult {
    let stored = Stored::closed(context)?;
    for (path, whole) in &stored.files {
        for len in telling_places(context, whole) {
            let damaged: Vec<u8> = whole.iter().take(len).copied().collect();
            let what = format!("cut to {len} of {} bytes", whole.len());
            context.set_doing(format!("{}: {what}", path.display()));
            stored
                .check(context, &[(path, Some(damaged.clone()))], true)
                .map_err(|failure| explain(failure, &stored.disk, path, &what, Some(damaged)))?;
        }
    }
    enough(context)
}

fn missing_files(context: &Context) -> CaseResult {
    let stored = Stored::closed(context)?;
    if !stored.has_several_files() {
        // Without its one file the store is gone, and no file is left to tell.
        return Ok(());
    }
    for (path, _) in &stored.files {
        context.set_doing(format!("{} removed", path.display()));
        stored
            .check(context, &[(path, None)], false)
            .map_err(|failure| explain(failure, &stored.disk, path, "removed", None))?;
    }
    Ok(())
}

fn swapped_and_foreign_files(context: &Context) -> CaseResult {
    let stored = Stored::closed(context)?;
    for (nth, (one, first)) in stored.files.iter().enumerate() {
        for (other, second) in stored.files.iter().skip(nth + 1) {
            let what = format!("swapped with {}", other.display());
            let damage = [(one.as_path(), Some(second.clone())), (other, Some(first.clone()))];
            stored
                .check(context, &damage, true)
                .map_err(|failure| explain(failure, &stored.disk, one, &what, Some(second.clone())))?;
        }
    }
    if !stored.has_several_files() {
        // With the one file of another store, the directory is the other store.
        return Ok(());
    }
    let foreign = another_store(context, &stored)?;
    for (path, bytes) in &foreign {
        let what = "replaced by the file of the same name of another store";
        stored
            .check(context, &[(path, Some(bytes.clone()))], false)
            .map_err(|failure| explain(failure, &stored.disk, path, what, Some(bytes.clone())))?;
    }
    Ok(())
}

fn garbage(context: &Context) -> CaseResult {
    let stored = Stored::closed(context)?;
    let mut rng = context.rng();
    for (path, whole) in &stored.files {
        for round in 0..context.scaled(300) {
            let mut damaged = whole.clone();
            let what = match round % 3 {
                0 => {
                    damaged = (0..rng.usize(0..whole.len() * 2 + 2)).map(|_| rng.u8(..)).collect();
                    "random bytes"
                }
                1 => {
                    let start = rng.usize(0..=whole.len());
                    damaged.iter_mut().skip(start).take(16).for_each(|byte| *byte = rng.u8(..));
                    "16 bytes overwritten with random ones"
                }
                _ => {
                    damaged.extend((0..rng.usize(1..600)).map(|_| rng.u8(..)));
                    "random bytes appended"
                }
            };
            if damaged == *whole {
                continue;
            }
            context.set_doing(format!("{}: {what}, round {round}", path.display()));
            stored
                .check(context, &[(path, Some(damaged.clone()))], true)
                .map_err(|failure| explain(failure, &stored.disk, path, what, Some(damaged)))?;
        }
    }
    enough(context)
}
