use crate::failure::Failure;
use crate::past::{parse_target, parse_time};
use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use kv_core::{Always, Limits, Manual, PersistencePolicy, Target, default_persistence};
use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A shell and single commands for key-value stores.
#[derive(Debug, Parser)]
#[command(
    name = "kv",
    version,
    override_usage = "kv [--dir <DIR>] [OPTIONS] <COMMAND>",
    after_help = "Examples:\n  \
    kv --dir /tmp/s put planet earth\n  \
    kv --dir /tmp/s get planet\n  \
    kv --dir /tmp/s --hex put 00ff 0a0d\n  \
    kv put --dir /tmp/s --key-len-max 200 \"$(pwd)\" visited\n  \
    printf 'put a 1\\nget a\\nquit\\n' | kv shell --dir /tmp/s\n  \
    kv scan --dir /tmp/s pla | sort\n  \
    kv stats --json --engine naive --dir /tmp/n\n  \
    kv verify /tmp/s\n  \
    kv repair /tmp/s /tmp/repaired\n\n\
    Options go before or after the command. \
    Put -- before a key or value that begins with a dash.\n\
    Exit codes: 0 done, 1 failed or not found, 2 wrong usage, \
    3 done and durable, but the answer could not be written."
)]
pub(crate) struct Args {
    /// The engine of the store.
    #[arg(long, global = true, value_enum, default_value = "log")]
    pub(crate) engine: EngineName,
    /// The directory of the store. Only `shell`, `put` and `import` create it. A command that names
    /// its directory itself takes no `--dir`.
    // clap allows no required option that is global, so `Args::dir` checks.
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    /// When the changes of a shell go to disk. Single commands are durable when they return.
    #[arg(long, global = true, value_enum, default_value = "periodic")]
    pub(crate) durability: Durability,
    /// Read and print keys and values as hexadecimal digits, two for each byte.
    #[arg(long, global = true)]
    pub(crate) hex: bool,
    /// The longest key that the command takes, bytes; at most 65535.
    #[arg(long, global = true, value_name = "BYTES", default_value_t = Limits::default().key_len_max)]
    key_len_max: usize,
    /// The longest value that the command takes, bytes; the log engine takes almost 127 MiB.
    #[arg(long, global = true, value_name = "BYTES", default_value_t = Limits::default().value_len_max)]
    value_len_max: usize,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// The directory of the store: as the command names it, or else the option.
    pub(crate) fn dir(&self) -> Result<&Path, Failure> {
        let refuse = |text: &str| Err(Failure::Usage(text.to_owned()));
        match (self.command.store(), self.dir.as_deref()) {
            (Some(_), Some(_)) => refuse("the directory is given twice: leave out --dir"),
            (Some(dir), None) | (None, Some(dir)) => Ok(dir),
            (None, None) => refuse("no directory is given: add --dir DIR before or after the command"),
        }
    }

