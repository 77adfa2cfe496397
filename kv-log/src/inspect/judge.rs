//! Judges the segments of a store as an opening would.

use kv_core::fs::DirExt;
use kv_core::{Error, Lsn, Result, SegmentId};
use kv_wal_format::SegmentKind;
use std::collections::BTreeSet;

use super::damage::{Damage, Lost};
use super::segment::{Reading, SegmentState, SegmentSummary};
use super::survey::{Survey, fault_of};
use crate::directory;
use crate::manifest::{Entry, Manifest, misfit};
use crate::recovery::{Before, Named, Scanned, Verdict, decide, examine_unnamed, unsealed_ending};

/// The segments of a store as an opening would find them, and all damage.
#[derive(Debug)]
pub(super) struct Findings {
    /// In the order of the readings.
    pub(super) segments: Vec<SegmentSummary>,
    pub(super) damages: Vec<Damage>,
    /// Whether the manifest names every segment of the store, and each name has its file.
    pub(super) is_manifest_complete: bool,
}

/// Judges `readings`, which are in the order of ids.
pub(super) fn judge(survey: &Survey, readings: &[Reading]) -> Result<Findings> {
    let mut damages = Vec::new();
    let manifest = match &survey.manifest {
        Ok(manifest) => Some(manifest),
        Err(error) => {
            let path = survey.dir.path_of(directory::MANIFEST);
            let (offset, fault) = fault_of(error);
            damages.push(Damage { path, offset, len: 0, fault, lost: Lost::nothing() });
            None
        }
    };
    let mut judge = Judge {
        survey,
        present: readings
            .iter()
            .filter_map(|reading| reading.header)
            .map(|header| header.segment_id)
            .collect(),
        lsn_before: manifest.map_or(0, |manifest| manifest.durable_lsn.get()),
        unfinished: None,
        damages,
        is_manifest_complete: manifest.is_some(),
    };
    let mut segments = Vec::with_capacity(readings.len());
    for reading in readings {
        segments.push(match (manifest, reading.source.entry) {
            (Some(manifest), Some(entry)) => judge.named(manifest, entry, reading)?,
            // Its damage does not matter, unless the manifest has forgotten the segment.
            (Some(_), None) => reading.summary.clone(),
            (None, _) => judge.without_manifest(reading),
        });
    }
    if let Some(manifest) = manifest
        && let Some(damage) = forgotten(survey, manifest, judge.lsn_before)?
    {
        judge.is_manifest_complete = false;
        judge.damages.push(damage);
    }
    let Judge { damages, is_manifest_complete, .. } = judge;
    Ok(Findings { segments, damages, is_manifest_complete })
}

/// The damage that a file does which the manifest does not name, and should.
fn forgotten(survey: &Survey, manifest: &Manifest, last_lsn: u64) -> Result<Option<Damage>> {
    match examine_unnamed(&*survey.dir, manifest, Lsn::new(last_lsn)) {
        Ok(_) => Ok(None),
        Err(Error::Corruption { path, offset, detail }) => {
            Ok(Some(Damage { path, offset, len: 0, fault: detail, lost: Lost::nothing() }))
        }
        Err(error) => Err(error),
    }
}

/// Judges one segment after the other, in the order of ids.
struct Judge<'a> {
    survey: &'a Survey,
    /// The ids in the headers of all files.
    present: BTreeSet<u64>,
    /// The highest LSN that earlier segments and the manifest prove.
    lsn_before: u64,
    /// The log segment before that has no seal, and where its records end.
    unfinished: Option<(SegmentId, u64)>,
    damages: Vec<Damage>,
    is_manifest_complete: bool,
}

