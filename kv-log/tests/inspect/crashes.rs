//! A repair that does not come to its end leaves no store.

use kv_core::{Background, Engine, EngineExt, Env, Manual, ManualClock};
use kv_log::{LogEngine, Options, inspect};
use kv_tests::sim::{Fault, FaultKind, PowerCut, Repeat, SimFs};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::place::{Place, contents, value};
use super::store_files::{copy_store, segment_files, small};

#[test]
fn a_repair_that_does_not_end_leaves_no_store() {
    let place = Place::with_store();
    let stop = |_| ControlFlow::Break(());
    let error = inspect::repair(&Env::os(), &place.src(), &place.dst(), &stop).unwrap_err();
    assert!(error.to_string().contains("finish the work"), "{error}");
    // Stopped in the second pass, which has some files to go.
    let files = segment_files(&place.src()).len();
    for stop_at in [files, files + 1, files + 2] {
        let calls = std::sync::atomic::AtomicUsize::new(0);
        let stop = |_| match calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 {
            call if call >= stop_at => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        inspect::repair(&Env::os(), &place.src(), &place.dst(), &stop).unwrap_err();
        let left = contents(&place.dst());
        assert!(left.keys().all(|path| path.ends_with("LOCK")), "{left:?}");
    }
    // A process that died left the mark and segments.
    copy_store(&place.src(), &place.dst());
    fs::remove_file(place.dst().join("MANIFEST")).unwrap();
    fs::write(place.dst().join("REPAIR"), b"").unwrap();
    let error = LogEngine::open(place.dst(), small(Manual)).unwrap_err();
    assert!(error.to_string().contains("a repair that did not finish"), "{error}");
    let error = inspect::examine(&Env::os(), &place.dst(), false, &inspect::silently).unwrap_err();
    assert!(error.to_string().contains("a repair that did not finish"), "{error}");
    let error = inspect::repair(&Env::os(), &place.src(), &place.dst(), &inspect::silently).unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
    fs::remove_dir_all(place.dst()).unwrap();
    place.repair();
    assert_eq!(place.repaired().len(), 100);
}

/// A power cut, or the death of the process, at every operation of a repair.
#[test]
fn a_crash_leaves_no_store_or_the_whole_one() {
    let (src, dst) = (Path::new("/src"), Path::new("/dst"));
    let env = |disk: &SimFs| Env {
        fs: Arc::new(disk.clone()),
        clock: Arc::new(ManualClock::new(0)),
        background: Background::Inline,
    };
    let open = |disk: &SimFs, dir| {
        LogEngine::open_in(dir, &env(disk), Options { create_if_missing: false, ..small(Manual) })
    };
    let base = SimFs::new();
    let store = LogEngine::open_in(src, &env(&base), small(Manual)).unwrap();
    for number in 0..60 {
        store.put(format!("k{number:02}").as_bytes(), &value(number)).unwrap();
    }
    store.close().unwrap();
    base.damage(&src.join("MANIFEST"), Some(Vec::new()));
    let (mut refused, mut whole) = (0, 0);
    for count in 0.. {
        let disk = base.process_death();
        disk.cut_after(disk.mutations() + count);
        let is_done = inspect::repair(&env(&disk), src, dst, &inspect::silently).is_ok();
        let cuts = [PowerCut::LOSE_ALL, PowerCut::KEEP_ALL].map(|cut| disk.power_cut(cut));
        for after in cuts.into_iter().chain([disk.process_death()]) {
            match open(&after, dst) {
                Ok(store) => {
                    assert_eq!(store.to_sorted_vec().unwrap().len(), 60, "{count}");
                    whole += 1;
                }
                Err(error) => {
                    assert!(!is_done, "{count}: {error}");
                    refused += 1;
                }
            }
        }
        if is_done {
            break;
        }
    }
    assert!(refused > 20 && whole > 3, "{refused} {whole}");
}

#[test]
fn a_full_disk_ends_a_repair_and_leaves_no_file() {
    let disk = SimFs::new();
    let env = Env { fs: Arc::new(disk.clone()), background: Background::Inline, ..Env::os() };
    let (src, dst) = (Path::new("/src"), Path::new("/dst"));
    let store = LogEngine::open_in(src, &env, small(Manual)).unwrap();
    for number in 0..60 {
        store.put(format!("k{number:02}").as_bytes(), &value(number)).unwrap();
    }
    store.close().unwrap();
    for nth in 0..8 {
        disk.inject(Fault { kind: FaultKind::DiskFull, nth, repeat: Repeat::Always });
        let repaired = inspect::repair(&env, src, dst, &inspect::silently);
        disk.heal();
        match repaired {
            Ok(_) => return assert!(nth > 3, "{nth}"),
            Err(error) => assert!(error.is_disk_full(), "{error}"),
        }
        let left =
            disk.files().into_iter().filter(|(path, _)| path.starts_with(dst) && !path.ends_with("LOCK"));
        assert_eq!(left.count(), 0, "{nth}");
    }
}
