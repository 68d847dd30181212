//! The gates of the tasks that run here, and the channels between tasks: in this process, or to other workers.
//!
//! A placement says where each subtask of each task runs. Gates are made, and known to the exchange, before any state
//! is fetched: another worker that is ready sooner finds them.

use super::deploy::Deployment;
use crate::config::CHANNEL_CREDIT_BYTES;
use crate::error::{Code, Context, Error, Result};
use crate::exchange::{
    self, Channel, Compression, Dial, Encoder, Exchange, Gate, Inbound, Incoming, Outlet, Registration, Sender, gate,
};
use crate::task::Control;
use ef_proto::ids::{OperatorId, SubtaskId, WorkerId};
use ef_proto::plan::{self, Edge, Operator, Output, Plan, Tasks};
use ef_proto::rpc::Placement;
use ef_proto::schema::Schema;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// A gate with the root's input that each of its channels feeds.
type TaskGate = (Gate<Control>, Vec<usize>);

pub(super) struct Wiring {
    pub tasks: Tasks,
    placement: Placement,
    exchange: Option<Arc<Exchange>>,
    /// Of the tasks that run here, until their task takes them.
    gates: BTreeMap<SubtaskId, TaskGate>,
    /// The way into each of those gates, also after its task has taken it.
    senders: HashMap<SubtaskId, Sender<Control>>,
}

/// The way to a task: its control messages, and the channels that it may be waiting on.
#[derive(Clone)]
pub(super) struct Handle {
    gate: Sender<Control>,
    outlets: Vec<Arc<Outlet>>,
}

impl Handle {
    pub fn control(&self, message: Control) {
        self.gate.control(message);
    }

    /// Tells the task to leave at once. Those that wait for it are freed, and so is the task itself, should it wait for
    /// another worker's credit: a worker that is out of reach frees nobody.
    pub fn leave(&self) {
        self.gate.leave(Control::Cancel);
        self.outlets.iter().for_each(|outlet| outlet.leave());
    }
}

impl Wiring {
    /// With the registration of the gates, if other workers may send to them.
    pub fn new(with: &Deployment, plan: &Plan, placement: Placement) -> Result<(Wiring, Option<Registration>)> {
        let mut wiring = Wiring {
            tasks: plan.tasks(),
            placement,
            exchange: with.exchange.clone(),
            gates: BTreeMap::new(),
            senders: HashMap::new(),
        };
        let mut inbound = HashMap::new();
        let roots: Vec<SubtaskId> = wiring.tasks.tasks.iter().flat_map(plan::Task::subtasks).collect();
        for root in roots.into_iter().filter(|root| wiring.placement.is_here(*root)) {
            let (inputs, channels) = wiring.channels(plan, root)?;
            let gate = gate(inputs.len(), CHANNEL_CREDIT_BYTES);
            if channels.iter().any(Option::is_some) {
                inbound.insert(root, Inbound { inlet: gate.inlet(), channels });
            }
            wiring.senders.insert(root, gate.sender(0));
            wiring.gates.insert(root, (gate, inputs));
        }
        let registration = match &with.exchange {
            Some(exchange) => Some(exchange.register(&with.id, inbound)?),
            None => None,
        };
        Ok((wiring, registration))
    }

    /// The subtasks of root operators that run here.
    pub fn roots(&self) -> Vec<SubtaskId> {
        self.gates.keys().copied().collect()
    }

    /// Whether this subtask of any operator runs here.
    pub fn is_here(&self, subtask: SubtaskId) -> bool {
        self.tasks
            .of(subtask.operator)
            .is_some_and(|task| self.placement.is_here(SubtaskId { operator: task.root, index: subtask.index }))
    }

    /// The gate of a root; each is taken once.
    pub fn take_gate(&mut self, root: SubtaskId) -> TaskGate {
        self.gates.remove(&root).expect("a gate for every root that runs here")
    }

    pub fn handle(&self, root: SubtaskId, outlets: Vec<Arc<Outlet>>) -> Handle {
        let gate = self.senders[&root].clone();
        for outlet in &outlets {
            let gate = gate.clone();
            outlet.on_break(Box::new(move |error| gate.fail(error)));
        }
        Handle { gate, outlets }
    }

    /// For each channel of a root's gate: the input that it feeds, and what there is to know if it comes from elsewhere.
    fn channels(&self, plan: &Plan, root: SubtaskId) -> Result<(Vec<usize>, Vec<Option<Incoming>>)> {
        let (mut inputs, mut channels) = (Vec::new(), Vec::new());
        for edge in plan.inputs_of(root.operator) {
            let from = operator(plan, edge.from)?;
            for index in senders_of(edge, from, root.index) {
                inputs.push(edge.input);
                channels.push(self.incoming(plan, edge, from, index)?);
            }
        }
        Ok((inputs, channels))
    }

