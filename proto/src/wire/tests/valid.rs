//! A small valid plan with every kind of operator: a job with a window per device, a join of it with itself, a model
//! and a changelog.

use crate::connector::lookup::*;
use crate::connector::*;
use crate::expr::{BinaryOp, Expr, ExprKind, Scalar, UnaryOp};
use crate::function::Builtin;
use crate::ids::OperatorId;
use crate::place::Constraint;
use crate::plan::*;
use crate::schema::{DataType, Field, OP_COLUMN, Schema, Unit};
use crate::secret::Template;
use std::collections::BTreeMap;

const TIME: DataType = DataType::Timestamp(Unit::Milli);

fn schema(types: &[DataType]) -> Schema {
    Schema::new(types.iter().enumerate().map(|(i, ty)| Field::new(format!("c{i}"), ty.clone(), true)).collect())
}

fn operator(id: u64, kind: OperatorKind, schema: Schema) -> Operator {
    let name = format!("{}({id})", kind.name());
    Operator { id: OperatorId(id), name, kind, parallelism: 1, schema, constraint: Constraint::default() }
}

fn edge(from: u64, to: u64, input: usize) -> Edge {
    Edge {
        from: OperatorId(from),
        output: Output::Main,
        to: OperatorId(to),
        input,
        exchange: Exchange::Forward,
        changelog: false,
    }
}

fn aggregate(function: AggregateFunction, arg: Option<usize>, arg_ty: DataType, ty: DataType) -> Aggregate {
    Aggregate { function, arg, arg_ty, filter: None, distinct: false, ty }
}

fn sink(connector: SinkConnector, format: Option<Format>, changelog: bool) -> OperatorKind {
    OperatorKind::Sink(Sink { table: "out".into(), connector, format, changelog, keys: vec![] })
}

/// `device STRING, value DOUBLE, ts TIMESTAMP(3)` from JSON files.
fn source(physical: &Schema) -> OperatorKind {
    let second = Scalar::Interval { months: 0, days: 0, nanos: 1_000_000_000 };
    let second = Expr::literal(second, DataType::Interval);
    OperatorKind::Source(Source {
        table: "sensor".into(),
        connector: SourceConnector::Filesystem(FilesystemSource {
            path: "in/*.ndjson".into(),
            monitor_interval_ms: Some(500),
            compression: Compression::Gzip,
            split_bytes: 1 << 20,
        }),
        format: Some(Format::Json(Json { on_error: OnError::Skip, timestamps: TimestampFormat::Iso8601 })),
        physical: physical.clone(),
        metadata: vec![],
        project: columns(physical),
        watermark: Some(Watermark {
            expr: Expr::binary(BinaryOp::Sub, Expr::column(2, TIME), second, TIME),
            idle_timeout_ms: Some(60_000),
        }),
    })
}

fn columns(schema: &Schema) -> Vec<Expr> {
    schema.fields.iter().enumerate().map(|(i, field)| Expr::column(i, field.ty.clone())).collect()
}

/// A row passes when its value is known; the device's name is in capitals.
fn calc(input: &Schema) -> OperatorKind {
    let known = ExprKind::Unary { op: UnaryOp::IsNotNull, input: Expr::column(1, DataType::Float64).into() };
    let mut project = columns(input);
    let args = vec![project[0].clone(), Expr::literal(Scalar::String("-".into()), DataType::String)];
    let call = ExprKind::Call { function: Builtin::Concat.name().into(), args };
    project[0] = Expr { kind: call, ty: DataType::String };
    OperatorKind::Calc(Calc { filter: Some(Expr { kind: known, ty: DataType::Boolean }), project })
}

/// The device's room from Redis.
fn lookup() -> OperatorKind {
    OperatorKind::LookupJoin(LookupJoin {
        table: "devices".into(),
        connector: LookupConnector::Redis(RedisLookup {
            server: RedisServer {
                host: "localhost".into(),
                port: 6379,
                database: 0,
                tls: false,
                username: None,
                password: Some(Template::parse("${secret:redis}").expect("well-formed")),
                connect_timeout_ms: 1_000,
                command_timeout_ms: 2_000,
            },
            mode: RedisLookupMode::Hash,
            key_prefix: "device:".into(),
            key_separator: ":".into(),
        }),
        format: None,
        options: LookupOptions {
            cache: Some(LookupCache {
                rows_max: Some(1_000),
                bytes_max: 1 << 20,
                expire_after_write_ms: Some(60_000),
                expire_after_access_ms: None,
                missing_keys: true,
            }),
            max_retries: 3,
            capacity: 100,
            timeout_ms: 180_000,
        },
        kind: JoinKind::Left,
        keys: vec![
            LookupKey { field: Field::new("id", DataType::String, false), value: LookupValue::Column(0) },
            LookupKey {
                field: Field::new("site", DataType::Int64, true),
                value: LookupValue::Constant(Scalar::Int(7)),
            },
        ],
        right: Schema::new(vec![Field::new("id", DataType::String, true), Field::new("room", DataType::String, true)]),
        filter: None,
    })
}

