//! The network's way into a gate: frames are put into its queues without waiting, and what the task has taken is told
//! back. Credit bounds the queues; an inlet refuses a sender that does not keep to it.

use super::local::{Gate, Line, Shared};
use crate::error::Error;
use crate::frame::Frame;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Why a frame was not put into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The task has gone.
    Closed,
    /// The sender has sent more than twice of what it may.
    Overrun,
}

/// What a sender on another worker hears next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The task has taken this many bytes since the start.
    Taken(u64),
    /// The channel has come to its end.
    Done,
    /// The task has gone; why, its worker tells.
    Closed,
    Broken(String),
}

/// A gate as the network sees it, whatever its task's control messages are.
pub trait Inlet: Send + Sync {
    /// From now on what is taken from this channel is told by `poll_word`.
    fn open(&self, channel: usize);

    /// Never waits. A watermark takes the place of one that is still at the end of the queue: a queue that is not read
    /// does not grow by them.
    fn push(&self, channel: usize, frame: Frame, bytes: usize) -> Result<(), Refused>;

    /// The sending task has gone in order: nothing will come, and nothing is wrong with us.
    fn left(&self, channel: usize);

    /// The channel broke: the task fails with this.
    fn fail(&self, channel: usize, error: Error);

    fn poll_word(&self, channel: usize, context: &mut Context<'_>) -> Poll<Word>;
}

impl<C: Send + 'static> Gate<C> {
    pub fn inlet(&self) -> Arc<dyn Inlet> {
        self.shared.clone()
    }
}

