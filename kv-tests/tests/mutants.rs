//! Tests of the suite: it must fail the mutants' engine with any single defect. This command prints
//! a table: each defect, the case that finds it, and the number of explored states until then.
//!
//! ```text
//! cargo test -p kv-tests --test mutants -- --nocapture
//! ```

use kv_core::EngineFactory;
use kv_tests::reference::{Defect, ReferenceFactory};
use kv_tests::{Case, Settings, Verdict, all_cases, run_case};
use std::sync::Arc;
use std::time::Duration;

/// Defects for which a case was written, with its number.
const BY_CASE: &[(Defect, &str)] = &[
    (Defect::RefusesSystemFiles, "kv412"),
    (Defect::RefusesLongKeys, "kv413"),
    (Defect::KeepsOldFiles, "kv414"),
    (Defect::FollowsPath, "kv421"),
    (Defect::FollowsPath, "kv422"),
    (Defect::IgnoresLostLock, "kv423"),
    (Defect::IgnoresLostLock, "kv424"),
    (Defect::LocksByName, "kv425"),
    (Defect::UnlocksLate, "kv426"),
    (Defect::RacingCreatorFails, "kv427"),
    (Defect::ReadersExclude, "kv441"),
    (Defect::ReadOnlyWrites, "kv442"),
    (Defect::ReaderCallsAllDurable, "kv442"),
    (Defect::ReadOnlyTakesChanges, "kv443"),
    (Defect::IgnoresReadOnly, "kv444"),
    (Defect::CloseForgetsFailure, "kv611"),
    (Defect::FailureToldLate, "kv612"),
    (Defect::NoReserve, "kv621"),
    (Defect::KeepsOldFiles, "kv621"),
    (Defect::FullDiskTakesLsn, "kv622"),
    (Defect::FullDiskIgnored, "kv622"),
    (Defect::FileTooLargeIsIo, "kv623"),
    (Defect::TrustsAllocation, "kv624"),
    (Defect::FewDescriptorsIgnored, "kv625"),
    (Defect::UnlinksAgain, "kv626"),
    (Defect::FailedOpenKeepsLock, "kv416"),
    (Defect::CreatesInEmptyDirectory, "kv417"),
    (Defect::ParentsNotSynced, "kv417"),
    (Defect::NormalScaleStartsOver, "kv418"),
    (Defect::LocksByLastName, "kv419"),
    (Defect::OpenTakesLsn, "kv420"),
    (Defect::SyncAfterClose, "kv431"),
    (Defect::WaitAfterClose, "kv431"),
    (Defect::ReadManyAfterClose, "kv431"),
    (Defect::PollAfterClose, "kv431"),
    (Defect::IdleDeleteAfterClose, "kv431"),
    (Defect::StatsForgetAtClose, "kv431"),
    (Defect::ReadsAfterClose, "kv431"),
    (Defect::FailedCloseStaysOpen, "kv432"),
    (Defect::FailedCloseKeepsLock, "kv432"),
    (Defect::DropLosesWithThreads, "kv433"),
    (Defect::DropDoesNotSync, "kv433"),
    (Defect::ManualCloseDoesNotSync, "kv433"),
    (Defect::CloseDoesNotDump, "kv433"),
    (Defect::DropLosesWithThreads, "kv434"),
    (Defect::LeaksStore, "kv435"),
    (Defect::LeaksPolicy, "kv435"),
    (Defect::SecondCloseIsEarly, "kv436"),
    (Defect::ScanEndsAtClose, "kv437"),
    (Defect::IdleCallsAfterClose, "kv438"),
    (Defect::FirstRecordUnchecked, "kv658"),
    (Defect::RefusedOpenTruncates, "kv658"),
    (Defect::RefusedOpenLeavesFile, "kv658"),
    (Defect::LargeRecordsUnchecked, "kv658"),
    (Defect::ZerosAreTheEnd, "kv659"),
    (Defect::CutAfterCloseIgnored, "kv660"),
    (Defect::LargeRecordsUnchecked, "kv661"),
    (Defect::SideFiles, "kv662"),
    (Defect::LargeRecordsUnchecked, "kv663"),
    (Defect::SideFiles, "kv664"),
    (Defect::TruncatesMidLog, "kv665"),
    (Defect::NoChecksum, "kv665"),
    (Defect::FirstRecordUnchecked, "kv905"),
    (Defect::RefusedOpenTruncates, "kv905"),
    (Defect::JoinsEarlierDump, "kv816"),
    (Defect::CountsLateChanges, "kv817"),
    (Defect::DurableWhileSyncing, "kv816"),
    (Defect::ForgetsLateChanges, "kv816"),
    (Defect::JoinerMissesFailure, "kv818"),
    (Defect::SleepsAfterFailure, "kv818"),
    (Defect::RetriesForJoiner, "kv818"),
    (Defect::CloseGivesAwayEarly, "kv707"),
    (Defect::CloseJoinsEarlierDump, "kv707"),
    (Defect::CloseMissesLateChanges, "kv707"),
    (Defect::SecondCloseReturnsEarly, "kv708"),
    (Defect::DropSkipsWhenBusy, "kv709"),
    (Defect::CompactionLosesLateChange, "kv710"),
    (Defect::CompactionTakesBackLateChange, "kv711"),
    (Defect::DurableGoesBack, "kv757"),
    (Defect::LastLsnEarly, "kv757"),
    (Defect::LastLsnLate, "kv757"),
    (Defect::BatchLeafByLeaf, "kv756"),
    (Defect::SplitHidesKeys, "kv758"),
    (Defect::OverwriteRemovesFirst, "kv758"),
    (Defect::ScanByPosition, "kv304"),
    (Defect::ScanEndsAtLostKey, "kv304"),
    (Defect::BreakKeepsLock, "kv305"),
    (Defect::ScansShareCursor, "kv305"),
    (Defect::EmptyScanFails, "kv306"),
    (Defect::ScanLocksStructure, "kv307"),
    (Defect::ReadPinsKey, "kv307"),
    (Defect::SyncWaitsForReadMany, "kv307"),
    (Defect::StatsWaitForScan, "kv307"),
    (Defect::CallbackStopsWriters, "kv308"),
    (Defect::CallbackReusesLsn, "kv309"),
    (Defect::ScanByPosition, "kv310"),
    (Defect::KeysCountPuts, "kv841"),
    (Defect::StatsDurableIsLast, "kv841"),
    (Defect::StatsLastIsDurable, "kv841"),
    (Defect::LiveBytesOfValues, "kv841"),
    (Defect::CountsIdleBatches, "kv841"),
    (Defect::CountsBatchEntries, "kv841"),
    (Defect::ChangesCountRecovered, "kv842"),
    (Defect::RecoveryReportsNextLsn, "kv842"),
    (Defect::CountsRefusedPuts, "kv843"),
    (Defect::PoisonedSeemsDurable, "kv844"),
    (Defect::UnflushedUntilClose, "kv845"),
    (Defect::DiskBytesWithoutSnapshot, "kv845"),
    (Defect::DiskBytesNeverShrink, "kv845"),
    (Defect::BytesWrittenIsFileLen, "kv845"),
    (Defect::DumpsResetByCompaction, "kv845"),
    (Defect::EmptyStoreForgetsLsn, "kv110"),
    (Defect::ReopenTakesLsn, "kv110"),
    (Defect::NothingDurableAtOpen, "kv110"),
    (Defect::LsnReuse, "kv111"),
    (Defect::IdlePairTakesLsn, "kv112"),
    (Defect::SameValueTakesNone, "kv112"),
    (Defect::IdleBatchReturnsZero, "kv112"),
    (Defect::KeyLengthInOneByte, "kv113"),
    (Defect::ValueLengthInTwoBytes, "kv113"),
    (Defect::ShortKeepsTail, "kv113"),
    (Defect::SnapshotEndsAt64K, "kv113"),
    (Defect::KeysEndAtZero, "kv114"),
    (Defect::DeleteTakesPrefix, "kv114"),
    (Defect::EmptyKeyNotStored, "kv114"),
    (Defect::ReadSkipsEmpty, "kv115"),
    (Defect::GetHidesEmpty, "kv115"),
    (Defect::EmptyValuesNotStored, "kv115"),
    (Defect::ValueLimitOffByOne, "kv116"),
    (Defect::LongDeleteIsAbsent, "kv116"),
    (Defect::ValuesCutAtMebibyte, "kv117"),
    (Defect::SnapshotCountsInTwoBytes, "kv118"),
    (Defect::BatchCountsInTwoBytes, "kv206"),
    (Defect::ResyncsInTail, "kv119"),
    (Defect::ReadManySkipsEmpty, "kv120"),
    (Defect::ReadManyVisitsOnce, "kv120"),
    (Defect::ReadManySorts, "kv120"),
    (Defect::ReadManyEndsAtGroup, "kv121"),
    (Defect::ReadManyChecksLate, "kv122"),
    (Defect::BatchLimitOffByOne, "kv207"),
    (Defect::IdlePairTakesLsn, "kv208"),
    (Defect::FirstOfBatchWins, "kv209"),
    (Defect::DeletesStopAtAbsent, "kv210"),
    (Defect::LeaksHandles, "kv681"),
    (Defect::NeverCompacts, "kv681"),
    (Defect::NeverShrinks, "kv682"),
    (Defect::KeepsPolicy, "kv683"),
    (Defect::KeepsTicker, "kv683"),
    (Defect::FailedOpenLeaks, "kv684"),
    (Defect::KeepsOldFiles, "kv685"),
    (Defect::StrayTemporaries, "kv686"),
    (Defect::NeverCompacts, "kv687"),
    (Defect::CountsLeftovers, "kv841"),
    (Defect::BatchLimitOfEffective, "kv207"),
    (Defect::WaitBeyondLastIsOk, "kv123"),
    (Defect::PollBeyondLastIsReady, "kv123"),
    (Defect::IdleSyncReturnsZero, "kv123"),
    (Defect::MemoryGrows, "kv681"),
    (Defect::ValueLengthInThreeBytes, "kv117"),
    (Defect::DeletesUncounted, "kv821"),
    (Defect::RecordsPerEntry, "kv821"),
    (Defect::KeysUncounted, "kv821"),
    (Defect::OverwritesUncounted, "kv821"),
    (Defect::LastUncounted, "kv821"),
    (Defect::AbsentDeletesCounted, "kv821"),
    (Defect::AsksNotAfterBatch, "kv821"),
    (Defect::AsksNotAfterDelete, "kv821"),
    (Defect::AsksEverySecond, "kv821"),
    (Defect::AgeOfNewest, "kv821"),
    (Defect::DumpTimeUntold, "kv821"),
    (Defect::AsksWhenIdle, "kv822"),
    (Defect::BytesSinceOpen, "kv823"),
    (Defect::CountsRecovered, "kv823"),
    (Defect::AgeSinceOpen, "kv823"),
    (Defect::SyncIsNoDump, "kv823"),
    (Defect::AgeResetByWrite, "kv824"),
    (Defect::WriteIsNoDump, "kv824"),
    (Defect::WriteForgetsPending, "kv824"),
    (Defect::WriteIsHold, "kv825"),
    (Defect::SyncIsWrite, "kv825"),
    (Defect::SyncTrustsBuffer, "kv825"),
    (Defect::HoldWhenDurable, "kv826"),
    (Defect::DeletesDoNotWait, "kv826"),
    (Defect::BatchesDoNotWait, "kv826"),
    (Defect::SyncIsWrite, "kv827"),
    (Defect::OverwritesUncounted, "kv827"),
    (Defect::AsksNotAfterBatch, "kv827"),
    (Defect::HoldDumps, "kv828"),
    (Defect::NoTicker, "kv831"),
    (Defect::LostWakeUp, "kv831"),
    (Defect::SoonerTimeIgnored, "kv807"),
    (Defect::SoonerTimeIgnored, "kv832"),
    (Defect::AsksOnceMore, "kv833"),
    (Defect::WriteStopsAsking, "kv833"),
    (Defect::DumpForgetsLater, "kv834"),
    (Defect::IdleThreadAsks, "kv835"),
    (Defect::DurableByWrite, "kv501"),
    (Defect::WriteIsHold, "kv502"),
    (Defect::SyncTrustsBuffer, "kv508"),
    (Defect::CloseTrustsBuffer, "kv523"),
    (Defect::WriteIsHold, "kv526"),
    (Defect::WriteForgetsPending, "kv527"),
    (Defect::SyncTrustsBuffer, "kv527"),
    (Defect::WaitTrustsBuffer, "kv527"),
    (Defect::PollTrustsBuffer, "kv527"),
    (Defect::CloseTrustsBuffer, "kv527"),
    (Defect::DurableByWrite, "kv527"),
    (Defect::DurableByWrite, "kv528"),
    (Defect::SyncTrustsBuffer, "kv528"),
    (Defect::WriteIsHold, "kv529"),
    (Defect::FailureAfterWriteIgnored, "kv530"),
    (Defect::CloseTrustsBuffer, "kv530"),
];

