//! A node of one voter, from the outside: what it puts out, what it keeps over a restart, a crash and `kill -9`.

use super::*;
use ef_proto::error::{Code, Error};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::sync::mpsc::Receiver;

/// Set in a process that a test has started to be killed: the directory it works in.
const CHILD: &str = "EF_RAFT_TEST_DIRECTORY";
const SIGABRT: i32 = 6;
/// For a node that hangs; what is measured is never time.
const LIMIT: Duration = Duration::from_secs(60);

fn start(directory: &Path) -> Result<(Node, Receiver<Output>), Error> {
    Node::start(directory, Config::default())
}

/// The next output.
async fn next(outputs: &mut Receiver<Output>) -> Output {
    let output = tokio::time::timeout(LIMIT, outputs.recv()).await;
    output.expect("the node goes on").expect("the node runs")
}

/// What is put out before this start's `Leader`, and its term.
async fn until_leader(outputs: &mut Receiver<Output>) -> (Vec<Output>, u64) {
    let mut before = Vec::new();
    loop {
        match next(outputs).await {
            Output::Leader { term } => return (before, term),
            output => before.push(output),
        }
    }
}

async fn take(outputs: &mut Receiver<Output>, count: usize) -> Vec<Output> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(next(outputs).await);
    }
    taken
}

/// Proposes each and waits for it.
async fn append(node: &Node, outputs: &mut Receiver<Output>, data: impl IntoIterator<Item = String>) -> Vec<Output> {
    let mut applied = Vec::new();
    for data in data {
        node.propose(Bytes::from(data.clone())).expect("leads");
        applied.push(next(outputs).await);
        assert_eq!(texts(&applied[applied.len() - 1..]), [data]);
    }
    applied
}

fn numbered(from: u64, to: u64) -> impl Iterator<Item = String> {
    (from..to).map(|number| format!("entry {number}"))
}

fn texts(outputs: &[Output]) -> Vec<String> {
    let text = |output: &Output| match output {
        Output::Applied { data, .. } => String::from_utf8(data.to_vec()).expect("utf-8"),
        other => panic!("{other:?} instead of an entry"),
    };
    outputs.iter().map(text).collect()
}

fn index(output: &Output) -> u64 {
    match output {
        Output::Applied { index, .. } => *index,
        other => panic!("{other:?} instead of an entry"),
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("creates");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copies");
        }
    }
}

#[tokio::test]
async fn entries_come_back_after_a_restart_in_order_and_before_leadership() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (node, mut outputs) = start(scratch.path()).expect("starts");
    let (before, first_term) = until_leader(&mut outputs).await;
    assert!(before.is_empty(), "{before:?}");
    let applied = append(&node, &mut outputs, numbered(0, 40)).await;
    drop((node, outputs));

    for restart in 1..4 {
        let (node, mut outputs) = start(scratch.path()).expect("starts again");
        let (before, term) = until_leader(&mut outputs).await;
        assert_eq!(before, applied, "exactly those, each once");
        assert_eq!(term, first_term + restart, "each leadership has a term of its own");
        node.stop();
        assert_eq!(outputs.recv().await, None, "nothing more, and the directory is free");
    }
}

#[tokio::test]
async fn indexes_rise_and_terms_are_those_of_the_proposer() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let mut all = Vec::new();
    for _ in 0..3 {
        let (node, mut outputs) = start(scratch.path()).expect("starts");
        let (before, term) = until_leader(&mut outputs).await;
        assert_eq!(before, all);
        for output in append(&node, &mut outputs, numbered(0, 3)).await {
            assert!(matches!(output, Output::Applied { term: proposed, .. } if proposed == term), "{output:?}");
            all.push(output);
        }
    }
    assert!(all.is_sorted_by(|a, b| index(a) < index(b)), "{all:?}");
}

