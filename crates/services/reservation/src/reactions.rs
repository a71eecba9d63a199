//! The reaction to Screening's events: they are folded into the ledger in the order they arrive.

use relay::{Consumer, Projector};

/// The durable consumer of Screening's events.
pub(crate) const SCREENINGS: &str = "reservation-screenings";

/// The consumers that this service declares.
pub(crate) fn consumers(projector: &Projector) -> Vec<Consumer> {
    vec![projector.consumer(SCREENINGS, domain::screening_fact::subjects(), None)]
}
