//! Progress on a terminal. Nothing is shown when standard error is not one.

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use kv_log::inspect::Progress;
use std::time::Duration;

/// A bar or a counter, which disappears at the end.
#[derive(Debug)]
pub(crate) struct Meter {
    bar: ProgressBar,
}

impl Meter {
    /// Of bytes whose number is known.
    pub(crate) fn of_bytes(what: &'static str) -> Self {
        let style = "{msg} {wide_bar} {bytes}/{total_bytes}, {binary_bytes_per_sec}, {eta} left";
        Meter::new(ProgressBar::new(0), style, what)
    }

    /// Of pairs whose number is not known.
    pub(crate) fn of_pairs(what: &'static str) -> Self {
        Meter::new(ProgressBar::new_spinner(), "{spinner} {msg} {human_pos} pairs, {per_sec}", what)
    }

    fn new(bar: ProgressBar, style: &str, what: &'static str) -> Self {
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Meter { bar }
    }

    /// So many bytes are done.
    pub(crate) fn at(&self, progress: Progress) {
        self.bar.set_length(progress.bytes_total);
        self.bar.set_position(progress.bytes);
    }

    /// So many more pairs are done.
    pub(crate) fn add_pairs(&self, pairs: u64) {
        self.bar.inc(pairs);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A number of bytes for people: `1.50 MiB`.
pub(crate) fn bytes_text(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}
