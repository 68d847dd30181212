//! Retention and garbage collection beside the job: nothing waits for them, one sweep runs at a time, and what one
//! leaves undone the next does.

use super::Manifests;
use ef_proto::ids::{Epoch, Incarnation};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long the end of a job waits for its last sweep. What is left then, the job's next start sweeps.
const FAREWELL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Janitor {
    manifests: Arc<Manifests>,
    incarnation: Incarnation,
    waiting: Arc<Mutex<Waiting>>,
    sweep: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Superseded checkpoints.
    epochs: Vec<Epoch>,
    /// The newest completed one.
    newest: Epoch,
}

impl Janitor {
    pub fn new(manifests: Arc<Manifests>, incarnation: Incarnation) -> Janitor {
        Janitor { manifests, incarnation, waiting: Arc::default(), sweep: None }
    }

    /// `epochs` may go, because `newest` has completed. On a tokio runtime.
    pub fn retire(&mut self, epochs: Vec<Epoch>, newest: Epoch) {
        let mut waiting = lock(&self.waiting);
        waiting.epochs.extend(epochs);
        waiting.newest = newest;
        drop(waiting);
        if self.sweep.as_ref().is_none_or(JoinHandle::is_finished) {
            self.sweep = Some(tokio::spawn(sweep(self.manifests.clone(), self.incarnation, self.waiting.clone())));
        }
    }

    /// Sweeps what is still waiting, for a while.
    pub async fn finish(mut self) {
        let rest = async {
            if let Some(sweep) = self.sweep.take() {
                // A panic in there has been reported already.
                let _ = sweep.await;
            }
            sweep(self.manifests, self.incarnation, self.waiting).await;
        };
        if tokio::time::timeout(FAREWELL, rest).await.is_err() {
            tracing::warn!("old checkpoints are not yet cleaned up: the store takes too long");
        }
    }
}

async fn sweep(manifests: Arc<Manifests>, incarnation: Incarnation, waiting: Arc<Mutex<Waiting>>) {
    loop {
        let (epochs, newest) = {
            let mut waiting = lock(&waiting);
            (std::mem::take(&mut waiting.epochs), waiting.newest)
        };
        if epochs.is_empty() {
            return;
        }
        if let Err(error) = manifests.retire(&epochs, incarnation, newest).await {
            tracing::warn!(%error, "old checkpoints are not yet cleaned up");
            lock(&waiting).epochs.extend(epochs);
            return;
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
