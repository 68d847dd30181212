//! Error codes that cross processes: what the caller should do, not where it went wrong.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Stable names; `efctl` turns them into exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Code {
    /// The request is wrong; sending it again will not help.
    Invalid,
    NotFound,
    /// Somebody else has it, or it is already there.
    Conflict,
    NotLeader,
    /// Try again later.
    Unavailable,
    /// Stored data does not read back.
    Corrupt,
    /// A bug of ours.
    Internal,
}

/// An error as it crosses a process: a code and one message for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Error {
    pub code: Code,
    pub message: String,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Code::Invalid, message)
    }

    pub fn corrupt(message: impl Into<String>) -> Error {
        Error::new(Code::Corrupt, message)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Code::Invalid => "invalid",
            Code::NotFound => "not found",
            Code::Conflict => "conflict",
            Code::NotLeader => "not leader",
            Code::Unavailable => "unavailable",
            Code::Corrupt => "corrupt",
            Code::Internal => "internal",
        })
    }
}
