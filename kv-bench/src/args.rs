use clap::{Args as ClapArgs, Parser, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(name = "kv-bench", version, about = "Measures key-value engines against each other")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compare the log engine with the naive engine.
    #[command(after_help = "Examples:\n  \
        kv-bench compare                      the small study, under two minutes\n  \
        kv-bench compare --quick              the shortest form\n  \
        kv-bench compare --commands 500000 --value-len 500 --hit-rate 0.6")]
    Compare(Compare),
    /// One measured run; started by `compare`.
    #[command(hide = true)]
    Worker {
        /// The run, as JSON.
        run: String,
    },
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Compare {
    /// The shortest form: a tenth of the commands.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Commands of a mixed run.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) commands: u64,
    /// Length of values, bytes.
    #[arg(long, default_value_t = 500)]
    pub(crate) value_len: usize,
    /// Probability that a read's key is there.
    #[arg(long, default_value_t = 0.95)]
    pub(crate) hit_rate: f64,
    /// Share of keys that are hot, in the runs with hot keys.
    #[arg(long, default_value_t = 0.2)]
    pub(crate) hot_fraction: f64,
    /// Share of reads that go to hot keys.
    #[arg(long, default_value_t = 0.6)]
    pub(crate) hot_rate: f64,
    /// Share of reads in the runs over the number of commands; repeatable.
    #[arg(long, default_values_t = [0.2, 0.4, 0.6, 0.8])]
    pub(crate) read_fraction: Vec<f64>,
    /// Repetitions of runs whose median is reported.
    #[arg(long, default_value_t = 3)]
    pub(crate) repetitions: usize,
    /// Where all chance comes from.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where results.json and report.html go.
    #[arg(long, default_value = "target/kv-bench")]
    pub(crate) out: PathBuf,
}

impl Compare {
    /// Whether the numbers make sense together.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let shares = [
            ("--hit-rate", self.hit_rate),
            ("--hot-fraction", self.hot_fraction),
            ("--hot-rate", self.hot_rate),
        ];
        let fractions = self.read_fraction.iter().map(|fraction| ("--read-fraction", *fraction));
        for (name, share) in shares.into_iter().chain(fractions) {
            if !(0.0..=1.0).contains(&share) {
                return Err(format!("{name} is {share}, it must be between 0 and 1"));
            }
        }
        if self.hot_fraction > self.hot_rate {
            return Err(
                "--hot-fraction is above --hot-rate: hot keys would be colder than the others".to_owned()
            );
        }
        if self.commands < 100 || self.repetitions == 0 {
            return Err("--commands must be at least 100, and --repetitions at least 1".to_owned());
        }
        if !(16..=1 << 20).contains(&self.value_len) {
            return Err(format!("--value-len is {}, it must be from 16 to 1048576", self.value_len));
        }
        Ok(())
    }

    /// `full`, or a tenth of it in the shortest form.
    pub(crate) fn scaled(&self, full: u64) -> u64 {
        if self.quick { (full / 10).max(100) } else { full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<(), String> {
        let words = ["kv-bench", "compare"].iter().chain(words);
        match Args::try_parse_from(words).map_err(|error| error.to_string())?.command {
            Command::Compare(compare) => compare.validate(),
            Command::Worker { .. } => Err("not a comparison".to_owned()),
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        parse(&[]).unwrap();
        for (words, name) in [
            (["--hit-rate", "1.5"], "--hit-rate"),
            (["--hot-rate", "0.1"], "--hot-rate"),
            (["--commands", "0"], "--commands"),
            (["--value-len", "3"], "--value-len"),
            (["--read-fraction", "2"], "--read-fraction"),
            (["--fly", "1"], "--fly"),
        ] {
            let error = parse(&words).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }
}
