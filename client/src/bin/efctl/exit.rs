//! What a command ends with, as scripts see it: 0 done, 1 failed, 2 usage or SQL error, 3 what was asked for does not
//! exist, 4 it still goes on after the time limit, 130 stopped by Ctrl-C.

use ef_client::{output, remote};
use ef_proto::error::{Code, Error};
use std::process::ExitCode;

#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    Failed(String),
    /// Bad usage or bad SQL; the message is complete.
    Usage(String),
    NotFound(String),
    /// The time limit of a wait was reached.
    GoesOn(String),
    Interrupted,
}

impl Exit {
    pub fn printed(text: &str) -> Exit {
        match output::print(text) {
            Ok(()) => Exit::Done,
            Err(message) => Exit::Failed(message),
        }
    }

    pub fn code(&self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed(_) => 1,
            Exit::Usage(_) => 2,
            Exit::NotFound(_) => 3,
            Exit::GoesOn(_) => 4,
            Exit::Interrupted => 130,
        }
    }

    pub fn message(&self) -> Option<&str> {
        match self {
            Exit::Failed(message) | Exit::Usage(message) | Exit::NotFound(message) | Exit::GoesOn(message) => {
                Some(message)
            }
            Exit::Done | Exit::Interrupted => None,
        }
    }

    pub fn report(&self) -> ExitCode {
        if let Some(message) = self.message() {
            output::tell(format_args!("error: {message}"));
        }
        ExitCode::from(self.code())
    }
}

impl From<Error> for Exit {
    fn from(error: Error) -> Exit {
        if remote::is_unreachable(&error) {
            let Error { message, .. } = error;
            return Exit::Failed(format!(
                "{message}; start one with `efctl cluster start`, or say where it is with --coordinator or EFCTL_COORDINATOR"
            ));
        }
        match error.code {
            Code::Invalid => Exit::Usage(error.message),
            Code::NotFound => Exit::NotFound(error.message),
            Code::Conflict | Code::NotLeader | Code::Unavailable | Code::Corrupt | Code::Internal => {
                Exit::Failed(error.message)
            }
        }
    }
}
