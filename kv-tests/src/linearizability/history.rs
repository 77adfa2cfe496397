use kv_core::Lsn;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

pub(crate) type Key = u8;

/// Stands for a value: no two operations write the same.
pub(crate) type Number = u32;

/// Keys and values.
pub(crate) type State = BTreeMap<Key, Number>;

/// What is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Get(Key),
    Put(Key, Number),
    Delete(Key),
    /// Puts with a number, deletes without; no key twice. It must change something: whether one of deletes alone
    /// did cannot be told from its answer.
    Batch(Vec<(Key, Option<Number>)>),
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To a get.
    Found(Option<Number>),
    /// To a get: bytes that are no value anybody writes.
    Garbage,
    /// To a change.
    Changed(Lsn),
    /// To a delete: the key was not there.
    Absent,
}

/// One operation of one thread. Times are ticks of a clock that all threads share; no two are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) thread: usize,
    pub(crate) call: Call,
    pub(crate) called: u64,
    /// `None`: in flight at a crash, or failed. It may have taken effect at any time since, or never.
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

    /// The keys it changes, with the numbers they get.
    pub(super) fn effects(&self) -> Vec<(Key, Option<Number>)> {
        match &self.call {
            _ if self.only_reads() => Vec::new(),
            Call::Get(_) => Vec::new(),
            Call::Put(key, number) => vec![(*key, Some(*number))],
            Call::Delete(key) => vec![(*key, None)],
            Call::Batch(changes) => changes.clone(),
        }
    }

    /// The keys it reads or changes.
    pub(super) fn keys(&self) -> Vec<Key> {
        match &self.call {
            Call::Get(key) | Call::Put(key, _) | Call::Delete(key) => vec![*key],
            Call::Batch(changes) => changes.iter().map(|(key, _)| *key).collect(),
        }
    }

    /// Whether its answer is right where the state is `state`.
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

/// How a history ended, if not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Crash {
    /// The highest LSN that anybody was told is durable.
    pub(crate) durable: Lsn,
    pub(crate) recovered: State,
}

/// What several threads did to one store.
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
            Answer::Garbage => f.write_str("bytes that nobody wrote"),
            Answer::Changed(lsn) => write!(f, "lsn {lsn}"),
            Answer::Absent => f.write_str("was not there"),
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

/// A line each: the state before, the operations by the time they were called, the crash.
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
