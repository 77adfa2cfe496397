//! The table on the terminal, and one self-contained HTML page with figures.

use crate::Failure;
use crate::results::Results;
use plotters::prelude::*;
use std::fmt::Write;

/// One line of a figure: a name and its points.
pub(crate) type Series = (String, Vec<(f64, f64)>);

/// A figure: what it shows, its axes, and how it was measured.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) method: String,
    pub(crate) series: Vec<Series>,
}

pub(crate) fn table(results: &Results) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["experiment", "engine", "parameters", "metric", "value", "unit", "spread"]);
    for row in &results.rows {
        table.add_row([
            &row.experiment,
            &row.engine,
            &row.parameters,
            &row.metric,
            &number(row.value),
            &row.unit,
            &number(row.spread),
        ]);
    }
    table.to_string()
}

fn number(value: f64) -> String {
    if value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

pub(crate) fn html(results: &Results, figures: &[Figure]) -> Result<String, Failure> {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Key-value engines compared</title><style>\
         body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}\
         figure{margin:2em 0}figcaption{color:#555;font-size:.9em}svg{width:100%;height:auto}\
         table{border-collapse:collapse;font-size:.85em;width:100%}td,th{padding:.2em .6em;border-bottom:1px solid #ddd;text-align:left}\
         td.n{text-align:right;font-variant-numeric:tabular-nums}</style></head><body>\n",
    );
    writeln!(
        page,
        "<h1>Key-value engines compared</h1><p>Version {}, seed {}, on {}. Every run was verified against a ground truth \
         before its figures counted.</p>",
        escape(&results.version),
        results.seed,
        escape(&results.machine)
    )?;
    for figure in figures {
        writeln!(
            page,
            "<figure>{}<figcaption>{}</figcaption></figure>",
            svg(figure)?,
            escape(&figure.method)
        )?;
    }
    page.push_str("<h2>All measurements</h2><table><tr><th>experiment<th>engine<th>parameters<th>metric<th>value<th>unit<th>repetitions<th>spread</tr>\n");
    for row in &results.rows {
        writeln!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td class=n>{}<td>{}<td class=n>{}<td class=n>{}</tr>",
            escape(&row.experiment),
            escape(&row.engine),
            escape(&row.parameters),
            escape(&row.metric),
            number(row.value),
            escape(&row.unit),
            row.repetitions,
            number(row.spread)
        )?;
    }
    page.push_str("</table></body></html>\n");
    Ok(page)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(23, 190, 207),
    RGBColor(127, 127, 127),
];

fn svg(figure: &Figure) -> Result<String, Failure> {
    let mut image = String::new();
    let points = || figure.series.iter().flat_map(|(_, points)| points);
    let x_max = points().map(|point| point.0).fold(1.0, f64::max);
    let y_max = points().map(|point| point.1).fold(1e-9, f64::max) * 1.1;
    {
        let root = SVGBackend::with_string(&mut image, (900, 420)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .caption(&figure.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(80)
            .build_cartesian_2d(0.0..x_max, 0.0..y_max)?;
        chart.configure_mesh().x_desc(figure.x).y_desc(figure.y).light_line_style(WHITE).draw()?;
        for ((name, points), colour) in figure.series.iter().zip(COLOURS.iter().cycle()) {
            let colour = *colour;
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(3)));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(200, 200, 200))
            .position(SeriesLabelPosition::UpperRight)
            .draw()?;
        root.present()?;
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_its_figures_and_rows() {
        let mut results = Results::new(5);
        results.add("fill", "log", "n=1", ("recovery", "ms"), &[3.0]);
        let figure = Figure {
            title: "Recovery".to_owned(),
            x: "keys",
            y: "ms",
            method: "a < b".to_owned(),
            series: vec![("log".to_owned(), vec![(1.0, 2.0), (2.0, 4.0)])],
        };
        let page = html(&results, &[figure]).unwrap();
        for expected in ["<svg", "Recovery", "a &lt; b", "<td>fill", "polyline"] {
            assert!(page.contains(expected), "{expected} is missing");
        }
        assert!(table(&results).contains("recovery"));
    }
}
