//! Ports for servers that are stopped and started again.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::process::geteuid;

use crate::Error;

/// Below the range of the ports of outgoing connections. A port of that range can be in use when its server starts
/// again, and on loopback a client that keeps trying to connect to it may even connect to itself.
const FIRST_PORT: u16 = 10_000;
const PORT_COUNT: u16 = 20_000;

/// The locks of the ports that this process has handed out, kept until it ends: a killed server needs its port again.
static TAKEN_PORTS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Returns a port of 127.0.0.1 that nobody listens on and that no outgoing connection takes. No other process gets it
/// from here while this one lives: several meshes start at once, and each chooses its ports long before it uses them.
///
/// # Errors
/// [`Error::Failed`] if all ports are taken, [`Error::System`] if the directory of the locks cannot be made.
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

/// Locks a port until this process ends; `None` if another process has it.
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
