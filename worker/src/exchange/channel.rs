//! One sending end of a channel, whether the receiving task is in this process or on another worker.

use super::local::Sender;
use super::outlet::Remote;
use crate::error::Error;
use crate::frame::Frame;

/// Why a frame was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The receiving task has gone, or ours was told to go: no failure of ours.
    Closed,
    /// The connection broke, or the frame cannot travel.
    Failed(Error),
}

pub enum Channel<C> {
    Local(Sender<C>),
    Remote(Remote),
}

impl<C> Channel<C> {
    /// Waits for credit.
    pub fn send(&self, frame: Frame) -> Result<(), SendError> {
        match self {
            Channel::Local(sender) => sender.send(frame).map_err(|_| SendError::Closed),
            Channel::Remote(remote) => remote.send(frame),
        }
    }
}
