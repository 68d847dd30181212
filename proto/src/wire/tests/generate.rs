//! Random values of everything that a plan consists of. They are not valid plans; every value of every type can occur.

use crate::connector::*;
use crate::expr::{Expr, ExprKind, Scalar};
use crate::function::Builtin;
use crate::ids::OperatorId;
use crate::keys::hash_u64;
use crate::place::{Constraint, Selector};
use crate::plan::*;
use crate::schema::{DataType, Field, Schema};
use crate::wire::enumeration::Enumeration;
use std::collections::BTreeSet;

/// Chance from a seed, and the variants that have come out.
pub struct Generator {
    seed: u64,
    count: u64,
    pub seen: BTreeSet<&'static str>,
}

/// `NAMES`: the variants of all enums with payload. A variant that is not listed does not compile; one that is
/// listed and never generated fails `the_generator_makes_every_variant`.
macro_rules! variants {
    ($($name:ident: $type:ident { $($variant:ident),+ $(,)? })+) => {
        pub const NAMES: &[&str] = &[$($(concat!(stringify!($type), "::", stringify!($variant))),+),+];

        impl Generator {
            $(fn $name(&mut self, value: $type) -> $type {
                self.seen.insert(match &value {
                    $($type::$variant { .. } => concat!(stringify!($type), "::", stringify!($variant))),+
                });
                value
            })+
        }
    };
}

