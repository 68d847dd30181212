//! The loop around raft-rs: gives it proposals and ticks, and does what it says in the order that makes it safe.
//!
//! Of each `Ready`, in this order:
//!   1. messages of a leader are sent: followers may write while we do;
//!   2. a snapshot from the leader, new entries and the hard state (term, vote, commit index) are written in ONE batch
//!      and synced: before that nobody may learn of the entries or of the vote;
//!   3. the snapshot, then the committed entries are put out: committed means on the disks of a majority;
//!   4. messages of a follower or candidate are sent, as they speak of what is now on disk;
//!   5. `advance` tells raft all this. It answers with what that committed: the commit index is written (not synced:
//!      a commit index that is lost is found again from the entries, which are not), then messages, then entries as
//!      above.
//!
//! Nothing else may be asked of raft between `ready` and `advance_apply`.
//!
//! A consumer that does not keep up stops the loop, ticks and all: a leader whose state does not move on should lose
//! its leadership rather than hold it.

use super::Output;
use super::counts::Counters;
use super::inbox::Inbox;
use super::log::{Change, Log};
use super::logger;
use super::peers::Peers;
use bytes::Bytes;
use ef_proto::error::{Code, Error};
use raft::StateRole;
use raft::prelude::{Entry, EntryType, RawNode, Snapshot};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// Proposals that go into one `Ready`, so into one write: some of the largest, or thousands of usual ones.
const BATCH_BYTES: usize = 2 << 20;
/// Entries that wait for a majority; until it has them, proposals stay in the inbox and fill it.
const UNCOMMITTED_BYTES: usize = 16 << 20;
/// Committed entries in memory at once, and entries in one message to a follower.
const READ_BYTES: u64 = 1 << 20;

pub struct Driver {
    raft: RawNode<Log>,
    peers: Peers,
    inbox: Arc<Inbox>,
    outputs: mpsc::Sender<Output>,
    counters: Arc<Counters>,
    /// The term in which we have said that we lead.
    leads: Option<u64>,
}

/// Why the loop has ended.
enum End {
    /// It was told to, or nobody listens any more.
    Stopped,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        End::Failed(error)
    }
}

impl Driver {
    pub fn new(
        log: Log,
        id: u64,
        inbox: Arc<Inbox>,
        outputs: mpsc::Sender<Output>,
        counters: Arc<Counters>,
    ) -> Result<Driver, Error> {
        let config = raft::Config {
            id,
            heartbeat_tick: 2,
            election_tick: 10,
            // The consumer keeps nothing over a restart but the snapshot: it gets all after it again.
            applied: log.snapshot_index(),
            max_size_per_msg: READ_BYTES,
            max_inflight_msgs: 64,
            max_uncommitted_size: UNCOMMITTED_BYTES as u64,
            max_committed_size_per_ready: READ_BYTES,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        let raft = RawNode::new(&config, log, &logger::to_tracing())
            .map_err(|e| Error::invalid(format!("cannot start raft node {id}: {e}")))?;
        Ok(Driver { raft, peers: Peers, inbox, outputs, counters, leads: None })
    }

    /// Runs until it is told to stop. An error means that the log cannot be trusted to be on disk.
    pub async fn run(mut self, tick: Duration) -> Result<(), Error> {
        match self.work(tick).await {
            Err(End::Stopped) => Ok(()),
            Err(End::Failed(error)) => Err(error),
            Ok(never) => match never {},
        }
    }

    async fn work(&mut self, tick: Duration) -> Result<Infallible, End> {
        self.restore().await?;
        // All that is known to be committed comes first, in bounded pieces: an election reads what is left at once.
        while self.raft.has_ready() {
            self.process_ready().await?;
        }
        if self.raft.store().is_sole_voter(self.raft.raft.id) {
            // There is no leader whose heartbeats to wait for.
            self.raft.campaign().map_err(|e| internal("stand for election", &e))?;
        }
        let mut ticks = tokio::time::interval(tick);
        // Ticks count the time in which this node was able to hear others, not the time it was stopped or slow.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let busy = self.raft.has_ready();
            tokio::select! {
                biased;
                _ = ticks.tick() => {
                    self.raft.tick();
                }
                () = self.inbox.changed(), if !busy => {}
                () = std::future::ready(()), if busy => {}
            }
            // Before work is taken: proposals of a leadership that is over must not go to the next leader.
            self.watch_leadership().await?;
            self.take_work()?;
            if self.raft.has_ready() {
                self.process_ready().await?;
            }
        }
    }

