use crate::Lsn;
use std::time::Duration;

/// The counters and sizes of an engine. All sizes are bytes; counters start at open.
///
/// Every engine fills in `keys`, `last_lsn`, `durable_lsn`, `changes` and `recovery`. It leaves
/// another field at zero if it has no such thing (a table without a log has no segments), or does
/// not measure it. A field that is not zero is right: `disk_bytes` counts every file that holds
/// changes, by its length. Memory that moves from one use to another may count twice for a moment.
///
/// One exception: after a crash and an open from a checkpoint, two fields may be estimates. The
/// number of keys is exact once [`warm_up_bytes`](Self::warm_up_bytes) is zero, and `live_bytes` is
/// exact once all records are in memory.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys present.
    pub keys: u64,
    /// Keys and values present, bytes: the size of the data for a user.
    pub live_bytes: u64,
    /// Memory that holds records or the table, live or dead, unflushed included, and that of a
    /// running compaction; index excluded.
    pub memory_bytes: u64,
    /// Memory of the index.
    pub index_bytes: u64,
    /// Memory that is no longer reachable but not yet given back, because a reader may still look
    /// at it (the reclamation lag), or because the engine keeps it for the next segments.
    pub retired_bytes: u64,
    /// Changes made but not yet written to a file, bytes.
    pub unflushed_bytes: u64,
    /// Files of the store, bytes, as far as the engine knows; files that are about to be removed
    /// included.
    pub disk_bytes: u64,
    /// The part of `disk_bytes` that only past states need: what the window costs.
    pub past_bytes: u64,
    /// Files that the store does not need any more and that could not be removed. Their bytes count
    /// as `disk_bytes`.
    pub leftover_files: u64,
    /// Log segments that hold data.
    pub segments: u64,
    /// Newest visible change.
    pub last_lsn: Lsn,
    /// Newest durable change.
    pub durable_lsn: Lsn,
    /// Changes made (puts, deletes that found their key, batches).
    pub changes: u64,
    /// Dumps to disk: log writes, or snapshots.
    pub dumps: u64,
    /// File syncs.
    pub syncs: u64,
    /// Bytes written to files, for any reason.
    pub bytes_written: u64,
    /// Waits of writers: too much was unflushed, memory had to come free, or the next segment was
    /// not ready.
    pub stalls: u64,
    /// Time writers spent in those waits.
    pub stall_time: Duration,
    /// Compactions on disk finished.
    pub compactions: u64,
    /// Segments whose image in memory was compacted.
    pub memory_compactions: u64,
    /// Segments that left memory because of a limit on it.
    pub evictions: u64,
    /// Times a writer went on although memory without live records had reached its ceiling: a slow
    /// disk, or a reader that holds it.
    pub slack_excesses: u64,
    /// Records that had to be read from a file, for a read or to find the record that a change
    /// replaces.
    pub fetches: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Bytes of records that a warm-up still has to bring into memory after an open from a
    /// checkpoint. Meanwhile readers read them from files.
    pub warm_up_bytes: u64,
    /// Bytes of survivors that compaction on disk copied.
    pub compacted_bytes: u64,
    /// Times a segment could not be compacted since its records could not be read. It was left as
    /// it was; an explicit compaction tells the reason.
    pub compaction_failures: u64,
    /// Whether every change that has returned survives the death of the process.
    pub process_safety: ProcessSafety,
    /// The report of the recovery at open.
    pub recovery: RecoveryReport,
}

/// Whether changes survive the death of the process. See *Durability* in the
/// [contract](crate::Engine).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProcessSafety {
    /// The engine does not promise it: it lacks the
    /// [capability](crate::Capabilities::process_safe), or its options switch it off.
    #[default]
    NotPromised,
    /// Every change that has returned does.
    Safe,
    /// Changes that the engine has not written yet do not. The text says why.
    Unsafe(String),
}

/// The report of a recovery.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Records replayed or loaded, without those of a checkpoint.
    pub records: u64,
    /// Bytes read, without those of a checkpoint.
    pub bytes: u64,
    /// Files read, without a checkpoint.
    pub files: u64,
    /// Bytes cut from the end of the newest file after a crash, reserved zeros included.
    pub torn_bytes: u64,
    /// The last change recovered.
    pub last_lsn: Lsn,
    /// Bytes of records that the process before had not written to files. They were in shared
    /// memory.
    pub adopted_bytes: u64,
    /// Faults that did not stop the recovery, each with its place.
    pub warnings: Vec<String>,
    /// How long opening took.
    pub duration: Duration,
    /// Bytes of the checkpoint that the index was loaded from. 0: the whole log was replayed.
    pub checkpoint_bytes: u64,
    /// Keys that were loaded from it.
    pub checkpoint_keys: u64,
    /// The LSN behind which the log was replayed. 0 without a checkpoint.
    pub checkpoint_lsn: Lsn,
    /// Why a checkpoint was there and could not be used. The whole log was replayed then.
    pub checkpoint_fault: Option<String>,
}
