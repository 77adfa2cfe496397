//! The commands that read the files of a store of the log engine. All but `tail` need it closed.

mod dump;
mod inspect;
mod repair;
mod tail;
mod tails;
mod verify;

pub(crate) use dump::dump;
pub(crate) use inspect::inspect;
pub(crate) use repair::repair;
pub(crate) use tail::{Form, tail};
pub(crate) use tails::tails;
pub(crate) use verify::verify;

use crate::text::Text;
use kv_log::inspect::Damage;
use serde_json::{Value, json};
use std::fmt::Write;

/// A damaged part, with the keys that can be named, in one line each.
fn damage_text(damage: &Damage, text: Text) -> String {
    let mut lines = damage.to_string();
    for change in &damage.lost.named {
        let key = change.key.as_deref().map_or_else(|| "unknown".to_owned(), |key| text.escape(key));
        let certainty = if change.is_intact { "" } else { ", perhaps" };
        let _ = write!(lines, "\n  LSN {}, key{certainty}: {key}", change.lsn);
    }
    lines
}

fn damage_json(damage: &Damage, text: Text) -> Value {
    let change = |change: &kv_log::inspect::LostChange| {
        json!({
            "lsn": change.lsn,
            "offset": change.offset,
            "key": change.key.as_deref().map(|key| text.escape(key)),
            "certain": change.is_intact,
        })
    };
    json!({
        "file": damage.path.to_string_lossy(),
        "offset": damage.offset,
        "bytes": damage.len,
        "fault": damage.fault,
        "lost": damage.lost.named.iter().map(change).collect::<Vec<_>>(),
        "others_lost": damage.lost.others,
        "lsn_min": damage.lost.lsn_min,
        "lsn_max": damage.lost.lsn_max,
    })
}
