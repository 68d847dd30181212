//! The rules that every plan keeps. The planner checks its own work with them and a worker what it was sent, so a
//! broken plan is refused with a name before any row moves.
//!
//! Types decide, names do not: two schemas match when their columns have equal types in equal order.

use super::*;
use crate::expr::{self, Expr};
use crate::schema::{self, DataType, OP_COLUMN, Unit};
use std::collections::{BTreeMap, HashSet};

/// A rule that a plan breaks. Our bug, or a damaged file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(pub String);

type Checked = Result<(), String>;

/// Operators, and edges. Far more than any job has; the checks below look up each in the list of all.
const SIZE_MAX: usize = 10_000;

impl Plan {
    pub fn validate(&self) -> Result<(), PlanError> {
        self.check().map_err(PlanError)
    }

    fn check(&self) -> Checked {
        if self.max_parallelism == 0 || self.max_parallelism > 1 << 15 {
            return Err(format!("max parallelism {} is not in 1..=32768", self.max_parallelism));
        }
        for (what, count) in [("operators", self.operators.len()), ("edges", self.edges.len())] {
            if count > SIZE_MAX {
                return Err(format!("{count} {what}; at most {SIZE_MAX} are possible"));
            }
        }
        let mut positions = BTreeMap::new();
        for (position, op) in self.operators.iter().enumerate() {
            if positions.insert(op.id, position).is_some() {
                return Err(format!("operator id {} is used twice", op.id));
            }
            if op.parallelism == 0 || op.parallelism > u32::from(self.max_parallelism) {
                return Err(format!(
                    "{}: parallelism {} is not in 1..={}",
                    op.name, op.parallelism, self.max_parallelism
                ));
            }
        }
        for edge in &self.edges {
            self.check_edge(edge, &positions)?;
        }
        for op in &self.operators {
            self.check_operator(op).map_err(|error| format!("{}: {error}", op.name))?;
        }
        Ok(())
    }

