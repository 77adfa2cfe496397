//! Backups.

use super::moments::{Kept, long_ops, past_of, reached};
use crate::failure::{InWords, ensure, fail};
use crate::oracle::{State, state_of};
use crate::rig::{Keeps, Policy, Rig, Setup};
use crate::sim::{Fault, FaultKind, Repeat, SimFs};
use crate::{CaseResult, Context, Failure};
use kv_core::{Engine, Error, Lsn, OpenOptions, Past, Target};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn backup_dir(rig: &Rig) -> PathBuf {
    rig.dir().with_file_name("backup")
}

fn open_backup(context: &Context, rig: &Rig) -> kv_core::Result<Arc<dyn Engine>> {
    let options = OpenOptions { read_only: true, ..rig.setup.options() };
    context.factory().open(&backup_dir(rig), &rig.env(), &options)
}

pub(super) fn a_backup_holds_every_state(context: &Context) -> CaseResult {
    let mut rng = context.rng();
    for keeps in [Keeps::All, Keeps::Bytes(1500)] {
        let mut kept = Kept::new(context, Policy::Manual, keeps)?;
        let mut earlier: Option<State> = None;
        for round in 0..10 {
            for op in long_ops(&mut rng, 20) {
                kept.run(&op)?;
            }
            if let Some(earlier) = &earlier {
                let found = state_of(&*open_backup(context, &kept.rig)?)?;
                ensure!(found == *earlier, "changes of a store changed its backup");
            }
            let newest = kept.engine.last_lsn();
            if round == 3 {
                kept.past()?.pin("third", &Target::Lsn(newest), None)?;
            }
            let into = backup_dir(&kept.rig);
            let report = kept.past()?.backup(&into)?;
            ensure!(report.moment.lsn == newest, "a backup at LSN {newest} reaches {:?}", report.moment);
            check_backup(context, &kept, newest, round >= 3)?;
            earlier = Some(kept.history.state());
            let writer = context.factory().open(&into, &kept.rig.env(), &kept.rig.setup.options());
            ensure!(
                matches!(writer, Err(Error::NotAStore { .. })),
                "opening a backup for writing is answered with {}, not NotAStore",
                writer.map(drop).in_words()
            );
        }
        let other = kept.rig.dir().with_file_name("other");
        context.factory().open(&other, &kept.rig.env(), &kept.rig.setup.options())?.close()?;
        let refused = kept.past()?.backup(&other);
        ensure!(
            matches!(refused, Err(Error::InvalidArgument(_))),
            "a backup into a store is answered with {}, not InvalidArgument",
            refused.in_words()
        );
        kept.check_every_lsn(kept.past()?.window()?.first_lsn)?;
    }
    Ok(())
}

/// Checks every state of a backup against the model, and a restore of one.
fn check_backup(context: &Context, kept: &Kept, newest: Lsn, has_point: bool) -> CaseResult {
    let backup = open_backup(context, &kept.rig)?;
    let past = past_of(&*backup)?;
    let (window, of_store) = (past.window()?, kept.past()?.window()?);
    ensure!(
        window.last_lsn == newest && window.first_lsn <= of_store.first_lsn,
        "the window of a backup is {window}, and that of its store {of_store}"
    );
    let (reach, of_store) = (past.reach()?, kept.past()?.reach()?);
    for (lsn, state) in kept.history.states() {
        let is_target = reached(&reach, lsn) == lsn;
        ensure!(
            is_target || reached(&of_store, lsn) != lsn,
            "a backup does not reach LSN {lsn}, and its store does"
        );
        if lsn >= window.first_lsn && is_target {
            let found = state_of(&*past.read_at(&Target::Lsn(lsn))?.engine)?;
            ensure!(found == state, "a backup shows another state at LSN {lsn}");
        }
    }
    ensure!(state_of(&*backup)? == kept.history.state(), "a backup shows another newest state");
    let points = past.points()?;
    ensure!(points == kept.past()?.points()?, "a backup has the points {points:?}");
    if has_point {
        let target = Target::Point("third".to_owned());
        let into = kept.rig.dir().with_file_name(format!("restored{newest}"));
        let moment = past.restore(&target, &into)?;
        let restored = context.factory().open(&into, &kept.rig.env(), &kept.rig.setup.options())?;
        let expected = kept.state_at(moment.lsn);
        ensure!(state_of(&*restored)? == expected, "a restore from a backup has another state");
    }
    backup.close()?;
    Ok(())
}

/// States with their LSNs.
type States = Vec<(Lsn, State)>;

/// A store with a backup on a simulated disk, then more changes. Returns the states of the backup.
fn source(context: &Context) -> Result<(SimFs, Setup, States), Failure> {
    let (disk, setup) = (SimFs::new(), Setup { keeps: Keeps::All, ..Setup::tiny(context, Policy::Manual) });
    let rig = context.sim_rig(disk.clone(), setup);
    let engine = rig.open()?;
    let mut states = Vec::new();
    for number in 0..60_u8 {
        engine.put(&[number % 7], &[number; 60])?;
        states.push((engine.last_lsn(), state_of(&*engine)?));
        if number == 30 {
            past_of(&*engine)?.backup(&backup_dir(&rig))?;
            let reach = past_of(&*engine)?.reach()?;
            states.retain(|(lsn, _)| reached(&reach, *lsn) == *lsn);
            states.push((Lsn::ZERO, State::new()));
        }
    }
    let at = states.iter().position(|(lsn, _)| *lsn == Lsn::ZERO).unwrap_or_default();
    states.truncate(at);
    engine.close()?;
    Ok((disk, setup, states))
}

