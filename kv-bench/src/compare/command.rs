//! Runs the experiments section by section, and writes the reports.

use super::{kill, mixed, over_commands, persistence, recovery, speed};
use crate::args::Compare;
use crate::experiment::{Experiment, Outcome};
use crate::failure::Failure;
use crate::lab::Lab;
use crate::process::scratch::write;
use crate::report::page;
use crate::report::results::Results;
use crate::report::section::{self, Section};
use std::time::Duration;

/// One section of the report.
struct Part {
    title: &'static str,
    /// Its experiments.
    plan: fn(&Compare) -> Result<Vec<Experiment>, Failure>,
    /// Its text, table and figures; adds derived rows to the results.
    report: fn(&Compare, &[Outcome], &mut Results) -> Section,
}

const PARTS: [Part; 6] = [
    Part { title: "speed in memory", plan: speed::plan, report: speed::report },
    Part {
        title: "throughput and memory over commands",
        plan: over_commands::plan,
        report: over_commands::report,
    },
    Part { title: "mixed workloads", plan: mixed::plan, report: mixed::report },
    Part { title: "time to persist", plan: persistence::plan, report: persistence::report },
    Part { title: "recovery", plan: recovery::plan, report: recovery::report },
    Part { title: "kill -9", plan: kill::plan, report: kill::report },
];

/// A run ends after seconds by itself.
const RUN_LIMIT: Duration = Duration::from_mins(2);

/// Measures, prints the tables, and writes `results.json` and `report.html`.
pub(crate) fn run(options: &Compare) -> Result<(), Failure> {
    let plans = PARTS.iter().map(|part| (part.plan)(options)).collect::<Result<Vec<_>, _>>()?;
    let runs = plans.iter().flatten().map(|experiment| experiment.cases.len() * experiment.repetitions).sum();
    let mut lab = Lab::open(&options.run, options.repetitions(), runs, RUN_LIMIT)?;
    let mut sections = Vec::new();
    for (part, plan) in PARTS.iter().zip(plans) {
        let outcomes = lab.run(part.title, plan)?;
        sections.push((part.report)(options, &outcomes, &mut lab.results));
    }
    let results = lab.close()?;
    write(&options.run.out.join("results.json"), &results.to_json()?)?;
    write(&options.run.out.join("report.html"), &page::html(&results, &sections)?)?;
    print!("{}", section::text(&results, &sections));
    println!(
        "Every run was verified against a ground truth. {:.0} s in all; figures in {out}/report.html, every row in \
         {out}/results.json",
        results.header.duration_s,
        out = options.run.out.display()
    );
    Ok(())
}
