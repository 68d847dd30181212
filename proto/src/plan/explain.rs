//! Plans for people: an indented tree from the sinks down to the sources, as Flink's EXPLAIN prints it, and a dot
//! graph. Both only read the plan; the text is stable, so that tests can hold it.
//!
//! An operator that feeds several others is printed once, with a number, and referred to by it afterwards.

use super::*;
use crate::connector::{DeliveryGuarantee, KafkaBounded, KafkaTopics, SinkConnector, SourceConnector};
use crate::expr::Expr;
use crate::schema::Schema;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What a sink promises when the job fails and comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Rows become visible when the checkpoint that covers them has completed.
    ExactlyOnce,
    /// Rows since the last completed checkpoint are written again.
    AtLeastOnce,
    /// And rows may be lost.
    None,
    /// They are written again, by their key: what is there in the end is what one writing leaves.
    Idempotent,
}

impl Guarantee {
    pub const fn name(self) -> &'static str {
        match self {
            Guarantee::ExactlyOnce => "exactly-once",
            Guarantee::AtLeastOnce => "at-least-once",
            Guarantee::None => "none",
            Guarantee::Idempotent => "idempotent",
        }
    }
}

impl SinkConnector {
    pub fn guarantee(&self) -> Guarantee {
        match self {
            SinkConnector::Filesystem(_) => Guarantee::ExactlyOnce,
            SinkConnector::Kafka(kafka) => match kafka.guarantee {
                DeliveryGuarantee::ExactlyOnce => Guarantee::ExactlyOnce,
                DeliveryGuarantee::AtLeastOnce => Guarantee::AtLeastOnce,
                DeliveryGuarantee::None => Guarantee::None,
            },
            SinkConnector::Print { .. } | SinkConnector::Stdout | SinkConnector::Blackhole => Guarantee::AtLeastOnce,
            SinkConnector::Redis(redis) if redis.exactly_once => Guarantee::ExactlyOnce,
            SinkConnector::Redis(redis) if redis.mode.upserts() => Guarantee::Idempotent,
            SinkConnector::Redis(_) | SinkConnector::Http(_) => Guarantee::AtLeastOnce,
            SinkConnector::Mqtt(_) => Guarantee::AtLeastOnce,
        }
    }
}

/// The plan as a tree: each line an operator, below it what feeds it, with the exchange between.
pub fn text(plan: &Plan) -> String {
    let mut out = format!("Job {}, max parallelism {}\n", plan.name, plan.max_parallelism);
    for (key, value) in &plan.config {
        let _ = writeln!(out, "  SET '{key}' = '{value}'");
    }
    let mut shared = BTreeMap::new();
    for op in &plan.operators {
        if plan.outputs_of(op.id).count() > 1 {
            shared.insert(op.id, (shared.len() + 1, false));
        }
    }
    let mut tree = Tree { plan, shared, out };
    for sink in plan.operators.iter().filter(|op| matches!(op.kind, OperatorKind::Sink(_))) {
        tree.out.push('\n');
        tree.operator(sink, None, "", "");
    }
    tree.out
}

struct Tree<'a> {
    plan: &'a Plan,
    /// Operators with several readers: their number, and whether they have been printed.
    shared: BTreeMap<OperatorId, (usize, bool)>,
    out: String,
}

impl Tree<'_> {
    fn operator(&mut self, op: &Operator, above: Option<&Edge>, first: &str, rest: &str) {
        self.out.push_str(first);
        if let Some(edge) = above {
            let _ = write!(self.out, "[{}] ", edge_text(self.plan, edge));
        }
        let number = self.shared.get_mut(&op.id).map(|(number, printed)| (*number, std::mem::replace(printed, true)));
        match number {
            Some((number, true)) => {
                let _ = writeln!(self.out, "{} → see #{number}", op.kind.name());
                return;
            }
            Some((number, false)) => {
                let _ = write!(self.out, "#{number} ");
            }
            None => {}
        }
        let _ = writeln!(self.out, "{} p={}{}", describe(self.plan, op), op.parallelism, place(op, " on "));
        let mut inputs: Vec<&Edge> = self.plan.inputs_of(op.id).collect();
        inputs.sort_by_key(|edge| edge.input);
        for (i, edge) in inputs.iter().enumerate() {
            let last = i + 1 == inputs.len();
            let Some(from) = self.plan.operator(edge.from) else { continue };
            let below = format!("{rest}{}", if last { "   " } else { "│  " });
            self.operator(from, Some(edge), &format!("{rest}{}", if last { "└─ " } else { "├─ " }), &below);
        }
    }
}