pub(super) fn a_failed_backup_leaves_the_earlier_one(context: &Context) -> CaseResult {
    let (image, setup, states) = source(context)?;
    let judge = |disk: SimFs, answered: bool, after: &str| -> CaseResult {
        let rig = context.sim_rig(disk, setup);
        let backup = match open_backup(context, &rig) {
            Ok(backup) => backup,
            Err(error) => fail!("{after}, the earlier backup does not open: {error}"),
        };
        let past = past_of(&*backup)?;
        for (lsn, state) in &states {
            let Past { moment, engine } = past.read_at(&Target::Lsn(*lsn))?;
            let found = if moment.lsn == *lsn { state_of(&*engine)? } else { State::new() };
            ensure!(found == *state, "{after}, the earlier backup has lost the state at LSN {lsn}");
        }
        backup.close()?;
        let source = rig.open()?;
        let last = open_backup(context, &rig)?.last_lsn();
        ensure!(
            !answered || last == source.last_lsn(),
            "{after}, a finished backup is at LSN {last}, and its store at {}",
            source.last_lsn()
        );
        // The next one completes it.
        past_of(&*source)?.backup(&backup_dir(&rig))?;
        let (backup, expected) = (open_backup(context, &rig)?, state_of(&*source)?);
        ensure!(state_of(&*backup)? == expected, "{after}, the next backup has another state");
        Ok(())
    };
    let run = |disk: &SimFs| -> Result<bool, Failure> {
        let rig = context.sim_rig(disk.clone(), setup);
        let engine = rig.open()?;
        Ok(past_of(&*engine)?.backup(&backup_dir(&rig)).is_ok())
    };
    let opening = {
        let disk = image.process_death();
        context.sim_rig(disk.clone(), setup).open()?;
        disk.mutations()
    };
    for cut in 0.. {
        let disk = image.process_death();
        disk.cut_after(cut);
        let answered = run(&disk).unwrap_or(false);
        let has_ended = disk.has_lost_power();
        disk.freeze();
        for draw in [0, 1, cut + 2] {
            context.explored().crash_state();
            let left = disk.power_cut(context.power_cut(draw));
            judge(left, answered, &format!("after a power cut at operation {cut}"))?;
        }
        if !has_ended {
            break;
        }
    }
    for kind in [FaultKind::DiskFull, FaultKind::Sync] {
        for nth in 0..opening + 40 {
            let disk = image.process_death();
            let rig = context.sim_rig(disk.clone(), setup);
            let engine = rig.open()?;
            disk.inject(Fault { kind, nth, repeat: Repeat::Once });
            let answered = past_of(&*engine)?.backup(&backup_dir(&rig)).is_ok();
            context.explored().add_faults(disk.faults_fired().min(1));
            let has_fired = disk.faults_fired() > 0;
            disk.heal();
            drop(engine);
            judge(disk.process_death(), answered, &format!("after {kind:?} at operation {nth}"))?;
            if !has_fired {
                break;
            }
        }
    }
    Ok(())
}

pub(super) fn a_backup_under_writers_is_a_prefix(context: &Context) -> CaseResult {
    let setup = Setup { keeps: Keeps::Bytes(20_000), ..Setup::tiny(context, Policy::MaxLogSize(300)) };
    let rig = context.real_rig(setup)?;
    let engine = rig.open()?;
    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| -> CaseResult {
        let writer = scope.spawn(|| -> kv_core::Result<()> {
            for number in 1.. {
                if is_over.load(Ordering::Acquire) {
                    break;
                }
                engine.put(&number_key(number), &number.to_le_bytes().repeat(4))?;
                engine.put(b"newest", &number.to_le_bytes())?;
                written.store(number, Ordering::Release);
            }
            Ok(())
        });
        let judged = (0..context.scaled(8)).try_for_each(|round| {
            let least = written.load(Ordering::Acquire);
            past_of(&*engine)?.backup(&backup_dir(&rig))?;
            let backup = open_backup(context, &rig)?;
            check_prefix(&*backup, least, round)?;
            backup.close()?;
            Ok(())
        });
        is_over.store(true, Ordering::Release);
        match writer.join() {
            Ok(wrote) => wrote?,
            Err(_) => fail!("the writer panicked"),
        }
        judged
    })
}

/// A writer goes round: few keys are overwritten all the time.
fn number_key(number: u64) -> Vec<u8> {
    (number % 300).to_le_bytes().to_vec()
}

/// Checks that a backup holds the changes up to some number, which is at least `least`.
fn check_prefix(backup: &dyn Engine, least: u64, round: u64) -> CaseResult {
    let number = |value: Option<kv_core::Value>| {
        let bytes = value.and_then(|value| value.first_chunk::<8>().copied());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let newest = number(backup.get(b"newest")?);
    ensure!(newest >= least, "backup {round} ends at change {newest}, and {least} was made before it");
    let from = newest.saturating_sub(298).max(1);
    for expected in from..=newest {
        let found = number(backup.get(&number_key(expected))?);
        ensure!(
            found == expected,
            "backup {round} ends at change {newest}, and lacks change {expected}: {found}"
        );
    }
    // The put before the one of `newest` may be the last.
    let next = number(backup.get(&number_key(newest + 1))?);
    ensure!(next <= newest + 1, "backup {round} ends at change {newest}, and holds change {next}");
    Ok(())
}
