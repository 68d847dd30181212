//! The sink's end of the way to one Redis server: a connection that is made when it is needed, and made anew when it
//! breaks, after which no other of ours writes.

use super::command;
use super::pending::Batch;
use super::rival::{Name, rivals};
use crate::connector::Place;
use crate::connector::delivery::{Carrier, Outcome};
use crate::connector::net::redis::{Dialler, Refusal, Trouble};
use crate::error::{Code, Result};
use ef_proto::connector::RedisServer;
use ef_proto::keys::hash_bytes;
use redis::{Connection, ErrorKind, RedisError, Value};

pub struct Server {
    dialler: Dialler,
    name: Name,
    connection: Option<Connection>,
    /// The server does not let us look after rivals; said once.
    unfenced: bool,
}

impl From<Trouble> for Outcome {
    fn from(trouble: Trouble) -> Outcome {
        match trouble {
            Trouble::Later(why) => Outcome::Retry { why, after_ms: None },
            Trouble::Never(error) => Outcome::Failed(error),
        }
    }
}

impl Server {
    /// Does not connect: a server that is away at the start is waited for. Its secrets must be there.
    pub fn new(options: &RedisServer, place: &Place) -> Result<Server> {
        Ok(Server {
            dialler: Dialler::new(options, place)?,
            name: Name {
                family: hash_bytes(format!("{}/{}", place.job, place.operator).as_bytes()),
                incarnation: place.incarnation,
                subtask: place.index,
            },
            connection: None,
            unfenced: false,
        })
    }

    fn deliver(&mut self, batch: &Batch) -> std::result::Result<(), Trouble> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut connection = self.dialler.connect()?;
                self.fence(&mut connection)?;
                connection
            }
        };
        let answers = exchange(&mut connection, batch).map_err(|error| self.dialler.later(error))?;
        let worst = answers.into_iter().min_by_key(|(_, refusal)| refusal.passes());
        let Some((at, refusal)) = worst else {
            self.connection = Some(connection);
            return Ok(());
        };
        let (name, key) = command::nth(&batch.commands, at).unwrap_or_default();
        let what = format!("{name} of key `{key}`: {refusal}");
        if refusal.passes() {
            // By another way, perhaps: a replica that was the primary will not become it again soon.
            return Err(self.dialler.later(what));
        }
        Err(self.dialler.never(refusal.code(), what))
    }

    /// Ends the connections of the past before we write.
    fn fence(&mut self, connection: &mut Connection) -> std::result::Result<(), Trouble> {
        match self.end_rivals(connection) {
            Ok(None) => Ok(()),
            Ok(Some(newer)) => Err(self.dialler.never(
                Code::Conflict,
                format!("deployment {newer} of this job writes there, and this one is {}", self.name.incarnation),
            )),
            Err(error) => {
                let code = error.code().unwrap_or_default().to_owned();
                let may_not = matches!(error.kind(), ErrorKind::Server(_)) && matches!(code.as_str(), "NOPERM" | "ERR");
                if !may_not {
                    return Err(self.dialler.sort(&error));
                }
                if !std::mem::replace(&mut self.unfenced, true) {
                    let what = format!("connections of earlier deployments cannot be ended: {error}");
                    tracing::warn!("{}", self.dialler.tell(what));
                }
                Ok(())
            }
        }
    }

    /// The number of a newer deployment that writes there.
    fn end_rivals(&self, connection: &mut Connection) -> std::result::Result<Option<u64>, RedisError> {
        redis::cmd("CLIENT").arg("SETNAME").arg(self.name.to_string()).exec(connection)?;
        let own: u64 = redis::cmd("CLIENT").arg("ID").query(connection)?;
        let list: String = redis::cmd("CLIENT").arg("LIST").query(connection)?;
        let found = rivals(&list, &self.name, own);
        if found.newer.is_none() {
            for id in found.past {
                redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).exec(connection)?;
            }
        }
        Ok(found.newer)
    }
}

impl Carrier for Server {
    type Parcel = Batch;

    fn carry(&mut self, batch: &Batch) -> Outcome {
        self.deliver(batch).map_or_else(Outcome::from, |()| Outcome::Delivered)
    }
}

/// Sends all commands and hears all answers; those that are refusals, with their positions. Err: the connection is of no
/// use any more.
fn exchange(connection: &mut Connection, batch: &Batch) -> std::result::Result<Vec<(usize, Refusal)>, RedisError> {
    connection.send_packed_command(&batch.commands)?;
    let mut refusals = Vec::new();
    for at in 0..batch.count {
        if let Value::ServerError(error) = connection.recv_response()? {
            refusals.push((at, Refusal::from(&error)));
        }
    }
    Ok(refusals)
}

#[cfg(test)]
mod tests;
