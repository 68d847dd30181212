//! What a file's DDL declares: tables, views, models. Names are case-sensitive, as in Flink.
//!
//! Whether a connector exists and takes its options is not decided here: options stay text until lowering parses
//! them as those of a source or of a sink.

use super::error::{PlannerError, Span};
use arrow_schema::SchemaRef;
use datafusion_expr::{Expr, LogicalPlan, TableSource};
use ef_proto::connector::OptionError;
use ef_proto::plan::Model;
use ef_proto::schema::{Field, Schema};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything declared so far, by name. Tables, views and models have a name space each for models, one together for
/// tables and views.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub tables: BTreeMap<String, Arc<Table>>,
    pub views: BTreeMap<String, View>,
    pub models: BTreeMap<String, Arc<Model>>,
}

/// A `CREATE TABLE`.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    /// In declared order.
    pub columns: Vec<Column>,
    pub watermark: Option<Watermark>,
    /// Empty without a `PRIMARY KEY … NOT ENFORCED`.
    pub primary_key: Vec<String>,
    pub partitioned_by: Vec<String>,
    /// The `WITH` map as written.
    pub options: BTreeMap<String, String>,
    /// Where the statement stands.
    pub span: Span,
    /// Where each option's key stands.
    pub option_places: BTreeMap<String, Span>,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub field: Field,
    pub kind: ColumnKind,
}

#[derive(Clone, Debug)]
pub enum ColumnKind {
    /// Read and written by the connector and format.
    Physical,
    /// `METADATA [FROM 'key'] [VIRTUAL]`; virtual columns are not written.
    Metadata { key: String, virtual_: bool },
    /// `name AS expr`. The expression is over physical and metadata columns (unqualified names): references to other
    /// computed columns are already replaced.
    Computed { expr: Expr, text: String },
    /// `name AS PROCTIME()`: a processing-time attribute.
    Proctime,
}

/// `WATERMARK FOR column AS expr`.
#[derive(Clone, Debug)]
pub struct Watermark {
    /// Of the table, any kind but Proctime.
    pub column: String,
    /// Over physical and metadata columns (unqualified names), of the column's type.
    pub expr: Expr,
    /// The delay when the expression is `column` (0) or `column - INTERVAL …`.
    pub delay_ms: Option<i64>,
}

/// A `CREATE VIEW`: its plan, analysed when it was created, so that errors point there.
#[derive(Clone, Debug)]
pub struct View {
    pub plan: Arc<LogicalPlan>,
}

impl Table {
    /// All columns, in declared order: what a query sees.
    pub fn schema(&self) -> Schema {
        Schema::new(self.columns.iter().map(|column| column.field.clone()).collect())
    }

    /// The columns that the format reads or writes.
    pub fn physical(&self) -> Schema {
        let physical = self.columns.iter().filter(|column| matches!(column.kind, ColumnKind::Physical));
        Schema::new(physical.map(|column| column.field.clone()).collect())
    }

    /// Metadata columns with their keys, in declared order.
    pub fn metadata(&self) -> Vec<(Field, String)> {
        let keyed = |column: &Column| match &column.kind {
            ColumnKind::Metadata { key, .. } => Some((column.field.clone(), key.clone())),
            _ => None,
        };
        self.columns.iter().filter_map(keyed).collect()
    }

    /// The columns that an INSERT fills: physical ones and metadata that is not virtual.
    pub fn sink_schema(&self) -> Schema {
        let written = |column: &&Column| {
            matches!(column.kind, ColumnKind::Physical | ColumnKind::Metadata { virtual_: false, .. })
        };
        Schema::new(self.columns.iter().filter(written).map(|column| column.field.clone()).collect())
    }

    /// An error about one of the options; the table's place where the option is missing.
    pub fn option_error(&self, error: OptionError) -> PlannerError {
        PlannerError::new(error.message, *self.option_places.get(&error.key).unwrap_or(&self.span))
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.field.name == name)
    }
}

/// A table as DataFusion's planner sees it. Takes no filters: the source operator only reads.
#[derive(Debug)]
pub struct PlannerTable {
    pub table: Arc<Table>,
    schema: SchemaRef,
}

impl PlannerTable {
    pub fn new(table: Arc<Table>) -> PlannerTable {
        let schema = table.schema().to_arrow();
        PlannerTable { table, schema }
    }
}

impl TableSource for PlannerTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}
