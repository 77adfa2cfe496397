//! The measurements, one a file. Each carries out one run in a child process and verifies its
//! subject.

pub(crate) mod backup;
pub(crate) mod bare_read;
pub(crate) mod beyond;
pub(crate) mod ceiling;
pub(crate) mod checkpoint;
pub(crate) mod dump;
pub(crate) mod empty;
pub(crate) mod fill_latency;
mod history;
pub(crate) mod kill;
pub(crate) mod latency;
#[cfg(test)]
mod lying;
pub(crate) mod memory;
pub(crate) mod mixed;
pub(crate) mod open_load;
pub(crate) mod opening;
mod overwrites;
pub(crate) mod persistence;
pub(crate) mod read_at;
pub(crate) mod recovery;
pub(crate) mod repair;
pub(crate) mod restore;
pub(crate) mod retention;
pub(crate) mod speed;
pub(crate) mod survival;
pub(crate) mod synced;
pub(crate) mod tail;
#[cfg(test)]
mod testing;
pub(crate) mod utilization;
pub(crate) mod verify;
pub(crate) mod worker;
mod zipfian;
