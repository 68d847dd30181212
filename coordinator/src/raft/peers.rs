//! The seam to the other nodes of the group, of which there are none yet.
//!
//! With more voters this becomes a bounded queue and a connection per peer. It must never block (messages may be lost,
//! raft repeats them), never send what `driver` has not handed over in its order, and report back what it cannot send
//! (`report_unreachable`) and how a snapshot went (`report_snapshot`, or raft waits for ever). What peers send comes in
//! through the inbox, as a third kind of work beside proposals and compactions.

use raft::prelude::Message;

#[derive(Debug, Default)]
pub struct Peers;

impl Peers {
    pub fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let (to, kind) = (message.to, message.get_msg_type());
            tracing::warn!(to, ?kind, "a message to another node of the replicated log, to which there is no way");
        }
    }
}
