//! Where operators run: tables say their tier and sites, and the work between them follows the rows.
//!
//! An operator runs where its input does, so work stays as low as it can. Where rows from several places meet, it is on
//! the highest of their tiers, at any site: rows move up or stay, never down. Only a sink may be below what feeds it, if its
//! table says so. Both phases of an aggregate have one place, which is why this looks at nodes.

use super::graph::{Graph, Node, NodeId};
use ef_proto::place::{Constraint, Selector, Tier};
use ef_proto::plan::OperatorKind;
use std::collections::BTreeMap;

/// Of each node, in order. `declared`: what the tables of sources and sinks say; `job`: `SET 'tier'`.
pub fn constraints(graph: &Graph, declared: &BTreeMap<NodeId, Constraint>, job: Option<Tier>) -> Vec<Constraint> {
    let mut found: Vec<Constraint> = Vec::with_capacity(graph.nodes.len());
    for (index, node) in graph.nodes.iter().enumerate() {
        let table = declared.get(&NodeId(index)).filter(|table| !table.is_any());
        let constraint = match (&node.kind, table) {
            (_, Some(table)) => Constraint { tier: table.tier.or(job), selector: table.selector.clone() },
            (OperatorKind::Source(_), None) => anywhere(job),
            (OperatorKind::Sink(_), None) => {
                let fed = meeting(node, &found, job);
                if job > fed.tier { anywhere(job) } else { fed }
            }
            (_, None) => meeting(node, &found, job),
        };
        found.push(constraint);
    }
    found
}

/// Where the inputs of a node run, or where their rows can meet.
fn meeting(node: &Node, found: &[Constraint], job: Option<Tier>) -> Constraint {
    let mut inputs = node.inputs.iter().flatten().map(|port| &found[port.node.0]);
    let Some(first) = inputs.next() else { return anywhere(job) };
    let (mut agree, mut highest) = (true, first.tier);
    for input in inputs {
        agree &= input == first;
        highest = highest.max(input.tier);
    }
    if agree { first.clone() } else { anywhere(highest.max(job)) }
}

/// At any site of the tier.
fn anywhere(tier: Option<Tier>) -> Constraint {
    Constraint { tier, selector: Selector::default() }
}