    fn incoming(&self, plan: &Plan, edge: &Edge, from: &Operator, index: u32) -> Result<Option<Incoming>> {
        let root = self.tasks.of(from.id).map_or(from.id, |task| task.root);
        let worker = self.worker_of(SubtaskId { operator: root, index })?;
        if *worker == self.placement.here {
            return Ok(None);
        }
        let schema = output_schema(plan, from, edge.output)?.to_arrow();
        Ok(Some(Incoming { schema, from: format!("{}/{index} on worker {worker}", from.name) }))
    }

    fn worker_of(&self, task: SubtaskId) -> Result<&WorkerId> {
        self.placement.tasks.get(&task).ok_or_else(|| Error::invalid(format!("task {task} is placed nowhere")))
    }

    /// The sending ends of the edge at `position` for the sending subtask `index`, one for each of `targets`.
    pub fn senders(
        &self,
        with: &Deployment,
        plan: &Plan,
        position: usize,
        index: u32,
        targets: Range<u32>,
        outlets: &mut Vec<Arc<Outlet>>,
    ) -> Result<Vec<Channel<Control>>> {
        let edge = &plan.edges[position];
        let (from, to) = (operator(plan, edge.from)?, operator(plan, edge.to)?);
        // One for all channels of this edge: its scratch space is that of one batch.
        let mut encoders: HashMap<Compression, Arc<Mutex<Encoder>>> = HashMap::new();
        let mut channels = Vec::new();
        for target in targets {
            let task = SubtaskId { operator: to.id, index: target };
            let channel = channel(plan, position, index)?;
            let worker = self.worker_of(task)?;
            if *worker == self.placement.here {
                channels.push(Channel::Local(self.senders[&task].on_channel(channel)));
                continue;
            }
            let Some(exchange) = &self.exchange else {
                return Err(Error::new(
                    Code::Internal,
                    format!("task {task} is placed on worker {worker}, but there is no way to other workers here"),
                ));
            };
            let own = self.placement.peers.get(&self.placement.here).map_or("", String::as_str);
            let compression = exchange::compression(&plan.config, own, self.address(worker)?)?;
            let encoder = match encoders.get(&compression) {
                Some(encoder) => encoder.clone(),
                None => {
                    let schema = output_schema(plan, from, edge.output)?.to_arrow();
                    let encoder = Arc::new(Mutex::new(Encoder::new(schema, compression)?));
                    encoders.insert(compression, encoder.clone());
                    encoder
                }
            };
            let dial = Dial {
                deployment: with.id.clone(),
                to: task,
                channel,
                address: self.address(worker)?.to_string(),
                name: format!("{}/{target} on worker {worker}", to.name),
            };
            let remote = exchange.dial(dial, encoder);
            outlets.push(remote.outlet());
            channels.push(Channel::Remote(remote));
        }
        Ok(channels)
    }

    fn address(&self, worker: &WorkerId) -> Result<&str> {
        let address = self.placement.peers.get(worker).map(String::as_str);
        address.ok_or_else(|| Error::invalid(format!("worker {worker} has tasks but no address")))
    }
}

/// The subtasks of `from` that send to the receiving subtask `index`, in the order of their channels.
fn senders_of(edge: &Edge, from: &Operator, index: u32) -> Range<u32> {
    match edge.exchange {
        plan::Exchange::Forward => index..index + 1,
        plan::Exchange::Hash(_) | plan::Exchange::Rebalance | plan::Exchange::Gather => 0..from.parallelism,
    }
}

/// The channel of the sending subtask `index` in the gates that the edge at `position` leads to: those of the edges
/// before it come first.
fn channel(plan: &Plan, position: usize, index: u32) -> Result<usize> {
    let edge = &plan.edges[position];
    let mut first = 0;
    for before in plan.edges[..position].iter().filter(|before| before.to == edge.to) {
        first += senders_of(before, operator(plan, before.from)?, index).len();
    }
    let own = senders_of(edge, operator(plan, edge.from)?, index).position(|sender| sender == index);
    Ok(first + own.unwrap_or_default())
}

pub(super) fn operator(plan: &Plan, id: OperatorId) -> Result<&Operator> {
    let missing = || Error::new(Code::Internal, format!("operator {id} is not in the plan"));
    plan.operator(id).ok_or_else(missing)
}

/// The schema of each input of `op`, by number.
pub(super) fn input_schemas(plan: &Plan, op: &Operator) -> Result<Vec<Schema>> {
    let mut schemas = Vec::new();
    for edge in plan.inputs_of(op.id) {
        let from = operator(plan, edge.from)?;
        if schemas.len() <= edge.input {
            schemas.resize(edge.input + 1, Schema::default());
        }
        schemas[edge.input] = output_schema(plan, from, edge.output)?;
    }
    Ok(schemas)
}

fn output_schema(plan: &Plan, op: &Operator, output: Output) -> Result<Schema> {
    plan.output_schema(op, output).internal(|| format!("in {}", op.name))
}
