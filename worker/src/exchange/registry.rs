//! The gates of all deployments of this worker, where calls from other workers find them.
//!
//! A call may come before its gate: workers are told to deploy at about the same time, not in order. It waits. One of
//! an older incarnation is refused: what it carries belongs to a past that the job was taken back from.

use super::inlet::Inlet;
use crate::error::{Code, Error, Result};
use arrow_schema::SchemaRef;
use ef_proto::ids::{DeploymentId, Incarnation, JobId, OperatorId, SubtaskId};
use ef_proto::wire::generated::exchange::Open;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tonic::Status;

/// A receiving task's gate, as it is registered.
pub struct Inbound {
    pub inlet: Arc<dyn Inlet>,
    /// By channel; None for one that is fed in this process.
    pub channels: Vec<Option<Incoming>>,
}

/// A channel that another worker feeds.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub schema: SchemaRef,
    /// For messages: the operator's subtask and worker that feed it.
    pub from: String,
}

/// A channel whose call has come.
pub(super) struct Claimed {
    pub inlet: Arc<dyn Inlet>,
    pub channel: usize,
    pub incoming: Incoming,
}

#[derive(Default)]
pub(super) struct Registry {
    deployments: Mutex<HashMap<DeploymentId, HashMap<SubtaskId, Gate>>>,
    changed: Notify,
}

struct Gate {
    inbound: Inbound,
    claimed: Vec<bool>,
}

/// Keeps a deployment's gates registered. Their tasks close the channels, by dropping the gates.
pub struct Registration {
    registry: Arc<Registry>,
    id: DeploymentId,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.id);
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<DeploymentId, HashMap<SubtaskId, Gate>>> {
        self.deployments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn register(self: &Arc<Self>, id: &DeploymentId, gates: HashMap<SubtaskId, Inbound>) -> Result<Registration> {
        let mut deployments = self.lock();
        if let Some(newest) = newest(&deployments, id)
            && newest >= id.incarnation
        {
            let message = format!("deployment {id} is registered too late: this worker has incarnation {newest} of it");
            return Err(Error::new(Code::Conflict, message));
        }
        let gates = gates.into_iter().map(|(task, inbound)| {
            let claimed = vec![false; inbound.channels.len()];
            (task, Gate { inbound, claimed })
        });
        deployments.insert(id.clone(), gates.collect());
        drop(deployments);
        self.changed.notify_waiters();
        Ok(Registration { registry: self.clone(), id: id.clone() })
    }

    /// Waits at most `patience` for the gate to be registered.
    pub async fn claim(&self, open: &Open, patience: Duration) -> std::result::Result<Claimed, Status> {
        let id = DeploymentId {
            job: JobId(open.job.clone()),
            region: open.region,
            incarnation: Incarnation(open.incarnation),
        };
        let task = SubtaskId { operator: OperatorId(open.operator), index: open.index };
        let found = tokio::time::timeout(patience, async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                // Before the look, so that no change is missed between the two.
                changed.as_mut().enable();
                if let Some(found) = self.find(&id, task, open.channel as usize) {
                    return found;
                }
                changed.await;
            }
        });
        found.await.unwrap_or_else(|_| {
            let waited = patience.as_secs_f32();
            Err(refused(format!("deployment {id} has not come to this worker within {waited} s")))
        })
    }

    /// None: not yet.
    fn find(&self, id: &DeploymentId, task: SubtaskId, channel: usize) -> Option<std::result::Result<Claimed, Status>> {
        let mut deployments = self.lock();
        if let Some(newest) = newest(&deployments, id)
            && newest > id.incarnation
        {
            return Some(Err(refused(format!("deployment {id} is over: this worker has incarnation {newest} of it"))));
        }
        let gate = deployments.get_mut(id)?.get_mut(&task);
        let found = gate.and_then(|gate| {
            let incoming = gate.inbound.channels.get(channel)?.clone()?;
            Some((gate.inbound.inlet.clone(), incoming, gate.claimed.get_mut(channel)?))
        });
        let Some((inlet, incoming, claimed)) = found else {
            return Some(Err(refused(format!(
                "task {task} of deployment {id} has no channel {channel} from another worker here"
            ))));
        };
        if std::mem::replace(claimed, true) {
            return Some(Err(refused(format!("channel {channel} of task {task} of deployment {id} is open already"))));
        }
        inlet.open(channel);
        Some(Ok(Claimed { inlet, channel, incoming }))
    }
}

/// The highest incarnation of the same region.
fn newest<V>(deployments: &HashMap<DeploymentId, V>, id: &DeploymentId) -> Option<Incarnation> {
    let same = deployments.keys().filter(|other| other.job == id.job && other.region == id.region);
    same.map(|other| other.incarnation).max()
}

/// For good: coming again would not help.
fn refused(message: String) -> Status {
    Status::failed_precondition(message)
}
