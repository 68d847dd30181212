//! A task that reads from other tasks: merge watermarks, align barriers, run the tree.

use super::node::{Node, failed};
use super::source::snapshot_into;
use super::{Clock, Control, Events, Exit, TaskEvent};
use crate::barrier::{Alignment, Step};
use crate::error::Error;
use crate::exchange::{Gate, Received};
use crate::frame::{Barrier, Frame};
use crate::time::{Change, Merge};
use ef_proto::ids::{Epoch, SubtaskId};
use std::time::Duration;

/// How often the processing clock is looked at when nothing comes.
const CLOCK: Duration = Duration::from_millis(10);

pub struct GatedTask {
    pub root: Node,
    pub gate: Gate<Control>,
    /// The root's input that each channel feeds.
    pub inputs: Vec<usize>,
    pub clock: Clock,
    pub events: Events,
}

impl GatedTask {
    /// Runs until cancelled; after the end of its inputs it stays for the checkpoints that follow.
    pub fn run(mut self) -> Exit {
        let gate = &self.gate;
        let heeds = self.root.visit(&mut |node| {
            node.heed(gate);
            Ok(())
        });
        if let Err(exit) = heeds {
            return exit;
        }
        let channels = self.inputs.len();
        let mut alignment = Alignment::new(channels);
        let mut merge = Merge::new(channels);
        let mut answered = Answered::default();
        let mut clocked_at = (self.clock)();
        loop {
            let received = self.gate.receive(&|channel| alignment.is_blocked(channel), CLOCK);
            let now_ms = (self.clock)();
            let step = match received {
                Received::Control(Control::Cancel) => return Exit::Cancelled,
                Received::Control(Control::Abort(epoch)) => {
                    alignment.on_abort(epoch);
                    answered.aborted(epoch);
                    self.control(&Control::Abort(epoch))
                }
                Received::Control(Control::Trigger(epoch)) => {
                    answered.triggered = epoch;
                    Ok(())
                }
                Received::Control(message) => self.control(&message),
                Received::Failed(error) => Err(failed(self.root.subtask, &self.root.name, error)),
                Received::Timeout => Ok(()),
                Received::Frame(channel, frame) => {
                    self.frame(channel, frame, now_ms, &mut alignment, &mut merge, &mut answered)
                }
            };
            if let Err(exit) = step.and_then(|()| self.tick(now_ms, &mut clocked_at)) {
                return exit;
            }
            if alignment.all_ended() {
                break;
            }
        }
        finish(&mut self.root, &self.gate, answered, &self.clock, &self.events)
    }

    fn control(&mut self, message: &Control) -> Result<(), Exit> {
        let events = &self.events;
        self.root.visit(&mut |node| control(node, message, events))
    }

    fn frame(
        &mut self,
        channel: usize,
        frame: Frame,
        now_ms: i64,
        alignment: &mut Alignment,
        merge: &mut Merge,
        answered: &mut Answered,
    ) -> Result<(), Exit> {
        let change = match frame {
            Frame::Data(batch) => return self.root.on_batch(self.inputs[channel], batch, now_ms),
            Frame::Watermark(watermark) => merge.advance(channel, watermark),
            Frame::Idle => merge.idle(channel),
            Frame::Barrier(barrier) => {
                answered.completed = answered.completed.max(barrier.completed);
                let step = alignment.on_barrier(channel, barrier.epoch);
                return self.aligned(step, now_ms, answered);
            }
            Frame::End => {
                // The end of time came as a watermark before, and a channel that is there holds nothing back. One that was
                // stopped holds event time where it is: a later run goes on with its rows, and were its windows to fire
                // because the other channels are still read for a moment, those rows would be late.
                let step = alignment.on_end(channel);
                return self.aligned(step, now_ms, answered);
            }
        };
        match change {
            Change::None => Ok(()),
            Change::Advanced(watermark) => self.root.on_watermark(watermark, now_ms),
            Change::Idle(reached) => {
                reached.map_or(Ok(()), |watermark| self.root.on_watermark(watermark, now_ms))?;
                self.root.on_idle(now_ms)
            }
        }
    }

