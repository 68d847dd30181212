//! A task that reads from outside: poll, compute columns, stamp watermarks per lane, run the tree below.

use super::gated::{Answered, Linger, linger, send, tell_published};
use super::lanes::Lanes;
use super::node::{Node, failed};
use super::outputs::Outputs;
use super::row_time::RowTime;
use super::{Clock, Control, Events, Exit, NodeSnapshot, TaskEvent};
use crate::config::Positions;
use crate::connector::{Polled, Source, SourceBatch};
use crate::error::Result;
use crate::exchange::{Gate, Received};
use crate::expr::{CalcProgram, EvalContext};
use crate::frame::{Barrier, END_OF_TIME};
use crate::metrics::OperatorMetrics;
use crate::operator::Emit;
use crate::time::Change;
use ef_proto::ids::{Epoch, JobId, SubtaskId};
use ef_proto::plan::Output;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub struct SourceTask {
    pub subtask: SubtaskId,
    pub name: String,
    pub source: Box<dyn Source>,
    /// Negative control of the tests: notes where it has read to.
    pub bug: Option<(Positions, JobId)>,
    pub project: CalcProgram,
    /// None: the table has no watermark; event time then ends with the input only.
    pub watermark: Option<RowTime>,
    pub idle_timeout_ms: Option<u64>,
    pub outputs: Outputs,
    pub gate: Gate<Control>,
    pub clock: Clock,
    pub events: Events,
    /// The job has been stopped, and this is a restart: nothing more is read. With true, what is open fires.
    pub stop: Option<bool>,
}

enum Next {
    Go,
    Wait(u64),
    Ended,
}

impl SourceTask {
    pub fn run(mut self) -> Exit {
        let gate = &self.gate;
        let heeds = self.outputs.visit(&mut |node| {
            node.heed(gate);
            Ok(())
        });
        if let Err(exit) = heeds {
            return exit;
        }
        let mut lanes = Lanes::default();
        let mut answered = Answered::default();
        match self.stop {
            None => {}
            Some(true) => return self.end_of_time(answered),
            Some(false) => return self.finish(answered),
        }
        let mut clocked_at = (self.clock)();
        let mut wait = Duration::ZERO;
        // Since when we do nothing but wait for the source, which had nothing to read.
        let mut dry_since: Option<i64> = None;
        loop {
            let message = if wait.is_zero() {
                self.gate.try_control()
            } else {
                match self.gate.receive(&|_| true, wait) {
                    Received::Control(message) => Some(message),
                    // A source's gate has no channels.
                    Received::Frame(..) | Received::Failed(_) | Received::Timeout => None,
                }
            };
            let now_ms = (self.clock)();
            self.outputs.now_ms = now_ms;
            if let Some(then) = dry_since.take() {
                lanes.dry(since(then, now_ms));
            }
            match message {
                Some(Control::Cancel) => return Exit::Cancelled,
                Some(Control::Stop { drain }) => {
                    return if drain { self.end_of_time(answered) } else { self.finish(answered) };
                }
                Some(message) => {
                    if let Err(exit) = self.control(message, &mut answered) {
                        return exit;
                    }
                    // Read on only when no message is left: a checkpoint must not wait for rows.
                    wait = Duration::ZERO;
                    continue;
                }
                None => {}
            }
            let step = self.step(&mut lanes, now_ms).and_then(|next| {
                if now_ms - clocked_at >= 10 {
                    clocked_at = now_ms;
                    self.count();
                    let events = &self.events;
                    self.outputs.visit(&mut |node| {
                        node.on_clock(now_ms)?;
                        tell_published(node, events)
                    })?;
                }
                Ok(next)
            });
            match step {
                Err(exit) => return exit,
                Ok(Next::Go) => wait = Duration::ZERO,
                Ok(Next::Wait(ms)) => {
                    if let Err(exit) = self.quiet_lanes(&mut lanes) {
                        return exit;
                    }
                    dry_since = Some((self.clock)());
                    wait = Duration::from_millis(ms.clamp(1, 10));
                }
                Ok(Next::Ended) => return self.end_of_time(answered),
            }
        }
    }

