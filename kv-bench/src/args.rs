//! The command line.

use crate::load::{KEY_LEN_MAX, LEN_MIN, Mix, Shape, VALUE_LEN_MAX};
use crate::subjects::SubjectName;
use clap::{Args as ClapArgs, Parser, Subcommand};
use std::path::PathBuf;

/// Measures key-value engines against each other.
#[derive(Debug, Parser)]
#[command(name = "kv-bench", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compare the log-structured engine with the hash table with snapshots, and both with a
    /// volatile table.
    #[command(after_help = "Examples:\n  \
        kv-bench compare                               the evaluation, under two minutes\n  \
        kv-bench compare --quick                       its shortest form\n  \
        kv-bench compare --engines log --repetitions 5 one engine, measured more often\n  \
        kv-bench compare --commands 500000 --read-fraction 0.2,0.8 --hit-rate 0.6\n\n\
        Repeats each run 3 times, or once with --quick, which also quarters everything.\n\
        Writes report.html and results.json to the output directory. Verifies every run against a\n\
        ground truth; if one is wrong, it reports nothing.\n\
        Exit codes: 0 done, 1 a run failed or an engine is wrong, 2 wrong usage.")]
    Compare(Compare),
    /// Measure the log-structured engine against volatile tables, foreign stores and itself, and
    /// judge each figure by its target.
    #[command(after_help = "Examples:\n  \
        kv-bench engine                        every row, about an hour\n  \
        kv-bench engine --quick                a check that everything runs; its figures mean nothing\n  \
        kv-bench engine --only fill            the rows whose names contain \"fill\"\n  \
        kv-bench engine --only \"500 B, 2 threads\" --only synced\n\n\
        Repeats each run 5 times, or twice with --quick.\n\
        Measures foreign stores if compiled in: --features peers, and --features rocksdb.\n\
        Writes engine.json and engine.md to the output directory. A missed target is a result, not a failure.\n\
        Exit codes: 0 done, 1 a run failed or a subject is wrong, 2 wrong usage.")]
    Engine(TargetOptions),
    /// Measure past states, restores, backups and repairs of the log engine, and judge each figure
    /// by its target.
    #[command(after_help = "Examples:\n  \
        kv-bench moments                       every row, some minutes\n  \
        kv-bench moments --quick               a check that everything runs; its figures mean nothing\n  \
        kv-bench moments --only restore        the rows whose names contain \"restore\"\n\n\
        Repeats each run 5 times, or twice with --quick.\n\
        Writes moments.json and moments.md to the output directory. A missed target is a result, not a failure.\n\
        Exit codes: 0 done, 1 a run failed or the engine is wrong, 2 wrong usage.")]
    Moments(TargetOptions),
    /// Put the results of the last `engine` and `moments` into a document, in place of earlier
    /// ones.
    #[command(after_help = "Example:\n  \
        kv-bench publish docs/performance.md\n\n\
        The results replace everything between the two lines\n  \
        <!-- results of kv-bench engine -->\n  \
        <!-- end of the results -->\n\
        and those of moments everything after <!-- results of kv-bench moments -->. Results that are\n\
        not in the directory stay as they are.")]
    Publish {
        /// The Markdown document.
        document: PathBuf,
        /// Directory with the results.
        #[arg(long, default_value = "target/kv-bench")]
        out: PathBuf,
    },
    /// One run in a process of its own; the other commands start it.
    #[command(hide = true)]
    Worker {
        /// The run, as JSON.
        run: String,
    },
}

