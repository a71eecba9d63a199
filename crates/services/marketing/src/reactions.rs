//! The reaction to Hospital's and Screening's events: they are folded into the demand, each source at its own pace.

use std::time::Duration;

use domain::demand::{hospital_subjects, screening_subjects};
use relay::{Consumer, Projector};

/// The durable consumer of Hospital's events.
pub(crate) const HOSPITAL: &str = "marketing-hospital";
/// The durable consumer of Screening's events.
pub(crate) const SCREENING: &str = "marketing-screening";

/// Demand is looked at by people and plans, to whom a tenth of a second means nothing.
const PACE: Duration = Duration::from_millis(100);

/// The consumers this service declares.
pub(crate) fn consumers(projector: &Projector) -> Vec<Consumer> {
    vec![
        projector.consumer(HOSPITAL, hospital_subjects(), Some(PACE)),
        projector.consumer(SCREENING, screening_subjects(), Some(PACE)),
    ]
}
