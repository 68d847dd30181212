//! Random values of everything that a plan consists of. They are not valid plans; every value of every type can occur.

use crate::connector::lookup::*;
use crate::connector::*;
use crate::expr::{Expr, ExprKind, Scalar};
use crate::function::Builtin;
use crate::ids::OperatorId;
use crate::keys::hash_u64;
use crate::place::{Constraint, Selector};
use crate::plan::*;
use crate::schema::{DataType, Field, Schema};
use crate::secret::Template;
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
        Source, Calc, WindowAssign, WindowAggregate, GroupAggregate, WindowJoin, Predict, LookupJoin, Sink,
    }
    saw_lookup: LookupConnector { Redis, Http }
    saw_lookup_value: LookupValue { Column, Constant }
    saw_exchange: Exchange { Forward, Hash, Rebalance, Gather }
    saw_window: Window { Tumble, Hop, Cumulate, Session, Attached }
    saw_time: Time { Event, Processing }
    saw_source: SourceConnector { Filesystem, Datagen, Nexmark, Kafka, Mqtt }
    saw_topics: KafkaTopics { Names, Pattern }
    saw_startup: KafkaStartup { Earliest, Latest, Group, Timestamp, Offsets }
    saw_bounded: KafkaBounded { Unbounded, Latest, Group, Timestamp, Offsets }
    saw_sink: SinkConnector { Filesystem, Print, Stdout, Blackhole, Kafka, Redis, Http, Mqtt }
    saw_column: DatagenField { Integer, Float, Text, Past, Any, Sequence, EventTime }
    saw_format: Format { Json, Csv, ChangelogJson, Raw, DebeziumJson, Protobuf, Avro, AvroConfluent }
    saw_key: MqttKey { Column, UserProperty }
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
        let connector = match self.below(5) {
            0 => SourceConnector::Filesystem(FilesystemSource {
                path: self.text(),
                monitor_interval_ms: self.option(Generator::number),
                compression: self.any(),
                split_bytes: self.number(),
            }),
            2 => SourceConnector::Datagen(Datagen {
                rows_per_second: self.option(Generator::number),
                number_of_rows: self.option(Generator::number),
                seed: self.number(),
                fields: self.list(5, Generator::column),
            }),
            1 => SourceConnector::Kafka(self.kafka_source()),
            3 => SourceConnector::Mqtt(self.mqtt_source()),
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

    fn kafka_client(&mut self) -> KafkaClient {
        let template = |g: &mut Generator| {
            let text = g.text();
            let text = if g.flag() { text } else { format!("{text}${{secret:a.b}}") };
            Template::parse(&text).expect("well-formed")
        };
        KafkaClient { bootstrap: self.text(), properties: self.list(3, |g| (g.text(), template(g))) }
    }

    fn kafka_source(&mut self) -> KafkaSource {
        let offsets = |g: &mut Generator| g.list(3, |g| (g.bits() as i32, g.signed()));
        let topics = match self.flag() {
            true => KafkaTopics::Names(self.list(3, Generator::text)),
            false => KafkaTopics::Pattern(self.text()),
        };
        let startup = match self.below(5) {
            0 => KafkaStartup::Earliest,
            1 => KafkaStartup::Latest,
            2 => KafkaStartup::Group,
            3 => KafkaStartup::Timestamp(self.signed()),
            _ => KafkaStartup::Offsets(offsets(self)),
        };
        let bounded = match self.below(5) {
            0 => KafkaBounded::Unbounded,
            1 => KafkaBounded::Latest,
            2 => KafkaBounded::Group,
            3 => KafkaBounded::Timestamp(self.signed()),
            _ => KafkaBounded::Offsets(offsets(self)),
        };
        KafkaSource {
            client: self.kafka_client(),
            topics: self.saw_topics(topics),
            group: self.option(Generator::text),
            reset: self.option(Generator::any),
            startup: self.saw_startup(startup),
            bounded: self.saw_bounded(bounded),
            discovery_ms: self.option(Generator::number),
            key: self.option(|g| KafkaKey {
                format: g.format(),
                columns: g.list(3, Generator::index),
                prefix: g.text(),
            }),
        }
    }

    fn kafka_sink(&mut self) -> KafkaSink {
        KafkaSink {
            topic: self.text(),
            client: self.kafka_client(),
            upsert: self.flag(),
            key_format: self.option(Generator::format),
            key_fields: self.list(3, Generator::text),
            key_prefix: self.text(),
            value_format: self.format(),
            value_has_key: self.flag(),
            guarantee: self.any(),
            id_prefix: self.text(),
            partitioner: self.any(),
            spool_bytes: self.number(),
            marker_lost: self.any(),
            allow_rewind: self.flag(),
        }
    }

    pub fn sink_connector(&mut self) -> SinkConnector {
        let connector = match self.below(8) {
            5 => SinkConnector::Kafka(Box::new(self.kafka_sink())),
            0 => SinkConnector::Filesystem(FilesystemSink {
                path: self.text(),
                rolling_bytes: self.number(),
                rolling_interval_ms: self.number(),
                compression: self.any(),
            }),
            1 => SinkConnector::Print { prefix: self.option(Generator::text) },
            2 => SinkConnector::Stdout,
            3 => SinkConnector::Redis(self.redis_sink()),
            4 => SinkConnector::Http(self.http_sink()),
            6 => SinkConnector::Mqtt(self.mqtt_sink()),
            _ => SinkConnector::Blackhole,
        };
        self.saw_sink(connector)
    }

    fn template(&mut self) -> Template {
        let text = self.text();
        Template::parse(&if self.flag() { text + "${secret:a.b}" } else { text }).expect("well-formed")
    }

    fn redis_server(&mut self) -> RedisServer {
        RedisServer {
            host: self.text(),
            port: self.bits() as u16,
            database: self.bits() as u32,
            tls: self.flag(),
            username: self.option(Generator::template),
            password: self.option(Generator::template),
            connect_timeout_ms: self.number(),
            command_timeout_ms: self.number(),
        }
    }

    fn redis_sink(&mut self) -> RedisSink {
        RedisSink {
            server: self.redis_server(),
            mode: self.any(),
            key: self.option(Generator::text),
            key_prefix: self.text(),
            key_separator: self.text(),
            ttl_ms: self.option(Generator::number),
            stream_maxlen: self.option(Generator::number),
            flush_rows: self.number(),
            flush_interval_ms: self.number(),
            exactly_once: self.flag(),
            max_retries: self.option(|g| g.bits() as u32),
        }
    }

    fn http_sink(&mut self) -> HttpSink {
        HttpSink {
            url: self.template(),
            method: self.any(),
            body: self.any(),
            headers: self.list(3, |g| (g.text(), g.template())),
            batch_rows: self.number(),
            batch_bytes: self.number(),
            batch_interval_ms: self.number(),
            max_retries: self.option(|g| g.bits() as u32),
            on_client_error: self.any(),
            idempotency_header: self.option(Generator::text),
            connect_timeout_ms: self.number(),
            request_timeout_ms: self.number(),
        }
    }

    fn mqtt(&mut self) -> MqttConnection {
        MqttConnection {
            brokers: self.list(3, |make| MqttBroker {
                host: make.text(),
                port: make.below(65_536) as u16,
                tls: make.below(2) == 1,
            }),
            version: self.any(),
            client_id: self.option(Generator::text),
            username: self.option(Generator::template),
            password: self.option(Generator::template),
            ca: self.option(Generator::template),
            certificate: self.option(Generator::template),
            key: self.option(Generator::template),
            session_expiry_ms: self.number(),
            keep_alive_ms: self.number(),
            inflight: self.below(65_536) as u16,
        }
    }

    fn mqtt_source(&mut self) -> MqttSource {
        MqttSource {
            connection: self.mqtt(),
            filters: self.list(3, Generator::text),
            qos: self.below(3) as u8,
            group: self.option(Generator::text),
            dedup: self.option(|make| {
                let key = match make.below(2) {
                    0 => MqttKey::Column(make.text()),
                    _ => MqttKey::UserProperty(make.text()),
                };
                MqttDedup { key: make.saw_key(key), window_ms: make.number(), bytes: make.number() }
            }),
            ack: self.any(),
            log_bytes: self.number(),
            on_gap: self.any(),
        }
    }

    fn mqtt_sink(&mut self) -> MqttSink {
        MqttSink {
            connection: self.mqtt(),
            topic: self.text(),
            qos: self.below(3) as u8,
            retain: self.below(2) == 1,
            message_expiry_ms: self.option(Generator::number),
            content_type: self.option(Generator::text),
            user_properties: self.list(3, |make| (make.text(), make.text())),
            flush_timeout_ms: self.number(),
        }
    }

    fn json(&mut self) -> Json {
        Json { on_error: self.any(), timestamps: self.any() }
    }

    fn avro(&mut self) -> Avro {
        Avro { on_error: self.any(), legacy_timestamps: self.flag() }
    }

    fn registry_auth(&mut self) -> RegistryAuth {
        let template = || Template::parse("a${secret:b}").expect("the name of a secret");
        match self.below(3) {
            0 => RegistryAuth::None,
            1 => RegistryAuth::Basic(template()),
            _ => RegistryAuth::Bearer(template()),
        }
    }

    pub fn format(&mut self) -> Format {
        let format = match self.below(8) {
            0 => Format::Json(self.json()),
            3 => Format::Raw(Raw { on_error: self.any(), big_endian: self.flag() }),
            4 => Format::DebeziumJson(DebeziumJson { json: self.json(), schema_include: self.flag() }),
            5 => Format::Protobuf(Protobuf {
                on_error: self.any(),
                message: self.text(),
                descriptor: self.text(),
                read_defaults: self.flag(),
                null_string: self.text(),
            }),
            6 => Format::Avro(self.avro()),
            7 => Format::AvroConfluent(AvroConfluent {
                avro: self.avro(),
                url: self.text(),
                subject: self.option(Generator::text),
                auth: self.registry_auth(),
            }),
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

    fn lookup_connector(&mut self) -> LookupConnector {
        let connector = match self.flag() {
            true => LookupConnector::Redis(RedisLookup {
                server: self.redis_server(),
                mode: self.any(),
                key_prefix: self.text(),
                key_separator: self.text(),
            }),
            false => LookupConnector::Http(HttpLookup {
                url: self.template(),
                headers: self.list(3, |g| (g.text(), g.template())),
                connect_timeout_ms: self.number(),
                request_timeout_ms: self.number(),
                response_bytes_max: self.number(),
            }),
        };
        self.saw_lookup(connector)
    }

    fn lookup_options(&mut self) -> LookupOptions {
        LookupOptions {
            cache: self.option(|g| LookupCache {
                rows_max: g.option(Generator::number),
                bytes_max: g.number(),
                expire_after_write_ms: g.option(Generator::number),
                expire_after_access_ms: g.option(Generator::number),
                missing_keys: g.flag(),
            }),
            max_retries: self.bits() as u32,
            capacity: self.bits() as u32,
            timeout_ms: self.number(),
        }
    }

    fn lookup_key(&mut self) -> LookupKey {
        let value = match self.flag() {
            true => LookupValue::Column(self.index()),
            false => LookupValue::Constant(self.scalar(2)),
        };
        LookupKey { field: self.field(1), value: self.saw_lookup_value(value) }
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
        let kind = match self.below(9) {
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
            7 => OperatorKind::LookupJoin(LookupJoin {
                table: self.text(),
                connector: self.lookup_connector(),
                format: self.option(Generator::format),
                options: self.lookup_options(),
                kind: self.any(),
                keys: self.list(3, Generator::lookup_key),
                right: self.schema(),
                filter: self.option(|g| g.expr(3)),
            }),
            _ => OperatorKind::Sink(Sink {
                table: self.text(),
                connector: self.sink_connector(),
                format: self.option(Generator::format),
                changelog: self.flag(),
                keys: self.list(3, Generator::index),
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
