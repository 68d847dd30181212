//! How many subtasks each operator has and how rows find them; window aggregates in two phases where that saves rows on
//! the exchange.
//!
//! Operators run with the job's parallelism or their own override, but where all rows must meet (aggregates without keys,
//! standard output); what only follows its input has as many subtasks as that. A changelog is never dealt round robin:
//! updates of a key keep their order.

use super::config::Settings;
use super::graph::{Graph, Node, NodeId, Port};
use super::{id, upsert};
use crate::planner::{PlannerError, Span};
use ef_proto::connector::SinkConnector;
use ef_proto::ids::OperatorId;
use ef_proto::place::Constraint;
use ef_proto::plan::{
    self, Aggregate, Edge, Exchange, GroupAggregate, Operator, OperatorKind, Output, Phase, Time, Window,
    WindowAggregate,
};
use ef_proto::schema::{DataType, Field, Schema};
use std::collections::BTreeMap;

/// Operators in topological order, and the edges between them. `ids`, `constraints`: of each node. `overrides`: the
/// parallelism of single operators; one that cannot be kept is an error.
pub fn spread(
    graph: &Graph,
    ids: &[OperatorId],
    constraints: &[Constraint],
    settings: &Settings,
    overrides: &BTreeMap<OperatorId, u32>,
) -> Result<(Vec<Operator>, Vec<Edge>), PlannerError> {
    let (operators, edges, subtasks) = (vec![], vec![], vec![]);
    let mut spread = Spread { graph, ids, constraints, settings, overrides, operators, edges, subtasks };
    spread.check_known()?;
    for node in 0..graph.nodes.len() {
        spread.node(NodeId(node))?;
    }
    Ok((spread.operators, spread.edges))
}

struct Spread<'a> {
    graph: &'a Graph,
    ids: &'a [OperatorId],
    constraints: &'a [Constraint],
    settings: &'a Settings,
    overrides: &'a BTreeMap<OperatorId, u32>,
    operators: Vec<Operator>,
    edges: Vec<Edge>,
    /// Of each node so far.
    subtasks: Vec<u32>,
}

