//! submit, get jobs, describe job, events, logs, top, rescale, stop, cancel.

use super::*;
use ef_proto::wire::generated::control::{JobEvent, Rescaled, StateMapping};
use std::path::Path;

const SQL: &str = "CREATE TABLE n (v BIGINT) WITH ('connector' = 'filesystem', 'path' = '${in}', 'format' = 'json');
    CREATE TABLE out_ (v BIGINT) WITH ('connector' = 'blackhole');
    INSERT INTO out_ SELECT v FROM n WHERE v > 1";

/// `pumps.sql` in a directory of its own.
fn file(sql: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("pumps.sql");
    std::fs::write(&path, sql).expect("writable");
    let path = path.display().to_string();
    (directory, path)
}

#[tokio::test]
async fn submit_sends_text_variables_and_name() {
    let fake = Fake::start(|_| {});
    let (_directory, path) = file(SQL);
    let out = efctl(&fake, &["submit", &path, "-D", "in=/data", "-p", "3"]).await.done();
    assert_eq!(out, "job pumps-1 (pumps) submitted\n");
    let out = efctl(&fake, &["submit", &path, "-D", "in=/data", "--name", "it's mine"]).await.done();
    assert_eq!(out, "job it's mine-1 (it's mine) submitted\n");
    let world = fake.world();
    let asked = world.asked("submit");
    assert_has(asked[0], &["parallelism: Some(3)", "\"in\": \"/data\"", "INSERT INTO", "dry_run: false"]);
    assert!(!asked[1].contains("pipeline.name"), "{}", asked[1]);
}

#[tokio::test]
async fn the_name_on_the_command_line_is_above_that_of_the_file() {
    let fake = Fake::start(|_| {});
    let (_directory, path) = file(&format!("SET 'pipeline.name' = 'from file';\n{SQL} -- the end"));
    efctl(&fake, &["submit", &path, "-D", "in=/data"]).await.done();
    efctl(&fake, &["submit", &path, "-D", "in=/data", "--name", "it's mine"]).await.done();
    let world = fake.world();
    let asked = world.asked("submit");
    assert_has(asked[0], &["name: \"from file\""]);
    assert_has(asked[1], &["name: \"it's mine\"", "-- the end\\n;\\nSET 'pipeline.name' = 'it''s mine';\\n"]);
    // And what was made of it plans to that name.
    let sql = format!("SET 'pipeline.name' = 'from file';\n{SQL} -- the end\n;\nSET 'pipeline.name' = 'it''s mine';\n");
    let vars = [("in".to_string(), "/data".to_string())].into();
    assert_eq!(ef_client::embedded::plan(&sql, &vars, "x", None).expect("it plans").name, "it's mine");
}

#[tokio::test]
async fn bad_sql_is_told_with_its_place_and_never_sent() {
    let fake = Fake::start(|_| {});
    let (_directory, path) = file(&SQL.replace("v > 1", "w > 1"));
    let message = efctl(&fake, &["submit", &path, "-D", "in=/data"]).await.failed(2);
    assert!(message.contains("line 3") || message.contains("3:"), "{message}");
    assert!(fake.world().calls.is_empty());
    let message = efctl(&fake, &["submit", "/no/such/file.sql"]).await.failed(2);
    assert!(message.contains("cannot read /no/such/file.sql"), "{message}");
}

#[tokio::test]
async fn submit_sends_what_the_inference_runtime_said_of_the_models() {
    let fake = Fake::start(|_| {});
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    let (sql, model) = (demo.join("pumps.sql").display().to_string(), demo.join("pumps.onnx").display().to_string());
    let vars = [format!("model={model}"), "rows=1".into(), "rows_per_second=1".into(), "verdicts=/tmp/v".into()];
    let mut args = vec!["submit", &sql];
    args.extend(vars.iter().flat_map(|var| ["-D", var]));
    efctl(&fake, &args).await.done();
    assert_has(fake.world().asked("submit")[0], &[&format!("models: {{\"{model}\": [")]);
}

#[tokio::test]
async fn submit_waits_for_the_end_and_tells_events_meanwhile() {
    let fake = Fake::start(|world| {
        world.states.extend(["DEPLOYING", "RUNNING", "FINISHED"]);
        world.event(1, "STATE", "the job is running");
    });
    let (_directory, path) = file(SQL);
    let ran = efctl(&fake, &["submit", &path, "-D", "in=/data", "--wait"]).await;
    assert_has(&ran.err, &["1970-01-01T00:00:01.000Z  STATE       the job is running"]);
    assert_eq!(ran.done(), "job pumps-1 (pumps) submitted\njob pumps-1 (pumps) finished\n");
}

