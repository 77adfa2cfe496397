use crate::{Batch, Checkpoint, Compact, Lsn, PointInTime, Result, Stats, Value};
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::task::{Context, Poll};

/// A scan calls it with each key and value. It answers whether to go on.
pub type ScanVisitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A key-value storage engine. Object-safe: `Arc<dyn Engine>` is how an application, a test suite
/// or a benchmark holds one.
///
/// # Contract
///
/// **Keys and values** are any bytes, the empty string included, up to the engine's
/// [`Limits`](crate::Limits).
///
/// **Order.** Every change (a put, a delete that found its key, a batch that changed something) has
/// an [`Lsn`]. The order of LSNs, the *log order*, is the order in which changes become visible: at
/// every moment the readable state is the state after all changes up to some LSN and none beyond.
/// LSNs grow strictly and are never used twice, not even for changes that a crash took away, nor in
/// a store that became empty. An engine may skip LSNs. A call that changes nothing takes no LSN: a
/// delete of an absent key, an empty batch, a batch that only deletes absent keys or puts and
/// deletes the same absent key, a refused call.
///
/// **Visible LSNs.** [`last_lsn`](Engine::last_lsn) never decreases. A caller that has seen a
/// change gets a `last_lsn` at or above its LSN. Changes up to the `last_lsn` that a caller got are
/// visible to it. After an orderly close and an open, `last_lsn` is the same, and everything is
/// durable.
///
/// **Visibility.** Operations are linearizable. A change is visible before its call returns, and
/// stays visible even if it does not become durable. All changes of a batch become visible at once.
///
/// **Durability.** [`durable_lsn`](Engine::durable_lsn) never decreases, is at most
/// [`last_lsn`](Engine::last_lsn), and covers a change only after its bytes, and the directory
/// entries that lead to them, were synced. After any crash the recovered state is the state after a
/// prefix of the log order. That prefix contains every change up to any durable LSN that a caller
/// got, from this method, [`sync`](Engine::sync), [`wait_durable`](Engine::wait_durable) or
/// [`poll_durable`](Engine::poll_durable). The [`PersistencePolicy`](crate::PersistencePolicy)
/// decides how far durable changes may trail visible ones. Under a policy that says
/// [`Acknowledge::WhenDurable`](crate::Acknowledge::WhenDurable) a change is durable when its call
/// returns, also if the policy holds or only writes. Other callers may see it a little before.
/// Between visible and durable lies *process-safe*: the change survives the death of the process,
/// and not a power cut. In an engine with the capability
/// [`process_safe`](crate::Capabilities::process_safe) every change is process-safe when its call
/// returns, under any policy.
///
/// **Pacing.** An engine asks the policy after a change, and describes all changes that are not
/// durable in [`Pending`](crate::Pending). It does not ask while there are none. It may dump
/// earlier than the policy demands, for example for want of memory. With threads it asks again when
/// the time of the last answer has passed. With inline background work nothing runs between two
/// calls: the next change asks, also after that time. A `Write` hands the pending changes to the
/// operating system: they survive the death of the process, and are still pending until a sync. A
/// later sync covers them. With inline background work, the call that sets off a dump returns after
/// the dump is over.
///
/// **Failure.** A call that returns an error other than from a failed write or sync changed
/// nothing. A failed write or sync, or any other failed change to its files that a call reports,
/// *poisons* the engine. The call that poisons returns the failure that poisoned, not an earlier
/// one. Every later change and every later `sync` returns
/// [`Error::Poisoned`](crate::Error::Poisoned) with that failure. So do `wait_durable` and
/// `poll_durable`, for an LSN beyond `durable_lsn`. Reads go on with the state as it
/// was visible, and `durable_lsn` stands still. A failed sync is never tried again. A change whose
/// own call failed that way may or may not be in the recovered state, as for a crash. With inline
/// background work, a change may set off a dump that its policy does not wait for. If that dump
/// fails, the change is visible although its call returns the error.
///
/// Reopening recovers, with or without a reboot in between. After a failed sync, the page cache may
/// show bytes, and the directory names, that no later sync saves. So an engine writes bytes and
/// files again that it does not know to be synced, before it calls them durable.
///
/// **Refusals.** Six failures need not poison. Five are the lack of a resource: space on the disk,
/// file descriptors, memory, segments, or shared memory where process safety is required. The sixth
/// is a file at the size limit of the process. [`Error::is_refusal`](crate::Error::is_refusal)
/// tells them. The engine may refuse the call instead. A refused call has changed nothing: neither
/// a key nor `last_lsn`, and nothing that a crash could show. Changes of earlier calls may have
/// become durable. Once the reason is gone the engine takes changes again. So a `DiskFull` that
/// does not poison has changed nothing.
///
/// **A full disk has a way out.** With no byte free on the disk a store can be opened, read and
/// closed, and its keys can be deleted one by one. If a put has poisoned the engine, it must be
/// reopened first. Deleting gives the space of the deleted keys back, to the store or to the disk.
/// An engine holds space for that: see [`Reserve`](crate::parts::Reserve).
///
/// **Leftovers.** A file that cannot be removed does no harm: the engine goes on, and tries again a
/// bounded number of times. Neither a failed call nor a crash leaves files behind that add up: the
/// bytes on the disk stay in proportion to the data, however often the store is opened.
///
/// **Resources.** The same work repeated takes no more than it took before: the number and length
/// of files, of open files, and of threads stay within bounds that do not depend on how long the
/// engine runs. Deleting all keys and compacting, or opening again where the engine does not
/// compact on request, gives most of their space on the disk back. A closed engine holds no
/// lock and no thread. Its last handle, once dropped, leaves no open file and nothing else behind.
///
/// **Checkpoints.** In an engine with the capability
/// [`checkpoint`](crate::Capabilities::checkpoint), a [checkpoint](crate::Checkpoint) makes all
/// changes before it durable. An open that starts from a checkpoint shows the state that any other
/// open would show.
///
/// **Damage at rest.** The files of a closed store may be changed from outside. The next open
/// refuses the store with an error that names the file, or it shows the state as it was before. An
/// engine with the capability [`checkpoint`](crate::Capabilities::checkpoint) may open a store
/// without a look at all of its files. A read of a damaged record is then an error that names the
/// file. This holds for each flipped bit, zeroed or exchanged part, cut, and for missing, exchanged
/// and foreign files. After a crash, damage at the end of the log may look like the crash: it may
/// cost the changes of the last sync. An open that is refused has changed nothing. Some damage no
/// check catches for certain: of that, a checksum of 32 bits misses one in 2^32. Bytes from the
/// disk never panic.
///
/// **Size limits.** A key, value or batch over its limit is refused with
/// [`Error::TooLarge`](crate::Error::TooLarge) and changes nothing; a batch with one bad entry
/// changes nothing. A `get`, `read` or `delete` of a key over the limit is refused in the same way.
/// But a store that was written under higher limits can be read, scanned and emptied under lower
/// ones: a key that is present is found and deleted, also by a batch. A call with an absent key
/// over the limit answers `TooLarge`. If the store held a key as long when it was opened, the call
/// may answer that the key is absent.
///
/// **Close.** After [`close`](Engine::close) every operation but `close`, `stats`, `last_lsn` and
/// `durable_lsn` returns [`Error::Closed`](crate::Error::Closed), and the directory can be opened
/// again. A change that meets a running `close` may be refused so. Another `close` does nothing: it
/// answers `Ok` if the first one succeeded, and an error if it failed. Dropping the last handle
/// without `close` closes too, and ignores errors. A close makes every change durable before it
/// gives the directory away, and leaves a proof of where the data end: a store that was closed and
/// then cut short is damaged.
///
/// **Place.** An open store uses the directory that it opened, through a handle, and no other one:
/// also after another process renames it, and puts something else at its path. After the directory
/// or its lock file was removed or replaced, the next `sync` of a change fails and poisons, and
/// nothing more becomes durable. Reads go on, but a value that has to be read from a removed file
/// is an `Io` error. A new store may begin in a directory that holds nothing but [files of the
/// system](crate::fs::is_system_file), and leaves these alone. Any number of threads and processes
/// may create a store in the same place at the same time: one opens it, the others are `Locked`.
///
/// **Reading only.** A store that was opened with [`read_only`](crate::OpenOptions::read_only)
/// shows the state that any other open would recover, and changes nothing on the disk. It calls
/// durable only the changes that it knows to be synced: it cannot sync the others. `put`, `delete`,
/// `apply`, `sync`, and `wait_durable` and `poll_durable` beyond `durable_lsn`, are
/// [`Error::ReadOnly`](crate::Error::ReadOnly). Readers exclude a writer, and a writer excludes
/// readers: the later one is `Locked`.
///
/// **Exclusiveness.** A second open of the same directory, by any process, fails with
/// [`Error::Locked`](crate::Error::Locked) until the first is closed or its process is gone.
///
/// **Callbacks** of `read`, `read_many` and `scan` may call any method of the same engine except
/// `close`, for any key, present or new. They may take any time: no other thread waits for them,
/// and the memory that they keep is bounded.
///
/// There are no default methods: a forgotten one does not compile. Conveniences are in
/// [`EngineExt`](crate::EngineExt).
pub trait Engine: Debug + Send + Sync {
    /// Stores `value` under `key`; returns the LSN of the change.
    ///
    /// # Errors
    /// `TooLarge`, `ReadOnly`, `Poisoned`, `Closed`, `Forked`, a refusal. Under `WhenDurable` or in
    /// inline mode also the I/O error of a failed dump.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<Lsn>;