impl<C: Send> Shared<C> {
    /// Changes what the sender is told, and has it told.
    fn tell(&self, channel: usize, change: impl FnOnce(&mut Line)) {
        let mut state = self.lock();
        let line = state.queues[channel].line.get_or_insert_default();
        change(line);
        let waker = line.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<C: Send> Inlet for Shared<C> {
    fn open(&self, channel: usize) {
        self.tell(channel, |_| ());
    }

    fn push(&self, channel: usize, frame: Frame, bytes: usize) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        let queue = &mut state.queues[channel];
        // Twice: what has been taken and is not yet told does not count against the sender's own books.
        if bytes > 0 && queue.bytes > 0 && queue.bytes.saturating_add(bytes) > 2 * self.credit_bytes {
            return Err(Refused::Overrun);
        }
        if let (Frame::Watermark(new), Some((Frame::Watermark(last), _))) = (&frame, queue.frames.back_mut()) {
            *last = *new;
            return Ok(());
        }
        let ends = matches!(frame, Frame::End);
        queue.bytes += bytes;
        queue.frames.push_back((frame, bytes));
        self.wake(&mut state);
        drop(state);
        if ends {
            self.tell(channel, |line| line.done = true);
        }
        Ok(())
    }

    fn left(&self, channel: usize) {
        self.tell(channel, |line| line.done = true);
    }

    fn fail(&self, channel: usize, error: Error) {
        let message = error.message.clone();
        let mut state = self.lock();
        // The first is the cause.
        state.failed.get_or_insert(error);
        self.wake(&mut state);
        drop(state);
        self.tell(channel, |line| line.broken = Some(message));
    }

    fn poll_word(&self, channel: usize, context: &mut Context<'_>) -> Poll<Word> {
        let mut state = self.lock();
        let closed = state.closed;
        let queue = &mut state.queues[channel];
        let due = queue.is_credit_due(self.credit_bytes);
        let Some(line) = &mut queue.line else { return Poll::Ready(Word::Closed) };
        if let Some(why) = line.broken.take() {
            return Poll::Ready(Word::Broken(why));
        }
        if line.done {
            return Poll::Ready(Word::Done);
        }
        if closed {
            return Poll::Ready(Word::Closed);
        }
        if due {
            line.told = line.taken;
            return Poll::Ready(Word::Taken(line.taken));
        }
        line.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::super::local::{Received, gate};
    use super::*;
    use crate::error::Code;
    use std::time::Duration;

    fn word(inlet: &dyn Inlet) -> Poll<Word> {
        inlet.poll_word(0, &mut Context::from_waker(Waker::noop()))
    }

    fn take(gate: &Gate<()>) -> Received<()> {
        gate.receive(&|_| false, Duration::ZERO)
    }

    fn data() -> Frame {
        let column: arrow_array::ArrayRef = Arc::new(arrow_array::Int64Array::from_iter_values(0..1));
        Frame::Data(arrow_array::RecordBatch::try_from_iter([("x", column)]).expect("one column"))
    }

    #[test]
    fn credit_is_told_by_the_quarter_and_when_the_queue_is_empty() {
        let gate = gate::<()>(1, 1000);
        let inlet = gate.inlet();
        inlet.open(0);
        for bytes in [200, 200, 100] {
            inlet.push(0, data(), bytes).expect("within the credit");
        }
        assert!(word(inlet.as_ref()).is_pending());
        take(&gate);
        assert!(word(inlet.as_ref()).is_pending(), "200 of 1000 is no quarter");
        take(&gate);
        assert_eq!(word(inlet.as_ref()), Poll::Ready(Word::Taken(400)));
        assert!(word(inlet.as_ref()).is_pending(), "told once");
        take(&gate);
        assert_eq!(word(inlet.as_ref()), Poll::Ready(Word::Taken(500)), "the queue is empty");
    }

    #[test]
    fn sender_over_twice_its_credit_is_refused_and_a_large_frame_into_an_empty_queue_is_not() {
        let gate = gate::<()>(1, 1000);
        let inlet = gate.inlet();
        inlet.open(0);
        assert_eq!(inlet.push(0, data(), 1 << 20), Ok(()));
        assert_eq!(inlet.push(0, data(), 1), Err(Refused::Overrun));
        assert_eq!(inlet.push(0, Frame::Idle, 0), Ok(()), "control costs nothing");
        take(&gate);
        assert_eq!(inlet.push(0, data(), 1), Ok(()));
    }

    #[test]
    fn watermarks_at_the_end_of_the_queue_become_one() {
        let gate = gate::<()>(1, 1000);
        let inlet = gate.inlet();
        for frame in [Frame::Watermark(1), Frame::Watermark(2), data(), Frame::Watermark(3), Frame::Watermark(4)] {
            inlet.push(0, frame, 0).expect("open");
        }
        let taken: Vec<String> = std::iter::from_fn(|| match take(&gate) {
            Received::Frame(_, Frame::Watermark(at)) => Some(at.to_string()),
            Received::Frame(_, Frame::Data(_)) => Some("data".into()),
            _ => None,
        })
        .collect();
        assert_eq!(taken, ["2", "data", "4"]);
    }

    #[test]
    fn first_broken_channel_fails_the_task_once_and_control_comes_before_it() {
        let gate = gate::<u8>(2, 1000);
        let inlet = gate.inlet();
        inlet.open(0);
        inlet.fail(1, Error::new(Code::Unavailable, "first"));
        inlet.fail(0, Error::new(Code::Unavailable, "second"));
        gate.sender(0).control(7);
        let next = || gate.receive(&|_| true, Duration::ZERO);
        assert!(matches!(next(), Received::Control(7)));
        assert!(matches!(next(), Received::Failed(error) if error.message == "first"));
        assert!(matches!(next(), Received::Timeout));
        assert_eq!(word(inlet.as_ref()), Poll::Ready(Word::Broken("second".into())));
    }

    #[test]
    fn end_and_leave_end_the_line_and_a_dropped_gate_closes_it() {
        let ended = gate::<()>(2, 1000);
        let inlet = ended.inlet();
        (0..2).for_each(|channel| inlet.open(channel));
        assert!(word(inlet.as_ref()).is_pending());
        inlet.push(0, Frame::End, 0).expect("open");
        inlet.left(1);
        let context = &mut Context::from_waker(Waker::noop());
        assert_eq!(inlet.poll_word(0, context), Poll::Ready(Word::Done));
        assert_eq!(inlet.poll_word(1, context), Poll::Ready(Word::Done));
        assert!(matches!(take(&ended), Received::Frame(0, Frame::End)));
        assert!(matches!(take(&ended), Received::Timeout), "a sender that left in order is no failure");

        let dropped = gate::<()>(1, 1000);
        let inlet = dropped.inlet();
        inlet.open(0);
        drop(dropped);
        assert_eq!(word(inlet.as_ref()), Poll::Ready(Word::Closed));
        assert_eq!(inlet.push(0, Frame::Idle, 0), Err(Refused::Closed));
    }
}
