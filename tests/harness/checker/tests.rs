//! Negative controls: the output of a tiny model of the job passes, and with any one fault in it does not.

use super::store;
use super::*;
use crate::workload::{Workload, ndjson};
use ef_proto::checkpoint::{Layout, Manifest, OperatorState, StateFile, SubtaskState, path};
use ef_proto::ids::{Epoch, Incarnation, JobId, OperatorId};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SEED: u64 = 4711;

/// What a job of two subtasks has left that was restarted once, and taken over from a savepoint once.
struct Model {
    work: TempDir,
    job: Job,
    input: Vec<Row>,
}

/// Deployments: writer, incarnation, and how many partitions it read.
const DEPLOYMENTS: [(&str, u64, u32); 3] = [("aaaa", 1, 4), ("aaaa", 3, 4), ("bbbb", 1, 4)];

impl Model {
    fn new() -> Model {
        let work = tempfile::tempdir().expect("a temporary directory");
        let job = Job::new(work.path());
        let model = Model { input: Workload::new(SEED).partitions(12), job, work };
        for folder in [model.job.echo(), model.job.sums(), model.job.windows()] {
            std::fs::create_dir(folder).expect("writable");
        }
        model.write();
        model
    }

    fn write(&self) {
        let mut sums: BTreeMap<u32, (i64, i64)> = BTreeMap::new();
        let mut from = 0;
        for (number, (writer, incarnation, partitions)) in DEPLOYMENTS.into_iter().enumerate() {
            for (counter, partition) in (from..from + partitions).enumerate() {
                let rows: Vec<&Row> = self.input.iter().filter(|row| row.partition == partition).collect();
                let (mut echo, mut changes) = (String::new(), [String::new(), String::new()]);
                for row in rows {
                    let Row { source, partition, seq, key, amount, .. } = row;
                    let k = key_text(*key);
                    echo += &format!(
                        r#"{{"source":"{source}","partition":{partition},"seq":{seq},"k":"{k}","amount":{amount}}}"#
                    );
                    echo.push('\n');
                    let text = &mut changes[(key % 2) as usize];
                    let mut change = |op: &str, (n, total): (i64, i64)| {
                        *text +=
                            &format!("{{\"op\":\"{op}\",\"data\":{{\"k\":\"{k}\",\"n\":{n},\"total\":{total}}}}}\n");
                    };
                    match sums.get_mut(key) {
                        None => {
                            change("+I", (1, *amount));
                            sums.insert(*key, (1, *amount));
                        }
                        Some(sum) => {
                            change("-U", *sum);
                            *sum = (sum.0 + 1, sum.1 + amount);
                            change("+U", *sum);
                        }
                    }
                }
                let name = |subtask: u32| format!("part-{writer}-{incarnation}-{subtask}-{counter}.json");
                put(&self.job.echo().join(name(partition % 2)), &echo);
                changes.iter().zip(0..).for_each(|(text, subtask)| put(&self.job.sums().join(name(subtask)), text));
            }
            from += partitions;
            if number == 1 {
                put(&self.job.windows().join("part-aaaa-3-0-0.json"), &self.windows(true));
            }
        }
        put(&self.job.windows().join("part-bbbb-1-0-0.json"), &self.windows(false));
        put(&self.job.windows().join(".published-aaaa-0"), "7\n");
    }