    /// Nothing will come any more: all windows fire.
    fn end_of_time(mut self, answered: Answered) -> Exit {
        self.outputs.metrics.watermark_ms.store(END_OF_TIME, Ordering::Relaxed);
        match self.outputs.watermark(END_OF_TIME) {
            Ok(()) => self.finish(answered),
            Err(exit) => exit,
        }
    }

    fn fail(&self, error: crate::error::Error) -> Exit {
        failed(self.subtask, &self.name, error)
    }

    fn step(&mut self, lanes: &mut Lanes, now_ms: i64) -> std::result::Result<Next, Exit> {
        let polled = self.source.poll(lanes.watermarks()).map_err(|e| self.fail(e))?;
        let change = match polled {
            Polled::Opened(lane) => {
                lanes.open(lane);
                return Ok(Next::Go);
            }
            Polled::Batch(batch) => self.batch(batch, lanes, now_ms)?,
            Polled::Closed(lane) => lanes.close(lane),
            Polled::Idle => lanes.rest(),
            Polled::Wait(ms) => {
                lanes.dry(since(now_ms, (self.clock)()));
                return Ok(Next::Wait(ms));
            }
            Polled::End => return Ok(Next::Ended),
        };
        if let Some((positions, job)) = &self.bug {
            let position = self.source.position().map_err(|e| self.fail(e))?;
            positions.lock().unwrap_or_else(PoisonError::into_inner).insert((job.clone(), self.subtask), position);
        }
        self.pass(change)?;
        Ok(Next::Go)
    }

    fn batch(&mut self, batch: SourceBatch, lanes: &mut Lanes, now_ms: i64) -> std::result::Result<Change, Exit> {
        let metrics = self.outputs.metrics.clone();
        OperatorMetrics::add(&metrics.bytes, batch.bytes);
        OperatorMetrics::add(&metrics.rows_in, batch.batch.num_rows() as u64);
        lanes.active(batch.lane);
        if let Some(errors) = batch.errors {
            OperatorMetrics::add(&metrics.error_rows, errors.num_rows() as u64);
            self.outputs.emit_to(Output::Errors, errors).map_err(|e| self.fail(e))?;
        }
        OperatorMetrics::add(&metrics.field_errors, batch.field_errors);
        if let Some(first) = batch.field_error {
            metrics.field_error.get_or_init(|| first);
        }
        let context = EvalContext { now_ms };
        let reached = match &mut self.watermark {
            Some(time) => time.max_ms(&batch.batch, &context).map_err(|e| failed(self.subtask, &self.name, e))?,
            None => None,
        };
        let rows = self.project.run(&batch.batch, &context).map_err(|e| failed(self.subtask, &self.name, e))?;
        if let Some(rows) = rows {
            self.outputs.emit(rows).map_err(|e| self.fail(e))?;
        }
        Ok(match reached {
            Some(watermark) => lanes.advance(batch.lane, watermark),
            None => Change::None,
        })
    }

    fn quiet_lanes(&mut self, lanes: &mut Lanes) -> std::result::Result<(), Exit> {
        let Some(timeout_ms) = self.idle_timeout_ms else { return Ok(()) };
        loop {
            match lanes.quiet(timeout_ms) {
                Change::None => return Ok(()),
                change => self.pass(change)?,
            }
        }
    }

    fn pass(&mut self, change: Change) -> std::result::Result<(), Exit> {
        match change {
            Change::None => Ok(()),
            Change::Advanced(watermark) => self.advance(watermark),
            Change::Idle(reached) => {
                reached.map_or(Ok(()), |watermark| self.advance(watermark))?;
                self.outputs.idle()
            }
        }
    }

