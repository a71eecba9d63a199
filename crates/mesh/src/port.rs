//! Ports for servers that go and come back.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};

use crate::Error;

/// Below the range that outgoing connections take theirs from. A port of that range can be gone when its server comes back,
/// and on loopback a client that insists may even be connected with itself.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port of 127.0.0.1 that nobody listens on at this moment, and that no outgoing connection will take.
///
/// # Errors
/// [`Error::Failed`] where all are taken.
pub fn free() -> Result<u16, Error> {
    let anywhere = (RandomState::new().build_hasher().finish() % u64::from(COUNT)) as u16;
    let candidates = (0..COUNT).map(|step| FIRST + (anywhere + step) % COUNT);
    let mut free = candidates.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    free.next().ok_or_else(|| Error::Failed { what: "find a free port".into(), output: "all are taken".into() })
}
