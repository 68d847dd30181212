//! From a plan to running tasks: those that are placed here. Fuses operators, restores state, starts threads.

use super::run::panicked;
use super::scratch::{self, scratch};
use super::wiring::{Handle, Wiring, input_schemas, operator};
use crate::config::{self, WorkerConfig};
use crate::connector::{self, CommitPermit, Place, SinkRestore};
use crate::error::{Code, Error, Result};
use crate::exchange::{Channel, Exchange, Outlet, Partitioner, Registration};
use crate::expr::CalcProgram;
use crate::metrics::{Metered, OperatorMetrics, Role};
use crate::operator::{self, lookup_join::LookupJoin};
use crate::state::{Restored, Root, Store, Stores, download, tempdir};
use crate::task::{
    Body, Clock, Control, Events, ExchangeOutput, Exit, GatedTask, Node, Out, Outputs, RowTime, SourceTask, Target,
    TaskEvent,
};
use ef_proto::checkpoint::{Manifest, OperatorState, SubtaskState};
use ef_proto::ids::{DeploymentId, OperatorId, SubtaskId};
use ef_proto::keys::range_of;
use ef_proto::plan::{self, Calc, Operator, OperatorKind, Plan, Source};
use ef_proto::rpc::Deploy;
use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};

/// What a deployment works with.
pub(super) struct Deployment {
    pub id: DeploymentId,
    pub config: WorkerConfig,
    pub clock: Clock,
    /// Where the job's checkpoints lie.
    pub root: Root,
    /// The way to other workers; None: all tasks run here.
    pub exchange: Option<Arc<Exchange>>,
    pub events: Events,
}

/// What a deployment holds beside its tasks. Each task has a share of it, and gives it back before it says that it has
/// left: when all have left, nothing of the deployment is there any more.
struct Held {
    scratch: tempdir::Owned,
    _registration: Option<Registration>,
}

/// A task's thread, from the outside.
pub(super) struct Started {
    pub control: Handle,
    /// Every operator's subtask that the task runs.
    pub subtasks: Vec<SubtaskId>,
}

type Failed = (OperatorId, Error);

/// Starts all tasks of the deployment that are placed here; none, if one of them cannot start.
pub(super) async fn deploy(
    with: Deployment,
    command: Deploy,
) -> std::result::Result<(Vec<Started>, Vec<Metered>), Failed> {
    let nowhere = |e: Error| (OperatorId(0), e);
    let plan = Plan::decode(&command.plan).map_err(nowhere)?;
    // First of all: other workers may be ready long before the state is here.
    let (wiring, registration) = Wiring::new(&with, &plan, command.placement.clone()).map_err(nowhere)?;
    let held = Arc::new(Held { scratch: scratch(&with.config.work_dir, &with.id), _registration: registration });
    let mut restored: HashMap<SubtaskId, Vec<Restored>> = HashMap::new();
    for (subtask, old) in to_download(&command, &plan, &wiring) {
        let name = format!("restore-{}-{}-{}", subtask.operator, subtask.index, old.index);
        let part = download_boxed(with.root.clone(), old, held.scratch.path().join(name)).await;
        restored.entry(subtask).or_default().push(part.map_err(|e| (subtask.operator, e))?);
    }
    // Opening stores and reading model files blocks; the runtime's threads are not for that.
    tokio::task::spawn_blocking(move || Builder::new(&with, &command, &plan, wiring, held, restored)?.build())
        .await
        .map_err(|e| nowhere(Error::new(Code::Internal, format!("deployment: {e}"))))?
}

/// Boxed, because the compiler cannot see through the streams in `download` that the future is Send.
fn download_boxed(
    root: Root,
    old: SubtaskState,
    directory: PathBuf,
) -> Pin<Box<dyn Future<Output = Result<Restored>> + Send>> {
    Box::pin(async move { download(&root, old, directory).await })
}

/// Every new subtask that runs here with each old one whose key groups it takes over.
fn to_download(command: &Deploy, plan: &Plan, wiring: &Wiring) -> Vec<(SubtaskId, SubtaskState)> {
    let mut wanted = Vec::new();
    for state in command.restore.iter().flat_map(|manifest| &manifest.operators) {
        let Some(op) = plan.operator(state.id) else { continue };
        let subtasks = (0..op.parallelism).map(|index| SubtaskId { operator: op.id, index });
        let is_sink = matches!(op.kind, OperatorKind::Sink(_));
        for subtask in subtasks.filter(|subtask| wiring.is_here(*subtask)) {
            let range = range_of(subtask.index, op.parallelism, plan.max_parallelism);
            let old = state.subtasks.iter().filter(|old| match is_sink {
                // Rows that are not published yet belong to the subtask that wrote them, or to the one that stands in
                // for it.
                true => !old.keyed.is_empty() && old.index % op.parallelism == subtask.index,
                false => overlaps(&old.key_groups, &range),
            });
            wanted.extend(old.map(|old| (subtask, old.clone())));
        }
    }
    wanted
}