#[tokio::test]
async fn compacted_log_restarts_from_the_snapshot_and_the_tail() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (node, mut outputs) = start(scratch.path()).expect("starts");
    until_leader(&mut outputs).await;
    let applied = append(&node, &mut outputs, numbered(0, 30)).await;
    let at = index(&applied[19]);
    node.compact(at, Bytes::from("state after 20"));
    // What is taken in later is done later: when this is out, the snapshot is kept.
    let mut tail = applied[20..].to_vec();
    tail.extend(append(&node, &mut outputs, numbered(30, 31)).await);
    node.stop();

    let entries_on_disk = |directory: &Path| {
        let families = ["default", log::LOG, log::META];
        let db =
            rocksdb::DB::open_cf_for_read_only(&rocksdb::Options::default(), directory.join("log"), families, false);
        let db = db.expect("opens");
        db.iterator_cf(db.cf_handle(log::LOG).expect("opened"), rocksdb::IteratorMode::Start).count()
    };
    assert_eq!(entries_on_disk(scratch.path()), 11, "entries up to the snapshot are gone");

    for _ in 0..2 {
        let (node, mut outputs) = start(scratch.path()).expect("starts again");
        let (before, _) = until_leader(&mut outputs).await;
        assert_eq!(before[0], Output::Restored { index: at, data: Bytes::from("state after 20") });
        assert_eq!(before[1..], tail);
        drop((node, outputs));
    }
}

#[tokio::test]
async fn everything_may_be_compacted_and_the_log_goes_on() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    for round in 0..3u64 {
        let (node, mut outputs) = start(scratch.path()).expect("starts");
        let (before, _) = until_leader(&mut outputs).await;
        let applied = append(&node, &mut outputs, numbered(round * 10, round * 10 + 10)).await;
        node.compact(index(&applied[9]), Bytes::from(format!("state {round}")));
        append(&node, &mut outputs, ["after".to_string()]).await;
        node.stop();
        match (round, &before[..]) {
            (0, []) => {}
            (_, [Output::Restored { data, .. }, after]) => {
                assert_eq!(*data, Bytes::from(format!("state {}", round - 1)));
                assert_eq!(texts(std::slice::from_ref(after)), ["after"]);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn copy_of_a_running_node_has_all_that_was_put_out() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let original = scratch.path().join("original");
    let (node, mut outputs) = start(&original).expect("starts");
    until_leader(&mut outputs).await;
    let mut applied = Vec::new();
    for round in 0..4 {
        applied.extend(append(&node, &mut outputs, numbered(round * 25, round * 25 + 25)).await);
        if round == 1 {
            node.compact(index(&applied[29]), Bytes::from("thirty"));
        }
        // What a power loss would leave: nothing was closed or flushed.
        let copied = scratch.path().join(format!("copy {round}"));
        copy(&original, &copied);
        let (_copy, mut outputs) = start(&copied).expect("the copy starts");
        let (mut before, _) = until_leader(&mut outputs).await;
        let mut expected = &applied[..];
        if let Output::Restored { index: at, data } = &before[0] {
            assert_eq!((*at, &data[..]), (index(&applied[29]), &b"thirty"[..]));
            expected = &applied[30..];
            before.remove(0);
        }
        assert_eq!(before, expected, "in copy {round}");
    }
}

#[tokio::test]
async fn only_proposals_of_a_permitted_size_are_taken() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (node, mut outputs) = start(scratch.path()).expect("starts");
    until_leader(&mut outputs).await;
    for bytes in [0, PROPOSAL_BYTES_MAX + 1] {
        let error = node.propose(Bytes::from(vec![7; bytes])).expect_err("not permitted");
        assert_eq!(error.code, Code::Invalid);
        assert_eq!(error.message, format!("a proposal has 1 to 1048576 bytes, not {bytes}"));
    }
    let largest = Bytes::from(vec![7; PROPOSAL_BYTES_MAX]);
    node.propose(largest.clone()).expect("permitted");
    assert!(matches!(next(&mut outputs).await, Output::Applied { data, .. } if data == largest));
}

#[tokio::test]
async fn proposals_that_wait_together_are_written_together() {
    const PROPOSALS: u64 = 10_000;
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (node, mut outputs) = start(scratch.path()).expect("starts");
    until_leader(&mut outputs).await;
    let before = node.counts();
    // Nobody reads the outputs, so that the node soon waits for us, and the proposals for it.
    for data in numbered(0, PROPOSALS) {
        node.propose(Bytes::from(data)).expect("there is room for these");
    }
    let applied = take(&mut outputs, PROPOSALS as usize).await;
    assert_eq!(texts(&applied), numbered(0, PROPOSALS).collect::<Vec<_>>());
    let after = node.counts();
    let synced = after.synced_writes - before.synced_writes;
    assert!(synced <= after.readies - before.readies, "more than one synced write per round: {before:?} {after:?}");
    assert!((1..100).contains(&synced), "{synced} synced writes for {PROPOSALS} proposals");
    assert!(after.commit_writes - before.commit_writes <= synced, "{before:?} {after:?}");
}

#[tokio::test]
async fn each_write_of_entries_is_one_synced_write() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (node, mut outputs) = start(scratch.path()).expect("starts");
    until_leader(&mut outputs).await;
    let before = node.counts();
    append(&node, &mut outputs, numbered(0, 20)).await;
    let after = node.counts();
    // Each is waited for before the next, so nothing can be written together, and nothing needs two.
    assert_eq!(after.synced_writes - before.synced_writes, 20);
    assert_eq!(after.commit_writes - before.commit_writes, 20);
}

