//! The checks that several commands share.

use fault::{Fault, Reason};
use jiff::tz::TimeZone;

use super::Screening;
use crate::civil::time_zone;
use crate::token::check_etag;

/// Refuses a stale etag; an empty one is not checked.
pub(super) fn check_row_etag(row: &Screening, etag: &str) -> Result<(), Fault> {
    check_etag(etag, row.version).map_err(|fault| fault.about("Screening", row.id))
}

/// The zone of a booking that has or had a place: Hospital returned it with the place.
pub(super) fn zone_of(row: &Screening) -> Result<TimeZone, Fault> {
    let name = &row.terms.time_zone;
    time_zone(name).ok_or_else(|| Fault::internal(format!("{} has the time zone {name:?}", row.id)))
}

/// The refusal of a command that the row's state does not allow; `verb` is what it would have been.
pub(super) fn state_invalid(row: &Screening, verb: &str) -> Fault {
    let message = format!("the screening is {} and cannot be {verb}", row.state.name());
    Fault::new(Reason::ScreeningStateInvalid, message).with("screening", row.id).with("state", row.state.name())
}
