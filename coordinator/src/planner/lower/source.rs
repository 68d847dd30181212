//! One source operator a table for the whole job, with the columns that anybody reads.

use super::config::Settings;
use super::expr;
use super::graph::{Graph, NodeId, Port};
use super::rel::{Rel, Role};
use crate::planner::error::near;
use crate::planner::lookup::LookupSource;
use crate::planner::{Catalog, ColumnKind, Insert, PlannerError, PlannerTable, Span, Table};
use datafusion_common::DFSchema;
use datafusion_common::tree_node::TreeNodeRecursion;
use datafusion_expr::{LogicalPlan, TableScan};
use ef_proto::connector::lookup::LOOKUP_CONNECTORS;
use ef_proto::connector::{Format, KafkaSource, KafkaTopics, OptionError, Options, SourceCommon, SourceConnector};
use ef_proto::expr::{Expr, ExprKind};
use ef_proto::function::Builtin;
use ef_proto::place::Constraint;
use ef_proto::plan::{OperatorKind, Source, Watermark};
use ef_proto::schema::{DataType, Field, Schema};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The tables that the job reads.
pub struct Sources {
    tables: BTreeMap<String, Used>,
}

struct Used {
    table: Arc<Table>,
    /// Positions in the table's columns.
    columns: BTreeSet<usize>,
    common: SourceCommon,
    port: Option<Port>,
}

/// A source as made, for its side outputs.
pub struct Side<'a> {
    pub table: &'a Table,
    pub port: Port,
    pub late_table: Option<&'a str>,
    pub error_table: Option<&'a str>,
}

