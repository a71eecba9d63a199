//! The plan of a run: the participants, what they do, and what goes wrong when.

use std::time::Duration;

use checkup::service::Service;

use crate::chance::Chance;
use crate::mutant::Mutant;
use crate::transport::DeliveryFaults;

/// The hosts of Hospital, which share a database.
pub(crate) const HOSPITALS: [&str; 2] = ["hospital-0", "hospital-1"];
/// The hosts of Screening, which share a database.
pub(crate) const SCREENINGS: [&str; 2] = ["screening-0", "screening-1"];
/// The host of Reservation.
pub(crate) const RESERVATION: &str = "reservation-0";
/// The hosts of MyPage, each with a view of its own.
pub(crate) const PAGES: [&str; 2] = ["mypage-0", "mypage-1"];

/// The hosts of each service.
pub(crate) const SERVICES: [&[&str]; 4] = [&HOSPITALS, &SCREENINGS, &[RESERVATION], &PAGES];

/// Every host that serves.
pub(crate) const HOSTS: [&str; 7] =
    [HOSPITALS[0], HOSPITALS[1], SCREENINGS[0], SCREENINGS[1], RESERVATION, PAGES[0], PAGES[1]];

/// The hosts of customers.
pub(crate) const CUSTOMERS: [&str; 6] =
    ["customer-0", "customer-1", "customer-2", "customer-3", "customer-4", "customer-5"];

/// A fault that the simulation causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Disruption {
    /// A process is killed, and started again after `down`.
    Crash { host: &'static str, down: Duration },
    /// A link between one host and some others is broken or slow.
    Link { one: &'static str, others: &'static [&'static str], how: How, lasts: Duration },
    /// A host cannot reach the broker.
    Cut { host: &'static str, lasts: Duration },
    /// No host can reach the broker.
    BrokerDown { lasts: Duration },
    /// The broker loses its newest events.
    ForgetTail { count: usize },
    /// The broker loses each of its events with a probability of one in `one_in`.
    Lose { one_in: u64 },
    /// The broker loses everything.
    Wipe,
    /// One in `one_in` commits goes wrong for a while: half are lost, half are done and reported as failed.
    Commits { hosts: &'static [&'static str], one_in: u64, lasts: Duration },
    /// Storage of these hosts fails for a while at one in `one_in` steps of transactions.
    Storage { hosts: &'static [&'static str], one_in: u64, lasts: Duration },
    /// A host commits nothing for a while and is then killed, so that its open work is lost.
    Choke { host: &'static str, lasts: Duration, down: Duration },
    /// A relay of these hosts is stopped within a window for longer than its lease, and the broker loses that window.
    Stall { hosts: &'static [&'static str], lasts: Duration },
    /// The hosts of a service are killed, and its database comes back as it was `ago`. The hosts start again after
    /// `down`.
    GoBack { service: Service, hosts: &'static [&'static str], ago: Duration, down: Duration },
}

/// What is wrong with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Nothing passes in either direction.
    Cut,
    /// What the one host sends is lost.
    Mute,
    /// What is sent to the one host is lost.
    Deaf,
    /// All messages are held until the end of the disruption.
    Late,
    /// Every message takes up to this many milliseconds.
    Slow(u64),
}

/// Everything that a run does.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) mutant: Option<Mutant>,
    /// One in this many bookings accepts PENDING.
    pub(crate) pending: u64,
    /// One in this many PENDING bookings is cancelled at once; 0 is none.
    pub(crate) rash: u64,
    /// One in this many operations of a customer who has bookings, cancellations aside, moves one; 0 is none.
    pub(crate) moving: u64,
    /// One in this many bookings waits for a place where none is left; 0 is none.
    pub(crate) joining: u64,
    /// One in this many bookings that wait is never cancelled; 0 is none.
    pub(crate) patient: u64,
    /// How often the admin changes a slot or a policy while customers wait.
    pub(crate) changes: usize,
    /// How long after the start the places of the first date pass on to nobody any more; `None`: long after the run.
    pub(crate) closing: Option<Duration>,
    /// The most bookings that each hospital lets a customer have; `None`: any number.
    pub(crate) limit: Option<i32>,
    /// The number of customers.
    pub(crate) customers: usize,
    /// The number of operations of each customer.
    pub(crate) operations: usize,
    /// The capacity of each slot, per hospital.
    pub(crate) capacities: Vec<Vec<i32>>,
    /// The number of hospitals that are deleted during the run.
    pub(crate) deletions: usize,
    /// The longest latency of a message.
    pub(crate) latency: Duration,
    /// The probability that a message breaks its link.
    pub(crate) fail_rate: f64,
    pub(crate) delivery_faults: DeliveryFaults,
    /// The most events that a relay sends at once.
    pub(crate) window: usize,
    /// How long a claim may exist without a booking before it is fenced.
    pub(crate) grace: Duration,
    /// How long Screening waits for Hospital in all, and for one attempt.
    pub(crate) hospital_timeouts: (Duration, Duration),
    /// The longest pause of a consumer before it applies a batch.
    pub(crate) work: Duration,
    /// The error of each host's clock, in seconds.
    pub(crate) skews: Vec<i64>,
    /// How long producers keep every event; zero for ever.
    pub(crate) retention: Duration,
    pub(crate) disruptions: Vec<(Duration, Disruption)>,
    pub(crate) chance: Chance,
}

impl Plan {
    /// Whether a database comes back as it was earlier.
    pub(crate) fn goes_back(&self) -> bool {
        self.disruptions.iter().any(|(_, disruption)| matches!(disruption, Disruption::GoBack { .. }))
    }
}
