//! The leader's hands in the object store: a job's manifests, sweeps, savepoints. One opened root for each job.

use crate::manifests::Manifests;
use crate::manifests::savepoint::{self, About};
use ef_proto::checkpoint::Manifest;
use ef_proto::error::{Code, Error};
use ef_proto::ids::{Epoch, JobId};
use ef_proto::plan::Plan;
use ef_store::{Location, Options, Patience, Root};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

type Result<T> = std::result::Result<T, Error>;

/// Jobs whose roots are kept open.
const OPEN_MAX: usize = 4096;

/// Where a job keeps its checkpoints, and by which options that place is opened.
#[derive(Clone, Debug)]
pub struct Place {
    location: Location,
    options: Options,
}

impl Place {
    /// `plan` as it is encoded: its `SET` options say how the store is reached.
    pub fn of(state: &str, plan: &[u8]) -> Result<Place> {
        let plan = Plan::decode(plan)?;
        Ok(Place { location: Location::parse(state)?, options: Options::parse(&plan.config)? })
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn state(&self) -> Result<Root> {
        Root::open(&self.location, &self.options, Patience::Full)
    }
}

pub struct Stores {
    /// Of this process.
    nonce: u64,
    jobs: Mutex<HashMap<JobId, Arc<Manifests>>>,
    /// Jobs with a sweep under way.
    sweeping: Mutex<HashSet<JobId>>,
    /// Places that have been seen to keep create-only puts.
    checked: Mutex<HashSet<String>>,
}

impl Stores {
    pub fn new(nonce: u64) -> Stores {
        Stores { nonce, jobs: Mutex::default(), sweeping: Mutex::default(), checked: Mutex::default() }
    }

    pub async fn job(&self, job: &JobId, place: Place) -> Result<Arc<Manifests>> {
        if let Some(manifests) = lock(&self.jobs).get(job) {
            return Ok(manifests.clone());
        }
        let manifests = Arc::new(Manifests::open_shared(&place.state()?, job.clone())?);
        let mut jobs = lock(&self.jobs);
        if jobs.len() >= OPEN_MAX {
            jobs.clear(); // opened again as they are needed
        }
        jobs.insert(job.clone(), manifests.clone());
        Ok(manifests)
    }

    /// Refuses a place that cannot keep checkpoints safely; each is looked at once.
    pub async fn check(&self, place: &Place) -> Result<()> {
        let shown = place.location.to_string();
        if lock(&self.checked).contains(&shown) {
            return Ok(());
        }
        Root::open_checked(&place.location, &place.options, self.nonce).await?;
        lock(&self.checked).insert(shown);
        Ok(())
    }

    /// Deletes what no kept checkpoint needs, and tells how many objects. One sweep of a job at a time; a second is left to
    /// the next time.
    pub async fn sweep(
        &self,
        job: &JobId,
        place: Place,
        kept: &[Epoch],
        last_completed: Option<Epoch>,
    ) -> Result<usize> {
        if !lock(&self.sweeping).insert(job.clone()) {
            return Err(Error::new(Code::Conflict, "another sweep of the job is under way"));
        }
        let swept = self.sweep_now(job, place, kept, last_completed).await;
        lock(&self.sweeping).remove(job);
        swept
    }

    async fn sweep_now(
        &self,
        job: &JobId,
        place: Place,
        kept: &[Epoch],
        last_completed: Option<Epoch>,
    ) -> Result<usize> {
        let manifests = self.job(job, place).await?;
        let mut retained: Vec<Manifest> = Vec::new();
        for epoch in kept {
            // One that does not read back stops the sweep: its files may be the ones that would go.
            retained.push(manifests.get(*epoch).await?);
        }
        let gone = manifests.sweep(&retained, last_completed).await?;
        Ok(gone.manifests.len() + gone.files.len())
    }

    pub async fn copy_savepoint(
        &self,
        job: &JobId,
        place: Place,
        epoch: Epoch,
        path: &str,
        about: Option<About>,
    ) -> Result<u64> {
        let to = Root::open(&Location::parse(path)?, &place.options, Patience::Full)?;
        let manifests = self.job(job, place).await?;
        let manifest = manifests.get(epoch).await?;
        let about = about.unwrap_or(About { job_name: String::new(), sql: String::new(), created_at_ms: 0 });
        savepoint::copy(manifests.root(), &manifest, &about, &to).await
    }

    pub async fn dispose(&self, path: &str, options: &Options) -> Result<()> {
        match savepoint::open(path, options)? {
            Some(root) => savepoint::dispose(&root).await,
            None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
