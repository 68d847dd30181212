//! Sinks that keep a table by its primary key: whether a query's updates can be kept by it, and whether its rows are
//! dealt by it already.
//!
//! A query that updates rows does so by the keys of its GROUP BY. A row of the sink is then one group only if the
//! primary key tells the groups apart: each key of the GROUP BY is one of its columns, or is used to compute one. Else
//! the rows of two groups would overwrite and delete each other in an order that nobody knows. The same goes for the rows of
//! a changelog that is read, by the PRIMARY KEY of its table.

use super::graph::{Graph, NodeId, Port};
use ef_proto::expr::{Expr, ExprKind};
use ef_proto::plan::{Calc, OperatorKind, Output, Phase, Source};
use std::collections::BTreeSet;

/// Rows of a port, as far back as the operator that dealt them by key.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// That operator, and those behind it.
    pub path: Vec<NodeId>,
    /// Names of its keys.
    names: Vec<String>,
    columns: Vec<Column>,
}

/// What an output column has of the keys.
#[derive(Clone, Debug, Default)]
struct Column {
    /// It is this key.
    is: Option<usize>,
    /// It is computed of these.
    of: BTreeSet<usize>,
}

impl Keyed {
    /// The keys that the columns do not tell apart.
    pub fn lost(&self, primary_key: &[usize]) -> Vec<&str> {
        let kept: BTreeSet<usize> = primary_key.iter().flat_map(|column| self.columns[*column].of.clone()).collect();
        let lost = (0..self.names.len()).filter(|key| !kept.contains(key));
        lost.map(|key| self.names[key].as_str()).collect()
    }

    /// Equal values of these columns are equal values of all keys, so their rows are in one subtask.
    pub fn is_dealt_by(&self, primary_key: &[usize]) -> bool {
        let kept: BTreeSet<usize> = primary_key.iter().filter_map(|column| self.columns[*column].is).collect();
        kept.len() == self.names.len() && !self.names.is_empty()
    }
}

/// Whence the rows of a port come; several, where a UNION is on the way. None: something on the way is not known to keep
/// rows where they were dealt to.
pub fn origins(graph: &Graph, port: Port) -> Option<Vec<Keyed>> {
    trace(graph, port, &|_, _| None)
}

/// What the rows of a port are updated by. `primary_key`: of a table.
pub fn updated_by(graph: &Graph, port: Port, primary_key: &dyn Fn(&str) -> Vec<String>) -> Vec<Keyed> {
    let read = |node, source: &Source| {
        let names = primary_key(&source.table);
        (source.is_changelog() && !names.is_empty()).then(|| of_table(node, source, names))
    };
    trace(graph, port, &read).unwrap_or_default()
}

fn trace(graph: &Graph, port: Port, read: &dyn Fn(NodeId, &Source) -> Option<Keyed>) -> Option<Vec<Keyed>> {
    let node = &graph.nodes[port.node.0];
    if port.output != Output::Main {
        return None;
    }
    match &node.kind {
        OperatorKind::GroupAggregate(group) => Some(vec![dealt(graph, port.node, group.keys.len())]),
        OperatorKind::WindowAggregate(window) if window.phase == Phase::Single => {
            Some(vec![dealt(graph, port.node, window.keys.len())])
        }
        OperatorKind::Calc(calc) => {
            let mut found = Vec::new();
            for input in &node.inputs[0] {
                found.extend(trace(graph, *input, read)?.into_iter().map(|keyed| through(keyed, port.node, calc)));
            }
            Some(found)
        }
        OperatorKind::Source(source) => read(port.node, source).map(|keyed| vec![keyed]),
        _ => None,
    }
}

/// The output of an aggregate begins with its keys.
fn dealt(graph: &Graph, node: NodeId, keys: usize) -> Keyed {
    let fields = &graph.nodes[node.0].schema.fields;
    let column = |at: usize| match at < keys {
        true => Column { is: Some(at), of: BTreeSet::from([at]) },
        false => Column::default(),
    };
    let names = fields[..keys].iter().map(|field| field.name.clone()).collect();
    Keyed { path: vec![node], names, columns: (0..fields.len()).map(column).collect() }
}

/// A key that the query does not read is none of the columns.
fn of_table(node: NodeId, source: &Source, names: Vec<String>) -> Keyed {
    let key = |at: usize| names.iter().position(|name| *name == source.physical.fields[at].name);
    let column = |expr: &Expr| {
        let is = match expr.kind {
            ExprKind::Column(at) => key(at),
            _ => None,
        };
        let mut of = BTreeSet::new();
        expr.visit_columns(&mut |at| of.extend(key(at)));
        Column { is, of }
    };
    let columns = source.project.iter().map(column).collect();
    Keyed { path: vec![node], names, columns }
}

fn through(mut keyed: Keyed, node: NodeId, calc: &Calc) -> Keyed {
    let columns = calc.project.iter().map(|expr| match expr.kind {
        ExprKind::Column(column) => keyed.columns[column].clone(),
        _ => {
            let mut of = BTreeSet::new();
            expr.visit_columns(&mut |column| of.extend(&keyed.columns[column].of));
            Column { is: None, of }
        }
    });
    keyed.columns = columns.collect();
    keyed.path.push(node);
    keyed
}
