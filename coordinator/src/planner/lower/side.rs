//! `'late.table'` and `'error.table'`: where the rows go that no window and no decoder could take.

use super::expr::to_type;
use super::graph::{Graph, NodeId, Port};
use super::rel::{Carry, Rel};
use super::sink::Sinks;
use super::source::Sources;
use crate::planner::{Catalog, PlannerError, Table};
use ef_proto::expr::{Expr, Scalar};
use ef_proto::plan::{Output, error_schema};
use ef_proto::schema::Schema;

/// The late outputs found while lowering.
#[derive(Default)]
pub struct SideOutputs {
    late: Vec<Late>,
}

#[derive(PartialEq)]
struct Late {
    port: Port,
    carry: Carry,
    /// Of the late rows: the input of the window aggregate.
    schema: Schema,
}

impl SideOutputs {
    /// A window aggregate whose late rows carry the columns of a table.
    pub fn late(&mut self, node: NodeId, carry: Carry, schema: Schema) {
        let late = Late { port: Port { node, output: Output::Late }, carry, schema };
        if !self.late.iter().any(|found| found.port == late.port) {
            self.late.push(late);
        }
    }

    /// Connects the side outputs to the tables that the sources name.
    pub fn connect(
        self,
        sources: &Sources,
        catalog: &Catalog,
        graph: &mut Graph,
        sinks: &mut Sinks,
    ) -> Result<(), PlannerError> {
        for source in sources.made() {
            if let Some(name) = source.late_table {
                let target = &catalog.tables[name];
                let mut found = false;
                for late in self.late.iter().filter(|late| late.carry.table == source.table.name) {
                    found = true;
                    // The carried columns under their names in the table.
                    let columns = graph.nodes[source.port.node.0].schema.fields.iter().zip(&late.carry.columns);
                    let columns: Vec<(String, usize)> = columns.map(|(field, at)| (field.name.clone(), *at)).collect();
                    let rel = Rel::of(vec![late.port], late.schema.clone(), false);
                    route(rel, &columns, source.table, target, "late rows", graph, sinks)?;
                }
                if !found {
                    let message = format!(
                        "table `{}`: 'late.table' = '{name}', but no GROUP BY over windows reads this table directly, so no row can be late",
                        source.table.name
                    );
                    let span = *source.table.option_places.get("late.table").unwrap_or(&source.table.span);
                    return Err(PlannerError::new(message, span)
                        .hint("accepted: leave it out, or aggregate by window_start and window_end before any join, other GROUP BY or UNION with another table"));
                }
            }
            if let Some(name) = source.error_table {
                let schema = error_schema();
                let columns: Vec<(String, usize)> =
                    schema.fields.iter().enumerate().map(|(at, field)| (field.name.clone(), at)).collect();
                let port = Port { node: source.port.node, output: Output::Errors };
                let rel = Rel::of(vec![port], schema, false);
                route(rel, &columns, source.table, &catalog.tables[name], "undecodable rows", graph, sinks)?;
            }
        }
        Ok(())
    }
}

/// Maps columns by name onto the target's; those it alone has are NULL.
fn route(
    mut rel: Rel,
    columns: &[(String, usize)],
    source: &Table,
    target: &Table,
    what: &str,
    graph: &mut Graph,
    sinks: &mut Sinks,
) -> Result<(), PlannerError> {
    let schema = target.sink_schema();
    let mut matched = false;
    let mut project = Vec::with_capacity(schema.len());
    for field in &schema.fields {
        let found = columns.iter().find(|(name, _)| *name == field.name);
        project.push(match found {
            Some((_, at)) => {
                matched = true;
                to_type(Expr::column(*at, rel.base.fields[*at].ty.clone()), &field.ty)
            }
            None => Expr::literal(Scalar::Null, field.ty.clone()),
        });
    }
    if !matched {
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let message =
            format!("table `{}`, where {what} of `{}` go, has none of their columns", target.name, source.name);
        return Err(PlannerError::new(message, target.span).hint(format!("accepted: any of {}", names.join(", "))));
    }
    rel.project(project, schema.fields.clone(), graph)?;
    rel.make(graph)?;
    sinks.add_side(&target.name, rel.ports, schema, source.span);
    Ok(())
}
