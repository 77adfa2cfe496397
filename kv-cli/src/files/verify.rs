use super::{damage_json, damage_text};
use crate::args::EngineName;
use crate::colour::Colours;
use crate::progress::{Meter, bytes_text};
use crate::store::engine_of;
use crate::text::Text;
use kv_core::{EngineFactory, Env, Error, OpenOptions, Result};
use kv_log::inspect::{FileRole, SegmentState, examine};
use kv_naive::NaiveFactory;
use serde_json::json;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;

/// The result of a check.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) answer: String,
    /// The number of damaged parts.
    pub(crate) damages: usize,
}

/// Checks the store in `dir`, of whichever engine.
pub(crate) fn verify(dir: &Path, text: Text, as_json: bool) -> Result<Checked> {
    match engine_of(dir) {
        EngineName::Log => verify_log(dir, text, as_json),
        EngineName::Naive => verify_naive(dir, as_json),
    }
}

fn verify_log(dir: &Path, text: Text, as_json: bool) -> Result<Checked> {
    let meter = Meter::of_bytes("checking");
    let found = examine(&Env::os(), dir, false, &|progress| {
        meter.at(progress);
        ControlFlow::Continue(())
    })?;
    drop(meter);
    let damages = found.damages.len();
    let bytes: u64 = found.segments.iter().map(|segment| segment.file_bytes).sum();
    let records: u64 = found.segments.iter().map(|segment| segment.puts + segment.tombstones).sum();
    if as_json {
        let parts: Vec<_> = found.damages.iter().map(|damage| damage_json(damage, text)).collect();
        let object = json!({
            "sound": damages == 0, "segments": found.segments.len(), "records": records, "bytes": bytes,
            "damages": parts,
        });
        return Ok(Checked { answer: format!("{object}\n"), damages });
    }
    let colours = Colours::of_output();
    let mut answer = String::new();
    for damage in &found.damages {
        let _ = writeln!(answer, "{} {}", colours.bad("damaged:"), damage_text(damage, text));
    }
    for segment in &found.segments {
        let note = match segment.state {
            SegmentState::Torn => "ends with bytes that a crash left; opening the store cuts them off",
            SegmentState::Unnamed => "is not named by the manifest; the store needs nothing of it",
            _ => continue,
        };
        let _ = writeln!(answer, "note: segment {:016x} {note}", segment.id.get());
    }
    for file in found.files.iter().filter(|file| matches!(file.role, FileRole::Leftover | FileRole::Stray)) {
        let _ = writeln!(answer, "note: {} is a {}", file.path.display(), file.role.name());
    }
    if damages == 0 {
        let (segments, bytes) = (found.segments.len(), bytes_text(bytes));
        let sound = colours.good("sound");
        let _ =
            writeln!(answer, "{}: {sound}; segments: {segments}, records: {records}, {bytes}", dir.display());
    }
    Ok(Checked { answer, damages })
}

/// An open for reading checks every byte of the newest snapshot and of the small files. A history
/// reads every snapshot.
fn verify_naive(dir: &Path, as_json: bool) -> Result<Checked> {
    let options = OpenOptions { create_if_missing: false, read_only: true, ..OpenOptions::default() };
    let opened = NaiveFactory.open(dir, &Env::os(), &options).and_then(|engine| {
        let stats = engine.stats();
        if let Some(past) = engine.as_point_in_time() {
            past.history(b"")?;
        }
        engine.close().map(|()| stats)
    });
    match opened {
        Ok(stats) => {
            let (records, bytes) = (stats.keys, stats.disk_bytes);
            let answer = if as_json {
                format!("{}\n", json!({ "sound": true, "records": records, "bytes": bytes, "damages": [] }))
            } else {
                let sound = Colours::of_output().good("sound");
                format!("{}: {sound}; records: {records}, {}\n", dir.display(), bytes_text(bytes))
            };
            Ok(Checked { answer, damages: 0 })
        }
        Err(error @ Error::Corruption { .. }) => {
            let answer = if as_json {
                let (file, offset, fault) = match &error {
                    Error::Corruption { path, offset, detail } => {
                        (path.to_string_lossy(), *offset, detail.as_str())
                    }
                    _ => Default::default(),
                };
                let damage = json!({ "file": file, "offset": offset, "fault": fault });
                format!("{}\n", json!({ "sound": false, "damages": [damage] }))
            } else {
                format!("{} {error}\n", Colours::of_output().bad("damaged:"))
            };
            Ok(Checked { answer, damages: 1 })
        }
        Err(error) => Err(error),
    }
}
