//! Tests of the suite: it must fail the paged engine with any single defect.
//!
//! ```text
//! cargo test -p kv-tests --test paged_mutants -- --nocapture
//! cargo test -p kv-tests --test paged_mutants -- --ignored --nocapture
//! ```
//!
//! The first command runs, for each defect, the case that is known to find it. The second one runs
//! every defect against all cases, and prints a table. `PAGED_DEFECTS=NoReserve,WriteIsHold` takes
//! only these, and `PAGED_SHARD=0/2` each second one.

#[path = "paged/mod.rs"]
mod paged;

use kv_core::EngineFactory;
use kv_tests::{Case, Settings, Verdict, all_cases, run_case};
use paged::{Defect, PagedFactory};
use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Whether the survey fails if a case finds a defect of [`SURVIVORS`]. Else it only says so.
const IS_RATCHET: bool = false;

/// Each defect that is found, and a case that finds it soon.
const BY_CASE: &[(Defect, &str)] = &[
    (Defect::LastChangeNotPending, "kv806"),
    (Defect::DueTimeIgnored, "kv806"),
    (Defect::InlineAskAgainIsBinding, "kv807"),
    (Defect::AgeOfNewestPending, "kv509"),
    (Defect::EmptyStoreForgetsLsn, "kv442"),
    (Defect::NoLsnReserved, "kv502"),
    (Defect::CloseForgetsCeiling, "kv503"),
    (Defect::LastLsnIsReserved, "kv205"),
    (Defect::DurableStartsAtZero, "kv401"),
    (Defect::SameValueTakesNoLsn, "kv703"),
    (Defect::SyncAnswersOldLsn, "kv423"),
    (Defect::FutureLsnIsDurable, "kv407"),
    (Defect::OldSnapshotsStay, "kv621"),
    (Defect::CompactDoesNothing, "kv621"),
    (Defect::ReserveGrowsWithUse, "kv414"),
    (Defect::NoReserve, "kv621"),
    (Defect::FullLogPoisons, "kv621"),
    (Defect::RemovalTriedForever, "kv626"),
    (Defect::EmptyPutLoggedAsDelete, "kv103"),
    (Defect::EmptyKeyNotReplayed, "kv103"),
    (Defect::SnapshotValueLenIsU16, "kv104"),
    (Defect::SnapshotEndsAt64KiB, "kv621"),
    (Defect::IdleBatchTakesLsn, "kv202"),
    (Defect::AbsentDeleteAnswersLsn, "kv102"),
    (Defect::EmptyBatchAnswersZero, "kv202"),
    (Defect::BatchDeleteMissesOwnPut, "kv107"),
    (Defect::FirstOfRepeatedKeysWins, "kv106"),
    (Defect::BadBatchAppliedInPart, "kv203"),
    (Defect::LongKeyIsAbsent, "kv104"),
    (Defect::KeyLimitOffByOne, "kv104"),
    (Defect::LongPresentKeysRefused, "kv413"),
    (Defect::BatchRefusesLongPresentKeys, "kv413"),
    (Defect::ReadHoldsView, "kv302"),
    (Defect::ReadHoldsCommitLock, "kv302"),
    (Defect::ScanHoldsView, "kv302"),
    (Defect::ScanBreakEndsLeaf, "kv301"),
    (Defect::ScanSkipsEmptyValues, "kv103"),
    (Defect::ReadsAfterClose, "kv404"),
    (Defect::ScansAfterClose, "kv404"),
    (Defect::SecondCloseFails, "kv404"),
    (Defect::SecondCloseForgetsFailure, "kv611"),
    (Defect::LockKeptAfterClose, "kv103"),
    (Defect::FailedCloseKeepsLock, "kv607"),
    (Defect::DropLosesChanges, "kv107"),
    (Defect::LocksOnlyInProcess, "kv422"),
    (Defect::LostLockIgnored, "kv423"),
    (Defect::ReadersExclude, "kv441"),
    (Defect::ReaderCallsAllDurable, "kv442"),
    (Defect::ReaderRemovesStrays, "kv442"),
    (Defect::PoisonEndsReads, "kv607"),
    (Defect::IdleSyncIgnoresPoison, "kv601"),
    (Defect::MarkIgnored, "kv652"),
    (Defect::LogSumsIgnored, "kv652"),
    (Defect::LogHeaderUnchecked, "kv652"),
    (Defect::SnapshotSumCoversHead, "kv651"),
    (Defect::ControlNotChecked, "kv652"),
    (Defect::StoreIdUnchecked, "kv656"),
    (Defect::MissingSnapshotIsEmpty, "kv655"),
    (Defect::EndNotProved, "kv653"),
    (Defect::CloseLeavesNoProof, "kv653"),
    (Defect::RefusedOpenRemovesStrays, "kv442"),
    (Defect::TornTailIsDamage, "kv442"),
    (Defect::ControlRenameNotSynced, "kv502"),
    (Defect::ControlInPlace, "kv502"),
    (Defect::ControlBeforeSnapshot, "kv502"),
    (Defect::SnapshotNotSynced, "kv502"),
    (Defect::LogHeaderNotSynced, "kv503"),
    (Defect::OldRemovedFirst, "kv502"),
    (Defect::SyncBeforeWrite, "kv502"),
    (Defect::DurableBeforeSync, "kv503"),
    (Defect::MarkBeforeSync, "kv602"),
    (Defect::FailedSyncRetried, "kv601"),
    (Defect::SyncErrorIgnored, "kv503"),
    (Defect::FailureDoesNotPoison, "kv601"),
    (Defect::RecoveryTrustsCache, "kv601"),
    (Defect::RecoveryOnlySyncs, "kv601"),
    (Defect::RecoveredNamesNotSynced, "kv511"),
    (Defect::ReplaysFirstOfBatch, "kv502"),
    (Defect::DeletesNotReplayed, "kv502"),
    (Defect::ReadManySkipsRepeatedKey, "kv109"),
    (Defect::ReadManyAbsentTakesPrevious, "kv109"),
    (Defect::ReadManyEndsAtAbsent, "kv109"),
    (Defect::ReadManyAtMost64, "kv109"),
    (Defect::ReadManySortsKeys, "kv109"),
    (Defect::ReadManyChecksAsItGoes, "kv109"),
];

