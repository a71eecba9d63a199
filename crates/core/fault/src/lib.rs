//! The error vocabulary every layer shares: why something was refused, in words a client can act on.
//!
//! It knows nothing of gRPC, of storage or of the domain's rules, and depends on nothing. `runtime` maps a [`Fault`] to
//! a status once, at the edge. A fault has three faces: the [`Code`] a mesh routes by, the [`Reason`] and metadata a
//! client acts on, and the cause that only a log sees; it has no `Display`, so the cause cannot leak into an answer.

mod fault;
mod reason;
mod sentence;
mod violation;
mod violations;

pub use fault::{Fault, Quota, Resource};
pub use reason::{Code, Reason};
pub use sentence::Language;
pub use violation::Violation;
pub use violations::Violations;
