//! One agent: what it does when it is told to leave at a bad moment.

use super::*;
use crate::agent::testing::plan;
use ef_proto::checkpoint::{Manifest, OperatorState, StateFile};
use ef_proto::connector::SinkConnector;
use ef_proto::ids::{Incarnation, JobId};
use ef_proto::rpc::Placement;
use std::fs::File;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

fn start(scratch: &Path) -> AgentHandle {
    let id = DeploymentId { job: JobId("job".into()), region: 0, incarnation: Incarnation(2) };
    let config = WorkerConfig {
        memory_bytes: 64 << 20,
        slots: 1,
        work_dir: scratch.join("work"),
        secrets: Default::default(),
        durable_dir: None,
        bugs: crate::config::Bugs::default(),
    };
    let root = Root::open(&Location::Directory(scratch.join("state")), &Options::default(), Patience::Full);
    Agent::start(id, config, Arc::new(|| 0), root.expect("a directory"))
}

fn deploy_from(restore: Option<Manifest>) -> Command {
    let plan = plan(SinkConnector::Blackhole);
    let placement = Placement::solo(&plan);
    let (plan, state) = (plan.encode(), String::new());
    Command::Deploy(Box::new(Deploy { plan, placement, restore, state, slots: 1, stop: None }))
}

/// The first source's state is in a file of this name.
fn manifest(path: &str) -> Manifest {
    let file = StateFile { path: path.into(), name: "file".into(), bytes: 1, crc32: 0 };
    let state = SubtaskState { key_groups: 0..128, keyed: vec![file], ..SubtaskState::default() };
    let operator = OperatorState { id: OperatorId(1), name: "Source".into(), parallelism: 1, subtasks: vec![state] };
    Manifest {
        job: JobId("job".into()),
        incarnation: Incarnation(1),
        epoch: Epoch(1),
        triggered_at_ms: 0,
        terminal: false,
        max_parallelism: 128,
        operators: vec![operator],
    }
}

#[test]
fn deployment_that_waits_for_its_state_leaves_at_once() {
    let scratch = tempfile::tempdir().expect("a directory");
    let pipe = scratch.path().join("state/pipe");
    std::fs::create_dir_all(scratch.path().join("state")).expect("ours");
    let name = std::ffi::CString::new(pipe.to_str().expect("text")).expect("no zero in it");
    // SAFETY: the name is a string that ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut agent = start(scratch.path());
        // Whoever opens it waits until somebody writes to it.
        agent.commands.send(deploy_from(Some(manifest("pipe")))).await.expect("it listens");
        agent.commands.send(Command::Cancel).await.expect("it listens");
        let event = timeout(Duration::from_secs(4), agent.events.recv()).await.expect("nobody writes to it");
        assert_eq!(event, Some(Event::Stopped));
    });
    // The thread that waits is the runtime's, which waits for it in turn.
    let open = File::options().read(true).write(true).open(&pipe).expect("opens");
    drop(runtime);
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_is_the_last_word_whenever_the_cancel_comes() {
    // Before the deploy has begun, while tasks are being started, or when they run: the more of them, the later.
    for pauses in 0..20 {
        let scratch = tempfile::tempdir().expect("a directory");
        let mut agent = start(scratch.path());
        agent.commands.send(deploy_from(None)).await.expect("it listens");
        for _ in 0..pauses * pauses {
            tokio::task::yield_now().await;
        }
        agent.commands.send(Command::Cancel).await.expect("it listens");
        let mut events = Vec::new();
        while events.last() != Some(&Event::Stopped) {
            events.push(timeout(SOON, agent.events.recv()).await.expect("it ends").expect("it says so"));
        }
        assert!(matches!(events[..], [Event::Stopped] | [Event::Running, Event::Stopped]), "{events:?}");
        let left = || std::fs::read_dir(scratch.path().join("work")).map_or(0, |work| work.count());
        assert_eq!(left(), 0, "nobody is left who could write there");
    }
}
