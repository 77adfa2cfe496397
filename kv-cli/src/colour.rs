//! Colours, for standard output on a terminal.

use std::env;
use std::io::{self, IsTerminal};

/// Whether, and how, words are coloured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Colours {
    are_on: bool,
}

impl Colours {
    /// On a terminal, unless the environment variable `NO_COLOR` is set (no-color.org).
    pub(crate) fn of_output() -> Self {
        let is_refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Colours { are_on: io::stdout().is_terminal() && !is_refused }
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.are_on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_around_the_word_or_nowhere() {
        assert_eq!(Colours { are_on: true }.bad("x"), "\x1b[1;31mx\x1b[0m");
        assert_eq!(Colours { are_on: false }.good("x"), "x");
    }
}