/// The plan in Graphviz's language.
pub fn dot(plan: &Plan) -> String {
    let mut out = format!("digraph {} {{\n  rankdir=LR;\n  node [shape=box];\n", quoted(&plan.name));
    for op in &plan.operators {
        let label = format!("{}\np={}{}", describe(plan, op), op.parallelism, place(op, "\n"));
        let _ = writeln!(out, "  \"{}\" [label={}];", op.id, quoted(&label));
    }
    for edge in &plan.edges {
        let style = if edge.changelog { ", style=bold" } else { "" };
        let label = quoted(&edge_text(plan, edge));
        let _ = writeln!(out, "  \"{}\" -> \"{}\" [label={label}{style}];", edge.from, edge.to);
    }
    out.push_str("}\n");
    out
}

/// Where the operator may run, behind `before`; nothing where it may run anywhere.
fn place(op: &Operator, before: &str) -> String {
    if op.constraint.is_any() { String::new() } else { format!("{before}{}", op.constraint) }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn edge_text(plan: &Plan, edge: &Edge) -> String {
    let schema =
        plan.operator(edge.from).and_then(|from| plan.output_schema(from, edge.output).ok()).unwrap_or_default();
    let mut text = match &edge.exchange {
        Exchange::Forward => "forward".to_string(),
        Exchange::Hash(columns) => format!("hash({})", column_names(&schema, columns)),
        Exchange::Rebalance => "rebalance".to_string(),
        Exchange::Gather => "gather".to_string(),
    };
    match edge.output {
        Output::Main => {}
        Output::Late => text.push_str(", late rows"),
        Output::Errors => text.push_str(", undecodable rows"),
    }
    if edge.changelog {
        text.push_str(", changelog +I -U +U -D");
    }
    text
}

/// One operator in words: its kind, and what it does in terms of its input's column names.
pub fn describe(plan: &Plan, op: &Operator) -> String {
    let input = |index: usize| {
        let edge = plan.inputs_of(op.id).find(|edge| edge.input == index);
        let from = edge.and_then(|edge| Some((plan.operator(edge.from)?, edge.output)));
        from.and_then(|(from, output)| plan.output_schema(from, output).ok()).unwrap_or_default()
    };
    match &op.kind {
        OperatorKind::Source(source) => describe_source(source, &op.schema),
        OperatorKind::Calc(calc) => {
            let input = input(0);
            let select = projection(&calc.project, &input, &op.schema);
            match &calc.filter {
                Some(filter) => format!("Calc(where=[{}], select=[{select}])", in_names(filter, &input)),
                None => format!("Calc(select=[{select}])"),
            }
        }
        OperatorKind::WindowAssign(assign) => {
            format!("WindowAssign({}, {})", window(&assign.window, &input(0)), time(assign.time, &input(0)))
        }
        OperatorKind::WindowAggregate(aggregate) => describe_window_aggregate(aggregate, &input(0), &op.schema),
        OperatorKind::GroupAggregate(group) => {
            let input = input(0);
            let mut text = format!(
                "GroupAggregate(by=[{}], select=[{}]",
                column_names(&input, &group.keys),
                aggregates(&group.aggregates, &input, &op.schema, group.keys.len())
            );
            if group.retracting {
                text.push_str(", retracting");
            }
            if let Some(ttl) = group.ttl_ms {
                let _ = write!(text, ", state ttl {}", duration(ttl as i64));
            }
            text + ")"
        }
        OperatorKind::WindowJoin(join) => {
            let (left, right) = (input(0), input(1));
            let pair = |(l, r): &(usize, usize)| format!("{} = {}", name(&left, *l), name(&right, *r));
            let mut on = vec![pair(&(join.left_window.0, join.right_window.0))];
            on.push(pair(&(join.left_window.1, join.right_window.1)));
            on.extend(join.keys.iter().map(pair));
            let both = Schema::new(left.fields.iter().chain(&right.fields).cloned().collect());
            let filter = join.filter.as_ref().map(|filter| format!(", where=[{}]", in_names(filter, &both)));
            format!("WindowJoin({:?}, on=[{}]{})", join.kind, on.join(", "), filter.unwrap_or_default())
        }
        OperatorKind::Predict(predict) => {
            let model = &predict.model;
            format!(
                "Predict(model={} ({} {}), inputs=[{}], outputs=[{}])",
                model.name,
                model.provider,
                model.path,
                column_names(&input(0), &predict.args),
                model.outputs.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ")
            )
        }
        OperatorKind::LookupJoin(join) => describe_lookup_join(join, &input(0)),
        OperatorKind::Sink(sink) => describe_sink(sink, &op.schema),
    }
}

fn describe_source(source: &Source, out: &Schema) -> String {
    let connector = match &source.connector {
        SourceConnector::Filesystem(files) => {
            let follow = if files.monitor_interval_ms.is_some() { ", following" } else { "" };
            format!("filesystem '{}'{follow}", files.path)
        }
        SourceConnector::Datagen(_) => "datagen".into(),
        SourceConnector::Nexmark(_) => "nexmark".into(),
        SourceConnector::Kafka(kafka) => {
            let topics = match &kafka.topics {
                KafkaTopics::Names(names) => names.join(";"),
                KafkaTopics::Pattern(pattern) => format!("/{pattern}/"),
            };
            let bounded = if kafka.bounded == KafkaBounded::Unbounded { ", unbounded" } else { "" };
            format!("kafka topic={topics}{bounded}")
        }
        SourceConnector::Mqtt(mqtt) => format!("mqtt '{}'", mqtt.filters.join(";")),
    };
    let format = source.format.as_ref().map(|format| format!(", {}", format.name())).unwrap_or_default();
    let mut text = format!("Source({}, {connector}{format}", source.table);
    let _ = write!(text, ", select=[{}]", projection(&source.project, &source.physical, out));
    if let Some(watermark) = &source.watermark {
        let _ = write!(text, ", watermark=[{}]", in_names(&watermark.expr, &source.physical));
        if let Some(idle) = watermark.idle_timeout_ms {
            let _ = write!(text, ", idle after {}", duration(idle as i64));
        }
    }
    text + ")"
}

fn describe_lookup_join(join: &LookupJoin, left: &Schema) -> String {
    let on: Vec<String> = join.keys.iter().map(|key| lookup_key(key, left)).collect();
    let columns: Vec<&str> = join.right.fields.iter().map(|field| field.name.as_str()).collect();
    let (table, connector) = (&join.table, join.connector.describe());
    let mut text = format!("LookupJoin({:?}, {table}, {connector}", join.kind);
    if let Some(format) = &join.format {
        let _ = write!(text, ", {}", format.name());
    }
    let _ = write!(text, ", on=[{}], select=[{}]", on.join(", "), columns.join(", "));
    if let Some(filter) = &join.filter {
        let both = Schema::new(left.fields.iter().chain(&join.right.fields).cloned().collect());
        let _ = write!(text, ", where=[{}]", in_names(filter, &both));
    }
    if let Some(cache) = &join.options.cache {
        let _ = write!(text, ", cache=[{} KiB", cache.bytes_max >> 10);
        if let Some(rows) = cache.rows_max {
            let _ = write!(text, ", {rows} rows");
        }
        for (ms, what) in [(cache.expire_after_write_ms, "write"), (cache.expire_after_access_ms, "access")] {
            if let Some(ms) = ms {
                let _ = write!(text, ", {} after {what}", duration(ms as i64));
            }
        }
        text.push(']');
    }
    text + ")"
}

/// `device_id = id`, `region = 'eu'`.
pub fn lookup_key(key: &LookupKey, left: &Schema) -> String {
    let (key, value) = (&key.field, &key.value);
    match value {
        LookupValue::Column(index) => format!("{} = {}", name(left, *index), key.name),
        LookupValue::Constant(scalar) => format!("{} = {}", key.name, Expr::literal(scalar.clone(), key.ty.clone())),
    }
}

fn describe_sink(sink: &Sink, schema: &Schema) -> String {
    let connector = match &sink.connector {
        SinkConnector::Filesystem(files) => format!("filesystem '{}'", files.path),
        SinkConnector::Print { .. } => "print".into(),
        SinkConnector::Stdout => "stdout".into(),
        SinkConnector::Blackhole => "blackhole".into(),
        SinkConnector::Kafka(kafka) => {
            format!("{} '{}'", if kafka.upsert { "upsert-kafka" } else { "kafka" }, kafka.topic)
        }
        SinkConnector::Redis(redis) => format!("redis {} '{}'", redis.mode.name(), redis.server.describe()),
        SinkConnector::Http(http) => format!("http {} '{}'", http.method.name(), http.url),
        SinkConnector::Mqtt(mqtt) => format!("mqtt '{}'", mqtt.topic),
    };
    let format = sink.format.as_ref().map(|format| format!(", {}", format.name())).unwrap_or_default();
    let columns: Vec<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
    let guarantee = sink.connector.guarantee().name();
    let keys =
        if sink.keys.is_empty() { String::new() } else { format!(", key=[{}]", column_names(schema, &sink.keys)) };
    format!("Sink({}, {connector}{format}, columns=[{}]{keys}, {guarantee})", sink.table, columns.join(", "))
}

fn describe_window_aggregate(aggregate: &WindowAggregate, input: &Schema, out: &Schema) -> String {
    let kind = match aggregate.phase {
        Phase::Single => "WindowAggregate",
        Phase::Local => "LocalWindowAggregate",
        Phase::Global => "GlobalWindowAggregate",
    };
    let mut text = format!("{kind}(by=[{}]", column_names(input, &aggregate.keys));
    // The global phase no longer sees the columns that the functions are over.
    match aggregate.phase {
        Phase::Global => {
            let _ = write!(text, ", {}", window(&aggregate.window, input));
            let names = out.fields.iter().skip(aggregate.keys.len()).take(aggregate.aggregates.len());
            let merged: Vec<String> = names.map(|field| format!("merge({})", field.name)).collect();
            let _ = write!(text, ", select=[{}]", merged.join(", "));
        }
        Phase::Single | Phase::Local => {
            let _ = write!(text, ", {}", window(&aggregate.window, input));
            if !matches!(aggregate.window, Window::Attached { .. }) {
                let _ = write!(text, ", {}", time(aggregate.time, input));
            }
            let named = if aggregate.phase == Phase::Single { out } else { &Schema::default() };
            let _ =
                write!(text, ", select=[{}]", aggregates(&aggregate.aggregates, input, named, aggregate.keys.len()));
        }
    }
    text + ")"
}

fn aggregates(calls: &[Aggregate], input: &Schema, out: &Schema, first: usize) -> String {
    let one = |(i, call): (usize, &Aggregate)| {
        let arg = call.arg.map_or("*".to_string(), |arg| name(input, arg));
        let distinct = if call.distinct { "DISTINCT " } else { "" };
        let mut text = format!("{}({distinct}{arg})", call.function.sql());
        if let Some(filter) = call.filter {
            let _ = write!(text, " FILTER {}", name(input, filter));
        }
        match out.fields.get(first + i) {
            Some(field) if field.name != text => format!("{text} AS {}", field.name),
            _ => text,
        }
    };
    calls.iter().enumerate().map(one).collect::<Vec<_>>().join(", ")
}

impl AggregateFunction {
    pub const fn sql(self) -> &'static str {
        match self {
            AggregateFunction::Count => "COUNT",
            AggregateFunction::Sum => "SUM",
            AggregateFunction::Avg => "AVG",
            AggregateFunction::Min => "MIN",
            AggregateFunction::Max => "MAX",
            AggregateFunction::StddevPop => "STDDEV_POP",
            AggregateFunction::StddevSamp => "STDDEV_SAMP",
            AggregateFunction::VarPop => "VAR_POP",
            AggregateFunction::VarSamp => "VAR_SAMP",
            AggregateFunction::FirstValue => "FIRST_VALUE",
            AggregateFunction::LastValue => "LAST_VALUE",
        }
    }
}