    fn aligned(&mut self, step: Step, now_ms: i64, answered: &mut Answered) -> Result<(), Exit> {
        let Step::Snapshot(epoch) = step else { return Ok(()) };
        let mut nodes = Vec::new();
        self.root.on_barrier(Barrier { epoch, completed: answered.completed }, now_ms, &mut nodes)?;
        answered.snapshotted = epoch;
        send(&self.events, TaskEvent::Snapshot { epoch, nodes })
    }

    fn tick(&mut self, now_ms: i64, clocked_at: &mut i64) -> Result<(), Exit> {
        if now_ms - *clocked_at < CLOCK.as_millis() as i64 {
            return Ok(());
        }
        *clocked_at = now_ms;
        let events = &self.events;
        self.root.visit(&mut |node| {
            node.on_clock(now_ms)?;
            tell_published(node, events)
        })
    }
}

/// Which checkpoint a task was told of last, which it answered last, and which it knows to be complete.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answered {
    pub triggered: Epoch,
    pub snapshotted: Epoch,
    pub completed: Epoch,
}

impl Answered {
    pub(super) fn aborted(&mut self, epoch: Epoch) {
        self.snapshotted = self.snapshotted.max(epoch);
    }
}

/// Err only when the agent is gone, which means that the process is going down.
pub(super) fn send(events: &Events, event: TaskEvent) -> Result<(), Exit> {
    events.blocking_send(event).map_err(|_| Exit::Cancelled)
}

/// What an operator does about a message that concerns it. The task walks its tree.
pub(super) fn control(node: &mut Node, message: &Control, events: &Events) -> Result<(), Exit> {
    match message {
        Control::Complete(epoch) => {
            node.complete(*epoch)?;
            tell_published(node, events)?;
        }
        Control::Abort(epoch) => node.abort(*epoch),
        Control::Uploaded { subtask, sequence, files } if node.subtask == *subtask => {
            node.uploaded(*sequence, files.clone());
        }
        // Named, so that a new message is not forgotten here: these concern the task, not its operators.
        Control::Uploaded { .. } | Control::Trigger(_) | Control::Stop { .. } | Control::Cancel => {}
    }
    Ok(())
}

/// Tells the agent what a sink has published since it was told to.
pub(super) fn tell_published(node: &mut Node, events: &Events) -> Result<(), Exit> {
    match node.published()? {
        Some(epoch) => send(events, TaskEvent::Committed { epoch, subtask: node.subtask }),
        None => Ok(()),
    }
}

/// After the last input: flush, tell the agent, and answer for checkpoints until cancelled. No barrier will come any
/// more, so a trigger is answered directly; whoever is below has had our `End`.
pub(super) fn finish(
    root: &mut Node,
    gate: &Gate<Control>,
    answered: Answered,
    clock: &Clock,
    events: &Events,
) -> Exit {
    let ended = |root: &mut Node| -> Result<(), Exit> {
        root.on_end(clock())?;
        let mut subtasks: Vec<SubtaskId> = Vec::new();
        root.visit(&mut |node| {
            subtasks.push(node.subtask);
            Ok(())
        })?;
        send(events, TaskEvent::Ended { subtasks })
    };
    if let Err(exit) = ended(root) {
        return exit;
    }
    linger(gate, answered, &mut |act| match act {
        Linger::Control(message) => root.visit(&mut |node| control(node, &message, events)),
        Linger::Failed(error) => Err(failed(root.subtask, &root.name, error)),
        Linger::Clock => root.visit(&mut |node| tell_published(node, events)),
        Linger::Snapshot(epoch) => {
            let mut nodes = Vec::new();
            root.visit(&mut |node| snapshot_into(node, epoch, &mut nodes))?;
            send(events, TaskEvent::Snapshot { epoch, nodes })
        }
    })
}

pub(super) enum Linger {
    Control(Control),
    Snapshot(Epoch),
    Failed(Error),
    /// Sinks may have published.
    Clock,
}

/// How often a task that has ended asks its sinks whether they have published.
const LINGER: Duration = Duration::from_millis(50);

