//! The results of one item: its figures, with a value per pair, and the data to judge them.

use serde_json::{Value, json};

use crate::load::Measured;
use crate::series::{Series, figure};
use crate::{Item, Topology};

/// A bound that the median of a figure must keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// The median is at least this.
    AtLeast(f64),
    /// The median is at most this.
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("≥ {}", figure(bound)),
            Self::AtMost(bound) => format!("≤ {}", figure(bound)),
        }
    }
}

/// A figure with one value per pair.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What the figure measures.
    pub name: String,
    /// The unit: `×`, `H` (the CPU time of a hello-world call), `µs`, `ms`, `s`, `MiB` or empty.
    pub unit: &'static str,
    /// One value per pair.
    pub values: Series,
    /// The goal of the median.
    pub goal: Option<Bound>,
    /// A bound that noise cannot explain. A figure whose best pair is beyond it is broken.
    pub limit: Option<Bound>,
}

impl Figure {
    /// A figure without a goal.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, values: Series) -> Self {
        Self { name: name.into(), unit, values, goal: None, limit: None }
    }

    pub(crate) fn goal(mut self, goal: Bound) -> Self {
        self.goal = Some(goal);
        self
    }

    pub(crate) fn limit(mut self, limit: Bound) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Whether the median meets the goal. Without a measurement it does not. `None` without a goal.
    #[must_use]
    pub fn met(&self) -> Option<bool> {
        self.goal.map(|goal| goal.holds(self.values.median()))
    }

    /// Whether not even the best pair keeps the limit. A figure without a measurement is not broken.
    #[must_use]
    pub fn broken(&self) -> bool {
        self.limit.is_some_and(|limit| {
            let best = match limit {
                Bound::AtLeast(_) => self.values.max(),
                Bound::AtMost(_) => self.values.min(),
            };
            !best.is_nan() && !limit.holds(best)
        })
    }

    /// The values with their unit, for people.
    #[must_use]
    pub fn text(&self) -> String {
        if self.unit.is_empty() { self.values.text() } else { format!("{} {}", self.values.text(), self.unit) }
    }

    /// The goal and whether it is met, for people; empty without a goal.
    #[must_use]
    pub fn verdict(&self) -> String {
        match (self.goal, self.met()) {
            (Some(goal), Some(true)) => format!("{}: met", goal.text()),
            (Some(goal), _) => format!("{}: not met", goal.text()),
            (None, _) => String::new(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "unit": self.unit, "values": self.values.json(), "met": self.met(),
            "goal": self.goal.map(Bound::text), "broken": self.broken(),
        })
    }
}

/// The measurements of one call, with a value per pair.
#[derive(Debug, Clone)]
pub struct Side {
    /// The call.
    pub name: String,
    /// The kind of loop, with its number of callers or its rate.
    pub load: String,
    /// Calls per second.
    pub rate: Series,
    /// The latency at p50, p99 and p99.9, in milliseconds.
    pub latency: [Series; 3],
    /// The number of calls that were refused, or could not be sent.
    pub refused: u64,
}

impl Side {
    pub(crate) fn new(name: impl Into<String>, load: impl Into<String>) -> Self {
        let (rate, latency) = (Series::default(), std::array::from_fn(|_| Series::default()));
        Self { name: name.into(), load: load.into(), rate, latency, refused: 0 }
    }

    pub(crate) fn push(&mut self, measured: &Measured) {
        self.rate.push(measured.rate());
        for (series, quantile) in self.latency.iter_mut().zip([0.5, 0.99, 0.999]) {
            series.push(measured.at(quantile));
        }
        self.refused += measured.refused + measured.unsent;
    }

    /// The latency at p99, in milliseconds.
    pub(crate) fn p99(&self) -> &Series {
        &self.latency[1]
    }

    fn json(&self) -> Value {
        let [p50, p99, p999] = &self.latency;
        json!({
            "name": self.name, "load": self.load, "rate": self.rate.json(), "p50_ms": p50.json(), "p99_ms": p99.json(),
            "p999_ms": p999.json(), "refused": self.refused,
        })
    }
}

/// A table whose rows are not pairs.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The title of the table; may be empty.
    pub title: String,
    /// The headings of the columns.
    pub header: Vec<String>,
    /// The cells of each row.
    pub rows: Vec<Vec<String>>,
}

/// One curve of a plot.
#[derive(Debug, Clone)]
pub struct Curve {
    /// The name in the legend.
    pub name: String,
    /// The points as x and y.
    pub points: Vec<(f64, f64)>,
}

/// The results of one item in one topology.
#[derive(Debug, Clone)]
pub struct Section {
    /// The measured item.
    pub item: Item,
    /// The topology of the services.
    pub topology: Topology,
    /// The figures, some with goals.
    pub figures: Vec<Figure>,
    /// The measurements that the figures are made of.
    pub sides: Vec<Side>,
    /// Further tables.
    pub rows: Vec<Rows>,
    /// Notes that explain the figures.
    pub notes: Vec<String>,
    /// Rate against callers, and latency against rate.
    pub curves: [Vec<Curve>; 2],
}

impl Section {
    pub(crate) fn new(item: Item, topology: Topology) -> Self {
        let (figures, sides, rows, notes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { item, topology, figures, sides, rows, notes, curves: [Vec::new(), Vec::new()] }
    }

    pub(crate) fn json(&self) -> Value {
        let rows = |rows: &Rows| json!({ "title": rows.title, "header": rows.header, "rows": rows.rows });
        let curve = |curve: &Curve| json!({ "name": curve.name, "points": curve.points });
        let curves = |curves: &[Curve]| curves.iter().map(curve).collect::<Vec<_>>();
        json!({
            "item": self.item.name(), "topology": self.topology.name(), "about": self.item.about(),
            "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
            "sides": self.sides.iter().map(Side::json).collect::<Vec<_>>(),
            "rows": self.rows.iter().map(rows).collect::<Vec<_>>(), "notes": self.notes,
            "rate_against_callers": curves(&self.curves[0]), "latency_against_rate": curves(&self.curves[1]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_judged_by_its_median() {
        let values: Series = [7.0, 9.0, 30.0].into_iter().collect();
        let figure = Figure::new("ratio", "×", values).goal(Bound::AtLeast(17.0)).limit(Bound::AtLeast(8.0));
        assert_eq!((figure.met(), figure.broken()), (Some(false), false));
        assert_eq!(figure.text(), "9.00 (7.00–30.0) ×");
        assert_eq!(figure.verdict(), "≥ 17.0: not met");
        let slow: Series = [2.0, 3.0].into_iter().collect();
        assert!(Figure::new("ratio", "×", slow).limit(Bound::AtLeast(8.0)).broken());
        let more = Figure::new("lag", "ms", [3.0].into_iter().collect()).limit(Bound::AtMost(2.0));
        assert!(more.broken() && more.met().is_none());
    }
}
