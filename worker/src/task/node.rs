//! One operator in a task's tree, with its store and its outputs: passes batches, watermarks, barriers and the end
//! through itself and then to all below it.

use super::outputs::Outputs;
use super::{Control, Exit, NodeSnapshot};
use crate::connector::{CommitPermit, Published, Sink};
use crate::error::{Code, Error, Result};
use crate::exchange::Gate;
use crate::frame::{Barrier, END_OF_TIME};
use crate::metrics::OperatorMetrics;
use crate::operator::{Operator, Scope};
use crate::state::{Kind, Store};
use arrow_array::RecordBatch;
use ef_proto::checkpoint::StateFile;
use ef_proto::ids::{Epoch, SubtaskId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub enum Body {
    Operator(Box<dyn Operator>),
    Sink(Box<dyn Sink>),
}

pub struct Node {
    pub subtask: SubtaskId,
    /// For messages: `WindowAggregate(TUMBLE 5 s by device_id)`.
    pub name: String,
    pub body: Body,
    pub store: Box<dyn Store>,
    pub outputs: Outputs,
    /// Bytes of memory that this operator may hold before it spills (Disk) or fails (Memory).
    pub memory_share: usize,
    /// The end of time has passed through and all inputs have ended: nothing can come that would need the state.
    over: bool,
    /// The task is told to leave.
    left: Arc<AtomicBool>,
    /// Of a sink: it has been told to publish up to here, and has not said that it has.
    to_publish: Option<Epoch>,
    /// Snapshots whose checkpoint is not yet known to be complete: (epoch, the store's sequence).
    unconfirmed: VecDeque<(Epoch, u64)>,
}

type Run = std::result::Result<(), Exit>;

impl Node {
    pub fn new(
        subtask: SubtaskId,
        name: String,
        body: Body,
        store: Box<dyn Store>,
        outputs: Outputs,
        memory_share: usize,
    ) -> Node {
        let unconfirmed = VecDeque::new();
        let left = Arc::default();
        Node { subtask, name, body, store, outputs, memory_share, over: false, left, to_publish: None, unconfirmed }
    }

    /// Of a sink that starts from the checkpoint of this epoch: what that holds it has to publish like any other, which for one
    /// whose target is out in a network may take until long after it runs.
    pub fn restored(mut self, epoch: Option<Epoch>) -> Node {
        self.to_publish = epoch;
        self
    }

    /// Makes the node heed its task's gate: what takes long inside one call (a window that fires a million rows) ends
    /// when the task is told to leave.
    pub(super) fn heed(&mut self, gate: &Gate<Control>) {
        self.left = gate.left();
        if let Some(interrupt) = self.store.interrupt() {
            gate.on_leave(interrupt);
        }
        match &mut self.body {
            Body::Sink(sink) => sink.interrupt().into_iter().for_each(|interrupt| gate.on_leave(interrupt)),
            Body::Operator(operator) => operator.heed(self.left.clone()),
        }
    }

    /// Calls the operator, if it is one, with what it may use, and names it in whatever goes wrong.
    fn call(&mut self, now_ms: i64, f: impl FnOnce(&mut dyn Operator, &mut Scope<'_>) -> Result<()>) -> Run {
        self.outputs.now_ms = now_ms;
        if let Body::Operator(operator) = &mut self.body {
            let mut scope = Scope { out: &mut self.outputs, store: self.store.as_mut(), now_ms };
            // What goes wrong when the task is told to leave is no failure.
            let left = &self.left;
            f(operator.as_mut(), &mut scope).map_err(|e| match left.load(Ordering::Relaxed) {
                true => Exit::Cancelled,
                false => failed(self.subtask, &self.name, e),
            })?;
        }
        Ok(())
    }

    pub fn on_batch(&mut self, input: usize, batch: RecordBatch, now_ms: i64) -> Run {
        if self.left.load(Ordering::Relaxed) {
            return Err(Exit::Cancelled);
        }
        OperatorMetrics::add(&self.outputs.metrics.rows_in, batch.num_rows() as u64);
        if let Body::Sink(sink) = &mut self.body {
            let written = sink.write(&batch);
            count_written(sink.as_ref(), &self.outputs.metrics);
            return written.map_err(|e| self.sink_failed(e));
        }
        self.call(now_ms, |operator, scope| operator.on_batch(input, batch, scope))?;
        self.check_memory()
    }

    pub fn on_watermark(&mut self, watermark: i64, now_ms: i64) -> Run {
        self.call(now_ms, |operator, scope| operator.on_watermark(watermark, scope))?;
        self.outputs.metrics.watermark_ms.store(watermark, Ordering::Relaxed);
        if let Body::Operator(operator) = &self.body {
            count_dropped(operator.as_ref(), &self.outputs.metrics);
        }
        self.outputs.watermark(watermark)
    }

    /// Those below will no longer wait for us: what the operator has gathered for them must not come after that.
    pub fn on_idle(&mut self, now_ms: i64) -> Run {
        self.call(now_ms, |operator, scope| operator.before_barrier(scope))?;
        self.outputs.idle()
    }

    /// The clock of this operator alone; the task walks the tree.
    pub fn on_clock(&mut self, now_ms: i64) -> Run {
        match &mut self.body {
            Body::Sink(sink) => {
                let clocked = sink.on_clock(now_ms);
                // What is delivered in its own time is counted in between too.
                count_written(sink.as_ref(), &self.outputs.metrics);
                clocked.map_err(|e| self.sink_failed(e))
            }
            Body::Operator(operator) if operator.clocked() => {
                self.call(now_ms, |operator, scope| operator.on_clock(scope))
            }
            Body::Operator(_) => Ok(()),
        }
    }

    pub fn on_barrier(&mut self, barrier: Barrier, now_ms: i64, into: &mut Vec<NodeSnapshot>) -> Run {
        self.confirm(barrier.completed);
        self.call(now_ms, |operator, scope| operator.before_barrier(scope))?;
        let snapshot = self.snapshot(barrier.epoch).map_err(|e| self.sink_failed(e))?;
        into.push(snapshot);
        self.outputs.barrier(barrier, into)
    }

    /// The state of this operator alone.
    pub fn snapshot(&mut self, epoch: Epoch) -> Result<NodeSnapshot> {
        let (blob, staged) = match &mut self.body {
            Body::Sink(sink) => {
                let staged = sink.stage(epoch)?;
                count_written(sink.as_ref(), &self.outputs.metrics);
                staged
            }
            Body::Operator(_) if self.over => (Vec::new(), None),
            Body::Operator(operator) => {
                let blob = operator.snapshot(self.store.as_mut())?;
                count_dropped(operator.as_ref(), &self.outputs.metrics);
                let staged = if operator.keyed() { Some(self.store.snapshot()?) } else { None };
                (blob, staged)
            }
        };
        if let Some(staged) = &staged {
            self.unconfirmed.push_back((epoch, staged.sequence));
        }
        Ok(NodeSnapshot { subtask: self.subtask, blob, staged })
    }

    /// `epoch` is recorded: later snapshots may reuse its files.
    fn confirm(&mut self, epoch: Epoch) {
        while let Some((e, sequence)) = self.unconfirmed.front().copied() {
            if e > epoch {
                break;
            }
            self.unconfirmed.pop_front();
            // An older one that never completed is passed over: its files may not be reused.
            if e == epoch {
                match &mut self.body {
                    Body::Sink(sink) => sink.confirm(sequence),
                    Body::Operator(_) => self.store.confirm(sequence),
                }
            }
        }
    }

    /// `epoch` is recorded: a sink publishes up to it, now or soon.
    pub fn complete(&mut self, epoch: Epoch) -> Run {
        self.confirm(epoch);
        let Body::Sink(sink) = &mut self.body else { return Ok(()) };
        sink.commit(&CommitPermit::for_recorded(epoch)).map_err(|e| failed(self.subtask, &self.name, e))?;
        self.to_publish = self.to_publish.max(Some(epoch));
        count_written(sink.as_ref(), &self.outputs.metrics);
        Ok(())
    }

    /// The epoch up to which a sink has published, if that has become true since it was told to.
    pub fn published(&mut self) -> std::result::Result<Option<Epoch>, Exit> {
        let (Some(wanted), Body::Sink(sink)) = (self.to_publish, &mut self.body) else { return Ok(None) };
        match sink.published().map_err(|e| failed(self.subtask, &self.name, e))? {
            Published::UpTo(epoch) if epoch < wanted => Ok(None),
            Published::UpTo(_) | Published::All => Ok(self.to_publish.take()),
        }
    }

    /// A task that is told to leave interrupts its sinks: what they then say is no failure.
    pub(super) fn sink_failed(&self, error: Error) -> Exit {
        if self.left.load(Ordering::Relaxed) { Exit::Cancelled } else { failed(self.subtask, &self.name, error) }
    }

    pub fn abort(&mut self, epoch: Epoch) {
        // Those before it that have not completed by now never will.
        self.unconfirmed.retain(|(e, _)| *e > epoch);
    }

    pub fn uploaded(&mut self, sequence: u64, files: Vec<StateFile>) {
        match &mut self.body {
            Body::Sink(sink) => sink.uploaded(sequence, files),
            Body::Operator(_) => self.store.uploaded(sequence, files),
        }
    }

    pub fn on_end(&mut self, now_ms: i64) -> Run {
        // A stopped job has no end of time by which it would have left; and behind the end nothing is taken.
        self.call(now_ms, |operator, scope| operator.before_barrier(scope))?;
        self.call(now_ms, |operator, scope| operator.on_end(scope))?;
        if let Body::Operator(operator) = &self.body {
            count_dropped(operator.as_ref(), &self.outputs.metrics);
        }
        self.over = self.outputs.metrics.watermark_ms.load(Ordering::Relaxed) == END_OF_TIME;
        if let Body::Sink(sink) = &mut self.body {
            sink.on_clock(now_ms).map_err(|e| failed(self.subtask, &self.name, e))?;
        }
        self.outputs.end()
    }

    /// This node and all fused below it, depth first.
    pub fn visit(&mut self, each: &mut dyn FnMut(&mut Node) -> Run) -> Run {
        each(self)?;
        self.outputs.visit(each)
    }

    fn check_memory(&mut self) -> Run {
        let Body::Operator(operator) = &mut self.body else { return Ok(()) };
        if !operator.keyed() {
            return Ok(());
        }
        let bytes = operator.memory_bytes();
        self.outputs.metrics.memory_bytes.store(bytes as u64, Ordering::Relaxed);
        if bytes <= self.memory_share {
            return Ok(());
        }
        let result = match self.store.kind() {
            Kind::Disk => operator.spill(self.store.as_mut()),
            Kind::Memory => Err(Error::new(
                Code::Unavailable,
                format!(
                    "its state of {} MB is more than its share of worker.memory ({} MB); SET 'state.backend' = \
                     'rocksdb' or give the worker more memory",
                    bytes >> 20,
                    self.memory_share >> 20
                ),
            )),
        };
        result.map_err(|e| failed(self.subtask, &self.name, e))
    }
}

fn count_written(sink: &dyn Sink, metrics: &OperatorMetrics) {
    metrics.bytes.store(sink.bytes_written(), Ordering::Relaxed);
    metrics.dropped_rows.store(sink.rows_dropped(), Ordering::Relaxed);
}

fn count_dropped(operator: &dyn Operator, metrics: &OperatorMetrics) {
    metrics.late_rows.store(operator.late_rows(), Ordering::Relaxed);
    metrics.null_time_rows.store(operator.null_time_rows(), Ordering::Relaxed);
}

/// Names the operator in front of the message.
pub(super) fn failed(subtask: SubtaskId, name: &str, error: Error) -> Exit {
    match Exit::of(subtask.operator, error) {
        // An error that comes up from an operator below has been named there.
        Exit::Failed(operator, error) if !error.message.starts_with("in ") => {
            Exit::Failed(operator, Error::new(error.code, format!("in {name}: {}", error.message)))
        }
        exit => exit,
    }
}

#[cfg(test)]
mod tests {
    use super::super::outputs::{ExchangeOutput, Out, Target};
    use super::*;
    use crate::exchange::{Channel, Received, gate};
    use crate::frame::Frame;
    use crate::state::MemoryStore;
    use crate::state::{Staged, Visit};
    use arrow_array::RecordBatchOptions;
    use arrow_schema::Schema;
    use ef_proto::ids::OperatorId;
    use ef_proto::plan::Output;
    use std::sync::Mutex;
    use std::time::Duration;

    /// Keeps its rows until a barrier, as a local aggregate does.
    struct Gathers(Option<RecordBatch>);

    impl Operator for Gathers {
        fn on_batch(&mut self, _input: usize, batch: RecordBatch, _scope: &mut Scope<'_>) -> Result<()> {
            self.0 = Some(batch);
            Ok(())
        }

        fn before_barrier(&mut self, scope: &mut Scope<'_>) -> Result<()> {
            self.0.take().map_or(Ok(()), |batch| scope.out.emit(batch))
        }
    }

    #[test]
    fn what_an_operator_has_gathered_leaves_before_word_that_its_input_is_idle_or_has_ended() {
        for ends in [false, true] {
            let gate = gate(1, 1 << 20);
            let target = Target::Exchange(ExchangeOutput::One(Channel::Local(gate.sender(0))));
            let metrics = crate::metrics::OperatorMetrics::new();
            let outs = vec![Out { output: Output::Main, target }];
            let outputs = Outputs { operator: OperatorId(1), outs, metrics, now_ms: 0 };
            let subtask = SubtaskId { operator: OperatorId(1), index: 0 };
            let store = Box::new(MemoryStore::new(String::new(), 0..0));
            let body = Body::Operator(Box::new(Gathers(None)));
            let mut node = Node::new(subtask, "gathers".into(), body, store, outputs, 1 << 20);
            let one_row = RecordBatchOptions::new().with_row_count(Some(1));
            let batch =
                RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &one_row).expect("one row");
            assert!(node.on_batch(0, batch, 1).is_ok());
            assert!(if ends { node.on_end(2) } else { node.on_idle(2) }.is_ok());
            let next = || match gate.receive(&|_| false, Duration::ZERO) {
                Received::Frame(_, frame) => frame,
                other => panic!("{other:?}"),
            };
            assert!(matches!(next(), Frame::Data(batch) if batch.num_rows() == 1));
            match next() {
                Frame::End => assert!(ends),
                Frame::Idle => assert!(!ends),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Keeps what it is told.
    struct Told(MemoryStore, Arc<Mutex<Vec<String>>>);

    impl Told {
        fn say(&self, what: String) {
            self.1.lock().expect("no panic").push(what);
        }
    }

    impl Store for Told {
        fn kind(&self) -> Kind {
            self.0.kind()
        }

        fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
            self.0.put(key, value)
        }

        fn delete(&mut self, key: &[u8]) -> Result<()> {
            self.0.delete(key)
        }

        fn delete_range(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
            self.0.delete_range(from, to)
        }

        fn get_many(&mut self, keys: &[&[u8]], each: &mut dyn FnMut(usize, Option<&[u8]>) -> Result<()>) -> Result<()> {
            self.0.get_many(keys, each)
        }

        fn scan(&mut self, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
            self.0.scan(from, to, visit)
        }

        fn snapshot(&mut self) -> Result<Staged> {
            let staged = self.0.snapshot()?;
            self.say(format!("snapshot {}", staged.sequence));
            Ok(staged)
        }

        fn confirm(&mut self, sequence: u64) {
            self.say(format!("confirm {sequence}"));
        }

        fn memory_bytes(&self) -> usize {
            self.0.memory_bytes()
        }
    }

    struct Keyed;

    impl Operator for Keyed {
        fn on_batch(&mut self, _input: usize, _batch: RecordBatch, _scope: &mut Scope<'_>) -> Result<()> {
            Ok(())
        }

        fn keyed(&self) -> bool {
            true
        }
    }

    /// Else the snapshot would reuse files of an older checkpoint, which nothing retains any more.
    #[test]
    fn barrier_that_overtakes_word_of_the_last_checkpoint_brings_it_before_the_snapshot() {
        let metrics = crate::metrics::OperatorMetrics::new();
        let outputs = Outputs { operator: OperatorId(1), outs: vec![], metrics, now_ms: 0 };
        let subtask = SubtaskId { operator: OperatorId(1), index: 0 };
        let said = Arc::new(Mutex::new(Vec::new()));
        let store = Box::new(Told(MemoryStore::new(String::new(), 0..0), said.clone()));
        let mut node = Node::new(subtask, "keyed".into(), Body::Operator(Box::new(Keyed)), store, outputs, 1 << 20);
        let mut into = Vec::new();
        for (epoch, completed) in [(1, 0), (2, 1), (3, 1)] {
            let barrier = Barrier { epoch: Epoch(epoch), completed: Epoch(completed) };
            assert!(node.on_barrier(barrier, 0, &mut into).is_ok());
        }
        assert!(node.complete(Epoch(1)).is_ok(), "late");
        assert!(node.complete(Epoch(3)).is_ok());
        let said = said.lock().expect("no panic");
        assert_eq!(*said, ["snapshot 1", "confirm 1", "snapshot 2", "snapshot 3", "confirm 3"]);
    }

    /// Emits for ever, as a window with a million keys seems to.
    struct Endless;

    impl Operator for Endless {
        fn on_batch(&mut self, _input: usize, batch: RecordBatch, scope: &mut Scope<'_>) -> Result<()> {
            loop {
                scope.out.emit(batch.clone())?;
            }
        }
    }

    #[test]
    fn call_that_takes_for_ever_ends_when_the_task_is_told_to_leave() {
        let gate = gate::<Control>(0, 1);
        let node = |number, body, outs| {
            let metrics = crate::metrics::OperatorMetrics::new();
            let subtask = SubtaskId { operator: OperatorId(number), index: 0 };
            let store = Box::new(MemoryStore::new(String::new(), 0..0));
            Node::new(
                subtask,
                "node".into(),
                body,
                store,
                Outputs { operator: OperatorId(number), outs, metrics, now_ms: 0 },
                1 << 20,
            )
        };
        let mut below = node(2, Body::Operator(Box::new(Gathers(None))), vec![]);
        below.heed(&gate);
        let target = Target::Node(Box::new(below));
        let mut above = node(1, Body::Operator(Box::new(Endless)), vec![Out { output: Output::Main, target }]);
        above.heed(&gate);
        let control = gate.sender(0);
        let one_row = RecordBatchOptions::new().with_row_count(Some(1));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &one_row).expect("one row");
        let working = std::thread::spawn(move || above.on_batch(0, batch, 1));
        control.leave(Control::Cancel);
        assert!(matches!(working.join().expect("no panic"), Err(Exit::Cancelled)));
    }
}
