//! Scans that read the live map at each step instead of a copy: only defects need them.

use super::Defect;
use super::state::{Shared, State};
use super::visits::Kind;
use kv_core::{Error, Result, ScanVisitor};
use std::ops::Bound;
use std::sync::PoisonError;

type Pair = (Vec<u8>, Vec<u8>);
/// Finds the pair behind the last visited key.
type Next<'a> = dyn FnMut(&State, Option<&[u8]>) -> Option<Pair> + 'a;

impl Shared {
    /// The scan of a defect; `None` without one.
    pub(super) fn scan_carelessly(&self, visit: &mut ScanVisitor<'_>) -> Option<Result<()>> {
        if self.has(Defect::EmptyScanFails) && self.state().content.map.is_empty() {
            return Some(Err(Error::Closed));
        }
        let next: &mut Next<'_> = if self.has(Defect::ScanByPosition) {
            &mut position()
        } else if self.has(Defect::ScanEndsAtLostKey) {
            &mut behind
        } else if self.has(Defect::ScansShareCursor) {
            *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = 0;
            &mut |state, _| {
                let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
                *cursor += 1;
                nth(state, *cursor - 1)
            }
        } else {
            return None;
        };
        let mut last: Option<Vec<u8>> = None;
        loop {
            let pair = next(&self.state(), last.as_deref());
            let Some((key, value)) = pair else { return Some(Ok(())) };
            if self.visits.during(Kind::Scan, &key, || visit(&key, &value)).is_break() {
                return Some(Ok(()));
            }
            last = Some(key);
        }
    }
}

fn nth(state: &State, position: usize) -> Option<Pair> {
    state.content.map.iter().nth(position).map(|(key, value)| (key.clone(), value.clone()))
}

/// Counts the steps.
fn position() -> impl FnMut(&State, Option<&[u8]>) -> Option<Pair> {
    let mut position = 0;
    move |state, _| {
        position += 1;
        nth(state, position - 1)
    }
}

/// Finds the last visited key again, and takes the next one.
fn behind(state: &State, last: Option<&[u8]>) -> Option<Pair> {
    let Some(last) = last else { return nth(state, 0) };
    state.content.map.get(last)?;
    let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Excluded(last), Bound::Unbounded);
    state.content.map.range::<[u8], _>(bounds).next().map(|(key, value)| (key.clone(), value.clone()))
}
