use super::OpKind;
use std::io;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Any operation fails with EIO.
    AnyIo,
    /// A mutating operation fails with EIO.
    MutationIo,
    /// An operation that changes nothing fails with EIO: opening, reading, listing, measuring.
    ReadIo,
    /// A sync, of a file or a directory, fails with EIO. The bytes that a file sync should have covered
    /// stay readable, and no later sync writes them.
    Sync,
    /// A mutating operation fails with EACCES.
    Denied,
    /// An operation that takes space fails with ENOSPC.
    DiskFull,
    /// A read or write of more than one byte moves half of it.
    ShortTransfer,
    /// A read or write is interrupted (EINTR).
    Interrupted,
    /// A mutating operation panics, as a bug would, without a message from the panic hook.
    Panic,
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Once.
    Once,
    /// From then on.
    Always,
    /// From then on at every other operation.
    Alternate,
}

/// A fault to inject: at the `nth` operation (from 0) that it can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// How many operations it could have struck go well before.
    pub nth: u64,
    /// How often.
    pub repeat: Repeat,
}

/// What becomes of one operation.
#[derive(Debug)]
pub(super) enum Outcome {
    Works,
    WorksByHalf,
    Fails(io::Error),
    Panics,
}

/// The injected fault, and what it met so far.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultState {
    fault: Option<Fault>,
    met: u64,
    pub(super) fired: u64,
}

impl FaultState {
    pub(super) fn new(fault: Fault) -> Self {
        FaultState { fault: Some(fault), met: 0, fired: 0 }
    }

    /// Decides on the next operation.
    pub(super) fn next(&mut self, op: OpKind, len: u64) -> Outcome {
        let Some(fault) = self.fault.filter(|fault| fault.kind.strikes(op, len)) else {
            return Outcome::Works;
        };
        let met = self.met;
        self.met += 1;
        let Some(past) = met.checked_sub(fault.nth) else { return Outcome::Works };
        let strikes = match fault.repeat {
            Repeat::Once => past == 0,
            Repeat::Always => true,
            Repeat::Alternate => past % 2 == 0,
        };
        if !strikes {
            return Outcome::Works;
        }
        self.fired += 1;
        fault.kind.outcome()
    }
}

impl FaultKind {
    fn strikes(self, op: OpKind, len: u64) -> bool {
        match self {
            FaultKind::AnyIo => true,
            FaultKind::MutationIo | FaultKind::Denied | FaultKind::Panic => op.is_mutation(),
            FaultKind::ReadIo => !op.is_mutation(),
            FaultKind::Sync => op.is_sync(),
            FaultKind::DiskFull => op.takes_space(),
            FaultKind::ShortTransfer => op.is_transfer() && len > 1,
            FaultKind::Interrupted => op.is_transfer(),
        }
    }

    fn outcome(self) -> Outcome {
        // By number, as the system makes them: an engine sees the kind that the real error has.
        const EINTR: i32 = 4;
        const EIO: i32 = 5;
        const EACCES: i32 = 13;
        let fails = |number| Outcome::Fails(io::Error::from_raw_os_error(number));
        match self {
            FaultKind::AnyIo | FaultKind::MutationIo | FaultKind::ReadIo | FaultKind::Sync => fails(EIO),
            FaultKind::Denied => fails(EACCES),
            FaultKind::DiskFull => Outcome::Fails(no_space()),
            FaultKind::ShortTransfer => Outcome::WorksByHalf,
            FaultKind::Panic => Outcome::Panics,
            FaultKind::Interrupted => fails(EINTR),
        }
    }
}

/// ENOSPC, as the system makes it.
pub(super) fn no_space() -> io::Error {
    io::Error::from_raw_os_error(28)
}