fn window(window: &Window, input: &Schema) -> String {
    match window {
        Window::Attached { start, end } => format!("window=[{}, {}]", name(input, *start), name(input, *end)),
        other => format!("window={other}"),
    }
}

fn time(time: Time, input: &Schema) -> String {
    match time {
        Time::Event { column } => format!("time={}", name(input, column)),
        Time::Processing => "time=PROCTIME()".into(),
    }
}

/// `TUMBLE(10 s)`, `HOP(2 s, 10 s)` (slide, size, as SQL orders them), `CUMULATE(1 min, 1 h)`, `SESSION(10 s)`.
impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let offset = |f: &mut std::fmt::Formatter<'_>, offset_ms: i64| match offset_ms {
            0 => f.write_str(")"),
            ms => write!(f, ", offset {})", duration(ms)),
        };
        match self {
            Window::Tumble { size_ms, offset_ms } => {
                write!(f, "TUMBLE({}", duration(*size_ms))?;
                offset(f, *offset_ms)
            }
            Window::Hop { size_ms, slide_ms, offset_ms } => {
                write!(f, "HOP({}, {}", duration(*slide_ms), duration(*size_ms))?;
                offset(f, *offset_ms)
            }
            Window::Cumulate { max_ms, step_ms, offset_ms } => {
                write!(f, "CUMULATE({}, {}", duration(*step_ms), duration(*max_ms))?;
                offset(f, *offset_ms)
            }
            Window::Session { gap_ms } => write!(f, "SESSION({})", duration(*gap_ms)),
            Window::Attached { start, end } => write!(f, "ATTACHED(${start}, ${end})"),
        }
    }
}

