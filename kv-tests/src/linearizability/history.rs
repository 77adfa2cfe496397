use kv_core::Lsn;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

pub(crate) type Key = u8;

/// Represents a value: no two operations write the same number.
pub(crate) type Number = u32;

/// Keys and values.
pub(crate) type State = BTreeMap<Key, Number>;

/// The call of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Get(Key),
    Put(Key, Number),
    Delete(Key),
    /// Puts with a number, deletes without; no key twice. At least one is a put: the answer to a
    /// batch of deletes does not tell whether it changed anything.
    Batch(Vec<(Key, Option<Number>)>),
}

/// The answer to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Answer to a get.
    Found(Option<Number>),
    /// Answer to a get: bytes that no operation writes.
    Garbage,
    /// Answer to a change.
    Changed(Lsn),
    /// Answer to a delete: the key was absent.
    Absent,
}

/// One operation of one thread. Times are ticks of a clock that all threads share; no two are
/// equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) thread: usize,
    pub(crate) call: Call,
    pub(crate) called: u64,
    /// `None`: the operation was in flight at a crash, or failed. It took effect at any time since
    /// its call, or never.
    pub(crate) returned: Option<(u64, Answer)>,
}

impl Operation {
    pub(crate) fn lsn(&self) -> Option<Lsn> {
        match self.returned {
            Some((_, Answer::Changed(lsn))) => Some(lsn),
            _ => None,
        }
    }

    /// Whether its answer says that it changed nothing.
    pub(super) fn only_reads(&self) -> bool {
        matches!(self.call, Call::Get(_)) || matches!(self.returned, Some((_, Answer::Absent)))
    }

    /// The keys that it changes, each with its new number.
    pub(super) fn effects(&self) -> Vec<(Key, Option<Number>)> {
        match &self.call {
            _ if self.only_reads() => Vec::new(),
            Call::Get(_) => Vec::new(),
            Call::Put(key, number) => vec![(*key, Some(*number))],
            Call::Delete(key) => vec![(*key, None)],
            Call::Batch(changes) => changes.clone(),
        }
    }

    /// The keys that it reads or changes.
    pub(super) fn keys(&self) -> Vec<Key> {
        match &self.call {
            Call::Get(key) | Call::Put(key, _) | Call::Delete(key) => vec![*key],
            Call::Batch(changes) => changes.iter().map(|(key, _)| *key).collect(),
        }
    }

    /// Whether its answer is right in this state.
    pub(super) fn fits(&self, state: &State) -> bool {
        match (&self.call, self.returned) {
            (Call::Get(key), Some((_, Answer::Found(found)))) => state.get(key).copied() == found,
            (Call::Get(_), _) => false,
            (Call::Delete(key), Some((_, Answer::Absent))) => !state.contains_key(key),
            (Call::Delete(key), Some(_)) => state.contains_key(key),
            _ => true,
        }
    }

    pub(super) fn apply(&self, state: &mut State) {
        for (key, number) in self.effects() {
            match number {
                Some(number) => state.insert(key, number),
                None => state.remove(&key),
            };
        }
    }
}

/// A crash at the end of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Crash {
    /// The highest LSN that the engine reported as durable.
    pub(crate) durable: Lsn,
    pub(crate) recovered: State,
}

/// The operations of several threads on one store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// The state before.
    pub(crate) start: State,
    /// The highest LSN given out before.
    pub(crate) last: Lsn,
    pub(crate) operations: Vec<Operation>,
    pub(crate) crash: Option<Crash>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Get(key) => write!(f, "get k{key}"),
            Call::Put(key, number) => write!(f, "put k{key}=#{number}"),
            Call::Delete(key) => write!(f, "delete k{key}"),
            Call::Batch(changes) => {
                f.write_str("batch")?;
                changes.iter().try_for_each(|(key, number)| match number {
                    Some(number) => write!(f, " k{key}=#{number}"),
                    None => write!(f, " -k{key}"),
                })
            }
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Found(Some(number)) => write!(f, "#{number}"),
            Answer::Found(None) => f.write_str("none"),
            Answer::Garbage => f.write_str("bytes that no operation wrote"),
            Answer::Changed(lsn) => write!(f, "lsn {lsn}"),
            Answer::Absent => f.write_str("absent"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {}: {} -> ", self.thread, self.call)?;
        match self.returned {
            Some((at, answer)) => write!(f, "{answer} [{},{at}]", self.called),
            None => write!(f, "no answer [{},", self.called),
        }
    }
}

/// One line each: the state before, the operations by the time of their call, the crash.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "before: {} (lsn {})", line(&self.start), self.last)?;
        let mut operations: Vec<&Operation> = self.operations.iter().collect();
        operations.sort_by_key(|operation| operation.called);
        operations.into_iter().try_for_each(|operation| writeln!(f, "{operation}"))?;
        match &self.crash {
            Some(crash) => {
                write!(f, "crash, durable up to lsn {}; recovered: {}", crash.durable, line(&crash.recovered))
            }
            None => Ok(()),
        }
    }
}

fn line(state: &State) -> String {
    let mut text = String::new();
    for (key, number) in state {
        // Writing to a string does not fail.
        let _ = write!(text, "k{key}=#{number} ");
    }
    if text.is_empty() { "nothing".to_owned() } else { text.trim_end().to_owned() }
}
