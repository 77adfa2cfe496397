//! Answers to refusals: errors after which the store goes on as if the call had not been made
//! ([`Error::is_refusal`]).

use kv_core::{Error, Result};

/// Whether the disk is full or all segment slots are taken. Compaction may help.
pub(crate) fn is_full(error: &Error) -> bool {
    matches!(error, Error::DiskFull { .. } | Error::TooManySegments { .. })
}

/// Turns a refusal into success, for optional work.
pub(crate) fn unless_refused(answer: Result<()>) -> Result<()> {
    match answer {
        Err(error) if error.is_refusal() => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::Op;
    use std::io;
    use std::path::Path;

    #[test]
    fn optional_work_may_be_refused_and_may_not_fail() {
        let full = Error::io(Op::Create, Path::new("f"), io::ErrorKind::StorageFull.into());
        assert!(is_full(&full) && unless_refused(Err(full)).is_ok());
        assert!(unless_refused(Err(Error::Closed)).is_err() && !is_full(&Error::Closed));
    }
}