    /// Puts out the state of the snapshot, if there is one.
    async fn restore(&mut self) -> Result<(), End> {
        let index = self.raft.store().snapshot_index();
        if index == 0 {
            return Ok(());
        }
        let data = Bytes::from(self.raft.store().snapshot_data()?);
        self.put_out(Output::Restored { index, data }).await
    }

    fn take_work(&mut self) -> Result<(), End> {
        // raft drops what exceeds this; taken no further than that, nothing is ever dropped.
        let room = UNCOMMITTED_BYTES.saturating_sub(self.raft.raft.uncommitted_size());
        let work = self.inbox.take(room.min(BATCH_BYTES));
        if work.stop {
            return Err(End::Stopped);
        }
        for data in work.proposals {
            self.raft.propose(Vec::new(), Vec::from(data)).map_err(|e| internal("append a proposal", &e))?;
        }
        if let Some((index, state)) = work.compaction {
            let applied = self.raft.raft.raft_log.applied;
            assert!(index <= applied, "a state as of index {index}, but only {applied} has been put out");
            self.raft.mut_store().compact(index, &state)?;
        }
        Ok(())
    }

    /// See the head of this file for the order.
    async fn process_ready(&mut self) -> Result<(), End> {
        self.watch_leadership().await?;
        self.counters.ready();
        let mut ready = self.raft.ready();
        self.peers.send(ready.take_messages());

        let snapshot = Some(ready.snapshot().clone()).filter(|snapshot| !snapshot.is_empty());
        let entries = ready.take_entries();
        let change = Change { snapshot: snapshot.as_ref(), entries: &entries, hard_state: ready.hs() };
        self.raft.mut_store().save(change, ready.must_sync())?;
        drop(entries);

        if let Some(Snapshot { data, metadata }) = snapshot {
            let index = metadata.unwrap_or_default().index;
            self.put_out(Output::Restored { index, data: data.into() }).await?;
        }
        self.apply(ready.take_committed_entries()).await?;
        self.peers.send(ready.take_persisted_messages());

        let mut light = self.raft.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.raft.mut_store().commit(commit)?;
        }
        self.peers.send(light.take_messages());
        self.apply(light.take_committed_entries()).await?;
        self.raft.advance_apply();
        Ok(())
    }

    async fn apply(&mut self, entries: Vec<Entry>) -> Result<(), End> {
        for Entry { entry_type, index, term, data, .. } in entries {
            // The log refuses others when it is opened, and nobody proposes them.
            assert_eq!(entry_type, EntryType::EntryNormal as i32, "entry {index} changes the membership");
            if !data.is_empty() {
                self.put_out(Output::Applied { index, term, data: data.into() }).await?;
            } else if term == self.raft.raft.term && self.raft.raft.state == StateRole::Leader {
                // A leader's first entry. Only now does it know that all that former leaders have committed has been
                // put out.
                self.leads = Some(term);
                self.inbox.lead();
                tracing::info!(term, "leads the replicated log");
                self.put_out(Output::Leader { term }).await?;
            }
        }
        Ok(())
    }

    /// Says so when leadership was lost.
    async fn watch_leadership(&mut self) -> Result<(), End> {
        let (term, role) = (self.raft.raft.term, self.raft.raft.state);
        if self.leads.is_none_or(|led| led == term && role == StateRole::Leader) {
            return Ok(());
        }
        self.leads = None;
        let forgotten = self.inbox.follow();
        tracing::warn!(term, forgotten, "lost the leadership of the replicated log, and the proposals that waited");
        self.put_out(Output::Follower { term }).await
    }

    /// Waits while the consumer is behind, but not for ever.
    async fn put_out(&mut self, output: Output) -> Result<(), End> {
        tokio::select! {
            biased;
            () = self.inbox.stopping() => Err(End::Stopped),
            sent = self.outputs.send(output) => sent.map_err(|_| End::Stopped),
        }
    }
}

