//! Operator ids: a hash of what an operator does and of what feeds it. A savepoint finds its operators again by them, so
//! they must outlive what users change most: parallelism, SET options, other INSERTs in the file.
//!
//! Hence: a source is its table (which columns are read changes with the neighbours), a sink its table, and columns of
//! a source go by name, not by position.

use super::graph::{Graph, Node, NodeId, Port};
use ef_proto::expr::Expr;
use ef_proto::ids::OperatorId;
use ef_proto::keys::hash_bytes;
use ef_proto::plan::{Aggregate, Calc, LookupKey, OperatorKind, Output, Time};
use ef_proto::schema::Schema;
use std::collections::HashMap;
use std::fmt::Write;

/// The id of each node, in order.
pub fn ids(graph: &Graph) -> Vec<OperatorId> {
    let mut hashes: Vec<u64> = Vec::with_capacity(graph.nodes.len());
    let mut seen: HashMap<u64, u32> = HashMap::new();
    for node in &graph.nodes {
        let hash = hash_bytes(shape(node, graph, &hashes).as_bytes());
        // The same thing a second time (a UNION of a table with itself) is told apart by its number.
        let count = seen.entry(hash).or_insert(0);
        *count += 1;
        hashes.push(if *count == 1 { hash } else { derived(OperatorId(hash), &format!("occurrence {count}")).0 });
    }
    hashes.into_iter().map(OperatorId).collect()
}

/// The id of an operator that belongs to another one, such as the local phase of an aggregate.
pub fn derived(of: OperatorId, what: &str) -> OperatorId {
    OperatorId(hash_bytes(format!("{what} of {of}").as_bytes()))
}

fn shape(node: &Node, graph: &Graph, hashes: &[u64]) -> String {
    let inputs = || {
        let mut text = String::new();
        for (i, ports) in node.inputs.iter().enumerate() {
            let mut hashes: Vec<String> = ports.iter().map(|port| input(*port, graph, hashes)).collect();
            hashes.sort();
            let _ = write!(text, " input {i}: {}", hashes.join(" "));
        }
        text
    };
    match &node.kind {
        OperatorKind::Source(source) => format!("source {}", source.table),
        OperatorKind::Sink(sink) => format!("sink {}", sink.table),
        OperatorKind::Calc(calc) => match node.inputs[0].as_slice() {
            [port] if source_of(*port, graph).is_some() => {
                calc_shape(calc, source_of(*port, graph), &inputs_of(*port, hashes))
            }
            _ => calc_shape(calc, None, &inputs()),
        },
        OperatorKind::WindowAssign(assign) => {
            format!("assign {} {}{}", assign.window, time(assign.time), inputs())
        }
        OperatorKind::WindowAggregate(aggregate) => {
            let (window, time) = (&aggregate.window, time(aggregate.time));
            let calls = calls(&aggregate.aggregates);
            format!("window aggregate {window} {time} by {:?} {calls}{}", aggregate.keys, inputs())
        }
        OperatorKind::GroupAggregate(group) => {
            format!("group aggregate by {:?} {}{}", group.keys, calls(&group.aggregates), inputs())
        }
        OperatorKind::WindowJoin(join) => {
            let filter = join.filter.as_ref().map(Expr::to_string).unwrap_or_default();
            let windows = (join.left_window, join.right_window);
            format!("window join {:?} on {:?} {windows:?} where {filter}{}", join.kind, join.keys, inputs())
        }
        OperatorKind::LookupJoin(join) => {
            let key = |key: &LookupKey| format!("{} {:?}", key.field.name, key.value);
            let keys: Vec<String> = join.keys.iter().map(key).collect();
            let columns: Vec<&str> = join.right.fields.iter().map(|field| field.name.as_str()).collect();
            let filter = join.filter.as_ref().map(Expr::to_string).unwrap_or_default();
            let (kind, table) = (join.kind, &join.table);
            format!("lookup join {kind:?} {table} on {keys:?} select {columns:?} where {filter}{}", inputs())
        }
        OperatorKind::Predict(predict) => format!("predict {} {:?}{}", predict.model.name, predict.args, inputs()),
    }
}

fn source_of(port: Port, graph: &Graph) -> Option<&Schema> {
    let node = &graph.nodes[port.node.0];
    (port.output == Output::Main && matches!(node.kind, OperatorKind::Source(_))).then_some(&node.schema)
}

fn inputs_of(port: Port, hashes: &[u64]) -> String {
    let NodeId(node) = port.node;
    format!(" input 0: {:016x}", hashes[node])
}

/// What feeds an operator. A source that is read as it is counts as a Calc that picks all its columns, which it becomes
/// when another query reads more of them.
fn input(port: Port, graph: &Graph, hashes: &[u64]) -> String {
    let mut hash = hashes[port.node.0];
    if let Some(schema) = source_of(port, graph) {
        let calc = Calc { filter: None, project: super::rel::identity(schema) };
        hash = hash_bytes(calc_shape(&calc, Some(schema), &inputs_of(port, hashes)).as_bytes());
    }
    match port.output {
        Output::Main => format!("{hash:016x}"),
        output => format!("{hash:016x} {output:?}"),
    }
}

fn calc_shape(calc: &Calc, names: Option<&Schema>, inputs: &str) -> String {
    let text = |expr: &Expr| match names {
        Some(schema) => named(&format!("{expr}: {}", expr.ty), schema),
        None => format!("{expr}: {}", expr.ty),
    };
    let filter = calc.filter.as_ref().map(text).unwrap_or_default();
    let project: Vec<String> = calc.project.iter().map(text).collect();
    format!("calc where {filter} select {}{inputs}", project.join(", "))
}

/// `$i` → the column's name.
fn named(text: &str, schema: &Schema) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let digits: String = rest[at + 1..].chars().take_while(char::is_ascii_digit).collect();
        match digits.parse::<usize>().ok().and_then(|index| schema.fields.get(index)) {
            Some(field) => {
                let _ = write!(out, "`{}`", field.name);
            }
            None => {
                let _ = write!(out, "${digits}");
            }
        }
        rest = &rest[at + 1 + digits.len()..];
    }
    out + rest
}

fn time(time: Time) -> String {
    match time {
        Time::Event { column } => format!("event {column}"),
        Time::Processing => "processing".into(),
    }
}

fn calls(aggregates: &[Aggregate]) -> String {
    let one = |call: &Aggregate| {
        let distinct = if call.distinct { " distinct" } else { "" };
        format!("{}{distinct} {:?} {:?} {}", call.function.sql(), call.arg, call.filter, call.ty)
    };
    calls_text(aggregates.iter().map(one))
}

fn calls_text(calls: impl Iterator<Item = String>) -> String {
    format!("[{}]", calls.collect::<Vec<_>>().join("; "))
}
