//! What a command that asks a coordinator is given: the client, where to print, what time it is, and whether somebody
//! has pressed Ctrl-C. Tests give it their own of each.

use super::exit::Exit;
use ef_client::output;
use ef_client::remote::{Client, URL_DEFAULT};
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// How often tables that are watched are asked for.
const REFRESH: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Connection {
    /// Where the coordinator is; several, comma-separated, are tried in turn [default: $EFCTL_COORDINATOR, or
    /// http://127.0.0.1:7070]
    #[arg(long, global = true, value_name = "URL")]
    coordinator: Option<String>,
    /// Connect to other machines without encryption
    #[arg(long, global = true)]
    insecure: bool,
}

pub struct Session {
    pub client: Client,
    /// Milliseconds since the epoch.
    pub now: fn() -> u64,
    /// Whether what is printed goes to a terminal.
    pub terminal: bool,
    pub refresh: Duration,
    pub interrupt: Interrupt,
    out: Box<dyn Write>,
    err: Box<dyn Write>,
}

impl Session {
    pub fn open(connection: &Connection) -> Result<Session, Exit> {
        let from_environment = || std::env::var("EFCTL_COORDINATOR").ok().filter(|urls| !urls.trim().is_empty());
        let urls = connection.coordinator.clone().or_else(from_environment).unwrap_or_else(|| URL_DEFAULT.into());
        Ok(Session {
            client: Client::connect(&urls, connection.insecure)?,
            now: wall_ms,
            terminal: std::io::stdout().is_terminal(),
            refresh: REFRESH,
            interrupt: Interrupt::Keyboard,
            out: Box::new(std::io::stdout()),
            err: Box::new(std::io::stderr()),
        })
    }

    /// One that keeps what is printed, for tests.
    #[cfg(test)]
    pub fn with(client: Client, out: Box<dyn Write>, err: Box<dyn Write>, interrupt: Arc<Notify>) -> Session {
        Session {
            client,
            now: || 10_000,
            terminal: false,
            refresh: Duration::from_millis(5),
            interrupt: Interrupt::Test(interrupt),
            out,
            err,
        }
    }

    pub fn now_ms(&self) -> u64 {
        (self.now)()
    }

    /// Text on stdout. The error is how the command ends: done, if nobody reads any more.
    pub fn print(&mut self, text: &str) -> Result<(), Exit> {
        match output::write(&mut *self.out, text) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Exit::Done),
            Err(message) => Err(Exit::Failed(message)),
        }
    }

    pub fn line(&mut self, line: impl Display) -> Result<(), Exit> {
        self.print(&format!("{line}\n"))
    }

    /// A line on stderr, if anybody is there to read it.
    pub fn tell(&mut self, line: impl Display) {
        let _ = writeln!(self.err, "{line}");
    }

    /// The work's result, unless Ctrl-C comes first; then `goes_on` is told, which says what goes on and how to end it.
    pub async fn unless_interrupted<T, E>(
        &mut self,
        goes_on: impl Display,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Exit>
    where
        Exit: From<E>,
    {
        let interrupt = self.interrupt.clone();
        tokio::select! {
            done = work => Ok(done?),
            () = interrupt.happens() => {
                self.tell(format_args!("\n{goes_on}"));
                Err(Exit::Interrupted)
            }
        }
    }
}

#[derive(Clone)]
pub enum Interrupt {
    Keyboard,
    /// The library of tests must not get signals.
    #[cfg_attr(not(test), expect(dead_code, reason = "made by tests only"))]
    Test(Arc<Notify>),
}

impl Interrupt {
    pub async fn happens(&self) {
        match self {
            // Without a handler Ctrl-C ends the process, which is all that can be done then.
            Interrupt::Keyboard if tokio::signal::ctrl_c().await.is_err() => std::future::pending().await,
            Interrupt::Keyboard => {}
            Interrupt::Test(notify) => notify.notified().await,
        }
    }
}

fn wall_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "ages for the person at the terminal")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
