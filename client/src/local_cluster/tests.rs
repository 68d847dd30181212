//! Local clusters whose programs are shell scripts: what is started, with which arguments, and that all of it ends.

use super::*;
use crate::remote::fake::Fake;
use std::process::Command;

/// A directory with an `ef-coordinator` that says it listens where the fake one does, and an `ef-worker`. Both write
/// down their arguments.
fn binaries(coordinator: &str, worker: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, body) in [("ef-coordinator", coordinator), ("ef-worker", worker)] {
        let path = directory.path().join(name);
        let script = format!("#!/bin/sh\necho \"$@\" >&2\n[ \"$3\" = --id ] && ID=$4\n{body}\n");
        let written = directory.path().join("script");
        std::fs::write(&written, script).expect("writable");
        // Another process makes the program: what this one has had open for writing, a child that another test is just
        // starting may still have, and such a program does not start.
        let made = Command::new("install").args(["-m", "755"]).arg(&written).arg(&path).status();
        assert!(made.expect("install is there").success());
    }
    directory
}

fn ready(fake: &Fake) -> String {
    let address = fake.url.trim_start_matches("http://");
    format!("echo ready grpc={address} http={address}; exec sleep 600")
}

const WORKER: &str = "echo ready worker=$ID data=127.0.0.1:9; exec sleep 600";

fn options(binaries: &tempfile::TempDir, workers: usize) -> Options {
    Options {
        binaries: binaries.path().to_path_buf(),
        workers,
        slots: 2,
        memory_bytes: 1 << 30,
        port: 0,
        data_dir: None,
        tiers: vec![],
    }
}

fn exists(id: u32) -> bool {
    Path::new(&format!("/proc/{id}")).exists()
}

#[tokio::test]
async fn all_processes_start_and_end_and_a_temporary_directory_goes_with_them() {
    let fake = Fake::start(|world| {
        world.worker("worker-1", "gateway");
        world.worker("worker-2", "cloud");
    });
    let binaries = binaries(&ready(&fake), WORKER);
    let tiers = vec![("gateway".to_string(), Some("hall-1".to_string())), ("cloud".to_string(), None)];
    let mut cluster = Cluster::start(Options { tiers, ..options(&binaries, 2) }).await.expect("it starts");
    assert_eq!(cluster.url, fake.url);
    assert!(cluster.deaths().is_empty());
    let read =
        |name: &str| std::fs::read_to_string(cluster.data_dir.join("logs").join(name)).expect("a log of each process");
    assert!(read("coordinator.log").contains("127.0.0.1:0 --data-dir"), "{}", read("coordinator.log"));
    let first = read("worker-1.log");
    assert!(first.contains(&format!("--coordinator {}", fake.url)), "{first}");
    assert!(first.contains("--slots 2 --memory 536870912 --tier gateway --site hall-1"), "{first}");
    assert!(read("worker-2.log").contains("--tier cloud\n"), "{}", read("worker-2.log"));
    let (processes, directory) = (cluster.processes(), cluster.data_dir.clone());
    assert!(processes.len() == 3 && processes.iter().all(|(_, id)| exists(*id)), "{processes:?}");
    cluster.stop().await;
    assert!(processes.iter().all(|(_, id)| !exists(*id)), "{processes:?}");
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_directory_that_was_given_is_kept_and_used_by_one_cluster_at_a_time() {
    let fake = Fake::start(|world| drop(world.worker("worker-1", "cloud").clone()));
    let binaries = binaries(&ready(&fake), WORKER);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let with_directory = || Options { data_dir: Some(directory.path().to_path_buf()), ..options(&binaries, 1) };
    let cluster = Cluster::start(with_directory()).await.expect("it starts");
    let error = Cluster::start(with_directory()).await.map(|_| ()).expect_err("it is taken");
    assert!(error.contains("another cluster"), "{error}");
    cluster.stop().await;
    assert!(directory.path().join("state").is_dir() && directory.path().join("logs/worker-1.log").is_file());
    // What the first one wrote does not count as the second one's being ready.
    Cluster::start(with_directory()).await.expect("it starts again").stop().await;
}

#[tokio::test]
async fn a_process_that_dies_is_reported_once_with_the_end_of_its_log() {
    let fake = Fake::start(|world| drop(world.worker("worker-1", "cloud").clone()));
    let fifo = tempfile::tempdir().expect("a temporary directory");
    let path = fifo.path().join("fifo");
    // It ends as soon as something is written to the pipe.
    let worker = format!(
        "mkfifo {0}; echo ready worker=$ID; read line < {0}; echo first >&2; echo last words >&2; exit 7",
        path.display()
    );
    let binaries = binaries(&ready(&fake), &worker);
    let mut cluster = Cluster::start(options(&binaries, 1)).await.expect("it starts");
    let id = cluster.processes()[1].1;
    tokio::task::spawn_blocking(move || std::fs::write(path, "go\n")).await.expect("no panic").expect("a reader");
    let death = loop {
        match cluster.deaths().pop() {
            Some(death) => break death,
            None => tokio::time::sleep(LOOK).await,
        }
    };
    assert!(!death.is_coordinator);
    let report = death.report;
    let ended = format!("worker-1 (process {id}) has ended with exit code 7");
    for part in [ended.as_str(), "worker-1.log", "\n  first\n  last words"] {
        assert!(report.contains(part), "`{part}` is not in {report}");
    }
    assert!(cluster.deaths().is_empty(), "it dies once");
    cluster.stop().await;
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_no_process() {
    let fake = Fake::start(|_| {});
    let failing = binaries("echo no such option >&2; exit 2", WORKER);
    let error = Cluster::start(options(&failing, 1)).await.map(|_| ()).expect_err("the coordinator fails");
    assert!(error.contains("coordinator (process") && error.contains("exit code 2"), "{error}");
    assert!(error.contains("no such option"), "{error}");

    let pids = tempfile::tempdir().expect("a temporary directory");
    let pid = pids.path().join("pid");
    let coordinator = format!("echo $$ > {}; {}", pid.display(), ready(&fake));
    let failing = binaries(&coordinator, "kill -9 $$");
    let error = Cluster::start(options(&failing, 2)).await.map(|_| ()).expect_err("the worker fails");
    assert!(error.contains("worker-1 (process") && error.contains("killed by signal 9"), "{error}");
    let id: u32 = std::fs::read_to_string(pid).expect("it ran").trim().parse().expect("a number");
    assert!(!exists(id), "the coordinator is gone, too");

    let empty = tempfile::tempdir().expect("a temporary directory");
    let error = Cluster::start(options(&empty, 1)).await.map(|_| ()).expect_err("nothing there");
    assert!(error.contains("`ef-coordinator` is not beside efctl"), "{error}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_before_anything_starts() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let binaries = binaries("exit 1", "exit 1");
    let error = Cluster::start(Options { port, ..options(&binaries, 1) }).await.map(|_| ()).expect_err("taken");
    assert!(error.contains(&format!("port {port} is not free")) && error.contains("--port 0"), "{error}");
}