impl Judge<'_> {
    fn damage(&self, id: SegmentId, offset: u64, fault: String, lost: Lost) -> Damage {
        let path = self.survey.dir.path_of(&directory::segment_file_name(id));
        Damage { path, offset, len: 0, fault, lost }
    }

    /// Without a manifest, only the records themselves are checked.
    fn without_manifest(&mut self, reading: &Reading) -> SegmentSummary {
        let (mut summary, damages) = (reading.summary.clone(), reading.damages.clone());
        if summary.state == SegmentState::Unnamed && !damages.is_empty() {
            summary.state = SegmentState::Damaged;
        }
        self.damages.extend(damages);
        summary
    }

    /// A segment that the manifest names.
    fn named(&mut self, manifest: &Manifest, entry: Entry, reading: &Reading) -> Result<SegmentSummary> {
        let (mut summary, mut damages) = (reading.summary.clone(), reading.damages.clone());
        let misfit = self.misfit(manifest, entry, reading);
        let can_be_judged = reading.header.is_some() && misfit.is_none();
        let is_there = misfit.is_none() && summary.state != SegmentState::Missing;
        // The store itself does not need an archived segment.
        self.is_manifest_complete &= is_there || reading.source.is_archived;
        damages.extend(misfit);
        if summary.lsn_max > manifest.lsn_ceiling.get() {
            let (found, known) = (summary.lsn_max, manifest.lsn_ceiling);
            let fault = format!("LSN {found} is beyond LSN {known}, the last one that the manifest reserved");
            damages.push(self.damage(reading.source.id, 0, fault, Lost::nothing()));
        }
        if can_be_judged {
            summary.state = self.verdict(entry, reading, &mut damages)?;
        }
        if !damages.is_empty() && summary.state != SegmentState::Missing {
            summary.state = SegmentState::Damaged;
        }
        self.lsn_before = self.lsn_before.max(reading.last_lsn).max(summary.lsn_max);
        self.damages.extend(damages);
        Ok(summary)
    }

    /// The damage if the file holds another segment than its name says.
    fn misfit(&self, manifest: &Manifest, entry: Entry, reading: &Reading) -> Option<Damage> {
        let (header, id) = (reading.header?, reading.source.id);
        let fault = misfit(&header, entry.kind, id, manifest.store_id)?;
        // Its own file may have another name.
        let is_elsewhere = header.segment_id != id.get() && self.present.contains(&id.get());
        let lost = if is_elsewhere { Lost::nothing() } else { Lost::unknown(1, None) };
        Some(self.damage(id, 0, fault, lost))
    }

    /// The verdict of an opening. Adds its damage, unless the walk has found the damage already.
    /// Torn bytes are no damage.
    fn verdict(
        &mut self,
        entry: Entry,
        reading: &Reading,
        damages: &mut Vec<Damage>,
    ) -> Result<SegmentState> {
        let Some(walked) = reading.walked else { return Ok(SegmentState::Damaged) };
        let id = reading.source.id;
        let named = if entry.sealed { Named::Sealed } else { Named::Unsealed };
        // The bytes tell how a segment without a seal ends.
        let mut bytes = Vec::new();
        if reading.sealed_ending.is_none() || !damages.is_empty() {
            self.survey.read(id, reading.source.len_max(), &mut bytes)?;
        }
        let (stop, seal) = (walked.stop, reading.seal);
        let scanned =
            Scanned { origin: reading.origin, bytes: &bytes, stop, seal, known_len: entry.durable_len };
        let ending = reading.sealed_ending.unwrap_or_else(|| unsealed_ending(&scanned, self.lsn_before));
        let before = match self.unfinished {
            Some(_) if entry.kind == SegmentKind::Log => Before::Unfinished,
            _ => Before::AllSealed,
        };
        match decide(named, ending, before) {
            Verdict::Whole if reading.source.is_archived => Ok(SegmentState::Archived),
            Verdict::Whole => Ok(SegmentState::Sealed),
            Verdict::Active => {
                self.unfinished = Some((id, walked.end as u64));
                Ok(SegmentState::Active)
            }
            Verdict::Torn => {
                self.unfinished = Some((id, walked.stop.offset as u64));
                damages.clear();
                Ok(SegmentState::Torn)
            }
            Verdict::Spare => Ok(SegmentState::Spare),
            Verdict::LaterChanges => {
                if let Some((unfinished, end)) = self.unfinished.take() {
                    let fault = format!("the seal is missing or damaged: segment {id} holds later changes");
                    let lost = Lost::unknown(self.lsn_before, Some(reading.summary.lsn_min));
                    let damage = self.damage(unfinished, end, fault, lost);
                    self.damages.push(damage);
                }
                // Judged again, with the earlier one out of the way.
                self.verdict(entry, reading, damages)
            }
            Verdict::Damaged(damage) => {
                if damages.is_empty() {
                    let path = self.survey.dir.path_of(&directory::segment_file_name(id));
                    let (offset, fault) = fault_of(&damage.error(&path, &scanned, self.lsn_before));
                    let lost = Lost::unknown(reading.last_lsn.max(1), None);
                    damages.push(Damage { path, offset, len: 0, fault, lost });
                }
                Ok(SegmentState::Damaged)
            }
        }
    }
}
