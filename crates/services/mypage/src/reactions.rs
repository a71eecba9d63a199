//! The reaction to Screening's events: they are folded into the view, and streams that watch are woken.

use relay::{Consumer, Projector};

/// The durable consumer of Screening's events.
pub(crate) const SCREENINGS: &str = "mypage-screenings";

/// The consumer that feeds a view.
pub(crate) fn consumer(projector: &Projector) -> Consumer {
    projector.consumer(SCREENINGS, domain::screening_fact::subjects(), None)
}
