//! What an operator is and does, but for windows (`window.rs`) and connectors (`connector.rs`).

use super::enumeration::{Enumeration, enumeration, known};
use super::fault::{Fault, chosen, columns, list, narrow, optional, required};
use super::generated::plan as wire;
use super::generated::plan::operator::Kind;
use super::window::{of_pair, pair};
use crate::error::Error;
use crate::ids::OperatorId;
use crate::place::{Constraint, Selector, Tier};
use crate::plan::{Calc, JoinKind, Model, Operator, OperatorKind, Predict, Sink, Source, Watermark, WindowJoin};

enumeration!(JoinKind: Inner, Left, Right, Full, Semi, Anti);

impl From<&Operator> for wire::Operator {
    fn from(operator: &Operator) -> wire::Operator {
        let Operator { id, name, kind, parallelism, schema, constraint } = operator;
        wire::Operator {
            id: id.0,
            name: name.clone(),
            parallelism: *parallelism,
            schema: Some(schema.into()),
            kind: Some(kind.into()),
            constraint: (!constraint.is_any()).then(|| constraint.into()),
        }
    }
}

impl TryFrom<wire::Operator> for Operator {
    type Error = Fault;

    fn try_from(operator: wire::Operator) -> Result<Operator, Fault> {
        let kinds = "source, calc, window_assign, window_aggregate, group_aggregate, window_join, predict, sink, \
                     lookup_join";
        Ok(Operator {
            id: OperatorId(operator.id),
            name: operator.name,
            kind: chosen(operator.kind, "kind", kinds)?.try_into()?,
            parallelism: operator.parallelism,
            schema: required(operator.schema, "schema")?,
            constraint: optional(operator.constraint, "constraint")?.unwrap_or_default(),
        })
    }
}

enumeration!(Tier: Device, Gateway, Regional, Cloud);

impl From<&Constraint> for wire::Constraint {
    fn from(constraint: &Constraint) -> wire::Constraint {
        let label = |(key, pattern): &(String, String)| wire::Label { key: key.clone(), pattern: pattern.clone() };
        wire::Constraint {
            tier: constraint.tier.map_or(0, Tier::number),
            selector: constraint.selector.0.iter().map(label).collect(),
        }
    }
}

impl TryFrom<wire::Constraint> for Constraint {
    type Error = Fault;

    fn try_from(constraint: wire::Constraint) -> Result<Constraint, Fault> {
        let tier = if constraint.tier == 0 { None } else { Some(known(constraint.tier, "tier")?) };
        let selector = constraint.selector.into_iter().map(|label| (label.key, label.pattern)).collect();
        Ok(Constraint { tier, selector: Selector(selector) })
    }
}

impl From<&OperatorKind> for Kind {
    fn from(kind: &OperatorKind) -> Kind {
        match kind {
            OperatorKind::Source(source) => Kind::Source(source.into()),
            OperatorKind::Calc(calc) => Kind::Calc(calc.into()),
            OperatorKind::WindowAssign(assign) => Kind::WindowAssign(assign.into()),
            OperatorKind::WindowAggregate(aggregate) => Kind::WindowAggregate(aggregate.into()),
            OperatorKind::GroupAggregate(aggregate) => Kind::GroupAggregate(aggregate.into()),
            OperatorKind::WindowJoin(join) => Kind::WindowJoin(join.into()),
            OperatorKind::Predict(predict) => Kind::Predict(predict.into()),
            OperatorKind::LookupJoin(join) => Kind::LookupJoin(join.into()),
            OperatorKind::Sink(sink) => Kind::Sink(sink.into()),
        }
    }
}

impl TryFrom<Kind> for OperatorKind {
    type Error = Fault;

    fn try_from(kind: Kind) -> Result<OperatorKind, Fault> {
        Ok(match kind {
            Kind::Source(source) => OperatorKind::Source(required(Some(source), "source")?),
            Kind::Calc(calc) => OperatorKind::Calc(required(Some(calc), "calc")?),
            Kind::WindowAssign(assign) => OperatorKind::WindowAssign(required(Some(assign), "window_assign")?),
            Kind::WindowAggregate(aggregate) => {
                OperatorKind::WindowAggregate(required(Some(aggregate), "window_aggregate")?)
            }
            Kind::GroupAggregate(aggregate) => {
                OperatorKind::GroupAggregate(required(Some(aggregate), "group_aggregate")?)
            }
            Kind::WindowJoin(join) => OperatorKind::WindowJoin(required(Some(join), "window_join")?),
            Kind::Predict(predict) => OperatorKind::Predict(required(Some(predict), "predict")?),
            Kind::LookupJoin(join) => OperatorKind::LookupJoin(required(Some(join), "lookup_join")?),
            Kind::Sink(sink) => OperatorKind::Sink(required(Some(sink), "sink")?),
        })
    }
}

