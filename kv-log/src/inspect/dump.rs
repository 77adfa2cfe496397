use kv_core::fs::DirExt;
use kv_core::{Env, Error, Result, SegmentId};
use kv_wal_format::{Record, SegmentHeader, SegmentKind};
use std::ops::ControlFlow;
use std::path::Path;

use super::damage::{Damage, Lost};
use super::origin::origin_of;
use super::segment::damage_of;
use super::survey::{Survey, fault_of};
use super::walk::{Piece, walk};
use crate::directory;
use crate::manifest::header_error;

/// A part of a segment file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Part<'a> {
    /// An intact record.
    Record {
        /// The segment.
        segment: SegmentId,
        /// Where it begins, bytes from the start of the file.
        offset: u64,
        /// The record.
        record: Record<'a>,
    },
    /// A damaged part, or the bytes that a crash left at the end of the log.
    Damage(&'a Damage),
}

/// Gives every part of the segment files in `dir` to `visit`, in the order of ids and offsets,
/// until it answers `Break`. With `only`, of that segment. Needs no manifest.
///
/// # Errors
/// As for [`examine`](super::examine()); [`Error::InvalidArgument`] if there is no file of `only`.
pub fn dump(
    env: &Env,
    dir: &Path,
    only: Option<SegmentId>,
    visit: &mut dyn FnMut(Part<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let survey = Survey::open(env, dir)?;
    let mut ids = survey.segment_ids();
    ids.retain(|id| only.is_none_or(|only| only == *id));
    if let (Some(only), true) = (only, ids.is_empty()) {
        let text = format!("{} has no {}", dir.display(), directory::segment_file_name(only));
        return Err(Error::InvalidArgument(text));
    }
    let mut bytes = Vec::new();
    for segment in ids {
        survey.read(segment, u64::MAX, &mut bytes)?;
        let path = survey.dir.path_of(&directory::segment_file_name(segment));
        let decoded = SegmentHeader::decode(&bytes);
        let header = decoded.ok();
        let kind = header.map_or(SegmentKind::Compacted, |header| header.kind);
        let mut flow = ControlFlow::Continue(());
        let Some(origin) = origin_of(header, segment, &bytes, survey.known_lsns(segment)) else {
            let fault = decoded.err().map(|error| fault_of(&header_error(&path, error)).1);
            let (fault, lost) = (fault.unwrap_or_default(), Lost::unknown(1, None));
            let damage = Damage { path, offset: 0, len: bytes.len() as u64, fault, lost };
            if visit(Part::Damage(&damage)).is_break() {
                return Ok(());
            }
            continue;
        };
        walk(origin, kind, &bytes, |piece| {
            if flow.is_continue() {
                flow = match piece {
                    Piece::Record(range, record) => {
                        visit(Part::Record { segment, offset: range.start as u64, record })
                    }
                    Piece::Broken(broken) => visit(Part::Damage(&damage_of(&path, broken))),
                };
            }
        });
        if flow.is_break() {
            return Ok(());
        }
    }
    Ok(())
}
