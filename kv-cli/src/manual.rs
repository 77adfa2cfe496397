//! The manual pages, made from the definition of the command line.

use crate::failure::Failure;
use clap::Command;
use clap_mangen::Man;
use kv_core::fs::{DirExt, FsExt};
use kv_core::{Error, Fs, Op, OsFs};
use std::path::Path;

/// Writes the page of `command` and one of each of its commands to the directory `into`. Returns
/// their number.
pub(crate) fn write(command: Command, into: &Path) -> Result<usize, Failure> {
    OsFs.create_dir_durably(into)?;
    let dir = OsFs.open_dir(into).map_err(|error| Error::io(Op::Open, into, error))?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let source = format!("{} {}", command.get_name(), command.get_version().unwrap_or_default());
    let mut pages = 0;
    for one in [&command].into_iter().chain(command.get_subcommands()) {
        let (man, mut page) = (Man::new(one.clone()).source(&source), Vec::new());
        man.render(&mut page).map_err(Failure::Output)?;
        // man finds the page of `kv get` as kv-get.
        dir.write_file_atomically(&man.get_filename(), &page)?;
        pages += 1;
    }
    Ok(pages)
}
