//! Errors as gRPC statuses, both directions in one place. Our code travels beside gRPC's in the metadata, because two
//! of ours share one of theirs; what some library on the way made up itself is known by gRPC's code alone.

use super::enumeration::Enumeration;
use crate::error::{Code, Error};
use std::error::Error as _;
use tonic::Status;
use tonic::metadata::MetadataValue;

/// Where our code is in a status.
pub const CODE_KEY: &str = "ef-code";

/// A status travels in a header, up to three bytes for one of the message's, and clients take 16 KiB of headers.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The code's name in the metadata, and the code for those who know only gRPC.
fn forms(code: Code) -> (&'static str, tonic::Code) {
    match code {
        Code::Invalid => ("invalid", tonic::Code::InvalidArgument),
        Code::NotFound => ("not-found", tonic::Code::NotFound),
        Code::Conflict => ("conflict", tonic::Code::FailedPrecondition),
        Code::NotLeader => ("not-leader", tonic::Code::Unavailable),
        Code::Unavailable => ("unavailable", tonic::Code::Unavailable),
        Code::Corrupt => ("corrupt", tonic::Code::DataLoss),
        Code::Internal => ("internal", tonic::Code::Internal),
    }
}

/// The code's stable name in metadata and in JSON.
pub fn code_name(code: Code) -> &'static str {
    forms(code).0
}

impl From<&Error> for Status {
    fn from(error: &Error) -> Status {
        let (name, code) = forms(error.code);
        let mut status = Status::new(code, shortened(&error.message));
        status.metadata_mut().insert(CODE_KEY, MetadataValue::from_static(name));
        status
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        Status::from(&error)
    }
}

impl Error {
    /// The error of a call that was answered with `status`, or that was not answered.
    pub fn from_status(status: &Status) -> Error {
        let named = status.metadata().get(CODE_KEY).and_then(|name| name.to_str().ok());
        let named = named.and_then(|name| Code::ALL.iter().find(|code| code_name(**code) == name));
        let code = named.copied().unwrap_or_else(|| foreign(status));
        let mut message = status.message().to_string();
        // What broke a connection is known to the innermost cause, and the outer ones do not always repeat it.
        let mut source = status.source();
        while let Some(cause) = source {
            let cause_message = cause.to_string();
            if !message.contains(&cause_message) {
                message = format!("{message}: {cause_message}");
            }
            source = cause.source();
        }
        Error::new(code, message)
    }
}

/// Of a status that no EdgeFlow made.
fn foreign(status: &Status) -> Code {
    use tonic::Code as Grpc;
    match status.code() {
        // A message over the limit is out of range; what is not implemented is of another version.
        Grpc::InvalidArgument | Grpc::OutOfRange | Grpc::Unimplemented => Code::Invalid,
        Grpc::PermissionDenied | Grpc::Unauthenticated => Code::Invalid,
        Grpc::NotFound => Code::NotFound,
        Grpc::FailedPrecondition | Grpc::AlreadyExists | Grpc::Aborted => Code::Conflict,
        Grpc::Unavailable | Grpc::DeadlineExceeded | Grpc::ResourceExhausted | Grpc::Cancelled => Code::Unavailable,
        Grpc::DataLoss => Code::Corrupt,
        // A status with a cause did not come over the wire: the connection broke here.
        Grpc::Unknown | Grpc::Internal if status.source().is_some() => Code::Unavailable,
        Grpc::Unknown | Grpc::Internal | Grpc::Ok => Code::Internal,
    }
}

fn shortened(message: &str) -> String {
    const CUT: &str = " … (cut)";
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.to_string();
    }
    let mut end = MESSAGE_BYTES_MAX - CUT.len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{CUT}", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_any_message_survive_the_way_through_a_status() {
        for code in Code::ALL {
            let error = Error::new(*code, "line 1\n`job` → was änderte sich?");
            let status = Status::from(&error);
            assert_eq!(Error::from_status(&status), error);
            // As a header, which is how it travels.
            let mut headers = tonic::codegen::http::HeaderMap::new();
            status.add_header(&mut headers).expect("fits into a header");
            let arrived = Status::from_header_map(&headers).expect("a status");
            assert_eq!(Error::from_status(&arrived), error);
        }
    }

    #[test]
    fn code_of_a_newer_version_or_of_a_library_is_guessed_from_grpc_s() {
        let mut status = Status::data_loss("x");
        status.metadata_mut().insert(CODE_KEY, MetadataValue::from_static("quantum"));
        assert_eq!(Error::from_status(&status).code, Code::Corrupt);
        assert_eq!(Error::from_status(&Status::cancelled("timed out")).code, Code::Unavailable);
        assert_eq!(Error::from_status(&Status::out_of_range("too large")).code, Code::Invalid);
        assert_eq!(Error::from_status(&Status::unknown("?")).code, Code::Internal);
    }

    #[test]
    fn broken_connection_is_unavailable_and_says_what_broke() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "nobody listens");
        let error = Error::from_status(&Status::from_error(Box::new(refused)));
        assert_eq!(error.code, Code::Unavailable);
        assert!(error.message.contains("nobody listens"), "{error}");
    }

    #[test]
    fn message_too_long_for_a_header_is_cut_and_says_so() {
        let error = Error::invalid("ä".repeat(MESSAGE_BYTES_MAX));
        let status = Status::from(&error);
        assert!(status.message().len() <= MESSAGE_BYTES_MAX && status.message().ends_with("(cut)"));
        let whole = Error::invalid("a".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(Error::from_status(&Status::from(&whole)), whole);
    }
}