/// A found defect: the case that fails, its failure, and the number of explored states until then.
struct Kill {
    case: &'static str,
    violated: String,
    looked_at: u64,
}

/// Runs `cases` up to the first that fails an engine with this defect.
fn kill(defect: Defect, cases: &[Case], timeout: Duration) -> Option<Kill> {
    let factory: Arc<dyn EngineFactory> = Arc::new(ReferenceFactory::with_defect(defect));
    let settings = Settings { timeout, ..Settings::from_env().expect("valid settings") };
    let mut looked_at = 0;
    for case in cases {
        let (verdict, explored) = run_case(case, &factory, &settings);
        looked_at += explored.histories() + explored.crash_states() + explored.faults() + explored.damages();
        if let Verdict::Failed(failure) = verdict {
            return Some(Kill { case: case.id, violated: failure.violated().to_owned(), looked_at });
        }
    }
    None
}

#[test]
fn every_defect_is_found() {
    // A lost wake-up shows only when a watchdog's time is over: these defects run against their own
    // cases, with a short wait.
    let is_about_waking = |case: &Case| {
        ["periodic_dumps_by_itself", "_a_future_waits_for_durability", "_a_failing_disk_ends_every_future"]
            .iter()
            .any(|name| case.id.ends_with(name))
    };
    let (watchdog, others): (Vec<Case>, Vec<Case>) = all_cases().into_iter().partition(is_about_waking);
    let mut survivors = Vec::new();
    println!("{:<24} {:>7}  found by", "defect", "states");
    let has_case = |defect: &&Defect| {
        BY_CASE.iter().any(|(known, _)| known == *defect) || Defect::ACROSS_PROCESSES.contains(defect)
    };
    for defect in Defect::ALL.iter().filter(|defect| !has_case(defect)) {
        let kill = match defect {
            Defect::NoTicker
            | Defect::LostWakeUp
            | Defect::WakerForgotten
            | Defect::FutureAsksForNothing
            | Defect::FutureDoesNotWait
            | Defect::FuturesNotToldOfFailure => kill(*defect, &watchdog, Duration::from_secs(8)),
            _ => kill(*defect, &others, Duration::from_mins(2)),
        };
        match kill {
            Some(Kill { case, violated, looked_at }) => {
                let short: String = violated.chars().take(90).collect();
                println!("{:<24} {looked_at:>7}  {case}\n{:34}{short}", format!("{defect:?}"), "");
            }
            None => survivors.push(*defect),
        }
    }
    assert!(survivors.is_empty(), "no case finds {survivors:?}");
}

