//! The values of one run's pairs, their median and their range.

use serde_json::{Value, json};

/// One value per pair, in order. NaN stands for a pair without a value and is left out of the statistics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series(Vec<f64>);

impl Series {
    /// Adds the value of the next pair.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The values in the order of the pairs.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted: Vec<f64> = self.0.iter().copied().filter(|value| !value.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The median; NaN without values.
    #[must_use]
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        }
    }

    /// The smallest value; NaN without values.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.sorted().first().copied().unwrap_or(f64::NAN)
    }

    /// The largest value; NaN without values.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.sorted().last().copied().unwrap_or(f64::NAN)
    }

    /// The ratio to another series, pair by pair. It is NaN if the other value is not positive.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        let ratio = |(one, other): (&f64, &f64)| if *other > 0.0 { one / other } else { f64::NAN };
        self.0.iter().zip(&other.0).map(ratio).collect()
    }

    /// The series as JSON, for scripts.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({ "median": self.median(), "min": self.min(), "max": self.max(), "values": self.0 })
    }

    /// The series for people: `12.3 (11.0–13.1)`, or the value alone if there is one.
    #[must_use]
    pub fn text(&self) -> String {
        match self.sorted().len() {
            0 => return "nothing measured".to_owned(),
            1 => return figure(self.median()),
            _ => {}
        }
        format!("{} ({}–{})", figure(self.median()), figure(self.min()), figure(self.max()))
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

/// A number with about three significant digits and commas between thousands.
#[must_use]
pub(crate) fn figure(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    rest.map_or_else(|| grouped.clone(), |rest| format!("{grouped}.{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_a_middle_and_two_ends() {
        let series: Series = [3.0, 1.0, 2.0].into_iter().collect();
        assert_eq!((series.median(), series.min(), series.max()), (2.0, 1.0, 3.0));
        let even: Series = [4.0, 1.0, 2.0, 3.0].into_iter().collect();
        assert_eq!(even.median(), 2.5);
        assert!(Series::default().median().is_nan());
        let halves: Series = [2.0, 1.0, 1.0].into_iter().collect();
        assert_eq!(series.over(&halves).values(), [1.5, 1.0, 2.0]);
        assert_eq!(series.text(), "2.00 (1.00–3.00)");
        let nothing: Series = [0.0, 0.0, 1.0].into_iter().collect();
        assert_eq!(series.over(&nothing).text(), "2.00");
        assert_eq!(series.over(&[0.0, 0.0, 0.0].into_iter().collect()).text(), "nothing measured");
    }

    #[test]
    fn figures_are_written_to_be_read() {
        let written = [0.1234, 1.234, 12.34, 123.4, 1234.5, -1_234_567.0].map(figure);
        assert_eq!(written, ["0.123", "1.23", "12.3", "123", "1,234", "-1,234,567"]);
    }
}
