//! The client against a fake coordinator: what errors become, when a call is made again, streams over lost connections,
//! and waits.

use super::fake::{Fake, World};
use super::*;
use std::collections::BTreeMap;
use tonic::metadata::MetadataValue;

fn client(fake: &Fake) -> Client {
    Client::connect(&fake.url, false).expect("a URL")
}

fn pumps(world: &mut World) {
    world.job("pumps-1", "pumps", "RUNNING");
}

fn not_leader() -> Status {
    let mut status = Status::unavailable("c2 leads");
    status.metadata_mut().insert("ef-code", MetadataValue::from_static("not-leader"));
    status
}

fn request(job: &str) -> JobRequest {
    JobRequest { job: job.into() }
}

fn submit() -> SubmitRequest {
    SubmitRequest { name: "pumps".into(), ..SubmitRequest::default() }
}

/// A URL at which nobody listens: a port that the system never gives out, of a service that is long gone.
const NOBODY: &str = "http://127.0.0.1:1";

/// How often each method was called.
fn counts(world: &World) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for (method, _) in &world.calls {
        *counts.entry(*method).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn other_machines_are_refused_without_encryption_unless_told_otherwise() {
    let error = Client::connect("http://10.1.2.3:7070", false).map(|_| ()).expect_err("refused");
    assert!(error.code == Code::Invalid && error.message.contains("--insecure"), "{error}");
    Client::connect("http://10.1.2.3:7070", true).expect("as asked");
    let error = Client::connect(" , ", false).map(|_| ()).expect_err("nothing there");
    assert!(error.message.contains("no URL"), "{error}");
}

#[tokio::test]
async fn errors_of_the_coordinator_arrive_as_they_were_made() {
    let fake = Fake::start(pumps);
    let error = client(&fake).describe_job(request("nobody")).await.expect_err("not there");
    assert_eq!(error, Error::new(Code::NotFound, "there is no job `nobody`"));
    fake.change(|world| world.failures.push_back(Status::failed_precondition("it has ended")));
    let error = client(&fake).submit(submit()).await.expect_err("refused");
    assert_eq!(error, Error::new(Code::Conflict, "it has ended"));
}

#[tokio::test]
async fn a_coordinator_that_is_not_there_is_named() {
    let error = Client::connect(NOBODY, false).expect("a URL").submit(submit()).await.expect_err("nobody listens");
    assert!(is_unreachable(&error) && error.message.contains(NOBODY) && error.message.contains("refused"), "{error}");
}

#[tokio::test]
async fn calls_go_to_the_coordinator_that_is_there_and_leads() {
    let (follower, leader) = (Fake::start(pumps), Fake::start(pumps));
    follower.change(|world| world.failures.push_back(not_leader()));
    let urls = format!("{},{},{}", NOBODY, follower.url, leader.url);
    let client = Client::connect(&urls, false).expect("URLs");
    client.submit(submit()).await.expect("the third leads");
    assert_eq!(counts(&follower.world())["submit"], 1);
    client.describe_job(request("pumps")).await.expect("asked directly");
    assert_eq!(counts(&follower.world()).get("describe_job"), None, "the leader is asked first from now on");
    assert_eq!(counts(&leader.world())["describe_job"], 1);
}

#[tokio::test]
async fn an_election_is_waited_for() {
    let fake = Fake::start(pumps);
    fake.change(|world| world.failures.extend([not_leader(), not_leader()]));
    client(&fake).submit(submit()).await.expect("it leads after a while");
    assert_eq!(counts(&fake.world())["submit"], 3);
}

#[tokio::test]
async fn calls_that_read_survive_a_coordinator_that_was_restarted() {
    let mut fake = Fake::start(pumps);
    let client = client(&fake);
    client.describe_job(request("pumps")).await.expect("there");
    fake.restart();
    client.describe_job(request("pumps")).await.expect("there again");
}

#[tokio::test]
async fn waiting_follows_a_job_by_its_id_to_one_of_the_states() {
    let fake = Fake::start(pumps);
    fake.change(|world| world.states.extend(["PENDING", "DEPLOYING", "RUNNING", "RUNNING"]));
    let found = client(&fake).wait_for("pumps", &["RUNNING"], None).await.expect("no error");
    assert!(matches!(&found, Waited::Done(job) if job.state == "RUNNING"), "{found:?}");
    let world = fake.world();
    let asked = world.asked("describe_job");
    assert_eq!(asked.len(), 3);
    assert!(asked[0].contains("\"pumps\"") && asked[2].contains("\"pumps-1\""), "{asked:?}");
}

#[tokio::test]
async fn waiting_ends_with_a_job_that_has_ended_and_at_the_limit() {
    let fake = Fake::start(pumps);
    let client = client(&fake);
    let found = client.wait_for("pumps", &["STOPPING"], Some(Duration::ZERO)).await.expect("no error");
    assert!(matches!(&found, Waited::Limit(job) if job.state == "RUNNING"), "{found:?}");
    fake.change(|world| world.states.push_back("FAILED"));
    let found = client.wait_for("pumps", &["RUNNING"], Some(Duration::from_secs(60))).await.expect("no error");
    assert!(matches!(&found, Waited::Done(job) if job.state == "FAILED"), "{found:?}");
    let error = client.wait_for("nobody", &["RUNNING"], None).await.expect_err("not there");
    assert_eq!(error.code, Code::NotFound);
}

#[tokio::test]
async fn waiting_outlives_a_coordinator_that_is_away_for_a_while() {
    let fake = Fake::start(pumps);
    let client = client(&fake);
    let away = Status::unavailable("shutting down");
    let mut looks = 0;
    let found = client
        .until(None, async |client| {
            looks += 1;
            if looks == 2 {
                fake.change(|world| world.failures.push_back(away.clone()));
            }
            let job = client.describe_job(request("pumps")).await?;
            Ok(if looks == 4 { std::ops::ControlFlow::Break(job) } else { std::ops::ControlFlow::Continue(job) })
        })
        .await
        .expect("the error passes");
    assert!(matches!(found, Waited::Done(_)));
    // But not one that was never there.
    fake.change(|world| world.failures.push_back(away));
    let error = client.wait_for("pumps", &["RUNNING"], None).await.expect_err("the first look fails");
    assert_eq!(error.code, Code::Unavailable);
}

#[tokio::test]
async fn a_limit_holds_while_a_look_hangs() {
    let fake = Fake::start(pumps);
    let mut looks = 0;
    let found = client(&fake)
        .until(Some(Duration::from_millis(150)), async |_| {
            looks += 1;
            if looks > 1 {
                std::future::pending::<()>().await;
            }
            Ok(std::ops::ControlFlow::Continue(looks))
        })
        .await;
    assert_eq!(found, Ok(Waited::Limit(1)));
}

#[tokio::test]
async fn savepoints_are_waited_for() {
    let fake = Fake::start(|world| {
        pumps(world);
        world.savepoint_states.extend(["IN_PROGRESS", "COMPLETED"]);
    });
    let client = client(&fake);
    let request = CreateSavepointRequest { job: "pumps".into(), ..CreateSavepointRequest::default() };
    let savepoint = client.create_savepoint(request).await.expect("started");
    assert_eq!(savepoint.state, "IN_PROGRESS");
    let found = client.wait_savepoint(&savepoint.id, None).await.expect("no error");
    assert!(matches!(&found, Waited::Done(done) if done.state == "COMPLETED"), "{found:?}");
}

async fn next(events: &mut Follow<JobEvent>) -> u64 {
    events.next().await.expect("no error").expect("not at its end").sequence
}

#[tokio::test]
async fn events_go_on_where_a_lost_connection_cut_them() {
    let mut fake = Fake::start(|world| {
        pumps(world);
        (1..=5).for_each(|n| world.event(n, "STATE", "same words"));
        world.cuts.extend([2, 1, 4]);
    });
    let mut events = client(&fake).watch_events("pumps", true);
    for sequence in 1..=5 {
        assert_eq!(next(&mut events).await, sequence);
    }
    assert_eq!(counts(&fake.world())["watch_events"], 4, "three streams were cut");
    // The whole process goes, and its successor has one event more and has forgotten the first.
    fake.stop();
    fake.change(|world| {
        world.events.remove(0);
        world.event(6, "STATE", "same words");
    });
    fake.restart();
    assert_eq!(next(&mut events).await, 6);
    // A successor that begins to count again has something new to say.
    fake.stop();
    fake.change(|world| {
        world.events.clear();
        world.event(1, "STATE", "after the fall");
        world.jobs[0].job.as_mut().expect("made with one").state = "FINISHED".into();
    });
    fake.restart();
    assert_eq!(next(&mut events).await, 1);
    assert_eq!(events.next().await, Ok(None), "the job has ended");
}

#[tokio::test]
async fn events_of_an_unknown_job_or_an_absent_coordinator_are_an_error_at_once() {
    let fake = Fake::start(pumps);
    let error = client(&fake).watch_events("nobody", true).next().await.expect_err("not there");
    assert_eq!(error.code, Code::NotFound);
    let absent = Client::connect(NOBODY, false).expect("a URL");
    let error = absent.watch_events("pumps", true).next().await.expect_err("nobody listens");
    assert!(is_unreachable(&error), "{error}");
}

#[tokio::test]
async fn log_lines_come_once_though_they_have_no_numbers() {
    let fake = Fake::start(|world| {
        pumps(world);
        // The same line twice in one millisecond is two lines.
        for (at, worker) in [(1, "w1"), (1, "w1"), (1, "w2"), (2, "w1")] {
            world.log(at, worker, "late row");
        }
        world.cuts.extend([3]);
    });
    let mut logs = client(&fake).logs("pumps", "", false);
    let mut found = vec![];
    while let Some(line) = logs.next().await.expect("no error") {
        found.push((line.at_ms, line.worker));
    }
    let expected = [(1, "w1"), (1, "w1"), (1, "w2"), (2, "w1")].map(|(at, worker)| (at, worker.to_string()));
    assert_eq!(found, expected);
    // Going on with another stream of the same.
    fake.change(|world| world.log(3, "w1", "more"));
    let request = LogsRequest { job: "pumps".into(), worker: String::new(), follow: true };
    let line = logs.go_on_with(request).next().await.expect("no error").expect("a line");
    assert_eq!((line.at_ms, line.message.as_str()), (3, "more"));
}
