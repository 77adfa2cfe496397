//! The experiments. Each file holds both sides of one: `run` plans its runs and reports them, the other
//! functions do the measuring in child processes.

pub(crate) mod kill;
pub(crate) mod mixed;
pub(crate) mod over_commands;
pub(crate) mod persistence;
pub(crate) mod recovery;
pub(crate) mod speed;
