//! The commands that go back to past states.
//!
//! Those that only read use the files of a closed store of the log engine, so they work on one that
//! does not open, too.

mod retention;
mod time;

pub(crate) use retention::KeepFound;

use crate::failure::Failure;
use crate::text::Text;
use kv_core::{
    BackupReport, Engine, Error, Lsn, Moment, Point, PointInTime, Reach, RestorePlan, Rounding, Target,
    Version, Window,
};
use std::fmt::Write;

/// Parses a target: an LSN, a time, or the name of a point.
pub(crate) fn parse_target(text: &str) -> Result<Target, String> {
    const FORMS: &str = "write an LSN (42), a time with a zone (2026-11-26T16:41:05Z, or with +01:00), or the \
        name of a point (point:NAME, or NAME if it looks like nothing else)";
    if let Some(name) = text.strip_prefix("point:") {
        return Ok(Target::Point(name.to_owned()));
    }
    if text.is_empty() {
        return Err(FORMS.to_owned());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(|lsn| Target::Lsn(Lsn::new(lsn))).map_err(|_| FORMS.to_owned());
    }
    if let Some(unix_ms) = time::parse(text) {
        return Ok(Target::UnixMs(unix_ms));
    }
    let looks_like_time = text.starts_with(|first: char| first.is_ascii_digit()) && text.contains(['-', ':']);
    if looks_like_time { Err(FORMS.to_owned()) } else { Ok(Target::Point(text.to_owned())) }
}

/// Parses the time at which a point expires.
pub(crate) fn parse_time(text: &str) -> Result<u64, String> {
    time::parse(text)
        .ok_or_else(|| "write a time with a zone: 2026-11-26T16:41:05Z, or with +01:00".to_owned())
}

/// Refuses a point that would expire at once.
pub(crate) fn refuse_expired(expires_unix_ms: u64, now_unix_ms: u64) -> Result<(), Failure> {
    if expires_unix_ms > now_unix_ms {
        return Ok(());
    }
    let time = time::show(expires_unix_ms);
    Err(Failure::Usage(format!("{time} is over, so the point would be gone at once; name a later time")))
}

/// The capability of an engine.
pub(crate) fn of(engine: &dyn Engine) -> Result<&dyn PointInTime, Failure> {
    engine.as_point_in_time().ok_or(Failure::Store(Error::Unsupported("this engine keeps no past states")))
}

/// The versions of a key, one in each line: LSN, time, kind, value.
pub(crate) fn history_text(versions: &[Version], text: Text) -> String {
    let mut lines = String::new();
    for Version { lsn, unix_ms, value, .. } in versions {
        let (kind, value) = match value {
            Some(value) => ("put", text.escape(value)),
            None => ("delete", String::new()),
        };
        let _ = writeln!(lines, "{lsn}\t{}\t{kind}\t{value}", time::show(*unix_ms));
    }
    lines
}

/// The window and the points, one in each line: name, LSN, time, and when it expires.
pub(crate) fn points_text(past: &dyn PointInTime) -> kv_core::Result<String> {
    let mut lines = format!("past states: {}", window_text(&past.window()?));
    if let Reach::Moments(moments) = past.reach()? {
        let lsns: Vec<String> = moments.iter().map(|(lsn, _)| lsn.to_string()).collect();
        let _ = write!(lines, ", only at LSN {}", lsns.join(", "));
    }
    lines.push('\n');
    for point in past.points()? {
        lines += &point_text(&point);
    }
    Ok(lines)
}

/// The past states that can be reached.
pub(crate) fn window_text(window: &Window) -> String {
    let Window { first_lsn, last_lsn, first_unix_ms, last_unix_ms } = window;
    let (first, last) = (time::show(*first_unix_ms), time::show(*last_unix_ms));
    format!("from LSN {first_lsn} ({first}) to LSN {last_lsn} ({last})")
}

/// A target as a user writes it.
pub(crate) fn target_text(target: &Target) -> String {
    match target {
        Target::UnixMs(unix_ms) => time::show(*unix_ms),
        Target::Point(name) => {
            format!("{name:?}, which is no LSN, no time and no point (kv points lists them)")
        }
        Target::Lsn(_) => target.to_string(),
    }
}

/// One point.
pub(crate) fn point_text(point: &Point) -> String {
    let Point { name, lsn, unix_ms, expires_unix_ms } = point;
    let expires = expires_unix_ms.map_or_else(|| "never".to_owned(), time::show);
    format!("{name}\t{lsn}\t{}\texpires {expires}\n", time::show(*unix_ms))
}

/// What a restore would do.
pub(crate) fn plan_text(plan: &RestorePlan) -> String {
    let RestorePlan { moment, files, bytes } = plan;
    format!("{}; {files} files to read, {bytes} bytes\n", moment_text(moment))
}

/// The states that a backup holds, and the files that it took.
pub(crate) fn backup_text(report: &BackupReport) -> String {
    let BackupReport { moment, files, bytes, files_copied, bytes_copied, files_linked, bytes_linked } =
        report;
    format!(
        "{}; {files} files, {bytes} bytes; copied: {files_copied} files, {bytes_copied} bytes; \
         linked: {files_linked} files, {bytes_linked} bytes\n",
        moment_text(moment)
    )
}

/// The state that was reached.
pub(crate) fn moment_text(moment: &Moment) -> String {
    let Moment { lsn, unix_ms, rounding } = moment;
    let rounding = match rounding {
        Rounding::Exact => "exact",
        Rounding::Down => "rounded down: later changes may have been made by the given time or LSN, too",
    };
    format!("LSN {lsn}, {} ({rounding})", time::show(*unix_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_lsn_a_time_or_a_point() {
        let point = |name: &str| Some(Target::Point(name.to_owned()));
        for (text, expected) in [
            ("42", Some(Target::Lsn(Lsn::new(42)))),
            ("2023-11-14T22:13:20Z", Some(Target::UnixMs(1_700_000_000_000))),
            ("before", point("before")),
            ("point:42", point("42")),
            ("1st", point("1st")),
            ("", None),
            ("2023-11-14T22:13:20", None),
            ("2023-11-14", None),
            ("22:13", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_target(text).ok(), expected, "{text}");
        }
    }
}
