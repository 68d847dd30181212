//! From a plan to running tasks: fuse operators, make gates and channels, restore state, start threads.

use super::run::panicked;
use crate::config::{self, CHANNEL_CREDIT_BYTES, WorkerConfig};
use crate::connector::{self, CommitPermit, Place};
use crate::error::{Code, Error, Result};
use crate::exchange::{Gate, Partitioner, Sender, gate};
use crate::expr::CalcProgram;
use crate::metrics::{Metered, OperatorMetrics, Role};
use crate::operator;
use crate::state::{Restored, Root, Store, Stores, download};
use crate::task::{
    Body, Clock, Control, Events, ExchangeOutput, Exit, GatedTask, Node, Out, Outputs, RowTime, SourceTask, Target,
    TaskEvent,
};
use ef_proto::checkpoint::{Manifest, OperatorState, SubtaskState};
use ef_proto::ids::{DeploymentId, OperatorId, SubtaskId};
use ef_proto::keys::range_of;
use ef_proto::plan::{Calc, Edge, Exchange, Operator, OperatorKind, Output, Plan, Source, error_schema};
use ef_proto::rpc::Deploy;
use ef_proto::schema::Schema;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

/// What a deployment works with.
pub(super) struct Deployment {
    pub id: DeploymentId,
    pub config: WorkerConfig,
    pub clock: Clock,
    /// Where the job's checkpoints lie.
    pub root: Root,
    pub events: Events,
}

/// A task's thread, from the outside.
pub(super) struct Started {
    pub control: Sender<Control>,
    /// Every operator's subtask that the task runs.
    pub subtasks: Vec<SubtaskId>,
}

type Failed = (OperatorId, Error);

/// Starts all subtasks of a job; none, if one of them cannot start.
pub(super) async fn deploy(
    with: Deployment,
    command: Deploy,
) -> std::result::Result<(Vec<Started>, Vec<Metered>), Failed> {
    let nowhere = OperatorId(0);
    let plan = Plan::decode(&command.plan).map_err(|e| (nowhere, e))?;
    let mut restored: HashMap<SubtaskId, Vec<Restored>> = HashMap::new();
    for (subtask, old) in to_download(&command, &plan) {
        let name = format!("restore-{}-{}-{}", subtask.operator, subtask.index, old.index);
        let part = download_boxed(with.root.clone(), old, with.config.work_dir.join(name)).await;
        restored.entry(subtask).or_default().push(part.map_err(|e| (subtask.operator, e))?);
    }
    // Opening stores and reading model files blocks; the runtime's threads are not for that.
    tokio::task::spawn_blocking(move || Builder::new(&with, &command, &plan, restored)?.build())
        .await
        .map_err(|e| (nowhere, Error::new(Code::Internal, format!("deployment: {e}"))))?
}

/// Boxed, because the compiler cannot see through the streams in `download` that the future is Send.
fn download_boxed(
    root: Root,
    old: SubtaskState,
    directory: PathBuf,
) -> Pin<Box<dyn Future<Output = Result<Restored>> + Send>> {
    Box::pin(async move { download(&root, old, directory).await })
}

