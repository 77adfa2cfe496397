//! The deliberate defects.

/// Declares the defects by dimension.
macro_rules! defects {
    ($($dimension:literal: $($(#[doc = $doc:literal])+ $name:ident,)+)+) => {
        /// One mistake of an engine's author.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Defect { $($($(#[doc = $doc])+ $name,)+)+ }

        impl Defect {
            /// Every defect, with its dimension.
            pub(crate) const ALL: &[(Defect, &str)] = &[$($((Defect::$name, $dimension),)+)+];
        }
    };
}

defects! {
    "policy":
    /// Pending deletes do not count as records.
    DeletesNotPending,
    /// Each entry of a batch counts as a record.
    BatchEntriesArePending,
    /// Pending bytes are those of values.
    KeysNotPending,
    /// The policy is asked before the change is counted.
    LastChangeNotPending,
    /// The policy is asked by a sync that left nothing pending.
    AsksWhenIdle,
    /// The policy is not asked after a batch.
    NotAskedAfterBatch,
    /// The policy is not asked after a delete.
    NotAskedAfterDelete,
    /// Under `WhenDurable` a change returns at once if the policy holds.
    HoldAcknowledgesEarly,
    /// Only the first pending change wakes the thread for an earlier question.
    SoonerAskIgnored,
    /// The policy is not asked again after the time that it named.
    DueTimeIgnored,
    /// Inline, the policy is not asked before the time that it named.
    InlineAskAgainIsBinding,
    /// The age of the oldest pending change is that of the newest.
    AgeOfNewestPending,
    /// The age of the oldest pending change counts from the last dump.
    AgeSinceLastDump,
    /// The time since the last dump counts from open.
    DumpTimeIsOpenTime,
    /// A dump that one change demands waits for the second change.
    DumpsOneChangeLate,

    "writes without sync":
    /// `Action::Write` does nothing.
    WriteIsHold,
    /// A write makes the changes durable, as far as callers are told.
    WriteIsDurable,
    /// What was written is not pending any more.
    WrittenIsNotPending,
    /// The bytes that were written are not pending any more.
    WrittenBytesNotPending,
    /// A write does not count as a dump.
    WriteIsNoDump,
    /// After a write, later writes do nothing until the next sync.
    WritesOncePerSync,
    /// A sync without unwritten changes does not sync the file.
    SyncTrustsEmptyBuffer,
    /// A close without unwritten changes does not sync the file.
    CloseTrustsEmptyBuffer,
    /// Without unwritten changes `wait_durable` returns at once.
    WaitTrustsEmptyBuffer,
    /// A mark calls durable what was only written.
    MarkFollowsWrite,

    "stats and LSN":
    /// Overwriting puts count as keys.
    KeysCountPuts,
    /// Overwritten values count as live.
    LiveBytesKeepOverwritten,
    /// The statistics show the last LSN as the durable one.
    StatsDurableIsLast,
    /// The snapshot does not count in the bytes on the disk.
    DiskBytesWithoutSnapshot,
    /// Recovered records count as changes.
    ChangesCountRecovered,
    /// The recovery report counts the log's records only.
    LoadedNotReported,
    /// The recovery report has no torn bytes.
    TornBytesNotReported,
    /// A store that became empty starts at LSN 1 again.
    EmptyStoreForgetsLsn,
    /// LSNs that a crash took are given out again.
    NoLsnReserved,
    /// A close gives back LSNs that an earlier crash took.
    CloseForgetsCeiling,
    /// After an open the last LSN is the highest reserved one.
    LastLsnIsReserved,
    /// After an open nothing is durable before the next sync.
    DurableStartsAtZero,
    /// A put of the present value takes no LSN.
    SameValueTakesNoLsn,
    /// `sync` answers the durable LSN from before it.
    SyncAnswersOldLsn,
    /// `wait_durable` of an LSN that was not given out succeeds.
    FutureLsnIsDurable,

    "resources":
    /// The log grows forever.
    LogNeverShrinks,
    /// Temporary files and unfinished generations stay.
    StraysStay,
    /// The snapshots of old generations stay until the next open.
    OldSnapshotsStay,
    /// The logs of old generations stay until the next open.
    OldLogsStay,
    /// The files of a generation that found no space stay.
    UnfinishedFilesStay,
    /// The handles of old logs stay open.
    HandlesLeak,
    /// Compaction gives nothing back.
    CompactDoesNothing,
    /// Each compaction leaves a thread.
    CompactLeavesThread,
    /// The reserve grows with each use.
    ReserveGrowsWithUse,
    /// There is no reserve.
    NoReserve,
    /// A log that cannot grow poisons, although a snapshot would find space.
    FullLogPoisons,
    /// A file that could not be removed is never tried again.
    LeftoversForgotten,
    /// A file that cannot be removed is tried again at each dump.
    RemovalTriedForever,

    "concurrency":
    /// A batch is visible leaf by leaf.
    BatchVisibleByLeaf,
    /// `last_lsn` shows a change before it is visible.
    LastLsnBeforeVisible,
    /// `last_lsn` shows a change after it is visible.
    LastLsnAfterVisible,
    /// `durable_lsn` goes back during a dump.
    DurableLsnGoesBack,
    /// Changes that arrive while a snapshot is written never reach the log.
    SnapshotLosesLateChanges,
    /// A sync is content with any dump that ends, also one that began before the change.
    SyncJoinsAnyDump,
    /// Each caller that waits syncs on its own.
    NoGroupCommit,
    /// A dump takes the records first and looks for their end afterwards.
    PositionAfterBuffer,
    /// A close takes changes after its last dump.
    CloseTakesLateChanges,
    /// A close gives the directory back before its last dump.
    CloseUnlocksFirst,
    /// A leaf that splits loses its upper half for a moment.
    SplitHidesKeys,

    "contract edges":
    /// The snapshot leaves out empty values.
    SnapshotSkipsEmptyValues,
    /// The log takes a put of an empty value for a delete.
    EmptyPutLoggedAsDelete,
    /// Recovery skips changes of the empty key.
    EmptyKeyNotReplayed,
    /// Key lengths are one byte long.
    KeyLenIsU8,
    /// Value lengths in the snapshot are two bytes long.
    SnapshotValueLenIsU16,
    /// A snapshot ends with the first entry beyond 64 KiB.
    SnapshotEndsAt64KiB,
    /// A snapshot holds at most 65,535 keys.
    SnapshotCountIsU16,
    /// The log holds at most 65,535 entries of a batch.
    BatchCountIsU16,
    /// A batch that changes nothing takes an LSN.
    IdleBatchTakesLsn,
    /// A delete of an absent key answers an LSN.
    AbsentDeleteAnswersLsn,
    /// A batch that changes nothing answers LSN 0.
    EmptyBatchAnswersZero,
    /// A batch does not delete a key that it puts before.
    BatchDeleteMissesOwnPut,
    /// Of a batch's changes of one key the first wins.
    FirstOfRepeatedKeysWins,
    /// A batch with a bad entry changes its first key.
    BadBatchAppliedInPart,
    /// A look-up of a key over the limit finds nothing, instead of a refusal.
    LongKeyIsAbsent,
    /// A key one byte over the limit can be looked up.
    KeyLimitOffByOne,
    /// A present key over lowered limits cannot be looked up.
    LongPresentKeysRefused,
    /// A batch cannot delete a present key over lowered limits.
    BatchRefusesLongPresentKeys,

    "callbacks, scan":
    /// Readers hold the view's lock while their callback runs.
    ReadHoldsView,
    /// Readers hold the commit lock while their callback runs.
    ReadHoldsCommitLock,
    /// `read` finds no empty values.
    ReadSkipsEmptyValue,
    /// A scan holds the view's lock.
    ScanHoldsView,
    /// A scan holds a lock that a split needs.
    ScanHoldsSplitLock,
    /// A scan goes on at the next position of the same leaf.
    ScanByPosition,
    /// A scan goes on at the next leaf by number.
    ScanByLeafNumber,
    /// A scan goes on at the next leaf, even if it was split off the last one.
    ScanByLastKeyOfLeaf,
    /// A `Break` ends the scan of its leaf only.
    ScanBreakEndsLeaf,
    /// A scan skips empty values.
    ScanSkipsEmptyValues,

    "lifecycle":
    /// Reads go on after close.
    ReadsAfterClose,
    /// Scans go on after close.
    ScansAfterClose,
    /// Compaction succeeds after close.
    CompactsAfterClose,
    /// After close the statistics are zero.
    StatsEmptyAfterClose,
    /// A second close fails.
    SecondCloseFails,
    /// A second close succeeds, although the first failed.
    SecondCloseForgetsFailure,
    /// Close keeps the lock until the engine is dropped.
    LockKeptAfterClose,
    /// A close that fails keeps the lock until the engine is dropped.
    FailedCloseKeepsLock,
    /// Close leaves the thread running.
    ThreadOutlivesClose,
    /// Close does not wake tasks that wait.
    CloseWakesNoTask,
    /// Dropping the last handle loses the pending changes.
    DropLosesChanges,
    /// The lock excludes engines of the same process only.
    LocksOnlyInProcess,
    /// A lost lock file is not noticed.
    LostLockIgnored,
    /// Readers exclude readers.
    ReadersExclude,
    /// A reader calls all changes durable.
    ReaderCallsAllDurable,
    /// A reader removes what a crash left.
    ReaderRemovesStrays,
    /// Reads fail on a poisoned engine.
    PoisonEndsReads,
    /// A sync of a poisoned engine succeeds if nothing is pending.
    IdleSyncIgnoresPoison,

    "corruption":
    /// The marks in the log prove nothing.
    MarkIgnored,
    /// The log's checksums are not looked at.
    LogSumsIgnored,
    /// The log's checksums cover neither lengths nor LSNs.
    LogLengthAndLsnUnsummed,
    /// The log's header is not looked at.
    LogHeaderUnchecked,
    /// The checksum of a snapshot covers its numbers only.
    SnapshotSumCoversHead,
    /// The checksum of `CONTROL` is not looked at.
    ControlNotChecked,
    /// A snapshot of another store is taken for the store's own.
    StoreIdUnchecked,
    /// A snapshot of another generation is taken for the present one.
    SnapshotGenerationUnchecked,
    /// A missing log is an empty one.
    MissingLogIsEmpty,
    /// A missing snapshot is an empty one.
    MissingSnapshotIsEmpty,
    /// The proof of the log's end is not looked at.
    EndNotProved,
    /// Close leaves no proof of the log's end.
    CloseLeavesNoProof,
    /// An open that is refused has removed files.
    RefusedOpenRemovesStrays,
    /// A torn tail is taken for damage.
    TornTailIsDamage,

    "durability":
    /// The names of a generation's files are not synced before `CONTROL` names them.
    NamesNotSynced,
    /// The name of `CONTROL` is not synced.
    ControlRenameNotSynced,
    /// `CONTROL` is written in place.
    ControlInPlace,
    /// `CONTROL` names a generation before its files are written.
    ControlBeforeSnapshot,
    /// The snapshot is not synced.
    SnapshotNotSynced,
    /// The header of the log is not synced.
    LogHeaderNotSynced,
    /// The old log is removed before the snapshot is durable.
    OldRemovedFirst,
    /// The log is synced before the records are written.
    SyncBeforeWrite,
    /// Changes are called durable before the sync.
    DurableBeforeSync,
    /// A mark comes with the records that it proves.
    MarkBeforeSync,
    /// A failed sync is tried again.
    FailedSyncRetried,
    /// A failed sync is not noticed.
    SyncErrorIgnored,
    /// A failed dump does not poison.
    FailureDoesNotPoison,
    /// Recovery calls the bytes of the log durable that it has read.
    RecoveryTrustsCache,
    /// Recovery syncs the bytes of the log that it has read, and does not write them again.
    RecoveryOnlySyncs,
    /// Recovery does not sync the names that it has read.
    RecoveredNamesNotSynced,
    /// Recovery replays the first change of a batch only.
    ReplaysFirstOfBatch,
    /// Recovery replays no deletes.
    DeletesNotReplayed,

    "read_many":
    /// The second visit of the same key is left out.
    ReadManySkipsRepeatedKey,
    /// An absent key has the value of the key before.
    ReadManyAbsentTakesPrevious,
    /// An empty value is absent.
    ReadManyEmptyIsNone,
    /// Keys behind an absent one are left out.
    ReadManyEndsAtAbsent,
    /// Keys behind the 64th are left out.
    ReadManyAtMost64,
    /// Keys are visited in their own order.
    ReadManySortsKeys,
    /// Keys in front of one over the limit are visited.
    ReadManyChecksAsItGoes,
    /// The view's lock is held while callbacks run.
    ReadManyHoldsView,

    "process safety":
    /// The engine says that it is process-safe, and is as any other.
    ClaimsProcessSafety,
    /// A batch returns before the operating system has it.
    BatchesNotProcessSafe,
    /// A delete returns before the operating system has it.
    DeletesNotProcessSafe,

    "tail":
    /// An opening does not look for the tail.
    TailIgnored,
    /// The tail of an earlier opening is replayed.
    StaleTailAdopted,
    /// The tail of another directory with the same store is replayed.
    ForeignTailAdopted,
    /// The tail goes before the files hold its changes.
    TailGivenUpEarly,
    /// The changes of the tail are visible, the files do not hold them, and the tail goes.
    AdoptsInMemoryOnly,
    /// A torn record in the tail is left out, and those behind it are replayed.
    AdoptsPastTornRecord,
    /// The checksums of the records in the tail are not looked at.
    TailSumsIgnored,
    /// A change that does not fit the tail counts as stored.
    FullTailIgnored,
    /// The engine calls itself safe without shared memory.
    MissingTailIgnored,
    /// A clean close leaves the tail.
    CloseLeavesTail,
    /// An open for reading only removes the tail.
    ReaderTakesTail,
}

impl Defect {
    /// Whether the engine claims to be process-safe, and hands changes to the operating system.
    pub(crate) fn is_of_process_safety(self) -> bool {
        Defect::ALL.contains(&(self, "process safety"))
    }

    /// Whether the engine keeps changes in shared memory.
    pub(crate) fn is_of_tail(self) -> bool {
        Defect::ALL.contains(&(self, "tail"))
    }
}

/// The defect of an engine, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Broken(Option<Defect>);

impl Broken {
    pub(crate) fn with(defect: Defect) -> Self {
        Broken(Some(defect))
    }

    pub(crate) fn is(self, defect: Defect) -> bool {
        self.0 == Some(defect)
    }
}
