//! Verdicts for machines: a line of JSON for each case, and the list of known failures.

use crate::{Case, CaseResult, Explored, Level, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Where verdicts go beside the output of the test binary.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    report: Option<Mutex<File>>,
    ratchet: Option<Ratchet>,
}

/// The end of a case.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended<'a> {
    Result(&'a CaseResult),
    Skipped(&'a str),
}

impl Verdicts {
    /// As `KV_TESTS_REPORT`, `KV_TESTS_RATCHET` and `KV_TESTS_RATCHET_ACCEPT` say.
    ///
    /// # Errors
    /// Names the file that cannot be opened or read, or the entry that names no case.
    pub(crate) fn from_env(cases: &[Case]) -> Result<Self, String> {
        let path = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let report = path("KV_TESTS_REPORT").map(|path| {
            #[expect(clippy::disallowed_methods, reason = "the suite's own report, not a store")]
            let file = File::options().create(true).append(true).open(&path);
            file.map(Mutex::new).map_err(|error| format!("KV_TESTS_REPORT: {}: {error}", path.display()))
        });
        let accepts = std::env::var("KV_TESTS_RATCHET_ACCEPT").is_ok_and(|text| text == "1");
        let ratchet = path("KV_TESTS_RATCHET").map(|path| Ratchet::read(path, accepts, cases));
        Ok(Verdicts { report: report.transpose()?, ratchet: ratchet.transpose()? })
    }

    /// Adds a line to the report.
    pub(crate) fn record(
        &self,
        case: &Case,
        settings: &Settings,
        ended: Ended<'_>,
        took: Duration,
        explored: &Explored,
    ) {
        let Some(report) = &self.report else { return };
        let (verdict, reason) = match ended {
            Ended::Result(Ok(())) => ("passed", None),
            Ended::Result(Err(failure)) => ("failed", Some(("violated", failure.violated()))),
            Ended::Skipped(reason) => ("skipped", Some(("reason", reason))),
        };
        let mut line = serde_json::json!({
            "id": case.id,
            "level": case.level.as_str(),
            "verdict": verdict,
            "seed": settings.seed,
            "effort": settings.effort,
            "duration_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "explored": {
                "histories": explored.histories(),
                "crash_states": explored.crash_states(),
                "faults": explored.faults(),
                "damages": explored.damages(),
            },
        });
        if let (Some((name, text)), Some(fields)) = (reason, line.as_object_mut()) {
            fields.insert(name.to_owned(), text.into());
        }
        // One write for each line: other processes may append to the same file.
        let line = format!("{line}\n");
        let _ = report.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }

    /// The result of a case in the light of the known failures.
    ///
    /// # Errors
    /// The failure, unless it is known; a complaint, if a known failure does not happen any more.
    pub(crate) fn judge(&self, case: &Case, result: CaseResult) -> CaseResult {
        match &self.ratchet {
            Some(ratchet) => ratchet.judge(case, result),
            None => result,
        }
    }

    /// Writes the list of known failures, if the run was told to. Returns a line about the list.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub(crate) fn end(&self) -> Result<Option<String>, String> {
        self.ratchet.as_ref().map(Ratchet::end).transpose()
    }
}

/// The list of known failures: a file with an id in each line.
#[derive(Debug)]
struct Ratchet {
    path: PathBuf,
    known: BTreeSet<String>,
    /// Whether the run rewrites the list instead of judging by it.
    accepts: bool,
    /// The cases that ran, and whether they passed.
    ran: Mutex<BTreeMap<&'static str, bool>>,
}