#[tokio::test]
async fn submit_that_waits_fails_with_the_jobs_cause() {
    let fake = Fake::start(|world| world.states.extend(["RUNNING"]));
    let (_directory, path) = file(SQL);
    let efctl = Efctl::new();
    let args = ["submit", &path, "-D", "in=/data", "--wait=1min"];
    let (exit, ()) = tokio::join!(efctl.run(&fake.url, &args), async {
        efctl.out.has("submitted").await;
        fake.change(|world| {
            world.events.push(JobEvent { message: "the last words".into(), ..JobEvent::default() });
            let job = world.jobs[0].job.as_mut().expect("made with one");
            (job.state, job.cause) = ("FAILED".into(), "sink: disk full".into());
            world.states.clear();
        });
    });
    assert_eq!(exit, Exit::Failed("job pumps-1 (pumps) failed: sink: disk full".into()));
    assert_has(&efctl.err.text(), &["the last words"]);
}

#[tokio::test]
async fn a_limit_leaves_the_job_running_and_is_exit_code_4() {
    let fake = Fake::start(|_| {});
    let (_directory, path) = file(SQL);
    let message = efctl(&fake, &["submit", &path, "-D", "in=/data", "--wait=10ms"]).await.failed(4);
    assert_eq!(message, "job pumps-1 (pumps) is PENDING after 10ms");
    assert!(fake.world().asked("cancel_job").is_empty());
}

#[tokio::test]
async fn ctrl_c_leaves_the_job_running_and_says_how_to_end_it() {
    let fake = Fake::start(|_| {});
    let (_directory, path) = file(SQL);
    let efctl = Efctl::new();
    efctl.interrupt.notify_one();
    let exit = efctl.run(&fake.url, &["submit", &path, "-D", "in=/data", "--wait"]).await;
    assert_eq!(exit, Exit::Interrupted);
    assert_has(&efctl.err.text(), &["job pumps-1 goes on", "efctl stop pumps-1", "efctl cancel pumps-1"]);
}

#[tokio::test]
async fn a_dry_run_with_a_savepoint_shows_where_its_state_goes() {
    let operator = |name: &str, old, new, starts_empty| StateMapping {
        operator: format!("id-{name}"),
        name: name.into(),
        old_parallelism: old,
        new_parallelism: new,
        bytes: 1_000,
        starts_empty,
    };
    let fake = Fake::start(|world| {
        world.mapping = vec![operator("Agg", 2, 4, false), operator("Old", 2, 0, false), operator("New", 0, 4, true)];
        world
            .savepoints
            .push(ef_proto::wire::generated::control::Savepoint { id: "sp-1".into(), ..Default::default() });
    });
    let (_directory, path) = file(SQL);
    let args = ["submit", &path, "-D", "in=/data", "--from-savepoint", "sp-1", "--dry-run"];
    let out = efctl(&fake, &args).await.done();
    assert_has(
        &out,
        &[
            "Sink(out)",
            "id-Agg     Agg    2 -> 4",
            "left behind",
            "starts empty",
            "1 restored, 1 left behind, 1 start empty",
        ],
    );
    assert!(fake.world().jobs.is_empty());
    let args = ["submit", &path, "-D", "in=/data", "--from-savepoint", "nothing", "--allow-non-restored-state"];
    efctl(&fake, &args).await.failed(3);
    assert_has(fake.world().asked("submit")[1], &["allow_non_restored_state: true"]);
}

#[tokio::test]
async fn jobs_are_listed_as_table_json_and_yaml() {
    let fake = Fake::start(|world| {
        small(world);
        world.job("gates-1", "gates", "FAILED").job.as_mut().expect("made with one").cause = "a: b".into();
    });
    let table = efctl(&fake, &["get", "jobs"]).await.done();
    let expected = "\
ID        NAME    STATE     PARALLELISM   WORKERS   RESTARTS   CHECKPOINT   AGE
pumps-1   pumps   RUNNING   2             1         0          -            9s
gates-1   gates   FAILED    2             1         0          -            9s
";
    assert_eq!(table, expected);
    let one = efctl(&fake, &["get", "job", "gates", "-o", "wide"]).await.done();
    assert!(one.contains("a: b") && !one.contains("pumps"), "{one}");
    let all: serde_json::Value =
        serde_json::from_str(&efctl(&fake, &["get", "j", "-o", "json"]).await.done()).expect("JSON");
    assert_eq!(
        (&all[0]["id"], &all[1]["state"], all.as_array().map(Vec::len)),
        (&"pumps-1".into(), &"FAILED".into(), Some(2))
    );
    let one = efctl(&fake, &["get", "jobs", "gates", "-o", "json"]).await.done();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&one).expect("JSON")["name"], "gates");
    let yaml = efctl(&fake, &["get", "jobs", "gates", "-o", "yaml"]).await.done();
    assert_has(&yaml, &["id: gates-1\n", "cause: \"a: b\"\n", "parallelism: 2\n"]);
    fake.change(|world| world.jobs.clear());
    let none = efctl(&fake, &["get", "jobs"]).await;
    assert_eq!(none.err, "no jobs found\n");
    assert_eq!(none.done(), "");
}

