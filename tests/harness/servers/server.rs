//! One server as a process, whatever it serves: started on free ports with data in a directory of its own, killed,
//! stopped, frozen, and started again on the same ports and data. It ends with its value, or with the tests.

use super::{keeper, ports};
use crate::process::Process;
use crate::wait;
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// What is to know of a program that serves.
pub trait Program: Send + Sync + 'static {
    const NAME: &'static str;
    /// How many ports it listens on.
    const PORTS: usize;

    /// Before its first start: what must be in `home`.
    fn prepare(&self, home: &Path, ports: &[u16]) -> Result<()>;

    fn command(&self, home: &Path, ports: &[u16]) -> Command;

    /// Whether it serves. Asked again and again while it starts.
    fn ready(&self, process: &Process, ports: &[u16]) -> bool;
}

/// A Kafka broker takes 5 s on an idle machine; this one compiles and tests meanwhile.
const START_MAX: Duration = Duration::from_secs(180);
/// Another process may take the ports between our look and the server's.
const TRIES: usize = 5;

pub struct Server<P: Program> {
    program: P,
    home: TempDir,
    ports: Vec<u16>,
    /// The newest; None before its first start.
    process: Option<Process>,
    up: bool,
}

impl<P: Program> Server<P> {
    pub fn start(mut program: P) -> Result<Server<P>> {
        let mut tries = 0;
        loop {
            let (home, ports) = (tempfile::tempdir()?, ports::free(P::PORTS));
            program.prepare(home.path(), &ports).with_context(|| format!("{} cannot be prepared", P::NAME))?;
            let mut server = Server { program, home, ports, process: None, up: false };
            tries += 1;
            match server.start_again() {
                Err(_) if tries < TRIES && server.lacked_a_port() => program = server.program,
                result => return result.map(|()| server),
            }
        }
    }

    /// With the data and the ports that it had. Returns when it serves.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(!self.up, "{} runs already", P::NAME);
        let command = self.program.command(self.home.path(), &self.ports);
        let process = self.process.insert(keeper::start(P::NAME, command, self.home.path().to_path_buf())?);
        let serves = wait::found(START_MAX, || match process.ended() {
            Some(status) => Some(Err(status)),
            None => self.program.ready(process, &self.ports).then_some(Ok(())),
        });
        match serves {
            Some(Ok(())) => self.up = true,
            Some(Err(status)) => bail!("{} ended before it served, {status}\n{}", P::NAME, process.tail(40)),
            None => {
                process.kill();
                bail!("{} did not serve in {START_MAX:?}\n{}", P::NAME, process.tail(40));
            }
        }
        Ok(())
    }

    /// Each program has its words for a port that somebody has, and all end with the system's.
    fn lacked_a_port(&self) -> bool {
        self.log_tail(usize::MAX).to_lowercase().contains("address already in use")
    }

    pub fn program(&self) -> &P {
        &self.program
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// In the order in which the program was given them.
    pub fn port(&self, index: usize) -> u16 {
        self.ports[index]
    }

    /// kill -9: nothing of it runs when this returns, and nothing was said to its clients.
    pub fn kill(&mut self) {
        self.up = false;
        self.process.iter_mut().for_each(Process::kill);
    }

    /// SIGTERM, and waits until it has ended.
    pub fn stop(&mut self) -> Result<()> {
        self.up = false;
        let Some(process) = &mut self.process else { return Ok(()) };
        if process.ended().is_some() {
            return Ok(());
        }
        process.signal(libc::SIGTERM);
        // A frozen process would not hear it.
        process.signal(libc::SIGCONT);
        let ended = wait::until(wait::PATIENCE, || process.ended().is_some());
        ensure!(ended, "{} did not end by SIGTERM\n{}", P::NAME, process.tail(40));
        Ok(())
    }

    /// Stops it in its tracks (SIGSTOP): its connections stay open, and nothing is answered until [`Server::thaw`].
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Nothing if it is down.
    pub fn signal(&self, signal: i32) {
        // One that was reaped may have left its number to another process.
        let running = self.process.as_ref().filter(|_| self.up);
        running.into_iter().for_each(|process| process.signal(signal));
    }

    /// What it has said on standard output since its last start.
    pub fn said(&self) -> String {
        self.process.as_ref().map(Process::said).unwrap_or_default()
    }

    /// The last lines that it said, over all starts.
    pub fn log_tail(&self, lines: usize) -> String {
        self.process.as_ref().map(|process| process.tail(lines)).unwrap_or_default()
    }

    /// At the end of the tests, for a value that is never dropped: kills it and removes its data.
    pub fn end_for_good(&self) {
        self.signal(libc::SIGKILL);
        if let Some(process) = &self.process {
            // SAFETY: it waits for our own child; nobody else does, because nobody drops the value.
            unsafe { libc::waitpid(process.pid() as i32, std::ptr::null_mut(), 0) };
        }
        // What cannot be removed stays among the temporary files.
        let _ = std::fs::remove_dir_all(self.home.path());
    }
}
