//! The ground truth: the keys and values that a subject must hold after a run, and the check
//! against them. A run's figures count only after it.

use super::dataset::{Dataset, KEY_LEN_MAX};
use crate::failure::Failure;
use crate::subjects::Subject;

/// No change.
const ABSENT: u64 = u64::MAX;

/// For each key, the changes that can be its last.
///
/// Threads write the same keys, so the order of their changes is unknown. The subject must hold the
/// last change of some thread in the newest phase that wrote the key.
#[derive(Debug)]
pub(crate) struct Truth {
    threads: usize,
    /// For each key, for each thread, its last change.
    last: Vec<u64>,
}

/// The number of the change at a place of a thread's plan. No other change has it, and no key's
/// first value, whose number is the key's index. `phase` starts at 1.
#[inline]
pub(crate) fn sequence(phase: u64, thread: u64, place: u64) -> u64 {
    (phase << 56) | (thread << 48) | place
}

fn phase_of(sequence: u64) -> u64 {
    sequence >> 56
}

impl Truth {
    /// No keys yet, with room for keys `0..keys`.
    pub(crate) fn new(keys: u64, threads: u64) -> Self {
        let threads = usize::try_from(threads).unwrap_or(1);
        Truth { threads, last: vec![ABSENT; usize::try_from(keys).unwrap_or_default() * threads] }
    }

    /// Keys `0..keys` with their first values, for one thread that changes them.
    pub(crate) fn filled(keys: u64) -> Self {
        Truth { threads: 1, last: (0..keys).collect() }
    }

    fn of(&mut self, index: u64) -> &mut [u64] {
        let start = usize::try_from(index).unwrap_or(usize::MAX) * self.threads;
        self.last.get_mut(start..start + self.threads).unwrap_or_default()
    }

    /// Records the first put of key `index`.
    pub(crate) fn fill(&mut self, index: u64) {
        self.of(index).fill(index);
    }

    /// Records a thread's change of a key.
    pub(crate) fn write(&mut self, index: u64, thread: u64, sequence: u64) {
        let thread = usize::try_from(thread).unwrap_or(usize::MAX);
        if let Some(last) = self.of(index).get_mut(thread) {
            *last = sequence;
        }
    }

    /// Checks that `subject` holds exactly these keys, each with a possible value; returns their
    /// number.
    pub(crate) fn check(&self, subject: &dyn Subject, data: &Dataset) -> Result<u64, Failure> {
        check(subject, data, self.present())
    }

    /// As [`check`](Self::check). Then deletes some keys and checks again, which also catches false
    /// deletes.
    pub(crate) fn verify(&self, subject: &dyn Subject, data: &Dataset) -> Result<(), Failure> {
        let count = self.check(subject, data)?;
        let mut deleted = 0;
        let mut buffer = [0; KEY_LEN_MAX];
        for (index, _) in self.present().step_by(997) {
            let key = data.key(index, &mut buffer);
            subject.delete(key)?;
            if subject.read(key, &mut |_| {})? {
                return Err(Failure::Wrong(format!("key {index} is there after its delete")));
            }
            deleted += 1;
        }
        check_count(subject, count - deleted)
    }

    /// Each present key, with its possible last changes.
    fn present(&self) -> impl Iterator<Item = (u64, impl Iterator<Item = u64>)> {
        let keys = (0..).zip(self.last.chunks(self.threads));
        keys.filter(|(_, last)| last.first().is_some_and(|first| *first != ABSENT)).map(|(index, last)| {
            let newest = last.iter().copied().map(phase_of).max().unwrap_or_default();
            (index, last.iter().copied().filter(move |sequence| phase_of(*sequence) == newest))
        })
    }
}

/// Checks that `subject` holds exactly the keys of these indexes, each with its first value.
pub(crate) fn check_filled(
    subject: &dyn Subject,
    data: &Dataset,
    indexes: impl Iterator<Item = u64>,
) -> Result<(), Failure> {
    check(subject, data, indexes.map(|index| (index, std::iter::once(index)))).map(drop)
}

/// Checks that `subject` holds exactly the keys of `live`, each with the value of one of its
/// changes; returns their number.
fn check(
    subject: &dyn Subject,
    data: &Dataset,
    live: impl Iterator<Item = (u64, impl Iterator<Item = u64>)>,
) -> Result<u64, Failure> {
    let mut buffer = [0; KEY_LEN_MAX];
    let mut count = 0;
    for (index, mut changes) in live {
        count += 1;
        let mut right = false;
        let found = subject.read(data.key(index, &mut buffer), &mut |value| {
            right = changes.any(|sequence| data.is_value(index, sequence, value));
        })?;
        if !found {
            return Err(Failure::Wrong(format!("key {index} is missing")));
        }
        if !right {
            return Err(Failure::Wrong(format!("key {index} has another value")));
        }
    }
    check_count(subject, count)?;
    Ok(count)
}

/// After all expected keys are found, an equal count proves that the subject holds no other key.
fn check_count(subject: &dyn Subject, expected: u64) -> Result<(), Failure> {
    let count = subject.count()?;
    if count == expected {
        Ok(())
    } else {
        Err(Failure::Wrong(format!("it holds {count} keys instead of {expected}")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::dataset::Shape;
    use super::*;
    use crate::subjects::SubjectName;

    /// Checks a table with ten keys. Two threads wrote the first. `tamper` runs before the check.
    fn checked(tamper: impl Fn(&dyn Subject, &Dataset)) -> Result<(), Failure> {
        let data = Dataset::new(Shape { key_len: 24, value_len: 100, seed: 3 });
        let subject = SubjectName::Dashmap.standard().open(std::path::Path::new("")).unwrap();
        let mut truth = Truth::new(12, 2);
        for index in 0..10 {
            put(&*subject, &data, index, index);
            truth.fill(index);
        }
        for (phase, thread) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            truth.write(0, thread, sequence(phase, thread, 7));
        }
        truth.write(1, 1, sequence(2, 1, 8));
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
    fn possible_states_pass_and_all_others_fail() {
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

    #[test]
    fn a_filled_truth_has_every_first_value() {
        let mut truth = Truth::new(5, 1);
        (0..5).for_each(|index| truth.fill(index));
        assert_eq!(truth.last, Truth::filled(5).last);
    }
}
