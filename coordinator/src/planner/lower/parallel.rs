//! How many subtasks each operator has and how rows find them; window aggregates in two phases where that saves rows on
//! the exchange.
//!
//! Operators run with the job's parallelism, but where all rows must meet (aggregates without keys, standard output); what
//! reads only those follows with one subtask. A changelog is never dealt round robin: updates of a key keep their order.

use super::graph::{Graph, Node, NodeId, Port};
use super::id;
use ef_proto::connector::SinkConnector;
use ef_proto::ids::OperatorId;
use ef_proto::place::Constraint;
use ef_proto::plan::{Aggregate, Edge, Exchange, Operator, OperatorKind, Output, Phase, Time, Window, WindowAggregate};
use ef_proto::schema::{DataType, Field, Schema};

/// Operators in topological order, and the edges between them.
pub fn spread(graph: &Graph, ids: &[OperatorId], parallelism: u32) -> (Vec<Operator>, Vec<Edge>) {
    let mut spread = Spread { graph, ids, default: parallelism, operators: vec![], edges: vec![], subtasks: vec![] };
    for node in 0..graph.nodes.len() {
        spread.node(NodeId(node));
    }
    (spread.operators, spread.edges)
}

struct Spread<'a> {
    graph: &'a Graph,
    ids: &'a [OperatorId],
    default: u32,
    operators: Vec<Operator>,
    edges: Vec<Edge>,
    /// Of each node so far.
    subtasks: Vec<u32>,
}

impl Spread<'_> {
    fn node(&mut self, NodeId(index): NodeId) {
        let graph = self.graph;
        let node = &graph.nodes[index];
        let fed = node.inputs.iter().flatten().map(|port| self.subtasks[port.node.0]).max().unwrap_or(1);
        let (keys, parallelism) = match &node.kind {
            OperatorKind::Source(_) => (vec![], self.default),
            OperatorKind::WindowAggregate(WindowAggregate { keys, .. }) => (vec![keys.clone()], self.keyed(keys)),
            OperatorKind::GroupAggregate(group) => (vec![group.keys.clone()], self.keyed(&group.keys)),
            OperatorKind::WindowJoin(join) => {
                let side = |keys: Vec<usize>, window: (usize, usize)| {
                    if keys.is_empty() { vec![window.0, window.1] } else { keys }
                };
                let left = side(join.keys.iter().map(|(left, _)| *left).collect(), join.left_window);
                let right = side(join.keys.iter().map(|(_, right)| *right).collect(), join.right_window);
                (vec![left, right], self.default)
            }
            OperatorKind::Sink(sink) if sink.connector == SinkConnector::Stdout => (vec![], 1),
            OperatorKind::Sink(_)
            | OperatorKind::Calc(_)
            | OperatorKind::WindowAssign(_)
            | OperatorKind::Predict(_) => (vec![], fed),
        };
        self.subtasks.push(parallelism);
        let id = self.ids[index];
        if let OperatorKind::WindowAggregate(aggregate) = &node.kind
            && fed > 1
            && two_phase(aggregate)
        {
            self.two_phases(id, node, aggregate, fed, parallelism);
            return;
        }
        let name = name(&node.kind, &node.schema);
        let constraint = Constraint::default();
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
                self.connect(*port, id, input, parallelism, keys.get(input).map(Vec::as_slice));
            }
        }
    }

    /// Without keys all rows meet in one subtask.
    fn keyed(&self, keys: &[usize]) -> u32 {
        if keys.is_empty() { 1 } else { self.default }
    }

    fn connect(&mut self, port: Port, to: OperatorId, input: usize, parallelism: u32, keys: Option<&[usize]>) {
        let from = &self.graph.nodes[port.node.0];
        let changelog = from.changelog && port.output == Output::Main;
        let exchange = exchange(self.subtasks[port.node.0], parallelism, keys, changelog);
        self.edges.push(Edge { from: self.ids[port.node.0], output: port.output, to, input, exchange, changelog });
    }

    /// Local, where the rows are; Global, by key, under the id that the operator has without a local phase.
    fn two_phases(&mut self, id: OperatorId, node: &Node, aggregate: &WindowAggregate, fed: u32, parallelism: u32) {
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
        let local = id::derived(id, "local phase");
        let schema = Schema::new(fields);
        let kind = OperatorKind::WindowAggregate(WindowAggregate { phase: Phase::Local, ..aggregate.clone() });
        let constraint = Constraint::default();
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
        OperatorKind::Calc(_) => "Calc".into(),
    }
}