    /// Removes `key`; `None` when it was not there (then nothing changed and no LSN was taken).
    ///
    /// # Errors
    /// As for [`put`](Engine::put).
    fn delete(&self, key: &[u8]) -> Result<Option<Lsn>>;

    /// Applies all changes of `batch` or none, under one LSN, which it returns. Where the batch
    /// names a key twice, the last change wins. A batch that changes nothing (empty, or only
    /// deletes of absent keys) takes no LSN and returns [`last_lsn`](Engine::last_lsn).
    ///
    /// # Errors
    /// As for [`put`](Engine::put).
    fn apply(&self, batch: &Batch) -> Result<Lsn>;

    /// The value under `key`.
    ///
    /// # Errors
    /// `TooLarge`, `Closed`, `Forked`, or an I/O or corruption error if the value had to be read
    /// from disk.
    fn get(&self, key: &[u8]) -> Result<Option<Value>>;

    /// Calls `visit` once with the value under `key`, borrowed where it lies, and returns `true`;
    /// or returns `false` when there is none.
    ///
    /// # Errors
    /// As for [`get`](Engine::get).
    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Calls `visit(position, value)` once for each of `keys`, in their order, with the value
    /// borrowed where it lies, or `None` when there is none. The same as so many
    /// [`read`](Engine::read)s: no snapshot. An engine that waits for memory or a disk can wait for
    /// several keys at a time.
    ///
    /// # Errors
    /// As for [`get`](Engine::get). With a key over the limit nothing is visited. Visits before
    /// another error are right.
    fn read_many(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()>;

    /// Calls `visit(key, value)` for the keys of the store, in no particular order, until it
    /// answers `Break`.
    ///
    /// A key that is present during the whole scan is visited exactly once, with a value that it
    /// had during the scan. A key that is added or removed meanwhile is visited at most once. The
    /// scan is not a snapshot: it may see the change of a concurrent batch for one key and not for
    /// another.
    ///
    /// # Errors
    /// As for [`get`](Engine::get).
    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()>;

    /// Makes every change visible when the call began durable; returns the durable LSN reached.
    ///
    /// # Errors
    /// The I/O error of a failed dump, `Poisoned`, `ReadOnly`, `Closed`, `Forked`.
    fn sync(&self) -> Result<Lsn>;

    /// Returns once `lsn` is durable: at once if it already is, otherwise it causes the sync
    /// itself. Concurrent callers share one sync (group commit). An LSN beyond `last_lsn` is
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument).
    ///
    /// # Errors
    /// As for [`sync`](Engine::sync).
    fn wait_durable(&self, lsn: Lsn) -> Result<()>;