    /// The limits of keys and values. A batch has room for at least one key and value.
    pub(crate) fn limits(&self) -> Limits {
        let (key_len_max, value_len_max) = (self.key_len_max, self.value_len_max);
        let one_put = key_len_max.saturating_add(value_len_max).saturating_add(Limits::CHANGE_OVERHEAD);
        let batch_bytes_max = Limits::default().batch_bytes_max.max(one_put);
        Limits { key_len_max, value_len_max, batch_bytes_max }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineName {
    /// The log-structured engine.
    Log,
    /// The hash table with snapshots.
    Naive,
}

impl EngineName {
    /// As the option takes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            EngineName::Log => "log",
            EngineName::Naive => "naive",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// Each change is durable before its answer.
    Always,
    /// After 100 ms or 8 MiB of changes, whichever comes first.
    Periodic,
    /// All changes become durable when the shell ends, also by a signal.
    Manual,
}

impl Durability {
    pub(crate) fn policy(self) -> Arc<dyn PersistencePolicy> {
        match self {
            Durability::Always => Arc::new(Always),
            Durability::Periodic => Arc::new(default_persistence()),
            Durability::Manual => Arc::new(Manual),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read commands from standard input, one in each line, and answer each with one line.
    #[command(after_help = "Commands and their answers:\n  \
        put KEY VALUE   KEY; the value is the rest of the line, spaces kept\n  \
        get KEY         the value, or NULL\n  \
        delete KEY      KEY, or NULL when it was not there\n  \
        statistic       the figures of the store, name=value\n  \
        quit            no answer; ends the shell, as the end of the input does\n\n\
        The shell answers a command that fails, and any other line, with a line that starts with ERROR. \
        It skips empty lines. When the shell ends, every change is durable.\n\n\
        A last line without a line break may be cut, so the shell does not execute it: the answer is ERROR, \
        and the exit code 1. The shell skips a line that is longer than any command, and answers ERROR.\n\n\
        SIGINT (Ctrl-C), SIGTERM and SIGHUP end the shell in order: every answered change becomes durable. Then \
        the process dies of the signal, which a command interpreter shows as exit code 130, 143 or 129. If the \
        store cannot be closed, the exit code is 1. Further signals have no effect meanwhile.\n\n\
        On a terminal the line can be edited, and the arrow keys bring back earlier lines. Ctrl-C discards \
        the line, and Ctrl-D ends the shell. If the environment variable KV_HISTORY names a file, the shell \
        keeps its lines there.\n\n\
        Examples:\n  kv shell --dir /tmp/s\n  printf 'put a 1\\nget a\\n' | kv shell --dir /tmp/s")]
    Shell,
    /// Print the value of a key. For an absent key, print NULL; exit code 1.
    #[command(after_help = "Examples:\n  kv get planet --dir /tmp/s\n  kv --hex get 00ff --dir /tmp/s\n  \
        kv get planet --at 2026-11-26T16:41:05Z --dir /tmp/s")]
    Get {
        /// The key.
        key: OsString,
        /// In this past state: an LSN, a time with a zone, or a point.
        #[arg(long, value_parser = parse_target, value_name = "MOMENT")]
        at: Option<Target>,
    },
    /// Print the versions of a key that can be reached, the oldest first.
    #[command(
        after_help = "A line is LSN, TIME, put or delete, VALUE with escapes (or with --hex, digits), \
        separated by tabs. The change was made at that time, or before it. For a key without versions, \
        print NULL; exit code 1.\n\n\
        Example:\n  kv history planet --dir /tmp/s"
    )]
    History {
        /// The key.
        key: OsString,
    },
    /// Print the past states that can be reached, and the points.
    #[command(
        after_help = "A line of a point is NAME, LSN, TIME, and when it expires, separated by tabs. A \
        store of the naive engine reaches only the listed LSNs.\n\nExample:\n  kv points /tmp/s"
    )]
    Points {
        /// The directory of the store, if --dir does not name it.
        #[arg(value_name = "DIR")]
        store: Option<PathBuf>,
    },
    /// Give a state a name. It can be reached until the point is removed or expires.
    #[command(after_help = "Without --at, the newest state. In a store of the log engine every state \
        after it can be reached, too. A point takes space: kv stats prints it as past_bytes.\n\n\
        Examples:\n  kv pin before-import --dir /tmp/s\n  \
        kv pin monday --at 2026-11-23T00:00:00Z --expires 2026-12-01T00:00:00Z --dir /tmp/s")]
    Pin {
        /// The name, at most 64 bytes.
        name: String,
        /// The state: an LSN, a time with a zone, or another point.
        #[arg(long, value_parser = parse_target, value_name = "MOMENT")]
        at: Option<Target>,
        /// When the point expires: a time with a zone.
        #[arg(long, value_parser = parse_time, value_name = "TIME")]
        expires: Option<u64>,
    },
    /// Remove a point. If there is none of this name, print NULL; exit code 1.
    #[command(after_help = "Example:\n  kv unpin before-import --dir /tmp/s")]
    Unpin {
        /// The name.
        name: String,
    },
    /// Print what a restore would reach and read. Writes nothing.
    #[command(after_help = "Example:\n  kv plan /tmp/s --to before-import")]
    Plan {
        /// The directory of the store, if --dir does not name it.
        #[arg(value_name = "DIR")]
        store: Option<PathBuf>,
        /// The state: an LSN, a time with a zone, or a point.
        #[arg(long, value_parser = parse_target, value_name = "MOMENT")]
        to: Target,
    },
    /// Write a past state of a store into a new directory.
    #[command(after_help = "SRC stays as it is. It need not open: only the files of the state have to be \
        intact. While a restore is unfinished, DST holds a file RESTORE, and no command opens it as a store. \
        Ctrl-C removes the files of an unfinished restore.\n\n\
        A store of the naive engine has to open. Ctrl-C leaves the files of its unfinished restore in DST: \
        remove DST then.\n\n\
        Examples:\n  kv restore /tmp/s /tmp/restored --to 42\n  \
        kv restore /tmp/s /tmp/restored --to 2026-11-26T16:41:05+01:00")]
    Restore {
        /// The store.
        src: PathBuf,
        /// The directory of the new store: missing or empty.
        dst: PathBuf,
        /// The state: an LSN, a time with a zone, or a point.
        #[arg(long, value_parser = parse_target, value_name = "MOMENT")]
        to: Target,
    },
    /// Copy every state of a store that can be reached into a directory: a backup.
    #[command(
        allow_missing_positional = true,
        after_help = "DST is missing, empty, or an earlier backup of the store: then only what is not there \
        is copied. A backup opens for reading only. Its states can be read and restored like those of the \
        store.\n\n\
        Examples:\n  kv backup /tmp/s /backups/s\n  kv restore /backups/s /tmp/restored --to 42"
    )]
    Backup {
        /// The store, if --dir does not name it.
        #[arg(value_name = "SRC")]
        store: Option<PathBuf>,
        /// The directory of the backup.
        #[arg(value_name = "DST")]
        into: PathBuf,
    },
    /// Give a key its value of a past state, as a new change. If it had none, delete it.
    #[command(after_help = "The change is durable when the command returns. Print the value, or NULL if \
        the key had none then. The exit code is 0 in both cases.\n\n\
        Example:\n  kv revert planet --to 42 --dir /tmp/s")]
    Revert {
        /// The key.
        key: OsString,
        /// The state: an LSN, a time with a zone, or a point.
        #[arg(long, value_parser = parse_target, value_name = "MOMENT")]
        to: Target,
    },
    /// Store a value and print the key. The value is durable when the command returns.
    #[command(
        after_help = "Examples:\n  kv put planet earth --dir /tmp/s\n  kv --hex put 00ff 0a0d --dir /tmp/s"
    )]
    Put {
        /// The key.
        key: OsString,
        /// The value.
        value: OsString,
    },
    /// Remove a key and print it. The removal is durable when the command returns. For an absent
    /// key, print NULL; exit code 1.
    #[command(after_help = "Example:\n  kv delete planet --dir /tmp/s")]
    Delete {
        /// The key.
        key: OsString,
    },
    /// Print every key and value, one pair in each line; with a prefix, only the keys that start
    /// with it.
    #[command(
        after_help = "A line is KEY, a tab, VALUE. Engines keep no order of keys, so pipe the lines to sort. \
        Without --hex, a scan leaves out a pair whose key holds a tab or a line break, or whose value \
        holds a line break. Then it prints their number at the end, and the exit code is 1. When the \
        reader closes the pipe, as head does, the exit code is 0.\n\n\
        Example:\n  kv scan --dir /tmp/s pla | sort"
    )]
    Scan {
        /// The first bytes of the keys.
        #[arg(default_value = "", hide_default_value = true)]
        prefix: OsString,
    },
    /// Open the store, and print its sizes. The counters begin with this opening.
    #[command(after_help = "Examples:\n  kv stats /tmp/s\n  kv stats --json /tmp/s")]
    Stats {
        /// The directory of the store, if --dir does not name it.
        #[arg(value_name = "DIR")]
        store: Option<PathBuf>,
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Give back the disk space of dead records; print the figures of the compaction.
    #[command(after_help = "The naive engine does not compact on request: the exit code is 1.\n\n\
        Example:\n  kv compact /tmp/s")]
    Compact {
        /// The directory of the store, if --dir does not name it.
        #[arg(value_name = "DIR")]
        store: Option<PathBuf>,
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Write a checkpoint, so that the next open replays little; print its LSN.
    #[command(after_help = "The naive engine writes its snapshot.\n\n\
        Example:\n  kv checkpoint /tmp/s")]
    Checkpoint {
        /// The directory of the store, if --dir does not name it.
        #[arg(value_name = "DIR")]
        store: Option<PathBuf>,
    },
    /// Print the pairs that take the most bytes, the largest first.
    #[command(
        after_help = "A line is BYTES of key and value, a tab, KEY with escapes (or with --hex, digits).\n\n\
        Example:\n  kv bigkeys --top 3 --dir /tmp/s user/"
    )]
    Bigkeys {
        /// The first bytes of the keys.
        #[arg(default_value = "", hide_default_value = true)]
        prefix: OsString,
        /// How many pairs.
        #[arg(long, default_value_t = 10)]
        top: usize,
    },
    /// Compare two stores, of any engine; print each pair that only one of them has.
    #[command(
        after_help = "A line is - (only in DIR1) or + (only in DIR2), a space, KEY, a tab, VALUE, with \
        escapes (or with --hex, digits). A key with two values has two lines. The exit code is 0 if the \
        stores are equal, else 1. With --at, the first store is compared as it was, and without DIR2 with \
        itself as it is.\n\n\
        Examples:\n  kv diff /tmp/s /tmp/repaired\n  kv diff /tmp/s --at 2026-11-26T16:41:05Z"
    )]
    Diff {
        /// The first store.
        dir1: PathBuf,
        /// The second store.
        #[arg(required_unless_present = "at")]
        dir2: Option<PathBuf>,
        /// A past state of the first store: an LSN, a time with a zone, or a point.
        #[arg(long, value_parser = parse_target, value_name = "MOMENT")]
        at: Option<Target>,
    },
    /// List the files of a store: its segments, the manifest, and everything else.
    #[command(
        after_help = "The store must not be open elsewhere for writing. Damage is listed, too: see kv \
        verify. For the log engine only.\n\n\
        STATE is sealed (full), active (the log goes on here), spare (blank), archived (only past states \
        need it), torn (ends with bytes that a crash left), unnamed (the store does not need it), damaged \
        or missing. USED is the length of the header and the intact records. LIVE is the share of bytes \
        that belong to the newest value of a key.\n\n\
        Examples:\n  kv inspect /tmp/s\n  kv inspect --json /tmp/s"
    )]
    Inspect {
        /// The directory of the store, if --dir does not name it.
        #[arg(value_name = "DIR")]
        store: Option<PathBuf>,
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Print the records of the segment files, one in each line.
    #[command(after_help = "A line is SEGMENT, OFFSET, LSN, KIND, KEY and VALUE, separated by tabs, with \
        escapes (or with --hex, digits). KIND is put or delete, with + if the batch goes on in the next \
        record; or mark or seal, whose figures stand in place of the value. A line that starts with # \
        tells of damage. A dump needs no manifest. For the log engine only.\n\n\
        Examples:\n  kv dump /tmp/s\n  kv dump /tmp/s --segment 2a\n  kv dump /tmp/s --lsn 100..200")]
    Dump {
        /// The directory of the store, if --dir does not name it.
        #[arg(value_name = "DIR")]
        store: Option<PathBuf>,
        /// Only this segment: its id, hexadecimal as in the name of its file.
        #[arg(long, value_parser = parse_segment)]
        segment: Option<u64>,
        /// Only changes with these LSNs: A..B with both ends, A.. or ..B, or one LSN.
        #[arg(long, value_parser = parse_lsns, value_name = "A..B")]
        lsn: Option<RangeInclusive<u64>>,
    },
    /// Print each change of a store, also an open one, as it reaches the files.
    #[command(
        after_help = "A line is LSN, KIND, KEY and VALUE, separated by tabs, as in a dump; a + behind KIND \
        says that the batch goes on in the next line. With --json, it is \
        {\"key\":K,\"kind\":\"put\",\"lsn\":N,\"more\":false,\"value\":V}. K and V are as in kv export, or digits \
        with --hex. A delete has the value null. Changes come in the order of LSNs, each once.\n\n\
        A change reaches the files once the writer has written it there. The persistence policy decides \
        when. It is durable at the latest once the writer has synced the file. So a printed change may be \
        lost in a power cut, but not by the death of the writer.\n\n\
        Without --from, the first line is the next change. LSNs that are in no segment any more are told on \
        stderr: follow closely, or keep a window of past states. With --no-follow, a damaged segment makes \
        the exit code 1. The files of up to 16 segments stay on the disk until the command has read them. \
        It takes no lock, and ends at Ctrl-C. For the log engine only.\n\n\
        Examples:\n  kv tail /tmp/s\n  kv tail /tmp/s --from 100\n  kv tail /tmp/s --no-follow | wc -l\n  \
        kv tail --json /tmp/s"
    )]
    Tail {
        /// The directory of the store, if --dir does not name it.
        #[arg(value_name = "DIR")]
        store: Option<PathBuf>,
        /// Begin with the change that has this LSN. 0: with the oldest one in the log.
        #[arg(long, value_name = "LSN")]
        from: Option<u64>,
        /// Print what is there, and end. Without --from, all that is in the log.
        #[arg(long)]
        no_follow: bool,
        /// JSON objects, one a line, instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Check every file of a store: every checksum and every reference. Never writes.
    #[command(after_help = "Exit codes: 0 sound, 1 damaged, 2 not checked (no store, open elsewhere for \
        writing, or not readable). Bytes that a crash left at the end of the log are no damage. For every \
        engine: it is recognised by its files.\n\n\
        Example:\n  kv verify /tmp/s && echo sound")]
    Verify {
        /// The directory of the store, if --dir does not name it.
        #[arg(value_name = "DIR")]
        store: Option<PathBuf>,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// List the shared memory of stores: undumped changes, which outlive the process.
    #[command(after_help = "A line is NAME, SIZE, STORE and STATE, separated by tabs. What waits for its \
        store holds changes that are in no file yet: open the store. The other states are: in use, the \
        store is gone, of an earlier boot, unreadable. For the log engine only.\n\n\
        Examples:\n  kv tails\n  kv tails --remove")]
    Tails {
        /// Remove the shared memory of stores that are gone, and of an earlier boot.
        #[arg(long)]
        remove: bool,
        /// JSON objects, one a line, instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Save every intact change of a damaged store into a new directory.
    #[command(after_help = "SRC stays as it is. The newest intact change of each key wins, a delete too. A \
        batch that lost a change is lost as a whole. The output names each damaged part, and the keys that \
        may be older than they were. While a repair is unfinished, DST holds a file REPAIR, and no command \
        opens it as a store. For the log engine only.\n\n\
        Exit codes: 0 done, also if something was lost; 1 not done.\n\n\
        Example:\n  kv repair /tmp/s /tmp/repaired")]
    Repair {
        /// The damaged store.
        src: PathBuf,
        /// The directory of the new store: missing or empty.
        dst: PathBuf,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Print every pair as JSON Lines, CSV or commands of Redis, for any bytes.
    #[command(after_help = EXPORT_FORMATS)]
    Export {
        /// The first bytes of the keys.
        #[arg(default_value = "", hide_default_value = true)]
        prefix: OsString,
        /// The format.
        #[arg(long, value_enum, default_value = "json")]
        format: Format,
    },
    /// Put every pair of an export from standard input into a store, which it creates if missing.
    #[command(after_help = IMPORT_HELP)]
    Import {
        /// The format.
        #[arg(long, value_enum, default_value = "json")]
        format: Format,
        /// Take an input that does not end with the line that export writes.
        #[arg(long)]
        no_end: bool,
    },
    /// Copy every pair of a store, of any engine, into a new one of --engine.
    #[command(
        after_help = "The copy is made in the directory TO.partial, which gets the name TO once it is \
        complete and durable.\n\n\
        Example:\n  kv copy --engine naive /tmp/s /tmp/n"
    )]
    Copy {
        /// The store to copy. Its engine is recognised by its files.
        from: PathBuf,
        /// The directory of the new store: missing or empty.
        to: PathBuf,
    },
    /// Write the manual pages of kv and of each command into a directory.
    #[command(after_help = "Examples:\n  kv man ~/.local/share/man/man1\n  man kv-restore")]
    Man {
        /// The directory. It is created if it is missing.
        #[arg(value_name = "DIR")]
        into: PathBuf,
    },
    /// Print the completions of a command interpreter.
    #[command(after_help = "Examples:\n  \
        kv completions bash > ~/.local/share/bash-completion/completions/kv\n  \
        kv completions zsh > \"${fpath[1]}/_kv\"\n  \
        kv completions fish > ~/.config/fish/completions/kv.fish")]
    Completions {
        /// The command interpreter.
        shell: Shell,
    },
}

