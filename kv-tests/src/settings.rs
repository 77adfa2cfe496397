use std::env;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Effort, seed and timeout of a run, from the environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The source of all random draws: `KV_TESTS_SEED`. Default 1, so two runs are the same.
    pub seed: u64,
    /// Multiplies the number of histories, crash states and rounds: `KV_TESTS_EFFORT`. Default 1.0.
    pub effort: f64,
    /// A case that runs longer is reported as a deadlock: `KV_TESTS_TIMEOUT_S`. Default 300 s.
    pub timeout: Duration,
    /// A call of the engine that takes longer is reported as a deadlock: `KV_TESTS_CALL_TIMEOUT_S`.
    /// Default 20 s.
    pub call_timeout: Duration,
    /// The one scenario to run instead of a case's own work: `KV_TESTS_SCENARIO`, as a failure
    /// prints it.
    pub scenario: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            seed: 1,
            effort: 1.0,
            timeout: Duration::from_mins(5),
            call_timeout: Duration::from_secs(20),
            scenario: None,
        }
    }
}

impl Settings {
    /// The defaults, overridden by the environment.
    ///
    /// # Errors
    /// Names the variable whose value is not a number in range.
    pub fn from_env() -> Result<Self, String> {
        let default = Settings::default();
        let timeout_s = variable("KV_TESTS_TIMEOUT_S", default.timeout.as_secs())?;
        let call_timeout_s = variable("KV_TESTS_CALL_TIMEOUT_S", default.call_timeout.as_secs())?;
        let settings = Settings {
            seed: variable("KV_TESTS_SEED", default.seed)?,
            effort: variable("KV_TESTS_EFFORT", default.effort)?,
            timeout: Duration::from_secs(timeout_s),
            call_timeout: Duration::from_secs(call_timeout_s),
            scenario: env::var("KV_TESTS_SCENARIO").ok().filter(|line| !line.trim().is_empty()),
        };
        if settings.effort.is_finite() && settings.effort > 0.0 {
            Ok(settings)
        } else {
            Err(format!("KV_TESTS_EFFORT is {}, it must be above 0", settings.effort))
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KV_TESTS_SEED={} KV_TESTS_EFFORT={}", self.seed, self.effort)
    }
}

fn variable<T: FromStr + Copy>(name: &str, default: T) -> Result<T, String> {
    match env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name} is {text:?}, it must be a number")),
        Err(_) => Ok(default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_defaults_are_the_real_ones() {
        let settings = Settings::default();
        assert_eq!((settings.seed, settings.timeout.as_secs()), (1, 300));
        assert_eq!(settings.call_timeout.as_secs(), 20);
        assert_eq!(settings.to_string(), "KV_TESTS_SEED=1 KV_TESTS_EFFORT=1");
    }
}