impl Ratchet {
    fn read(path: PathBuf, accepts: bool, cases: &[Case]) -> Result<Self, String> {
        #[expect(clippy::disallowed_methods, reason = "the suite's own list, not a store")]
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if accepts && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(format!(
                    "KV_TESTS_RATCHET: {}: {error}; KV_TESTS_RATCHET_ACCEPT=1 writes it",
                    path.display()
                ));
            }
        };
        let lines = text.lines().map(str::trim);
        let known: BTreeSet<String> =
            lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect();
        match known.iter().find(|id| cases.iter().all(|case| case.id != id.as_str())) {
            Some(id) if !accepts => {
                Err(format!("KV_TESTS_RATCHET: {} lists {id}, which names no case", path.display()))
            }
            _ => Ok(Ratchet { path, known, accepts, ran: Mutex::default() }),
        }
    }

    fn judge(&self, case: &Case, result: CaseResult) -> CaseResult {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner).insert(case.id, result.is_ok());
        match result {
            _ if self.accepts => Ok(()),
            Err(_) if self.known.contains(case.id) => Ok(()),
            // A stochastic case may pass by luck.
            Ok(()) if self.known.contains(case.id) && case.level != Level::Stochastic => {
                Err(crate::Failure::new(format!(
                    "the engine passes this case, and {} lists it as a known failure: remove the line, or run with KV_TESTS_RATCHET_ACCEPT=1",
                    self.path.display()
                )))
            }
            result => result,
        }
    }

    fn end(&self) -> Result<String, String> {
        if !self.accepts {
            return Ok(format!("{} lists {} known failures", self.path.display(), self.known.len()));
        }
        let ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        let stays = |id: &&String| !ran.contains_key(id.as_str());
        let failed = ran.iter().filter(|(_, passed)| !**passed).map(|(id, _)| (*id).to_owned());
        let now: BTreeSet<String> = self.known.iter().filter(stays).cloned().chain(failed).collect();
        let mut text =
            "# Known failures of kv-tests. KV_TESTS_RATCHET_ACCEPT=1 rewrites this list.\n".to_owned();
        for id in &now {
            text.extend([id.as_str(), "\n"]);
        }
        #[expect(clippy::disallowed_methods, reason = "the suite's own list, not a store")]
        std::fs::write(&self.path, text)
            .map_err(|error| format!("KV_TESTS_RATCHET: {}: {error}", self.path.display()))?;
        Ok(format!(
            "{} lists {} known failures now, {} before",
            self.path.display(),
            now.len(),
            self.known.len()
        ))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of the tool, not of an engine")]
mod tests {
    use super::*;
    use crate::{Failure, all_cases};

    fn cases() -> [Case; 3] {
        let all = all_cases();
        [all[0], all[1], *all.iter().find(|case| case.level == Level::Stochastic).unwrap()]
    }

    #[test]
    fn a_known_failure_passes_and_a_fixed_one_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ratchet");
        let [first, second, lucky] = cases();
        std::fs::write(&path, format!("# a comment\n{}\n\n{}\n", first.id, lucky.id)).unwrap();
        let ratchet = Ratchet::read(path.clone(), false, &cases()).unwrap();
        let failed = || Err(Failure::new("it fails"));
        ratchet.judge(&first, failed()).unwrap();
        assert!(ratchet.judge(&first, Ok(())).unwrap_err().violated().contains("passes this case"));
        assert_eq!(ratchet.judge(&second, failed()).unwrap_err().violated(), "it fails");
        ratchet.judge(&second, Ok(())).unwrap();
        ratchet.judge(&lucky, Ok(())).unwrap();
        assert!(ratchet.end().unwrap().ends_with("2 known failures"));

        std::fs::write(&path, "model::no_such_case\n").unwrap();
        let complaint = Ratchet::read(path.clone(), false, &cases()).unwrap_err();
        assert!(complaint.contains("names no case"), "{complaint}");
    }

    #[test]
    fn accepting_lists_what_failed_and_keeps_what_did_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ratchet");
        assert!(Ratchet::read(path.clone(), false, &cases()).unwrap_err().contains("ACCEPT=1 writes it"));
        let [first, second, third] = cases();
        std::fs::write(&path, format!("{}\n{}\n", first.id, third.id)).unwrap();
        let ratchet = Ratchet::read(path.clone(), true, &cases()).unwrap();
        ratchet.judge(&first, Ok(())).unwrap();
        ratchet.judge(&second, Err(Failure::new("it fails"))).unwrap();
        assert!(ratchet.end().unwrap().ends_with("2 known failures now, 2 before"));
        let ratchet = Ratchet::read(path, false, &cases()).unwrap();
        assert_eq!(ratchet.known, BTreeSet::from([second.id.to_owned(), third.id.to_owned()]));
    }

    #[test]
    fn a_line_of_the_report_is_json() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report");
        let file = File::options().create(true).append(true).open(&path).unwrap();
        let verdicts = Verdicts { report: Some(Mutex::new(file)), ratchet: None };
        let (settings, explored) = (Settings::default(), Explored::default());
        let record =
            |ended| verdicts.record(&cases()[0], &settings, ended, Duration::from_millis(7), &explored);
        record(Ended::Result(&Ok(())));
        let failed = Err(Failure::new("a \"quoted\"\nfailure"));
        record(Ended::Result(&failed));
        record(Ended::Skipped("needs simulated_fs"));
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            (lines.len(), &lines[0]["verdict"], &lines[0]["duration_ms"]),
            (3, &"passed".into(), &7.into())
        );
        assert_eq!(lines[1]["violated"], "a \"quoted\"\nfailure");
        assert_eq!(
            (&lines[2]["reason"], &lines[2]["level"]),
            (&"needs simulated_fs".into(), &"required".into())
        );
    }
}