#[derive(Clone, Debug, ClapArgs)]
#[command(allow_negative_numbers = true)]
pub(crate) struct Compare {
    /// Engines to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "log,naive")]
    pub(crate) engines: Vec<SubjectName>,
    /// Commands of a mixed run, and of a run over the number of commands.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub(crate) commands: u64,
    /// Length of keys, bytes.
    #[arg(long, default_value_t = 24, value_parser = key_len)]
    pub(crate) key_len: usize,
    /// Length of values, bytes. (Speed in memory always uses 100 and 500.)
    #[arg(long, default_value_t = 500, value_parser = value_len)]
    pub(crate) value_len: usize,
    /// Shares of reads in the runs over the number of commands.
    #[arg(long, value_delimiter = ',', default_value = "0.2,0.4,0.6,0.8", value_parser = share)]
    pub(crate) read_fraction: Vec<f64>,
    /// Probability that a read finds its key.
    #[arg(long, default_value_t = 0.95, value_parser = share)]
    pub(crate) hit_rate: f64,
    /// Share of keys that are hot, in the runs with hot keys.
    #[arg(long, default_value_t = 0.2, value_parser = share)]
    pub(crate) hot_fraction: f64,
    /// Share of hitting reads that go to hot keys, in those runs.
    #[arg(long, default_value_t = 0.6, value_parser = share)]
    pub(crate) hot_rate: f64,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

/// Most bytes of keys and values that a run may put. More would only fill the machine.
const RUN_BYTES_MAX: u64 = 2 << 30;

impl Compare {
    /// Whether the options make sense together.
    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.hot_fraction > self.hot_rate {
            return Err(format!(
                "--hot-fraction is {}, above --hot-rate {}: hot keys would be colder than the others",
                self.hot_fraction, self.hot_rate
            ));
        }
        if self
            .engines
            .iter()
            .enumerate()
            .any(|(at, engine)| self.engines.iter().skip(at + 1).any(|e| e == engine))
        {
            return Err("--engines names an engine twice".to_owned());
        }
        let bytes = self.scaled(self.commands) * (self.key_len + self.value_len) as u64;
        if bytes > RUN_BYTES_MAX {
            return Err(format!(
                "--commands times the length of a pair is {bytes} bytes, above the limit of {RUN_BYTES_MAX}; \
                 lower --commands or --value-len"
            ));
        }
        Ok(())
    }

    /// `full`, or a quarter of it in the shortest form.
    pub(crate) fn scaled(&self, full: u64) -> u64 {
        if self.run.quick { full.div_ceil(4) } else { full }
    }

    /// Repetitions of each run.
    pub(crate) fn repetitions(&self) -> usize {
        self.run.repetitions_or(1, 3)
    }

    /// Whether the options name an engine.
    pub(crate) fn has(&self, engine: SubjectName) -> bool {
        self.engines.contains(&engine)
    }

    /// The form of the pairs.
    pub(crate) fn shape(&self) -> Shape {
        Shape { key_len: self.key_len, value_len: self.value_len, seed: self.run.seed }
    }

    /// A workload, with hot keys or without.
    pub(crate) fn mix(&self, read_fraction: f64, hot: bool) -> Mix {
        let (hot_fraction, hot_rate) = if hot { (self.hot_fraction, self.hot_rate) } else { (0.0, 0.0) };
        Mix {
            shape: self.shape(),
            commands: self.scaled(self.commands),
            read_fraction,
            hit_rate: self.hit_rate,
            hot_fraction,
            hot_rate,
        }
    }
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct TargetOptions {
    /// Keys of a store; some rows use several times as many, or a fraction. [default: 1000000;
    /// with --quick 20000]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    pub(crate) keys: Option<u64>,
    /// Kills under each policy. [default: 300; with --quick 3]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    kills: Option<u64>,
    /// Measure only the rows whose names contain this text; repeatable.
    #[arg(long, value_name = "ROW")]
    pub(crate) only: Vec<String>,
    #[command(flatten)]
    pub(crate) run: RunOptions,
}

impl TargetOptions {
    /// Keys of a store.
    pub(crate) fn keys(&self) -> u64 {
        self.keys.unwrap_or(if self.run.quick { 20_000 } else { 1_000_000 })
    }

    /// Kills under each policy.
    pub(crate) fn kills(&self) -> u64 {
        self.kills.unwrap_or(if self.run.quick { 3 } else { 300 })
    }

    /// Repetitions of each run.
    pub(crate) fn repetitions(&self) -> usize {
        self.run.repetitions_or(2, 5)
    }

    /// Whether the options name this row.
    pub(crate) fn asks_for(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| row.contains(word.as_str()))
    }
}

/// The options of every command that measures.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct RunOptions {
    /// The shortest form: smaller stores, fewer repetitions.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Repetitions of each run; their medians count.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    repetitions: Option<u64>,
    /// Seed of all random choices.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Directory for the results.
    #[arg(long, default_value = "target/kv-bench")]
    pub(crate) out: PathBuf,
    /// Directory for the stores during the measurements: some hundred MB for `compare`, some GB for
    /// the others; they are removed at the end. [default: the output directory]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}

