//! What the tests of agents and of the host have in common.

use ef_proto::connector::{Datagen, DatagenField, Format, Json, OnError, SinkConnector};
use ef_proto::connector::{SourceConnector, TimestampFormat};
use ef_proto::expr::Expr;
use ef_proto::ids::OperatorId;
use ef_proto::plan::{Edge, Exchange, Operator, OperatorKind, Output, Plan, Sink, Source};
use ef_proto::schema::{DataType, Field, Schema};
use std::collections::BTreeMap;

/// Two endless sources that feed one sink: two tasks with a gate between them.
pub fn plan(sink: SinkConnector) -> Plan {
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
    let fields = vec![DatagenField::Sequence { start: 0, end: i64::MAX }];
    let source = Source {
        table: "numbers".into(),
        connector: SourceConnector::Datagen(Datagen {
            // What is written to disk is paced; else the gate is always full.
            rows_per_second: matches!(sink, SinkConnector::Filesystem(_)).then_some(10_000),
            number_of_rows: None,
            seed: 1,
            fields,
        }),
        format: None,
        physical: schema.clone(),
        metadata: Vec::new(),
        project: vec![Expr::column(0, DataType::Int64)],
        watermark: None,
    };
    let json = Json { on_error: OnError::Fail, timestamps: TimestampFormat::Sql };
    let format = matches!(sink, SinkConnector::Filesystem(_)).then_some(Format::Json(json));
    let sink = Sink { table: "out".into(), connector: sink, format, changelog: false, keys: vec![] };
    let operator = |number, name: &str, kind, parallelism| Operator {
        id: OperatorId(number),
        name: name.into(),
        kind,
        parallelism,
        schema: schema.clone(),
        constraint: Default::default(),
    };
    Plan {
        name: "job".into(),
        operators: vec![
            operator(1, "Source(numbers)", OperatorKind::Source(source), 2),
            operator(2, "Sink(out)", OperatorKind::Sink(sink), 1),
        ],
        edges: vec![Edge {
            from: OperatorId(1),
            output: Output::Main,
            to: OperatorId(2),
            input: 0,
            exchange: Exchange::Gather,
            changelog: false,
        }],
        max_parallelism: 128,
        config: BTreeMap::new(),
    }
}
