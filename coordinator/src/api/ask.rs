//! One call of the leader whose answer has to be of the request's kind. Both services use it.

use crate::leader::Response;
use ef_proto::error::{Code, Error};

/// `ask!(handle, Request::ListJobs, Response::Jobs(jobs) => jobs)`: a `Result` of what is right of the arrow.
macro_rules! ask {
    ($handle:expr, $request:expr, $answer:pat => $value:expr) => {
        match $handle.call($request).await {
            Ok($answer) => Ok($value),
            Ok(other) => Err($crate::api::ask::mismatch(&other)),
            Err(error) => Err(error),
        }
    };
}
pub(super) use ask;

/// A bug of the leader's.
pub(super) fn mismatch(answer: &Response) -> Error {
    let answer = format!("{answer:?}");
    let kind: String = answer.chars().take_while(|c| c.is_alphanumeric()).collect();
    Error::new(Code::Internal, format!("the coordinator answered with `{kind}`, which is not what was asked for"))
}
