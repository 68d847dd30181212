//! Runs the real `efctl` as a user does, alone or against a cluster of real processes, and compares what it wrote with
//! what is expected. `cluster` starts processes, `servers` starts those of others that jobs speak with, `netns` and `proxy`
//! stand between them, `faults` breaks them by a seed, and `checker` says whether every row counted exactly once.

#![expect(clippy::disallowed_methods, reason = "tests wait for processes and draw their seeds")]

pub mod checker;
pub mod cluster;
pub mod ctl;
pub mod disk;
pub mod events;
pub mod faults;
pub mod following;
pub mod gate;
pub mod missing;
pub mod netns;
pub mod process;
pub mod proxy;
pub mod rows;
pub mod s3;
pub mod seed;
pub mod servers;
pub mod shared;
pub mod table;
pub mod wait;
pub mod workload;

use anyhow::{Context, Result, bail};
use process::Host;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use wait::PATIENCE;

/// The binary that `make build` put beside the tests.
pub fn efctl() -> PathBuf {
    process::binary("efctl")
}

/// One invocation of `efctl`, in a directory of its own.
pub struct Run {
    command: Command,
    out: PathBuf,
    err: PathBuf,
    unheard: bool,
}

/// What it left.
#[derive(Debug)]
pub struct Done {
    /// None: killed by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// Panics with everything it said unless it exited with 0.
    #[track_caller]
    pub fn success(self) -> Done {
        assert_eq!(self.code, Some(0), "efctl failed\n--- stdout\n{}\n--- stderr\n{}", head(&self.stdout), self.stderr);
        self
    }
}

fn head(text: &str) -> &str {
    text.get(..2000).unwrap_or(text)
}

impl Run {
    /// `efctl ARGS…` with `directory` as its working directory.
    pub fn new(directory: &Path, args: &[&str]) -> Run {
        Run::on(&Host::loopback(), directory, args)
    }

    /// The same on another host.
    pub fn on(host: &Host, directory: &Path, args: &[&str]) -> Run {
        let mut command = host.command(&efctl());
        command.args(args).current_dir(directory).stdin(Stdio::null()).env_remove("RUST_LOG");
        process::dies_with_us(&mut command);
        Run { command, out: directory.join(".stdout"), err: directory.join(".stderr"), unheard: false }
    }

    /// What it says goes to these files; of several runs in one directory each needs its own.
    pub fn output(mut self, out: PathBuf, err: PathBuf) -> Run {
        (self.out, self.err) = (out, err);
        self
    }

    /// `efctl run` of this SQL text, written to a file in `directory`.
    pub fn sql(directory: &Path, sql: &str) -> Run {
        let file = directory.join("job.sql");
        std::fs::write(&file, sql).expect("the test's own directory is writable");
        Run::new(directory, &["run", "job.sql", "--quiet"])
    }

    pub fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Run {
        self.command.arg(arg);
        self
    }

    pub fn args(mut self, args: &[&str]) -> Run {
        self.command.args(args);
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Run {
        self.command.env(key, value);
        self
    }

    /// Nobody reads what it says: each write to its standard error fails.
    pub fn unheard(mut self) -> Run {
        self.unheard = true;
        self
    }

    pub fn start(mut self) -> Result<Running> {
        // Files, not pipes: a killed process leaves what it wrote, and nobody has to read along.
        let Run { out, err, .. } = self;
        self.command.stdout(std::fs::File::create(&out)?).stderr(std::fs::File::create(&err)?);
        if self.unheard {
            self.command.stderr(std::fs::File::options().write(true).open("/dev/full")?);
        }
        let child = self.command.spawn().context("cannot start efctl")?;
        Ok(Running { child, out, err })
    }

    pub fn done(self) -> Done {
        self.start().and_then(Running::wait).expect("efctl runs")
    }
}

/// A started `efctl`, killed when the value is dropped.
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub fn signal(&self, signal: i32) {
        // SAFETY: a signal to our own child, which we have not reaped.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// True once it has ended.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Waits until `condition` holds or the process has ended; looks every few milliseconds.
    pub fn until(&mut self, mut condition: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !condition() && !self.ended() {
            if Instant::now() > deadline {
                let said = std::fs::read_to_string(&self.err).unwrap_or_default();
                bail!("nothing came of it in {PATIENCE:?}; it goes on, and has said:\n{said}");
            }
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }

    pub fn wait(mut self) -> Result<Done> {
        self.until(|| false)?;
        self.done()
    }

    /// None: it was still running after the limit, and was killed.
    pub fn wait_at_most(mut self, limit: Duration) -> Result<Option<Done>> {
        let deadline = Instant::now() + limit;
        self.until(|| Instant::now() >= deadline)?;
        if self.ended() { self.done().map(Some) } else { Ok(None) }
    }

    fn done(&mut self) -> Result<Done> {
        let status = self.child.wait()?;
        Ok(Done {
            code: status.code(),
            stdout: std::fs::read_to_string(&self.out)?,
            stderr: std::fs::read_to_string(&self.err)?,
        })
    }
}
