//! Progress on a terminal. Nothing is shown when standard error is not one.

use indicatif::{HumanBytes, HumanCount, HumanFloatCount, ProgressBar, ProgressState, ProgressStyle};
use kv_log::inspect::Progress;
use kv_log::{OnRecovery, RecoveryProgress};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An opening that takes less time shows nothing.
const QUICK: Duration = Duration::from_millis(300);

/// The bar moves on by so many: each move reads the clock, which takes longer than a record.
const STEP: u64 = 16;

/// A bar or a counter, which disappears at the end.
#[derive(Debug)]
pub(crate) struct Meter {
    bar: ProgressBar,
    /// Pairs, lines or records that are done.
    done: AtomicU64,
    /// Whether the answer goes to a terminal, too.
    is_beside_answer: bool,
}

impl Meter {
    /// Of bytes whose number is known.
    pub(crate) fn of_bytes(what: &'static str) -> Self {
        let style = "{msg} {wide_bar} {bytes}/{total_bytes}, {binary_bytes_per_sec}, {eta} left";
        Meter::new(ProgressBar::no_length(), style, what)
    }

    /// Of pairs whose number is not known.
    pub(crate) fn of_pairs(what: &'static str) -> Self {
        Meter::new(ProgressBar::new_spinner(), &count_of("pairs"), what)
    }

    /// Of the parts of an answer. On a terminal the answer itself shows the progress.
    pub(crate) fn of_answer(what: &'static str, unit: &str) -> Self {
        if io::stdout().is_terminal() {
            return Meter::hidden();
        }
        Meter::new(ProgressBar::new_spinner(), &count_of(unit), what)
    }

    /// Shows nothing.
    pub(crate) fn hidden() -> Self {
        Meter { bar: ProgressBar::hidden(), done: AtomicU64::new(0), is_beside_answer: false }
    }

    /// Of a replay: its bytes and records.
    fn of_replay() -> Self {
        let style = "{msg} {wide_bar} {bytes}/{total_bytes}, {prefix} records, {eta} left";
        Meter::new(ProgressBar::no_length(), style, "opening")
    }

    /// Of work that does not tell how far it is.
    pub(crate) fn of_time(what: &'static str) -> Self {
        Meter::new(ProgressBar::new_spinner(), "{spinner} {msg}, {elapsed}", what)
    }

    fn new(bar: ProgressBar, style: &str, what: &'static str) -> Self {
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.with_key("rate", write_rate));
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        let is_beside_answer = !bar.is_hidden() && io::stdout().is_terminal();
        Meter { bar, done: AtomicU64::new(0), is_beside_answer }
    }

    /// So many bytes are done.
    pub(crate) fn at(&self, progress: Progress) {
        self.bar.set_length(progress.bytes_total);
        self.bar.set_position(progress.bytes);
    }

    fn at_replay(&self, progress: RecoveryProgress) {
        self.bar.set_length(progress.bytes + progress.bytes_left);
        self.bar.set_position(progress.bytes);
        self.bar.set_prefix(HumanCount(progress.records).to_string());
    }

    /// One more is done.
    pub(crate) fn add_one(&self) {
        // The count publishes no other memory.
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(STEP) {
            self.bar.inc(STEP);
        }
    }

    /// Writes to standard error what stays there.
    pub(crate) fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Writes whole lines of the answer. On a terminal, the bar makes room for them.
    pub(crate) fn answer<W: Write>(
        &self,
        out: &mut W,
        write: impl FnOnce(&mut W) -> io::Result<()>,
    ) -> io::Result<()> {
        if !self.is_beside_answer {
            return write(out);
        }
        self.bar.suspend(|| write(out).and_then(|()| out.flush()))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The style of a count without a known end.
fn count_of(unit: &str) -> String {
    format!("{{spinner}} {{msg}} {{human_pos}} {unit}, {{rate}}")
}

fn write_rate(state: &ProgressState, out: &mut dyn fmt::Write) {
    let _ = write!(out, "{:.0}/s", HumanFloatCount(state.per_sec()));
}

/// Shows the progress of an opening that takes long.
pub(crate) fn of_opening() -> OnRecovery {
    let (start, shown) = (Instant::now(), Mutex::new(None));
    OnRecovery::new(move |progress| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if is_shown(progress, start.elapsed()) {
            shown.get_or_insert_with(Meter::of_replay).at_replay(progress);
        } else {
            *shown = None;
        }
    })
}

/// Whether an opening that has taken this long shows its progress.
fn is_shown(progress: RecoveryProgress, elapsed: Duration) -> bool {
    progress.files < progress.files_total && elapsed >= QUICK
}

/// A number of bytes for people: `1.50 MiB`.
pub(crate) fn bytes_text(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_opening_and_the_end_of_one_show_nothing() {
        let mut progress = RecoveryProgress::default();
        (progress.files, progress.files_total) = (3, 4);
        assert!(is_shown(progress, QUICK));
        assert!(!is_shown(progress, QUICK / 2));
        progress.files = 4;
        assert!(!is_shown(progress, QUICK));
    }
}
