//! Refusals: errors after which the store goes on as if the call had not been made.

use kv_core::{Error, Result};
use std::io::ErrorKind;

/// The system's error codes for too many open files: in the whole system, and in the process.
const TOO_MANY_OPEN_FILES: [i32; 2] = [23, 24];

/// Whether `error` is a refusal: a resource is short, nothing was changed, and a later attempt may
/// succeed. A failed sync or rename is never a refusal.
pub(crate) fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Io { op: "sync" | "rename", .. } => false,
        Error::DiskFull { .. } | Error::TooManySegments { .. } => true,
        Error::Io { source, .. } => {
            source.kind() == ErrorKind::OutOfMemory
                || source.raw_os_error().is_some_and(|number| TOO_MANY_OPEN_FILES.contains(&number))
        }
        _ => false,
    }
}

/// Whether the disk is full or all segment slots are taken. Compaction may help.
pub(crate) fn is_full(error: &Error) -> bool {
    matches!(error, Error::DiskFull { .. } | Error::TooManySegments { .. })
}

/// Turns a refusal into success, for optional work.
pub(crate) fn unless_refused(answer: Result<()>) -> Result<()> {
    match answer {
        Err(error) if is_refusal(&error) => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::path::Path;

    #[test]
    fn a_short_resource_is_a_refusal_and_a_failed_sync_is_not() {
        let io = |number| Error::io("create", Path::new("f"), io::Error::from_raw_os_error(number));
        let (eio, out_of_memory, files_of_all, files_of_process, enospc) = (5, 12, 23, 24, 28);
        for number in [out_of_memory, files_of_all, files_of_process, enospc] {
            assert!(is_refusal(&io(number)), "{number}");
            let sync = Error::sync(Path::new("f"), io::Error::from_raw_os_error(number));
            assert!(!is_refusal(&sync), "{sync}");
        }
        assert!(!is_refusal(&io(eio)) && !is_refusal(&Error::Closed));
    }

    #[test]
    fn optional_work_may_be_refused_and_may_not_fail() {
        let full = Error::io("create", Path::new("f"), io::ErrorKind::StorageFull.into());
        assert!(is_full(&full) && unless_refused(Err(full)).is_ok());
        assert!(unless_refused(Err(Error::Closed)).is_err() && !is_full(&Error::Closed));
    }
}
