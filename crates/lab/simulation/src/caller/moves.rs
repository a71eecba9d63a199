//! Customers who move their bookings to other slots.

use contract::screening::v1 as screening;
use contract::screening::v1::screening_service_client::ScreeningServiceClient;
use runtime::client::Replicas;

use super::{Answer, CUSTOMER_TRIES, Caller, summary};

impl Caller {
    /// Moves a booking to a slot, which may be the one that it is on. A move without an answer may have its effect much
    /// later, after other moves.
    pub(super) async fn reschedule(&mut self, screenings: &Replicas, name: &str, slot: String) {
        let request_id = runtime::entropy::uuid_v4().to_string();
        let message = screening::RescheduleScreeningRequest {
            name: name.to_owned(),
            slot: slot.clone(),
            request_id,
            ..screening::RescheduleScreeningRequest::default()
        };
        let what = format!("moves {name} to {slot}");
        let changes_something = self.history.moves(name, &slot);
        let mut answer = self.ask_for_move(screenings, &what, message.clone()).await;
        if changes_something && self.chance.one_in(4) {
            // Sends the same request again. Where it changed nothing, a recovery would not know that it was answered.
            let again = self.ask_for_move(screenings, &what, message.clone()).await;
            answer = self.same(&what, answer, again);
        }
        self.site.trace.note(&self.name, &what, summary(&answer));
        match answer {
            Answer::Is(moved) => {
                self.history.moved(name, &slot, Some(&moved.slot));
                self.moved.extend(changes_something.then_some(message));
            }
            Answer::Refused(_) => self.history.moved(name, &slot, None),
            Answer::Unknown => {}
        }
    }

    /// Repeats the moves that were answered. The booking stays where it is.
    pub(super) async fn repeat_moves(&mut self, screenings: &Replicas) {
        for message in std::mem::take(&mut self.moved) {
            let what = format!("moves {} to {} again", message.name, message.slot);
            let again = self.ask_for_move(screenings, &what, message).await;
            self.site.trace.note(&self.name, &what, summary(&again));
            if let Answer::Refused(reason) = again {
                self.history.broken(format!("{what}, which was done, and is told {reason:?}"));
            }
        }
    }

    async fn ask_for_move(
        &mut self,
        screenings: &Replicas,
        what: &str,
        message: screening::RescheduleScreeningRequest,
    ) -> Answer<screening::Screening> {
        let call =
            |channel, request| async move { ScreeningServiceClient::new(channel).reschedule_screening(request).await };
        self.ask(screenings, what, message, CUSTOMER_TRIES, call).await
    }
}
