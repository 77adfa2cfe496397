//! `kv-bench compare`. Each file but `command` plans and reports one section.

pub(crate) mod command;
mod kill;
mod mixed;
mod over_commands;
mod persistence;
mod recovery;
mod speed;