    fn check_edge(&self, edge: &Edge, positions: &BTreeMap<OperatorId, usize>) -> Checked {
        let find = |id: OperatorId| {
            let position =
                *positions.get(&id).ok_or_else(|| format!("an edge names operator {id}, which is not there"))?;
            Ok::<_, String>((position, &self.operators[position]))
        };
        let (from_position, from) = find(edge.from)?;
        let (to_position, to) = find(edge.to)?;
        let here = format!("edge {} → {}", from.name, to.name);
        if from_position >= to_position {
            return Err(format!("{here}: goes backwards: operators are not in topological order"));
        }
        let schema = self.output_schema(from, edge.output).map_err(|error| format!("{here}: {error}"))?;
        if edge.input >= to.kind.inputs() {
            return Err(format!("{here}: input {} of an operator with {}", edge.input, to.kind.inputs()));
        }
        if edge.changelog && !carries_op(&schema) {
            return Err(format!("{here}: is a changelog without `{OP_COLUMN}` as its last column"));
        }
        let from_changelog = self.inputs_of(edge.from).any(|input| input.changelog);
        let made = match (&from.kind, edge.output) {
            (OperatorKind::GroupAggregate(_), _) => Some(true),
            (OperatorKind::Source(source), Output::Main) => Some(source.is_changelog()),
            (OperatorKind::Calc(_), _) if from_changelog => Some(true),
            // A Calc may make a changelog of plain rows, to meet one in a union.
            (OperatorKind::Calc(_), _) => None,
            _ => Some(false),
        };
        if made.is_some_and(|made| made != edge.changelog) {
            let is = if edge.changelog {
                "a changelog, and its rows are not"
            } else {
                "append-only, and its rows are updates"
            };
            return Err(format!("{here}: is marked {is}"));
        }
        match &edge.exchange {
            Exchange::Forward if from.parallelism != to.parallelism => {
                Err(format!("{here}: forward from {} to {} subtasks", from.parallelism, to.parallelism))
            }
            Exchange::Hash(columns) => {
                if columns.is_empty() {
                    return Err(format!("{here}: hash of no columns"));
                }
                match columns.iter().find(|column| **column >= schema.len()) {
                    Some(column) => Err(format!("{here}: hash of column {column} of {}", schema.len())),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// The columns of one of an operator's outputs.
    pub fn output_schema(&self, from: &Operator, output: Output) -> Result<Schema, String> {
        match (output, &from.kind) {
            (Output::Main, OperatorKind::Sink(_)) => Err("a sink has no output".into()),
            (Output::Main, _) => Ok(from.schema.clone()),
            (Output::Late, OperatorKind::WindowAggregate(window)) if window.late_output => {
                self.input_schema(from.id, 0).map(|(schema, _)| schema)
            }
            (Output::Errors, OperatorKind::Source(_)) => Ok(error_schema()),
            (output, kind) => Err(format!("{} has no output {output:?}", kind.name())),
        }
    }

    /// The columns of an input, and whether it is a changelog; all its edges must agree.
    fn input_schema(&self, to: OperatorId, input: usize) -> Result<(Schema, bool), String> {
        let mut found: Option<(Schema, bool)> = None;
        for edge in self.inputs_of(to).filter(|edge| edge.input == input) {
            let from = self.operator(edge.from).ok_or("an edge from nowhere")?;
            let schema = self.output_schema(from, edge.output)?;
            match &found {
                None => found = Some((schema, edge.changelog)),
                Some((first, changelog)) if types(first) == types(&schema) && *changelog == edge.changelog => {}
                Some((first, _)) => {
                    return Err(format!(
                        "the edges of input {input} differ: {} and {}",
                        columns(first),
                        columns(&schema)
                    ));
                }
            }
        }
        found.ok_or_else(|| format!("nothing feeds input {input}"))
    }

    fn check_operator(&self, op: &Operator) -> Checked {
        nesting(&op.schema)?;
        let inputs: Vec<(Schema, bool)> =
            (0..op.kind.inputs()).map(|input| self.input_schema(op.id, input)).collect::<Result<_, _>>()?;
        let takes_changelog = match &op.kind {
            OperatorKind::Calc(_) => None,
            OperatorKind::GroupAggregate(group) => Some(group.retracting),
            OperatorKind::Sink(sink) => Some(sink.changelog),
            _ => Some(false),
        };
        for (_, changelog) in &inputs {
            match takes_changelog {
                Some(false) if *changelog => return Err("does not take a changelog, and its input is one".into()),
                Some(true) if !*changelog => return Err("takes a changelog, and its input is none".into()),
                _ => {}
            }
        }
        let changelog = inputs.first().is_some_and(|(_, changelog)| *changelog);
        let inputs: Vec<Schema> = inputs.into_iter().map(|(schema, _)| schema).collect();
        if !matches!(op.kind, OperatorKind::Sink(_)) && self.outputs_of(op.id).next().is_none() {
            return Err("nothing reads its output".into());
        }
        let expected = match &op.kind {
            OperatorKind::Source(source) => check_source(source)?,
            OperatorKind::Calc(calc) => check_calc(calc, &inputs[0], changelog)?,
            OperatorKind::WindowAssign(assign) => check_assign(assign, &inputs[0])?,
            OperatorKind::WindowAggregate(window) => {
                self.check_keyed(op, 0, &window.exchange_keys())?;
                check_window_aggregate(window, &inputs[0])?
            }
            OperatorKind::GroupAggregate(group) => {
                self.check_keyed(op, 0, &Some(group.keys.clone()))?;
                check_group_aggregate(group, &inputs[0])?
            }
            OperatorKind::WindowJoin(join) => {
                let side = |key: fn(&(usize, usize)) -> usize, window: (usize, usize)| match join.keys.is_empty() {
                    true => Some(vec![window.0, window.1]),
                    false => Some(join.keys.iter().map(key).collect()),
                };
                self.check_keyed(op, 0, &side(|pair| pair.0, join.left_window))?;
                self.check_keyed(op, 1, &side(|pair| pair.1, join.right_window))?;
                check_window_join(join, &inputs[0], &inputs[1])?
            }
            OperatorKind::Predict(predict) => check_predict(predict, &inputs[0])?,
            OperatorKind::LookupJoin(join) => check_lookup_join(join, &inputs[0])?,
            OperatorKind::Sink(sink) => {
                sink.keys.iter().try_for_each(|key| column(&inputs[0], *key, "key").map(drop))?;
                types(&inputs[0])
            }
        };
        if types(&op.schema) != expected {
            return Err(format!("its columns are {}, and it makes ({})", columns(&op.schema), names(&expected)));
        }
        Ok(())
    }

    /// Rows of one key meet in one subtask: by hash of exactly the keys, since state is laid out by their key group;
    /// or there is only one subtask.
    fn check_keyed(&self, op: &Operator, input: usize, keys: &Option<Vec<usize>>) -> Checked {
        let Some(keys) = keys else { return Ok(()) };
        if op.parallelism == 1 {
            return Ok(());
        }
        if keys.is_empty() {
            return Err(format!("has no keys and {} subtasks", op.parallelism));
        }
        for edge in self.inputs_of(op.id).filter(|edge| edge.input == input) {
            if edge.exchange != Exchange::Hash(keys.clone()) {
                return Err(format!("input {input} is not exchanged by its keys {keys:?} but by {:?}", edge.exchange));
            }
        }
        Ok(())
    }
}

impl OperatorKind {
    pub const fn inputs(&self) -> usize {
        match self {
            OperatorKind::Source(_) => 0,
            OperatorKind::WindowJoin(_) => 2,
            _ => 1,
        }
    }

    pub const fn name(&self) -> &'static str {
        match self {
            OperatorKind::Source(_) => "Source",
            OperatorKind::Calc(_) => "Calc",
            OperatorKind::WindowAssign(_) => "WindowAssign",
            OperatorKind::WindowAggregate(_) => "WindowAggregate",
            OperatorKind::GroupAggregate(_) => "GroupAggregate",
            OperatorKind::WindowJoin(_) => "WindowJoin",
            OperatorKind::Predict(_) => "Predict",
            OperatorKind::LookupJoin(_) => "LookupJoin",
            OperatorKind::Sink(_) => "Sink",
        }
    }
}

impl WindowAggregate {
    /// Columns of its input by which rows must be exchanged; None: it combines whatever comes.
    fn exchange_keys(&self) -> Option<Vec<usize>> {
        (self.phase != Phase::Local).then(|| self.keys.clone())
    }
}

fn types(schema: &Schema) -> Vec<DataType> {
    schema.fields.iter().map(|field| field.ty.clone()).collect()
}

fn names(types: &[DataType]) -> String {
    types.iter().map(DataType::to_string).collect::<Vec<_>>().join(", ")
}

fn columns(schema: &Schema) -> String {
    let columns: Vec<String> = schema.fields.iter().map(|field| format!("{} {}", field.name, field.ty)).collect();
    format!("({})", columns.join(", "))
}

fn carries_op(schema: &Schema) -> bool {
    schema.fields.last().is_some_and(|field| field.name == OP_COLUMN && field.ty == DataType::Int8)
}

fn column<'a>(schema: &'a Schema, index: usize, what: &str) -> Result<&'a DataType, String> {
    let field = schema.fields.get(index);
    field.map(|field| &field.ty).ok_or_else(|| format!("{what}: column {index} of {}", schema.len()))
}

fn expression(expr: &Expr, input: &Schema, what: &str) -> Checked {
    if expr.depth() > expr::DEPTH_MAX {
        return Err(format!("{what}: the expression nests {} deep, {} at most", expr.depth(), expr::DEPTH_MAX));
    }
    expr.validate(input).map_err(|error| format!("{what} {expr}: {error}"))
}

fn nesting(schema: &Schema) -> Checked {
    match schema.fields.iter().find(|field| field.ty.depth() > schema::DEPTH_MAX) {
        Some(field) => Err(format!("column `{}`: its type nests deeper than {}", field.name, schema::DEPTH_MAX)),
        None => Ok(()),
    }
}

fn check_source(source: &Source) -> Result<Vec<DataType>, String> {
    nesting(&source.physical)?;
    let changelog = source.is_changelog();
    let behind_rows = source.metadata.len() + changelog as usize;
    let first_metadata = source.physical.len().saturating_sub(behind_rows);
    if source.metadata.iter().enumerate().any(|(i, (column, _))| *column != first_metadata + i) {
        return Err("metadata columns are not the last of the physical ones".into());
    }
    source.project.iter().try_for_each(|expr| expression(expr, &source.physical, "column"))?;
    if changelog {
        if !carries_op(&source.physical) {
            return Err(format!("is a changelog, and its columns are {}", columns(&source.physical)));
        }
        passes_op(&source.project, &source.physical)?;
    }
    if let Some(watermark) = &source.watermark {
        expression(&watermark.expr, &source.physical, "watermark")?;
        if !watermark.expr.ty.is_timestamp() {
            return Err(format!("the watermark is {}, not a timestamp", watermark.expr.ty));
        }
    }
    Ok(source.project.iter().map(|expr| expr.ty.clone()).collect())
}

fn check_calc(calc: &Calc, input: &Schema, changelog: bool) -> Result<Vec<DataType>, String> {
    if let Some(filter) = &calc.filter {
        expression(filter, input, "filter")?;
        if filter.ty != DataType::Boolean {
            return Err(format!("the filter {filter} is {}, not BOOLEAN", filter.ty));
        }
    }
    calc.project.iter().try_for_each(|expr| expression(expr, input, "column"))?;
    if changelog {
        passes_op(&calc.project, input)?;
    }
    Ok(calc.project.iter().map(|expr| expr.ty.clone()).collect())
}

fn passes_op(project: &[Expr], input: &Schema) -> Checked {
    let op = expr::ExprKind::Column(input.len() - 1);
    match project.last().is_some_and(|expr| expr.kind == op) {
        true => Ok(()),
        false => Err(format!("loses `{OP_COLUMN}` of a changelog")),
    }
}

fn check_window(window: &Window, input: &Schema) -> Checked {
    let multiple = |whole: i64, part: i64, what: &str| {
        if part > 0 && whole > 0 && whole % part == 0 {
            Ok(())
        } else {
            Err(format!("{what}: {whole} ms by {part} ms"))
        }
    };
    match window {
        Window::Tumble { size_ms, .. } => multiple(*size_ms, *size_ms, "TUMBLE"),
        Window::Hop { size_ms, slide_ms, .. } => multiple(*size_ms, *slide_ms, "HOP"),
        Window::Cumulate { max_ms, step_ms, .. } => multiple(*max_ms, *step_ms, "CUMULATE"),
        Window::Session { gap_ms } => multiple(*gap_ms, *gap_ms, "SESSION"),
        Window::Attached { start, end } => window_columns(input, (*start, *end)),
    }
}

fn window_columns(input: &Schema, (start, end): (usize, usize)) -> Checked {
    for (index, what) in [(start, "window start"), (end, "window end")] {
        match column(input, index, what)? {
            DataType::Timestamp(Unit::Milli) | DataType::TimestampLtz(Unit::Milli) => {}
            other => return Err(format!("{what}: column {index} is {other}, not a timestamp of milliseconds")),
        }
    }
    Ok(())
}

fn check_time(time: Time, input: &Schema) -> Result<Option<bool>, String> {
    let Time::Event { column: index } = time else { return Ok(None) };
    match column(input, index, "time")? {
        DataType::Timestamp(_) => Ok(Some(false)),
        DataType::TimestampLtz(_) => Ok(Some(true)),
        other => Err(format!("the time column {index} is {other}, not a timestamp")),
    }
}

const fn window_time(ltz: bool) -> DataType {
    if ltz { DataType::TimestampLtz(Unit::Milli) } else { DataType::Timestamp(Unit::Milli) }
}

fn check_assign(assign: &WindowAssign, input: &Schema) -> Result<Vec<DataType>, String> {
    check_window(&assign.window, input)?;
    if matches!(assign.window, Window::Session { .. } | Window::Attached { .. }) {
        return Err("assigns windows that only an aggregate can".into());
    }
    let ltz = check_time(assign.time, input)?.unwrap_or(true);
    let mut out = types(input);
    out.extend([window_time(ltz), window_time(ltz), window_time(ltz)]);
    Ok(out)
}

fn check_window_aggregate(window: &WindowAggregate, input: &Schema) -> Result<Vec<DataType>, String> {
    if window.phase != Phase::Single {
        if matches!(window.window, Window::Session { .. } | Window::Attached { .. }) {
            return Err("a session or attached window has no local phase".into());
        }
        if let Some(aggregate) = window.aggregates.iter().find(|aggregate| !aggregate.mergeable()) {
            return Err(format!("{:?} cannot be merged from partial results", aggregate.function));
        }
        if window.late_output {
            return Err("late rows have no output in two phases".into());
        }
    }
    let mut out = Vec::new();
    for key in &window.keys {
        out.push(column(input, *key, "key")?.clone());
    }
    let states = window.aggregates.iter().flat_map(Aggregate::state_types);
    if window.phase == Phase::Global {
        let mut expected = out.clone();
        expected.extend(states);
        expected.extend([DataType::Int64, DataType::Int64]);
        if window.keys.iter().copied().ne(0..window.keys.len()) || types(input) != expected {
            return Err(format!("its input is {}, not the local phase's ({})", columns(input), names(&expected)));
        }
    } else {
        check_window(&window.window, input)?;
        if check_time(window.time, input)?.is_some_and(|ltz| ltz != window.ltz) {
            return Err("the window columns and the time column differ in time zone".into());
        }
        check_aggregates(&window.aggregates, input)?;
        if window.phase == Phase::Local {
            out.extend(states);
            out.extend([DataType::Int64, DataType::Int64]);
            return Ok(out);
        }
    }
    out.extend(window.aggregates.iter().map(|aggregate| aggregate.ty.clone()));
    out.extend([window_time(window.ltz), window_time(window.ltz), window_time(window.ltz)]);
    Ok(out)
}

fn check_group_aggregate(group: &GroupAggregate, input: &Schema) -> Result<Vec<DataType>, String> {
    let mut out = Vec::new();
    for key in &group.keys {
        out.push(column(input, *key, "key")?.clone());
    }
    check_aggregates(&group.aggregates, input)?;
    out.extend(group.aggregates.iter().map(|aggregate| aggregate.ty.clone()));
    out.push(DataType::Int8);
    Ok(out)
}

fn check_aggregates(aggregates: &[Aggregate], input: &Schema) -> Checked {
    for aggregate in aggregates {
        let function = aggregate.function;
        match aggregate.arg {
            None if function != AggregateFunction::Count => return Err(format!("{function:?} of no column")),
            None if aggregate.arg_ty != DataType::Null => return Err("COUNT(*) with an argument type".into()),
            None => {}
            Some(arg) => {
                let ty = column(input, arg, "argument")?;
                if *ty != aggregate.arg_ty {
                    return Err(format!("{function:?}: column {arg} is {ty}, not {}", aggregate.arg_ty));
                }
            }
        }
        if let Some(filter) = aggregate.filter {
            let ty = column(input, filter, "FILTER")?;
            if *ty != DataType::Boolean {
                return Err(format!("FILTER column {filter} is {ty}, not BOOLEAN"));
            }
        }
        let (arg, ty) = (&aggregate.arg_ty, &aggregate.ty);
        let fits = match function {
            AggregateFunction::Count => *ty == DataType::Int64,
            AggregateFunction::Sum | AggregateFunction::Avg => arg.is_numeric() && ty.is_numeric(),
            AggregateFunction::StddevPop
            | AggregateFunction::StddevSamp
            | AggregateFunction::VarPop
            | AggregateFunction::VarSamp => arg.is_numeric() && *ty == DataType::Float64,
            AggregateFunction::Min
            | AggregateFunction::Max
            | AggregateFunction::FirstValue
            | AggregateFunction::LastValue => arg == ty,
        };
        if !fits {
            return Err(format!("{function:?} of {arg} does not make {ty}"));
        }
    }
    Ok(())
}

fn check_window_join(join: &WindowJoin, left: &Schema, right: &Schema) -> Result<Vec<DataType>, String> {
    window_columns(left, join.left_window).map_err(|error| format!("left {error}"))?;
    window_columns(right, join.right_window).map_err(|error| format!("right {error}"))?;
    if column(left, join.left_window.0, "window")? != column(right, join.right_window.0, "window")? {
        return Err("the windows of the two sides differ in time zone".into());
    }
    for (l, r) in &join.keys {
        let (l, r) = (column(left, *l, "left key")?, column(right, *r, "right key")?);
        if l != r {
            return Err(format!("a key is {l} on the left and {r} on the right"));
        }
    }
    let both = Schema::new(left.fields.iter().chain(&right.fields).cloned().collect());
    if let Some(filter) = &join.filter {
        expression(filter, &both, "filter")?;
    }
    Ok(match join.kind {
        JoinKind::Semi | JoinKind::Anti => types(left),
        _ => types(&both),
    })
}

fn check_lookup_join(join: &LookupJoin, left: &Schema) -> Result<Vec<DataType>, String> {
    nesting(&join.right)?;
    if !matches!(join.kind, JoinKind::Inner | JoinKind::Left) {
        return Err(format!("a lookup is no {:?} join", join.kind));
    }
    if join.keys.is_empty() {
        return Err("a lookup without a key".into());
    }
    for (i, LookupKey { field, value }) in join.keys.iter().enumerate() {
        if join.keys[..i].iter().any(|other| other.field.name == field.name) {
            return Err(format!("key `{}` twice", field.name));
        }
        if !field.ty.has_text() {
            return Err(format!("key `{}` is {}, which has no text", field.name, field.ty));
        }
        match value {
            LookupValue::Column(index) => {
                let ty = column(left, *index, "key")?;
                if *ty != field.ty {
                    return Err(format!("key `{}` is {}, and column {index} is {ty}", field.name, field.ty));
                }
            }
            LookupValue::Constant(scalar) => {
                let literal = Expr::literal(scalar.clone(), field.ty.clone());
                expression(&literal, left, "key")?;
                if *scalar == expr::Scalar::Null {
                    return Err(format!("key `{}` is NULL, which no row has", field.name));
                }
            }
        }
        let used = join.right.fields.iter().find(|right| right.name == field.name);
        if let Some(used) = used.filter(|used| used.ty != field.ty) {
            return Err(format!("key `{}` is {}, and the column {}", field.name, field.ty, used.ty));
        }
    }
    join.connector.fits(join.format.as_ref(), &join.values())?;
    let both = Schema::new(left.fields.iter().chain(&join.right.fields).cloned().collect());
    if let Some(filter) = &join.filter {
        expression(filter, &both, "filter")?;
        if filter.ty != DataType::Boolean {
            return Err(format!("the filter {filter} is {}, not BOOLEAN", filter.ty));
        }
    }
    Ok(types(&both))
}

fn check_predict(predict: &Predict, input: &Schema) -> Result<Vec<DataType>, String> {
    let model = &predict.model;
    if predict.args.len() != model.inputs.len() {
        return Err(format!("{} columns for the {} inputs of the model", predict.args.len(), model.inputs.len()));
    }
    for (arg, field) in predict.args.iter().zip(&model.inputs.fields) {
        let ty = column(input, *arg, "argument")?;
        if *ty != field.ty {
            return Err(format!("input `{}` is {}, and column {arg} is {ty}", field.name, field.ty));
        }
    }
    if model.bindings.iter().collect::<HashSet<_>>().len() > model.outputs.len() {
        return Err("more bindings than outputs".into());
    }
    let mut out = types(input);
    out.extend(types(&model.outputs));
    Ok(out)
}

#[cfg(test)]
mod tests;
