//! The coordinator's one mailbox: what workers, people and the log say goes in, effects come out.

mod mailbox;

pub use mailbox::{Handle, Message, Request, Response, SessionId};
