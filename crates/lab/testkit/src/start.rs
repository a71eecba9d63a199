//! Starting the real binary as a [`Launch`] describes it.

use crate::launch::{Launch, StartFailure, Topology};
use crate::process::{Checkup, Process};

impl Launch {
    /// Starts `checkup` on free ports and waits until it announces that it serves.
    ///
    /// # Panics
    /// If it ends or does not announce it in time.
    pub async fn start(&self) -> Checkup {
        match self.try_start().await {
            Ok(checkup) => checkup,
            Err(failure) => panic!("checkup did not start: {failure:#?}"),
        }
    }

    /// Starts `checkup up` on data that it must not serve, and waits until it announces that it does not serve.
    ///
    /// # Panics
    /// If it ends or does not announce it in time.
    pub async fn start_refusing(&self) -> Checkup {
        let mut command = self.command(&["up", "--addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(self.data().path()).args(&self.arguments);
        let mut process = Process::spawn(command);
        match process.refusing().await {
            Ok(addr) => Checkup::new(addr, process, self.clone()),
            Err(code) => panic!("checkup did not say why it does not serve: {:#?}", process.into_failure(code)),
        }
    }

    /// Starts `checkup` and waits until it serves, for tests of starts that fail.
    ///
    /// # Errors
    /// The output of a process that did not serve.
    ///
    /// # Panics
    /// If the binary cannot be run at all.
    pub async fn try_start(&self) -> Result<Checkup, StartFailure> {
        let addr = format!("127.0.0.1:{}", self.port);
        let mut command = match self.topology {
            Topology::Embedded => self.limited(&["up", "--addr", &addr, "--admin-addr", "127.0.0.1:0"]),
            Topology::Mesh => {
                // PostgreSQL runs as another user if the tests run as root.
                let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                std::fs::set_permissions(self.data().path(), open).expect("our own directory");
                self.command(&["mesh", "--addr", &addr])
            }
        };
        command.arg("--data-dir").arg(self.data().path()).args(&self.arguments);
        let mut process = Process::spawn(command);
        match process.serving().await {
            Ok(addr) => Ok(Checkup::new(addr, process, self.clone())),
            Err(code) => Err(process.into_failure(code)),
        }
    }
}
