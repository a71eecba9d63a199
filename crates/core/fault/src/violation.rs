//! One field of a request that breaks a rule.

use crate::Reason;

/// One field of a request that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Dotted path in snake case, for example `initial_slots[1].date`.
    pub field: String,
    /// The reason of this field; its code is INVALID_ARGUMENT.
    pub reason: Reason,
    /// What is wrong and what would be right.
    pub description: String,
}
