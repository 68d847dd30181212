//! Windows, their clock, and the aggregates in them.

use super::enumeration::{Enumeration, enumeration, known};
use super::fault::{Fault, chosen, columns, list, narrow, narrow_option, required};
use super::generated::plan as wire;
use super::generated::plan::{time, window};
use crate::plan::{Aggregate, AggregateFunction, GroupAggregate, Phase, Time, Window, WindowAggregate, WindowAssign};

enumeration!(Phase: Single, Local, Global);
enumeration!(AggregateFunction:
    Count, Sum, Avg, Min, Max, StddevPop, StddevSamp, VarPop, VarSamp, FirstValue, LastValue,
);

impl From<&Window> for wire::Window {
    fn from(window: &Window) -> wire::Window {
        use window::Kind;
        let kind = match *window {
            Window::Tumble { size_ms, offset_ms } => Kind::Tumble(wire::Tumble { size_ms, offset_ms }),
            Window::Hop { size_ms, slide_ms, offset_ms } => Kind::Hop(wire::Hop { size_ms, slide_ms, offset_ms }),
            Window::Cumulate { max_ms, step_ms, offset_ms } => {
                Kind::Cumulate(wire::Cumulate { max_ms, step_ms, offset_ms })
            }
            Window::Session { gap_ms } => Kind::Session(wire::Session { gap_ms }),
            Window::Attached { start, end } => Kind::Attached(pair((start, end))),
        };
        wire::Window { kind: Some(kind) }
    }
}

impl TryFrom<wire::Window> for Window {
    type Error = Fault;

    fn try_from(window: wire::Window) -> Result<Window, Fault> {
        use window::Kind;
        Ok(match chosen(window.kind, "kind", "tumble, hop, cumulate, session, attached")? {
            Kind::Tumble(wire::Tumble { size_ms, offset_ms }) => Window::Tumble { size_ms, offset_ms },
            Kind::Hop(wire::Hop { size_ms, slide_ms, offset_ms }) => Window::Hop { size_ms, slide_ms, offset_ms },
            Kind::Cumulate(wire::Cumulate { max_ms, step_ms, offset_ms }) => {
                Window::Cumulate { max_ms, step_ms, offset_ms }
            }
            Kind::Session(wire::Session { gap_ms }) => Window::Session { gap_ms },
            Kind::Attached(columns) => {
                let (start, end) = of_pair(Some(columns), "attached")?;
                Window::Attached { start, end }
            }
        })
    }
}

/// (start column, end column) of a window.
pub(super) fn pair((start, end): (usize, usize)) -> wire::WindowColumns {
    wire::WindowColumns { start: start as u64, end: end as u64 }
}

pub(super) fn of_pair(pair: Option<wire::WindowColumns>, field: &str) -> Result<(usize, usize), Fault> {
    let pair = pair.ok_or_else(|| Fault::new(field, "is missing"))?;
    let inside = |fault: Fault| fault.within(field);
    Ok((narrow(pair.start, "start").map_err(inside)?, narrow(pair.end, "end").map_err(inside)?))
}

impl From<&Time> for wire::Time {
    fn from(time: &Time) -> wire::Time {
        use time::Kind;
        let kind = match time {
            Time::Event { column } => Kind::EventColumn(*column as u64),
            Time::Processing => Kind::Processing(wire::Nothing {}),
        };
        wire::Time { kind: Some(kind) }
    }
}

impl TryFrom<wire::Time> for Time {
    type Error = Fault;

    fn try_from(time: wire::Time) -> Result<Time, Fault> {
        use time::Kind;
        Ok(match chosen(time.kind, "kind", "event_column, processing")? {
            Kind::EventColumn(column) => Time::Event { column: narrow(column, "event_column")? },
            Kind::Processing(_) => Time::Processing,
        })
    }
}

impl From<&WindowAssign> for wire::WindowAssign {
    fn from(assign: &WindowAssign) -> wire::WindowAssign {
        let WindowAssign { window, time } = assign;
        wire::WindowAssign { window: Some(window.into()), time: Some(time.into()) }
    }
}

impl TryFrom<wire::WindowAssign> for WindowAssign {
    type Error = Fault;

    fn try_from(assign: wire::WindowAssign) -> Result<WindowAssign, Fault> {
        Ok(WindowAssign { window: required(assign.window, "window")?, time: required(assign.time, "time")? })
    }
}

impl From<&WindowAggregate> for wire::WindowAggregate {
    fn from(aggregate: &WindowAggregate) -> wire::WindowAggregate {
        let WindowAggregate { window, time, ltz, keys, aggregates, phase, late_output } = aggregate;
        wire::WindowAggregate {
            window: Some(window.into()),
            time: Some(time.into()),
            ltz: *ltz,
            keys: keys.iter().map(|key| *key as u64).collect(),
            aggregates: aggregates.iter().map(Into::into).collect(),
            phase: phase.number(),
            late_output: *late_output,
        }
    }
}

impl TryFrom<wire::WindowAggregate> for WindowAggregate {
    type Error = Fault;

    fn try_from(aggregate: wire::WindowAggregate) -> Result<WindowAggregate, Fault> {
        Ok(WindowAggregate {
            window: required(aggregate.window, "window")?,
            time: required(aggregate.time, "time")?,
            ltz: aggregate.ltz,
            keys: columns(aggregate.keys, "keys")?,
            aggregates: list(aggregate.aggregates, "aggregates")?,
            phase: known(aggregate.phase, "phase")?,
            late_output: aggregate.late_output,
        })
    }
}

impl From<&GroupAggregate> for wire::GroupAggregate {
    fn from(aggregate: &GroupAggregate) -> wire::GroupAggregate {
        let GroupAggregate { keys, aggregates, retracting, ttl_ms } = aggregate;
        wire::GroupAggregate {
            keys: keys.iter().map(|key| *key as u64).collect(),
            aggregates: aggregates.iter().map(Into::into).collect(),
            retracting: *retracting,
            ttl_ms: *ttl_ms,
        }
    }
}

impl TryFrom<wire::GroupAggregate> for GroupAggregate {
    type Error = Fault;

    fn try_from(aggregate: wire::GroupAggregate) -> Result<GroupAggregate, Fault> {
        Ok(GroupAggregate {
            keys: columns(aggregate.keys, "keys")?,
            aggregates: list(aggregate.aggregates, "aggregates")?,
            retracting: aggregate.retracting,
            ttl_ms: aggregate.ttl_ms,
        })
    }
}

impl From<&Aggregate> for wire::Aggregate {
    fn from(aggregate: &Aggregate) -> wire::Aggregate {
        let Aggregate { function, arg, arg_ty, filter, distinct, ty } = aggregate;
        wire::Aggregate {
            function: function.number(),
            arg: arg.map(|column| column as u64),
            arg_type: Some(arg_ty.into()),
            filter: filter.map(|column| column as u64),
            distinct: *distinct,
            r#type: Some(ty.into()),
        }
    }
}

impl TryFrom<wire::Aggregate> for Aggregate {
    type Error = Fault;

    fn try_from(aggregate: wire::Aggregate) -> Result<Aggregate, Fault> {
        Ok(Aggregate {
            function: known(aggregate.function, "function")?,
            arg: narrow_option(aggregate.arg, "arg")?,
            arg_ty: required(aggregate.arg_type, "arg_type")?,
            filter: narrow_option(aggregate.filter, "filter")?,
            distinct: aggregate.distinct,
            ty: required(aggregate.r#type, "type")?,
        })
    }
}
