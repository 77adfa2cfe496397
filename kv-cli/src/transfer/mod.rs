//! Pairs out of a store, into a store, and from one store to another.

mod copy;
mod csv;
mod export;
mod import;
mod json;
mod resp;
mod sink;

pub(crate) use copy::copy;
pub(crate) use export::export;
pub(crate) use import::{Settings, import};
