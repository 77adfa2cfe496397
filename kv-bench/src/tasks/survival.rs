//! Changes whose calls had returned when their process was killed: each must be there afterwards.

use crate::failure::Failure;
use crate::load::{Dataset, KEY_LEN_MAX, Shape};
use crate::process::scratch::{Scratch, create_dir};
use crate::process::threads::concurrently;
use crate::process::{Measured, Run, Task, child};
use crate::subjects::{KvEngine, Policy, Subject, SubjectName};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// Kills a process whose threads write, opens its store, and looks for every change. Repeats that.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Survival {
    pub(crate) policy: Policy,
    pub(crate) shape: Shape,
    pub(crate) kills: u64,
    pub(crate) threads: u64,
    /// Keys of each thread.
    pub(crate) keys: u64,
}

/// Changes a store on several threads until its process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WriteAtFullSpeed(Survival);

/// The earliest and the latest kill, milliseconds after the start of the process.
const AFTER_MS_MIN: u64 = 20;
const AFTER_MS_MAX: u64 = 200;
/// Changes of a thread after which it only waits to be killed.
const CHANGES_MAX: u64 = 2_000_000;
/// The store, in a run's directory.
const STORE: &str = "store";
/// A number of 8 bytes for each thread: its changes whose calls have returned. The file survives
/// the process.
const RETURNED: &str = "returned";

/// A change of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Put,
    Delete,
}

impl Survival {
    /// Change `number` of a thread, from 1 on. It concerns key `number % keys` of the thread.
    fn change(&self, number: u64) -> Change {
        // Each key sees both kinds in turn.
        if (number / self.keys + number) % 5 == 4 { Change::Delete } else { Change::Put }
    }

    fn index(&self, thread: u64, slot: u64) -> u64 {
        slot * self.threads + thread
    }

    /// The last change of key `slot` among the first `count` of its thread. `None`: there is none.
    fn last(&self, slot: u64, count: u64) -> Option<u64> {
        let last = count.checked_sub(slot)? / self.keys * self.keys + slot;
        (last > 0).then_some(last)
    }

    /// The put that key `slot` shows after the first `count` changes of its thread.
    fn shown(&self, slot: u64, count: u64) -> Option<u64> {
        self.last(slot, count).filter(|number| self.change(*number) == Change::Put)
    }

    /// Whether key `slot` shows less than the first `returned` changes of its thread. It shows put
    /// `found`.
    fn is_lost(&self, slot: u64, returned: u64, found: Option<u64>) -> Result<bool, Failure> {
        if found.is_some_and(|found| found > returned + 1) {
            return Err(Failure::Wrong(format!("it holds change {found:?}, but {returned} had returned")));
        }
        // The call of one more change may have been under way.
        Ok((returned..=returned + 1).all(|count| self.shown(slot, count) != found))
    }

    /// The number of keys that lost a change.
    fn keys_with_loss(&self, subject: &dyn Subject, returned: &[u64]) -> Result<u64, Failure> {
        let data = Dataset::new(self.shape);
        let (mut lost, mut keys) = (0, 0);
        for (thread, returned) in (0..).zip(returned) {
            for slot in 0..self.keys {
                let index = self.index(thread, slot);
                let mut found = None;
                subject.read(data.key(index, &mut [0; KEY_LEN_MAX]), &mut |value| {
                    found = Some(data.sequence_of(index, value));
                })?;
                let found = found.transpose()?;
                keys += u64::from(found.is_some());
                lost += u64::from(self.is_lost(slot, *returned, found)?);
            }
        }
        match subject.count()? {
            count if count == keys => Ok(lost),
            count => Err(Failure::Wrong(format!("it holds {count} keys, but the threads put only {keys}"))),
        }
    }

    /// One kill. Returns the changes that had returned, and the number of keys that lost one.
    fn kill_once(&self, run: &Run, after: Duration) -> Result<(u64, u64), Failure> {
        child::kill_after(&run.with(&WriteAtFullSpeed(*self))?, after)?;
        let returned = (0..self.threads).map(|thread| read_returned(&run.dir, thread));
        let returned = returned.collect::<Result<Vec<_>, _>>()?;
        let setup = SubjectName::Log.under(self.policy);
        let subject = KvEngine(setup.open_engine(&run.dir.join(STORE))?);
        let lost = self.keys_with_loss(&subject, &returned)?;
        Box::new(subject).close()?;
        Ok((returned.iter().sum(), lost))
    }
}

/// The number of the thread's changes that had returned. 0 if there is no such file yet.
fn read_returned(dir: &Path, thread: u64) -> Result<u64, Failure> {
    let path = dir.join(RETURNED);
    let failed = || Failure::io(format!("read {}", path.display()));
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        file => file.map_err(failed())?,
    };
    let mut number = [0; 8];
    match file.read_at(&mut number, thread * 8).map_err(failed())? {
        8 => Ok(u64::from_le_bytes(number)),
        _ => Ok(0),
    }
}