fn overlaps(a: &std::ops::Range<u16>, b: &std::ops::Range<u16>) -> bool {
    a.start < b.end && b.start < a.end
}

struct Builder<'a> {
    with: &'a Deployment,
    command: &'a Deploy,
    plan: &'a Plan,
    wiring: Wiring,
    held: Arc<Held>,
    restored: HashMap<SubtaskId, Vec<Restored>>,
    stores: Stores,
    memory_share: usize,
    metered: Vec<Metered>,
    /// Channels to other workers of the task that is being built.
    outlets: Vec<Arc<Outlet>>,
}

enum Task {
    Source(SourceTask),
    Gated(GatedTask),
}

impl<'a> Builder<'a> {
    fn new(
        with: &'a Deployment,
        command: &'a Deploy,
        plan: &'a Plan,
        wiring: Wiring,
        held: Arc<Held>,
        restored: HashMap<SubtaskId, Vec<Restored>>,
    ) -> std::result::Result<Builder<'a>, Failed> {
        let backend = config::backend(&plan.config).map_err(|e| (OperatorId(0), e))?;
        let memory_bytes = share(with.config.memory_bytes, command.slots, with.config.slots);
        let stores = Stores::open(backend, held.scratch.path(), memory_bytes, with.id.incarnation);
        let memory_share = stores.hot_bytes(memory_bytes) as usize / keyed_here(plan, &wiring).max(1);
        let (metered, outlets) = (Vec::new(), Vec::new());
        Ok(Builder { with, command, plan, wiring, held, restored, stores, memory_share, metered, outlets })
    }

    fn build(mut self) -> std::result::Result<(Vec<Started>, Vec<Metered>), Failed> {
        let mut tasks = Vec::new();
        for root in self.wiring.roots() {
            let (control, task, subtasks) = self.task(root).map_err(|e| (root.operator, e))?;
            tasks.push((root, control, task, subtasks));
        }
        let mut started: Vec<Started> = Vec::new();
        for (root, control, task, subtasks) in tasks {
            let (events, held) = (self.with.events.clone(), self.held.clone());
            let name = self.plan.operator(root.operator).map_or("", |op| op.name.as_str());
            let thread = std::thread::Builder::new().name(format!("{name}/{}", root.index));
            let run = move || {
                let exit = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match task {
                    Task::Source(task) => task.run(),
                    Task::Gated(task) => task.run(),
                }))
                .unwrap_or_else(|payload| Exit::Failed(root.operator, panicked(payload.as_ref())));
                drop(held);
                // An agent that is gone needs no events.
                if let Exit::Failed(operator, error) = exit {
                    let _ = events.blocking_send(TaskEvent::Failed { operator, error });
                }
                let _ = events.blocking_send(TaskEvent::Exited);
            };
            // Those that run already leave with `started`.
            thread.spawn(run).map_err(|e| {
                (root.operator, Error::new(Code::Unavailable, format!("cannot start a thread for {name}: {e}")))
            })?;
            started.push(Started { control, subtasks });
        }
        Ok((started, self.metered))
    }

    fn task(&mut self, root: SubtaskId) -> Result<(Handle, Task, Vec<SubtaskId>)> {
        let op = operator(self.plan, root.operator)?;
        let mut subtasks = Vec::new();
        let task = if let OperatorKind::Source(source) = &op.kind {
            Task::Source(self.source(op, source, root, &mut subtasks)?)
        } else {
            let node = self.node(op, root.index, &mut subtasks)?;
            let (gate, inputs) = self.wiring.take_gate(root);
            let (clock, events) = (self.with.clock.clone(), self.with.events.clone());
            Task::Gated(GatedTask { root: node, gate, inputs, clock, events })
        };
        let handle = self.wiring.handle(root, std::mem::take(&mut self.outlets));
        Ok((handle, task, subtasks))
    }

    fn restored_state(&self, id: OperatorId) -> Option<&'a OperatorState> {
        self.command.restore.as_ref().and_then(|manifest: &Manifest| manifest.operators.iter().find(|op| op.id == id))
    }

    fn blobs(&self, id: OperatorId) -> Vec<Vec<u8>> {
        self.restored_state(id).map(|state| state.subtasks.iter().map(|s| s.blob.clone()).collect()).unwrap_or_default()
    }

    /// Where the subtasks of a source go on.
    fn positions(&self, id: OperatorId) -> Vec<Vec<u8>> {
        let mut blobs = self.blobs(id);
        if let Some(positions) = &self.with.config.bugs.skip_replay {
            let positions = positions.lock().unwrap_or_else(PoisonError::into_inner);
            for (index, blob) in (0..).zip(&mut blobs) {
                let known = positions.get(&(self.with.id.job.clone(), SubtaskId { operator: id, index }));
                *blob = known.unwrap_or(blob).clone();
            }
        }
        blobs
    }

    fn place(&self, table: &str, op: &Operator, index: u32) -> Place {
        Place {
            table: table.to_string(),
            index,
            parallelism: op.parallelism,
            job: self.with.id.job.0.clone(),
            operator: op.id,
            incarnation: self.with.id.incarnation.0,
            now_ms: (self.with.clock)(),
            secrets: self.with.config.secrets.clone(),
            scratch: self.held.scratch.path().join(format!("connector-{}-{index}", op.id)),
            durable: self.with.config.durable_dir.as_ref().map(|directory| {
                let job = scratch::job_name(&self.with.id.job.0);
                directory.join(job).join(op.id.to_string())
            }),
        }
    }

    fn meter(&mut self, op: &Operator, subtask: SubtaskId) -> Arc<OperatorMetrics> {
        let metrics = OperatorMetrics::new();
        let role = match &op.kind {
            OperatorKind::Source(source) => Role::Source { table: source.table.clone() },
            OperatorKind::Sink(sink) => Role::Sink { table: sink.table.clone() },
            _ => Role::Operator,
        };
        self.metered.push(Metered { subtask, name: op.name.clone(), role, metrics: metrics.clone() });
        metrics
    }

    fn source(
        &mut self,
        op: &'a Operator,
        source: &Source,
        subtask: SubtaskId,
        subtasks: &mut Vec<SubtaskId>,
    ) -> Result<SourceTask> {
        subtasks.push(subtask);
        let clock = self.with.clock.clone();
        let clock: connector::Clock = Box::new(move || clock());
        let reader =
            connector::source(source, &self.place(&source.table, op, subtask.index), &self.positions(op.id), clock)?;
        let calc = Calc { filter: None, project: source.project.clone() };
        let watermark = source.watermark.as_ref();
        let (gate, _) = self.wiring.take_gate(subtask);
        Ok(SourceTask {
            subtask,
            name: op.name.clone(),
            source: reader,
            bug: self.with.config.bugs.skip_replay.clone().map(|positions| (positions, self.with.id.job.clone())),
            project: CalcProgram::compile(&calc, &source.physical, &op.schema)?,
            watermark: watermark.map(|w| RowTime::compile(&w.expr, &source.physical)).transpose()?,
            idle_timeout_ms: watermark.and_then(|w| w.idle_timeout_ms),
            outputs: self.outputs(op, subtask, subtasks)?,
            gate,
            clock: self.with.clock.clone(),
            events: self.with.events.clone(),
            stop: self.command.stop,
        })
    }

    fn node(&mut self, op: &'a Operator, index: u32, subtasks: &mut Vec<SubtaskId>) -> Result<Node> {
        let subtask = SubtaskId { operator: op.id, index };
        subtasks.push(subtask);
        let named = |e: Error| Error::new(e.code, format!("in {}: {}", op.name, e.message));
        let blobs = self.blobs(op.id);
        let inputs = input_schemas(self.plan, op)?;
        let key_groups = range_of(index, op.parallelism, self.plan.max_parallelism);
        let mut store: Box<dyn Store> = self.stores.none();
        let body = if let OperatorKind::Sink(sink) = &op.kind {
            let permit = self.command.restore.as_ref().map(|manifest| CommitPermit::for_recorded(manifest.epoch));
            let place = self.place(&sink.table, op, index);
            // Its own columns: those that feed it may be called otherwise.
            let mut schema = op.schema.clone();
            if sink.changelog {
                // The last column is `_op`; a sink knows it as the row's kind.
                schema.fields.pop();
            }
            let enforcer = connector::Enforcer::of(&self.plan.config);
            let files = self.restored.remove(&subtask).unwrap_or_default();
            let restore = SinkRestore { blobs: &blobs, permit, files };
            let sink = connector::sink(sink, &schema, &place, restore, enforcer, &self.with.config.bugs);
            Body::Sink(sink.map_err(named)?)
        } else {
            let operator = match &op.kind {
                OperatorKind::LookupJoin(spec) => {
                    let clock = self.with.clock.clone();
                    let lookup =
                        connector::lookup(spec, &self.place(&spec.table, op, index), Box::new(move || clock()));
                    let input = inputs.first().ok_or_else(|| Error::new(Code::Internal, "a lookup join without input"));
                    let join = |lookup| LookupJoin::new(spec, input?, &op.schema, lookup);
                    lookup.and_then(join).map(|join| -> Box<dyn operator::Operator> { Box::new(join) })
                }
                kind => operator::build(kind, &inputs, &op.schema, self.plan.max_parallelism, key_groups.clone()),
            };
            let mut operator = operator.map_err(named)?;
            if operator.keyed() {
                let restored = self.restored.remove(&subtask).unwrap_or_default();
                store = self.stores.create(subtask, key_groups, restored).map_err(named)?;
            }
            // A subtask that had come to its end left nothing.
            let blobs: Vec<Vec<u8>> = blobs.into_iter().filter(|blob| !blob.is_empty()).collect();
            operator.restore(store.as_mut(), &blobs).map_err(named)?;
            Body::Operator(operator)
        };
        let outputs = self.outputs(op, subtask, subtasks)?;
        let restored = self.command.restore.as_ref().map(|manifest| manifest.epoch);
        Ok(Node::new(subtask, op.name.clone(), body, store, outputs, self.memory_share).restored(restored))
    }

    fn outputs(&mut self, op: &'a Operator, subtask: SubtaskId, subtasks: &mut Vec<SubtaskId>) -> Result<Outputs> {
        let metrics = self.meter(op, subtask);
        let mut outs = Vec::new();
        for (position, edge) in self.plan.edges.iter().enumerate().filter(|(_, edge)| edge.from == op.id) {
            let to = operator(self.plan, edge.to)?;
            let target = if self.plan.is_fused(edge) {
                Target::Node(Box::new(self.node(to, subtask.index, subtasks)?))
            } else {
                Target::Exchange(self.exchange(position, to, subtask)?)
            };
            outs.push(Out { output: edge.output, target });
        }
        Ok(Outputs { operator: op.id, outs, metrics, now_ms: (self.with.clock)() })
    }

    fn exchange(&mut self, position: usize, to: &Operator, subtask: SubtaskId) -> Result<ExchangeOutput> {
        let mut channels = |targets| -> Result<Vec<Channel<Control>>> {
            self.wiring.senders(self.with, self.plan, position, subtask.index, targets, &mut self.outlets)
        };
        let mut one = |target| Ok(ExchangeOutput::One(channels(target..target + 1)?.remove(0)));
        match &self.plan.edges[position].exchange {
            plan::Exchange::Forward => one(subtask.index),
            plan::Exchange::Gather => one(0),
            plan::Exchange::Hash(_) if to.parallelism == 1 => one(0),
            plan::Exchange::Hash(keys) => {
                let partitioner = Partitioner::new(keys.clone(), to.parallelism, self.plan.max_parallelism);
                Ok(ExchangeOutput::Hash(partitioner, channels(0..to.parallelism)?))
            }
            plan::Exchange::Rebalance => {
                let channels = channels(0..to.parallelism)?;
                Ok(ExchangeOutput::Rebalance { next: subtask.index as usize, channels })
            }
        }
    }
}

/// Operators' subtasks that will have a store here, for dividing the memory before they are built.
fn keyed_here(plan: &Plan, wiring: &Wiring) -> usize {
    let keyed = plan.operators.iter().filter(|op| is_keyed(op));
    let subtasks = keyed.flat_map(|op| (0..op.parallelism).map(|index| SubtaskId { operator: op.id, index }));
    subtasks.filter(|subtask| wiring.is_here(*subtask)).count()
}

fn is_keyed(op: &Operator) -> bool {
    matches!(op.kind, OperatorKind::WindowAggregate(_) | OperatorKind::GroupAggregate(_) | OperatorKind::WindowJoin(_))
}

/// Of the worker's memory, what these slots of its own are worth.
fn share(memory_bytes: u64, slots: u32, of: u32) -> u64 {
    let of = of.max(1);
    (u128::from(memory_bytes) * u128::from(slots.clamp(1, of)) / u128::from(of)) as u64
}

#[cfg(test)]
mod tests;
