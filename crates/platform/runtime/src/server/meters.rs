//! The meters of a method's calls.

use std::fmt;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::metrics::{CALL_SECONDS, CALLS, CALLS_IN_FLIGHT};

/// The name of the code of an answer without an error.
pub(super) const OK: &str = "OK";

/// The meters of a method's calls and of its OK answers. They are kept because finding them by name and labels costs
/// more than counting.
#[derive(Clone)]
pub(super) struct Meters {
    /// Shared by all methods.
    pub(super) in_flight: Gauge,
    pub(super) answered: Counter,
    pub(super) seconds: Histogram,
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

impl Meters {
    /// The meters of the method with this name.
    pub(super) fn of(method: &Arc<str>) -> Self {
        Self {
            in_flight: gauge!(CALLS_IN_FLIGHT),
            answered: counter!(CALLS, "method" => Arc::clone(method), "code" => OK),
            seconds: histogram!(CALL_SECONDS, "method" => Arc::clone(method)),
        }
    }
}