/// The loop of a task that has ended.
pub(super) fn linger(
    gate: &Gate<Control>,
    mut answered: Answered,
    act: &mut dyn FnMut(Linger) -> Result<(), Exit>,
) -> Exit {
    loop {
        if answered.triggered > answered.snapshotted {
            answered.snapshotted = answered.triggered;
            if let Err(exit) = act(Linger::Snapshot(answered.triggered)) {
                return exit;
            }
        }
        let step = match gate.receive(&|_| true, LINGER) {
            Received::Control(Control::Cancel) => return Exit::Cancelled,
            Received::Control(Control::Trigger(epoch)) => {
                answered.triggered = epoch;
                Ok(())
            }
            Received::Control(Control::Abort(epoch)) => {
                answered.aborted(epoch);
                act(Linger::Control(Control::Abort(epoch)))
            }
            Received::Control(message) => act(Linger::Control(message)),
            // All inputs have ended; but those below may not have had our end.
            Received::Failed(error) => act(Linger::Failed(error)),
            Received::Timeout => act(Linger::Clock),
            Received::Frame(..) => Ok(()),
        };
        if let Err(exit) = step {
            return exit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::Body;
    use super::super::outputs::Outputs;
    use super::*;
    use crate::exchange::gate;
    use crate::frame::END_OF_TIME;
    use crate::metrics::OperatorMetrics;
    use crate::operator::{Operator, Scope};
    use crate::state::MemoryStore;
    use arrow_array::RecordBatch;
    use ef_proto::ids::OperatorId;
    use std::sync::{Arc, Mutex};

    /// Keeps the event times that it hears of.
    struct Hears(Arc<Mutex<Vec<i64>>>);

    impl Operator for Hears {
        fn on_batch(&mut self, _: usize, _: RecordBatch, _: &mut Scope<'_>) -> crate::error::Result<()> {
            Ok(())
        }

        fn on_watermark(&mut self, watermark: i64, _: &mut Scope<'_>) -> crate::error::Result<()> {
            self.0.lock().expect("no panic").push(watermark);
            Ok(())
        }
    }

    /// The event times that a task of two channels comes to.
    fn heard(frames: &[(usize, Frame)]) -> Vec<i64> {
        let gate = gate::<Control>(2, 1 << 20);
        let senders = [gate.sender(0), gate.sender(1)];
        let subtask = SubtaskId { operator: OperatorId(1), index: 0 };
        let times = Arc::new(Mutex::new(Vec::new()));
        let outputs = Outputs { operator: subtask.operator, outs: vec![], metrics: OperatorMetrics::new(), now_ms: 0 };
        let store = Box::new(MemoryStore::new(String::new(), 0..0));
        let body = Body::Operator(Box::new(Hears(times.clone())));
        let root = Node::new(subtask, "hears".into(), body, store, outputs, 1 << 20);
        let (events, mut said) = tokio::sync::mpsc::channel(16);
        let task = GatedTask { root, gate, inputs: vec![0, 0], clock: Arc::new(|| 0), events };
        let running = std::thread::spawn(move || task.run());
        for (channel, frame) in frames {
            senders[*channel].send(frame.clone()).expect("the task is there");
        }
        while !matches!(said.blocking_recv().expect("the task is there"), TaskEvent::Ended { .. }) {}
        senders[0].control(Control::Cancel);
        assert!(matches!(running.join().expect("no panic"), Exit::Cancelled));
        Arc::into_inner(times).expect("the task has gone").into_inner().expect("no panic")
    }

    #[test]
    fn channel_that_was_stopped_holds_event_time_and_one_at_the_end_of_time_does_not() {
        let mark = Frame::Watermark;
        let stopped = [(0, mark(10)), (1, mark(7)), (0, Frame::End), (1, mark(50)), (1, Frame::End)];
        let times = heard(&stopped);
        assert!(times.last() == Some(&10) && times.is_sorted(), "{times:?}");
        let ended = [
            (0, mark(10)),
            (1, mark(7)),
            (0, mark(END_OF_TIME)),
            (0, Frame::End),
            (1, mark(50)),
            (1, mark(END_OF_TIME)),
            (1, Frame::End),
        ];
        assert_eq!(heard(&ended).last(), Some(&END_OF_TIME));
    }
}