/// The largest unit that divides it.
fn duration(ms: i64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    match units.iter().find(|(size, _)| ms != 0 && ms % size == 0) {
        Some((size, unit)) => format!("{} {unit}", ms / size),
        None => format!("{ms} ms"),
    }
}

fn name(schema: &Schema, index: usize) -> String {
    schema.fields.get(index).map_or_else(|| format!("${index}"), |field| field.name.clone())
}

fn column_names(schema: &Schema, columns: &[usize]) -> String {
    columns.iter().map(|column| name(schema, *column)).collect::<Vec<_>>().join(", ")
}

/// Each expression with the name it gets, where that says something new.
fn projection(exprs: &[Expr], input: &Schema, out: &Schema) -> String {
    let one = |(i, expr): (usize, &Expr)| {
        let text = in_names(expr, input);
        match out.fields.get(i) {
            Some(field) if field.name != text => format!("{text} AS {}", field.name),
            _ => text,
        }
    };
    exprs.iter().enumerate().map(one).collect::<Vec<_>>().join(", ")
}

/// The expression's text with column names for `$i`. String literals are left alone.
fn in_names(expr: &Expr, input: &Schema) -> String {
    let text = expr.to_string();
    let mut out = String::with_capacity(text.len());
    let mut in_string = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        in_string ^= c == '\'';
        let mut digits = String::new();
        while c == '$' && !in_string && chars.peek().is_some_and(char::is_ascii_digit) {
            digits.extend(chars.next());
        }
        match digits.parse() {
            Ok(index) => out.push_str(&name(input, index)),
            Err(_) => out.push(c),
        }
    }
    out
}
