use super::{damage_json, damage_text};
use crate::colour::Colours;
use crate::progress::Meter;
use crate::text::Text;
use kv_core::{Env, Result};
use kv_log::inspect::{Examination, SegmentState, examine};
use serde_json::json;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;

/// The table of the files of the store in `dir`, or the same as JSON.
pub(crate) fn inspect(dir: &Path, text: Text, as_json: bool) -> Result<String> {
    let meter = Meter::of_bytes("reading");
    let found = examine(&Env::os(), dir, true, &|progress| {
        meter.at(progress);
        ControlFlow::Continue(())
    })?;
    Ok(if as_json { as_object(&found, text) } else { as_table(&found, text) })
}

fn as_table(found: &Examination, text: Text) -> String {
    let colours = Colours::of_output();
    let mut table = String::new();
    let mut row = |cells: [&str; 9]| {
        let [segment, kind, state, bytes, used, records, live, from, to] = cells;
        // The state is coloured already, so its width is that of the word and the codes.
        let _ = writeln!(
            table,
            "{segment:<16} {kind:<9} {state} {bytes:>11} {used:>11} {records:>9} {live:>6} {from:>9} {to:>9}"
        );
    };
    row(["segment", "kind", "state  ", "bytes", "used", "records", "live", "lsn from", "to"]);
    for segment in &found.segments {
        let state = format!("{:<7}", segment.state.name());
        let state = match segment.state {
            SegmentState::Damaged | SegmentState::Missing => colours.bad(&state),
            _ => state,
        };
        row([
            &format!("{:016x}", segment.id.get()),
            &segment.kind.to_string(),
            &state,
            &segment.file_bytes.to_string(),
            &segment.used_bytes.to_string(),
            &(segment.puts + segment.tombstones).to_string(),
            &share(segment.live_bytes, segment.used_bytes),
            &segment.lsn_min.to_string(),
            &segment.lsn_max.to_string(),
        ]);
    }
    table.push('\n');
    if let Some(manifest) = &found.manifest {
        for (name, value) in [
            ("store_id", u64::from(manifest.store_id)),
            ("keys", found.keys),
            ("durable_lsn", manifest.durable_lsn),
            ("lsn_ceiling", manifest.lsn_ceiling),
            ("segment_ids_end", manifest.ids_end.get()),
        ] {
            let _ = writeln!(table, "{name:<18} {value:>16}");
        }
        table.push('\n');
    }
    for file in &found.files {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        let _ = writeln!(table, "{:<16} {name:<18} {:>11}", file.role.name(), file.bytes);
    }
    for damage in &found.damages {
        let _ = writeln!(table, "{} {}", colours.bad("damaged:"), damage_text(damage, text));
    }
    table
}

/// `part` of `whole` in percent.
fn share(part: u64, whole: u64) -> String {
    let percent = (part * 100).checked_div(whole).unwrap_or(0);
    format!("{percent} %")
}

fn as_object(found: &Examination, text: Text) -> String {
    let segments: Vec<_> = found
        .segments
        .iter()
        .map(|segment| {
            json!({
                "id": format!("{:016x}", segment.id.get()),
                "kind": segment.kind.to_string(),
                "state": segment.state.name(),
                "file_bytes": segment.file_bytes,
                "used_bytes": segment.used_bytes,
                "live_bytes": segment.live_bytes,
                "puts": segment.puts,
                "tombstones": segment.tombstones,
                "lsn_min": segment.lsn_min,
                "lsn_max": segment.lsn_max,
                "first_mark_unix_ms": segment.first_mark_unix_ms,
                "last_mark_unix_ms": segment.last_mark_unix_ms,
            })
        })
        .collect();
    let manifest = found.manifest.as_ref().map(|manifest| {
        json!({
            "store_id": manifest.store_id,
            "segments": manifest.segments,
            "durable_lsn": manifest.durable_lsn,
            "lsn_ceiling": manifest.lsn_ceiling,
            "segment_ids_end": manifest.ids_end.get(),
        })
    });
    let files: Vec<_> = found
        .files
        .iter()
        .map(|file| {
            json!({
                "file": file.path.to_string_lossy(),
                "bytes": file.bytes,
                "role": file.role.name(),
            })
        })
        .collect();
    let damages: Vec<_> = found.damages.iter().map(|damage| damage_json(damage, text)).collect();
    let object = json!({
        "keys": found.keys,
        "manifest": manifest,
        "segments": segments,
        "files": files,
        "damages": damages,
    });
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_nothing_are_nothing() {
        assert_eq!((share(1, 3).as_str(), share(0, 0).as_str()), ("33 %", "0 %"));
    }
}