#[tokio::test]
async fn full_queue_refuses_and_keeps_what_it_took() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (node, mut outputs) = start(scratch.path()).expect("starts");
    until_leader(&mut outputs).await;
    let mut taken = Vec::new();
    let error = loop {
        let data = Bytes::from(vec![taken.len() as u8; PROPOSAL_BYTES_MAX]);
        match node.propose(data.clone()) {
            Ok(()) => taken.push(data),
            Err(error) => break error,
        }
        assert!(taken.len() < 100, "a queue without a bound");
    };
    assert_eq!(error.code, Code::Unavailable);
    for expected in taken {
        assert!(matches!(next(&mut outputs).await, Output::Applied { data, .. } if data == expected));
    }
    node.propose(Bytes::from("again")).expect("there is room again");
}

#[tokio::test]
async fn second_opener_of_a_directory_is_refused() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (node, outputs) = start(scratch.path()).expect("starts");
    let error = start(scratch.path()).expect_err("is in use");
    assert_eq!(error.code, Code::Conflict);
    assert!(error.message.contains(&scratch.path().display().to_string()), "{error}");
    drop((node, outputs));
    start(scratch.path()).expect("is free again");
}

#[tokio::test]
async fn damaged_log_is_refused_at_the_start() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (node, mut outputs) = start(scratch.path()).expect("starts");
    until_leader(&mut outputs).await;
    let at = index(&append(&node, &mut outputs, numbered(0, 5)).await[2]);
    node.stop();
    let families = ["default", log::LOG, log::META];
    let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), scratch.path().join("log"), families).expect("opens");
    db.put_cf(db.cf_handle(log::LOG).expect("opened"), at.to_be_bytes(), b"something else").expect("writes");
    drop(db);
    let error = start(scratch.path()).expect_err("is damaged");
    assert_eq!(error.code, Code::Corrupt);
    assert!(error.message.contains(&format!("entry {at} does not match its checksum")), "{error}");
}

#[tokio::test]
async fn config_that_cannot_work_is_refused() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    for config in [Config { id: 0, ..Config::default() }, Config { tick: Duration::ZERO, ..Config::default() }] {
        assert_eq!(Node::start(scratch.path(), config).expect_err("refused").code, Code::Invalid);
    }
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_consumer_that_reads_no_more() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (node, mut outputs) = start(scratch.path()).expect("starts");
    until_leader(&mut outputs).await;
    for data in numbered(0, 100) {
        node.propose(Bytes::from(data)).expect("room");
    }
    while outputs.len() < outputs.max_capacity() {
        tokio::task::yield_now().await;
    }
    node.stop();
}

