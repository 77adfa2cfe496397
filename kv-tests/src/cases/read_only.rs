//! Stores that are opened for reading only.

use super::case;
use crate::failure::{InWords, ensure, fail};
use crate::oracle::state_of;
use crate::rig::{Policy, Rig, Setup};
use crate::scenario::Run;
use crate::sim::{PowerCut, SimFs};
use crate::workload::{Op, random_ops};
use crate::{Case, CaseResult, Context, Failure, Level, Need};
use kv_core::fs::FsExt;
use kv_core::{Batch, Engine, Error, Lsn, OpenOptions, Result};
use std::sync::Arc;

pub(crate) const CASES: &[Case] = &[
    case(
        "read_only::required_kv441_readers_share_the_store",
        Level::Required,
        &[Need::ReadOnly],
        "Readers share a store and exclude a writer, and a writer excludes readers.",
        readers_share_the_store,
    ),
    case(
        "read_only::required_kv442_nothing_is_written",
        Level::Required,
        &[Need::ReadOnly, Need::SimulatedFs, Need::Inline],
        "A reader shows the state that a writer would recover, also after a crash, and changes nothing on the disk.",
        nothing_is_written,
    ),
    case(
        "read_only::required_kv443_changes_are_refused",
        Level::Required,
        &[Need::ReadOnly],
        "A reader answers changes and syncs with ReadOnly, and closes without an error.",
        changes_are_refused,
    ),
    case(
        "read_only::required_kv444_unsupported_where_not_offered",
        Level::Required,
        &[],
        "An engine that does not open for reading only answers Unsupported and touches nothing.",
        unsupported_where_not_offered,
    ),
];

fn open_reader(rig: &Rig) -> Result<Arc<dyn Engine>> {
    rig.open_with(&OpenOptions { read_only: true, ..rig.setup.options() })
}

fn readers_share_the_store(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    for rig in [context.rig(setup)?, context.real_rig(setup)?] {
        let writer = rig.open()?;
        writer.put(b"k", b"v")?;
        let refused = |answer: Result<_>, name: &str| match answer {
            Err(Error::Locked { .. }) => Ok(()),
            Ok(_) => Err(Failure::new(format!("{name} opened a store that the other kind holds"))),
            Err(error) => Err(Failure::new(format!("{name} is answered with {error}, not Locked"))),
        };
        refused(open_reader(&rig), "a reader")?;
        writer.close()?;
        let readers = [open_reader(&rig)?, open_reader(&rig)?];
        for reader in &readers {
            let found = reader.get(b"k")?;
            ensure!(found.as_deref() == Some(b"v".as_slice()), "one of two readers sees {found:?}");
        }
        for reader in readers {
            refused(rig.open(), "a writer")?;
            reader.close()?;
        }
        let writer = rig.open()?;
        refused(open_reader(&rig), "a reader")?;
        writer.close()?;
        open_reader(&rig)?.close()?;
    }
    Ok(())
}

