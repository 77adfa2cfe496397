//! Commit: a change takes its LSN, is encoded once into the head segment, and becomes visible.
//!
//! All of that happens under one lock, the commit lock, so the order of LSNs, the order of bytes in
//! the log and the order of visibility are one and the same: what the contract calls log order.
//!
//! What can be done before is done before. Without any lock: limits, hash, checksum of key and value, and
//! the search for the record that the change replaces, which may have to be read from a file. Then, with
//! the key's shard of the index locked, another look tells whether that record is still the newest. If
//! another one took its place, and only a file would tell which, the shard is unlocked, and the search is
//! done once more. The locked shard also makes room for a new key: a change that there is no memory for
//! is refused before the log has it.
//!
//! Lock order of the engine: compaction -> leadership of a flush (`flush`) -> shards of the index
//! in ascending order -> commit lock -> making of spares -> spares -> manifest -> segments ->
//! leftovers, reserve, directory. No lock but compaction's is held while a caller's code runs, and
//! that one only while a policy plans.

use kv_core::{Error, Result};
use kv_wal_format::{Record, RecordKind, SEGMENT_HEADER_LEN, body_checksum, encoded_len};
use std::thread;
use std::time::Duration;

use crate::compaction::Extent;
use crate::head::{LockedEnd, Position, SEAL_LEN};
use crate::index::{KeyHash, LockedShard, Newest};
use crate::readers::{Guard, collect, pin};
use crate::reserve::Need;
use crate::segment::{Found, Location};
use crate::store::{Store, is_full};

/// A change, ready to be committed.
struct Prepared<'a> {
    record: Record<'a>,
    hash: KeyHash,
    body_checksum: u32,
    /// Where the key pointed a moment ago: no lock is held while memory or a file is waited for.
    newest: Option<Newest>,
    /// Cold records of other keys with the same tag.
    others: Vec<Location>,
}

impl<'a> Prepared<'a> {
    #[inline]
    fn new(store: &Store, record: Record<'a>, guard: &Guard) -> Result<Self> {
        let hash = store.index.hash(record.key);
        store.index.prefetch(hash, guard);
        let body_checksum = body_checksum(record.key, record.value);
        let mut prepared = Prepared { record, hash, body_checksum, newest: None, others: Vec::new() };
        prepared.look_up(store, guard)?;
        Ok(prepared)
    }

    fn look_up(&mut self, store: &Store, guard: &Guard) -> Result<()> {
        let (key, others) = (self.record.key, Some(&mut self.others));
        let newest = |location, found: Found<'_>| Newest { location, value_len: found.value.len() };
        self.newest = store.index.find(self.hash, key, others, &store.segments, guard, newest)?;
        Ok(())
    }

    /// Whether it changes anything, given what it would replace.
    fn is_effective(&self, before: Option<Newest>) -> bool {
        self.record.kind == RecordKind::Put || before.is_some()
    }
}

/// What a change has been through before this attempt to commit it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    /// It waited for a flush, and once is enough.
    has_waited: bool,
    /// How it may go on in a new segment.
    need: Need,
}

impl Attempt {
    fn first(is_relief: bool) -> Self {
        Attempt { has_waited: false, need: if is_relief { Need::Relief } else { Need::Growth } }
    }

    fn after_waiting(self) -> Self {
        Attempt { has_waited: true, ..self }
    }
}

/// What became of an attempt to commit.
pub(crate) enum Outcome<T> {
    Done(T),
    /// A record has to be read from a file first.
    LookAgain,
    /// Too much is unflushed for a change with records of `len` bytes.
    NoRoom {
        len: usize,
    },
}

impl Store {
    /// Commits a put.
    pub(crate) fn commit_put(&self, key: &[u8], value: &[u8]) -> Result<Position> {
        self.options.limits.check_key(key)?;
        self.options.limits.check_value(value)?;
        Ok(self.commit_one(Record::put(0, key, value))?.expect("a put always changes something"))
    }

    /// Commits a delete; `None` when the key was not there.
    pub(crate) fn commit_delete(&self, key: &[u8]) -> Result<Option<Position>> {
        self.check_key(key)?;
        self.commit_one(Record::delete(0, key))
    }

    /// Commits a change; `None` when there is nothing to change.
    #[inline]
    fn commit_one(&self, record: Record<'_>) -> Result<Option<Position>> {
        self.commit_with(record.kind == RecordKind::Delete, |attempt| {
            let guard = pin();
            let mut change = Prepared::new(self, record, &guard)?;
            loop {
                match self.try_commit_one(&mut change, attempt, &guard)? {
                    Outcome::LookAgain => change.look_up(self, &guard)?,
                    outcome => return Ok(outcome),
                }
            }
        })
    }

