//! The names of experiments and cases, which rows and experiments share.

use crate::subjects::SubjectName;

pub(super) const RETENTION: &str = "retention";
pub(super) const RESTORE: &str = "restore";
pub(super) const READ_AT: &str = "read_at";
pub(super) const BACKUP: &str = "backup";
pub(super) const VERIFY: &str = "verify";
pub(super) const REPAIR: &str = "repair";

pub(super) const LOG: &str = SubjectName::Log.label();
pub(super) const WITH_WINDOW: &str = "kv-log, window of an hour";