impl RunOptions {
    fn repetitions_or(&self, quick: usize, full: usize) -> usize {
        let default = if self.quick { quick } else { full };
        self.repetitions.map_or(default, |repetitions| usize::try_from(repetitions).unwrap_or(default))
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "it must be a number between 0 and 1".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("it must be between 0 and 1".to_owned()) }
}

fn key_len(text: &str) -> Result<usize, String> {
    len(text, KEY_LEN_MAX)
}

fn value_len(text: &str) -> Result<usize, String> {
    len(text, VALUE_LEN_MAX)
}

fn len(text: &str, max: usize) -> Result<usize, String> {
    let len = text.parse().ok().filter(|len| (LEN_MIN..=max).contains(len));
    len.ok_or_else(|| format!("it must be a number of bytes from {LEN_MIN} to {max}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(words: &[&str]) -> Result<Compare, String> {
        let words = ["kv-bench", "compare"].iter().chain(words);
        match Args::try_parse_from(words).map_err(|error| error.to_string())?.command {
            Command::Compare(compare) => compare.validate().map(|()| compare),
            Command::Engine(_) | Command::Moments(_) | Command::Publish { .. } | Command::Worker { .. } => {
                Err("not a comparison".to_owned())
            }
        }
    }

    /// Options from a command line.
    pub(crate) fn options(words: &[&str]) -> Compare {
        parse(words).unwrap()
    }

    /// Options of a command with targets.
    pub(crate) fn target_options(words: &[&str]) -> TargetOptions {
        match Args::try_parse_from(["kv-bench"].iter().chain(words)).unwrap().command {
            Command::Engine(options) | Command::Moments(options) => options,
            _ => panic!("the words name a command with targets"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults_and_the_shortest_form() {
        let default = options(&[]);
        assert_eq!(default.engines, [SubjectName::Log, SubjectName::Naive]);
        assert_eq!(default.read_fraction, [0.2, 0.4, 0.6, 0.8]);
        assert_eq!((default.repetitions(), default.scaled(1000)), (3, 1000));
        let quick = options(&["--quick"]);
        assert_eq!((quick.repetitions(), quick.scaled(1000), quick.scaled(5)), (1, 250, 2));
        assert_eq!(options(&["--quick", "--repetitions", "2"]).repetitions(), 2);
        let one = options(&["--engines", "naive", "--read-fraction", "0,1"]);
        assert!(one.has(SubjectName::Naive) && !one.has(SubjectName::Log));
        assert_eq!(one.read_fraction, [0.0, 1.0]);
    }

    #[test]
    fn a_part_of_a_name_selects_a_row() {
        let all = target_options(&["engine"]);
        assert_eq!((all.keys(), all.kills(), all.repetitions()), (1_000_000, 300, 5));
        assert!(all.asks_for("anything"));
        let words = ["moments", "--quick", "--only", "fill, 100 B", "--only", "get uniform"];
        let some = target_options(&words);
        assert_eq!((some.keys(), some.kills(), some.repetitions()), (20_000, 3, 2));
        assert_eq!(target_options(&["engine", "--quick", "--kills", "7"]).kills(), 7);
        assert!(some.asks_for("get uniform, 500 B") && some.asks_for("fill, 100 B"));
        assert!(!some.asks_for("get zipfian, 100 B") && !some.asks_for("fill, 500 B"));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for words in [
            ["--hit-rate", "1.5"],
            ["--hit-rate", "NaN"],
            ["--hot-rate", "0.1"],
            ["--hot-fraction", "-0.1"],
            ["--hot-fraction", "0.7"],
            ["--read-fraction", "0.2,2"],
            ["--commands", "0"],
            ["--commands", "9999999"],
            ["--value-len", "3"],
            ["--value-len", "2000000"],
            ["--key-len", "65"],
            ["--repetitions", "0"],
            ["--engines", "fast"],
            ["--engines", "log,naive,log"],
            ["--seed", "-1"],
            ["--fly", "1"],
        ] {
            let error = parse(&words).unwrap_err();
            let name = words[0];
            assert!(error.contains(name), "{words:?}: {error}");
        }
    }
}