    /// Calls `commit` until it is done, and between two calls waits for room or makes some. The thread
    /// must not be pinned then, so each call finds out again what the one before found out.
    #[inline]
    pub(crate) fn commit_with<T>(
        &self,
        is_relief: bool,
        mut commit: impl FnMut(Attempt) -> Result<Outcome<T>>,
    ) -> Result<T> {
        let mut attempt = Attempt::first(is_relief);
        loop {
            self.health.check_writable()?;
            attempt = match commit(attempt) {
                Ok(Outcome::Done(done)) => return Ok(done),
                Ok(Outcome::LookAgain) => attempt,
                Ok(Outcome::NoRoom { len }) => {
                    self.wait_for_room(len)?;
                    attempt.after_waiting()
                }
                Err(error) => self.make_way(attempt, error)?,
            };
        }
    }

    /// Compacts on behalf of a change that found the disk full, or no segment free; returns how the
    /// change may try again.
    ///
    /// # Errors
    /// `error`, where nothing is to be gained, and all other errors.
    #[cold]
    fn make_way(&self, attempt: Attempt, error: Error) -> Result<Attempt> {
        if !is_full(&error) || self.health.is_poisoned() {
            return Err(error);
        }
        let report = match self.compact(Extent::Pressed(attempt.need)) {
            Err(error) if self.health.is_poisoned() => return Err(error),
            report => report.unwrap_or_default(),
        };
        self.wait_for_removed_files();
        match attempt.need {
            _ if report.freed_bytes > 0 => Ok(attempt),
            Need::Relief => Ok(Attempt { need: Need::LastRelief, ..attempt }),
            _ => Err(error),
        }
    }