fn internal(what: &str, error: &raft::Error) -> Error {
    Error::new(Code::Internal, format!("raft cannot {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::prelude::{ConfState, Message, MessageType, SnapshotMetadata};
    use std::path::Path;

    fn driver(directory: &Path) -> (Driver, mpsc::Receiver<Output>) {
        let counters = Arc::new(Counters::default());
        let log = Log::open(directory, 1, counters.clone()).expect("opens");
        let (sender, outputs) = mpsc::channel(64);
        (Driver::new(log, 1, Arc::default(), sender, counters).expect("starts"), outputs)
    }

    async fn settle(driver: &mut Driver) {
        while driver.raft.has_ready() {
            assert!(driver.process_ready().await.is_ok());
        }
        assert!(driver.watch_leadership().await.is_ok());
    }

    async fn elect(driver: &mut Driver) {
        driver.raft.campaign().expect("may stand");
        settle(driver).await;
    }

    /// From a node that a group of one does not have; what is answered goes nowhere.
    async fn hear(driver: &mut Driver, message: Message, kind: MessageType) {
        driver.raft.raft.step(Message { from: 2, to: 1, msg_type: kind as i32, ..message }).expect("is heard");
        settle(driver).await;
    }

    #[tokio::test]
    async fn lost_leadership_is_said_and_what_waited_is_forgotten() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let (mut driver, mut outputs) = driver(scratch.path());
        elect(&mut driver).await;
        assert_eq!(outputs.try_recv(), Ok(Output::Leader { term: 1 }));
        driver.inbox.propose(Bytes::from("waits")).expect("leads");
        hear(&mut driver, Message { term: 5, ..Message::default() }, MessageType::MsgRequestVoteResponse).await;
        assert_eq!(outputs.try_recv(), Ok(Output::Follower { term: 5 }));
        assert_eq!(driver.inbox.propose(Bytes::from("late")).map_err(|e| e.code), Err(Code::NotLeader));

        elect(&mut driver).await;
        assert_eq!(outputs.try_recv(), Ok(Output::Leader { term: 6 }));
        assert!(driver.take_work().is_ok());
        settle(&mut driver).await;
        assert!(outputs.try_recv().is_err(), "a proposal of the former leadership");
        driver.inbox.propose(Bytes::from("new")).expect("leads again");
        assert!(driver.take_work().is_ok());
        settle(&mut driver).await;
        assert_eq!(outputs.try_recv(), Ok(Output::Applied { index: 3, term: 6, data: Bytes::from("new") }));
    }

    #[tokio::test]
    async fn snapshot_of_a_leader_replaces_all_and_survives_a_restart() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let restored = Output::Restored { index: 40, data: Bytes::from("forty") };
        {
            let (mut driver, mut outputs) = driver(scratch.path());
            elect(&mut driver).await;
            assert_eq!(outputs.try_recv(), Ok(Output::Leader { term: 1 }));
            let conf_state = Some(ConfState { voters: vec![1], ..ConfState::default() });
            let metadata = Some(SnapshotMetadata { conf_state, index: 40, term: 7 });
            let snapshot = Some(Snapshot { data: b"forty".to_vec(), metadata });
            hear(&mut driver, Message { term: 7, snapshot, ..Message::default() }, MessageType::MsgSnapshot).await;
            assert_eq!(outputs.try_recv(), Ok(Output::Follower { term: 7 }));
            assert_eq!(outputs.try_recv(), Ok(restored.clone()));
        }
        let (mut driver, mut outputs) = driver(scratch.path());
        assert!(matches!(driver.restore().await, Ok(())));
        assert_eq!(outputs.try_recv(), Ok(restored));
        elect(&mut driver).await;
        driver.inbox.propose(Bytes::from("more")).expect("leads");
        assert!(driver.take_work().is_ok());
        settle(&mut driver).await;
        assert_eq!(outputs.try_recv(), Ok(Output::Leader { term: 8 }));
        assert_eq!(outputs.try_recv(), Ok(Output::Applied { index: 42, term: 8, data: Bytes::from("more") }));
    }
}