fn nothing_is_written(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for round in 0..context.scaled(60) {
        let policy = rng.choice([Policy::Always, Policy::MaxLogSize(300)]).unwrap_or(Policy::Always);
        let setup = Setup::tiny(context, policy);
        let mut ops = random_ops(&mut rng, 60, 8);
        ops.insert(30, Op::Reopen);
        // A closed store, a power cut that may tear the tail, or a death that leaves unsynced
        // bytes.
        let image = match Run::until_cut(context, setup, &ops, rng.u64(4..150)) {
            Some(run) if round % 3 == 1 => run.disk.power_cut(context.power_cut(round)),
            Some(run) if round % 3 == 2 => run.disk.process_death(),
            _ => {
                let run = Run::on(context, SimFs::new(), setup, &ops);
                run.engine.map_or(Ok(()), |engine| engine.close())?;
                run.disk.process_death()
            }
        };
        context.explored().crash_state();
        let (copy, before) = (image.process_death(), image.files());
        let reader = open_reader(&context.sim_rig(image.clone(), setup));
        let lost = image.power_cut(PowerCut::LOSE_ALL);
        let recovered = context.sim_rig(copy, setup).open()?;
        let expected = state_of(&*recovered)?;
        match reader {
            Ok(reader) => {
                ensure!(
                    state_of(&*reader)? == expected,
                    "a reader shows another state than a writer recovers"
                );
                let (read, written) = (reader.last_lsn(), recovered.last_lsn());
                ensure!(read == written, "a reader is at LSN {read}, a writer recovers {written}");
                let durable = reader.durable_lsn();
                ensure!(durable <= read, "a reader calls LSN {durable} durable and shows only {read}");
                reader.wait_durable(durable)?;
                reader.close()?;
                let left = context.sim_rig(lost, setup).open()?.last_lsn();
                ensure!(left >= durable, "a reader calls LSN {durable} durable, a power cut leaves {left}");
            }
            // The crash happened before the store existed.
            Err(Error::NotAStore { .. }) if expected.is_empty() => {}
            Err(error) => fail!("a reader opens every store that a writer opens, but: {error}"),
        }
        ensure!(
            image.mutations() == 0 && image.files() == before,
            "a reader changed the disk by {} operations",
            image.mutations()
        );
    }
    Ok(())
}

fn changes_are_refused(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    for rig in [context.rig(setup)?, context.real_rig(setup)?] {
        match open_reader(&rig).map(drop) {
            Err(Error::NotAStore { .. }) => {}
            other => fail!(
                "opening a missing store for reading is answered with {other}, not NotAStore",
                other = other.in_words()
            ),
        }
        ensure!(rig.fs().list_if_exists(rig.dir())?.is_none(), "a reader created the directory");
        let writer = rig.open()?;
        let last = writer.put(b"k", b"v")?;
        writer.close()?;
        let reader = open_reader(&rig)?;
        let mut batch = Batch::new();
        batch.put(b"a", b"b").delete(b"k");
        let answers = [
            ("put", reader.put(b"k", b"w").err()),
            ("delete", reader.delete(b"k").err()),
            ("apply", reader.apply(&batch).err()),
            ("sync", reader.sync().err()),
        ];
        for (name, answer) in answers {
            ensure!(
                matches!(answer, Some(Error::ReadOnly)),
                "{name} of a reader is answered with {}, not ReadOnly",
                answer.as_ref().map_or("success".to_owned(), |error| format!("\"{error}\""))
            );
        }
        reader.wait_durable(last)?;
        let beyond = reader.wait_durable(Lsn::new(last.get() + 1));
        ensure!(beyond.is_err(), "a reader waited for an LSN that was never given out");
        ensure!(
            reader.get(b"k")?.as_deref() == Some(b"v".as_slice()) && reader.last_lsn() == last,
            "a refused change of a reader is visible"
        );
        reader.close()?;
        let closed = reader.put(b"k", b"w");
        ensure!(matches!(closed, Err(Error::Closed)), "a closed reader answers a put with {closed:?}");
    }
    Ok(())
}

fn unsupported_where_not_offered(context: &Context) -> CaseResult {
    if context.factory().capabilities().read_only {
        return Ok(());
    }
    let rig = context.rig(Setup::tiny(context, Policy::Manual))?;
    let refused = || match open_reader(&rig) {
        Err(Error::Unsupported(_)) => Ok(()),
        Err(error) => Err(Failure::new(format!("opening for reading only is answered with: {error}"))),
        Ok(_) => Err(Failure::new("an engine without the capability opens for reading only")),
    };
    refused()?;
    ensure!(rig.fs().list_if_exists(rig.dir())?.is_none(), "the refused open created the directory");
    rig.open()?.close()?;
    refused()?;
    rig.open()?.close()?;
    Ok(())
}
