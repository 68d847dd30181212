//! The job's operators before anybody has thought of parallelism: each appears once however often the SQL says it.
//!
//! Equal operators over equal inputs are one node, so a subquery written twice is computed once and fans out. Column
//! names do not make a difference; positions do. Nodes are only ever added behind their inputs.

use ef_proto::expr::{Expr, ExprKind, Scalar};
use ef_proto::plan::{Calc, OperatorKind, Output};
use ef_proto::schema::{DataType, Schema};
use std::collections::{HashMap, HashSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// Where rows come from: one output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    pub node: NodeId,
    pub output: Output,
}

#[derive(Clone, Debug)]
pub struct Node {
    /// Window aggregates are all `Phase::Single` here.
    pub kind: OperatorKind,
    /// For each input the ports that feed it.
    pub inputs: Vec<Vec<Port>>,
    /// Of the main output; `_op` last when it is a changelog.
    pub schema: Schema,
    pub changelog: bool,
}

#[derive(Debug, Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
    by_content: HashMap<String, NodeId>,
}

impl Graph {
    /// The node that does this, new or found. `schema` without `_op`.
    pub fn add(&mut self, kind: OperatorKind, inputs: Vec<Vec<Port>>, schema: Schema, changelog: bool) -> Port {
        let inputs: Vec<Vec<Port>> = inputs.into_iter().map(|ports| self.distinct(ports)).collect();
        let content = format!("{kind:?} {inputs:?}");
        let found = self.by_content.get(&content).copied();
        let node = found.unwrap_or_else(|| {
            let id = self.push(kind, inputs, schema, changelog);
            self.by_content.insert(content, id);
            id
        });
        Port { node, output: Output::Main }
    }

    fn push(&mut self, kind: OperatorKind, inputs: Vec<Vec<Port>>, schema: Schema, changelog: bool) -> NodeId {
        let schema = if changelog && !matches!(kind, OperatorKind::Sink(_)) { schema.with_op() } else { schema };
        self.nodes.push(Node { kind, inputs, schema, changelog });
        NodeId(self.nodes.len() - 1)
    }

    /// `SELECT … FROM t UNION ALL SELECT … FROM t`: the same rows twice come over two edges, so a second appearance
    /// of a port gets an operator of its own that changes nothing.
    fn distinct(&mut self, ports: Vec<Port>) -> Vec<Port> {
        let mut seen = HashSet::new();
        let mut out = Vec::with_capacity(ports.len());
        for port in ports {
            if seen.insert(port) {
                out.push(port);
                continue;
            }
            let Node { schema, changelog, .. } = self.nodes[port.node.0].clone();
            let project = schema.fields.iter().enumerate().map(|(i, field)| Expr::column(i, field.ty.clone()));
            let kind = OperatorKind::Calc(Calc { filter: None, project: project.collect() });
            let id = self.push(kind, vec![vec![port]], Schema::default(), changelog);
            self.nodes[id.0].schema = schema;
            out.push(Port { node: id, output: Output::Main });
        }
        out
    }

    /// Plain rows as insertions of a changelog, for a consumer that also gets updates.
    pub fn with_op(&mut self, ports: Vec<Port>, schema: &Schema) -> Vec<Port> {
        let mut project: Vec<Expr> =
            schema.fields.iter().enumerate().map(|(i, field)| Expr::column(i, field.ty.clone())).collect();
        project.push(Expr { kind: ExprKind::Literal(Scalar::Int(0)), ty: DataType::Int8 });
        let kind = OperatorKind::Calc(Calc { filter: None, project });
        vec![self.add(kind, vec![ports], schema.clone(), true)]
    }
}