impl Command {
    /// The directory of the store, if the command names it.
    fn store(&self) -> Option<&Path> {
        match self {
            Command::Points { store }
            | Command::Checkpoint { store }
            | Command::Plan { store, .. }
            | Command::Backup { store, .. }
            | Command::Stats { store, .. }
            | Command::Compact { store, .. }
            | Command::Inspect { store, .. }
            | Command::Dump { store, .. }
            | Command::Tail { store, .. }
            | Command::Verify { store, .. } => store.as_deref(),
            _ => None,
        }
    }
}

/// The format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON Lines: one object in each line.
    Json,
    /// Comma-separated values, as in RFC 4180.
    Csv,
    /// Commands in the protocol of Redis, as redis-cli --pipe takes them.
    Resp,
}

const EXPORT_FORMATS: &str = "json: one object in each line, {\"key\":K,\"value\":V}. K and V are strings, or \
    {\"base64\":B} for bytes that are not UTF-8. The last line is {\"end\":{\"pairs\":N}}.\n\
    csv: the columns key, value and encoding. The encoding is empty for text, or base64 for both key and \
    value. The last row is N,,end.\n\
    resp: the command SET key value for each pair, for redis-cli --pipe. The last command is ECHO of end N, \
    which changes nothing. An import takes no other commands.\n\n\
    Engines keep no order of keys.\n\n\
    Examples:\n  kv export --dir /tmp/s > s.jsonl\n  kv export --dir /tmp/s --format resp | redis-cli --pipe\n  kv export --format csv --dir /tmp/s user/ > users.csv";

