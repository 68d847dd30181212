//! The simulated operators: sources of numbered rows, filters, counters by key and by window, sinks. Each snapshots what
//! its real counterpart would.

use super::jobs::{END_OF_TIME, Row, SPLITS, WINDOW_MS, group_of, keeps, row};
use super::net::address;
use super::people::lineage_of;
use super::sink::Sink;
use super::state::Keyed;
use super::store::Entries;
use super::task::{Control, Frame, NodeSnapshot, Task, channels};
use super::world::World;
use ef_proto::checkpoint::StateFile;
use ef_proto::ids::{Epoch, OperatorId, SubtaskId};
use ef_proto::keys::{owner_of, range_of};
use ef_proto::plan::{Exchange, OperatorKind, Phase};
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Node {
    pub subtask: SubtaskId,
    pub body: Body,
    pub outs: Vec<Out>,
    max_parallelism: u16,
    watermark: i64,
    /// The end of time has passed, and all inputs have ended: nothing needs the state any more.
    over: bool,
}

pub enum Body {
    Source(Source),
    Filter(bool),
    Count(Keyed),
    Window(Phase, Keyed),
    /// By (key, window), until the next watermark or barrier.
    Local(BTreeMap<(u32, i64), (u32, u64)>),
    Sink(Sink),
}

pub enum Out {
    Node(usize),
    Exchange(Route),
}

pub struct Route {
    exchange: Exchange,
    max_parallelism: u16,
    targets: Vec<Target>,
    next: usize,
}

#[derive(Clone, Copy)]
pub enum Target {
    Wire(u64),
    Local { task: usize, channel: usize },
}

pub struct Source {
    lineage: usize,
    operator: OperatorId,
    splits: Vec<Split>,
    marked: Option<i64>,
}

struct Split {
    number: u32,
    next: u32,
    /// Of its last row since the start.
    at: Option<i64>,
}

impl Route {
    /// What goes where. Control frames go everywhere.
    pub fn route(&mut self, frame: &Frame) -> Vec<(Target, Frame)> {
        let Frame::Rows(rows) = frame else {
            return self.targets.iter().map(|target| (*target, frame.clone())).collect();
        };
        match self.exchange {
            Exchange::Hash(_) if self.targets.len() > 1 => {
                let mut parts: Vec<Vec<Row>> = vec![Vec::new(); self.targets.len()];
                for row in rows {
                    let group = group_of(row.key, self.max_parallelism);
                    parts[owner_of(group, self.targets.len() as u32, self.max_parallelism) as usize].push(*row);
                }
                let parts = self.targets.iter().copied().zip(parts).filter(|(_, rows)| !rows.is_empty());
                parts.map(|(target, rows)| (target, Frame::Rows(rows))).collect()
            }
            _ => {
                self.next = (self.next + 1) % self.targets.len();
                vec![(self.targets[self.next], frame.clone())]
            }
        }
    }
}

impl Source {
    /// Some rows, then the watermark if it has moved. The end of time: all have been read.
    pub fn poll(&mut self, world: &mut World) -> (Vec<Row>, Option<i64>) {
        let upto = world.people.rows;
        let count = world.between(1, 4) as u32;
        let mut rows = Vec::new();
        // The one that is furthest behind, so that none makes another late.
        let behind = self.splits.iter_mut().filter(|split| split.next < upto).min_by_key(|split| split.next);
        if let Some(split) = behind {
            let end = (split.next + count).min(upto);
            rows.extend((split.next..end).map(|seq| row(split.number, seq)));
            split.next = end;
            split.at = rows.last().map(|row| row.time);
            let furthest = world.outside.furthest.entry((self.lineage, self.operator, split.number)).or_default();
            *furthest = end.max(*furthest);
        }
        // Of the splits that are still read; one that has not begun holds it back.
        let least = self.splits.iter().filter(|split| split.next < upto).map(|split| split.at).min();
        let mark = least.unwrap_or(Some(END_OF_TIME));
        let moved = mark.filter(|mark| self.marked.is_none_or(|marked| marked < *mark));
        self.marked = self.marked.max(mark);
        (rows, moved)
    }

