//! The lines of a terminal: editing, history, and a prompt.

use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{DefaultEditor, Editor};
use std::env;
use std::io;
use std::path::PathBuf;

/// Reads lines from a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    editor: Editor<(), FileHistory>,
    /// The file that keeps the lines, if the user named one.
    history: Option<PathBuf>,
}

impl Terminal {
    /// With the lines of the file that `KV_HISTORY` names, if it does.
    pub(crate) fn new() -> io::Result<Self> {
        let mut editor = DefaultEditor::new().map_err(io_error)?;
        editor.set_auto_add_history(true);
        let history = env::var_os("KV_HISTORY").filter(|name| !name.is_empty()).map(PathBuf::from);
        if let Some(history) = &history {
            // The first shell of a user has none.
            let _ = editor.load_history(history);
        }
        Ok(Terminal { editor, history })
    }

    /// The next line, without its line break. `None` at the end, which Ctrl-D is. Ctrl-C discards
    /// the line: it reads as an empty one.
    pub(crate) fn next(&mut self) -> io::Result<Option<String>> {
        match self.editor.readline("> ") {
            Ok(line) => Ok(Some(line)),
            Err(ReadlineError::Interrupted) => Ok(Some(String::new())),
            Err(ReadlineError::Eof) => Ok(None),
            Err(error) => Err(io_error(error)),
        }
    }

    /// Keeps the lines, if the user named a file.
    pub(crate) fn save(&mut self) {
        if let Some(history) = &self.history {
            // The lines are a convenience: no reason to fail.
            let _ = self.editor.save_history(history);
        }
    }
}

fn io_error(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        other => io::Error::other(other),
    }
}