/// Defects of [`BY_CASE`] that let a call wait forever.
const DEADLOCKS: &[Defect] = &[Defect::ReadHoldsView, Defect::ReadHoldsCommitLock, Defect::ScanHoldsView];

/// Defects that no case finds yet, by dimension. The survey tells which of them a new case finds:
/// those move to [`BY_CASE`].
const SURVIVORS: &[Defect] = &[
    // policy
    Defect::DeletesNotPending,
    Defect::BatchEntriesArePending,
    Defect::KeysNotPending,
    Defect::AsksWhenIdle,
    Defect::NotAskedAfterBatch,
    Defect::NotAskedAfterDelete,
    Defect::HoldAcknowledgesEarly,
    Defect::SoonerAskIgnored,
    Defect::AgeSinceLastDump,
    Defect::DumpTimeIsOpenTime,
    Defect::DumpsOneChangeLate,
    // writes without sync
    Defect::WriteIsHold,
    Defect::WriteIsDurable,
    Defect::WrittenIsNotPending,
    Defect::WrittenBytesNotPending,
    Defect::WriteIsNoDump,
    Defect::WritesOncePerSync,
    Defect::SyncTrustsEmptyBuffer,
    Defect::CloseTrustsEmptyBuffer,
    Defect::MarkFollowsWrite,
    // stats and LSN
    Defect::KeysCountPuts,
    Defect::LiveBytesKeepOverwritten,
    Defect::StatsDurableIsLast,
    Defect::DiskBytesWithoutSnapshot,
    Defect::ChangesCountRecovered,
    Defect::LoadedNotReported,
    Defect::TornBytesNotReported,
    // resources
    Defect::LogNeverShrinks,
    Defect::StraysStay,
    Defect::OldLogsStay,
    Defect::UnfinishedFilesStay,
    Defect::HandlesLeak,
    Defect::CompactLeavesThread,
    Defect::LeftoversForgotten,
    // concurrency
    Defect::BatchVisibleByLeaf,
    Defect::LastLsnBeforeVisible,
    Defect::NoGroupCommit,
    Defect::CloseUnlocksFirst,
    // contract edges
    Defect::SnapshotSkipsEmptyValues,
    Defect::KeyLenIsU8,
    Defect::SnapshotCountIsU16,
    Defect::BatchCountIsU16,
    // callbacks, scan
    Defect::ReadSkipsEmptyValue,
    Defect::ScanHoldsSplitLock,
    Defect::ScanByPosition,
    Defect::ScanByLeafNumber,
    Defect::ScanByLastKeyOfLeaf,
    // lifecycle
    Defect::CompactsAfterClose,
    Defect::StatsEmptyAfterClose,
    Defect::ThreadOutlivesClose,
    // corruption
    Defect::LogLengthAndLsnUnsummed,
    Defect::SnapshotGenerationUnchecked,
    Defect::MissingLogIsEmpty,
    // read_many
    Defect::ReadManyEmptyIsNone,
    Defect::ReadManyHoldsView,
];

/// Defects that a case finds in some runs only, with that case. They wait for a case that finds
/// them in every run, too.
const BY_LUCK: &[(Defect, &str)] = &[
    (Defect::WaitTrustsEmptyBuffer, "kv702"),
    (Defect::SyncJoinsAnyDump, "kv424"),
    (Defect::SplitHidesKeys, "kv303"),
    (Defect::NamesNotSynced, "kv510"),
    (Defect::DurableLsnGoesBack, "kv424"),
    (Defect::SnapshotLosesLateChanges, "kv510"),
    (Defect::CloseWakesNoTask, "kv812"),
    (Defect::PositionAfterBuffer, "kv510"),
    (Defect::LastLsnAfterVisible, "kv706"),
    (Defect::CloseTakesLateChanges, "kv754"),
];