    fn position(&self) -> Vec<u8> {
        self.splits.iter().flat_map(|split| [split.number, split.next]).flat_map(u32::to_le_bytes).collect()
    }
}

/// (split, rows read of it), from a source's blob.
pub fn positions(blob: &[u8]) -> Vec<(u32, u32)> {
    let numbers: Vec<u32> =
        blob.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("4 bytes"))).collect();
    numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

impl Node {
    /// What comes out of the node for a frame that goes in; for a barrier, its snapshot as well.
    pub fn process(&mut self, frame: Frame, world: &mut World) -> Result<(Vec<Frame>, Option<NodeSnapshot>), String> {
        let mut out = Vec::new();
        match &frame {
            Frame::Rows(rows) => return Ok((self.rows(rows), None)),
            Frame::Mark(mark) => {
                self.fire(*mark, &mut out);
                self.watermark = *mark;
            }
            Frame::Barrier(epoch, completed) => {
                self.confirm(*completed);
                self.flush(&mut out);
                let snapshot = self.snapshot(*epoch, world)?;
                out.push(frame);
                return Ok((out, Some(snapshot)));
            }
            Frame::End => {
                self.flush(&mut out);
                self.over = self.watermark == END_OF_TIME;
            }
        }
        out.push(frame);
        Ok((out, None))
    }

    fn rows(&mut self, rows: &[Row]) -> Vec<Frame> {
        let max = self.max_parallelism;
        let out: Vec<Row> = match &mut self.body {
            Body::Source(_) => rows.to_vec(),
            Body::Filter(filters) => rows.iter().filter(|row| !*filters || keeps(row)).copied().collect(),
            Body::Count(keyed) => {
                let mut out = Vec::new();
                for row in rows {
                    let key = (group_of(row.key, max), row.key, 0);
                    let old = keyed.get(&key).unwrap_or_default();
                    let (count, sum) = (old.count + row.count, old.sum + row.sum);
                    keyed.put(key, Row { key: row.key, count, sum, ..Row::default() });
                    out.push(Row { key: row.key, count, ..Row::default() });
                }
                out
            }
            Body::Window(phase, keyed) => {
                for row in rows {
                    let window = if *phase == Phase::Global { row.time } else { row.time / WINDOW_MS };
                    let key = (group_of(row.key, max), row.key, window);
                    let old = keyed.get(&key).unwrap_or_default();
                    let (count, sum) = (old.count + row.count, old.sum + row.sum);
                    keyed.put(key, Row { key: row.key, count, sum, time: window, ..Row::default() });
                }
                Vec::new()
            }
            Body::Local(partial) => {
                for row in rows {
                    let (count, sum) = partial.entry((row.key, row.time / WINDOW_MS)).or_default();
                    (*count, *sum) = (*count + row.count, *sum + row.sum);
                }
                Vec::new()
            }
            Body::Sink(sink) => {
                sink.write(rows.to_vec());
                Vec::new()
            }
        };
        if out.is_empty() { Vec::new() } else { vec![Frame::Rows(out)] }
    }

    /// What a local phase has gathered leaves before anything that others wait for.
    fn flush(&mut self, out: &mut Vec<Frame>) {
        let Body::Local(partial) = &mut self.body else { return };
        let partial = std::mem::take(partial).into_iter();
        let rows: Vec<Row> =
            partial.map(|((key, time), (count, sum))| Row { key, count, sum, time, ..Row::default() }).collect();
        if !rows.is_empty() {
            out.push(Frame::Rows(rows));
        }
    }