impl Spread<'_> {
    fn node(&mut self, NodeId(index): NodeId) -> Result<(), PlannerError> {
        let graph = self.graph;
        let node = &graph.nodes[index];
        let fed = node.inputs.iter().flatten().map(|port| self.subtasks[port.node.0]).max().unwrap_or(1);
        let keys = match &node.kind {
            OperatorKind::WindowAggregate(WindowAggregate { keys, .. }) => vec![keys.clone()],
            OperatorKind::GroupAggregate(group) => vec![group.keys.clone()],
            OperatorKind::WindowJoin(join) => {
                let side = |keys: Vec<usize>, window: (usize, usize)| {
                    if keys.is_empty() { vec![window.0, window.1] } else { keys }
                };
                let left = side(join.keys.iter().map(|(left, _)| *left).collect(), join.left_window);
                let right = side(join.keys.iter().map(|(_, right)| *right).collect(), join.right_window);
                vec![left, right]
            }
            // Unless rows of a key are in one subtask of what feeds it already.
            OperatorKind::Sink(sink) if !sink.keys.is_empty() => vec![sink.keys.clone()],
            OperatorKind::Source(_)
            | OperatorKind::Sink(_)
            | OperatorKind::Calc(_)
            | OperatorKind::WindowAssign(_)
            | OperatorKind::Predict(_)
            | OperatorKind::LookupJoin(_) => vec![],
        };
        let parallelism = self.parallelism(index, fed)?;
        self.subtasks.push(parallelism);
        let id = self.ids[index];
        if let OperatorKind::WindowAggregate(aggregate) = &node.kind
            && fed > 1
            && two_phase(aggregate)
        {
            self.two_phases(index, aggregate, fed, parallelism);
            return Ok(());
        }
        let name = name(&node.kind, &node.schema);
        let constraint = self.constraints[index].clone();
        self.operators.push(Operator {
            id,
            name,
            kind: node.kind.clone(),
            parallelism,
            schema: node.schema.clone(),
            constraint,
        });
        for (input, ports) in node.inputs.iter().enumerate() {
            for port in ports {
                let keys = keys.get(input).map(Vec::as_slice).filter(|keys| !self.stays(node, keys, parallelism));
                self.connect(*port, id, input, parallelism, keys);
            }
        }
        Ok(())
    }

    /// The rows of a sink's only input are dealt by its keys already, and stay where they are.
    fn stays(&self, sink: &Node, keys: &[usize], parallelism: u32) -> bool {
        let (OperatorKind::Sink(_), [port]) = (&sink.kind, sink.inputs[0].as_slice()) else { return false };
        let unmoved = |node: &NodeId| self.subtasks[node.0] == parallelism;
        match upsert::origins(self.graph, *port).unwrap_or_default().as_slice() {
            [keyed] => keyed.is_dealt_by(keys) && keyed.path.iter().all(unmoved),
            _ => false,
        }
    }

    fn parallelism(&self, index: usize, fed: u32) -> Result<u32, PlannerError> {
        let (node, id) = (&self.graph.nodes[index], self.ids[index]);
        let lone = lone(&node.kind);
        let usual = match &node.kind {
            _ if lone.is_some() => 1,
            kind if follows(kind) => fed,
            _ => self.settings.parallelism,
        };
        let Some(&wanted) = self.overrides.get(&id) else { return Ok(usual) };
        let max = u32::from(self.settings.max_parallelism);
        let splits_updates = wanted != 1
            && wanted != fed
            && follows(&node.kind)
            && !matches!(&node.kind, OperatorKind::Sink(sink) if !sink.keys.is_empty())
            && node.inputs.iter().flatten().any(|port| self.is_changelog(*port));
        let (why, accepted) = match lone {
            _ if !(1..=max).contains(&wanted) => (format!("there are {max} key groups"), format!("1 to {max}")),
            Some(why) if wanted != 1 => (why.to_string(), "1".to_string()),
            None if splits_updates => {
                let why = format!("it reads updates, which keep their order only in the {fed} subtasks of its input");
                (why, format!("1 or {fed}"))
            }
            _ => return Ok(wanted),
        };
        let name = name(&node.kind, &node.schema);
        let message = format!("operator {name} ({id}) cannot have a parallelism of {wanted}: {why}");
        Err(PlannerError::new(message, Span::UNKNOWN).hint(format!("accepted: {accepted}")))
    }

    /// Each override is of an operator that can have one.
    fn check_known(&self) -> Result<(), PlannerError> {
        let Some(id) = self.overrides.keys().find(|id| !self.ids.contains(id)) else { return Ok(()) };
        let nodes = || self.graph.nodes.iter().zip(self.ids);
        let local = nodes().find(|(_, owner)| local_phase(**owner) == *id);
        if let Some((node, owner)) = local {
            let name = name(&node.kind, &node.schema);
            let message = format!("operator {id} is the local phase of {name}, and has as many subtasks as its input");
            return Err(
                PlannerError::new(message, Span::UNKNOWN).hint(format!("accepted: {owner} itself, or its input"))
            );
        }
        let known: Vec<String> = nodes().map(|(node, id)| format!("{id} {}", name(&node.kind, &node.schema))).collect();
        Err(PlannerError::new(format!("operator {id} does not exist"), Span::UNKNOWN)
            .hint(format!("there are: {}", known.join(", "))))
    }

    fn is_changelog(&self, port: Port) -> bool {
        self.graph.nodes[port.node.0].changelog && port.output == Output::Main
    }

    fn connect(&mut self, port: Port, to: OperatorId, input: usize, parallelism: u32, keys: Option<&[usize]>) {
        let changelog = self.is_changelog(port);
        let exchange = exchange(self.subtasks[port.node.0], parallelism, keys, changelog);
        self.edges.push(Edge { from: self.ids[port.node.0], output: port.output, to, input, exchange, changelog });
    }

    /// Local, where the rows are; Global, by key, under the id that the operator has without a local phase.
    fn two_phases(&mut self, index: usize, aggregate: &WindowAggregate, fed: u32, parallelism: u32) {
        let (id, node): (OperatorId, &Node) = (self.ids[index], &self.graph.nodes[index]);
        let count = aggregate.keys.len();
        let mut fields = node.schema.fields[..count].to_vec();
        for (call, out) in aggregate.aggregates.iter().zip(&node.schema.fields[count..]) {
            let types = call.state_types();
            let single = types.len() == 1;
            fields.extend(types.into_iter().enumerate().map(|(i, ty)| {
                let name = if single { out.name.clone() } else { format!("{}.{i}", out.name) };
                Field::new(name, ty, true)
            }));
        }
        let slice_end = fields.len();
        fields.push(Field::new("slice_end", DataType::Int64, false));
        fields.push(Field::new("rows", DataType::Int64, false));
        let local = local_phase(id);
        let schema = Schema::new(fields);
        let kind = OperatorKind::WindowAggregate(WindowAggregate { phase: Phase::Local, ..aggregate.clone() });
        let constraint = self.constraints[index].clone();
        self.operators.push(Operator {
            id: local,
            name: name(&kind, &schema),
            kind,
            parallelism: fed,
            schema,
            constraint: constraint.clone(),
        });
        for port in &node.inputs[0] {
            self.connect(*port, local, 0, fed, None);
        }
        let keys: Vec<usize> = (0..count).collect();
        let kind = OperatorKind::WindowAggregate(WindowAggregate {
            phase: Phase::Global,
            keys: keys.clone(),
            time: Time::Event { column: slice_end },
            // The local phase has filtered.
            aggregates: aggregate.aggregates.iter().map(|call| Aggregate { filter: None, ..call.clone() }).collect(),
            ..aggregate.clone()
        });
        let name = name(&kind, &node.schema);
        self.operators.push(Operator { id, name, kind, parallelism, schema: node.schema.clone(), constraint });
        let exchange = exchange(fed, parallelism, Some(&keys), false);
        self.edges.push(Edge { from: local, output: Output::Main, to: id, input: 0, exchange, changelog: false });
    }
}

