//! One sink operator a target for the whole job: several INSERTs into a table feed the same one.

use super::graph::{Graph, NodeId, Port};
use super::rel::Rel;
use super::upsert;
use crate::planner::{Catalog, ColumnKind, Insert, PlannerError, Span, Target};
use ef_proto::connector::{Changelog, Format, Options, SinkConnector, SourceCommon};
use ef_proto::place::Constraint;
use ef_proto::plan::{OperatorKind, Sink};
use ef_proto::schema::{DataType, Schema};

/// What is to be written, in the order in which the file names the targets.
#[derive(Default)]
pub struct Sinks {
    targets: Vec<Written>,
}

struct Written {
    target: Target,
    span: Span,
    inputs: Vec<Input>,
}

struct Input {
    ports: Vec<Port>,
    /// Without `_op`.
    schema: Schema,
    changelog: bool,
}

impl Sinks {
    pub fn add(&mut self, insert: &Insert, mut rel: Rel, graph: &mut Graph) -> Result<(), PlannerError> {
        rel.carry = None;
        rel.make(graph)?;
        if let Some(field) = rel.base.fields.iter().find(|field| field.ty == DataType::Interval) {
            let message = format!("column `{}` is an INTERVAL, which has no place in a table", field.name);
            return Err(
                PlannerError::new(message, insert.span).hint("accepted: a number, as of TIMESTAMPDIFF(SECOND, a, b)")
            );
        }
        let input = Input { ports: rel.ports, schema: rel.base, changelog: rel.changelog };
        self.target(insert.target.clone(), insert.span).inputs.push(input);
        Ok(())
    }

    /// Rows of a side output, already in the table's columns.
    pub fn add_side(&mut self, table: &str, ports: Vec<Port>, schema: Schema, span: Span) {
        let input = Input { ports, schema, changelog: false };
        self.target(Target::Table(table.to_string()), span).inputs.push(input);
    }

    fn target(&mut self, target: Target, span: Span) -> &mut Written {
        let at = self.targets.iter().position(|written| written.target == target).unwrap_or_else(|| {
            self.targets.push(Written { target, span, inputs: Vec::new() });
            self.targets.len() - 1
        });
        &mut self.targets[at]
    }

    /// The sinks, and where their tables are.
    pub fn finish(self, catalog: &Catalog, graph: &mut Graph) -> Result<Vec<(NodeId, Constraint)>, PlannerError> {
        self.targets.into_iter().map(|written| written.make(catalog, graph)).collect()
    }
}

impl Written {
    fn make(self, catalog: &Catalog, graph: &mut Graph) -> Result<(NodeId, Constraint), PlannerError> {
        let changelog = self.inputs.iter().any(|input| input.changelog);
        let mut constraint = Constraint::default();
        let (sink, schema, with_op) = match &self.target {
            Target::Stdout => {
                let schema = self.inputs.first().map(|input| input.schema.clone()).unwrap_or_default();
                let connector = SinkConnector::Stdout;
                let sink = Sink { table: "stdout".into(), connector, format: None, changelog, keys: vec![] };
                (sink, schema, changelog)
            }
            Target::Table(name) => {
                let Some(table) = catalog.tables.get(name) else {
                    return Err(PlannerError::new(format!("table `{name}` is not declared"), self.span));
                };
                let unwritable = table
                    .columns
                    .iter()
                    .find(|column| matches!(column.kind, ColumnKind::Metadata { virtual_: false, .. }));
                if let Some(column) = unwritable {
                    let message = format!("table `{name}`: METADATA column `{}` cannot be written", column.field.name);
                    return Err(PlannerError::new(message, table.span)
                        .hint("accepted: METADATA … VIRTUAL, which an INSERT leaves out"));
                }
                let schema = table.sink_schema();
                let mut options = Options::new(name, table.options.clone());
                let parsed = SinkConnector::parse(&mut options, &schema, &table.primary_key, changelog);
                // What is wrong with a changelog is wrong with the query, not with the table.
                let (connector, format) = parsed.map_err(|error| match changelog && error.key == "format" {
                    true => PlannerError::new(error.message, self.span),
                    false => table.option_error(error),
                })?;
                constraint = SourceCommon::parse(&mut options).map_err(|error| table.option_error(error))?.constraint;
                options.finish().map_err(|error| table.option_error(error))?;
                // A changelog format always gets the kind of the row.
                let with_op = changelog || format.as_ref().is_some_and(Format::writes_changelog);
                let keys = match connector.takes_changelog() {
                    Changelog::Refused if changelog => return Err(self.refused(name)),
                    Changelog::Refused | Changelog::Raw => Vec::new(),
                    Changelog::Upsert => table.primary_key.iter().filter_map(|key| schema.index_of(key)).collect(),
                };
                self.check_updates(name, &keys, &schema, catalog, graph)?;
                (Sink { table: name.clone(), connector, format, changelog: with_op, keys }, schema, with_op)
            }
        };
        let mut ports = Vec::new();
        for input in self.inputs {
            let found: Vec<_> = input.schema.fields.iter().map(|field| &field.ty).collect();
            if found != schema.fields.iter().map(|field| &field.ty).collect::<Vec<_>>() {
                let message = format!("internal error of the planner: `{}` is fed {:?}", sink.table, input.schema);
                return Err(PlannerError::new(message, self.span));
            }
            let plain = with_op && !input.changelog;
            ports.extend(if plain { graph.with_op(input.ports, &input.schema) } else { input.ports });
        }
        let schema = if with_op { schema.with_op() } else { schema };
        let port = graph.add(OperatorKind::Sink(sink), vec![ports], schema, with_op);
        Ok((port.node, constraint))
    }

    fn refused(&self, table: &str) -> PlannerError {
        let message = format!("table `{table}` takes only inserted rows and this query updates rows");
        PlannerError::new(message, self.span).hint(
            "accepted: a GROUP BY on window_start and window_end, or no GROUP BY, whose rows are final; or a table that is \
             kept by its PRIMARY KEY",
        )
    }

    /// A row by which the sink is updated is one row of the query.
    fn check_updates(
        &self,
        table: &str,
        keys: &[usize],
        schema: &Schema,
        catalog: &Catalog,
        graph: &Graph,
    ) -> Result<(), PlannerError> {
        let primary_key = |table: &str| catalog.tables.get(table).map_or(Vec::new(), |table| table.primary_key.clone());
        let updating = self.inputs.iter().filter(|input| input.changelog && !keys.is_empty());
        for port in updating.flat_map(|input| &input.ports) {
            for keyed in upsert::updated_by(graph, *port, &primary_key) {
                let lost = keyed.lost(keys);
                if lost.is_empty() {
                    continue;
                }
                let primary: Vec<&str> = keys.iter().map(|key| schema.fields[*key].name.as_str()).collect();
                let message = format!(
                    "the query updates rows by {}, which the PRIMARY KEY ({}) of table `{table}` does not tell apart",
                    lost.join(", "),
                    primary.join(", ")
                );
                return Err(PlannerError::new(message, self.span)
                    .hint("accepted: a PRIMARY KEY with all columns of the GROUP BY, or of the key of the changelog that is read"));
            }
        }
        Ok(())
    }
}