variants! {
    saw_type: DataType {
        Null, Boolean, Int8, Int16, Int32, Int64, Float32, Float64, Decimal, String, Bytes, Date, Time, Timestamp,
        TimestampLtz, Interval, Row, Array, Map,
    }
    saw_expr: ExprKind { Column, Literal, Cast, Unary, Binary, Case, InList, Like, Field, Call }
    saw_scalar: Scalar { Null, Boolean, Int, Float, Decimal, String, Bytes, Interval, List }
    saw_operator: OperatorKind {
        Source, Calc, WindowAssign, WindowAggregate, GroupAggregate, WindowJoin, Predict, Sink,
    }
    saw_exchange: Exchange { Forward, Hash, Rebalance, Gather }
    saw_window: Window { Tumble, Hop, Cumulate, Session, Attached }
    saw_time: Time { Event, Processing }
    saw_source: SourceConnector { Filesystem, Datagen, Nexmark }
    saw_sink: SinkConnector { Filesystem, Print, Stdout, Blackhole }
    saw_column: DatagenField { Integer, Float, Text, Past, Any, Sequence, EventTime }
    saw_format: Format { Json, Csv, ChangelogJson }
}

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator { seed, count: 0, seen: BTreeSet::new() }
    }

    fn bits(&mut self) -> u64 {
        self.count += 1;
        hash_u64(hash_u64(self.seed) ^ self.count)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Small, large, and the ends.
    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => [0, 1, u64::MAX, i64::MAX as u64, 1 << 63][self.below(5)],
            1 => self.bits(),
            _ => self.bits() % 300,
        }
    }

    fn signed(&mut self) -> i64 {
        self.number() as i64
    }

    fn index(&mut self) -> usize {
        self.number() as usize
    }

    fn float(&mut self) -> f64 {
        match self.below(3) {
            0 => [0.0, -0.0, f64::INFINITY, f64::MIN, f64::MIN_POSITIVE][self.below(5)],
            1 => self.signed() as f64,
            _ => self.below(1000) as f64 / 1000.0,
        }
    }

    fn text(&mut self) -> String {
        let length = self.below(6);
        (0..length).map(|_| ['a', 'Z', '0', '_', '\0', 'ä', '→', '😀'][self.below(8)]).collect()
    }

    fn option<T>(&mut self, make: impl FnOnce(&mut Generator) -> T) -> Option<T> {
        self.flag().then(|| make(self))
    }

    fn list<T>(&mut self, limit: usize, mut make: impl FnMut(&mut Generator) -> T) -> Vec<T> {
        let length = self.below(limit);
        (0..length).map(|_| make(self)).collect()
    }

    fn any<E: Enumeration>(&mut self) -> E {
        E::ALL[self.below(E::ALL.len())]
    }

    pub fn data_type(&mut self, depth: usize) -> DataType {
        let ty = match self.below(if depth == 0 { 16 } else { 19 }) {
            0 => DataType::Null,
            1 => DataType::Boolean,
            2 => DataType::Int8,
            3 => DataType::Int16,
            4 => DataType::Int32,
            5 => DataType::Int64,
            6 => DataType::Float32,
            7 => DataType::Float64,
            8 => DataType::Decimal { precision: 1 + self.below(38) as u8, scale: self.below(77) as i8 - 38 },
            9 => DataType::String,
            10 => DataType::Bytes,
            11 => DataType::Date,
            12 => DataType::Time,
            13 => DataType::Timestamp(self.any()),
            14 => DataType::TimestampLtz(self.any()),
            15 => DataType::Interval,
            16 => DataType::Row(self.list(4, |g| g.field(depth - 1))),
            17 => DataType::Array(self.data_type(depth - 1).into()),
            _ => DataType::Map(self.data_type(depth - 1).into(), self.data_type(depth - 1).into()),
        };
        self.saw_type(ty)
    }

    fn field(&mut self, depth: usize) -> Field {
        Field::new(self.text(), self.data_type(depth), self.flag())
    }

    pub fn schema(&mut self) -> Schema {
        Schema::new(self.list(5, |g| g.field(3)))
    }

    pub fn scalar(&mut self, depth: usize) -> Scalar {
        let scalar = match self.below(if depth == 0 { 8 } else { 9 }) {
            0 => Scalar::Null,
            1 => Scalar::Boolean(self.flag()),
            2 => Scalar::Int(self.signed()),
            3 => Scalar::Float(self.float()),
            4 => Scalar::Decimal((self.signed() as i128) << self.below(64)),
            5 => Scalar::String(self.text()),
            6 => Scalar::Bytes(self.list(6, |g| g.bits() as u8)),
            7 => Scalar::Interval { months: self.signed() as i32, days: self.signed() as i32, nanos: self.signed() },
            _ => Scalar::List(self.list(4, |g| g.scalar(depth - 1))),
        };
        self.saw_scalar(scalar)
    }

    pub fn expr(&mut self, depth: usize) -> Expr {
        let kind = match self.below(if depth == 0 { 2 } else { 10 }) {
            0 => ExprKind::Column(self.index()),
            1 => ExprKind::Literal(self.scalar(2)),
            2 => ExprKind::Cast { input: self.operand(depth), safe: self.flag() },
            3 => ExprKind::Unary { op: self.any(), input: self.operand(depth) },
            4 => ExprKind::Binary { op: self.any(), left: self.operand(depth), right: self.operand(depth) },
            5 => ExprKind::Case {
                branches: self.list(3, |g| (g.expr(depth - 1), g.expr(depth - 1))),
                otherwise: self.option(|g| g.operand(depth)),
            },
            6 => ExprKind::InList {
                input: self.operand(depth),
                list: self.list(3, |g| g.expr(depth - 1)),
                negated: self.flag(),
            },
            7 => ExprKind::Like {
                input: self.operand(depth),
                pattern: self.operand(depth),
                escape: self.option(|g| ['\\', '😀', '\0'][g.below(3)]),
                negated: self.flag(),
                case_insensitive: self.flag(),
            },
            8 => ExprKind::Field { input: self.operand(depth), index: self.index() },
            _ => ExprKind::Call { function: self.function(), args: self.list(4, |g| g.expr(depth - 1)) },
        };
        Expr { kind: self.saw_expr(kind), ty: self.data_type(2) }
    }

    fn operand(&mut self, depth: usize) -> Box<Expr> {
        self.expr(depth - 1).into()
    }

    fn function(&mut self) -> String {
        match self.flag() {
            true => Builtin::ALL[self.below(Builtin::ALL.len())].name().into(),
            false => self.text(),
        }
    }

    fn column(&mut self) -> DatagenField {
        let (distinct, null_rate) = (self.option(Generator::number), self.float());
        let column = match self.below(7) {
            0 => DatagenField::Integer { min: self.signed(), max: self.signed(), distinct, null_rate },
            1 => DatagenField::Float { min: self.float(), max: self.float(), distinct, null_rate },
            2 => DatagenField::Text { length: self.bits() as u32, distinct, null_rate },
            3 => DatagenField::Past { max_past_ms: self.number(), null_rate },
            4 => DatagenField::Any { length: self.bits() as u32, null_rate },
            5 => DatagenField::Sequence { start: self.signed(), end: self.signed() },
            _ => DatagenField::EventTime {
                start_ms: self.option(Generator::signed),
                step_us: self.number(),
                disorder_ms: self.number(),
            },
        };
        self.saw_column(column)
    }

    pub fn source_connector(&mut self) -> SourceConnector {
        let connector = match self.below(3) {
            0 => SourceConnector::Filesystem(FilesystemSource {
                path: self.text(),
                monitor_interval_ms: self.option(Generator::number),
                compression: self.any(),
                split_bytes: self.number(),
            }),
            1 => SourceConnector::Datagen(Datagen {
                rows_per_second: self.option(Generator::number),
                number_of_rows: self.option(Generator::number),
                seed: self.number(),
                fields: self.list(5, Generator::column),
            }),
            _ => SourceConnector::Nexmark(Nexmark {
                table: self.option(Generator::any),
                events: self.option(Generator::number),
                event_rate: self.number(),
                rows_per_second: self.option(Generator::number),
                seed: self.number(),
                base_time_ms: self.signed(),
                disorder_ms: self.number(),
            }),
        };
        self.saw_source(connector)
    }

    pub fn sink_connector(&mut self) -> SinkConnector {
        let connector = match self.below(4) {
            0 => SinkConnector::Filesystem(FilesystemSink {
                path: self.text(),
                rolling_bytes: self.number(),
                rolling_interval_ms: self.number(),
                compression: self.any(),
            }),
            1 => SinkConnector::Print { prefix: self.option(Generator::text) },
            2 => SinkConnector::Stdout,
            _ => SinkConnector::Blackhole,
        };
        self.saw_sink(connector)
    }

    fn json(&mut self) -> Json {
        Json { on_error: self.any(), timestamps: self.any() }
    }

    pub fn format(&mut self) -> Format {
        let format = match self.below(3) {
            0 => Format::Json(self.json()),
            1 => Format::Csv(Csv {
                on_error: self.any(),
                delimiter: self.bits() as u8,
                quote: self.option(|g| g.bits() as u8),
                escape: self.option(|g| g.bits() as u8),
                null_literal: self.option(Generator::text),
                comments: self.flag(),
                header: self.flag(),
            }),
            _ => Format::ChangelogJson(self.json()),
        };
        self.saw_format(format)
    }

    pub fn window(&mut self) -> Window {
        let offset_ms = self.signed();
        let window = match self.below(5) {
            0 => Window::Tumble { size_ms: self.signed(), offset_ms },
            1 => Window::Hop { size_ms: self.signed(), slide_ms: self.signed(), offset_ms },
            2 => Window::Cumulate { max_ms: self.signed(), step_ms: self.signed(), offset_ms },
            3 => Window::Session { gap_ms: self.signed() },
            _ => Window::Attached { start: self.index(), end: self.index() },
        };
        self.saw_window(window)
    }

    fn time(&mut self) -> Time {
        let time = if self.flag() { Time::Event { column: self.index() } } else { Time::Processing };
        self.saw_time(time)
    }

    fn aggregate(&mut self) -> Aggregate {
        Aggregate {
            function: self.any(),
            arg: self.option(Generator::index),
            arg_ty: self.data_type(2),
            filter: self.option(Generator::index),
            distinct: self.flag(),
            ty: self.data_type(2),
        }
    }

    pub fn operator_kind(&mut self) -> OperatorKind {
        let kind = match self.below(8) {
            0 => OperatorKind::Source(Source {
                table: self.text(),
                connector: self.source_connector(),
                format: self.option(Generator::format),
                physical: self.schema(),
                metadata: self.list(3, |g| (g.index(), g.text())),
                project: self.list(3, |g| g.expr(3)),
                watermark: self.option(|g| Watermark { expr: g.expr(2), idle_timeout_ms: g.option(Generator::number) }),
            }),
            1 => OperatorKind::Calc(Calc { filter: self.option(|g| g.expr(4)), project: self.list(4, |g| g.expr(3)) }),
            2 => OperatorKind::WindowAssign(WindowAssign { window: self.window(), time: self.time() }),
            3 => OperatorKind::WindowAggregate(WindowAggregate {
                window: self.window(),
                time: self.time(),
                ltz: self.flag(),
                keys: self.list(3, Generator::index),
                aggregates: self.list(4, Generator::aggregate),
                phase: self.any(),
                late_output: self.flag(),
            }),
            4 => OperatorKind::GroupAggregate(GroupAggregate {
                keys: self.list(3, Generator::index),
                aggregates: self.list(4, Generator::aggregate),
                retracting: self.flag(),
                ttl_ms: self.option(Generator::number),
            }),
            5 => OperatorKind::WindowJoin(WindowJoin {
                kind: self.any(),
                keys: self.list(3, |g| (g.index(), g.index())),
                left_window: (self.index(), self.index()),
                right_window: (self.index(), self.index()),
                filter: self.option(|g| g.expr(3)),
            }),
            6 => OperatorKind::Predict(Predict {
                model: Model {
                    name: self.text(),
                    provider: self.text(),
                    path: self.text(),
                    digest: self.text(),
                    inputs: self.schema(),
                    outputs: self.schema(),
                    bindings: self.list(3, Generator::text),
                    batch_rows: self.bits() as u32,
                },
                args: self.list(3, Generator::index),
            }),
            _ => OperatorKind::Sink(Sink {
                table: self.text(),
                connector: self.sink_connector(),
                format: self.option(Generator::format),
                changelog: self.flag(),
            }),
        };
        self.saw_operator(kind)
    }

    fn exchange(&mut self) -> Exchange {
        let exchange = match self.below(4) {
            0 => Exchange::Forward,
            1 => Exchange::Hash(self.list(3, Generator::index)),
            2 => Exchange::Rebalance,
            _ => Exchange::Gather,
        };
        self.saw_exchange(exchange)
    }

    pub fn plan(&mut self) -> Plan {
        Plan {
            name: self.text(),
            operators: self.list(5, |g| Operator {
                id: OperatorId(g.number()),
                name: g.text(),
                kind: g.operator_kind(),
                parallelism: g.bits() as u32,
                schema: g.schema(),
                constraint: Constraint {
                    tier: g.option(Generator::any),
                    selector: Selector(g.list(3, |g| (g.text(), g.text()))),
                },
            }),
            edges: self.list(5, |g| Edge {
                from: OperatorId(g.number()),
                output: g.any(),
                to: OperatorId(g.number()),
                input: g.index(),
                exchange: g.exchange(),
                changelog: g.flag(),
            }),
            max_parallelism: self.bits() as u16,
            config: self.list(4, |g| (g.text(), g.text())).into_iter().collect(),
        }
    }
}
