//! One task: a tree of simulated operators behind its channels. Barriers are aligned by the worker's own `Alignment`, event
//! time is merged by its own `Merge`; what the loop around them does is done here as there.

use super::jobs::{END_OF_TIME, Row};
use super::nodes::{Body, Node, Out, Target};
use super::state::Staged;
use super::store::Entries;
use super::world::World;
use crate::note;
use ef_proto::checkpoint::StateFile;
use ef_proto::ids::{Epoch, SubtaskId};
use ef_proto::plan::{Edge, Exchange, Plan};
use ef_worker::barrier::{Alignment, Step};
use ef_worker::time::{Change, Merge};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub enum Frame {
    Rows(Vec<Row>),
    Mark(i64),
    /// With the checkpoint that the source knew to be complete.
    Barrier(Epoch, Epoch),
    End,
}

#[derive(Clone, Debug)]
pub enum Control {
    Trigger(Epoch),
    Complete(Epoch),
    Abort(Epoch),
    Stop { drain: bool },
    Uploaded { subtask: SubtaskId, sequence: u64, files: Vec<StateFile> },
}

pub struct NodeSnapshot {
    pub subtask: SubtaskId,
    pub blob: Vec<u8>,
    pub staged: Option<Staged>,
}

pub enum TaskEvent {
    Snapshot { epoch: Epoch, nodes: Vec<NodeSnapshot> },
    Committed { epoch: Epoch, subtask: SubtaskId },
    Ended(Vec<SubtaskId>),
    Failed(String),
}

pub struct Task {
    pub root: SubtaskId,
    /// The root first; empty until the state is there.
    pub nodes: Vec<Node>,
    channels: Vec<VecDeque<Frame>>,
    alignment: Alignment,
    merge: Merge,
    pub controls: VecDeque<Control>,
    triggered: Epoch,
    snapshotted: Epoch,
    completed: Epoch,
    ended: bool,
    wakes_at: Option<u64>,
    next_batch_ms: u64,
    /// Told to leave, and has noticed.
    noticed: bool,
}

/// What a step works with beside the task.
pub struct Place<'a> {
    pub world: &'a mut World,
    pub worker: usize,
    pub agent: u64,
    pub said: Vec<TaskEvent>,
}

type Run = Result<(), String>;

/// Where the channels into a task come from: (position of the edge in the plan, index of the sender).
pub fn channels(plan: &Plan, to: SubtaskId) -> Vec<(usize, u32)> {
    let into = plan.edges.iter().enumerate().filter(|(_, edge)| edge.to == to.operator);
    let from = |(position, edge): (usize, &Edge)| {
        let senders = plan.operator(edge.from).map_or(0, |op| op.parallelism);
        let range = match edge.exchange {
            Exchange::Forward => to.index..to.index + 1,
            Exchange::Gather if to.index > 0 => 0..0,
            Exchange::Gather | Exchange::Hash(_) | Exchange::Rebalance => 0..senders,
        };
        range.map(move |sender| (position, sender)).collect::<Vec<_>>()
    };
    into.flat_map(from).collect()
}

impl Task {
    /// The gates alone: other workers may send to it already.
    pub fn gates(root: SubtaskId, plan: &Plan) -> Task {
        let count = channels(plan, root).len();
        Task {
            root,
            nodes: Vec::new(),
            channels: vec![VecDeque::new(); count],
            alignment: Alignment::new(count),
            merge: Merge::new(count),
            controls: VecDeque::new(),
            triggered: Epoch(0),
            snapshotted: Epoch(0),
            completed: Epoch(0),
            ended: false,
            wakes_at: None,
            next_batch_ms: 0,
            noticed: false,
        }
    }

    pub fn take(&mut self, channel: usize, frame: Frame) {
        self.channels[channel].push_back(frame);
    }

    pub fn has_ended(&self) -> bool {
        self.ended
    }

    pub fn sinks(&self) -> impl Iterator<Item = SubtaskId> {
        self.nodes.iter().filter(|node| matches!(node.body, Body::Sink(_))).map(|node| node.subtask)
    }

    fn is_source(&self) -> bool {
        matches!(self.nodes.first().map(|node| &node.body), Some(Body::Source(_)))
    }

    fn has_frames(&self) -> bool {
        !self.ended && (0..self.channels.len()).any(|channel| self.is_readable(channel))
    }

    fn is_readable(&self, channel: usize) -> bool {
        !self.channels[channel].is_empty() && !self.alignment.is_blocked(channel)
    }

