//! What went wrong with a call, as the one who called must see it: the coordinator's own answer, or a connection that
//! was never made, or one that broke under way. Pure.

use ef_proto::error::{Code, Error};
use tonic::{ConnectError, Status};

/// The metadata by which a coordinator that does not lead tells so.
const CODE_KEY: &str = "ef-code";
const NOT_LEADER: &str = "not-leader";

const UNREACHABLE: &str = "cannot reach the coordinator at ";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The coordinator has said no; another one would say the same.
    Answer(Error),
    NotLeader(String),
    /// Nobody has received the call.
    Unreached(String),
    /// The call was sent; nobody knows what became of it.
    Lost(String),
}

pub(super) fn fault(status: &Status) -> Fault {
    // Only a status that was made on this side of the connection has an error below it.
    if let Some(source) = std::error::Error::source(status) {
        let mut chain = vec![];
        let mut unreached = false;
        let mut next = Some(source);
        while let Some(error) = next {
            unreached |= error.is::<ConnectError>();
            let text = error.to_string();
            // Most errors repeat the one below them.
            if text != "transport error" && !chain.iter().any(|outer: &String| outer.contains(&text)) {
                chain.push(text);
            }
            next = error.source();
        }
        let reason = chain.join(": ");
        return if unreached { Fault::Unreached(reason) } else { Fault::Lost(reason) };
    }
    let error = error_of(status);
    match error.code {
        Code::NotLeader => Fault::NotLeader(error.message),
        _ => Fault::Answer(error),
    }
}

/// The error that a coordinator's answer stands for.
pub fn error_of(status: &Status) -> Error {
    use tonic::Code as Grpc;
    let not_leader = status.metadata().get(CODE_KEY).is_some_and(|code| code == NOT_LEADER);
    let code = match status.code() {
        Grpc::Unavailable if not_leader => Code::NotLeader,
        Grpc::Unavailable | Grpc::DeadlineExceeded | Grpc::Cancelled | Grpc::ResourceExhausted => Code::Unavailable,
        Grpc::InvalidArgument | Grpc::OutOfRange | Grpc::Unauthenticated | Grpc::PermissionDenied => Code::Invalid,
        Grpc::Unimplemented => {
            let message = "the coordinator does not know this call: it is of another version, or no coordinator";
            return Error::invalid(message);
        }
        Grpc::NotFound => Code::NotFound,
        Grpc::FailedPrecondition | Grpc::AlreadyExists | Grpc::Aborted => Code::Conflict,
        Grpc::DataLoss => Code::Corrupt,
        Grpc::Internal | Grpc::Unknown | Grpc::Ok => Code::Internal,
    };
    let message = match status.message() {
        "" => format!("the coordinator gave no reason ({code})"),
        message => message.to_string(),
    };
    Error { code, message }
}

/// No peer answered, or none that leads.
pub(super) fn all_failed(faults: &[(&str, Fault)]) -> Error {
    let each = |(url, fault): &(&str, Fault)| match fault {
        Fault::Answer(error) => format!("{url}: {error}"),
        Fault::NotLeader(reason) | Fault::Unreached(reason) | Fault::Lost(reason) => format!("{url}: {reason}"),
    };
    let text = faults.iter().map(each).collect::<Vec<_>>().join("; ");
    if faults.iter().any(|(_, fault)| matches!(fault, Fault::NotLeader(_))) {
        return Error::new(Code::NotLeader, format!("no coordinator leads: {text}"));
    }
    Error::new(Code::Unavailable, format!("{UNREACHABLE}{text}"))
}

/// Whether no coordinator answered at all, as against one that answered that something is unavailable.
pub fn is_unreachable(error: &Error) -> bool {
    error.code == Code::Unavailable && error.message.starts_with(UNREACHABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code as Grpc;

    #[test]
    fn answers_become_the_errors_they_were_made_of() {
        let cases = [
            (Grpc::InvalidArgument, Code::Invalid),
            (Grpc::NotFound, Code::NotFound),
            (Grpc::FailedPrecondition, Code::Conflict),
            (Grpc::Unavailable, Code::Unavailable),
            (Grpc::DataLoss, Code::Corrupt),
            (Grpc::Internal, Code::Internal),
            (Grpc::Unknown, Code::Internal),
            (Grpc::DeadlineExceeded, Code::Unavailable),
            (Grpc::PermissionDenied, Code::Invalid),
        ];
        for (grpc, code) in cases {
            let found = fault(&Status::new(grpc, "job `a` is busy"));
            assert_eq!(found, Fault::Answer(Error::new(code, "job `a` is busy")), "{grpc:?}");
        }
        let mut status = Status::unavailable("the leader is c2");
        status.metadata_mut().insert(CODE_KEY, NOT_LEADER.parse().expect("ASCII"));
        assert_eq!(fault(&status), Fault::NotLeader("the leader is c2".into()));
        assert!(error_of(&Status::new(Grpc::Unimplemented, "")).message.contains("another version"));
        assert!(error_of(&Status::new(Grpc::Internal, "")).message.contains("no reason"));
    }

    #[test]
    fn only_what_was_never_sent_counts_as_unreached() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(ConnectError(Box::new(refused))));
        let Fault::Unreached(reason) = fault(&status) else { panic!("{status:?}") };
        assert!(reason.contains("refused"), "{reason}");
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let status = Status::from_error(Box::new(reset));
        assert!(matches!(fault(&status), Fault::Lost(reason) if reason.contains("reset")), "{status:?}");
    }

    #[test]
    fn a_cluster_out_of_reach_is_told_from_a_coordinator_that_is_busy() {
        let error = all_failed(&[
            ("http://a:1", Fault::Unreached("refused".into())),
            ("http://b:1", Fault::Lost("cut".into())),
        ]);
        assert_eq!(error.message, "cannot reach the coordinator at http://a:1: refused; http://b:1: cut");
        assert!(is_unreachable(&error));
        assert!(!is_unreachable(&Error::new(Code::Unavailable, "no slots")));
        let error = all_failed(&[("a", Fault::NotLeader("b leads".into())), ("b", Fault::Unreached("refused".into()))]);
        assert_eq!(error.code, Code::NotLeader);
    }
}