impl Sources {
    /// Looks through all queries for what they read of each table.
    pub fn new(inserts: &[Insert], catalog: &Catalog, settings: &Settings) -> Result<Sources, PlannerError> {
        let mut sources = Sources { tables: BTreeMap::new() };
        let mut failed = None;
        for insert in inserts {
            let walked = insert.plan.apply_with_subqueries(|plan| {
                if let LogicalPlan::TableScan(scan) = plan
                    && scan.source.downcast_ref::<LookupSource>().is_none()
                    && let Err(error) = sources.uses(scan)
                {
                    failed.get_or_insert(error);
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            });
            walked.map_err(super::datafusion)?;
        }
        if let Some(error) = failed {
            return Err(error);
        }
        for used in sources.tables.values_mut() {
            let mut options = Options::new(&used.table.name, used.table.options.clone());
            used.common = SourceCommon::parse(&mut options).map_err(|error| used.table.option_error(error))?;
            used.common.idle_timeout_ms = used.common.idle_timeout_ms.or(settings.idle_timeout_ms);
            let sides = [("late.table", &used.common.late_table), ("error.table", &used.common.error_table)];
            for (key, side) in sides {
                let Some(side) = side else { continue };
                if !catalog.tables.contains_key(side) {
                    let names: Vec<&str> = catalog.tables.keys().map(String::as_str).collect();
                    let message = format!("table `{}`: side table `{side}` does not exist", used.table.name);
                    let span = *used.table.option_places.get(key).unwrap_or(&used.table.span);
                    return Err(PlannerError::new(message, span).hint(near(side, names)));
                }
            }
            if used.common.late_table.is_some() {
                // A late row is written whole.
                used.columns.extend(0..used.table.columns.len());
            }
            if used.columns.is_empty() {
                // Rows must have a column to be counted by.
                let physical = used.table.columns.iter().position(|c| matches!(c.kind, ColumnKind::Physical));
                used.columns.insert(physical.unwrap_or(0));
            }
        }
        Ok(sources)
    }

    fn uses(&mut self, scan: &TableScan) -> Result<(), PlannerError> {
        let table = table_of(scan)?;
        let connector = table.options.get("connector").map_or("", String::as_str);
        if LOOKUP_CONNECTORS.contains(&connector) {
            let message = format!("table `{}` with 'connector' = '{connector}' is no stream to read", table.name);
            let span = *table.option_places.get("connector").unwrap_or(&table.span);
            let hint = "accepted: JOIN it FOR SYSTEM_TIME AS OF o.proc_time ON …, or INSERT INTO it";
            return Err(PlannerError::new(message, span).hint(hint));
        }
        let used = self.tables.entry(table.name.clone()).or_insert_with(|| Used {
            columns: BTreeSet::new(),
            common: SourceCommon::default(),
            port: None,
            table: table.clone(),
        });
        match &scan.projection {
            Some(columns) => used.columns.extend(columns),
            None => used.columns.extend(0..table.columns.len()),
        }
        Ok(())
    }

    /// The scan's columns of the shared source.
    pub fn scan(&mut self, scan: &TableScan, graph: &mut Graph) -> Result<Rel, PlannerError> {
        let name = &table_of(scan)?.name;
        if scan.fetch.is_some() {
            return Err(PlannerError::new("LIMIT is not supported", Span::UNKNOWN));
        }
        let used = self.tables.get_mut(name).expect("every scan has been seen");
        let port = match used.port {
            Some(port) => port,
            None => {
                let port = used.make(graph)?;
                used.port = Some(port);
                port
            }
        };
        let node = &graph.nodes[port.node.0];
        let (mut schema, changelog) = (node.schema.clone(), node.changelog);
        if changelog {
            schema.fields.pop();
        }
        let mut rel = Rel::of(vec![port], schema.clone(), changelog);
        let in_source: BTreeMap<usize, usize> = used.columns.iter().enumerate().map(|(at, i)| (*i, at)).collect();
        if let Some(watermark) = &used.table.watermark
            && let Some(at) = schema.index_of(&watermark.column)
        {
            rel.roles[at] = Role::Rowtime;
        }
        // No window takes rows that change, so none of them is late.
        if used.common.late_table.is_some() && !changelog {
            rel.carry = Some(super::rel::Carry { table: name.clone(), columns: (0..schema.len()).collect() });
        }
        let all: Vec<usize> = (0..used.table.columns.len()).collect();
        let wanted = scan.projection.as_ref().unwrap_or(&all);
        let at: Vec<usize> = wanted.iter().map(|column| in_source[column]).collect();
        rel.columns = at.iter().map(|at| Expr::column(*at, schema.fields[*at].ty.clone())).collect();
        rel.names = at.iter().map(|at| schema.fields[*at].clone()).collect();
        Ok(rel)
    }

    /// Where the tables are whose sources have been made.
    pub fn constraints(&self) -> BTreeMap<NodeId, Constraint> {
        self.tables.values().filter_map(|used| Some((used.port?.node, used.common.constraint.clone()))).collect()
    }

    /// The sources that have been made.
    pub fn made(&self) -> impl Iterator<Item = Side<'_>> {
        self.tables.values().filter_map(|used| {
            Some(Side {
                table: &used.table,
                port: used.port?,
                late_table: used.common.late_table.as_deref(),
                error_table: used.common.error_table.as_deref(),
            })
        })
    }
}

