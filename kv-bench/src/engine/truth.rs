//! What a subject must hold after the phases of a run, worked out from their plans when the clock stands.

use crate::dataset::{Dataset, KEY_LEN_MAX};
use crate::failure::Failure;
use crate::subjects::Subject;

/// No change.
const ABSENT: u64 = u64::MAX;

/// For each key the changes that may be its last.
///
/// Threads write the same keys, so who came last is not known; but each thread's last change in the newest
/// phase that wrote the key is, and one of those must be there.
#[derive(Debug)]
pub(crate) struct Truth {
    threads: usize,
    /// For each key, for each thread, its last change.
    last: Vec<u64>,
}

/// The number that the change of a plan's place carries: unlike that of any other, and of any key's first
/// value, which carries the key's index. `phase` is from 1.
#[inline]
pub(crate) fn sequence(phase: u64, thread: u64, place: u64) -> u64 {
    (phase << 56) | (thread << 48) | place
}

fn phase_of(sequence: u64) -> u64 {
    sequence >> 56
}

impl Truth {
    /// No keys, of `keys` that may come.
    pub(crate) fn new(keys: u64, threads: u64) -> Self {
        let threads = usize::try_from(threads).unwrap_or(1);
        Truth { threads, last: vec![ABSENT; usize::try_from(keys).unwrap_or_default() * threads] }
    }

    fn of(&mut self, index: u64) -> &mut [u64] {
        let start = usize::try_from(index).unwrap_or(usize::MAX) * self.threads;
        self.last.get_mut(start..start + self.threads).unwrap_or_default()
    }

    /// Key `index` was put for the first time.
    pub(crate) fn filled(&mut self, index: u64) {
        self.of(index).fill(index);
    }

    /// A thread wrote a key.
    pub(crate) fn wrote(&mut self, index: u64, thread: u64, sequence: u64) {
        let thread = usize::try_from(thread).unwrap_or(usize::MAX);
        if let Some(last) = self.of(index).get_mut(thread) {
            *last = sequence;
        }
    }

    /// Checks that `subject` holds exactly these keys, with a value each that may be there. Then deletes some
    /// and checks again, so that its deletes are no lie either.
    pub(crate) fn verify(&self, subject: &dyn Subject, data: &Dataset) -> Result<(), Failure> {
        let mut expected = 0;
        for (index, last) in self.present() {
            expected += 1;
            let newest = last.iter().copied().map(phase_of).max().unwrap_or_default();
            let mut may = last.iter().filter(|sequence| phase_of(**sequence) == newest);
            let mut right = false;
            show(subject, data, index, |value| {
                right = may.any(|sequence| data.is_value(index, *sequence, value));
            })?;
            if !right {
                return Err(Failure::Wrong(format!("key {index} is missing, or has another value")));
            }
        }
        check_count(subject, expected)?;
        let mut deleted = 0;
        let mut buffer = [0; KEY_LEN_MAX];
        for (index, _) in self.present().step_by(997) {
            subject.delete(data.key(index, &mut buffer))?;
            let mut there = false;
            show(subject, data, index, |_| there = true)?;
            if there {
                return Err(Failure::Wrong(format!("key {index} is there after it was deleted")));
            }
            deleted += 1;
        }
        check_count(subject, expected - deleted)
    }

    fn present(&self) -> impl Iterator<Item = (u64, &[u64])> {
        let keys = (0..).zip(self.last.chunks(self.threads));
        keys.filter(|(_, last)| last.first().is_some_and(|first| *first != ABSENT))
    }
}

fn show(
    subject: &dyn Subject,
    data: &Dataset,
    index: u64,
    mut look: impl FnMut(&[u8]),
) -> Result<(), Failure> {
    let mut buffer = [0; KEY_LEN_MAX];
    subject.read(data.key(index, &mut buffer), &mut look)?;
    Ok(())
}

fn check_count(subject: &dyn Subject, expected: u64) -> Result<(), Failure> {
    let count = subject.count()?;
    if count == expected {
        Ok(())
    } else {
        Err(Failure::Wrong(format!("it holds {count} keys, and not {expected}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Shape;
    use crate::subjects::{Mode, SubjectName};

    /// A table with ten keys, of which two threads wrote the first; `tamper` comes before the check.
    fn checked(tamper: impl Fn(&dyn Subject, &Dataset)) -> Result<(), Failure> {
        let data = Dataset::new(Shape { key_len: 24, value_len: 100, seed: 3 });
        let subject = SubjectName::Dashmap.open(std::path::Path::new(""), Mode::Background).unwrap();
        let mut truth = Truth::new(12, 2);
        for index in 0..10 {
            put(&*subject, &data, index, index);
            truth.filled(index);
        }
        for (phase, thread) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            truth.wrote(0, thread, sequence(phase, thread, 7));
        }
        truth.wrote(1, 1, sequence(2, 1, 8));
        put(&*subject, &data, 0, sequence(2, 0, 7));
        put(&*subject, &data, 1, sequence(2, 1, 8));
        tamper(&*subject, &data);
        truth.verify(&*subject, &data)
    }

    fn put(subject: &dyn Subject, data: &Dataset, index: u64, sequence: u64) {
        let mut value = Vec::new();
        data.value(index, sequence, &mut value);
        subject.put(data.key(index, &mut [0; KEY_LEN_MAX]), &value).unwrap();
    }

    #[test]
    fn what_may_be_there_passes_and_nothing_else_does() {
        checked(|_, _| {}).unwrap();
        checked(|subject, data| put(subject, data, 0, sequence(2, 1, 7))).unwrap();
        for (index, last) in [(0, sequence(1, 0, 7)), (0, 0), (1, 1), (1, sequence(2, 0, 8)), (5, 6)] {
            let result = checked(|subject, data| put(subject, data, index, last));
            assert!(matches!(result, Err(Failure::Wrong(_))), "{index} {last} {result:?}");
        }
        let lost = checked(|subject, data| subject.delete(data.key(9, &mut [0; KEY_LEN_MAX])).unwrap());
        assert!(matches!(lost, Err(Failure::Wrong(_))));
        let more = checked(|subject, data| put(subject, data, 11, 11));
        assert!(matches!(more, Err(Failure::Wrong(_))));
    }
}