#[tokio::test]
async fn watching_prints_the_rows_that_change() {
    let mut fake = Fake::start(small);
    let efctl = Efctl::new();
    let url = fake.url.clone();
    tokio::select! {
        exit = efctl.run(&url, &["get", "jobs", "-w"]) => panic!("it ended with {exit:?}"),
        () = async {
            efctl.out.has("RUNNING").await;
            fake.stop();
            efctl.err.has("trying again").await;
            fake.change(|world| world.jobs[0].job.as_mut().expect("made with one").state = "FAILED".into());
            fake.restart();
            efctl.out.has("FAILED").await;
        } => {}
    }
    let out = efctl.out.text();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("ID ") && lines[2].contains("FAILED"), "{out}");
    assert_has(&efctl.err.text(), &["the coordinator is back"]);
}

#[tokio::test]
async fn watching_as_json_prints_a_line_for_each_change() {
    let fake = Fake::start(small);
    let efctl = Efctl::new();
    tokio::select! {
        exit = efctl.run(&fake.url, &["get", "jobs", "-w", "-o", "json"]) => panic!("it ended with {exit:?}"),
        () = async {
            efctl.out.has("RUNNING").await;
            fake.change(|world| world.jobs[0].job.as_mut().expect("made with one").state = "FAILED".into());
            efctl.out.has("FAILED").await;
        } => {}
    }
    let out = efctl.out.text();
    let states: Vec<String> = out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["state"].to_string())
        .collect();
    assert_eq!(states, ["\"RUNNING\"", "\"FAILED\""]);
}

#[tokio::test]
async fn describe_tells_of_a_job_in_words_and_as_data() {
    let fake = Fake::start(small);
    assert_has(
        &efctl(&fake, &["describe", "job", "pumps"]).await.done(),
        &["Name:           pumps", "Job pumps", "Events"],
    );
    let yaml = efctl(&fake, &["describe", "job", "pumps", "-o", "yaml"]).await.done();
    assert_has(&yaml, &["job:\n  cause: \"\"\n", "  id: pumps-1\n"]);
}

#[tokio::test]
async fn events_and_logs_are_lines() {
    let fake = Fake::start(|world| {
        small(world);
        world.event(1, "STATE", "running");
        world.event(2, "CHECKPOINT", "1 completed");
        for n in 1..=5 {
            world.log(n, if n % 2 == 0 { "w2" } else { "w1" }, &format!("line {n}"));
        }
    });
    let out = efctl(&fake, &["events", "pumps"]).await.done();
    assert_eq!(out.lines().count(), 2);
    assert_has(&out, &["1970-01-01T00:00:02.000Z  CHECKPOINT  1 completed\n"]);
    let out = efctl(&fake, &["logs", "pumps", "--tail", "2"]).await.done();
    assert_eq!(out, "1970-01-01T00:00:00.004Z  w2  INFO   line 4\n1970-01-01T00:00:00.005Z  w1  INFO   line 5\n");
    let out = efctl(&fake, &["logs", "pumps", "--worker", "w2"]).await.done();
    assert_eq!(out.lines().count(), 2);
    // Following after a tail shows neither the lines before it nor any twice.
    let efctl = Efctl::new();
    tokio::select! {
        exit = efctl.run(&fake.url, &["logs", "pumps", "-f", "--tail", "1"]) => panic!("it ended with {exit:?}"),
        () = async {
            efctl.out.has("line 5").await;
            fake.change(|world| world.log(6, "w1", "line 6"));
            efctl.out.has("line 6").await;
        } => {}
    }
    assert_eq!(efctl.out.text().lines().count(), 2, "{}", efctl.out.text());
}

#[tokio::test]
async fn following_events_ends_with_the_job() {
    let fake = Fake::start(|world| {
        small(world);
        world.event(1, "STATE", "running");
    });
    let efctl = Efctl::new();
    let (exit, ()) = tokio::join!(efctl.run(&fake.url, &["events", "pumps", "-f"]), async {
        efctl.out.has("running").await;
        fake.change(|world| {
            world.event(2, "STATE", "finished");
            world.jobs[0].job.as_mut().expect("made with one").state = "FINISHED".into();
        });
    });
    assert_eq!(exit, Exit::Done);
    assert_has(&efctl.out.text(), &["finished"]);
}