impl From<&Source> for wire::Source {
    fn from(source: &Source) -> wire::Source {
        let Source { table, connector, format, physical, metadata, project, watermark } = source;
        wire::Source {
            table: table.clone(),
            connector: Some(connector.into()),
            format: format.as_ref().map(Into::into),
            physical: Some(physical.into()),
            metadata: metadata
                .iter()
                .map(|(column, key)| wire::Metadata { column: *column as u64, key: key.clone() })
                .collect(),
            project: project.iter().map(Into::into).collect(),
            watermark: watermark.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<wire::Source> for Source {
    type Error = Fault;

    fn try_from(source: wire::Source) -> Result<Source, Fault> {
        let metadata = |metadata: wire::Metadata| Ok((narrow(metadata.column, "metadata")?, metadata.key));
        Ok(Source {
            table: source.table,
            connector: required(source.connector, "connector")?,
            format: optional(source.format, "format")?,
            physical: required(source.physical, "physical")?,
            metadata: source.metadata.into_iter().map(metadata).collect::<Result<_, Fault>>()?,
            project: list(source.project, "project")?,
            watermark: optional(source.watermark, "watermark")?,
        })
    }
}

impl From<&Watermark> for wire::Watermark {
    fn from(watermark: &Watermark) -> wire::Watermark {
        let Watermark { expr, idle_timeout_ms } = watermark;
        wire::Watermark { expr: Some(expr.into()), idle_timeout_ms: *idle_timeout_ms }
    }
}

impl TryFrom<wire::Watermark> for Watermark {
    type Error = Fault;

    fn try_from(watermark: wire::Watermark) -> Result<Watermark, Fault> {
        Ok(Watermark { expr: required(watermark.expr, "expr")?, idle_timeout_ms: watermark.idle_timeout_ms })
    }
}

impl From<&Calc> for wire::Calc {
    fn from(calc: &Calc) -> wire::Calc {
        let Calc { filter, project } = calc;
        wire::Calc { filter: filter.as_ref().map(Into::into), project: project.iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::Calc> for Calc {
    type Error = Fault;

    fn try_from(calc: wire::Calc) -> Result<Calc, Fault> {
        Ok(Calc { filter: optional(calc.filter, "filter")?, project: list(calc.project, "project")? })
    }
}

impl From<&WindowJoin> for wire::WindowJoin {
    fn from(join: &WindowJoin) -> wire::WindowJoin {
        let WindowJoin { kind, keys, left_window, right_window, filter } = join;
        let key = |&(left, right): &(usize, usize)| wire::JoinKey { left: left as u64, right: right as u64 };
        wire::WindowJoin {
            kind: kind.number(),
            keys: keys.iter().map(key).collect(),
            left_window: Some(pair(*left_window)),
            right_window: Some(pair(*right_window)),
            filter: filter.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<wire::WindowJoin> for WindowJoin {
    type Error = Fault;

    fn try_from(join: wire::WindowJoin) -> Result<WindowJoin, Fault> {
        let key = |key: wire::JoinKey| Ok((narrow(key.left, "keys")?, narrow(key.right, "keys")?));
        Ok(WindowJoin {
            kind: known(join.kind, "kind")?,
            keys: join.keys.into_iter().map(key).collect::<Result<_, Fault>>()?,
            left_window: of_pair(join.left_window, "left_window")?,
            right_window: of_pair(join.right_window, "right_window")?,
            filter: optional(join.filter, "filter")?,
        })
    }
}

impl From<&Predict> for wire::Predict {
    fn from(predict: &Predict) -> wire::Predict {
        let Predict { model, args } = predict;
        wire::Predict { model: Some(model.into()), args: args.iter().map(|arg| *arg as u64).collect() }
    }
}

impl TryFrom<wire::Predict> for Predict {
    type Error = Fault;

    fn try_from(predict: wire::Predict) -> Result<Predict, Fault> {
        Ok(Predict { model: required(predict.model, "model")?, args: columns(predict.args, "args")? })
    }
}

impl Model {
    /// As a submission carries it.
    pub fn encode(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(&wire::Model::from(self))
    }

    pub fn decode(bytes: &[u8]) -> Result<Model, Error> {
        let model: wire::Model =
            prost::Message::decode(bytes).map_err(|e| Error::invalid(format!("not a model's description: {e}")))?;
        model.try_into().map_err(|fault: Fault| Error::invalid(format!("model.{fault}")))
    }
}

impl From<&Model> for wire::Model {
    fn from(model: &Model) -> wire::Model {
        let Model { name, provider, path, digest, inputs, outputs, bindings, batch_rows } = model;
        wire::Model {
            name: name.clone(),
            provider: provider.clone(),
            path: path.clone(),
            digest: digest.clone(),
            inputs: Some(inputs.into()),
            outputs: Some(outputs.into()),
            bindings: bindings.clone(),
            batch_rows: *batch_rows,
        }
    }
}

impl TryFrom<wire::Model> for Model {
    type Error = Fault;

    fn try_from(model: wire::Model) -> Result<Model, Fault> {
        Ok(Model {
            inputs: required(model.inputs, "inputs")?,
            outputs: required(model.outputs, "outputs")?,
            name: model.name,
            provider: model.provider,
            path: model.path,
            digest: model.digest,
            bindings: model.bindings,
            batch_rows: model.batch_rows,
        })
    }
}

impl From<&Sink> for wire::Sink {
    fn from(sink: &Sink) -> wire::Sink {
        let Sink { table, connector, format, changelog, keys } = sink;
        wire::Sink {
            table: table.clone(),
            connector: Some(connector.into()),
            format: format.as_ref().map(Into::into),
            changelog: *changelog,
            keys: keys.iter().map(|key| *key as u64).collect(),
        }
    }
}

impl TryFrom<wire::Sink> for Sink {
    type Error = Fault;

    fn try_from(sink: wire::Sink) -> Result<Sink, Fault> {
        Ok(Sink {
            table: sink.table,
            connector: required(sink.connector, "connector")?,
            format: optional(sink.format, "format")?,
            changelog: sink.changelog,
            keys: columns(sink.keys, "keys")?,
        })
    }
}
