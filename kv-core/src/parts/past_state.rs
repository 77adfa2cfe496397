use super::Health;
use crate::{Batch, Checkpoint, Compact, Engine, Error, Lsn, PointInTime, Result, ScanVisitor, Stats, Value};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::task::{Context, Poll};

/// The keys and values of a past state, in the table that an engine built.
pub trait Pairs: std::fmt::Debug + Send + Sync {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Option<&[u8]>;

    /// Every pair, in any order.
    fn pairs(&self) -> Box<dyn Iterator<Item = (&[u8], &[u8])> + '_>;
}

impl<S: BuildHasher + Send + Sync> Pairs for HashMap<Vec<u8>, Value, S> {
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        HashMap::get(self, key).map(|value| &**value)
    }

    fn pairs(&self) -> Box<dyn Iterator<Item = (&[u8], &[u8])> + '_> {
        Box::new(self.iter().map(|(key, value)| (key.as_slice(), &**value)))
    }
}

/// A past state in memory, as an engine that is open for reading only: a part that engines share.
/// It needs no file, so the store may be compacted and closed meanwhile.
#[derive(Debug)]
pub struct PastState<P = HashMap<Vec<u8>, Value>> {
    pairs: P,
    lsn: Lsn,
    health: Health,
}

impl<P: Pairs> PastState<P> {
    /// The state after every change up to `lsn`: these keys and values.
    pub fn new(lsn: Lsn, pairs: P) -> Self {
        PastState { pairs, lsn, health: Health::read_only() }
    }

    fn refuse<T>(&self) -> Result<T> {
        self.health.check_writable()?;
        Err(Error::ReadOnly)
    }
}

impl<P: Pairs> Engine for PastState<P> {
    fn put(&self, _key: &[u8], _value: &[u8]) -> Result<Lsn> {
        self.refuse()
    }

    fn delete(&self, _key: &[u8]) -> Result<Option<Lsn>> {
        self.refuse()
    }

    fn apply(&self, _batch: &Batch) -> Result<Lsn> {
        self.refuse()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.health.check_readable()?;
        Ok(self.pairs.get(key).map(Value::from))
    }

    fn read(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.health.check_readable()?;
        Ok(self.pairs.get(key).map(visit).is_some())
    }

    fn read_many(&self, keys: &[&[u8]], visit: &mut dyn FnMut(usize, Option<&[u8]>)) -> Result<()> {
        self.health.check_readable()?;
        for (position, key) in keys.iter().enumerate() {
            visit(position, self.pairs.get(key));
        }
        Ok(())
    }

    fn scan(&self, visit: &mut ScanVisitor<'_>) -> Result<()> {
        self.health.check_readable()?;
        // A table has no order of its own, and a past state never changes: its scans are all alike.
        let mut pairs: Vec<_> = self.pairs.pairs().collect();
        pairs.sort_unstable_by_key(|(key, _)| *key);
        let _ = pairs.into_iter().try_for_each(|(key, value)| visit(key, value));
        Ok(())
    }

    fn sync(&self) -> Result<Lsn> {
        self.refuse()
    }

    fn wait_durable(&self, lsn: Lsn) -> Result<()> {
        self.health.check_wait(lsn, self.lsn)
    }

    fn poll_durable(&self, lsn: Lsn, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.wait_durable(lsn))
    }

    fn durable_lsn(&self) -> Lsn {
        self.lsn
    }

    fn last_lsn(&self) -> Lsn {
        self.lsn
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for (key, value) in self.pairs.pairs() {
            stats.keys += 1;
            stats.live_bytes += (key.len() + value.len()) as u64;
        }
        stats.memory_bytes = stats.live_bytes;
        (stats.last_lsn, stats.durable_lsn) = (self.lsn, self.lsn);
        stats
    }

    fn close(&self) -> Result<()> {
        self.health.check_process()?;
        self.health.close();
        Ok(())
    }

    fn as_checkpoint(&self) -> Option<&dyn Checkpoint> {
        None
    }

    fn as_point_in_time(&self) -> Option<&dyn PointInTime> {
        None
    }

    fn as_compact(&self) -> Option<&dyn Compact> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    #[test]
    fn reads_are_answered_and_changes_refused_until_the_close() {
        let pairs = [("b", ""), ("a", "1"), ("", "")];
        let pairs = pairs.map(|(key, value)| (key.into(), value.as_bytes().into()));
        let past = PastState::new(Lsn::new(7), HashMap::from(pairs));
        assert_eq!(past.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
        let mut seen = Vec::new();
        assert!(past.read(b"", &mut |value| seen.push(value.to_vec())).unwrap());
        assert!(!past.read(b"c", &mut |_| panic!("there is no such key")).unwrap());
        past.read_many(&[b"c", b"a"], &mut |_, value| seen.push(value.unwrap_or(b"none").to_vec())).unwrap();
        let mut visits = Vec::new();
        past.scan(&mut |key, _| {
            visits.push(key.to_vec());
            if visits.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert_eq!(seen, [Vec::new(), b"none".to_vec(), b"1".to_vec()]);
        assert_eq!(visits, [b"".as_slice(), b"a"], "in the order of the keys, until the visitor has enough");
        let stats = past.stats();
        assert_eq!((stats.keys, stats.live_bytes, stats.last_lsn), (3, 3, Lsn::new(7)));
        past.wait_durable(Lsn::new(7)).unwrap();
        assert!(past.wait_durable(Lsn::new(8)).is_err());
        let refused = || [past.put(b"a", b"2").err(), past.delete(b"a").err(), past.sync().err()];
        assert!(refused().iter().all(|error| matches!(error, Some(Error::ReadOnly))));
        past.close().unwrap();
        assert!(refused().iter().all(|error| matches!(error, Some(Error::Closed))));
        assert!(matches!(past.get(b"a"), Err(Error::Closed)));
        past.close().unwrap();
    }
}