#[tokio::test]
async fn top_prints_once_where_there_is_no_terminal() {
    let fake = Fake::start(|world| {
        small(world);
        world.job("old-1", "old", "FINISHED");
    });
    let out = efctl(&fake, &["top"]).await.done();
    assert_has(&out, &["term 3: 1 of 1 workers ready, 4 of 4 slots free, 1 of 2 jobs running", "pumps-1", "w1"]);
    assert!(!out.contains("old-1") && !out.contains('\x1b'), "{out}");
    let out = efctl(&fake, &["top", "workers", "--once"]).await.done();
    assert!(out.contains("w1") && !out.contains("pumps-1"), "{out}");
}

#[tokio::test]
async fn rescale_prints_what_changes_and_waits_for_it() {
    let operator = |name: &str, old_parallelism, new_parallelism| Rescaled {
        id: format!("id-{name}"),
        name: name.into(),
        old_parallelism,
        new_parallelism,
    };
    let fake = Fake::start(|world| {
        small(world);
        world.rescaled = vec![operator("Agg", 2, 4), operator("Sink", 1, 1)];
    });
    let out = efctl(&fake, &["rescale", "pumps", "-p", "4", "--operator", "Sink=1", "--dry-run"]).await.done();
    let expected = "\
OPERATOR   NAME   PARALLELISM
id-Agg     Agg    2 -> 4
id-Sink    Sink   1
job pumps-1: 6 subtasks would restart, 2 go on (dry run)
";
    assert_eq!(out, expected);
    assert_has(fake.world().asked("rescale_job")[0], &["parallelism: Some(4)", "\"Sink\": 1"]);
    fake.change(|world| world.states.extend(["RESTARTING", "RUNNING"]));
    let out = efctl(&fake, &["rescale", "pumps", "-p", "4", "--wait"]).await.done();
    assert!(out.ends_with("2 go on\njob pumps-1 (pumps) rescaled\n"), "{out}");
    fake.change(|world| world.states.extend(["RESTARTING", "FAILED"]));
    let message = efctl(&fake, &["rescale", "pumps", "-p", "4", "--wait"]).await.failed(1);
    assert_eq!(message, "job pumps-1 (pumps) failed");
    let twice = ["rescale", "pumps", "--operator", "a=1", "--operator", "a=2"];
    assert_has(&efctl(&fake, &twice).await.failed(2), &["`a` is given twice"]);
}

#[tokio::test]
async fn stop_leaves_a_savepoint_where_it_is_asked_to() {
    let fake = Fake::start(small);
    assert_eq!(efctl(&fake, &["stop", "pumps"]).await.done(), "job pumps-1 stopping\n");
    fake.change(|world| {
        world.event(1, "STATE", "old news");
        world.states.extend(["STOPPING", "FINISHED"]);
        world.savepoint_states.extend(["IN_PROGRESS", "COMPLETED"]);
    });
    let ran = efctl(&fake, &["stop", "pumps", "--savepoint", "/save", "--drain", "--wait"]).await;
    assert_eq!(ran.err, "", "what happened before is not told");
    let out = ran.done();
    let expected = "\
job pumps-1 stopping with savepoint sp-1
savepoint sp-1 completed in 1.00s: 2000.0kB in /save/savepoint-pumps-1-sp-1
job pumps-1 (pumps) stopped
";
    assert_eq!(out, expected);
    let world = fake.world();
    let asked = world.asked("stop_job");
    assert_has(asked[0], &["savepoint: None", "drain: false"]);
    assert_has(asked[1], &["savepoint: Some(\"/save\")", "drain: true"]);
}

#[tokio::test]
async fn stop_that_waits_fails_with_the_job_or_its_savepoint() {
    let fake = Fake::start(small);
    fake.change(|world| {
        world.states.extend(["FINISHED"]);
        world.savepoint_states.extend(["FAILED"]);
    });
    let message = efctl(&fake, &["stop", "pumps", "--savepoint", "--wait"]).await.failed(1);
    assert_eq!(message, "savepoint sp-1 is FAILED: -");
    fake.change(|world| world.states.extend(["FAILED"]));
    let message = efctl(&fake, &["stop", "pumps", "--wait"]).await.failed(1);
    assert_eq!(message, "job pumps-1 (pumps) failed");
}

#[tokio::test]
async fn cancel_ends_a_job() {
    let fake = Fake::start(small);
    assert_eq!(efctl(&fake, &["cancel", "pumps"]).await.done(), "job pumps-1 cancelling\n");
    fake.change(|world| world.states.extend(["CANCELLING", "CANCELLED"]));
    let out = efctl(&fake, &["cancel", "pumps", "--wait=1min"]).await.done();
    assert_eq!(out, "job pumps-1 cancelling\njob pumps-1 (pumps) cancelled\n");
}