    /// As [`wait_durable`](Engine::wait_durable), without blocking the thread for others: `Pending`
    /// until `lsn` is durable. The poll causes the sync even if the policy holds. An engine
    /// with background threads asks its thread for the sync, and many polls share one. An engine
    /// without threads, or in inline mode, syncs within the poll and never returns `Pending`.
    ///
    /// The engine wakes the task when `lsn` is durable, and when the engine is poisoned or closed.
    /// The wake may come from a thread of the engine, which dumps nothing while the waker runs: a
    /// waker schedules its task and returns. A waker that holds the last handle may drop it. A task
    /// that polls again replaces its entry. A task that never polls again leaves one entry until
    /// the next wake of `lsn`. [`EngineExt::durable`](crate::EngineExt::durable) makes a future of
    /// it.
    ///
    /// # Errors
    /// As for [`wait_durable`](Engine::wait_durable). Where a sync fails for several tasks, each
    /// gets [`Error::Poisoned`](crate::Error::Poisoned) or the failure itself.
    fn poll_durable(&self, lsn: Lsn, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// The newest durable change. See the contract.
    fn durable_lsn(&self) -> Lsn;

    /// The newest visible change; 0 before the first. LSNs that are only reserved do not count.
    fn last_lsn(&self) -> Lsn;

    /// Counters and sizes. May take locks; not for the hot path.
    fn stats(&self) -> Stats;

    /// Makes everything durable, stops background work and releases the directory. A second call
    /// does nothing and answers as the first: `Ok`, or an error. On a poisoned engine it releases
    /// the directory and returns `Poisoned`.
    ///
    /// # Errors
    /// As for [`sync`](Engine::sync); the directory is released all the same.
    fn close(&self) -> Result<()>;

    /// This engine as one that writes checkpoints, if it does.
    fn as_checkpoint(&self) -> Option<&dyn Checkpoint>;

    /// This engine as one that restores past states, if it does.
    fn as_point_in_time(&self) -> Option<&dyn PointInTime>;

    /// This engine as one that compacts on request, if it does.
    fn as_compact(&self) -> Option<&dyn Compact>;
}
