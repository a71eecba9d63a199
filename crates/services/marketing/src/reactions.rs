//! Reactions to the events of Hospital and Screening: both are folded into demand, each by a consumer of its own.

use std::time::Duration;

use domain::demand::{hospital_subjects, screening_subjects};
use relay::{Consumer, Projector};

/// The durable consumer of Hospital's events.
pub(crate) const HOSPITAL: &str = "marketing-hospital";
/// The durable consumer of Screening's events.
pub(crate) const SCREENING: &str = "marketing-screening";

/// The pace of both consumers. People and plans read demand, and 100 ms make no difference to them.
const PACE: Duration = Duration::from_millis(100);

/// The consumers that this service declares.
pub(crate) fn consumers(projector: &Projector) -> Vec<Consumer> {
    vec![
        projector.consumer(HOSPITAL, hospital_subjects(), Some(PACE)),
        projector.consumer(SCREENING, screening_subjects(), Some(PACE)),
    ]
}