/// Every new subtask with each old one whose key groups it takes over.
fn to_download(command: &Deploy, plan: &Plan) -> Vec<(SubtaskId, SubtaskState)> {
    let mut wanted = Vec::new();
    for state in command.restore.iter().flat_map(|manifest| &manifest.operators) {
        let Some(op) = plan.operator(state.id) else { continue };
        for index in 0..op.parallelism {
            let range = range_of(index, op.parallelism, plan.max_parallelism);
            let subtask = SubtaskId { operator: op.id, index };
            let old = state.subtasks.iter().filter(|old| overlaps(&old.key_groups, &range));
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
    restored: HashMap<SubtaskId, Vec<Restored>>,
    stores: Stores,
    /// Gates of the tasks that read from others, until their task takes them.
    gates: BTreeMap<SubtaskId, (Gate<Control>, Vec<usize>)>,
    /// The way into each of those gates, also after its task has taken it.
    senders: HashMap<SubtaskId, Sender<Control>>,
    /// First channel of an edge in its consumer's gates, by position in `plan.edges`.
    first_channel: HashMap<usize, usize>,
    memory_share: usize,
    metered: Vec<Metered>,
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
        restored: HashMap<SubtaskId, Vec<Restored>>,
    ) -> std::result::Result<Builder<'a>, Failed> {
        let keyed = plan.operators.iter().filter(|op| is_keyed(op)).map(|op| op.parallelism as usize).sum::<usize>();
        let fail = |e| (OperatorId(0), e);
        let backend = config::backend(&plan.config).map_err(fail)?;
        let stores = Stores::open(backend, &with.config.work_dir, with.config.memory_bytes, with.id.incarnation);
        let memory_share = stores.hot_bytes(with.config.memory_bytes) as usize / keyed.max(1);
        let mut builder = Builder {
            with,
            command,
            plan,
            restored,
            stores,
            gates: BTreeMap::new(),
            senders: HashMap::new(),
            first_channel: HashMap::new(),
            memory_share,
            metered: Vec::new(),
        };
        builder.make_gates();
        Ok(builder)
    }

    fn make_gates(&mut self) {
        for op in &self.plan.operators {
            if self.plan.inputs_of(op.id).any(|edge| self.plan.is_fused(edge)) {
                continue;
            }
            let mut inputs = Vec::new();
            for (position, edge) in self.plan.edges.iter().enumerate().filter(|(_, edge)| edge.to == op.id) {
                self.first_channel.insert(position, inputs.len());
                let senders = match edge.exchange {
                    Exchange::Forward => 1,
                    _ => self.plan.operator(edge.from).map_or(0, |from| from.parallelism as usize),
                };
                inputs.extend(std::iter::repeat_n(edge.input, senders));
            }
            for index in 0..op.parallelism {
                let gate = gate(inputs.len(), CHANNEL_CREDIT_BYTES);
                let subtask = SubtaskId { operator: op.id, index };
                self.senders.insert(subtask, gate.sender(0));
                self.gates.insert(subtask, (gate, inputs.clone()));
            }
        }
    }

    fn build(mut self) -> std::result::Result<(Vec<Started>, Vec<Metered>), Failed> {
        let roots: Vec<SubtaskId> = self.gates.keys().copied().collect();
        let mut tasks = Vec::new();
        for root in roots {
            let (control, task, subtasks) = self.task(root).map_err(|e| (root.operator, e))?;
            tasks.push((root, control, task, subtasks));
        }
        let mut started = Vec::new();
        for (root, control, task, subtasks) in tasks {
            let events = self.with.events.clone();
            let name = self.plan.operator(root.operator).map_or("", |op| op.name.as_str());
            let thread = std::thread::Builder::new().name(format!("{name}/{}", root.index));
            let run = move || {
                let exit = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match task {
                    Task::Source(task) => task.run(),
                    Task::Gated(task) => task.run(),
                }))
                .unwrap_or_else(|payload| Exit::Failed(root.operator, panicked(payload.as_ref())));
                // An agent that is gone needs no events.
                if let Exit::Failed(operator, error) = exit {
                    let _ = events.blocking_send(TaskEvent::Failed { operator, error });
                }
                let _ = events.blocking_send(TaskEvent::Exited);
            };
            thread.spawn(run).map_err(|e| {
                (root.operator, Error::new(Code::Unavailable, format!("cannot start a thread for {name}: {e}")))
            })?;
            started.push(Started { control, subtasks });
        }
        Ok((started, self.metered))
    }

    fn task(&mut self, root: SubtaskId) -> Result<(Sender<Control>, Task, Vec<SubtaskId>)> {
        let op = self.operator(root.operator)?;
        let mut subtasks = Vec::new();
        let task = if let OperatorKind::Source(source) = &op.kind {
            let task = self.source(op, source, root, &mut subtasks)?;
            (task.gate.sender(0), Task::Source(task))
        } else {
            let node = self.node(op, root.index, &mut subtasks)?;
            let (gate, inputs) = self.gates.remove(&root).expect("a gate for every root");
            let (clock, events) = (self.with.clock.clone(), self.with.events.clone());
            (gate.sender(0), Task::Gated(GatedTask { root: node, gate, inputs, clock, events }))
        };
        Ok((task.0, task.1, subtasks))
    }

    fn operator(&self, id: OperatorId) -> Result<&'a Operator> {
        let missing = || Error::new(Code::Internal, format!("operator {id} is not in the plan"));
        self.plan.operator(id).ok_or_else(missing)
    }

    fn restored_state(&self, id: OperatorId) -> Option<&'a OperatorState> {
        self.command.restore.as_ref().and_then(|manifest: &Manifest| manifest.operators.iter().find(|op| op.id == id))
    }

    fn blobs(&self, id: OperatorId) -> Vec<Vec<u8>> {
        self.restored_state(id).map(|state| state.subtasks.iter().map(|s| s.blob.clone()).collect()).unwrap_or_default()
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
            connector::source(source, &self.place(&source.table, op, subtask.index), &self.blobs(op.id), clock)?;
        let calc = Calc { filter: None, project: source.project.clone() };
        let watermark = source.watermark.as_ref();
        let (gate, _) = self.gates.remove(&subtask).expect("a gate for every root");
        Ok(SourceTask {
            subtask,
            name: op.name.clone(),
            source: reader,
            project: CalcProgram::compile(&calc, &source.physical, &op.schema)?,
            watermark: watermark.map(|w| RowTime::compile(&w.expr, &source.physical)).transpose()?,
            idle_timeout_ms: watermark.and_then(|w| w.idle_timeout_ms),
            outputs: self.outputs(op, subtask, subtasks)?,
            gate,
            clock: self.with.clock.clone(),
            events: self.with.events.clone(),
        })
    }

    fn node(&mut self, op: &'a Operator, index: u32, subtasks: &mut Vec<SubtaskId>) -> Result<Node> {
        let subtask = SubtaskId { operator: op.id, index };
        subtasks.push(subtask);
        let named = |e: Error| Error::new(e.code, format!("in {}: {}", op.name, e.message));
        let blobs = self.blobs(op.id);
        let inputs = self.input_schemas(op)?;
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
            let early = self.with.config.commit_early;
            let enforcer = connector::Enforcer::of(&self.plan.config);
            let sink = connector::sink(sink, &schema, &place, &blobs, permit.as_ref(), enforcer, early);
            Body::Sink(sink.map_err(named)?)
        } else {
            let mut operator =
                operator::build(&op.kind, &inputs, &op.schema, self.plan.max_parallelism, key_groups.clone())
                    .map_err(named)?;
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
        Ok(Node::new(subtask, op.name.clone(), body, store, outputs, self.memory_share))
    }

    /// The schema of each input of `op`, by number.
    fn input_schemas(&self, op: &Operator) -> Result<Vec<Schema>> {
        let mut schemas = Vec::new();
        for edge in self.plan.inputs_of(op.id) {
            let from = self.operator(edge.from)?;
            if schemas.len() <= edge.input {
                schemas.resize(edge.input + 1, Schema::default());
            }
            schemas[edge.input] = self.output_schema(from, edge.output)?;
        }
        Ok(schemas)
    }

    fn output_schema(&self, op: &Operator, output: Output) -> Result<Schema> {
        match output {
            Output::Main => Ok(op.schema.clone()),
            Output::Errors => Ok(error_schema()),
            // Late rows leave as they came.
            Output::Late => Ok(self.input_schemas(op)?.swap_remove(0)),
        }
    }

    fn outputs(&mut self, op: &'a Operator, subtask: SubtaskId, subtasks: &mut Vec<SubtaskId>) -> Result<Outputs> {
        let metrics = self.meter(op, subtask);
        let mut outs = Vec::new();
        for (position, edge) in self.plan.edges.iter().enumerate().filter(|(_, edge)| edge.from == op.id) {
            let to = self.operator(edge.to)?;
            let target = if self.plan.is_fused(edge) {
                Target::Node(Box::new(self.node(to, subtask.index, subtasks)?))
            } else {
                Target::Exchange(self.exchange(position, edge, to, subtask))
            };
            outs.push(Out { output: edge.output, target });
        }
        Ok(Outputs { outs, metrics, now_ms: (self.with.clock)() })
    }

    fn exchange(&self, position: usize, edge: &Edge, to: &Operator, subtask: SubtaskId) -> ExchangeOutput {
        let first = self.first_channel[&position];
        let channel =
            |index: u32, channel: usize| self.senders[&SubtaskId { operator: to.id, index }].on_channel(channel);
        let all =
            || (0..to.parallelism).map(|index| channel(index, first + subtask.index as usize)).collect::<Vec<_>>();
        match &edge.exchange {
            Exchange::Forward => ExchangeOutput::One(channel(subtask.index, first)),
            Exchange::Gather => ExchangeOutput::One(channel(0, first + subtask.index as usize)),
            Exchange::Hash(_) if to.parallelism == 1 => ExchangeOutput::One(channel(0, first + subtask.index as usize)),
            Exchange::Hash(keys) => {
                ExchangeOutput::Hash(Partitioner::new(keys.clone(), to.parallelism, self.plan.max_parallelism), all())
            }
            Exchange::Rebalance => ExchangeOutput::Rebalance { next: subtask.index as usize, channels: all() },
        }
    }
}

/// Operators that will have a store, for dividing the memory before they are built.
fn is_keyed(op: &Operator) -> bool {
    matches!(op.kind, OperatorKind::WindowAggregate(_) | OperatorKind::GroupAggregate(_) | OperatorKind::WindowJoin(_))
}
