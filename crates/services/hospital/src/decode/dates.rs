//! Decodes rules that name several dates.

use std::collections::BTreeSet;

use contract::google::r#type::DayOfWeek;
use contract::hospital::v1::{DateRange, DateRepetition};
use domain::civil::decode_date;
use fault::{Reason, Violations};
use jiff::ToSpan;
use jiff::civil::{Date, Weekday};

use super::{MAX_SLOTS, required, too_many, too_many_dates};

/// The most days of the week that a rule lists.
const MAX_DAYS: usize = 7;

/// Reads the dates that a first date and a rule name, in order: the first date alone if there is no rule. `path` is the
/// rule's, for violations.
pub(super) fn repeated(
    violations: &mut Violations,
    path: &str,
    first: Option<Date>,
    rule: Option<&DateRepetition>,
) -> Option<Vec<Date>> {
    let Some(DateRepetition { end_date, days_of_week }) = rule else { return first.map(|date| vec![date]) };
    let field = format!("{path}.end_date");
    let end = decode_date(violations, &field, *end_date);
    let span = first.zip(end).filter(|(first, end)| {
        let length = (*end - *first).get_days();
        let fits = usize::try_from(length).is_ok_and(|length| (1..=MAX_SLOTS).contains(&length));
        if !fits {
            let description = format!("must be 1..{MAX_SLOTS} days after {first}, is {length}: it is not included");
            violations.add(field, Reason::FieldInvalid, description);
        }
        fits
    });
    let days = weekdays(violations, &format!("{path}.days_of_week"), days_of_week);
    let ((first, end), days) = span.zip(days)?;
    let dates = first.series(1.day()).take_while(|date| *date < end);
    Some(dates.filter(|date| days.contains(&number(date.weekday()))).collect())
}

/// The days of a rule, by their numbers in the contract. An empty list is every day.
fn weekdays(violations: &mut Violations, path: &str, listed: &[i32]) -> Option<BTreeSet<i32>> {
    if listed.len() > MAX_DAYS {
        let description = format!("must have at most {MAX_DAYS} entries, has {}", listed.len());
        violations.add(path, Reason::FieldInvalid, description);
        return None;
    }
    let days: BTreeSet<i32> = listed.iter().copied().collect();
    let mut complete = days.len() == listed.len();
    if !complete {
        violations.add(path, Reason::FieldInvalid, "must not have a day twice");
    }
    for (i, day) in listed.iter().enumerate() {
        if !matches!(DayOfWeek::try_from(*day), Ok(known) if known != DayOfWeek::Unspecified) {
            violations.add(format!("{path}[{i}]"), Reason::FieldInvalid, "must be a day from MONDAY to SUNDAY");
            complete = false;
        }
    }
    complete.then(|| if days.is_empty() { (1..=7).collect() } else { days })
}

/// The contract counts the days of a week from 1 for Monday.
fn number(day: Weekday) -> i32 {
    day.to_monday_one_offset().into()
}

/// Reads the dates of ranges, each once.
pub(super) fn dates_of(violations: &mut Violations, ranges: &[DateRange]) -> Option<BTreeSet<Date>> {
    const FIELD: &str = "ranges";
    if ranges.is_empty() {
        required(violations, FIELD);
        return None;
    }
    if too_many(violations, FIELD, ranges.len()) {
        return None;
    }
    let mut complete = true;
    let mut dates = BTreeSet::new();
    for (i, DateRange { start_date, repeat }) in ranges.iter().enumerate() {
        let first = decode_date(violations, &format!("{FIELD}[{i}].start_date"), *start_date);
        let named = repeated(violations, &format!("{FIELD}[{i}].repeat"), first, repeat.as_ref());
        complete &= named.is_some();
        dates.extend(named.into_iter().flatten());
    }
    (complete && !too_many_dates(violations, FIELD, dates.len())).then_some(dates)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn on(date: Date) -> Option<contract::google::r#type::Date> {
        Some(domain::civil::encode_date(date))
    }

    fn range(first: Date, end: Date, days: &[DayOfWeek]) -> DateRange {
        let days_of_week = days.iter().map(|day| *day as i32).collect();
        DateRange { start_date: on(first), repeat: Some(DateRepetition { end_date: on(end), days_of_week }) }
    }

    fn read(listed: &[DateRange]) -> Result<Vec<String>, Vec<String>> {
        let mut violations = Violations::new();
        let dates = dates_of(&mut violations, listed);
        let read = violations.finish_with(dates.map(|dates| dates.iter().map(ToString::to_string).collect()));
        read.map_err(|fault| fault.violations().iter().map(|violation| violation.field.clone()).collect())
    }

    #[test]
    fn a_rule_names_its_days_from_the_first_date_to_before_the_end() {
        let (monday, end) = (date(2027, 1, 4), date(2027, 1, 18));
        let weekend = [DayOfWeek::Saturday, DayOfWeek::Sunday];
        let dates = read(&[range(monday, end, &weekend), DateRange { start_date: on(monday), repeat: None }]);
        assert_eq!(dates.unwrap(), ["2027-01-04", "2027-01-09", "2027-01-10", "2027-01-16", "2027-01-17"]);
        assert_eq!(read(&[range(monday, end, &[])]).unwrap().len(), 14);
        // across the end of February in a leap year, and a rule that names no date at all
        assert_eq!(read(&[range(date(2028, 2, 28), date(2028, 3, 2), &[])]).unwrap().len(), 3);
        assert_eq!(read(&[range(monday, date(2027, 1, 5), &[DayOfWeek::Friday])]).unwrap(), [""; 0]);
    }

    #[test]
    fn every_wrong_rule_is_named() {
        let monday = date(2027, 1, 4);
        let twice = [DayOfWeek::Monday, DayOfWeek::Monday];
        let wrong = read(&[
            range(monday, monday, &[]),
            range(monday, date(2028, 1, 6), &[]),
            range(monday, date(2027, 2, 1), &twice),
            range(monday, date(2027, 2, 1), &[DayOfWeek::Unspecified, DayOfWeek::Monday, DayOfWeek::Unspecified]),
            DateRange::default(),
        ]);
        let fields = [
            "ranges[0].repeat.end_date",
            "ranges[1].repeat.end_date",
            "ranges[2].repeat.days_of_week",
            "ranges[3].repeat.days_of_week",
            "ranges[3].repeat.days_of_week[0]",
            "ranges[3].repeat.days_of_week[2]",
            "ranges[4].start_date",
        ];
        assert_eq!(wrong.unwrap_err(), fields);
        assert_eq!(read(&[]).unwrap_err(), ["ranges"]);
        let years = [range(monday, date(2028, 1, 5), &[]), range(date(2029, 1, 1), date(2029, 1, 2), &[])];
        assert_eq!(read(&years).unwrap_err(), ["ranges"], "367 dates");
        assert_eq!(read(&years[..1]).unwrap().len(), 366);
    }
}
