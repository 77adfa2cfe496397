//! One self-contained HTML page with figures and tables.

use super::figure::Figure;
use super::results::Results;
use super::section::{Section, Table, is_number};
use crate::failure::Failure;
use crate::units;
use std::fmt::Write;

const STYLE: &str = "body{font:16px/1.55 system-ui,-apple-system,'Segoe UI',sans-serif;max-width:62rem;\
margin:2.5rem auto;padding:0 1.25rem;color:#222;background:#fff}\
h1{font-size:1.7rem;margin-bottom:.3rem}h2{font-size:1.3rem;margin-top:3rem;border-top:1px solid #ddd;padding-top:1.5rem}\
h3{font-size:1rem;margin:0 0 .3rem}figure{margin:1.5rem 0 2.5rem}figcaption,.method{color:#555;font-size:.9rem}\
svg.plot{width:100%;height:auto}.legend{font-size:.85rem;margin:0 0 .3rem;padding:0;list-style:none}\
.legend li{display:inline-block;margin-right:1.3em;white-space:nowrap}.legend svg{vertical-align:middle;margin-right:.4em}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.84rem;font-variant-numeric:tabular-nums;margin:1rem 0}\
td,th{padding:.25em .7em;border-bottom:1px solid #e4e4e4;text-align:left;vertical-align:bottom}th{border-bottom:2px solid #bbb}\
.n{text-align:right}.warning{background:#fff3cd;padding:.6em 1em}summary{cursor:pointer}";

/// The page. A browser fetches nothing for it.
pub(crate) fn html(results: &Results, sections: &[Section]) -> Result<String, Failure> {
    let header = &results.header;
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Key-value engines compared</title>\
         <style>{STYLE}</style></head><body>\n<h1>Key-value engines compared</h1>\n\
         <p class=method>kv-bench {}, seed {}, measured in {:.0} s on {}. Every run was verified against a ground truth \
         before its figures counted. Values are medians; the brackets name the policy: when an engine writes to \
         disk.</p>\n",
        escape(&header.version),
        header.seed,
        header.duration_s,
        escape(&header.machine.to_string())
    );
    if !header.optimized {
        page.push_str(
            "<p class=warning>Measured with an unoptimized build: these figures mean nothing.</p>\n",
        );
    }
    if header.quick {
        page.push_str("<p class=warning>The shortest form: a quarter of everything, once.</p>\n");
    }
    for section in sections {
        let _ = writeln!(page, "<section><h2>{}</h2>", escape(&section.title));
        for figure in &section.figures {
            push_figure(&mut page, figure, section, results)?;
        }
        push_table(&mut page, &section.table);
        if section.figures.is_empty() {
            let _ = writeln!(page, "<p class=method>{}</p>", escape(&section.method));
        }
        page.push_str("</section>\n");
    }
    push_rows(&mut page, results);
    page.push_str("</body></html>\n");
    Ok(page)
}

fn push_figure(
    page: &mut String,
    figure: &Figure,
    section: &Section,
    results: &Results,
) -> Result<(), Failure> {
    let _ = writeln!(page, "<figure><h3>{}</h3><ul class=legend>", escape(&figure.title));
    for entry in figure.legend() {
        let dashes = if entry.dashed { " stroke-dasharray=\"7 4\"" } else { "" };
        let _ = writeln!(
            page,
            "<li><svg width=28 height=8><line x1=0 y1=4 x2=28 y2=4 stroke=\"{}\" stroke-width=4{dashes} /></svg>{}</li>",
            entry.colour,
            escape(&entry.name)
        );
    }
    // The SVG keeps its aspect ratio; the style sheet gives it the page's width.
    let svg = figure.svg()?.replacen("<svg ", "<svg class=\"plot\" role=\"img\" ", 1);
    let _ = writeln!(
        page,
        "</ul>{svg}<figcaption>{} Seed {}; {}.</figcaption></figure>",
        escape(&section.method),
        results.header.seed,
        escape(&results.header.machine.to_string())
    );
    Ok(())
}

fn push_table(page: &mut String, table: &Table) {
    page.push_str("<div class=wide><table><tr>");
    for name in &table.header {
        let _ = write!(page, "<th>{}", escape(name));
    }
    page.push_str("</tr>\n");
    for row in &table.rows {
        page.push_str("<tr>");
        for cell in row {
            let _ = write!(page, "<td{}>{}", if is_number(cell) { " class=n" } else { "" }, escape(cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

/// All measurements, folded.
fn push_rows(page: &mut String, results: &Results) {
    let _ =
        writeln!(page, "<h2>All measurements</h2><details><summary>{} rows</summary>", results.rows.len());
    let mut table = Table::new([
        "experiment",
        "engine",
        "parameters",
        "metric",
        "median",
        "least",
        "most",
        "unit",
        "runs",
    ]);
    for row in &results.rows {
        let parameters: Vec<String> =
            row.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        table.push([
            row.experiment.clone(),
            row.engine.clone(),
            parameters.join(" "),
            row.metric.clone(),
            units::number(row.value),
            units::number(row.min),
            units::number(row.max),
            row.unit.clone(),
            row.repetitions.to_string(),
        ]);
    }
    push_table(page, &table);
    page.push_str("</details>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::{results, section};
    use super::*;

    #[test]
    fn the_page_holds_its_figures_captions_and_rows() {
        let results = results::tests::sample();
        let page = html(&results, &[section::tests::sample()]).unwrap();
        assert_eq!(page.matches("<figure>").count(), 3);
        assert_eq!(page.matches("class=\"plot\"").count(), 3);
        assert_eq!(page.matches("<figcaption>Killed &amp; opened again. Seed 1; ").count(), 3);
        for expected in ["<h2>Recovery</h2>", "<td class=n>2.0", "a &lt; b", "stroke-dasharray", "2 rows"] {
            assert!(page.contains(expected), "{expected} is missing");
        }
        for fetched in ["<script", "<link", "src=", "@import", "url("] {
            assert!(!page.contains(fetched), "the page fetches {fetched}");
        }
    }
}
