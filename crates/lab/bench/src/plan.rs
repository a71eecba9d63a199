//! What to measure, where, how long.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::Error;

/// Something that can be measured: a goal, or the curves for the plots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// ReserveCapacity on one hot slot.
    P1,
    /// The whole booking on PostgreSQL.
    P2,
    /// The whole booking, embedded.
    P3,
    /// A flash sale.
    P4,
    /// How long events take to show.
    P5,
    /// A hospital with many bookings is deleted.
    P6,
    /// Pages of long lists.
    P7,
    /// Idle memory and start.
    P8,
    /// One caller, unloaded.
    P9,
    /// What a hundred times as much of everything changes.
    Growth,
    /// Rate against callers, latency against rate.
    Curves,
}

impl Item {
    /// Every one, in the order in which they are measured.
    pub const ALL: [Self; 11] = [
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
    ];

    /// As it is typed.
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
        }
    }

    /// What it measures, in a line.
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
        }
    }

    /// Where it can be measured, the place its goal names first.
    #[must_use]
    pub const fn topologies(self) -> &'static [Topology] {
        match self {
            Self::P2 | Self::P7 => &[Topology::Mesh],
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
        found.ok_or_else(|| "name goals P1 to P9, growth, curves or all".to_owned())
    }
}

/// How the services run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// All services in one process, SQLite.
    Embedded,
    /// A process a service, PostgreSQL and JetStream.
    Mesh,
}

impl Topology {
    /// As it is typed.
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

/// How much of everything.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program whose services are measured.
    pub binary: PathBuf,
    /// What.
    pub items: Vec<Item>,
    /// Where; every place an item can be measured at where nothing is said.
    pub topology: Option<Topology>,
    /// Pairs of a measurement and its baseline.
    pub pairs: u32,
    /// How long each side of a pair is measured.
    pub span: Duration,
    /// Runs before anything is measured.
    pub warm_up: Duration,
    /// Connections of the callers together.
    pub connections: usize,
    /// Services that do not run.
    pub without: Vec<String>,
    /// What every service is told besides: `KEY=VALUE`.
    pub settings: Vec<String>,
    /// Sizes.
    pub sizes: Sizes,
}

/// How many of what.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// P4: places of the slot.
    pub places: u32,
    /// P4: who ask for one.
    pub askers: u32,
    /// P5: bookings a second.
    pub lag_rate: f64,
    /// P6: bookings of the hospital.
    pub bookings: u32,
    /// P7: rows of a list.
    pub rows: u64,
    /// P8: starts of each process.
    pub starts: u32,
    /// Growth: hospitals at its end.
    pub hospitals: usize,
    /// Growth: dates of each.
    pub dates: usize,
    /// Growth: bookings at its end.
    pub screenings: usize,
    /// Growth: bookings of a hospital that is deleted.
    pub doomed: usize,
    /// The most callers of the curves.
    pub callers: usize,
}

impl Sizes {
    /// What the goals name.
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
    /// What fits into a test.
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
    /// Items with the place to measure them at.
    ///
    /// # Errors
    /// [`Error::Usage`] where an item cannot be measured there.
    pub fn stations(&self) -> Result<Vec<(Item, Topology)>, Error> {
        let mut stations = Vec::new();
        // all of them: those that fit
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