    fn fire(&mut self, mark: i64, out: &mut Vec<Frame>) {
        self.flush(out);
        let fired: Vec<_> = match &self.body {
            Body::Window(_, keyed) => {
                let over = |window: i64| mark == END_OF_TIME || mark >= (window + 1) * WINDOW_MS - 1;
                keyed.iter().filter(|((.., window), _)| over(*window)).map(|(key, row)| (*key, *row)).collect()
            }
            Body::Count(keyed) if mark == END_OF_TIME => keyed.iter().map(|(key, row)| (*key, *row)).collect(),
            _ => return,
        };
        let mut rows = Vec::new();
        for (key, row) in fired {
            match &mut self.body {
                Body::Count(keyed) => {
                    keyed.delete(key);
                    rows.push(Row { time: END_OF_TIME, ..row });
                }
                Body::Window(_, keyed) => {
                    keyed.delete(key);
                    rows.push(row);
                }
                _ => {}
            }
        }
        if !rows.is_empty() {
            out.push(Frame::Rows(rows));
        }
    }

    pub fn snapshot(&mut self, epoch: Epoch, world: &mut World) -> Result<NodeSnapshot, String> {
        let (mut blob, mut staged) = (Vec::new(), None);
        match &mut self.body {
            Body::Source(source) => blob = source.position(),
            Body::Sink(sink) => blob = world.prepare(sink, epoch)?,
            Body::Count(keyed) | Body::Window(_, keyed) if !self.over => staged = Some(keyed.snapshot(epoch)),
            Body::Count(_) | Body::Window(..) | Body::Filter(_) | Body::Local(_) => {}
        }
        Ok(NodeSnapshot { subtask: self.subtask, blob, staged })
    }

    /// True of a sink, which has published up to the epoch.
    fn confirm(&mut self, epoch: Epoch) {
        if let Body::Count(keyed) | Body::Window(_, keyed) = &mut self.body {
            keyed.complete(epoch);
        }
    }

    pub fn complete(&mut self, epoch: Epoch, world: &mut World) -> Result<bool, String> {
        self.confirm(epoch);
        match &mut self.body {
            Body::Sink(sink) => {
                world.commit(sink, epoch)?;
                return Ok(true);
            }
            Body::Source(_) | Body::Filter(_) | Body::Local(_) | Body::Count(_) | Body::Window(..) => {}
        }
        Ok(false)
    }

    pub fn abort(&mut self, epoch: Epoch) {
        if let Body::Count(keyed) | Body::Window(_, keyed) = &mut self.body {
            keyed.abort(epoch);
        }
    }

    pub fn uploaded(&mut self, sequence: u64, files: Vec<StateFile>, hasty: bool) {
        if let Body::Count(keyed) | Body::Window(_, keyed) = &mut self.body {
            keyed.uploaded(sequence, files, hasty);
        }
    }
}

impl World {
    /// The operators of a task in their tree, and the ways out of it.
    pub fn build_nodes(
        &mut self,
        worker: usize,
        number: u64,
        task: &mut Task,
        read: &BTreeMap<String, Arc<Entries>>,
    ) -> Result<(), String> {
        let agent = self.workers[worker].agents.get(&number).ok_or("the agent has gone")?;
        let planned = agent.planned.clone();
        let plan = &planned.plan;
        // The job has been stopped: nothing more is read.
        task.controls.extend(agent.deploy.stop.map(|drain| Control::Stop { drain }));
        let operators = planned.tasks.of(task.root.operator).ok_or("not of this plan")?.operators.clone();
        let placed: BTreeMap<OperatorId, usize> = operators.iter().copied().zip(0..).collect();
        for operator in &operators {
            let subtask = SubtaskId { operator: *operator, index: task.root.index };
            let body = self.build_body(worker, number, subtask, read)?;
            let mut outs = Vec::new();
            for (position, edge) in plan.edges.iter().enumerate().filter(|(_, edge)| edge.from == *operator) {
                outs.push(match placed.get(&edge.to) {
                    Some(below) if plan.is_fused(edge) => Out::Node(*below),
                    _ => Out::Exchange(self.build_route(worker, number, position, task.root.index)?),
                });
            }
            let max_parallelism = plan.max_parallelism;
            task.nodes.push(Node { subtask, body, outs, max_parallelism, watermark: i64::MIN, over: false });
        }
        Ok(())
    }

