//! Sinks, and the world outside that they publish to. Rows are hidden in a batch of their own at the barrier, and become
//! visible, all at once and once only, when their checkpoint is recorded or restored: as the file sink does by renaming.

use super::jobs::Row;
use super::people::lineage_of;
use super::world::World;
use ef_proto::ids::{DeploymentId, Epoch, JobId, OperatorId, SubtaskId};
use std::collections::BTreeMap;

/// A batch: (job, operator, the incarnation and the subtask that wrote it, its number).
pub type Batch = (u64, OperatorId, u64, u32, u64);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    Hidden,
    Published,
    /// By the next incarnation: its checkpoint never was.
    Deleted,
}

/// (lineage, table).
pub type Table = (usize, String);

#[derive(Default)]
pub struct Outside {
    batches: BTreeMap<Batch, (Standing, Vec<Row>, Table)>,
    pub tables: BTreeMap<Table, Vec<Row>>,
    pub jobs: BTreeMap<JobId, u64>,
    /// The incarnation that last took over what a subtask of a sink has written.
    taken_over: BTreeMap<(u64, OperatorId, u32), u64>,
    /// How far each split was ever read: only a source that does not rewind looks here.
    pub furthest: BTreeMap<(usize, OperatorId, u32), u32>,
}

pub struct Sink {
    job: u64,
    deployment: DeploymentId,
    subtask: SubtaskId,
    table: Table,
    rows: Vec<Row>,
    written: u64,
    pending: Vec<(Epoch, Batch)>,
}

impl World {
    pub fn job_number(&mut self, job: &JobId) -> u64 {
        let next = self.outside.jobs.len() as u64 + 1;
        *self.outside.jobs.entry(job.clone()).or_insert(next)
    }

    /// Takes over from the old subtasks' blobs what is this one's, and publishes what the checkpoint holds.
    pub fn open_sink(
        &mut self,
        deployment: &DeploymentId,
        subtask: SubtaskId,
        parallelism: u32,
        table: &str,
        blobs: &[Vec<u8>],
        restored: Option<Epoch>,
    ) -> Result<Sink, String> {
        let job = self.job_number(&deployment.job);
        let lineage = lineage_of(&deployment.job.0);
        let mine = |writer: u32| writer % parallelism == subtask.index;
        let restored_batches: Vec<(Epoch, Batch)> = blobs.iter().flat_map(|blob| decode(blob)).collect();
        let incarnation = deployment.incarnation.0;
        // What is left of earlier incarnations and in no checkpoint never was.
        let of_sink = (job, subtask.operator, 0, 0, 0)..(job, subtask.operator, incarnation, 0, 0);
        for (batch, (standing, ..)) in self.outside.batches.range_mut(of_sink) {
            let kept = restored_batches.iter().any(|(_, kept)| kept == batch);
            if mine(batch.3) && *standing == Standing::Hidden && !kept {
                *standing = Standing::Deleted;
            }
        }
        for writer in (0..16).filter(|writer| mine(*writer)) {
            let by = self.outside.taken_over.entry((job, subtask.operator, writer)).or_default();
            *by = incarnation.max(*by);
        }
        let pending = restored_batches.into_iter().filter(|(_, batch)| mine(batch.3)).collect();
        let table = (lineage, table.to_string());
        let (rows, deployment) = (Vec::new(), deployment.clone());
        let mut sink = Sink { job, deployment, subtask, table, rows, written: 0, pending };
        if let Some(epoch) = restored {
            self.commit(&mut sink, epoch)?;
        }
        Ok(sink)
    }

    /// Makes what is pending up to the epoch visible.
    pub fn commit(&mut self, sink: &mut Sink, epoch: Epoch) -> Result<(), String> {
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut sink.pending).into_iter().partition(|p| p.0 <= epoch);
        sink.pending = later;
        for (_, batch) in now {
            let Some((standing, rows, table)) = self.outside.batches.get_mut(&batch) else {
                return Err(format!("the hidden batch {batch:?} is gone"));
            };
            match standing {
                Standing::Published => continue,
                Standing::Deleted => return Err(format!("the hidden batch {batch:?} was deleted")),
                Standing::Hidden => *standing = Standing::Published,
            }
            let (rows, table) = (rows.clone(), table.clone());
            self.outside.tables.entry(table).or_default().extend(rows);
            let by = self.outside.taken_over.get(&(batch.0, batch.1, batch.3)).copied().unwrap_or(0);
            if by > sink.deployment.incarnation.0 && batch.0 == sink.job && !self.options.outside_only {
                self.fail(format!("{} publishes after incarnation {by} has taken over", sink.deployment));
            }
        }
        Ok(())
    }

    /// The barrier: what was written so far is hidden in a batch of its own. Returns what it takes to publish it.
    pub fn prepare(&mut self, sink: &mut Sink, epoch: Epoch) -> Result<Vec<u8>, String> {
        if !sink.rows.is_empty() {
            sink.written += 1;
            let by = sink.deployment.incarnation.0;
            let batch = (sink.job, sink.subtask.operator, by, sink.subtask.index, sink.written);
            let hidden = (Standing::Hidden, std::mem::take(&mut sink.rows), sink.table.clone());
            self.outside.batches.insert(batch, hidden);
            sink.pending.push((epoch, batch));
        }
        let blob = encode(&sink.pending);
        if self.options.bugs.publish_at_barrier {
            self.commit(sink, epoch)?;
        }
        Ok(blob)
    }
}

impl Sink {
    pub fn write(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
    }
}

fn encode(pending: &[(Epoch, Batch)]) -> Vec<u8> {
    let numbers = pending.iter().flat_map(|(epoch, (job, operator, incarnation, subtask, number))| {
        [epoch.0, *job, operator.0, *incarnation, u64::from(*subtask), *number]
    });
    numbers.flat_map(u64::to_le_bytes).collect()
}

fn decode(blob: &[u8]) -> Vec<(Epoch, Batch)> {
    let numbers: Vec<u64> =
        blob.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes"))).collect();
    let batch = |n: &[u64]| (Epoch(n[0]), (n[1], OperatorId(n[2]), n[3], n[4] as u32, n[5]));
    numbers.chunks_exact(6).map(batch).collect()
}
