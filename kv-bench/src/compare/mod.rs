//! `kv-bench compare`. Each file but `command` plans the experiments of one section, and reports them.

pub(crate) mod command;
mod kill;
mod mixed;
mod over_commands;
mod persistence;
mod recovery;
mod speed;