impl Task for Survival {
    const NAME: &'static str = "survival";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let mut rng = Rng::with_seed(self.shape.seed);
        let (mut changes, mut lost) = (0, 0);
        for kill in 0..self.kills {
            let dir = run.dir.join(kill.to_string());
            create_dir(&dir)?;
            let after = Duration::from_millis(rng.u64(AFTER_MS_MIN..=AFTER_MS_MAX));
            let (of_kill, lost_now) = self.kill_once(&Run { dir: dir.clone(), ..run.clone() }, after)?;
            changes += of_kill;
            lost += lost_now;
            Scratch::remove(&dir)?;
        }
        let mut measured = Measured::default();
        measured.add("keys_with_loss", lost as f64);
        measured.add("kills", self.kills as f64);
        measured.add("changes_returned", changes as f64);
        Ok(measured)
    }
}

impl Task for WriteAtFullSpeed {
    const NAME: &'static str = "write-at-full-speed";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let task = self.0;
        let engine = SubjectName::Log.under(task.policy).open_engine(&run.dir.join(STORE))?;
        let data = Dataset::new(task.shape);
        let failed = || Failure::io("tell which changes have returned");
        let file = File::create(run.dir.join(RETURNED)).map_err(failed())?;
        concurrently(0..task.threads, |thread| {
            let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
            for number in 1..=CHANGES_MAX {
                let index = task.index(thread, number % task.keys);
                let key = data.key(index, &mut key);
                match task.change(number) {
                    Change::Put => {
                        data.value(index, number, &mut value);
                        engine.put(key, &value)?;
                    }
                    // In the first round, the key is not there yet.
                    Change::Delete => drop(engine.delete(key)?),
                }
                file.write_all_at(&number.to_le_bytes(), thread * 8).map_err(failed())?;
            }
            Ok(())
        })?;
        // Longer than any kill takes. The limit ends a process that no parent kills.
        std::thread::sleep(Duration::from_secs(10));
        Ok(Measured::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: Survival = Survival {
        policy: Policy::Manual,
        shape: Shape { key_len: 24, value_len: 64, seed: 5 },
        kills: 1,
        threads: 2,
        keys: 10,
    };

    #[test]
    fn each_key_shows_its_last_put_unless_a_delete_follows() {
        let mut state = [None; 10];
        for count in 0..200 {
            if count > 0 {
                let slot = usize::try_from(count % TASK.keys).unwrap();
                state[slot] = (TASK.change(count) == Change::Put).then_some(count);
            }
            for (slot, shown) in (0..).zip(state) {
                assert_eq!(TASK.shown(slot, count), shown, "key {slot} after {count}");
            }
        }
        let kinds: Vec<_> = (1..6).map(|round| TASK.change(round * TASK.keys)).collect();
        assert!(kinds.contains(&Change::Put) && kinds.contains(&Change::Delete));
    }

    /// The verdict after the first `count` changes of thread 0, less change `missing`.
    fn lost(count: u64, missing: u64, returned: [u64; 2]) -> Result<u64, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let subject = KvEngine(SubjectName::Log.standard().open_engine(dir.path()).unwrap());
        let data = Dataset::new(TASK.shape);
        for number in (1..=count).filter(|number| *number != missing) {
            let index = TASK.index(0, number % TASK.keys);
            let (mut buffer, mut value) = ([0; KEY_LEN_MAX], Vec::new());
            let key = data.key(index, &mut buffer);
            data.value(index, number, &mut value);
            match TASK.change(number) {
                Change::Put => drop(subject.0.put(key, &value).unwrap()),
                Change::Delete => drop(subject.0.delete(key).unwrap()),
            }
        }
        TASK.keys_with_loss(&subject, &returned)
    }

    #[test]
    fn a_lost_put_or_delete_is_noticed_and_a_change_under_way_is_none() {
        assert_eq!(lost(57, 0, [57, 0]).unwrap(), 0);
        assert_eq!(lost(57, 0, [56, 0]).unwrap(), 0, "one more was under way");
        for missing in 48..=57 {
            assert_eq!(lost(57, missing, [57, 0]).unwrap(), 1, "change {missing}");
        }
        assert_eq!(lost(57, 47, [57, 0]).unwrap(), 0, "change 57 replaced it");
        assert_eq!(lost(57, 0, [59, 0]).unwrap(), 2, "changes 58 and 59");
        assert_eq!(lost(57, 0, [57, 1]).unwrap(), 1, "the change of thread 1");
    }

    #[test]
    fn changes_that_were_never_made_void_the_run() {
        assert!(matches!(lost(57, 0, [50, 0]), Err(Failure::Wrong(_))));
    }
}
