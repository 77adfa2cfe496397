//! Keys and values that hold the bytes of the store's own files: headers, records, checksums.

use super::sizes::{check_everywhere, check_reads};
use crate::failure::ensure;
use crate::oracle::{History, state_of};
use crate::rig::{Policy, Setup};
use crate::scenario::{Left, Rest, last_write};
use crate::sim::SimFs;
use crate::{CaseResult, Context, Failure};
use kv_core::Engine;
use std::sync::Arc;

/// A store whose files hold changes that recovery must not take from a copy of them.
struct Prepared {
    disk: SimFs,
    engine: Arc<dyn Engine>,
    history: History,
    copies: Vec<Vec<u8>>,
}

impl Prepared {
    fn put(&mut self, key: &[u8], value: &[u8]) -> CaseResult {
        self.history.begin(vec![(key.to_vec(), Some(value.to_vec()))]);
        let lsn = self.engine.put(key, value)?;
        self.history.end(Some(lsn));
        self.history.told_durable(self.engine.durable_lsn());
        Ok(())
    }

    fn sync(&mut self) -> kv_core::Result<()> {
        self.history.told_durable(self.engine.sync()?);
        Ok(())
    }
}

fn prepare(context: &Context, setup: Setup, closes: bool) -> Result<Prepared, Failure> {
    let (disk, history, copies) = (SimFs::new(), History::default(), Vec::new());
    let rig = context.sim_rig(disk.clone(), setup);
    let mut prepared = Prepared { disk, engine: rig.open()?, history, copies };
    for number in 0..6u8 {
        prepared.put(&[number], &[number; 60])?;
    }
    prepared.sync()?;
    if closes {
        prepared.engine.close()?;
        prepared.engine = rig.open()?;
    }
    prepared.copies = pieces(&prepared.disk);
    // The changes in the copies are old from here on.
    for number in 0..3u8 {
        prepared.history.begin(vec![(vec![number], None)]);
        let lsn = prepared.engine.delete(&[number])?;
        prepared.history.end(lsn);
    }
    prepared.put(&[3], b"new")?;
    prepared.sync()?;
    Ok(prepared)
}

/// The bytes of the files up to their trailing zeros, in pieces.
fn pieces(disk: &SimFs) -> Vec<Vec<u8>> {
    const LEN: usize = 20_000;
    let mut pieces = Vec::new();
    for (_, bytes) in disk.files() {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        pieces.extend(bytes.get(..end).unwrap_or_default().chunks(LEN).map(<[u8]>::to_vec));
    }
    pieces
}

pub(super) fn values_that_look_like_files(context: &Context) -> CaseResult {
    let setup = Setup::tiny(context, Policy::Manual);
    for closes in [false, true] {
        let mut prepared = prepare(context, setup, closes)?;
        let copies = prepared.copies.clone();
        ensure!(!copies.is_empty(), "the harness is broken: after a sync the files are empty");
        tear_copies(context, setup, closes, copies.len())?;
        for (number, copy) in (100..).zip(&copies) {
            prepared.put(&[number], copy)?;
            prepared.put(copy.get(..setup.limits.key_len_max).unwrap_or(copy), copy)?;
        }
        let state = prepared.history.state();
        check_reads(&*prepared.engine, &state, "puts of copies of the files")?;
        prepared.engine.close()?;
        let rig = context.sim_rig(prepared.disk.clone(), setup);
        drop(prepared.engine);
        check_everywhere(context, &rig, Some(&prepared.disk), &state, "puts of copies of the files")?;
    }
    Ok(())
}

/// Half the length of the end of a torn value, bytes.
const TAIL: usize = 600;

/// Puts each copy, and loses power in the middle of its sync.
fn tear_copies(context: &Context, setup: Setup, closes: bool, count: usize) -> CaseResult {
    for number in 0..count {
        for cut in 0.. {
            let mut prepared = prepare(context, setup, closes)?;
            let copy = prepared.copies.get(number).cloned().unwrap_or_default();
            // Bytes that no file holds end the value, so that a tear may leave the whole copy.
            prepared.put(b"copy", &[&copy[..], &[0xa5; 2 * TAIL]].concat())?;
            let disk = prepared.disk.clone();
            disk.cut_after(disk.mutations() + cut);
            let is_cut = prepared.sync().is_err();
            let draws = (2..2 + context.scaled(6)).map(|draw| draw + 10 * cut + 100 * number as u64);
            for draw in draws.chain([0, 1]) {
                context.explored().crash_state();
                let image = disk.power_cut(context.power_cut(draw));
                let recovered = context.sim_rig(image, setup).open()?;
                prepared.history.check(&state_of(&*recovered)?)?;
            }
            let mut lefts = vec![Left::Written];
            // The tear leaves the whole copy, and takes the end of its record.
            if let Some(bytes) = last_write(&disk).and_then(|write| write.len.checked_sub(TAIL as u64)) {
                lefts.extend([Rest::Cut, Rest::Zeros, Rest::Stale].map(|rest| Left::Torn { bytes, rest }));
            }
            for left in lefts {
                context.explored().crash_state();
                let recovered = context.sim_rig(left.image(&disk), setup).open()?;
                prepared.history.check(&state_of(&*recovered)?)?;
            }
            if !is_cut {
                break;
            }
        }
    }
    Ok(())
}
