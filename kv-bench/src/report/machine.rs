//! The machine of a measurement.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// The machine, by the system's own account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory: String,
    pub(crate) system: String,
    /// Type of the stores' file system.
    pub(crate) file_system: String,
}

impl Machine {
    /// This machine, with stores in `dir`.
    pub(crate) fn this(dir: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |path: &str, name: &str| {
            let text = read(path);
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
        };
        Machine {
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            memory: field("/proc/meminfo", "MemTotal"),
            system: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            file_system: file_system(&read("/proc/mounts"), dir).unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Machine { processor, cores, memory, system, file_system } = self;
        write!(f, "{processor}, {cores} cores, {memory} memory, {system}, stores on {file_system}")
    }
}

/// The type of the innermost mount that holds `dir`; of several there, the last.
fn file_system(mounts: &str, dir: &Path) -> Option<String> {
    let dir = std::path::absolute(dir).ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        Some((Path::new(words.next()?), words.next()?))
    });
    let holding = mounts.filter(|(place, _)| dir.starts_with(place));
    holding.max_by_key(|(place, _)| place.components().count()).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/deep xfs rw 0 0\n";
        for (dir, kind) in [("/home", "ext4"), ("/tmp/x", "tmpfs"), ("/tmp/deep/x", "xfs"), ("/tmpx", "ext4")]
        {
            assert_eq!(file_system(mounts, Path::new(dir)).as_deref(), Some(kind));
        }
        assert_eq!(file_system("", Path::new("/")), None);
    }
}
