/// A deliberate bug: what the suite must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Files are written and never synced.
    NoFileSync,
    /// A new file gets its name, and the directory is not synced.
    NoDirectorySync,
    /// `durable_lsn` moves before the write.
    DurableBeforeWrite,
    /// Under `Always`, a change returns before it is dumped.
    AcknowledgeBeforeDump,
    /// A file is renamed into place before its content is synced.
    RenameBeforeSync,
    /// A record is believed without a look at its checksum.
    NoChecksum,
    /// What cannot be read is taken for a torn tail, wherever it is.
    TruncatesMidLog,
    /// Each change of a batch is a record of its own.
    SplitBatch,
    /// A batch is applied up to its first bad entry.
    PartialBatch,
    /// Where a batch names a key twice, the first change wins.
    FirstOfBatchWins,
    /// LSNs go on behind the last one that was recovered.
    LsnReuse,
    /// Deleting what is not there takes an LSN.
    IdleDeleteTakesLsn,
    /// Deletes are not written.
    DeleteNotLogged,
    /// A key may be one byte too long.
    KeyLimitOffByOne,
    /// Reading many keys gives an absent one the value of the key before it.
    ReadManyKeepsLast,
    /// A scan leaves out the last key.
    ScanSkips,
    /// A scan does not listen to `Break`.
    ScanDoesNotBreak,
    /// The directory is not locked.
    NoLock,
    /// After `close` reads go on.
    ReadsAfterClose,
    /// `close` does not dump.
    CloseDoesNotDump,
    /// A directory with other files is taken for an empty one.
    TakesForeignDirectory,
    /// A store is created unasked.
    CreatesUnasked,
    /// A failed write or sync is reported, and then tried again.
    Retries,
    /// A failed sync is not even reported.
    SwallowsSyncError,
    /// What a short write left over is not written.
    ShortWriteIgnored,
    /// A failed write or sync is reported, and later changes go on as if nothing had been.
    PoisonIgnored,
    /// A change that a full disk refuses stays visible, and the next ones go on.
    FullDiskIgnored,
    /// The policy is never asked.
    PolicyIgnored,
    /// Nobody dumps when time has passed.
    NoTicker,
    /// Nobody tells the ticker that there is something to dump.
    LostWakeUp,
    /// `wait_durable` waits for the second change to come, not for the one that it was asked for.
    WaitsForOthers,
    /// The waker of a future that waits for durability is not kept.
    WakerForgotten,
    /// A future waits for durability, and nothing is asked to sync.
    FutureAsksForNothing,
    /// A future that waits for durability is ready at once.
    FutureDoesNotWait,
    /// After a failure no future that waits for durability is woken.
    FuturesNotToldOfFailure,
    /// After a crash LSNs that were only reserved count as given out.
    CountsReservedLsns,
    /// A reader can see the first half of a value.
    TornValue,
    /// A file that is compacted loses its last key.
    CompactionLosesKey,
    /// A file that is compacted brings back keys of the last open that were deleted since.
    CompactionResurrects,
    /// A file that is compacted brings back the values that the keys of the last open had then.
    CompactionReverts,
    /// An LSN is drawn, and the lock let go before the change is applied.
    LsnDrawnEarly,
    /// The lock is let go between one change of a batch and the next.
    BatchKeyByKey,
    /// A delete looks whether the key is there, lets go of the lock, and then removes it.
    CheckThenAct,
    /// A reader who finds the lock taken reads the copy that was made when it last was free.
    StaleWhenBusy,
    /// A change is visible while it is dumped, and taken back when that fails.
    TakesBack,
    /// A new file is put where the path of the directory leads now.
    FollowsPath,
    /// Nothing is checked after the directory or its lock file was removed.
    IgnoresLostLock,
    /// A locked directory without a lock file is taken for a free one, and its holder does not notice.
    LocksByName,
    /// The lock is let go a moment after `close` returned.
    UnlocksLate,
    /// A directory that another thread creates meanwhile is a failure.
    RacingCreatorFails,
    /// A directory that holds a file of the system is refused.
    RefusesSystemFiles,
    /// A key over the limit cannot be read or deleted, though it is there.
    RefusesLongKeys,
    /// Every replaced file is kept under another name.
    KeepsOldFiles,
    /// A reader locks out other readers.
    ReadersExclude,
    /// An open for reading only writes a new file, as any other.
    ReadOnlyWrites,
    /// A store that is open for reading only takes changes, in memory.
    ReadOnlyTakesChanges,
    /// A reader calls everything durable that it finds.
    ReaderCallsAllDurable,
    /// The engine cannot open for reading only, and opens for writing instead.
    IgnoresReadOnly,
    /// The second `close` is `Ok`, also after one that failed.
    CloseForgetsFailure,
    /// A change whose dump fails succeeds; the next one hears of it.
    FailureToldLate,
    /// No space is held for the way out of a full disk.
    NoReserve,
    /// A change that a full disk refuses is taken back, and `last_lsn` is not.
    FullDiskTakesLsn,
    /// The limit of file sizes is not taken for a full disk.
    FileTooLargeIsIo,
    /// A full disk is no failure of a write: the space was allocated.
    TrustsAllocation,
    /// A lack of descriptors is reported, and the change stays.
    FewDescriptorsIgnored,
    /// Every change tries to remove all files that could not be removed before.
    UnlinksAgain,
}

impl Defect {
    /// All of them.
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
    ];

    /// Those that no single thread can show.
    pub const CONCURRENT: &[Defect] = &[
        Defect::LsnDrawnEarly,
        Defect::BatchKeyByKey,
        Defect::CheckThenAct,
        Defect::StaleWhenBusy,
        Defect::TakesBack,
    ];
}
