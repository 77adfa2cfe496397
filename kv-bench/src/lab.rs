//! Runs experiments, each run in a process of its own, and collects the results.

use crate::args::RunOptions;
use crate::experiment::{Case, Experiment, Outcome, Runs};
use crate::failure::Failure;
use crate::process::scratch::{Scratch, create_dir};
use crate::process::{Measured, Run, child};
use crate::report::results::{Header, Results};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// The place where experiments run.
pub(crate) struct Lab {
    pub(crate) results: Results,
    scratch: Scratch,
    run_limit: Duration,
    bar: ProgressBar,
    start: Instant,
}

impl Lab {
    /// A lab for `runs` runs. A run that takes longer than `run_limit` hangs.
    pub(crate) fn open(
        options: &RunOptions,
        repetitions: usize,
        runs: usize,
        run_limit: Duration,
    ) -> Result<Self, Failure> {
        let RunOptions { seed, quick, out, dir, .. } = options;
        create_dir(out)?;
        let scratch = Scratch::new(dir.as_ref().unwrap_or(out))?;
        let results = Results::new(Header::new(*seed, *quick, repetitions, scratch.path()));
        // A progress bar shows itself on a terminal only.
        let bar = ProgressBar::new(runs as u64);
        if let Ok(style) = ProgressStyle::with_template("[{elapsed}] {bar:24} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_secs(1));
        Ok(Lab { results, scratch, run_limit, bar, start: Instant::now() })
    }

    /// Runs experiments, and records their values, and their duration under `title`.
    pub(crate) fn run(&mut self, title: &str, experiments: Vec<Experiment>) -> Result<Vec<Outcome>, Failure> {
        let begin = Instant::now();
        let mut outcomes = Vec::new();
        for experiment in experiments {
            let outcome = self.take_turns(title, experiment)?;
            outcome.record(&mut self.results);
            outcomes.push(outcome);
        }
        self.results.header.experiment_s.insert(title.to_owned(), begin.elapsed().as_secs_f64());
        Ok(outcomes)
    }

    /// Runs each case as often as the experiment says. The order turns with each repetition, so
    /// that a slow moment of the machine does not always meet the same subject.
    fn take_turns(&mut self, title: &str, experiment: Experiment) -> Result<Outcome, Failure> {
        let cases = &experiment.cases;
        let mut runs = vec![Runs::default(); cases.len()];
        for repetition in 0..experiment.repetitions {
            for turn in 0..cases.len() {
                let at = (turn + repetition) % cases.len();
                let (Some(case), Some(runs)) = (cases.get(at), runs.get_mut(at)) else { continue };
                self.bar.set_message(format!("{title}: {}", case.subject));
                let mut measured = self.run_once(case, repetition, experiment.warm_bytes)?;
                if !experiment.metrics.is_empty() {
                    let named = experiment.metrics.iter();
                    let named = named.filter_map(|(from, to)| Some(((*to).to_owned(), measured.get(from)?)));
                    measured.values = named.collect();
                }
                runs.0.push(measured);
                self.bar.inc(1);
            }
        }
        Ok(Outcome { experiment, runs })
    }

    fn run_once(&mut self, case: &Case, repetition: usize, warm_bytes: u64) -> Result<Measured, Failure> {
        let run = Run {
            task: case.task.to_owned(),
            input: case.input.clone(),
            dir: self.scratch.next_dir()?,
            repetition: repetition as u64,
            warm_bytes,
        };
        let measured = child::measure(&run, self.run_limit)?;
        Scratch::remove(&run.dir)?;
        Ok(measured)
    }

    /// Removes all stores, and returns the results.
    pub(crate) fn close(mut self) -> Result<Results, Failure> {
        self.bar.finish_and_clear();
        self.scratch.close()?;
        self.results.header.duration_s = self.start.elapsed().as_secs_f64();
        Ok(self.results)
    }
}
