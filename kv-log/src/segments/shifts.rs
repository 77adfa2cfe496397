//! Shifts: they lead from an offset in a shrunk image to the offset of the same record in the file.
//!
//! Compaction in memory makes such images. Image and file hold the records in the same order.
//! Between two dead records, the distance of the offsets is constant, so only the places where it
//! changes are kept: 8 bytes for each.

/// The places where the distance from image to file changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shifts(Vec<(u32, u32)>);

impl Shifts {
    /// The record at `in_file` lies at `in_image`. Calls come in ascending order.
    #[expect(clippy::cast_possible_truncation, reason = "a segment has at most 128 MiB")]
    pub(crate) fn note(&mut self, in_image: usize, in_file: usize) {
        let (in_image, in_file) = (in_image as u32, in_file as u32);
        let goes_on = self.0.last().is_some_and(|(image, file)| in_file - file == in_image - image);
        if !goes_on {
            self.0.push((in_image, in_file));
        }
    }

    /// The offset in the file of the record at `in_image`.
    pub(crate) fn to_file(&self, in_image: usize) -> usize {
        let next = self.0.partition_point(|(image, _)| *image as usize <= in_image);
        let at = next.checked_sub(1).and_then(|at| self.0.get(at));
        at.map_or(in_image, |(image, file)| in_image - *image as usize + *file as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_lead_to_the_file_and_runs_take_one_place() {
        let mut shifts = Shifts::default();
        let records = [(40, 40), (60, 60), (80, 120), (95, 135), (100, 300)];
        for (image, file) in records {
            shifts.note(image, file);
        }
        for (image, file) in records {
            assert_eq!(shifts.to_file(image), file);
        }
        assert_eq!(shifts.0, [(40, 40), (80, 120), (100, 300)]);
        assert_eq!(Shifts::default().to_file(77), 77);
    }
}