/// Other cases may find these defects, too. Here the judge of histories must find them.
#[test]
fn the_judge_of_histories_finds_concurrent_defects() {
    let judges: Vec<Case> =
        all_cases().into_iter().filter(|case| case.id.starts_with("linearizability")).collect();
    for defect in Defect::CONCURRENT {
        let factory: Arc<dyn EngineFactory> = Arc::new(ReferenceFactory::with_defect(*defect));
        let shown = judges.iter().find(|case| match run_case(case, &factory, &Settings::default()).0 {
            Verdict::Failed(failure) => failure.fact("history").is_some(),
            _ => false,
        });
        assert!(shown.is_some(), "no case finds {defect:?}");
    }
}

/// Other cases may find these defects, too. Here the case written for the defect must find it.
#[test]
fn the_case_for_a_defect_finds_it() {
    let cases = all_cases();
    let mut survivors = Vec::new();
    for (defect, number) in BY_CASE {
        let case: Vec<Case> = cases.iter().filter(|case| case.id.contains(*number)).copied().collect();
        // Cases that wait for a thread fail only when a watchdog's time is over.
        let waits = ["kv529", "kv807", "kv831", "kv832", "kv833", "kv834"].contains(number);
        let timeout = if waits { Duration::from_secs(4) } else { Duration::from_mins(1) };
        match kill(*defect, &case, timeout) {
            Some(Kill { violated, .. }) => println!("{number} {defect:?}: {violated}"),
            None => survivors.push((*defect, *number)),
        }
    }
    assert!(survivors.is_empty(), "these cases do not find their defects: {survivors:?}");
}
