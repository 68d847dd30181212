//! A source delivers only those fields of its ROW columns that somebody reads: of a nested record most fields are
//! neither decoded nor carried. Runs on the finished graph, when all readers are known.

use super::graph::{Graph, Port};
use ef_proto::connector::{Format, SourceConnector};
use ef_proto::expr::{Expr, ExprKind};
use ef_proto::plan::{OperatorKind, Output, Source};
use ef_proto::schema::{DataType, Field};
use std::collections::BTreeMap;

/// What is read of a value.
#[derive(Clone, Debug, PartialEq)]
enum Use {
    Whole,
    /// Only these fields of a ROW, by position; none: nothing is read.
    Fields(BTreeMap<usize, Use>),
}

impl Use {
    fn nothing() -> Use {
        Use::Fields(BTreeMap::new())
    }

    fn mark(&mut self, path: &[usize]) {
        match (path, &mut *self) {
            (_, Use::Whole) => {}
            ([], used) => *used = Use::Whole,
            ([first, rest @ ..], Use::Fields(fields)) => {
                fields.entry(*first).or_insert_with(Use::nothing).mark(rest);
            }
        }
    }

    fn merge(&mut self, other: &Use) {
        match (&mut *self, other) {
            (Use::Fields(mine), Use::Fields(others)) => {
                for (field, used) in others {
                    mine.entry(*field).or_insert_with(Use::nothing).merge(used);
                }
            }
            (mine, _) => *mine = Use::Whole,
        }
    }

    /// The type of what is left of a value.
    fn of(&self, ty: &DataType) -> DataType {
        match (self, ty) {
            (Use::Fields(used), DataType::Row(fields)) if !used.is_empty() => {
                let kept = used.iter().map(|(at, used)| {
                    let field = &fields[*at];
                    Field { ty: used.of(&field.ty), ..field.clone() }
                });
                DataType::Row(kept.collect())
            }
            _ => ty.clone(),
        }
    }
}

pub fn narrow(graph: &mut Graph) {
    for node in 0..graph.nodes.len() {
        let OperatorKind::Source(source) = &graph.nodes[node].kind else { continue };
        if !takes_part_of_rows(source) {
            continue;
        }
        let readers: Vec<usize> =
            (0..graph.nodes.len()).filter(|reader| reads(graph, *reader).any(|port| port.node.0 == node)).collect();
        let outputs = graph.nodes[node].schema.len();
        let mut used = vec![Use::nothing(); outputs];
        for reader in &readers {
            match &graph.nodes[*reader].kind {
                OperatorKind::Calc(calc) => {
                    calc.filter.iter().chain(&calc.project).for_each(|expr| collect(expr, &mut used));
                }
                _ => used = vec![Use::Whole; outputs],
            }
        }
        let mut physical = vec![Use::nothing(); source.physical.len()];
        for (expr, used) in source.project.iter().zip(&used) {
            match expr.kind {
                ExprKind::Column(column) => physical[column].merge(used),
                _ => collect(expr, &mut physical),
            }
        }
        if let Some(watermark) = &source.watermark {
            collect(&watermark.expr, &mut physical);
        }
        let used: Vec<Use> = source
            .project
            .iter()
            .map(|expr| match expr.kind {
                ExprKind::Column(column) => physical[column].clone(),
                _ => Use::Whole,
            })
            .collect();

        let OperatorKind::Source(source) = &mut graph.nodes[node].kind else { continue };
        for (field, used) in source.physical.fields.iter_mut().zip(&physical) {
            field.ty = used.of(&field.ty);
        }
        let watermark = source.watermark.iter_mut().map(|watermark| &mut watermark.expr);
        source.project.iter_mut().chain(watermark).for_each(|expr| {
            rewrite(expr, &physical);
        });
        for (field, used) in graph.nodes[node].schema.fields.iter_mut().zip(&used) {
            field.ty = used.of(&field.ty);
        }
        for reader in readers {
            if let OperatorKind::Calc(calc) = &mut graph.nodes[reader].kind {
                calc.filter.iter_mut().chain(&mut calc.project).for_each(|expr| {
                    rewrite(expr, &used);
                });
            }
        }
    }
}

/// Fields are found by their names there, not by their positions.
fn takes_part_of_rows(source: &Source) -> bool {
    let by_name = match &source.connector {
        SourceConnector::Nexmark(_) => return true,
        SourceConnector::Kafka(kafka) => kafka.key.as_ref().is_none_or(|key| key.is_by_name()),
        _ => true,
    };
    let named = |format: &Format| {
        matches!(format, Format::Json(_) | Format::DebeziumJson(_) | Format::Protobuf(_) | Format::AvroConfluent(_))
    };
    by_name && source.format.as_ref().is_some_and(named)
}

fn reads(graph: &Graph, reader: usize) -> impl Iterator<Item = &Port> {
    graph.nodes[reader].inputs.iter().flatten().filter(|port| port.output == Output::Main)
}

fn collect(expr: &Expr, used: &mut [Use]) {
    let mut path = Vec::new();
    let mut at = expr;
    while let ExprKind::Field { input, index } = &at.kind {
        path.push(*index);
        at = input;
    }
    match at.kind {
        ExprKind::Column(column) => {
            path.reverse();
            used[column].mark(&path);
        }
        _ => at.children().into_iter().for_each(|child| collect(child, used)),
    }
}

/// Types and positions of fields as they are after the columns have been narrowed; what is used of the value.
fn rewrite<'a>(expr: &mut Expr, used: &'a [Use]) -> Option<&'a Use> {
    let left = match &mut expr.kind {
        ExprKind::Column(column) => &used[*column],
        ExprKind::Field { input, index } => {
            let Some(Use::Fields(fields)) = rewrite(input, used) else { return None };
            let was = *index;
            *index = fields.range(..was).count();
            &fields[&was]
        }
        _ => {
            for child in expr.children_mut() {
                rewrite(child, used);
            }
            return None;
        }
    };
    expr.ty = left.of(&expr.ty);
    Some(left)
}
