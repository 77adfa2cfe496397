/// A deliberate bug that the suite must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
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
}

impl Defect {
    /// All defects.
    pub const ALL: &[Defect] = &[
        Defect::NoFileSync,
        Defect::NoDirectorySync,
        Defect::DurableBeforeWrite,
        Defect::AcknowledgeBeforeDump,
        Defect::RenameBeforeSync,
        Defect::NoChecksum,
        Defect::TruncatesMidLog,
        Defect::SplitBatch,
        Defect::PartialBatch,
        Defect::FirstOfBatchWins,
        Defect::LsnReuse,
        Defect::IdleDeleteTakesLsn,
        Defect::DeleteNotLogged,
        Defect::KeyLimitOffByOne,
        Defect::ReadManyKeepsLast,
        Defect::ScanSkips,
        Defect::ScanDoesNotBreak,
        Defect::NoLock,
        Defect::ReadsAfterClose,
        Defect::CloseDoesNotDump,
        Defect::TakesForeignDirectory,
        Defect::CreatesUnasked,
        Defect::Retries,
        Defect::SwallowsSyncError,
        Defect::ShortWriteIgnored,
        Defect::PoisonIgnored,
        Defect::FullDiskIgnored,
        Defect::PolicyIgnored,
        Defect::NoTicker,
        Defect::LostWakeUp,
        Defect::WaitsForOthers,
        Defect::WakerForgotten,
        Defect::FutureAsksForNothing,
        Defect::FutureDoesNotWait,
        Defect::FuturesNotToldOfFailure,
        Defect::CountsReservedLsns,
        Defect::TornValue,
        Defect::CompactionLosesKey,
        Defect::CompactionResurrects,
        Defect::CompactionReverts,
        Defect::LsnDrawnEarly,
        Defect::BatchKeyByKey,
        Defect::CheckThenAct,
        Defect::StaleWhenBusy,
        Defect::TakesBack,
        Defect::FollowsPath,
        Defect::IgnoresLostLock,
        Defect::LocksByName,
        Defect::UnlocksLate,
        Defect::RacingCreatorFails,
        Defect::RefusesSystemFiles,
        Defect::RefusesLongKeys,
        Defect::KeepsOldFiles,
        Defect::ReadersExclude,
        Defect::ReadOnlyWrites,
        Defect::ReadOnlyTakesChanges,
        Defect::ReaderCallsAllDurable,
        Defect::IgnoresReadOnly,
        Defect::CloseForgetsFailure,
        Defect::FailureToldLate,
        Defect::NoReserve,
        Defect::FullDiskTakesLsn,
        Defect::FileTooLargeIsIo,
        Defect::TrustsAllocation,
        Defect::FewDescriptorsIgnored,
        Defect::UnlinksAgain,
        Defect::DeletesUncounted,
        Defect::RecordsPerEntry,
        Defect::KeysUncounted,
        Defect::OverwritesUncounted,
        Defect::BytesSinceOpen,
        Defect::CountsRecovered,
        Defect::LastUncounted,
        Defect::AbsentDeletesCounted,
        Defect::AsksWhenIdle,
        Defect::AsksNotAfterBatch,
        Defect::AsksNotAfterDelete,
        Defect::AsksEverySecond,
        Defect::AgeOfNewest,
        Defect::AgeSinceOpen,
        Defect::AgeResetByWrite,
        Defect::WriteIsNoDump,
        Defect::SyncIsNoDump,
        Defect::DumpTimeUntold,
        Defect::HoldWhenDurable,
        Defect::DeletesDoNotWait,
        Defect::BatchesDoNotWait,
        Defect::WriteIsHold,
        Defect::SyncIsWrite,
        Defect::WriteForgetsPending,
        Defect::DurableByWrite,
        Defect::SyncTrustsBuffer,
        Defect::WaitTrustsBuffer,
        Defect::CloseTrustsBuffer,
        Defect::PollTrustsBuffer,
        Defect::FailureAfterWriteIgnored,
        Defect::SoonerTimeIgnored,
        Defect::AsksOnceMore,
        Defect::WriteStopsAsking,
        Defect::DumpForgetsLater,
        Defect::HoldDumps,
        Defect::IdleThreadAsks,
    ];

    /// The defects that only concurrent threads can show.
    pub const CONCURRENT: &[Defect] = &[
        Defect::LsnDrawnEarly,
        Defect::BatchKeyByKey,
        Defect::CheckThenAct,
        Defect::StaleWhenBusy,
        Defect::TakesBack,
    ];
}