pub fn plan() -> Plan {
    use DataType::{Float64, Int8, Int64, String};
    let readings = schema(&[String, Float64, TIME]);
    let windows = schema(&[String, Int64, Float64, TIME, TIME, TIME]);
    let assigned = schema(&[String, Float64, TIME, TIME, TIME, TIME]);
    let joined = Schema::new(windows.fields.iter().chain(&assigned.fields).cloned().collect());
    let mut scored = joined.clone();
    scored.fields.push(Field::new("score", Float64, true));
    let counts = Schema::new(vec![Field::new("device", String, true), Field::new("n", Int64, false)]).with_op();
    assert_eq!(counts.fields[2], Field::new(OP_COLUMN, Int8, false));
    let mut placed = windows.clone();
    placed.fields.extend([Field::new("id", String, true), Field::new("room", String, true)]);
    let time = Time::Event { column: 2 };
    let operators = vec![
        operator(1, source(&readings), readings.clone()),
        operator(2, calc(&readings), readings.clone()),
        operator(
            3,
            OperatorKind::WindowAggregate(WindowAggregate {
                window: Window::Hop { size_ms: 10_000, slide_ms: 5_000, offset_ms: -1 },
                time,
                ltz: false,
                keys: vec![0],
                aggregates: vec![
                    aggregate(AggregateFunction::Count, None, DataType::Null, Int64),
                    aggregate(AggregateFunction::Avg, Some(1), Float64, Float64),
                ],
                phase: Phase::Single,
                late_output: true,
            }),
            windows.clone(),
        ),
        operator(
            4,
            OperatorKind::WindowAssign(WindowAssign { window: Window::Tumble { size_ms: 5_000, offset_ms: 0 }, time }),
            assigned.clone(),
        ),
        operator(
            5,
            OperatorKind::WindowJoin(WindowJoin {
                kind: JoinKind::Left,
                keys: vec![(0, 0)],
                left_window: (3, 4),
                right_window: (3, 4),
                filter: Some(Expr::binary(
                    BinaryOp::Gt,
                    Expr::column(7, Float64),
                    Expr::column(2, Float64),
                    DataType::Boolean,
                )),
            }),
            joined.clone(),
        ),
        operator(
            6,
            OperatorKind::Predict(Predict {
                model: Model {
                    name: "anomaly".into(),
                    provider: "onnx".into(),
                    path: "anomaly.onnx".into(),
                    digest: "0badcafe-1024".into(),
                    inputs: schema(&[Float64]),
                    outputs: schema(&[Float64]),
                    bindings: vec!["score".into()],
                    batch_rows: 64,
                },
                args: vec![7],
            }),
            scored.clone(),
        ),
        operator(
            7,
            OperatorKind::GroupAggregate(GroupAggregate {
                keys: vec![0],
                aggregates: vec![aggregate(AggregateFunction::Count, None, DataType::Null, Int64)],
                retracting: false,
                ttl_ms: Some(3_600_000),
            }),
            counts.clone(),
        ),
        operator(8, sink(SinkConnector::Print { prefix: Some("late".into()) }, None, false), readings),
        operator(9, sink(SinkConnector::Blackhole, None, false), scored),
        operator(10, sink(SinkConnector::Stdout, None, true), counts),
        operator(11, lookup(), placed.clone()),
        operator(12, sink(SinkConnector::Blackhole, None, false), placed),
    ];
    let edges = vec![
        edge(1, 2, 0),
        edge(2, 3, 0),
        edge(2, 4, 0),
        edge(3, 5, 0),
        edge(4, 5, 1),
        edge(5, 6, 0),
        Edge { exchange: Exchange::Hash(vec![0]), ..edge(3, 7, 0) },
        Edge { output: Output::Late, ..edge(3, 8, 0) },
        Edge { exchange: Exchange::Rebalance, ..edge(6, 9, 0) },
        Edge { changelog: true, exchange: Exchange::Gather, ..edge(7, 10, 0) },
        edge(3, 11, 0),
        edge(11, 12, 0),
    ];
    let config = BTreeMap::from([("state.backend".into(), "rocksdb".into())]);
    Plan { name: "golden".into(), operators, edges, max_parallelism: 128, config }
}