fn local_phase(of: OperatorId) -> OperatorId {
    id::derived(of, "local phase")
}

/// Why an operator has one subtask, whatever the job has.
fn lone(kind: &OperatorKind) -> Option<&'static str> {
    match kind {
        OperatorKind::WindowAggregate(WindowAggregate { keys, .. })
        | OperatorKind::GroupAggregate(GroupAggregate { keys, .. })
            if keys.is_empty() =>
        {
            Some("without keys all rows meet in one subtask")
        }
        OperatorKind::Sink(sink) if sink.connector == SinkConnector::Stdout => {
            Some("standard output is written by one subtask")
        }
        _ => None,
    }
}

/// Has as many subtasks as what feeds it.
fn follows(kind: &OperatorKind) -> bool {
    match kind {
        OperatorKind::Sink(_)
        | OperatorKind::Calc(_)
        | OperatorKind::WindowAssign(_)
        | OperatorKind::Predict(_)
        | OperatorKind::LookupJoin(_) => true,
        OperatorKind::Source(_)
        | OperatorKind::WindowAggregate(_)
        | OperatorKind::GroupAggregate(_)
        | OperatorKind::WindowJoin(_) => false,
    }
}

/// Not by the processing clock: the global phase would close a window before the local ones have passed theirs on.
fn two_phase(aggregate: &WindowAggregate) -> bool {
    !aggregate.late_output
        && aggregate.time != Time::Processing
        && !matches!(aggregate.window, Window::Session { .. } | Window::Attached { .. })
        && aggregate.aggregates.iter().all(Aggregate::mergeable)
}

/// `keys`: by which rows must meet.
fn exchange(from: u32, to: u32, keys: Option<&[usize]>, changelog: bool) -> Exchange {
    match keys {
        Some(keys) if to > 1 => Exchange::Hash(keys.to_vec()),
        None if from == to => Exchange::Forward,
        _ if from == 1 && to == 1 => Exchange::Forward,
        _ if to == 1 || changelog => Exchange::Gather,
        _ => Exchange::Rebalance,
    }
}

/// For people: short enough for a table of operators.
fn name(kind: &OperatorKind, out: &Schema) -> String {
    let keys = |count: usize| {
        let names: Vec<&str> = out.fields.iter().take(count).map(|field| field.name.as_str()).collect();
        if names.is_empty() { String::new() } else { format!(" by {}", names.join(", ")) }
    };
    match kind {
        OperatorKind::Source(source) => format!("Source({})", source.table),
        OperatorKind::Sink(sink) => format!("Sink({})", sink.table),
        OperatorKind::WindowAssign(assign) => format!("WindowAssign({})", assign.window),
        OperatorKind::WindowAggregate(aggregate) => {
            let phase = match aggregate.phase {
                Phase::Single => "",
                Phase::Local => "Local",
                Phase::Global => "Global",
            };
            let window = match &aggregate.window {
                Window::Attached { .. } => "attached".to_string(),
                window => window.to_string(),
            };
            format!("{phase}WindowAggregate({window}{})", keys(aggregate.keys.len()))
        }
        OperatorKind::GroupAggregate(group) => format!("GroupAggregate({})", keys(group.keys.len()).trim_start()),
        OperatorKind::WindowJoin(join) => format!("WindowJoin({:?})", join.kind),
        OperatorKind::Predict(predict) => format!("Predict({})", predict.model.name),
        OperatorKind::LookupJoin(join) => {
            // The input's columns are the first of the output's.
            let on: Vec<String> = join.keys.iter().map(|key| plan::lookup_key(key, out)).collect();
            format!("LookupJoin({} on {})", join.table, on.join(", "))
        }
        OperatorKind::Calc(_) => "Calc".into(),
    }
}
