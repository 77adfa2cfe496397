//! The tail: the part of the log that is not dumped yet, in shared memory. It outlives the process.
//!
//! The images of the active segment, of its ready spare, and of sealed segments that are not
//! durable yet are [objects](kv_core::fs::SharedMemory). Each object begins with a control
//! block, which names the store, the opening and the segment. Once a segment is durable, the
//! flusher copies its bytes to ordinary memory, and the object serves another segment.
//!
//! After the death of the process, the next opening adopts the tail: it writes the records that
//! the files lack, as the dead process would have dumped them. Ordinary recovery follows, and sees
//! only files.
//!
//! | what dies | what is left | the next opening finds |
//! |---|---|---|
//! | the process | files, page cache, shared memory | every change that had returned |
//! | the machine | synced files | every durable change |

mod adoption;
mod control;
mod images;
mod objects;
mod unwritten;

pub(crate) use adoption::{adopt, unwritten};
pub(crate) use control::draw_nonce;
pub(crate) use images::Tail;
pub(crate) use objects::remove_outdated;
pub use objects::{Object, State, list, remove};
pub(crate) use unwritten::{Rest, Unwritten};
