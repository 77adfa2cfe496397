//! Figures as inline SVG.

use crate::failure::Failure;
use crate::units;
use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use plotters::series::DashedLineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Series under one title, with named axes.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) title: String,
    /// Name of the axis, with its unit.
    pub(crate) x: String,
    /// Name of the axis, with its unit.
    pub(crate) y: String,
    pub(crate) kind: Kind,
    pub(crate) series: Vec<Series>,
}

/// The form of a figure.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Lines through the points.
    Lines,
    /// Lines over named places 0, 1, …, on a logarithmic axis.
    Percentiles(Vec<String>),
    /// A bar for each series, with its name below. Its one point is the value and the largest
    /// value.
    Bars,
}

/// One line or bar.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// Place in the palette; without one, the series' own place counts.
    colour: Option<usize>,
    dashed: bool,
}

impl Series {
    pub(crate) fn new(name: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Series { name: name.to_owned(), points: points.into_iter().collect(), colour: None, dashed: false }
    }

    /// With a place in the palette, and a solid or dashed line.
    pub(crate) fn styled(self, colour: usize, dashed: bool) -> Self {
        Series { colour: Some(colour), dashed, ..self }
    }

    fn colour(&self, place: usize) -> RGBColor {
        let place = self.colour.unwrap_or(place) % PALETTE.len();
        PALETTE.get(place).copied().unwrap_or(BLACK)
    }
}

/// Colours that colour-blind readers tell apart (Okabe and Ito, "Color universal design", 2008),
/// dark ones first.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

const WIDTH: u32 = 860;
const HEIGHT: u32 = 380;
const GRID: RGBColor = RGBColor(228, 228, 228);
const TEXT: RGBColor = RGBColor(70, 70, 70);

/// One entry of a legend.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LegendEntry {
    pub(crate) name: String,
    /// In the notation of CSS and SVG.
    pub(crate) colour: String,
    pub(crate) dashed: bool,
}

impl Figure {
    /// One entry for each line. Bars carry their names and need none.
    pub(crate) fn legend(&self) -> Vec<LegendEntry> {
        if matches!(self.kind, Kind::Bars) {
            return Vec::new();
        }
        let entry = |(place, series): (usize, &Series)| {
            let RGBColor(red, green, blue) = series.colour(place);
            LegendEntry {
                name: series.name.clone(),
                colour: format!("rgb({red},{green},{blue})"),
                dashed: series.dashed,
            }
        };
        self.series.iter().enumerate().map(entry).collect()
    }