    /// Waits a little until no reader keeps the files open that a compaction removed, and with them
    /// their space.
    fn wait_for_removed_files(&self) {
        for _ in 0..20 {
            collect();
            if self.segments.bytes_in_use_by_readers() == 0 {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[inline]
    fn try_commit_one(
        &self,
        change: &mut Prepared<'_>,
        attempt: Attempt,
        guard: &Guard,
    ) -> Result<Outcome<Option<Position>>> {
        let len = change.record.encoded_len();
        let mut shard = self.index.lock(self.index.shard_of(change.hash));
        let before = shard.resolve(
            change.hash,
            change.record.key,
            change.newest,
            &change.others,
            &self.segments,
            guard,
        );
        let Ok(before) = before else { return Ok(Outcome::LookAgain) };
        if !change.is_effective(before) {
            return Ok(Outcome::Done(None));
        }
        if before.is_none() {
            // Before the log has the record: a refusal changes nothing.
            shard.reserve(1, self.dir.path())?;
        }
        let mut end = self.end.lock();
        if !self.make_room(&mut end, len, attempt)? {
            return Ok(Outcome::NoRoom { len });
        }
        change.record.lsn = end.next_lsn().get();
        let location = end.head.append(&change.record, change.body_checksum);
        self.publish(&mut shard, change.hash, &change.record, before, location, guard);
        Ok(Outcome::Done(Some(self.committed(&mut end, len))))
    }

    /// Seals the head if it holds any change, so that compaction may look at all of it.
    pub(crate) fn seal_head(&self) -> Result<()> {
        let mut end = self.end.lock();
        self.health.check_writable()?;
        if end.head.has_changes() { self.roll(&mut end, 0, Need::Relief) } else { Ok(()) }
    }

    /// Sees to it that the head can take a change with records of `len` bytes. `false` when too much is unflushed: then the
    /// caller has to wait, with no lock held, and once is enough.
    #[inline]
    pub(crate) fn make_room(&self, end: &mut LockedEnd<'_>, len: usize, attempt: Attempt) -> Result<bool> {
        self.health.check_writable()?;
        if !attempt.has_waited && !self.has_room_for(len, end.position()) {
            return Ok(false);
        }
        if !end.head.has_room(len) {
            self.roll(end, len, attempt.need)?;
        }
        Ok(true)
    }

    /// Goes on in a segment with room for `len` bytes, and seals the head.
    #[cold]
    fn roll(&self, end: &mut LockedEnd<'_>, len: usize, need: Need) -> Result<()> {
        // A head that was made and is forgotten would be a gap in the log.
        let _poison = self.health.poison_on_panic(self.dir.path());
        let next = self.next_heads(SEGMENT_HEADER_LEN + len + SEAL_LEN, need, end.last_lsn());
        next.map_err(|error| self.poison_unless_refused(error))?.into_iter().for_each(|next| end.roll(next));
        Ok(())
    }

    /// Has the index point at the record of a change, or forget the key. To be seen when the shard is unlocked.
    #[inline]
    pub(crate) fn publish(
        &self,
        shard: &mut LockedShard<'_>,
        hash: KeyHash,
        record: &Record<'_>,
        before: Option<Newest>,
        location: Location,
        guard: &Guard,
    ) {
        let Record { kind, key, value, .. } = *record;
        let went = before.map_or(0, |before| key.len() + before.value_len);
        if kind == RecordKind::Put {
            shard.insert(hash, before.map(|before| before.location), location);
            shard.count_pairs(key.len() + value.len(), went);
        } else if let Some(before) = before {
            shard.remove(hash, before.location);
            shard.count_pairs(0, went);
        }
        if let Some(Newest { location, value_len }) = before {
            // Under the commit lock: a flush that makes this change durable comes later, and only then may compaction
            // drop what hides the record that died.
            self.segments.get(location, guard).sums.died(encoded_len(key.len(), value_len) as u64);
        }
    }

    /// Counts a change that is in the log. Before its shards are unlocked: whoever reads it finds it counted, so that a sync
    /// that follows covers it.
    #[inline]
    pub(crate) fn committed(&self, end: &mut LockedEnd<'_>, len: usize) -> Position {
        if end.head.spare_becomes_due() {
            self.spares_due();
        }
        let position = end.advance(len);
        self.progress.changed(&*self.env.clock);
        position
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use crate::index::gate;
    use crate::{LogEngine, Options};
    use kv_core::{Background, Batch, Engine, EngineExt, Env, Error, Lsn};
    use std::collections::BTreeMap;
    use std::io::ErrorKind;

    fn is_refused<T>(answer: Result<T, Error>) -> bool {
        matches!(
            answer,
            Err(Error::Io { op: "allocate memory for the index", source, .. })
                if source.kind() == ErrorKind::OutOfMemory
        )
    }

    #[test]
    fn where_the_index_cannot_grow_changes_are_refused_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env { background: Background::Inline, ..Env::os() };
        let open = || LogEngine::open_in(dir.path(), &env, Options { index_shards: 4, ..Options::default() });
        let store = open().unwrap();
        gate::shut(true);
        let mut model = BTreeMap::new();
        let (mut refused, mut taken_later) = (Vec::new(), 0);
        for key in (0..60_u8).map(|key| vec![key]) {
            let last = store.last_lsn();
            let answer = store.put(&key, b"first");
            if answer.is_ok() {
                taken_later += usize::from(!refused.is_empty());
                model.insert(key, b"first".to_vec());
            } else {
                assert!(is_refused(answer) && store.last_lsn() == last && store.get(&key).unwrap().is_none());
                refused.push(key);
            }
        }
        assert!(taken_later > 0, "other shards still have room");
        assert!(refused.len() > 30, "each of four shards has room for six");

        // One new key that finds no room, among others.
        let (known, last) = (model.keys().next().unwrap().clone(), store.last_lsn());
        let mut batch = Batch::new();
        batch.put(&known, b"second").put(&refused[0], b"second").delete(&known);
        assert!(is_refused(store.apply(&batch)) && store.last_lsn() == last);
        let sorted = |model: &BTreeMap<Vec<u8>, Vec<u8>>| model.clone().into_iter().collect::<Vec<_>>();
        assert_eq!(store.to_sorted_vec().unwrap(), sorted(&model));

        // What takes no room goes on, and what it gives back is used again.
        let mut batch = Batch::new();
        for key in model.keys() {
            batch.put(key, b"second");
        }
        assert_eq!(store.apply(&batch).unwrap(), Lsn::new(last.get() + 1));
        for key in model.keys() {
            store.delete(key).unwrap().unwrap();
        }
        model.clear();
        store.put(&refused[0], b"third").unwrap();
        model.insert(refused[0].clone(), b"third".to_vec());
        store.sync().unwrap();

        gate::shut(false);
        for key in &refused {
            store.put(key, b"fourth").unwrap();
            model.insert(key.clone(), b"fourth".to_vec());
        }
        assert_eq!(store.to_sorted_vec().unwrap(), sorted(&model));
        store.close().unwrap();

        gate::shut(true);
        let answer = open();
        gate::shut(false);
        assert!(is_refused(answer));
        assert_eq!(open().unwrap().to_sorted_vec().unwrap(), sorted(&model));
    }

    #[test]
    fn a_batch_makes_room_for_all_its_keys() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { index_shards: 2, ..Options::default() };
        let store = LogEngine::open(dir.path(), options).unwrap();
        let mut batch = Batch::new();
        for key in 0..5000_u32 {
            batch.put(&(key % 4000).to_le_bytes(), b"value").delete(&(key + 5000).to_le_bytes());
        }
        store.apply(&batch).unwrap();
        assert_eq!(store.stats().keys, 4000);
        assert_eq!(store.to_sorted_vec().unwrap().len(), 4000);
    }
}
