//! The plan as a whole.
//!
//! A reader never runs less than the writer meant. Protobuf would pass over fields that it does not know; here a
//! plan is accepted only if it reads back to the very bytes that were sent, so a newer coordinator's plan runs on an
//! older worker exactly if it uses nothing new. The version is for changes of what the old fields mean.

use super::enumeration::{Enumeration, enumeration, known};
use super::fault::{Fault, chosen, columns, list, narrow, required};
use super::frame::Frame;
use super::generated::plan as wire;
use super::generated::plan::exchange;
use crate::error::Error;
use crate::ids::OperatorId;
use crate::plan::{Edge, Exchange, Output, Plan};

pub(super) const FRAME: Frame = Frame { what: "plan", magic: "EFPL", version: 1 };

/// Plans are a few kilobytes; one with thousands of columns in each of its operators is a few megabytes.
pub const BYTES_MAX: usize = 16 << 20;

impl Plan {
    pub fn encode(&self) -> Vec<u8> {
        FRAME.seal(&wire::Plan::from(self))
    }

    /// A valid plan, or what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Plan, Error> {
        if bytes.len() > BYTES_MAX {
            return Err(Error::invalid(format!("a plan of {} bytes; at most {BYTES_MAX} are read", bytes.len())));
        }
        let message: wire::Plan = FRAME.open(bytes).map_err(Error::invalid)?;
        let plan = Plan::try_from(message).map_err(|fault| Error::invalid(format!("plan.{fault}")))?;
        if plan.encode() != bytes {
            return Err(Error::invalid(
                "the plan holds what this version of EdgeFlow does not know; a newer version has written it",
            ));
        }
        plan.validate().map_err(|e| Error::invalid(format!("the plan is not valid: {e}")))?;
        Ok(plan)
    }
}

impl From<&Plan> for wire::Plan {
    fn from(plan: &Plan) -> wire::Plan {
        let Plan { name, operators, edges, max_parallelism, config } = plan;
        wire::Plan {
            name: name.clone(),
            operators: operators.iter().map(Into::into).collect(),
            edges: edges.iter().map(Into::into).collect(),
            max_parallelism: (*max_parallelism).into(),
            config: config.clone(),
        }
    }
}

impl TryFrom<wire::Plan> for Plan {
    type Error = Fault;

    fn try_from(plan: wire::Plan) -> Result<Plan, Fault> {
        Ok(Plan {
            name: plan.name,
            operators: list(plan.operators, "operators")?,
            edges: list(plan.edges, "edges")?,
            max_parallelism: narrow(plan.max_parallelism, "max_parallelism")?,
            config: plan.config,
        })
    }
}

enumeration!(Output: Main, Late, Errors);

impl From<&Edge> for wire::Edge {
    fn from(edge: &Edge) -> wire::Edge {
        let Edge { from, output, to, input, exchange, changelog } = edge;
        wire::Edge {
            from: from.0,
            output: output.number(),
            to: to.0,
            input: *input as u64,
            exchange: Some(exchange.into()),
            changelog: *changelog,
        }
    }
}

impl TryFrom<wire::Edge> for Edge {
    type Error = Fault;

    fn try_from(edge: wire::Edge) -> Result<Edge, Fault> {
        Ok(Edge {
            from: OperatorId(edge.from),
            output: known(edge.output, "output")?,
            to: OperatorId(edge.to),
            input: narrow(edge.input, "input")?,
            exchange: required(edge.exchange, "exchange")?,
            changelog: edge.changelog,
        })
    }
}

impl From<&Exchange> for wire::Exchange {
    fn from(exchange: &Exchange) -> wire::Exchange {
        use exchange::Kind;
        let kind = match exchange {
            Exchange::Forward => Kind::Forward(wire::Nothing {}),
            Exchange::Hash(columns) => {
                Kind::Hash(wire::Columns { columns: columns.iter().map(|column| *column as u64).collect() })
            }
            Exchange::Rebalance => Kind::Rebalance(wire::Nothing {}),
            Exchange::Gather => Kind::Gather(wire::Nothing {}),
        };
        wire::Exchange { kind: Some(kind) }
    }
}

impl TryFrom<wire::Exchange> for Exchange {
    type Error = Fault;

    fn try_from(exchange: wire::Exchange) -> Result<Exchange, Fault> {
        use exchange::Kind;
        Ok(match chosen(exchange.kind, "kind", "forward, hash, rebalance, gather")? {
            Kind::Forward(_) => Exchange::Forward,
            Kind::Hash(hash) => Exchange::Hash(columns(hash.columns, "hash.columns")?),
            Kind::Rebalance(_) => Exchange::Rebalance,
            Kind::Gather(_) => Exchange::Gather,
        })
    }
}
