//! The plan of a run: what to measure, in which topology, how long.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::customers::Customers;
use crate::{Error, Order};

/// An item to measure: a goal, growth, the curves of the plots, or scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// Reserving places of one hot slot.
    P1,
    /// A whole booking on PostgreSQL.
    P2,
    /// A whole booking on SQLite.
    P3,
    /// A flash sale: many requests for few places.
    P4,
    /// How long events take to have their effect.
    P5,
    /// The deletion of a hospital with many bookings.
    P6,
    /// Pages of long lists.
    P7,
    /// Memory of idle processes, and their start.
    P8,
    /// One caller without other load.
    P9,
    /// The effect of a hundred times as much data.
    Growth,
    /// Rate against callers, and latency against rate.
    Curves,
    /// Replicas and hot slots, against the model of what a booking costs with them.
    Scale,
}

impl Item {
    /// Every item, in the order in which they are measured.
    pub const ALL: [Self; 12] = [
        Self::P1,
        Self::P2,
        Self::P3,
        Self::P4,
        Self::P5,
        Self::P6,
        Self::P7,
        Self::P8,
        Self::P9,
        Self::Growth,
        Self::Curves,
        Self::Scale,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P1 => "P1",
            Self::P2 => "P2",
            Self::P3 => "P3",
            Self::P4 => "P4",
            Self::P5 => "P5",
            Self::P6 => "P6",
            Self::P7 => "P7",
            Self::P8 => "P8",
            Self::P9 => "P9",
            Self::Growth => "growth",
            Self::Curves => "curves",
            Self::Scale => "scale",
        }
    }

    /// What it measures, in one line.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::P1 => "a place on one hot slot, against one transaction a request",
            Self::P2 => "a whole booking on PostgreSQL, against a hello-world call",
            Self::P3 => "a whole booking on SQLite, against a hello-world call",
            Self::P4 => "a flash sale, against a hello-world call",
            Self::P5 => "how long a cancelled place takes to be free, and a booking to be on my page",
            Self::P6 => "a hospital with many bookings is deleted under load",
            Self::P7 => "a page of every list at many rows, against the first page at few",
            Self::P8 => "idle memory of a service, and its start",
            Self::P9 => "one caller, one booking, against the disk",
            Self::Growth => "rate, memory, verify, rebuild and deletion with a hundred times as many bookings",
            Self::Curves => "rate against callers and latency against rate, for the plots",
            Self::Scale => "a booking with more replicas and more hot slots, against a model",
        }
    }

    /// The topologies that it can be measured in. The goal is about the first.
    #[must_use]
    pub const fn topologies(self) -> &'static [Topology] {
        match self {
            Self::P2 | Self::P7 | Self::Scale => &[Topology::Mesh],
            Self::P3 | Self::Growth => &[Topology::Embedded],
            Self::P1 => &[Topology::Mesh, Topology::Embedded],
            Self::P4 | Self::P5 | Self::P6 | Self::P8 | Self::P9 | Self::Curves => {
                &[Topology::Embedded, Topology::Mesh]
            }
        }
    }
}

impl FromStr for Item {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|item| item.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| "name goals P1 to P9, growth, curves, scale or all".to_owned())
    }
}

/// How the services run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// All services in one process, on SQLite.
    Embedded,
    /// One process per service, with PostgreSQL and JetStream.
    Mesh,
}

impl Topology {
    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Mesh => "mesh",
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Topology {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = [Self::Embedded, Self::Mesh].into_iter().find(|topology| topology.name() == text);
        found.ok_or_else(|| "a topology is embedded or mesh".to_owned())
    }
}

/// What to measure, and how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program whose services are measured.
    pub binary: PathBuf,
    /// The items to measure.
    pub items: Vec<Item>,
    /// The topology; `None` is every topology of an item.
    pub topology: Option<Topology>,
    /// The number of pairs of a measurement and its baseline.
    pub pairs: u32,
    /// How long each side of a pair is measured.
    pub span: Duration,
    /// How long each measurement runs before it counts.
    pub warm_up: Duration,
    /// The number of connections that the callers share.
    pub connections: usize,
    /// The names of services that do not run.
    pub without: Vec<String>,
    /// Settings of every service, `KEY=VALUE`.
    pub settings: Vec<String>,
    /// The only order of customers. `None` is both by turns where a measurement compares them, and random elsewhere.
    pub order: Option<Order>,
    /// The seed of the names of customers in random order.
    pub seed: u64,
    /// The sizes of the measurements.
    pub sizes: Sizes,
}

/// The sizes of the measurements.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// P4: the capacity of the slot.
    pub places: u32,
    /// P4: the number of customers who request a place.
    pub askers: u32,
    /// P5: bookings per second.
    pub lag_rate: f64,
    /// P6: the number of bookings of the deleted hospital.
    pub bookings: u32,
    /// P7: the number of rows of a long list.
    pub rows: u64,
    /// P8: the number of starts of each process.
    pub starts: u32,
    /// Growth: the number of hospitals at the end.
    pub hospitals: usize,
    /// Growth: the number of dates per hospital.
    pub dates: usize,
    /// Growth: the number of bookings at the end.
    pub screenings: usize,
    /// Growth: the number of bookings of a deleted hospital.
    pub doomed: usize,
    /// Curves: the largest number of callers.
    pub callers: usize,
}

impl Sizes {
    /// The sizes that the goals name.
    pub const WHOLE: Self = Self {
        places: 1_000,
        askers: 50_000,
        lag_rate: 2_000.0,
        bookings: 100_000,
        rows: 1_000_000,
        starts: 5,
        hospitals: 10_000,
        dates: 400,
        screenings: 1_000_000,
        doomed: 10_000,
        callers: 1_024,
    };
    /// Sizes that fit into a test.
    pub const SHORT: Self = Self {
        places: 50,
        askers: 1_000,
        lag_rate: 50.0,
        bookings: 500,
        rows: 10_000,
        starts: 1,
        hospitals: 20,
        dates: 400,
        screenings: 2_000,
        doomed: 200,
        callers: 16,
    };
}

impl Plan {
    /// The orders of customers that a measurement compares.
    pub(crate) fn orders(&self) -> Vec<Order> {
        self.order.map_or_else(|| Order::ALL.to_vec(), |only| vec![only])
    }

    /// The customers of a measurement that does not compare orders.
    pub(crate) fn customers(&self) -> Customers {
        self.customers_in(self.order.unwrap_or(Order::Random))
    }

    /// The customers in this order.
    pub(crate) fn customers_in(&self, order: Order) -> Customers {
        Customers { order, seed: self.seed }
    }

    /// Every item of the plan with the topologies to measure it in.
    ///
    /// # Errors
    /// [`Error::Usage`] if a named item cannot be measured in the plan's topology.
    pub fn stations(&self) -> Result<Vec<(Item, Topology)>, Error> {
        let mut stations = Vec::new();
        // A run of all items skips those that cannot be measured in its topology.
        let all = self.items.len() == Item::ALL.len();
        for item in &self.items {
            match self.topology {
                None => stations.extend(item.topologies().iter().map(|topology| (*item, *topology))),
                Some(topology) if item.topologies().contains(&topology) => stations.push((*item, topology)),
                Some(_) if all => {}
                Some(topology) => {
                    let (name, there) = (item.name(), item.topologies()[0]);
                    let help = if *item == Item::P2 { "; P3 is the same, embedded" } else { "" };
                    return Err(Error::Usage(format!(
                        "{name} is not measured with --topology {topology}: its goal is about {there}{help}"
                    )));
                }
            }
        }
        Ok(stations)
    }
}
