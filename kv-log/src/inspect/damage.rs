use std::fmt;
use std::path::PathBuf;

/// A damaged part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where the part begins, bytes from the start of the file.
    pub offset: u64,
    /// Its length, bytes. 0 where something is missing.
    pub len: u64,
    /// The fault.
    pub fault: String,
    /// The lost changes.
    pub lost: Lost,
}

/// The changes that a damaged part held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// The changes that can still be named.
    pub named: Vec<LostChange>,
    /// Whether there may be others.
    pub others: bool,
    /// Every lost change has at least this LSN.
    pub lsn_min: u64,
    /// Every lost change has at most this LSN. `None` when nothing tells.
    pub lsn_max: Option<u64>,
}

/// A lost change that can still be named.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostChange {
    /// Where its record begins, bytes from the start of the file.
    pub offset: u64,
    /// Its LSN.
    pub lsn: u64,
    /// Its key. `None` if the file ends before it.
    pub key: Option<Vec<u8>>,
    /// Whether the record itself is intact. It is lost because its batch is not whole. Otherwise
    /// the bytes of the key may be damaged.
    pub is_intact: bool,
}

impl Lost {
    /// Nothing.
    pub(super) fn nothing() -> Self {
        Lost::default()
    }

    /// Changes that nothing names.
    pub(super) fn unknown(lsn_min: u64, lsn_max: Option<u64>) -> Self {
        Lost { named: Vec::new(), others: true, lsn_min, lsn_max }
    }

    /// Whether no change is lost.
    pub fn is_nothing(&self) -> bool {
        self.named.is_empty() && !self.others
    }
}

impl fmt::Display for Damage {
    /// The place, the fault and the loss, without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { path, offset, len, fault, lost } = self;
        write!(f, "{} at byte {offset}", path.display())?;
        if *len > 0 {
            write!(f, ", {len} bytes")?;
        }
        write!(f, ": {fault}; {lost}")
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lost { named, others, lsn_min, lsn_max } = self;
        match (others, named.len(), lsn_max) {
            (false, 0, _) => f.write_str("no change is lost"),
            (false, 1, _) => write!(f, "1 change is lost, of LSN {lsn_min}"),
            (false, count, Some(max)) if max == lsn_min => {
                write!(f, "{count} changes are lost, of LSN {lsn_min}")
            }
            (false, count, max) => {
                write!(f, "{count} changes are lost, of LSNs {lsn_min} to {}", max.unwrap_or(u64::MAX))
            }
            (true, _, Some(max)) => write!(f, "changes may be lost, of LSNs {lsn_min} to {max}"),
            (true, _, None) => write!(f, "changes may be lost, from LSN {lsn_min} on"),
        }
    }
}