    /// The windows before the takeover, or those after it.
    fn windows(&self, before: bool) -> String {
        let mut windows: BTreeMap<(i64, u32), Vec<i64>> = BTreeMap::new();
        for row in &self.input {
            windows.entry((row.window(), row.key)).or_default().push(row.amount);
        }
        let takeover = crate::events::BASE_MS + 6000;
        let line = |((start, key), amounts): (&(i64, u32), &Vec<i64>)| {
            let (k, start, n) = (key_text(*key), timestamp(*start), amounts.len());
            let (total, lo, hi) = (amounts.iter().sum::<i64>(), amounts.iter().min(), amounts.iter().max());
            let (lo, hi) = (lo.expect("not empty"), hi.expect("not empty"));
            format!(r#"{{"k":"{k}","window_start":"{start}","n":{n},"total":{total},"lo":{lo},"hi":{hi}}}"#) + "\n"
        };
        windows.iter().filter(|((start, _), _)| (*start < takeover) == before).map(line).collect()
    }

    fn check(&self) -> Result<Checked, String> {
        let mut outputs = Outputs::of(&self.job);
        // The takeover was seen when only the first writer's files were there.
        for output in outputs.all_mut() {
            let Output::Files(output) = output else { unreachable!("the model writes files") };
            output.writers = BTreeMap::from([("aaaa".to_string(), 0)]);
            output.generation = 1;
        }
        outputs.check(SEED, &self.input)
    }

    /// Breaks one file by a change of its lines; the check must name the fault.
    #[track_caller]
    fn caught(file: &str, fault: &str, change: impl FnOnce(&mut Vec<String>)) {
        let model = Model::new();
        let path = model.work.path().join(file);
        let mut lines: Vec<String> = std::fs::read_to_string(&path).expect("there").lines().map(String::from).collect();
        change(&mut lines);
        put(&path, &lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        model.is_caught(fault);
    }

    #[track_caller]
    fn is_caught(&self, fault: &str) {
        let text = self.check().expect_err(fault);
        assert!(text.contains(fault) && text.contains("EDGEFLOW_SEED=4711"), "`{fault}` expected in {text}");
    }
}

fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("below a directory")).expect("writable");
    std::fs::write(path, text).expect("writable");
}

#[test]
fn what_the_model_writes_passes() {
    let model = Model::new();
    let checked = model.check().expect("nothing is wrong");
    let Checked { rows, changes, windows, leftovers } = checked;
    assert_eq!((rows, leftovers), (2400, 0));
    assert!(changes > 4000 && windows > 200, "{checked:?}");
    // Left over by an attempt that came to nothing: told, and no fault.
    put(&model.job.echo().join(".part-aaaa-2-0-0.inprogress"), "{");
    assert_eq!(model.check().expect("it is hidden").leftovers, 1);
}

#[test]
fn lost_row_is_caught() {
    Model::caught("echo/part-aaaa-3-1-1.json", "row lost", |lines| drop(lines.remove(17)));
    Model::caught("echo/part-bbbb-1-1-3.json", "row lost", |lines| drop(lines.pop()));
}

#[test]
fn doubled_row_is_caught() {
    Model::caught("echo/part-aaaa-1-0-0.json", "row came again", |lines| lines.push(lines[3].clone()));
}

#[test]
fn files_of_a_whole_epoch_that_came_twice_are_caught() {
    let model = Model::new();
    let text = std::fs::read_to_string(model.job.echo().join("part-aaaa-1-0-2.json")).expect("there");
    put(&model.job.echo().join("part-aaaa-3-0-7.json"), &text);
    model.is_caught("row came again: 200");
}

