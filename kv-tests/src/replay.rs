use crate::Settings;
use std::path::Path;

/// The parts of the command that replays a failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replay<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) scenario: Option<&'a str>,
    pub(crate) manifest_dir: &'a Path,
    pub(crate) target: &'a str,
    pub(crate) case: &'a str,
}

impl Replay<'_> {
    /// The command for a shell in the directory `shell_dir`: `PWD` in the environment.
    ///
    /// Cargo runs a test in the directory of its package, so the process's own directory says
    /// nothing about the reader. The package may lie outside the workspace of that directory, so
    /// the command names the manifest instead of the package.
    pub(crate) fn line(&self, shell_dir: Option<&Path>) -> String {
        let Replay { settings, scenario, manifest_dir, target, case } = *self;
        let scenario = scenario.map_or_else(String::new, |line| format!("KV_TESTS_SCENARIO='{line}' "));
        let relative = shell_dir.and_then(|shell_dir| manifest_dir.strip_prefix(shell_dir).ok());
        let manifest = match relative {
            Some(path) if path.as_os_str().is_empty() => String::new(),
            path => {
                let path = path.unwrap_or(manifest_dir).join("Cargo.toml");
                format!("--manifest-path {} ", quoted(&path.display().to_string()))
            }
        };
        format!("{settings} {scenario}cargo test {manifest}--test {target} -- --exact {case}")
    }
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:,@%".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_fits_the_directory_of_the_shell() {
        let settings = Settings::default();
        let replay = Replay {
            settings: &settings,
            scenario: None,
            manifest_dir: Path::new("/code/kv/examples/tiny-engine"),
            target: "conformance",
            case: "own::required_x",
        };
        let absolute = "--manifest-path /code/kv/examples/tiny-engine/Cargo.toml ";
        for (shell_dir, manifest) in [
            (Some("/code/kv"), "--manifest-path examples/tiny-engine/Cargo.toml "),
            (Some("/code/kv/examples/"), "--manifest-path tiny-engine/Cargo.toml "),
            (Some("/code/kv/examples/tiny-engine"), ""),
            (Some("/code/kv/examples/tiny-engine/src"), absolute),
            (Some("/code/k"), absolute),
            (Some(""), absolute),
            (None, absolute),
        ] {
            let line = replay.line(shell_dir.map(Path::new));
            let expected = format!("cargo test {manifest}--test conformance -- --exact own::required_x");
            assert_eq!(line, format!("KV_TESTS_SEED=1 KV_TESTS_EFFORT=1 {expected}"), "in {shell_dir:?}");
        }
    }

    #[test]
    fn a_scenario_and_an_unusual_path_are_one_word_each() {
        let settings = Settings::default();
        let replay = Replay {
            settings: &settings,
            scenario: Some("always p1:9 / cut 3 death"),
            manifest_dir: Path::new("/my code/it's"),
            target: "t",
            case: "c",
        };
        let line = replay.line(None);
        assert!(line.contains(" KV_TESTS_SCENARIO='always p1:9 / cut 3 death' cargo test "), "{line}");
        assert!(line.contains(r"--manifest-path '/my code/it'\''s/Cargo.toml' "), "{line}");
    }
}