    fn step(&mut self, place: &mut Place<'_>) -> Run {
        while let Some(control) = self.controls.pop_front() {
            self.control(control, place)?;
        }
        if self.ended {
            return self.answer(place);
        }
        if self.is_source() {
            return self.read(place);
        }
        for _ in 0..6 {
            let readable: Vec<usize> = (0..self.channels.len()).filter(|channel| self.is_readable(*channel)).collect();
            let Some(channel) = place.world.pick(&readable) else { break };
            let frame = self.channels[channel].pop_front().expect("it is readable");
            self.frame(channel, frame, place)?;
            if self.alignment.all_ended() {
                return self.finish(place);
            }
        }
        Ok(())
    }

    fn control(&mut self, control: Control, place: &mut Place<'_>) -> Run {
        match control {
            Control::Trigger(epoch) => {
                self.triggered = epoch;
                if self.is_source() && !self.ended {
                    self.snapshotted = epoch;
                    return self.barrier(epoch, place);
                }
                Ok(())
            }
            Control::Abort(epoch) => {
                self.alignment.on_abort(epoch);
                self.snapshotted = self.snapshotted.max(epoch);
                self.nodes.iter_mut().for_each(|node| node.abort(epoch));
                Ok(())
            }
            Control::Complete(epoch) => {
                if self.is_source() {
                    self.completed = epoch;
                }
                for node in &mut self.nodes {
                    if node.complete(epoch, place.world)? {
                        place.said.push(TaskEvent::Committed { epoch, subtask: node.subtask });
                    }
                }
                Ok(())
            }
            Control::Uploaded { subtask, sequence, files } => {
                let hasty = place.world.options.bugs.reuse_unconfirmed;
                let node = self.nodes.iter_mut().find(|node| node.subtask == subtask);
                node.into_iter().for_each(|node| node.uploaded(sequence, files.clone(), hasty));
                Ok(())
            }
            Control::Stop { drain } if self.is_source() && !self.ended => {
                if drain {
                    self.flow(0, Frame::Mark(END_OF_TIME), place, &mut Vec::new())?;
                }
                self.finish(place)
            }
            Control::Stop { .. } => Ok(()),
        }
    }

    /// A source's turn.
    fn read(&mut self, place: &mut Place<'_>) -> Run {
        if place.world.now < self.next_batch_ms {
            return Ok(());
        }
        let pace = place.world.weather.pace_ms;
        self.next_batch_ms = place.world.now + place.world.between(pace / 2, pace * 3 / 2);
        let Some(Body::Source(source)) = self.nodes.first_mut().map(|node| &mut node.body) else { return Ok(()) };
        let (rows, mark) = source.poll(place.world);
        if !rows.is_empty() {
            self.flow(0, Frame::Rows(rows), place, &mut Vec::new())?;
        }
        if let Some(mark) = mark {
            self.flow(0, Frame::Mark(mark), place, &mut Vec::new())?;
        }
        if mark == Some(END_OF_TIME) { self.finish(place) } else { Ok(()) }
    }

    fn frame(&mut self, channel: usize, frame: Frame, place: &mut Place<'_>) -> Run {
        let change = match frame {
            Frame::Rows(rows) => return self.flow(0, Frame::Rows(rows), place, &mut Vec::new()),
            Frame::Mark(mark) => self.merge.advance(channel, mark),
            Frame::Barrier(epoch, completed) => {
                self.completed = self.completed.max(completed);
                let step = self.alignment.on_barrier(channel, epoch);
                return self.aligned(step, place);
            }
            Frame::End => {
                let step = self.alignment.on_end(channel);
                self.aligned(step, place)?;
                // What was stopped holds event time where it is: a later run goes on from there.
                if !place.world.options.bugs.stopped_channels_close || self.alignment.all_ended() {
                    return Ok(());
                }
                self.merge.close(channel)
            }
        };
        match change {
            Change::Advanced(mark) => self.flow(0, Frame::Mark(mark), place, &mut Vec::new()),
            Change::None | Change::Idle(_) => Ok(()),
        }
    }

    fn aligned(&mut self, step: Step, place: &mut Place<'_>) -> Run {
        let Step::Snapshot(epoch) = step else { return Ok(()) };
        self.snapshotted = epoch;
        self.barrier(epoch, place)
    }

    fn barrier(&mut self, epoch: Epoch, place: &mut Place<'_>) -> Run {
        let mut nodes = Vec::new();
        self.flow(0, Frame::Barrier(epoch, self.completed), place, &mut nodes)?;
        place.said.push(TaskEvent::Snapshot { epoch, nodes });
        Ok(())
    }

    /// After the last input: what is triggered from here on is answered at once.
    fn finish(&mut self, place: &mut Place<'_>) -> Run {
        self.flow(0, Frame::End, place, &mut Vec::new())?;
        self.ended = true;
        place.said.push(TaskEvent::Ended(self.nodes.iter().map(|node| node.subtask).collect()));
        self.answer(place)
    }

