//! Plots of the curves as SVG.

use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

use crate::section::Curve;
use crate::series::figure;
use crate::{Error, Section};

const SIZE: (u32, u32) = (720, 420);
/// Blue, orange, green and purple: distinct in print and for people who do not see all colours.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 90, 181), RGBColor(220, 90, 0), RGBColor(0, 130, 90), RGBColor(140, 60, 150)];

/// The title and the labels of the axes.
struct Edges {
    title: String,
    x: &'static str,
    x_steps: &'static [f64],
    y: &'static str,
}

/// The steps of an axis within a power of ten.
const DECADE: &[f64] = &[1.0, 2.0, 5.0];
/// The steps of an axis whose values double.
const DOUBLED: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0];

/// The labelled values of an axis: the steps, repeated for every power of ten if they are [`DECADE`].
fn keys(range: &std::ops::Range<f64>, steps: &[f64]) -> Vec<f64> {
    let powers = if steps == DECADE { -4..8 } else { 0..1 };
    let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
    all.filter(|key| range.contains(key)).collect()
}

/// The plots of a section: the end of each file name, and the SVG.
pub(crate) fn plots(section: &Section) -> Result<Vec<(String, String)>, Error> {
    let there = section.topology;
    let [rates, latencies] = &section.curves;
    let edges = |title: &str, x, x_steps, y| Edges { title: format!("{title}, {there}"), x, x_steps, y };
    let mut plots = Vec::new();
    if !rates.is_empty() {
        let edges = edges("Rate against callers", "callers, each with one call under way", DOUBLED, "calls a second");
        plots.push((format!("rate-{there}.svg"), draw(&edges, rates)?));
    }
    if !latencies.is_empty() {
        let edges = edges("Latency against rate", "calls a second, each at its time", DECADE, "milliseconds");
        plots.push((format!("latency-{there}.svg"), draw(&edges, latencies)?));
    }
    Ok(plots)
}

fn draw(edges: &Edges, curves: &[Curve]) -> Result<String, Error> {
    let mut text = String::new();
    drawn(&mut text, edges, curves).map_err(|error| Error::failed(format!("cannot draw a plot: {error}")))?;
    Ok(text)
}

type Drawing = Result<(), Box<dyn std::error::Error>>;

fn drawn(text: &mut String, edges: &Edges, curves: &[Curve]) -> Drawing {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let of = |pick: fn(&(f64, f64)) -> f64| {
        let values = curves.iter().flat_map(|curve| &curve.points).map(pick).filter(|value| *value > 0.0);
        let (low, high) =
            values.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| (low.min(value), high.max(value)));
        low.min(high)..high * 1.2
    };
    let (x, y) = (of(|point| point.0), of(|point| point.1));
    let mut chart = ChartBuilder::on(&root)
        .caption(&edges.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(
            x.clone().log_scale().with_key_points(keys(&x, edges.x_steps)),
            y.clone().log_scale().with_key_points(keys(&y, DECADE)),
        )?;
    mesh(&mut chart, edges)?;
    for (index, curve) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<(f64, f64)> =
            curve.points.iter().copied().filter(|point| point.0 > 0.0 && point.1 > 0.0).collect();
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)).point_size(3))?
            .label(curve.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(("sans-serif", 13))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    root.present()?;
    Ok(())
}

fn mesh<X, Y>(chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>, edges: &Edges) -> Drawing
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let label = |value: &f64| figure(*value).trim_end_matches(".00").trim_end_matches(".0").to_owned();
    chart
        .configure_mesh()
        .x_desc(edges.x)
        .y_desc(edges.y)
        .light_line_style(BLACK.mix(0.05))
        .bold_line_style(BLACK.mix(0.12))
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .label_style(("sans-serif", 13))
        .draw()?;
    Ok(())
}
