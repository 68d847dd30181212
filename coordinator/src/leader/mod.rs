//! The coordinator's one mailbox: what workers, people and the log say goes in, effects come out. `core` holds the rules,
//! [`Leader`] carries messages and executes effects.

mod core;
mod driver;
mod mailbox;
mod slow;
mod stores;

pub use self::core::Config;
pub use driver::{Leader, Options};
pub use mailbox::{Handle, Message, Request, Response, SessionId};

/// The rules, for the simulator.
pub mod rules {
    pub use super::core::*;
}
