//! A pass over segment files, on all processors.

use kv_core::{Background, Result};

use super::newest::Newest;
use super::segment::{Reading, read};
use super::survey::{Source, Survey};
use crate::progress::{OnProgress, Work};

/// A pass over the segment files of one store.
pub(super) struct Pass<'a> {
    survey: &'a Survey,
    /// The id of the store. Without a manifest, every segment file was asked for it.
    pub(super) store_id: Option<u32>,
    work: Work<'a>,
    /// The newest record of each key, if it is wanted.
    pub(super) newest: Option<Newest>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(survey: &'a Survey, newest: Option<Newest>, on_progress: &'a OnProgress<'a>) -> Self {
        let (named, unnamed) = survey.sources();
        let bytes_total = named.iter().chain(&unnamed).map(|source| survey.file_len(source.id)).sum();
        let work = Work::new(Background::Threads, survey.dir.path(), bytes_total, on_progress);
        Pass { survey, store_id: survey.store_id(), work, newest }
    }

    /// Reads and checks `sources`. Their changes take part in `newest` if `takes_part`.
    pub(super) fn read(&self, sources: &[Source], takes_part: bool) -> Result<Vec<Reading>> {
        let newest = self.newest.as_ref().filter(|_| takes_part);
        self.work.run(sources, |source, bytes: &mut Vec<u8>| {
            let mut changes = newest.map(Newest::changes);
            let reading = read(self.survey, *source, self.store_id, bytes, changes.as_mut())?;
            if let Some((newest, changes)) = newest.zip(changes) {
                newest.add(changes);
            }
            self.work.advance(reading.summary.file_bytes);
            Ok(reading)
        })
    }
}
