//! Where an operator's rows go: operators fused below it (plain calls) and exchanges to other tasks.

use super::node::Node;
use super::{Exit, NodeSnapshot};
use crate::error::{Code, Error, Result};
use crate::exchange::{Channel as AnyChannel, Partitioner, SendError};
use crate::frame::{Barrier, Frame};
use crate::metrics::OperatorMetrics;
use crate::operator::Emit;
use arrow_array::RecordBatch;
use ef_proto::ids::OperatorId;
use ef_proto::plan::Output;
use std::sync::Arc;

type Channel = AnyChannel<super::Control>;

/// The sending side of one edge.
pub enum ExchangeOutput {
    /// Subtask i to i, or all to one.
    One(Channel),
    Hash(Partitioner, Vec<Channel>),
    /// Whole batches in turn.
    Rebalance {
        next: usize,
        channels: Vec<Channel>,
    },
}

pub enum Target {
    Node(Box<Node>),
    Exchange(ExchangeOutput),
}

pub struct Out {
    pub output: Output,
    pub target: Target,
}

/// All outputs of one operator.
pub struct Outputs {
    /// Whose outputs these are.
    pub operator: OperatorId,
    pub outs: Vec<Out>,
    pub metrics: Arc<OperatorMetrics>,
    /// Processing clock of the batch being handled.
    pub now_ms: i64,
}

/// A closed channel means that the receiver was cancelled or failed: whoever runs us will hear of that by itself.
fn gone(error: SendError) -> Error {
    match error {
        SendError::Closed => Error::new(Code::Unavailable, CLOSED),
        SendError::Failed(error) => error,
    }
}

/// Marks the error of a task whose neighbour left first; it is no cause of a failure.
pub const CLOSED: &str = "the next task is gone";

impl ExchangeOutput {
    fn send(&mut self, batch: RecordBatch) -> Result<()> {
        match self {
            ExchangeOutput::One(channel) => channel.send(Frame::Data(batch)).map_err(gone),
            ExchangeOutput::Hash(partitioner, channels) => {
                partitioner.split(&batch, &mut |subtask, rows| channels[subtask].send(Frame::Data(rows)).map_err(gone))
            }
            ExchangeOutput::Rebalance { next, channels } => {
                *next = (*next + 1) % channels.len();
                channels[*next].send(Frame::Data(batch)).map_err(gone)
            }
        }
    }

    fn broadcast(&self, frame: &Frame) -> Result<()> {
        match self {
            ExchangeOutput::One(channel) => channel.send(frame.clone()).map_err(gone),
            ExchangeOutput::Hash(_, channels) | ExchangeOutput::Rebalance { channels, .. } => {
                channels.iter().try_for_each(|channel| channel.send(frame.clone()).map_err(gone))
            }
        }
    }
}

impl Emit for Outputs {
    fn emit_to(&mut self, output: Output, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if output == Output::Main {
            OperatorMetrics::add(&self.metrics.rows_out, batch.num_rows() as u64);
        }
        let now_ms = self.now_ms;
        let mut targets = self.outs.iter_mut().filter(|out| out.output == output).map(|out| &mut out.target).peekable();
        let mut batch = Some(batch);
        while let Some(target) = targets.next() {
            // The last one takes the batch itself; the others share its buffers.
            let rows = if targets.peek().is_some() { batch.clone() } else { batch.take() };
            let rows = rows.expect("taken only by the last target");
            match target {
                Target::Node(node) => node.on_batch(0, rows, now_ms).map_err(Exit::into_error)?,
                Target::Exchange(exchange) => exchange.send(rows)?,
            }
        }
        Ok(())
    }
}

impl Exit {
    /// A neighbour that left is no failure of ours.
    pub(super) fn of(operator: OperatorId, error: Error) -> Exit {
        if error.message == CLOSED { Exit::Cancelled } else { Exit::Failed(operator, error) }
    }

    /// Keeps the innermost operator's name in the message when the error passes up the chain.
    pub fn into_error(self) -> Error {
        match self {
            Exit::Cancelled => Error::new(Code::Unavailable, CLOSED),
            Exit::Failed(_, error) => error,
        }
    }
}

impl Outputs {
    fn each(
        &mut self,
        frame: &Frame,
        node: &mut dyn FnMut(&mut Node) -> std::result::Result<(), Exit>,
    ) -> std::result::Result<(), Exit> {
        let operator = self.operator;
        for out in &mut self.outs {
            match &mut out.target {
                Target::Node(child) => node(child)?,
                Target::Exchange(exchange) => exchange.broadcast(frame).map_err(|e| Exit::of(operator, e))?,
            }
        }
        Ok(())
    }

    pub fn watermark(&mut self, watermark: i64) -> std::result::Result<(), Exit> {
        let now_ms = self.now_ms;
        self.each(&Frame::Watermark(watermark), &mut |child| child.on_watermark(watermark, now_ms))
    }

    pub fn idle(&mut self) -> std::result::Result<(), Exit> {
        let now_ms = self.now_ms;
        self.each(&Frame::Idle, &mut |child| child.on_idle(now_ms))
    }

    pub fn barrier(&mut self, barrier: Barrier, into: &mut Vec<NodeSnapshot>) -> std::result::Result<(), Exit> {
        let now_ms = self.now_ms;
        self.each(&Frame::Barrier(barrier), &mut |child| child.on_barrier(barrier, now_ms, into))
    }

    pub fn end(&mut self) -> std::result::Result<(), Exit> {
        let now_ms = self.now_ms;
        self.each(&Frame::End, &mut |child| child.on_end(now_ms))
    }

    /// The operators fused below, depth first.
    pub fn visit(
        &mut self,
        each: &mut dyn FnMut(&mut Node) -> std::result::Result<(), Exit>,
    ) -> std::result::Result<(), Exit> {
        for out in &mut self.outs {
            if let Target::Node(child) = &mut out.target {
                child.visit(each)?;
            }
        }
        Ok(())
    }
}