    fn advance(&mut self, watermark: i64) -> std::result::Result<(), Exit> {
        self.outputs.metrics.watermark_ms.store(watermark, Ordering::Relaxed);
        self.outputs.watermark(watermark)
    }

    fn control(&mut self, message: Control, answered: &mut Answered) -> std::result::Result<(), Exit> {
        if let Control::Trigger(epoch) = message {
            answered.triggered = epoch;
            answered.snapshotted = epoch;
            let snapshot = snapshot(self.subtask, self.source.as_mut(), epoch);
            let mut nodes = vec![snapshot.map_err(|e| self.fail(e))?];
            self.outputs.barrier(Barrier { epoch, completed: answered.completed }, &mut nodes)?;
            return send(&self.events, TaskEvent::Snapshot { epoch, nodes });
        }
        if let Control::Complete(epoch) = message {
            answered.completed = epoch;
            self.source.completed(epoch).map_err(|e| self.fail(e))?;
        }
        self.count();
        below(&mut self.outputs, &message, &self.events)
    }

    /// What the source has met besides rows.
    fn count(&self) {
        let (counts, metrics) = (self.source.counts(), &self.outputs.metrics);
        metrics.tombstones.store(counts.tombstones, Ordering::Relaxed);
        metrics.connection_errors.store(counts.connection_errors, Ordering::Relaxed);
        metrics.commit_failures.store(counts.commit_failures, Ordering::Relaxed);
        metrics.duplicates.store(counts.duplicates, Ordering::Relaxed);
        metrics.lost.store(counts.lost, Ordering::Relaxed);
    }

    fn finish(mut self, answered: Answered) -> Exit {
        self.count();
        let ended = |task: &mut SourceTask| -> std::result::Result<(), Exit> {
            task.outputs.end()?;
            let mut subtasks = vec![task.subtask];
            task.outputs.visit(&mut |node| {
                subtasks.push(node.subtask);
                Ok(())
            })?;
            send(&task.events, TaskEvent::Ended { subtasks })
        };
        if let Err(exit) = ended(&mut self) {
            return exit;
        }
        let SourceTask { subtask, name, mut source, mut outputs, gate, events, .. } = self;
        linger(&gate, answered, &mut |act| match act {
            Linger::Control(message) => {
                if let Control::Complete(epoch) = message {
                    source.completed(epoch).map_err(|e| failed(subtask, &name, e))?;
                }
                below(&mut outputs, &message, &events)
            }
            Linger::Failed(error) => Err(failed(subtask, &name, error)),
            Linger::Clock => outputs.visit(&mut |node| tell_published(node, &events)),
            Linger::Snapshot(epoch) => {
                let position = snapshot(subtask, source.as_mut(), epoch);
                let mut nodes = vec![position.map_err(|e| failed(subtask, &name, e))?];
                outputs.visit(&mut |node| snapshot_into(node, epoch, &mut nodes))?;
                send(&events, TaskEvent::Snapshot { epoch, nodes })
            }
        })
    }
}

fn snapshot(subtask: SubtaskId, source: &mut dyn Source, epoch: Epoch) -> Result<NodeSnapshot> {
    Ok(NodeSnapshot { subtask, blob: source.snapshot(epoch)?, staged: None })
}

/// Milliseconds from `then` to `now`; none where the clock was set back.
fn since(then: i64, now: i64) -> u64 {
    now.saturating_sub(then).max(0) as u64
}

/// A control message for every operator fused below a source.
fn below(outputs: &mut Outputs, message: &Control, events: &Events) -> std::result::Result<(), Exit> {
    outputs.visit(&mut |node| super::gated::control(node, message, events))
}

pub(super) fn snapshot_into(
    node: &mut Node,
    epoch: Epoch,
    nodes: &mut Vec<NodeSnapshot>,
) -> std::result::Result<(), Exit> {
    nodes.push(node.snapshot(epoch).map_err(|e| node.sink_failed(e))?);
    Ok(())
}
