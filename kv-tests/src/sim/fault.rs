use super::OpKind;
use std::io;

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Any operation fails with EIO.
    AnyIo,
    /// A mutating operation fails with EIO.
    MutationIo,
    /// An operation that changes nothing fails with EIO: opening, reading, listing, measuring.
    ReadIo,
    /// A sync, of a file or a directory, fails with EIO. The bytes and names that it should have
    /// covered stay visible, and no later sync makes them durable.
    Sync,
    /// A mutating operation fails with EACCES.
    Denied,
    /// An operation that takes space fails with ENOSPC.
    DiskFull,
    /// A write fails with ENOSPC, even where space was allocated before: a file system that
    /// reserves nothing.
    WriteDiskFull,
    /// An operation that takes space in a file fails with EFBIG: the limit of the process for file
    /// sizes.
    FileTooLarge,
    /// Opening or creating a file fails with EMFILE: the process has no descriptors left.
    NoDescriptors,
    /// Removing a file fails with EPERM.
    RemoveRefused,
    /// A read or write of more than one byte moves half of it.
    ShortTransfer,
    /// A read or write is interrupted (EINTR).
    Interrupted,
    /// A mutating operation panics like a bug, but without a message from the panic hook.
    Panic,
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Once.
    Once,
    /// From the `nth` operation on, each.
    Always,
    /// From the `nth` operation on, every other one.
    Alternate,
}

/// A fault to inject: at the `nth` operation (from 0) that it can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of failure.
    pub kind: FaultKind,
    /// How many operations that it could strike succeed before.
    pub nth: u64,
    /// How often it strikes.
    pub repeat: Repeat,
}

/// The outcome of one operation.
#[derive(Debug)]
pub(super) enum Outcome {
    Works,
    WorksByHalf,
    Fails(io::Error),
    Panics,
}

/// The injected fault, and its counts so far.
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
    /// Whether the engine must answer with [`DiskFull`](kv_core::Error::DiskFull).
    pub(crate) fn is_disk_full(self) -> bool {
        matches!(self, FaultKind::DiskFull | FaultKind::WriteDiskFull | FaultKind::FileTooLarge)
    }

    /// Whether an engine may refuse the call and continue.
    pub(crate) fn may_be_refused(self) -> bool {
        self.is_disk_full() || matches!(self, FaultKind::NoDescriptors | FaultKind::RemoveRefused)
    }

    fn strikes(self, op: OpKind, len: u64) -> bool {
        match self {
            FaultKind::AnyIo => true,
            FaultKind::MutationIo | FaultKind::Denied | FaultKind::Panic => op.is_mutation(),
            FaultKind::ReadIo => !op.is_mutation(),
            FaultKind::Sync => op.is_sync(),
            FaultKind::DiskFull => op.takes_space(),
            FaultKind::WriteDiskFull => op == OpKind::Write,
            FaultKind::FileTooLarge => matches!(op, OpKind::Write | OpKind::Allocate),
            FaultKind::NoDescriptors => matches!(op, OpKind::Open | OpKind::Create),
            FaultKind::RemoveRefused => op == OpKind::Remove,
            FaultKind::ShortTransfer => op.is_transfer() && len > 1,
            FaultKind::Interrupted => op.is_transfer(),
        }
    }

    fn outcome(self) -> Outcome {
        // By number, as the system makes them, so that an engine sees the kind of the real error.
        const EPERM: i32 = 1;
        const EINTR: i32 = 4;
        const EIO: i32 = 5;
        const EACCES: i32 = 13;
        const EMFILE: i32 = 24;
        const EFBIG: i32 = 27;
        let fails = |number| Outcome::Fails(io::Error::from_raw_os_error(number));
        match self {
            FaultKind::AnyIo | FaultKind::MutationIo | FaultKind::ReadIo | FaultKind::Sync => fails(EIO),
            FaultKind::Denied => fails(EACCES),
            FaultKind::DiskFull | FaultKind::WriteDiskFull => Outcome::Fails(no_space()),
            FaultKind::FileTooLarge => fails(EFBIG),
            FaultKind::NoDescriptors => fails(EMFILE),
            FaultKind::RemoveRefused => fails(EPERM),
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
