//! What a request may carry before it costs anything: sizes, and that what must be named is named. Whether a name means
//! something is for the leader to say.

use ef_proto::error::Error;
use ef_proto::wire::generated::control::{ExplainRequest, SubmitRequest};

/// Of one request as it is decoded: SQL, and what is said of each model file.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
/// The planner's time and memory grow with it.
pub const SQL_BYTES_MAX: usize = 1 << 20;
/// Of a job's or a worker's name, as of a host's.
pub const NAME_CHARS_MAX: usize = 253;
/// Of a savepoint's path, as of a file's.
pub const PATH_BYTES_MAX: usize = 4096;

type Result = std::result::Result<(), Error>;

pub fn submit(request: &SubmitRequest) -> Result {
    sql(&request.sql)?;
    name("job name", &request.name)?;
    path("savepoint", &request.from_savepoint)
}

pub fn explain(request: &ExplainRequest) -> Result {
    sql(&request.sql)?;
    name("job name", &request.name)
}

/// A job or a worker that is asked for, by id or name.
pub fn named(what: &str, given: &str) -> Result {
    if given.is_empty() {
        return Err(Error::invalid(format!("no {what} is given; its id or its name is expected")));
    }
    name(what, given)
}

/// A savepoint that is asked for, by id or path.
pub fn savepoint(given: &str) -> Result {
    if given.is_empty() {
        return Err(Error::invalid("no savepoint is given; its id or its path is expected"));
    }
    path("savepoint", given)
}

pub fn path(what: &str, given: &str) -> Result {
    match given.len() <= PATH_BYTES_MAX {
        true => Ok(()),
        false => {
            Err(Error::invalid(format!("the {what} has {} bytes; at most {PATH_BYTES_MAX} are accepted", given.len())))
        }
    }
}

/// One that may be left out.
pub fn name(what: &str, given: &str) -> Result {
    let chars = given.chars().count();
    match chars <= NAME_CHARS_MAX {
        true => Ok(()),
        false => {
            Err(Error::invalid(format!("the {what} has {chars} characters; at most {NAME_CHARS_MAX} are accepted")))
        }
    }
}

fn sql(given: &str) -> Result {
    match given.len() <= SQL_BYTES_MAX {
        true => Ok(()),
        false => {
            Err(Error::invalid(format!("the SQL has {} bytes; at most {SQL_BYTES_MAX} are accepted", given.len())))
        }
    }
}