#[test]
fn row_that_nobody_sent_and_row_with_other_values_are_caught() {
    let file = "echo/part-aaaa-1-1-1.json";
    Model::caught(file, "row that was never sent", |lines| {
        lines.push(r#"{"source":"a","partition":1,"seq":4000,"k":"key-1","amount":1}"#.into());
    });
    Model::caught(file, "row with other values", |lines| {
        let at = lines[0].find("\"amount\":").expect("a column");
        lines[0].replace_range(at.., "\"amount\":10001}");
    });
}

#[test]
fn rows_out_of_order_are_caught() {
    Model::caught("echo/part-bbbb-1-0-0.json", "row out of order", |lines| lines.swap(5, 6));
    // Across deployments: what the second wrote stands before what the first did.
    let model = Model::new();
    let echo = model.job.echo();
    let (early, late) = (echo.join("part-aaaa-1-0-2.json"), echo.join("part-aaaa-3-0-2.json"));
    let text = std::fs::read_to_string(&early).expect("there");
    let (first, second) = text.split_at(text.len() / 2 + text[text.len() / 2..].find('\n').expect("lines") + 1);
    put(&late, &(std::fs::read_to_string(&late).expect("there") + first));
    put(&early, second);
    model.is_caught("row out of order");
}

#[test]
fn partition_that_two_subtasks_read_is_caught() {
    let model = Model::new();
    let echo = model.job.echo();
    let text = std::fs::read_to_string(echo.join("part-aaaa-1-0-2.json")).expect("there");
    let (first, second) =
        text.split_at(text.find("\"seq\":100,").and_then(|at| text[..at].rfind('\n')).expect("rows") + 1);
    put(&echo.join("part-aaaa-1-0-2.json"), first);
    put(&echo.join("part-aaaa-1-1-9.json"), second);
    model.is_caught("partition read by two subtasks at once");
}

#[test]
fn wrong_sum_is_caught() {
    // A change that is missing shows in the chain; a last one also in the sum.
    Model::caught("sums/part-aaaa-1-0-1.json", "change that does not fit", |lines| drop(lines.remove(40)));
    Model::caught("sums/part-bbbb-1-1-3.json", "sum lost", |lines| drop(lines.pop()));
    Model::caught("sums/part-bbbb-1-1-3.json", "wrong sum", |lines| {
        let last = lines.last_mut().expect("changes");
        let at = last.rfind("\"total\":").expect("a column");
        last.replace_range(at.., "\"total\":0}}");
    });
}

#[test]
fn sums_that_were_counted_again_from_an_older_state_are_caught() {
    let model = Model::new();
    let sums = model.job.sums();
    let text = std::fs::read_to_string(sums.join("part-aaaa-1-0-1.json")).expect("there");
    put(&sums.join("part-aaaa-2-0-0.json"), &text);
    model.is_caught("sum that goes back");
}

#[test]
fn windows_doubled_lost_wrong_and_of_nothing_are_caught() {
    let file = "windows/part-aaaa-3-0-0.json";
    Model::caught(file, "window came again", |lines| lines.push(lines[9].clone()));
    Model::caught(file, "window lost", |lines| drop(lines.remove(9)));
    Model::caught(file, "wrong window", |lines| lines[9] = lines[9].replace("\"n\":", "\"n\":1"));
    Model::caught(file, "window of nothing", |lines| lines[9] = lines[9].replace("key-", "key-9"));
    Model::caught(file, "window that is none", |lines| lines[9] = "{}".into());
}

#[test]
fn what_can_be_seen_and_is_not_committed_is_caught() {
    Model::caught("echo/part-aaaa-1-0-0.json", "line that is no JSON", |lines| lines[2].truncate(20));
    let model = Model::new();
    let path = model.job.echo().join("part-aaaa-1-0-0.json");
    let text = std::fs::read_to_string(&path).expect("there");
    put(&path, text.trim_end());
    model.is_caught("visible file without an end");
    let model = Model::new();
    put(&model.job.sums().join("part-aaaa-1-0-1.inprogress"), "x\n");
    model.is_caught("visible file that is no part");
}

#[test]
fn only_the_first_few_of_a_kind_are_told() {
    let model = Model::new();
    put(&model.job.echo().join("part-aaaa-1-0-0.json"), &ndjson(&[]));
    let text = model.check().expect_err("200 rows are lost");
    assert!(text.contains("row lost: 200\n    a/0/0\n    a/0/1\n"), "{text}");
    assert!(text.lines().count() < 20, "{text}");
}

#[test]
fn visible_rows_are_counted_once_as_they_come() {
    let model = Model::new();
    let mut outputs = Outputs::of(&model.job);
    assert_eq!((outputs.rows_visible(), outputs.rows_visible()), (2400, 2400));
    put(&model.job.echo().join("part-cccc-1-0-0.json"), "{}\n");
    put(&model.job.echo().join(".part-cccc-1-0-1.inprogress"), "{}\n");
    assert_eq!(outputs.rows_visible(), 2401);
}

/// The store of a job with checkpoints 3 and 4, which share a file.
struct StoreModel {
    work: TempDir,
}

const SHARED: &str = "shared/0000000000000001/0/db/1-3-000001.sst";
const NEWEST: &str = "shared/0000000000000001/0/db/1-4-000002.sst";

impl StoreModel {
    fn new() -> StoreModel {
        let model = StoreModel { work: tempfile::tempdir().expect("a temporary directory") };
        for (epoch, files) in [(3, vec![SHARED]), (4, vec![SHARED, NEWEST])] {
            model.manifest(epoch, epoch, &files);
            files.iter().for_each(|file| put(&model.at(file), file));
        }
        for note in ["job.json", "incarnations/00000000000000000001", "finished/00000000000000000004"] {
            put(&model.at(note), "");
        }
        model
    }

    fn at(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn manifest(&self, named: u64, epoch: u64, files: &[&str]) {
        let keyed = files.iter().map(|file| StateFile {
            path: file.to_string(),
            name: "x".into(),
            bytes: file.len() as u64,
            crc32: crc32fast::hash(file.as_bytes()),
        });
        let subtask =
            SubtaskState { key_groups: 0..128, layout: Layout::RocksDb, keyed: keyed.collect(), ..Default::default() };
        let operator =
            OperatorState { id: OperatorId(1), name: "count".into(), parallelism: 1, subtasks: vec![subtask] };
        let manifest = Manifest {
            job: JobId("job".into()),
            incarnation: Incarnation(1),
            epoch: Epoch(epoch),
            triggered_at_ms: 1,
            terminal: false,
            max_parallelism: 128,
            operators: vec![operator],
        };
        let at = self.at(&path::manifest(Epoch(named)));
        std::fs::create_dir_all(at.parent().expect("below the root")).expect("writable");
        std::fs::write(at, manifest.encode()).expect("writable");
    }

    fn findings(&self, retained: &[u64]) -> Findings {
        let mut findings = Findings::default();
        store::check(self.work.path(), &BTreeSet::from_iter(retained.iter().copied()), &mut findings);
        findings
    }

    #[track_caller]
    fn is_caught(&self, retained: &[u64], fault: &str) {
        let findings = self.findings(retained);
        let expected = BTreeMap::from([(fault, 1)]);
        assert_eq!(findings.counts(), expected, "{findings:?}");
    }
}

#[test]
fn store_that_holds_what_its_checkpoints_need_passes() {
    let findings = StoreModel::new().findings(&[3, 4]);
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn leaked_files_and_manifests_are_caught() {
    let model = StoreModel::new();
    put(&model.at("shared/0000000000000001/0/db/1-2-000000.sst"), "old");
    model.is_caught(&[3, 4], "state file leaked");
    // Not retained any more, and still there; its file is in use by the other one.
    StoreModel::new().is_caught(&[4], "manifest leaked");
}

#[test]
fn unreachable_and_damaged_files_are_caught() {
    let model = StoreModel::new();
    std::fs::remove_file(model.at(SHARED)).expect("there");
    model.is_caught(&[3, 4], "state file unreachable");
    let model = StoreModel::new();
    put(&model.at(NEWEST), "other bytes");
    model.is_caught(&[3, 4], "state file damaged");
}

#[test]
fn manifests_that_are_missing_damaged_or_of_another_epoch_are_caught() {
    StoreModel::new().is_caught(&[3, 4, 5], "manifest of a retained checkpoint missing");
    let model = StoreModel::new();
    let at = model.at(&path::manifest(Epoch(3)));
    let mut bytes = std::fs::read(&at).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(at, bytes).expect("writable");
    model.is_caught(&[3, 4], "manifest that cannot be read");
    let model = StoreModel::new();
    model.manifest(3, 2, &[SHARED]);
    model.is_caught(&[3, 4], "manifest of another epoch");
}

#[test]
fn retained_checkpoints_are_those_that_the_coordinator_says() {
    let rows: Value = serde_json::from_str(
        r#"[{"epoch":3,"state":"COMPLETED","retained":false},{"epoch":4,"state":"COMPLETED","retained":true},
            {"epoch":5,"state":"IN_PROGRESS","retained":false}]"#,
    )
    .expect("JSON");
    assert_eq!(store::retained(rows.as_array().expect("an array")), BTreeSet::from([4]));
}