impl Used {
    fn make(&self, graph: &mut Graph) -> Result<Port, PlannerError> {
        let table = &*self.table;
        let fail = |error: OptionError| table.option_error(error);
        let mut options = Options::new(&table.name, table.options.clone());
        let (mut connector, format) = SourceConnector::parse(&mut options, &table.physical()).map_err(fail)?;
        SourceCommon::parse(&mut options).map_err(fail)?;
        options.finish().map_err(fail)?;
        if let SourceConnector::Kafka(KafkaSource { topics: KafkaTopics::Pattern(pattern), .. }) = &connector {
            regex::Regex::new(pattern).map_err(|error| {
                let key = "topic-pattern".to_owned();
                let message = format!(
                    "table `{}`: option '{key}': found '{pattern}', expected a regular expression: {error}",
                    table.name
                );
                fail(OptionError { key, message })
            })?;
        }

        // Everything that expressions may read: physical columns, then metadata.
        let physical = table.physical();
        let metadata = table.metadata();
        let readable: Vec<Field> =
            physical.fields.iter().cloned().chain(metadata.iter().map(|(field, _)| field.clone())).collect();
        let readable = Schema::new(readable);
        let scope = DFSchema::try_from(readable.to_arrow().as_ref().clone()).map_err(super::datafusion)?;
        let mut project = Vec::with_capacity(self.columns.len());
        let mut fields = Vec::with_capacity(self.columns.len());
        for index in &self.columns {
            let column = &table.columns[*index];
            let ty = column.field.ty.clone();
            project.push(match &column.kind {
                ColumnKind::Physical | ColumnKind::Metadata { .. } => {
                    let at = readable.index_of(&column.field.name).expect("declared by the same table");
                    Expr::column(at, ty)
                }
                ColumnKind::Computed { expr, .. } => {
                    let lowered = expr::lower(expr, &scope).map_err(|error| error.or_at(table.span))?;
                    expr::to_type(lowered, &ty)
                }
                ColumnKind::Proctime => {
                    let function = Builtin::CurrentTimestamp.name().to_string();
                    let now = Expr {
                        kind: ExprKind::Call { function, args: vec![] },
                        ty: DataType::TimestampLtz(ef_proto::schema::Unit::Milli),
                    };
                    expr::to_type(now, &ty)
                }
            });
            fields.push(column.field.clone());
        }
        let watermark = match &table.watermark {
            None => None,
            Some(watermark) => Some(Watermark {
                expr: expr::lower(&watermark.expr, &scope).map_err(|error| error.or_at(table.span))?,
                idle_timeout_ms: self.common.idle_timeout_ms,
            }),
        };
        // Prune what nobody reads, unless columns are known by their positions.
        let mut keep: BTreeSet<usize> = BTreeSet::new();
        for expr in project.iter().chain(watermark.as_ref().map(|watermark| &watermark.expr)) {
            expr.visit_columns(&mut |column| {
                keep.insert(column);
            });
        }
        keep.extend(connector.own_column().and_then(|name| physical.index_of(name)));
        let positional = format.as_ref().is_some_and(Format::is_positional) || !connector.prunes_keys();
        if positional || keep.range(..physical.len()).next().is_none() {
            let all = if positional { physical.len() } else { physical.len().min(1) };
            keep.extend(0..all);
        }
        let keep: Vec<usize> = keep.into_iter().collect();
        let kept_physical: Vec<usize> = keep.iter().copied().filter(|column| *column < physical.len()).collect();
        connector.prune(&kept_physical);
        let to = |column: usize| keep.binary_search(&column).expect("kept because it is read");
        let metadata = keep
            .iter()
            .enumerate()
            .filter(|(_, column)| **column >= physical.len())
            .map(|(at, column)| (at, metadata[*column - physical.len()].1.clone()))
            .collect();
        let mut physical = Schema::new(keep.iter().map(|column| readable.fields[*column].clone()).collect());
        let mut project: Vec<Expr> = project.into_iter().map(|expr| expr.map_columns(&to)).collect();
        let changelog = format.as_ref().is_some_and(Format::reads_changelog);
        if changelog {
            project.push(Expr::column(physical.len(), DataType::Int8));
            physical = physical.with_op();
        }
        let source = Source {
            table: table.name.clone(),
            connector,
            format,
            physical,
            metadata,
            project,
            watermark: watermark.map(|w| Watermark { expr: w.expr.map_columns(&to), ..w }),
        };
        Ok(graph.add(OperatorKind::Source(source), vec![], Schema::new(fields), changelog))
    }
}

fn table_of(scan: &TableScan) -> Result<&Arc<Table>, PlannerError> {
    let source: &dyn std::any::Any = scan.source.as_ref();
    match source.downcast_ref::<PlannerTable>() {
        Some(table) => Ok(&table.table),
        None => Err(PlannerError::new(format!("`{}` is not a table with a connector", scan.table_name), Span::UNKNOWN)),
    }
}
