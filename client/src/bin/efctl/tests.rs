//! Every command that asks a coordinator, from its arguments to its output and exit code, against a fake one.

mod jobs;
mod state;
mod workers;

#[path = "../../remote/fake.rs"]
mod fake;

use super::exit::Exit;
use super::session::Session;
use super::{Cli, Command, Connection};
use clap::{CommandFactory, Parser};
use ef_client::remote::Client;
use fake::{Fake, World};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tonic::Status;

/// No test takes this long, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).expect("text")
    }

    /// Returns as soon as it reads so.
    async fn has(&self, part: &str) {
        let seen = async {
            while !self.text().contains(part) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, seen).await;
        assert!(waited.is_ok(), "`{part}` never came; there is: {}", self.text());
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One invocation of `efctl` in this process.
struct Efctl {
    out: Page,
    err: Page,
    interrupt: Arc<Notify>,
}

impl Efctl {
    fn new() -> Efctl {
        Efctl { out: Page::default(), err: Page::default(), interrupt: Arc::new(Notify::new()) }
    }

    async fn run(&self, url: &str, args: &[&str]) -> Exit {
        let cli = Cli::try_parse_from([&["efctl"], args].concat()).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        let Command::Remote(command) = cli.command else { panic!("{args:?} asks no coordinator") };
        let client = Client::connect(url, false).expect("a URL");
        let (out, err) = (Box::new(self.out.clone()), Box::new(self.err.clone()));
        let mut session = Session::with(client, out, err, self.interrupt.clone());
        let ended = tokio::time::timeout(PATIENCE, command.run(&mut session)).await;
        match ended.unwrap_or_else(|_| panic!("{args:?} hangs; it said {} {}", self.out.text(), self.err.text())) {
            Ok(()) => Exit::Done,
            Err(exit) => exit,
        }
    }
}

/// What an invocation left.
#[derive(Debug)]
struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

async fn efctl(fake: &Fake, args: &[&str]) -> Ran {
    let efctl = Efctl::new();
    let exit = efctl.run(&fake.url, args).await;
    Ran { exit, out: efctl.out.text(), err: efctl.err.text() }
}

impl Ran {
    /// What it printed, having done what it should.
    #[track_caller]
    fn done(self) -> String {
        assert_eq!(self.exit, Exit::Done, "{self:?}");
        self.out
    }

    /// The message of a failure with this exit code.
    #[track_caller]
    fn failed(self, code: u8) -> String {
        assert_eq!(self.exit.code(), code, "{self:?}");
        self.exit.message().unwrap_or_default().to_string()
    }
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

/// A job that runs, and a worker.
fn small(world: &mut World) {
    world.job("pumps-1", "pumps", "RUNNING");
    world.worker("w1", "cloud");
}

#[tokio::test]
async fn whatever_does_not_exist_is_exit_code_3() {
    let fake = Fake::start(small);
    let commands: [&[&str]; 20] = [
        &["get", "jobs", "no"],
        &["get", "workers", "no"],
        &["get", "checkpoints", "no"],
        &["get", "savepoints", "no"],
        &["describe", "job", "no"],
        &["describe", "worker", "no"],
        &["describe", "checkpoint", "no", "1"],
        &["describe", "checkpoint", "pumps", "99"],
        &["describe", "savepoint", "no"],
        &["events", "no"],
        &["logs", "no", "--tail", "3"],
        &["checkpoint", "no", "--wait"],
        &["savepoint", "create", "no"],
        &["savepoint", "list", "no"],
        &["savepoint", "dispose", "no"],
        &["rescale", "no", "-p", "2"],
        &["stop", "no", "--wait"],
        &["cancel", "no"],
        &["cordon", "no"],
        &["drain", "no"],
    ];
    for command in commands {
        let message = efctl(&fake, command).await.failed(3);
        assert!(
            message.starts_with("there is no ") || message.contains("has no checkpoint 99"),
            "{command:?}: {message}"
        );
    }
}

#[tokio::test]
async fn a_dry_run_is_passed_on_to_the_coordinator() {
    let fake = Fake::start(|world| {
        small(world);
        world
            .savepoints
            .push(ef_proto::wire::generated::control::Savepoint { id: "sp-1".into(), ..Default::default() });
    });
    let commands: [(&str, &[&str]); 9] = [
        ("trigger_checkpoint", &["checkpoint", "pumps"]),
        ("create_savepoint", &["savepoint", "create", "pumps"]),
        ("dispose_savepoint", &["savepoint", "dispose", "sp-1"]),
        ("rescale_job", &["rescale", "pumps", "-p", "3"]),
        ("stop_job", &["stop", "pumps", "--savepoint"]),
        ("cancel_job", &["cancel", "pumps"]),
        ("cordon_worker", &["cordon", "w1"]),
        ("cordon_worker", &["uncordon", "w1"]),
        ("drain_worker", &["drain", "w1"]),
    ];
    for (method, command) in commands {
        let out = efctl(&fake, &[command, &["--dry-run"]].concat()).await.done();
        assert!(out.contains("(dry run)"), "{command:?}: {out}");
        let asked = fake.world().asked(method).last().map(|request| request.contains("dry_run: true"));
        assert_eq!(asked, Some(true), "{command:?}");
    }
    let world = fake.world();
    assert!(world.savepoints.len() == 1 && world.savepoints[0].state.is_empty(), "{:?}", world.savepoints);
    assert!(world.workers.iter().flat_map(|worker| &worker.worker).all(|worker| !worker.cordoned));
}

#[tokio::test]
async fn a_coordinator_out_of_reach_is_told_with_what_to_do() {
    let message = match Efctl::new().run("http://127.0.0.1:1", &["get", "jobs"]).await {
        Exit::Failed(message) => message,
        other => panic!("{other:?}"),
    };
    assert_has(
        &message,
        &[
            "cannot reach the coordinator at http://127.0.0.1:1: ",
            "refused",
            "efctl cluster start",
            "EFCTL_COORDINATOR",
        ],
    );
}

#[tokio::test]
async fn errors_of_the_coordinator_have_exit_codes() {
    let fake = Fake::start(small);
    for (status, code) in [
        (Status::invalid_argument("bad"), 2),
        (Status::not_found("gone"), 3),
        (Status::failed_precondition("busy"), 1),
        (Status::data_loss("torn"), 1),
        (Status::internal("bug"), 1),
        (Status::unavailable("no slots"), 1),
    ] {
        let said = status.message().to_string();
        fake.change(|world| world.failures.push_back(status));
        assert_eq!(efctl(&fake, &["cancel", "pumps"]).await.failed(code), said);
    }
}

#[test]
fn arguments_that_make_no_sense_are_usage_errors() {
    let wrong: [&[&str]; 12] = [
        &["get"],
        &["get", "checkpoints"],
        &["rescale", "pumps"],
        &["rescale", "pumps", "-p", "0"],
        &["rescale", "pumps", "--operator", "a"],
        &["submit", "a.sql", "--wait=5"],
        &["submit", "a.sql", "--wait=soon"],
        &["submit", "a.sql", "--dry-run", "--wait"],
        &["submit", "a.sql", "--allow-non-restored-state"],
        &["describe", "checkpoint", "pumps", "last"],
        &["cluster", "start", "--tier", "orbit"],
        &["top", "everything"],
    ];
    for args in wrong {
        assert!(Cli::try_parse_from([&["efctl"], args].concat()).is_err(), "{args:?}");
    }
    let right: [&[&str]; 9] = [
        &["submit", "a.sql", "--wait=5min", "--coordinator", "http://127.0.0.1:1"],
        &["--coordinator", "http://127.0.0.1:1", "get", "-o", "json", "j", "-w"],
        &["get", "chk", "pumps", "-o", "wide"],
        &["stop", "pumps", "--savepoint", "--drain"],
        &["stop", "pumps", "--savepoint", "/tmp/x"],
        &["stop", "pumps", "--savepoint=/tmp/x", "--wait"],
        &["rescale", "pumps", "-p", "2", "--operator", "a=1", "--operator", "b=2"],
        &["cluster", "start", "--tier", "gateway:hall-1", "--tier", "cloud", "--port", "0"],
        &["sp", "ls"],
    ];
    for args in right {
        if let Err(error) = Cli::try_parse_from([&["efctl"], args].concat()) {
            panic!("{args:?}: {error}");
        }
    }
}

#[test]
fn the_command_line_is_consistent_and_completion_knows_all_of_it() {
    Cli::command().debug_assert();
    let mut script = vec![];
    clap_complete::generate(clap_complete::Shell::Bash, &mut Cli::command(), "efctl", &mut script);
    let script = String::from_utf8(script).expect("text");
    let words = [
        "submit",
        "get",
        "describe",
        "events",
        "logs",
        "top",
        "checkpoint",
        "savepoint",
        "rescale",
        "stop",
        "cancel",
        "cordon",
        "uncordon",
        "drain",
        "cluster",
        "--from-savepoint",
        "--dry-run",
        "--wait",
        "--coordinator",
    ];
    for word in words {
        assert!(script.contains(word), "`{word}` is not in the script");
    }
    assert!(!script.contains("--test-"), "what is for tests only is not shown");
}

#[test]
fn an_address_on_another_machine_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let connection = |args: &[&str]| -> Connection {
            let cli = Cli::try_parse_from([&["efctl", "version"], args].concat()).expect("right");
            cli.connection
        };
        let refused = Session::open(&connection(&["--coordinator", "http://10.0.0.1:7070"])).map(|_| ());
        assert!(matches!(refused, Err(Exit::Usage(message)) if message.contains("--insecure")));
        assert!(Session::open(&connection(&["--coordinator", "http://10.0.0.1:7070", "--insecure"])).is_ok());
    });
}