    fn build_body(
        &mut self,
        worker: usize,
        number: u64,
        subtask: SubtaskId,
        read: &BTreeMap<String, Arc<Entries>>,
    ) -> Result<Body, String> {
        let db_uid = format!("db{}", self.number());
        let agent = self.workers[worker].agents.get(&number).ok_or("the agent has gone")?;
        let (plan, id) = (&agent.planned.plan, agent.id.clone());
        let op = plan.operator(subtask.operator).ok_or("not of this plan")?.clone();
        let blobs = agent.blobs(subtask.operator);
        let keyed = || {
            let range = range_of(subtask.index, op.parallelism, plan.max_parallelism);
            Keyed::restore(range, db_uid.clone(), &agent.parents(subtask), read)
        };
        Ok(match &op.kind {
            OperatorKind::Source(_) => {
                let lineage = lineage_of(&id.job.0);
                let read: BTreeMap<u32, u32> = blobs.iter().flat_map(|blob| positions(blob)).collect();
                let mine = (0..SPLITS).filter(|split| split % op.parallelism == subtask.index);
                let split = |number: u32| {
                    let mut next = read.get(&number).copied().unwrap_or(0);
                    if self.options.bugs.no_rewind {
                        let furthest = self.outside.furthest.get(&(lineage, op.id, number));
                        next = furthest.copied().unwrap_or(0).max(next);
                    }
                    Split { number, next, at: None }
                };
                Body::Source(Source { lineage, operator: op.id, splits: mine.map(split).collect(), marked: None })
            }
            OperatorKind::Calc(calc) => Body::Filter(calc.filter.is_some()),
            OperatorKind::GroupAggregate(_) => Body::Count(keyed()),
            OperatorKind::WindowAggregate(window) => match window.phase {
                Phase::Local => Body::Local(BTreeMap::new()),
                phase => Body::Window(phase, keyed()),
            },
            OperatorKind::Sink(sink) => {
                let restored = agent.deploy.restore.as_ref().map(|manifest| manifest.epoch);
                let parallelism = op.parallelism;
                Body::Sink(self.open_sink(&id, subtask, parallelism, &sink.table, &blobs, restored)?)
            }
            other => return Err(format!("no simulated operator for {other:?}")),
        })
    }

    fn build_route(&mut self, worker: usize, number: u64, position: usize, index: u32) -> Result<Route, String> {
        let agent = self.workers[worker].agents.get(&number).ok_or("the agent has gone")?;
        let (planned, id) = (agent.planned.clone(), agent.id.clone());
        let edge = &planned.plan.edges[position];
        let parallelism = planned.plan.operator(edge.to).ok_or("not of this plan")?.parallelism;
        let to = match edge.exchange {
            Exchange::Forward => index..index + 1,
            Exchange::Gather => 0..1,
            Exchange::Hash(_) | Exchange::Rebalance => 0..parallelism,
        };
        let mut targets = Vec::new();
        for index_to in to {
            let task = SubtaskId { operator: edge.to, index: index_to };
            let channel = channels(&planned.plan, task).iter().position(|from| *from == (position, index));
            let channel = channel.ok_or("the receiver knows no such channel")?;
            let agent = self.workers[worker].agents.get(&number).ok_or("the agent has gone")?;
            targets.push(match agent.index.get(&task) {
                Some(task) => Target::Local { task: *task, channel },
                None => {
                    let placement = &agent.deploy.placement;
                    let there = placement.tasks.get(&task).ok_or("a task without a place")?;
                    let given = placement.peers.get(there).cloned().unwrap_or_default();
                    if given.is_empty() || given == address(worker, self.workers[worker].boot) {
                        return Err(format!("no address of {there}"));
                    }
                    Target::Wire(self.open_wire((worker, number), &given, &id, task, channel))
                }
            });
        }
        let (exchange, max_parallelism) = (edge.exchange.clone(), planned.plan.max_parallelism);
        Ok(Route { exchange, max_parallelism, targets, next: index as usize })
    }
}
