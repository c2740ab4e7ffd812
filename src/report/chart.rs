//! Line and scatter plots as inline SVG.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// One named set of points.
pub(super) struct Series {
    /// Legend text.
    pub(super) name: String,
    /// Points (x, y).
    pub(super) points: Vec<(f64, f64)>,
    /// Joined by a line, or single marks.
    pub(super) line: bool,
}

/// A plot's words and scales.
pub(super) struct Chart<'a> {
    /// Text under the x axis.
    pub(super) x: &'a str,
    /// Text beside the y axis.
    pub(super) y: &'a str,
    /// Whether y is logarithmic; points at or below zero are then left out.
    pub(super) log: bool,
}

// Okabe and Ito's palette, which people with colour-blindness can tell apart; line styles and the
// legend's order say the same again.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];
const SIZE: (u32, u32) = (620, 330);

type DrawError<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

/// The plot as an `<svg>` element, or nothing when there is no point to draw.
pub(super) fn draw(chart: &Chart<'_>, series: &[Series]) -> Option<String> {
    let shown = |&&(x, y): &&(f64, f64)| x.is_finite() && y.is_finite() && (!chart.log || y > 0.0);
    let series: Vec<Series> = series
        .iter()
        .map(|s| Series {
            name: s.name.clone(),
            points: s.points.iter().filter(shown).copied().collect(),
            line: s.line,
        })
        .filter(|s| !s.points.is_empty())
        .collect();
    let all = || series.iter().flat_map(|s| &s.points);
    let range = |pick: fn(&(f64, f64)) -> f64| {
        all().map(pick).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (x, y) = (range(|p| p.0), range(|p| p.1));
    if !x.0.is_finite() {
        return None;
    }
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let wide = |(low, high): (f64, f64)| {
            let margin = if high > low { (high - low) * 0.04 } else { high.abs().max(1.0) * 0.1 };
            low - margin..high + margin
        };
        let drawn = if chart.log {
            plot(&area, chart, &series, wide(x), (y.0 / 1.3..y.1 * 1.3).log_scale())
        } else {
            plot(&area, chart, &series, wide(x), wide(y))
        };
        drawn.expect("writing into a string cannot fail");
    }
    Some(svg)
}

fn plot<'a, Y>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    chart: &Chart<'_>,
    series: &[Series],
    x: std::ops::Range<f64>,
    y: Y,
) -> Result<(), DrawError<'a>>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut context = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(38)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    context
        .configure_mesh()
        .x_desc(chart.x)
        .y_desc(chart.y)
        .x_labels(8)
        .y_labels(7)
        .y_label_formatter(&short)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(("sans-serif", 12))
        .draw()?;
    for (index, one) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points = one.points.iter().copied();
        let drawn = if one.line {
            context.draw_series(LineSeries::new(points, colour.stroke_width(2)))?
        } else {
            context.draw_series(points.map(|point| Circle::new(point, 4, colour.filled())))?
        };
        let mark = one.line;
        drawn.label(&one.name).legend(move |(x, y)| {
            let height = if mark { 1 } else { 4 };
            Rectangle::new([(x + 2, y - height), (x + 16, y + height)], colour.filled())
        });
    }
    if series.len() > 1 {
        context
            .configure_series_labels()
            // Losses fall to the right and predictions rise: the free corner differs.
            .position(if chart.log {
                SeriesLabelPosition::UpperRight
            } else {
                SeriesLabelPosition::LowerRight
            })
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .label_font(("sans-serif", 12))
            .draw()?;
    }
    Ok(())
}

fn short(value: &f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e4).contains(&size) => format!("{value:.0e}"),
        size if size < 0.1 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}