#[tokio::test]
async fn node_without_a_consumer_stops() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let (node, mut outputs) = start(scratch.path()).expect("starts");
    until_leader(&mut outputs).await;
    drop(outputs);
    let stopped = Error::new(Code::Unavailable, "the replicated log has stopped");
    let notices = async {
        // Until then it is taken, or refused because the queue is full.
        while node.propose(Bytes::from("nobody hears this")) != Err(stopped.clone()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, notices).await.expect("it notices");
}

#[tokio::test]
async fn nothing_is_taken_in_before_leadership_is_said() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    {
        let (node, mut outputs) = start(scratch.path()).expect("starts");
        until_leader(&mut outputs).await;
        append(&node, &mut outputs, numbered(0, 40)).await;
    }
    // More than fits the queue of outputs: the node cannot have said that it leads before we read them.
    let (node, mut outputs) = start(scratch.path()).expect("starts");
    assert_eq!(node.propose(Bytes::from("early")).expect_err("not yet").code, Code::NotLeader);
    let (before, _) = until_leader(&mut outputs).await;
    assert_eq!(texts(&before), numbered(0, 40).collect::<Vec<_>>());
    append(&node, &mut outputs, ["late".to_string()]).await;
}

/// Runs one test of this file again, in a process of its own.
struct Killed(Child);

impl Killed {
    fn start(test: &str, directory: &OsStr) -> Killed {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", &format!("raft::tests::{test}"), "--nocapture"]);
        command.env(CHILD, directory).stdout(Stdio::piped()).stderr(Stdio::null());
        Killed(command.spawn().expect("starts"))
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_was_put_out_survives_kill_9() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return append_for_ever(Path::new(&directory)).await;
    }
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let mut printed: Vec<String> = Vec::new();
    for (round, lines) in [300, 7, 1000].into_iter().enumerate() {
        let mut child = Killed::start("what_was_put_out_survives_kill_9", scratch.path().as_os_str());
        let mut out = BufReader::new(child.0.stdout.take().expect("piped"));
        let mut line = String::new();
        let mut told = 0;
        while out.read_line(&mut line).expect("readable") > 0 {
            // The last line may be cut by the kill: then it was not said. libtest writes without line ends before.
            if let Some((_, entry)) = line.strip_suffix('\n').and_then(|line| line.split_once("applied ")) {
                printed.push(entry.to_string());
                told += 1;
            }
            line.clear();
            if told == lines {
                child.0.kill().expect("kills");
            }
        }
        drop(child);
        let (_node, mut outputs) = start(scratch.path()).expect("starts after kill -9");
        let (before, _) = until_leader(&mut outputs).await;
        let kept: Vec<String> =
            before.iter().zip(texts(&before)).map(|(output, text)| format!("{} {text}", index(output))).collect();
        assert!(kept.starts_with(&printed), "round {round}: {} were told, {} kept", printed.len(), kept.len());
        // Those that were on disk and not told yet come as well; from here on they are.
        printed = kept;
    }
}

/// Tells each entry when it is out, of ever more that wait together.
async fn append_for_ever(directory: &Path) {
    let (node, mut outputs) = start(directory).expect("starts");
    until_leader(&mut outputs).await;
    let mut number = 0;
    loop {
        let count = number % 50 + 1;
        for data in numbered(number, number + count) {
            node.propose(Bytes::from(data)).expect("room");
        }
        number += count;
        for output in take(&mut outputs, count as usize).await {
            println!("applied {} {}", index(&output), texts(std::slice::from_ref(&output))[0]);
        }
    }
}

#[tokio::test]
async fn a_panic_of_the_raft_thread_ends_the_process() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let (node, mut outputs) = start(Path::new(&directory)).expect("starts");
        until_leader(&mut outputs).await;
        // A state of entries that were never put out: only a bug of ours can have it.
        node.compact(1_000_000, Bytes::from("impossible"));
        while outputs.recv().await.is_some() {}
        return;
    }
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let mut child = Killed::start("a_panic_of_the_raft_thread_ends_the_process", scratch.path().as_os_str());
    let status = child.0.wait().expect("ends");
    assert_eq!(status.signal(), Some(SIGABRT), "{status}");
}