    /// The figure without title and legend.
    pub(crate) fn svg(&self) -> Result<String, Failure> {
        let mut image = String::new();
        {
            let area = SVGBackend::with_string(&mut image, (WIDTH, HEIGHT)).into_drawing_area();
            self.draw(&area).map_err(|error| Failure::Draw(format!("{}: {error}", self.title)))?;
            area.present().map_err(|error| Failure::Draw(error.to_string()))?;
        }
        Ok(image)
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Box<dyn std::error::Error>> {
        area.fill(&WHITE)?;
        match &self.kind {
            Kind::Lines => {
                let chart = builder(area).build_cartesian_2d(
                    0.0..self.largest(|point| point.0),
                    0.0..self.largest(|p| p.1) * 1.05,
                )?;
                self.lines(chart, 10, &units::tick)
            }
            Kind::Percentiles(names) => {
                let chart = builder(area).build_cartesian_2d(
                    -0.2..names.len() as f64 - 0.8,
                    (self.smallest() / 1.5..self.largest(|point| point.1) * 1.5).log_scale(),
                )?;
                // The axis also has labels between the places, which stay empty.
                let name = |at: f64| {
                    let here = |place: usize| (place as f64 - at).abs() < 0.01;
                    names
                        .iter()
                        .enumerate()
                        .find(|(place, _)| here(*place))
                        .map_or("", |(_, name)| name)
                        .to_owned()
                };
                self.lines(chart, names.len() + 1, &name)
            }
            Kind::Bars => {
                let chart = builder(area).build_cartesian_2d(
                    0.0..self.series.len() as f64,
                    0.0..self.largest(|point| point.1) * 1.1,
                )?;
                self.bars(chart)
            }
        }
    }

    /// The grid and the vertical axis, the same in all figures.
    fn mesh<'chart, 'lent, 'svg, X, Y>(
        &self,
        chart: &'lent mut ChartContext<'chart, SVGBackend<'svg>, Cartesian2d<X, Y>>,
    ) -> MeshStyle<'chart, 'lent, X, Y, SVGBackend<'svg>>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(TEXT)
            .y_desc(&self.y)
            .label_style(label())
            .y_label_formatter(&|y| units::tick(*y));
        mesh
    }

    fn lines<X, Y>(
        &self,
        mut chart: ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
        x_labels: usize,
        x_label: &dyn Fn(f64) -> String,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        self.mesh(&mut chart)
            .x_desc(&self.x)
            .x_labels(x_labels)
            .x_label_formatter(&|x| x_label(*x))
            .draw()?;
        for (place, series) in self.series.iter().enumerate() {
            let style = series.colour(place).stroke_width(2);
            let points = series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
            if series.dashed {
                chart.draw_series(DashedLineSeries::new(points.clone(), 7, 4, style))?;
            } else {
                chart.draw_series(LineSeries::new(points.clone(), style))?;
            }
            if series.points.len() <= 10 {
                chart
                    .draw_series(points.map(|point| Circle::new(point, 3, series.colour(place).filled())))?;
            }
        }
        Ok(())
    }

    fn bars<X, Y>(
        &self,
        mut chart: ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        self.mesh(&mut chart).disable_x_axis().draw()?;
        let centred = |size, vertical| {
            ("sans-serif", size).into_font().color(&TEXT).pos(Pos::new(HPos::Center, vertical))
        };
        let name_style = centred(13, VPos::Top);
        for (place, series) in self.series.iter().enumerate() {
            let (left, colour) = (place as f64, series.colour(place));
            let middle = left + 0.5;
            // `engine (policy)`, on two lines.
            let name = series.name.trim_end_matches(')').split(" (").enumerate();
            for (line, words) in name {
                let below = if line == 0 { 8 } else { 24 };
                let name = Text::new(words.to_owned(), (0, below), name_style.clone());
                chart.draw_series([EmptyElement::at((middle, 0.0)) + name])?;
            }
            let Some((value, most)) = series.points.first().copied().filter(|(value, _)| value.is_finite())
            else {
                continue;
            };
            chart.draw_series([Rectangle::new([(left + 0.2, 0.0), (left + 0.8, value)], colour.filled())])?;
            for line in [[(middle, value), (middle, most)], [(middle - 0.08, most), (middle + 0.08, most)]] {
                chart.draw_series([PathElement::new(line, TEXT.stroke_width(2))])?;
            }
            let value = Text::new(units::number(value), (0, -5), centred(15, VPos::Bottom));
            chart.draw_series([EmptyElement::at((middle, most)) + value])?;
        }
        Ok(())
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.series.iter().flat_map(|series| series.points.iter().copied())
    }

    fn largest(&self, of: fn((f64, f64)) -> f64) -> f64 {
        let largest = self.points().map(of).filter(|value| value.is_finite()).fold(0.0, f64::max);
        if largest > 0.0 { largest } else { 1.0 }
    }

    /// Smallest value above zero.
    fn smallest(&self) -> f64 {
        let smallest = self.points().map(|(_, y)| y).filter(|y| *y > 0.0).fold(f64::INFINITY, f64::min);
        if smallest.is_finite() { smallest } else { 0.1 }
    }
}

fn label() -> TextStyle<'static> {
    ("sans-serif", 15).into_font().color(&TEXT)
}

fn builder<'a, 'b>(area: &'a DrawingArea<SVGBackend<'b>, Shift>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder.margin(10).margin_right(24).x_label_area_size(48).y_label_area_size(70);
    builder
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One figure of each kind.
    pub(crate) fn samples() -> Vec<Figure> {
        let figure = |kind, series| Figure {
            title: "Title".to_owned(),
            x: "keys".to_owned(),
            y: "ms".to_owned(),
            kind,
            series,
        };
        let line = [(0.0, 2.0), (1.0, 40.0), (2.0, 3.0)];
        let names = ["p50", "p90", "max"].map(str::to_owned).to_vec();
        vec![
            figure(Kind::Lines, vec![Series::new("log", line), Series::new("naive", line).styled(0, true)]),
            figure(Kind::Percentiles(names), vec![Series::new("log", line)]),
            figure(Kind::Bars, vec![Series::new("log", [(0.0, 0.0)]), Series::new("b", [(3.0, 9.0)])]),
        ]
    }

    #[test]
    fn each_kind_is_drawn_with_text() {
        for figure in samples() {
            let svg = figure.svg().unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            assert!(svg.contains("<text") && svg.contains("ms"), "{svg}");
            assert!(svg.contains("polyline") || svg.contains("rect"));
        }
        assert!(samples()[1].svg().unwrap().contains("p90"));
    }

    #[test]
    fn nothing_measured_is_drawn_as_nothing() {
        for mut figure in samples() {
            figure.series.iter_mut().for_each(|series| series.points.clear());
            figure.svg().unwrap();
            figure.series = vec![Series::new("nan", [(f64::NAN, f64::NAN)])];
            figure.svg().unwrap();
        }
    }

    #[test]
    fn the_legend_matches_the_lines() {
        let legend = samples()[0].legend();
        assert_eq!(legend[0].colour, legend[1].colour);
        assert!(!legend[0].dashed && legend[1].dashed && legend[1].name == "naive");
    }
}
