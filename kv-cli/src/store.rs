//! Opens the store that the command line names.

use crate::args::{Args, Command};
use crate::failure::Failure;
use kv_core::{Engine, Env, Error, OpenOptions};
use std::sync::Arc;

/// The access to its store that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// The command reads.
    Read,
    /// The command changes a store that exists.
    Change,
    /// The command changes the store, and creates a missing one.
    Create,
}

impl Access {
    fn of(command: &Command) -> Access {
        match command {
            Command::Get { .. } | Command::Scan { .. } | Command::Stats { .. } => Access::Read,
            Command::Delete { .. } | Command::Compact { .. } => Access::Change,
            Command::Put { .. } | Command::Shell => Access::Create,
        }
    }
}

/// Opens the store for the command of `args`.
pub(crate) fn open(args: &Args) -> Result<Arc<dyn Engine>, Failure> {
    args.engine.factory().open(args.dir()?, &Env::os(), &open_options(args)).map_err(|error| match error {
        // The limits are the only open options that the user sets to arbitrary values.
        Error::InvalidArgument(text) => {
            Failure::Usage(format!("{text}; lower --key-len-max or --value-len-max"))
        }
        other => Failure::Store(other),
    })
}

/// The only place where a command's open options are chosen.
fn open_options(args: &Args) -> OpenOptions {
    let access = Access::of(&args.command);
    OpenOptions {
        // A command that creates no store tells the user of a mistyped directory.
        create_if_missing: access == Access::Create,
        // A command that reads works on a read-only medium, and beside other readers.
        read_only: access == Access::Read,
        persistence: args.durability.policy(),
        limits: args.limits(),
        ..OpenOptions::default()
    }
}