    fn answer(&mut self, place: &mut Place<'_>) -> Run {
        if self.triggered <= self.snapshotted {
            return Ok(());
        }
        let epoch = self.triggered;
        self.snapshotted = epoch;
        let mut nodes = Vec::new();
        for node in &mut self.nodes {
            nodes.push(node.snapshot(epoch, place.world)?);
        }
        place.said.push(TaskEvent::Snapshot { epoch, nodes });
        Ok(())
    }

    /// A frame through a node, and what comes of it to those below.
    fn flow(&mut self, at: usize, frame: Frame, place: &mut Place<'_>, snapshots: &mut Vec<NodeSnapshot>) -> Run {
        let (frames, snapshot) = self.nodes[at].process(frame, place.world)?;
        snapshots.extend(snapshot);
        for frame in frames {
            for out in 0..self.nodes[at].outs.len() {
                if let Out::Node(below) = self.nodes[at].outs[out] {
                    self.flow(below, frame.clone(), place, snapshots)?;
                } else if let Out::Exchange(exchange) = &mut self.nodes[at].outs[out] {
                    for (target, part) in exchange.route(&frame) {
                        deliver(target, part, place);
                    }
                }
            }
        }
        Ok(())
    }
}

fn deliver(target: Target, frame: Frame, place: &mut Place<'_>) {
    match target {
        Target::Wire(wire) => place.world.send_frame(wire, frame),
        Target::Local { task, channel } => {
            let agents = &mut place.world.workers[place.worker].agents;
            let found = agents.get_mut(&place.agent).and_then(|agent| agent.tasks[task].as_mut());
            if let Some(found) = found {
                found.take(channel, frame);
                place.world.wake_task(place.worker, place.agent, task);
            }
        }
    }
}

impl World {
    pub fn wake_task(&mut self, worker: usize, agent: u64, task: usize) {
        let slow = self.workers[worker].slowness;
        let after = self.between(0, 6) * slow;
        self.wake_task_at(worker, agent, task, self.now + after);
    }

    fn wake_task_at(&mut self, worker: usize, agent: u64, task: usize, at_ms: u64) {
        let found = self.workers[worker].agents.get_mut(&agent).and_then(|agent| agent.tasks[task].as_mut());
        let Some(found) = found.filter(|task| task.wakes_at.is_none_or(|known| at_ms < known)) else { return };
        found.wakes_at = Some(at_ms);
        self.tell_agent(worker, agent, at_ms - self.now, super::agent::ToAgent::Task(task));
    }

    pub fn step_task(&mut self, worker: usize, agent: u64, position: usize) {
        let Some(found) = self.workers[worker].agents.get_mut(&agent) else { return };
        let leaving = found.is_leaving();
        let Some(mut task) = found.tasks[position].take() else { return };
        // It has been told to leave, and notices that once.
        let gone = leaving && std::mem::replace(&mut task.noticed, true);
        let busy = !task.nodes.is_empty() && !gone;
        if task.wakes_at.is_some_and(|at| at <= self.now) {
            task.wakes_at = None;
        }
        let mut said = Vec::new();
        if busy {
            let mut place = Place { world: self, worker, agent, said: Vec::new() };
            let ran = task.step(&mut place);
            said = place.said;
            said.extend(ran.err().map(TaskEvent::Failed));
        }
        let (again, source_at) = (task.has_frames(), task.next_batch_ms);
        let reads = task.is_source() && !task.ended;
        if let Some(found) = self.workers[worker].agents.get_mut(&agent) {
            found.tasks[position] = Some(task);
        }
        for event in said {
            if let TaskEvent::Failed(why) = &event {
                note!(self, "w{worker}: a task fails: {why}");
            }
            self.task_says(worker, agent, position, event);
        }
        if busy && again {
            self.wake_task(worker, agent, position);
        }
        if busy && reads {
            self.wake_task_at(worker, agent, position, source_at.max(self.now + 1));
        }
    }

    /// The operators of a task, from the state that is there.
    pub fn build_task(&mut self, worker: usize, agent: u64, position: usize) -> Run {
        let found = self.workers[worker].agents.get_mut(&agent).ok_or("the agent has gone")?;
        let mut task = found.tasks[position].take().expect("not in a step");
        let read: BTreeMap<String, Arc<Entries>> = found.read.clone();
        let built = self.build_nodes(worker, agent, &mut task, &read);
        if let Some(found) = self.workers[worker].agents.get_mut(&agent) {
            found.tasks[position] = Some(task);
        }
        built
    }
}
