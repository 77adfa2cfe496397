//! Ways to be wrong, for the suite's own tests.

/// Declares the defects, and the list of all.
macro_rules! defects {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A deliberate bug that the suite must find.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Defect { $($(#[doc = $doc])+ $name,)+ }

        impl Defect {
            /// All defects.
            pub const ALL: &[Defect] = &[$(Defect::$name,)+];
        }
    };
}

defects! {
    /// The engine writes files and never syncs them.
    NoFileSync,
    /// The engine renames a new file into place, and does not sync the directory.
    NoDirectorySync,
    /// `durable_lsn` moves before the write.
    DurableBeforeWrite,
    /// Under `Always`, a change returns before its dump.
    AcknowledgeBeforeDump,
    /// The engine renames a file into place before it syncs the content.
    RenameBeforeSync,
    /// Recovery does not check the checksums of records.
    NoChecksum,
    /// Recovery takes every unreadable record for a torn tail, wherever it is.
    TruncatesMidLog,
    /// Each change of a batch is a record of its own.
    SplitBatch,
    /// A batch is applied up to its first bad entry.
    PartialBatch,
    /// Where a batch names a key twice, the first change wins.
    FirstOfBatchWins,
    /// After a recovery the LSNs continue behind the last recovered one.
    LsnReuse,
    /// Deleting an absent key takes an LSN.
    IdleDeleteTakesLsn,
    /// Deletes are not logged.
    DeleteNotLogged,
    /// The engine accepts a key that is one byte too long.
    KeyLimitOffByOne,
    /// `read_many` gives an absent key the value of the key before it.
    ReadManyKeepsLast,
    /// A scan leaves out the last key.
    ScanSkips,
    /// A scan ignores `Break`.
    ScanDoesNotBreak,
    /// The engine does not lock the directory.
    NoLock,
    /// Reads work after `close`.
    ReadsAfterClose,
    /// `close` does not dump.
    CloseDoesNotDump,
    /// The engine takes a directory with other files for an empty one.
    TakesForeignDirectory,
    /// The engine creates a store without `create_if_missing`.
    CreatesUnasked,
    /// The engine reports a failed write or sync, and then tries it again.
    Retries,
    /// The engine does not even report a failed sync.
    SwallowsSyncError,
    /// The engine does not write the rest after a short write.
    ShortWriteIgnored,
    /// The engine reports a failed write or sync, and accepts later changes.
    PoisonIgnored,
    /// A change that a full disk refuses stays visible, and the engine accepts the next ones.
    FullDiskIgnored,
    /// The engine never asks the policy.
    PolicyIgnored,
    /// No thread dumps when the policy's time is over.
    NoTicker,
    /// A change does not wake the ticker.
    LostWakeUp,
    /// `wait_durable` waits for the second pending change instead of the given one.
    WaitsForOthers,
    /// The engine does not keep the waker of a future that waits for durability.
    WakerForgotten,
    /// A future waits for durability, and the engine does not wake the thread that syncs.
    FutureAsksForNothing,
    /// The engine keeps the waker of every poll.
    KeepsEveryWaker,
    /// A future that waits for durability is ready at once.
    FutureDoesNotWait,
    /// A failure does not wake the futures that wait for durability.
    FuturesNotToldOfFailure,
    /// After a crash LSNs that were only reserved count as given out.
    CountsReservedLsns,
    /// A reader can see the first half of a value.
    TornValue,
    /// A compaction loses the last key.
    CompactionLosesKey,
    /// A compaction brings back deleted keys that the store held at open.
    CompactionResurrects,
    /// A compaction brings back the values that the store held at open.
    CompactionReverts,
    /// The engine takes an LSN, and releases the lock before it applies the change.
    LsnDrawnEarly,
    /// The engine releases the lock between one change of a batch and the next.
    BatchKeyByKey,
    /// A delete checks that the key is present, releases the lock, and then removes the key.
    CheckThenAct,
    /// A reader that finds the lock taken reads an old copy of the map.
    StaleWhenBusy,
    /// A change is visible during its dump, and disappears when that fails.
    TakesBack,
    /// The engine puts a new file where the path of the directory leads now.
    FollowsPath,
    /// The engine does not notice that its directory or lock file was removed.
    IgnoresLostLock,
    /// The engine takes a locked directory without a lock file for a free one. The first holder
    /// does not notice.
    LocksByName,
    /// `close` returns a moment before it releases the lock.
    UnlocksLate,
    /// The engine fails if another thread creates the directory at the same time.
    RacingCreatorFails,
    /// The engine refuses a directory that holds a file of the system.
    RefusesSystemFiles,
    /// A present key over the limit cannot be read or deleted.
    RefusesLongKeys,
    /// The engine keeps every replaced file under another name.
    KeepsOldFiles,
    /// A reader locks out other readers.
    ReadersExclude,
    /// An open for reading only writes a new file, as any other open.
    ReadOnlyWrites,
    /// A store that is open for reading only accepts changes in memory.
    ReadOnlyTakesChanges,
    /// A reader reports everything that it finds as durable.
    ReaderCallsAllDurable,
    /// The engine does not support opening for reading only, and opens for writing instead.
    IgnoresReadOnly,
    /// The second `close` is `Ok`, also after one that failed.
    CloseForgetsFailure,
    /// A change whose dump fails succeeds; the next one returns the failure.
    FailureToldLate,
    /// The engine holds no reserve of space for the way out of a full disk.
    NoReserve,
    /// A change that a full disk refuses disappears, but `last_lsn` keeps its LSN.
    FullDiskTakesLsn,
    /// The engine does not treat the limit of file sizes as a full disk.
    FileTooLargeIsIo,
    /// The engine ignores that a write found the disk full, because it had allocated the space.
    TrustsAllocation,
    /// The engine reports a lack of descriptors, and the change stays.
    FewDescriptorsIgnored,
    /// Every change tries to remove all files that could not be removed before.
    UnlinksAgain,
    /// `sync` works after `close`.
    SyncAfterClose,
    /// Waiting for a durable LSN works after `close`.
    WaitAfterClose,
    /// After `close` `read_many` finds nothing, and is no error.
    ReadManyAfterClose,
    /// `poll_durable` is ready without an error after `close`.
    PollAfterClose,
    /// After `close` a delete of an absent key is no error.
    IdleDeleteAfterClose,
    /// After `close` the statistics have no LSNs.
    StatsForgetAtClose,
    /// After `close` a `read_many` of no key is no error.
    IdleCallsAfterClose,
    /// A `close` that fails leaves the engine open for reads.
    FailedCloseStaysOpen,
    /// A `close` that fails keeps the directory locked until the drop.
    FailedCloseKeepsLock,
    /// With background threads the drop of the last handle does not dump.
    DropLosesWithThreads,
    /// The drop of the last handle writes, and does not sync.
    DropDoesNotSync,
    /// `close` writes what a policy holds, and does not sync it.
    ManualCloseDoesNotSync,
    /// The ticker never ends, and holds the store.
    LeaksStore,
    /// Every open leaves a handle of the policy behind, a failed one, too.
    LeaksPolicy,
    /// Every open leaves an open file behind.
    LeaksFiles,
    /// An open that fails in its recovery leaves the directory locked.
    FailedOpenKeepsLock,
    /// The file is replaced in place: for a while it holds only its first half.
    WritesInPlace,
    /// The lock of a directory excludes only this process.
    LocksWithinProcess,
    /// The lock of a directory excludes those of the same name elsewhere.
    LocksByLastName,
    /// A `close` during another one returns at once.
    SecondCloseIsEarly,
    /// The engine creates a store in an empty directory without `create_if_missing`.
    CreatesInEmptyDirectory,
    /// The engine does not sync the directories in which it creates directories.
    ParentsNotSynced,
    /// An open at normal scale finds none of the keys.
    NormalScaleStartsOver,
    /// Every open takes an LSN.
    OpenTakesLsn,
    /// A scan ends without an error when another thread closes the store.
    ScanEndsAtClose,
    /// Recovery does not check the checksum of the first record.
    FirstRecordUnchecked,
    /// An open that meets damage cuts it off, and then refuses the store.
    RefusedOpenTruncates,
    /// An open that meets damage leaves a file with a report.
    RefusedOpenLeavesFile,
    /// Recovery takes a cut in the first record for a torn tail.
    CutAfterCloseIgnored,
    /// Recovery does not check the checksum of a large record.
    LargeRecordsUnchecked,
    /// Recovery takes zeros for the end of the log, in the first record, too.
    ZerosAreTheEnd,
    /// The engine keeps most keys in files that do not name their store.
    SideFiles,
    /// A caller that joins a running sync is told that its change is durable.
    JoinsEarlierDump,
    /// After a sync the changes that came during it count as durable.
    CountsLateChanges,
    /// `durable_lsn` counts the changes that a running sync covers.
    DurableWhileSyncing,
    /// After a sync the changes that came during it are not pending any more.
    ForgetsLateChanges,
    /// Where a sync fails, callers that joined it are told that it succeeded.
    JoinerMissesFailure,
    /// A failed sync does not wake the callers that joined it.
    SleepsAfterFailure,
    /// After a failed sync, the next caller tries again.
    RetriesForJoiner,
    /// `close` releases the lock of the directory before its dump.
    CloseGivesAwayEarly,
    /// `close` waits for a running sync, and dumps nothing more.
    CloseJoinsEarlierDump,
    /// Changes that come during the dump of `close` are answered, and lost.
    CloseMissesLateChanges,
    /// The drop of the last handle closes nothing while a dump is running.
    DropSkipsWhenBusy,
    /// Changes that come during a compaction do not reach the disk.
    CompactionLosesLateChange,
    /// Changes that come during a compaction disappear.
    CompactionTakesBackLateChange,
    /// A checkpoint is not synced.
    CheckpointNotDurable,
    /// A checkpoint lacks the last key.
    CheckpointLosesKey,
    /// A checkpoint holds keys that were deleted since the open.
    CheckpointResurrects,
    /// During a sync, `durable_lsn` shows the LSN from before the sync before.
    DurableGoesBack,
    /// `last_lsn` counts a change before it is visible.
    LastLsnEarly,
    /// A change is visible before `last_lsn` counts it.
    LastLsnLate,
    /// The engine releases the lock between distant keys of a batch.
    BatchLeafByLeaf,
    /// While a new key splits the map, its upper half cannot be found.
    SplitHidesKeys,
    /// A put removes the old value, releases the lock, and then inserts the new one.
    OverwriteRemovesFirst,
    /// A scan counts positions of the live map.
    ScanByPosition,
    /// A scan ends where the last visited key was removed.
    ScanEndsAtLostKey,
    /// A scan that ends at `Break` keeps a lock that new keys need.
    BreakKeepsLock,
    /// All scans share one position.
    ScansShareCursor,
    /// A scan of an empty store is an error.
    EmptyScanFails,
    /// A scan holds a lock that new keys need.
    ScanLocksStructure,
    /// A change waits for the callback of a read of its key.
    ReadPinsKey,
    /// A sync waits for callbacks of `read_many`.
    SyncWaitsForReadMany,
    /// `stats` waits for callbacks of scans.
    StatsWaitForScan,
    /// A change waits for callbacks of other threads' scans.
    CallbackStopsWriters,
    /// Changes inside a callback take no LSN of their own.
    CallbackReusesLsn,
    /// The statistics count changes as keys.
    KeysCountPuts,
    /// The statistics report the last LSN as the durable one.
    StatsDurableIsLast,
    /// The statistics report the durable LSN as the last one.
    StatsLastIsDurable,
    /// The statistics leave the keys out of the bytes of the data.
    LiveBytesOfValues,
    /// The statistics count calls that changed nothing.
    CountsIdleBatches,
    /// The statistics count each change of a batch.
    CountsBatchEntries,
    /// The statistics count the recovered keys as changes.
    ChangesCountRecovered,
    /// The report of the recovery names the next LSN as the last one.
    RecoveryReportsNextLsn,
    /// The statistics count a put that was refused.
    CountsRefusedPuts,
    /// The statistics of a poisoned engine report the last LSN as the durable one.
    PoisonedSeemsDurable,
    /// The statistics count written bytes as unwritten until the close.
    UnflushedUntilClose,
    /// The statistics leave out the first record of the file.
    DiskBytesWithoutSnapshot,
    /// The statistics count the bytes of replaced files.
    DiskBytesNeverShrink,
    /// The statistics report the length of the file as the bytes written.
    BytesWrittenIsFileLen,
    /// A compaction sets the number of dumps to zero.
    DumpsResetByCompaction,
    /// An empty store forgets its last LSN when it is closed.
    EmptyStoreForgetsLsn,
    /// Every open of a store takes an LSN.
    ReopenTakesLsn,
    /// After an open `durable_lsn` is zero until the next sync.
    NothingDurableAtOpen,
    /// A batch that puts and deletes an absent key takes an LSN.
    IdlePairTakesLsn,
    /// A put of the present value takes no LSN.
    SameValueTakesNone,
    /// A batch that changes nothing returns LSN 0.
    IdleBatchReturnsZero,
    /// The file holds the length of a key in one byte.
    KeyLengthInOneByte,
    /// The file holds the length of a value in two bytes.
    ValueLengthInTwoBytes,
    /// A short value in place of a long one keeps the end of it.
    ShortKeepsTail,
    /// The first record of a file ends after 64 KiB.
    SnapshotEndsAt64K,
    /// The file holds keys up to their first zero byte.
    KeysEndAtZero,
    /// A delete removes all keys that begin with its key.
    DeleteTakesPrefix,
    /// The first record of a file leaves out the empty key.
    EmptyKeyNotStored,
    /// `read` does not visit an empty value.
    ReadSkipsEmpty,
    /// `get` takes an empty value for none.
    GetHidesEmpty,
    /// The first record of a file leaves out empty values.
    EmptyValuesNotStored,
    /// The engine refuses a value exactly at its limit.
    ValueLimitOffByOne,
    /// A delete of a key over the limit answers that it is absent.
    LongDeleteIsAbsent,
    /// The file holds the first MiB of a value.
    ValuesCutAtMebibyte,
    /// The first record of a file holds 65,535 keys at most.
    SnapshotCountsInTwoBytes,
    /// The record of a batch holds 65,535 changes at most.
    BatchCountsInTwoBytes,
    /// Recovery searches a torn tail for records, and applies them.
    ResyncsInTail,
    /// `read_many` takes an empty value for none.
    ReadManySkipsEmpty,
    /// `read_many` visits a repeated key only once.
    ReadManyVisitsOnce,
    /// `read_many` visits its keys in the order of their bytes.
    ReadManySorts,
    /// `read_many` visits no more than 4096 keys.
    ReadManyEndsAtGroup,
    /// `read_many` checks the length of a key when it comes to it.
    ReadManyChecksLate,
    /// The engine refuses a batch exactly at its limit.
    BatchLimitOffByOne,
    /// A batch of deletes ends at the first absent key.
    DeletesStopAtAbsent,
    /// The engine never closes a file that it replaced.
    LeaksHandles,
    /// The engine compacts its file at open and close only.
    NeverCompacts,
    /// A new file is at least as long as the one that it replaces.
    NeverShrinks,
    /// A failed open keeps the directory open.
    FailedOpenLeaks,
    /// Each open writes its new file under a name of its own, and never removes one that was left.
    StrayTemporaries,
    /// The statistics count a file as left over that was removed.
    CountsLeftovers,
    /// Only the effective changes of a batch count towards its limit.
    BatchLimitOfEffective,
    /// Waiting for an LSN beyond the last one waits for the last one.
    WaitBeyondLastIsOk,
    /// A future for an LSN beyond the last one is ready.
    PollBeyondLastIsReady,
    /// A sync of nothing returns LSN 0.
    IdleSyncReturnsZero,
    /// The engine never gives the memory of old records back.
    MemoryGrows,
    /// The file holds the length of a value in three bytes.
    ValueLengthInThreeBytes,
    /// A delete is not pending.
    DeletesUncounted,
    /// The policy is told of each change of a batch as a record of its own.
    RecordsPerEntry,
    /// The policy is told of the bytes of values, and not of those of keys.
    KeysUncounted,
    /// A put of a present key adds no pending bytes.
    OverwritesUncounted,
    /// The policy is told of the bytes of all changes since the open.
    BytesSinceOpen,
    /// What a crash left counts as pending bytes after the next open.
    CountsRecovered,
    /// The policy is asked before the last change is counted.
    LastUncounted,
    /// A delete of an absent key counts as a pending record.
    AbsentDeletesCounted,
    /// The engine asks the policy after each call that changes nothing.
    AsksWhenIdle,
    /// The engine does not ask the policy after a batch.
    AsksNotAfterBatch,
    /// The engine does not ask the policy after a delete.
    AsksNotAfterDelete,
    /// The engine asks the policy after every second change.
    AsksEverySecond,
    /// The policy is told the age of the newest pending change.
    AgeOfNewest,
    /// The oldest pending change is the first one since the open, also after a sync.
    AgeSinceOpen,
    /// A write without a sync makes the pending changes look new.
    AgeResetByWrite,
    /// A write without a sync does not restart the time since the last dump.
    WriteIsNoDump,
    /// A sync on request does not restart the time since the last dump.
    SyncIsNoDump,
    /// The policy is never told the time since the last dump.
    DumpTimeUntold,
    /// Under `WhenDurable` a change waits only if the policy wants a dump.
    HoldWhenDurable,
    /// Under `WhenDurable` a delete does not wait.
    DeletesDoNotWait,
    /// Under `WhenDurable` a batch of several changes does not wait.
    BatchesDoNotWait,
    /// The engine takes `Write` for `Hold`.
    WriteIsHold,
    /// The engine takes `WriteAndSync` for `Write`.
    SyncIsWrite,
    /// After a write without a sync nothing is pending.
    WriteForgetsPending,
    /// A write without a sync moves `durable_lsn`.
    DurableByWrite,
    /// `sync` does nothing if every change is written.
    SyncTrustsBuffer,
    /// `wait_durable` does nothing if every change is written.
    WaitTrustsBuffer,
    /// `close` syncs nothing if every change is written.
    CloseTrustsBuffer,
    /// `poll_durable` is ready if every change is written.
    PollTrustsBuffer,
    /// A sync that fails is ignored if it had nothing to write.
    FailureAfterWriteIgnored,
    /// A change does not wake a thread that sleeps until it asks again.
    SoonerTimeIgnored,
    /// After the time of an answer the thread asks once, and then waits for a change.
    AsksOnceMore,
    /// After a write without a sync the thread waits for a change.
    WriteStopsAsking,
    /// Changes that arrive during a dump of the thread are not pending after it.
    DumpForgetsLater,
    /// The thread dumps although the policy holds.
    HoldDumps,
    /// The thread asks the policy while nothing is pending.
    IdleThreadAsks,
    /// The window begins one LSN before the oldest state that is kept.
    PastBeginsEarly,
    /// One more past state expires than the policy says.
    PastExpiresEarly,
    /// No past state expires.
    PastNeverExpires,
    /// A past state holds one change too many.
    PastIsLate,
    /// A past state holds keys that were deleted.
    PastKeepsDeleted,
    /// Past states and the window leave out changes that are not durable.
    PastIsDurable,
    /// An open forgets the past states.
    PastEndsAtOpen,
    /// A time leads to the first change after it.
    TimeRoundsUp,
    /// A time in which several changes were made leads to the first of them.
    TimeRoundsToLate,
    /// A target in the future leads to the newest state.
    FutureIsNow,
    /// A history leaves out deletes.
    HistoryWithoutDeletes,
    /// A history begins with the first change in the window.
    HistoryWithoutFirst,
    /// An open forgets the points.
    PointsEndAtOpen,
    /// The window passes points.
    PointsHoldNothing,
    /// A point does not expire.
    PointsNeverExpire,
    /// A second point of the same name replaces the first.
    PointMoves,
    /// A restore writes the newest state.
    RestoresNewest,
    /// A restore takes a directory that holds a store.
    RestoresIntoStore,
    /// A restore does not sync the directories that it creates.
    RestoreIsNotSynced,
    /// The changes of a restored store begin with LSN 1.
    RestoreReusesLsns,
    /// A backup leaves out changes that are not durable.
    BackupIsDurable,
    /// A backup into a directory that has one does nothing.
    BackupOnlyOnce,
    /// A backup opens for writing.
    BackupIsAStore,
    /// A backup replaces any store.
    BackupIntoStore,
    /// A backup overwrites the earlier one in place.
    BackupInPlace,
}

impl Defect {
    /// The defects that only concurrent threads can show.
    pub const CONCURRENT: &[Defect] = &[
        Defect::LsnDrawnEarly,
        Defect::BatchKeyByKey,
        Defect::CheckThenAct,
        Defect::StaleWhenBusy,
        Defect::TakesBack,
    ];

    /// The defects of an engine that writes checkpoints.
    pub(super) const CHECKPOINTS: &[Defect] =
        &[Defect::CheckpointNotDurable, Defect::CheckpointLosesKey, Defect::CheckpointResurrects];

    /// The defects in which callers sync together, without the lock of the state.
    pub(super) const TOGETHER: &[Defect] = &[
        Defect::JoinsEarlierDump,
        Defect::CountsLateChanges,
        Defect::DurableWhileSyncing,
        Defect::ForgetsLateChanges,
        Defect::JoinerMissesFailure,
        Defect::SleepsAfterFailure,
        Defect::RetriesForJoiner,
        Defect::CloseJoinsEarlierDump,
        Defect::CloseMissesLateChanges,
        Defect::CompactionLosesLateChange,
        Defect::CompactionTakesBackLateChange,
        Defect::DurableGoesBack,
    ];
}
