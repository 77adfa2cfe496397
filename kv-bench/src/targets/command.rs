//! Runs the experiments of a plan, prints the tables, and writes the results as JSON and Markdown.

use super::judge::{self, Judged, Verdict};
use super::{Plan, document};
use crate::args::TargetOptions;
use crate::experiment::Outcome;
use crate::failure::Failure;
use crate::lab::Lab;
use crate::process::scratch::write;
use crate::report::results::Results;
use crate::report::section::{self, Section, Table};
use crate::units;
use serde::Serialize;
use std::time::Duration;

/// The content of the JSON: the rows of `results.json`, and the targets.
#[derive(Debug, Serialize)]
struct JudgedResults<'a> {
    targets: &'a [Judged],
    #[serde(flatten)]
    results: &'a Results,
}

/// A run is as large as the options say.
const RUN_LIMIT: Duration = Duration::from_mins(20);

/// Measures, prints the tables, and writes them to `NAME.json` and `NAME.md`, after the command.
pub(crate) fn run(options: &TargetOptions, plan: Plan) -> Result<(), Failure> {
    let Plan { command, rows, experiments } = plan;
    let runs = experiments.iter().map(|experiment| experiment.cases.len() * experiment.repetitions).sum();
    let mut lab = Lab::open(&options.run, options.repetitions(), runs, RUN_LIMIT)?;
    let mut outcomes = Vec::new();
    for experiment in experiments {
        outcomes.extend(lab.run(&experiment.name.clone(), vec![experiment])?);
    }
    let results = lab.close()?;
    let series = judge::series(&outcomes);
    let judged: Vec<Judged> = rows.iter().map(|row| judge::judge(row, &series)).collect();
    let json = serde_json::to_string_pretty(&JudgedResults { targets: &judged, results: &results })? + "\n";
    write(&options.run.out.join(format!("{command}.json")), &json)?;
    let targets = document::targets(&judged);
    let markdown = document::markdown(&results.header, &summary(&judged), &targets);
    write(&options.run.out.join(document::file(command)), &markdown)?;
    let mut sections = vec![section("Targets", targets)];
    sections.extend(outcomes.iter().map(medians));
    print!("{}", section::text(&results, &sections));
    println!(
        "{}\nEvery run was verified against a ground truth. {:.0} s in all; every figure in {}/{command}.json",
        summary(&judged),
        results.header.duration_s,
        options.run.out.display()
    );
    Ok(())
}

fn section(title: &str, table: Table) -> Section {
    Section { title: title.to_owned(), method: String::new(), table, figures: Vec::new() }
}

/// A table of the medians of all values.
fn medians(outcome: &Outcome) -> Section {
    let mut subjects: Vec<_> = outcome.subjects().collect();
    subjects.sort_by_key(|(subject, _)| *subject);
    let mut metrics: Vec<&str> = Vec::new();
    for metric in subjects.iter().flat_map(|(_, runs)| runs.names()) {
        if !metrics.contains(&metric) {
            metrics.push(metric);
        }
    }
    let mut table = Table::new(std::iter::once("medians").chain(metrics.iter().copied()));
    for (subject, runs) in outcome.subjects() {
        // The median of no values is NaN, which is a dash in the table.
        let cells = metrics.iter().map(|metric| units::number(runs.median(metric)));
        table.push(std::iter::once(subject.to_owned()).chain(cells));
    }
    section(&outcome.experiment.name, table)
}

/// `3 pass, 1 miss, 2 not measured, 6 without target`.
fn summary(judged: &[Judged]) -> String {
    let count = |is: fn(&Verdict) -> bool| judged.iter().filter(|judged| is(&judged.verdict)).count();
    format!(
        "{} pass, {} miss, {} not measured, {} without target",
        count(|verdict| *verdict == Verdict::Pass),
        count(|verdict| *verdict == Verdict::Miss),
        count(|verdict| matches!(verdict, Verdict::NotMeasured(_))),
        count(|verdict| *verdict == Verdict::Reported),
    )
}
