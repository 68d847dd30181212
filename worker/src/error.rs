//! The worker's error: a code for who has to act and one message for a person. Context is added once, where the
//! name of the thing is known; the task logs nothing and sends the error up.

pub use ef_proto::error::{Code, Error};

pub type Result<T> = std::result::Result<T, Error>;

/// Puts "what we were doing" before the message of whatever went wrong.
pub trait Context<T> {
    /// The outside is at fault (a file, a row, an option): [`Code::Invalid`].
    fn invalid(self, what: impl FnOnce() -> String) -> Result<T>;
    /// Stored data does not read back: [`Code::Corrupt`].
    fn corrupt(self, what: impl FnOnce() -> String) -> Result<T>;
    /// Something below us failed and may work again later: [`Code::Unavailable`].
    fn unavailable(self, what: impl FnOnce() -> String) -> Result<T>;
    /// A bug of ours: [`Code::Internal`].
    fn internal(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> Context<T> for std::result::Result<T, E> {
    fn invalid(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(Code::Invalid, format!("{}: {e}", what())))
    }

    fn corrupt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(Code::Corrupt, format!("{}: {e}", what())))
    }

    fn unavailable(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(Code::Unavailable, format!("{}: {e}", what())))
    }

    fn internal(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(Code::Internal, format!("{}: {e}", what())))
    }
}
