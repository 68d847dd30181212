//! Savepoints: a checkpoint is taken, kept for as long as it takes to copy it to the user's place, and forgotten there:
//! the copy needs nothing of the job any more.

use super::{Core, Effect, RequestId};
use crate::leader::mailbox::Response;
use crate::meta::{Command, SavepointState};
use ef_proto::error::Error;
use ef_proto::ids::JobId;

impl Core {
    /// What an earlier leader has left unfinished.
    pub(super) fn adopt_savepoints(&mut self, now: u64) {
        let unfinished: Vec<(String, JobId, bool)> = self
            .meta
            .savepoints
            .values()
            .filter(|savepoint| savepoint.state == SavepointState::InProgress)
            .map(|savepoint| (savepoint.id.clone(), savepoint.job.clone(), savepoint.epoch.is_some()))
            .collect();
        for (id, job, has_epoch) in unfinished {
            if has_epoch {
                self.copy_savepoint(&id);
            } else {
                self.savepoint_created(&id, &job, now);
            }
        }
    }

    /// It becomes a copy of the next checkpoint that is triggered.
    pub(super) fn savepoint_created(&mut self, id: &str, job: &JobId, now: u64) {
        let Some(meta) = self.meta.jobs.get(job).filter(|job| !job.state.has_ended()) else {
            let reason = "the job has ended".to_string();
            self.propose(Command::SavepointFailed { id: id.to_string(), at_ms: now, reason });
            return;
        };
        if meta.stopping.as_ref().is_some_and(|stopping| stopping.savepoint.as_deref() == Some(id)) {
            return; // of the last checkpoint
        }
        if let Some(run) = self.runs.get_mut(job) {
            run.savepoints.push(id.to_string());
        }
        self.request_checkpoint(job, now);
    }

    pub(super) fn copy_savepoint(&mut self, id: &str) {
        let Some(savepoint) = self.meta.savepoints.get(id) else { return };
        let Some(epoch) = savepoint.epoch.filter(|_| savepoint.state == SavepointState::InProgress) else { return };
        let (savepoint, job, path) = (id.to_string(), savepoint.job.clone(), savepoint.path.clone());
        self.out.push(Effect::Copy { savepoint, job, epoch, path });
    }

    pub(super) fn copied(&mut self, id: String, result: Result<u64, Error>, now: u64) {
        let job = self.meta.savepoints.get(&id).map(|savepoint| savepoint.job.clone());
        match result {
            Ok(bytes) => self.propose(Command::SavepointDone { id, at_ms: now, bytes }),
            Err(error) => self.propose(Command::SavepointFailed { id, at_ms: now, reason: error.message }),
        };
        // Its checkpoint may go now, if it is an old one.
        if let Some(job) = job {
            self.sweep_soon(&job);
        }
    }

    pub(super) fn disposed(&mut self, id: RequestId, savepoint: String, result: Result<(), Error>, now: u64) {
        let Some(found) = self.meta.savepoints.get(&savepoint) else {
            return self.reply(id, result.map(|()| Response::Savepoint(Default::default())));
        };
        match result {
            Ok(()) => {
                let mut shown = super::view::savepoint(found);
                shown.state = SavepointState::Disposed.name().into();
                let command = Command::SavepointDisposed { id: savepoint, at_ms: now };
                self.propose_and_reply(command, id, Response::Savepoint(shown));
            }
            Err(error) => self.reply(id, Err(error)),
        }
    }

    /// Those that still waited for a checkpoint of a job that has ended.
    pub(super) fn savepoints_of_ended(&mut self, job: &JobId, now: u64) {
        let waiting: Vec<String> = self
            .meta
            .savepoints
            .values()
            .filter(|s| s.job == *job && s.state == SavepointState::InProgress && s.epoch.is_none())
            .map(|s| s.id.clone())
            .collect();
        for id in waiting {
            let reason = "the job has ended".to_string();
            self.propose(Command::SavepointFailed { id, at_ms: now, reason });
        }
    }
}