const IMPORT_HELP: &str = "kv export --help describes the formats. A pair replaces the value of its key. Before \
    an error is told, every pair of the lines before it is durable. An input that does not end with the line \
    that export writes may be cut: an error tells how many pairs were taken. For an input of another tool, \
    add --no-end. Then CSV needs no header, either.\n\n\
    Examples:\n  kv import --dir /tmp/s < s.jsonl\n  kv import --dir /tmp/s --format csv --no-end < table.csv";

fn parse_segment(text: &str) -> Result<u64, String> {
    let digits = text.strip_suffix(".segment").unwrap_or(text);
    u64::from_str_radix(digits, 16)
        .map_err(|_| "a segment id is hexadecimal, as in the name of its file".to_owned())
}

fn parse_lsns(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |text: &str, missing| if text.is_empty() { Some(missing) } else { text.parse().ok() };
    let range = match text.split_once("..") {
        Some((from, to)) => number(from, 0).zip(number(to, u64::MAX)),
        None => text.parse().ok().map(|lsn| (lsn, lsn)),
    };
    match range {
        Some((from, to)) if from <= to => Ok(from..=to),
        _ => Err("write A..B with both ends, A.. or ..B, or one LSN".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use kv_core::LossWindow;
    use std::time::Duration;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn ranges_of_lsns() {
        for (text, expected) in [
            ("3..7", Some(3..=7)),
            ("3..", Some(3..=u64::MAX)),
            ("..7", Some(0..=7)),
            ("..", Some(0..=u64::MAX)),
            ("5", Some(5..=5)),
            ("7..3", None),
            ("", None),
            ("a..b", None),
            ("-1", None),
        ] {
            assert_eq!(parse_lsns(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn segments_are_named_as_their_files() {
        for (text, expected) in
            [("2a", Some(42)), ("000000000000002a.segment", Some(42)), ("x", None), ("", None)]
        {
            assert_eq!(parse_segment(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn periodic_is_what_its_help_says() {
        let window = Durability::Periodic.policy().loss_window();
        assert_eq!(window, LossWindow { bytes: Some(8 << 20), age: Some(Duration::from_millis(100)) });
    }
}
