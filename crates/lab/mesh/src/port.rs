//! Ports for servers that go and come back.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::process::geteuid;

use crate::Error;

/// Below the range that outgoing connections take theirs from. A port of that range can be gone when its server comes back,
/// and on loopback a client that insists may even be connected with itself.
const FIRST_PORT: u16 = 10_000;
const PORT_COUNT: u16 = 20_000;

/// The locks of the ports this process has given out. They are never given back: a server that was killed wants its port again.
static TAKEN_PORTS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 that nobody listens on at this moment, that no outgoing connection will take, and that no other process
/// gets from here while this one lives: several meshes are started at once, and each asks for its ports long before they are
/// used.
///
/// # Errors
/// [`Error::Failed`] where all are taken, [`Error::System`] where that cannot be written down.
pub fn free() -> Result<u16, Error> {
    let register = std::env::temp_dir().join(format!("checkup-ports-{}", geteuid().as_raw()));
    std::fs::create_dir_all(&register).map_err(Error::system(format!("make {}", register.display())))?;
    let anywhere = (RandomState::new().build_hasher().finish() % u64::from(PORT_COUNT)) as u16;
    for step in 0..PORT_COUNT {
        let port = FIRST_PORT + (anywhere + step) % PORT_COUNT;
        let Some(lock) = lock(&register, port) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            TAKEN_PORTS.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            return Ok(port);
        }
    }
    Err(Error::Failed { what: "find a free port".into(), output: "all are taken".into() })
}

/// The lock of a port, which ends with this process; none where another one has it.
fn lock(register: &Path, port: u16) -> Option<File> {
    let path = register.join(port.to_string());
    let file = File::options().write(true).create(true).truncate(false).open(path).ok()?;
    file.try_lock().is_ok().then_some(file)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::free;

    #[test]
    fn no_port_is_given_out_twice() {
        let ports: BTreeSet<u16> = (0..200).map(|_| free().expect("a port")).collect();
        assert_eq!(ports.len(), 200);
    }
}