/// Where the survey looks first, by dimension; and whether the longest sweeps may find something.
const LOOK_FIRST: &[(&str, &[&str], bool)] = &[
    ("lifecycle", &["lifecycle::", "read_only::", "directory::"], false),
    ("corruption", &["corruption::"], true),
    ("durability", &["errors::", "crash::"], true),
    ("read_many", &["model::"], false),
];

/// Cases that take seconds. The survey runs them last.
const LONG: &[&str] = &["kv751", "kv752", "kv426"];

/// Sweeps that take many seconds. The survey runs them at the very end, or not at all.
const SWEEPS: &[&str] = &["kv651", "kv507", "kv654", "kv501", "kv508"];

fn is_any_of(case: &Case, parts: &[&str]) -> bool {
    parts.iter().any(|part| case.id.contains(part))
}

/// The cases for defects of a dimension, in the order in which the survey runs them.
fn cases_for(dimension: &str) -> Vec<Case> {
    let known = LOOK_FIRST.iter().find(|(name, ..)| *name == dimension);
    let (first, with_sweeps) = known.map_or((&[][..], false), |(_, first, sweeps)| (*first, *sweeps));
    let mut cases = all_cases();
    cases.retain(|case| with_sweeps || !is_any_of(case, SWEEPS));
    cases.sort_by_key(|case| (is_any_of(case, SWEEPS), is_any_of(case, LONG), !is_any_of(case, first)));
    cases
}

/// The first case that fails an engine with this defect, and its complaint. A case that takes
/// longer than `timeout` counts as a deadlock.
fn kill(defect: Defect, cases: &[Case], timeout: Duration) -> Option<(&'static str, String)> {
    let factory: Arc<dyn EngineFactory> = Arc::new(PagedFactory::with_defect(defect));
    let settings = Settings { timeout, ..Settings::default() };
    cases.iter().find_map(|case| match run_case(case, &factory, &settings).0 {
        Verdict::Failed(failure) => Some((case.id, failure.violated().replace('\n', " "))),
        _ => None,
    })
}

#[test]
fn the_case_for_a_defect_finds_it() {
    let (cases, next, survivors) = (all_cases(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let run = || {
        while let Some((defect, number)) = BY_CASE.get(next.fetch_add(1, Ordering::Relaxed)) {
            let case: Vec<Case> = cases.iter().filter(|case| is_any_of(case, &[number])).copied().collect();
            let timeout = Duration::from_secs(if DEADLOCKS.contains(defect) { 8 } else { 120 });
            match kill(*defect, &case, timeout) {
                Some((_, violated)) => println!("{number} {defect:?}: {violated}"),
                None => survivors.lock().unwrap().push((*defect, *number)),
            }
        }
    };
    // More threads than processors: many cases wait for a time to pass.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(run);
        }
    });
    let survivors = survivors.into_inner().unwrap();
    assert!(survivors.is_empty(), "these cases do not find their defects: {survivors:?}");
}

#[test]
fn every_defect_is_in_one_list() {
    for (defect, _) in Defect::ALL {
        let found = BY_CASE.iter().filter(|(known, _)| known == defect).count();
        let lucky = BY_LUCK.iter().filter(|(known, _)| known == defect).count();
        let survivors = SURVIVORS.iter().filter(|known| *known == defect).count();
        assert_eq!(found + lucky + survivors, 1, "{defect:?}");
    }
}

/// The defects that the environment selects.
fn selected() -> Vec<(Defect, &'static str)> {
    let names = env::var("PAGED_DEFECTS").ok();
    let is_named = |defect: &Defect| {
        names.as_ref().is_none_or(|names| names.split(',').any(|name| name == format!("{defect:?}")))
    };
    let shard = env::var("PAGED_SHARD").ok();
    let shard = shard.as_deref().and_then(|shard| shard.split_once('/'));
    let (number, of) =
        shard.map_or((0, 1), |(number, of)| (number.parse().unwrap_or(0), of.parse().unwrap_or(1)));
    Defect::ALL.iter().filter(|(defect, _)| is_named(defect)).skip(number).step_by(of).copied().collect()
}

#[test]
#[ignore = "it runs for half an hour"]
fn survey() {
    let mut found = Vec::new();
    for (defect, dimension) in selected() {
        let start = Instant::now();
        let (case, violated) = kill(defect, &cases_for(dimension), Duration::from_mins(1))
            .unwrap_or(("SURVIVED", String::new()));
        let number = case.split('_').find(|word| word.starts_with("kv")).unwrap_or(case);
        let short: String = violated.chars().take(110).collect();
        println!("| {dimension} | {defect:?} | {number} | {} s | {short} |", start.elapsed().as_secs());
        if number != case && SURVIVORS.contains(&defect) {
            found.push((defect, number));
        }
    }
    println!("survivors that a case finds now: {found:?}");
    assert!(!IS_RATCHET || found.is_empty(), "move these to BY_CASE: {found:?}");
}
