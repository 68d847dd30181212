//! Reports and orders of the control stream.

use super::enumeration::{Enumeration, enumeration, known};
use super::fault::{Fault, chosen, list, required};
use super::generated::agent as wire;
use super::generated::agent::{deployment_command, deployment_event, order, report};
use super::generated::plan as plan_wire;
use crate::error::{Code, Error};
use crate::ids::{DeploymentId, Epoch, Incarnation, JobId, OperatorId, SubtaskId, WorkerId};
use crate::place::Tier;
use crate::rpc::*;

enumeration!(Code: Invalid, NotFound, Conflict, NotLeader, Unavailable, Corrupt, Internal);
enumeration!(Phase: Starting, Running, Leaving);

impl From<&DeploymentId> for wire::Deployment {
    fn from(id: &DeploymentId) -> wire::Deployment {
        wire::Deployment { job: id.job.0.clone(), region: id.region, incarnation: id.incarnation.0 }
    }
}

impl TryFrom<wire::Deployment> for DeploymentId {
    type Error = Fault;

    fn try_from(id: wire::Deployment) -> Result<DeploymentId, Fault> {
        Ok(DeploymentId { job: JobId(id.job), region: id.region, incarnation: Incarnation(id.incarnation) })
    }
}

impl From<SubtaskId> for wire::Subtask {
    fn from(subtask: SubtaskId) -> wire::Subtask {
        wire::Subtask { operator: subtask.operator.0, index: subtask.index }
    }
}

impl TryFrom<wire::Subtask> for SubtaskId {
    type Error = Fault;

    fn try_from(subtask: wire::Subtask) -> Result<SubtaskId, Fault> {
        Ok(SubtaskId { operator: OperatorId(subtask.operator), index: subtask.index })
    }
}

impl From<&Error> for wire::Fault {
    fn from(error: &Error) -> wire::Fault {
        wire::Fault { code: error.code.number(), message: error.message.clone() }
    }
}

impl TryFrom<wire::Fault> for Error {
    type Error = Fault;

    fn try_from(fault: wire::Fault) -> Result<Error, Fault> {
        Ok(Error { code: known(fault.code, "code")?, message: fault.message })
    }
}

impl From<&Report> for wire::Report {
    fn from(report: &Report) -> wire::Report {
        let body = match report {
            Report::Hello(hello) => report::Body::Hello(hello.into()),
            Report::Heartbeat(load) => report::Body::Heartbeat(load.into()),
            Report::Event { deployment, event } => report::Body::Event(wire::DeploymentEvent {
                deployment: Some(deployment.into()),
                event: Some(event.into()),
            }),
            Report::Log { lines, lost } => {
                report::Body::Log(wire::Log { lines: lines.iter().map(Into::into).collect(), lost: *lost })
            }
        };
        wire::Report { body: Some(body) }
    }
}

impl TryFrom<wire::Report> for Report {
    type Error = Fault;

    fn try_from(report: wire::Report) -> Result<Report, Fault> {
        Ok(match chosen(report.body, "body", "hello, heartbeat, event, log")? {
            report::Body::Hello(hello) => {
                Report::Hello(hello.try_into().map_err(|fault: Fault| fault.within("hello"))?)
            }
            report::Body::Heartbeat(load) => {
                Report::Heartbeat(load.try_into().map_err(|fault: Fault| fault.within("heartbeat"))?)
            }
            report::Body::Event(event) => Report::Event {
                deployment: required(event.deployment, "event.deployment")?,
                event: Event::try_from(chosen(
                    event.event,
                    "event.event",
                    "running, acked, declined, committed, ended, failed, stopped",
                )?)
                .map_err(|fault| fault.within("event"))?,
            },
            report::Body::Log(log) => Report::Log { lines: list(log.lines, "log.lines")?, lost: log.lost },
        })
    }
}

impl From<&Hello> for wire::Hello {
    fn from(hello: &Hello) -> wire::Hello {
        let held = |held: &Held| wire::Held { deployment: Some((&held.deployment).into()), phase: held.phase.number() };
        wire::Hello {
            worker: hello.worker.0.clone(),
            boot: hello.boot,
            version: hello.version.clone(),
            tier: tier_number(hello.tier),
            site: hello.site.clone(),
            labels: hello.labels.clone(),
            slots: hello.slots,
            memory_bytes: hello.memory_bytes,
            data_address: hello.data_address.clone(),
            term: hello.term,
            deployments: hello.deployments.iter().map(held).collect(),
        }
    }
}

impl TryFrom<wire::Hello> for Hello {
    type Error = Fault;

    fn try_from(hello: wire::Hello) -> Result<Hello, Fault> {
        Ok(Hello {
            worker: WorkerId(hello.worker),
            boot: hello.boot,
            version: hello.version,
            tier: known(hello.tier, "tier")?,
            site: hello.site,
            labels: hello.labels,
            slots: hello.slots,
            memory_bytes: hello.memory_bytes,
            data_address: hello.data_address,
            term: hello.term,
            deployments: list(hello.deployments, "deployments")?,
        })
    }
}

fn tier_number(tier: Tier) -> i32 {
    let tier = match tier {
        Tier::Device => plan_wire::Tier::Device,
        Tier::Gateway => plan_wire::Tier::Gateway,
        Tier::Regional => plan_wire::Tier::Regional,
        Tier::Cloud => plan_wire::Tier::Cloud,
    };
    tier.into()
}

impl TryFrom<wire::Held> for Held {
    type Error = Fault;

    fn try_from(held: wire::Held) -> Result<Held, Fault> {
        Ok(Held { deployment: required(held.deployment, "deployment")?, phase: known(held.phase, "phase")? })
    }
}

impl From<&Load> for wire::Load {
    fn from(load: &Load) -> wire::Load {
        wire::Load {
            cpu_millis: load.cpu_millis,
            resident_bytes: load.resident_bytes,
            subtasks: load.subtasks.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Load> for Load {
    type Error = Fault;

    fn try_from(load: wire::Load) -> Result<Load, Fault> {
        Ok(Load {
            cpu_millis: load.cpu_millis,
            resident_bytes: load.resident_bytes,
            subtasks: list(load.subtasks, "subtasks")?,
        })
    }
}

impl From<&SubtaskLoad> for wire::SubtaskLoad {
    fn from(load: &SubtaskLoad) -> wire::SubtaskLoad {
        wire::SubtaskLoad {
            deployment: Some((&load.deployment).into()),
            subtask: Some(load.subtask.into()),
            rows_in: load.rows_in,
            rows_out: load.rows_out,
            bytes: load.bytes,
            late_rows: load.late_rows,
            dropped_rows: load.dropped_rows,
            error_rows: load.error_rows,
            watermark_ms: load.watermark_ms,
            memory_bytes: load.memory_bytes,
        }
    }
}

impl TryFrom<wire::SubtaskLoad> for SubtaskLoad {
    type Error = Fault;

    fn try_from(load: wire::SubtaskLoad) -> Result<SubtaskLoad, Fault> {
        Ok(SubtaskLoad {
            deployment: required(load.deployment, "deployment")?,
            subtask: required(load.subtask, "subtask")?,
            rows_in: load.rows_in,
            rows_out: load.rows_out,
            bytes: load.bytes,
            late_rows: load.late_rows,
            dropped_rows: load.dropped_rows,
            error_rows: load.error_rows,
            watermark_ms: load.watermark_ms,
            memory_bytes: load.memory_bytes,
        })
    }
}

impl From<&LogLine> for wire::LogLine {
    fn from(line: &LogLine) -> wire::LogLine {
        wire::LogLine {
            at_ms: line.at_ms,
            level: line.level.clone(),
            job: line.job.clone().unwrap_or_default(),
            message: line.message.clone(),
        }
    }
}

impl TryFrom<wire::LogLine> for LogLine {
    type Error = Fault;

    fn try_from(line: wire::LogLine) -> Result<LogLine, Fault> {
        let job = Some(line.job).filter(|job| !job.is_empty());
        Ok(LogLine { at_ms: line.at_ms, level: line.level, job, message: line.message })
    }
}

impl From<&Event> for deployment_event::Event {
    fn from(event: &Event) -> deployment_event::Event {
        use deployment_event::Event as Wire;
        match event {
            Event::Running => Wire::Running(wire::Nothing {}),
            Event::Acked { epoch, subtask, state } => {
                Wire::Acked(wire::Acked { epoch: epoch.0, subtask: Some((*subtask).into()), state: Some(state.into()) })
            }
            Event::Declined { epoch, subtask, reason } => Wire::Declined(wire::Declined {
                epoch: epoch.0,
                subtask: Some((*subtask).into()),
                reason: reason.clone(),
            }),
            Event::Committed { epoch, subtask } => {
                Wire::Committed(wire::EpochOf { epoch: epoch.0, subtask: Some((*subtask).into()) })
            }
            Event::Ended { subtask } => Wire::Ended((*subtask).into()),
            Event::Failed { operator, error } => {
                Wire::Failed(wire::Failed { operator: operator.0, error: Some(error.into()) })
            }
            Event::Stopped => Wire::Stopped(wire::Nothing {}),
        }
    }
}

impl TryFrom<deployment_event::Event> for Event {
    type Error = Fault;

    fn try_from(event: deployment_event::Event) -> Result<Event, Fault> {
        use deployment_event::Event as Wire;
        Ok(match event {
            Wire::Running(_) => Event::Running,
            Wire::Acked(acked) => Event::Acked {
                epoch: Epoch(acked.epoch),
                subtask: required(acked.subtask, "acked.subtask")?,
                state: required(acked.state, "acked.state")?,
            },
            Wire::Declined(declined) => Event::Declined {
                epoch: Epoch(declined.epoch),
                subtask: required(declined.subtask, "declined.subtask")?,
                reason: declined.reason,
            },
            Wire::Committed(committed) => Event::Committed {
                epoch: Epoch(committed.epoch),
                subtask: required(committed.subtask, "committed.subtask")?,
            },
            Wire::Ended(subtask) => Event::Ended { subtask: subtask.try_into()? },
            Wire::Failed(failed) => {
                Event::Failed { operator: OperatorId(failed.operator), error: required(failed.error, "failed.error")? }
            }
            Wire::Stopped(_) => Event::Stopped,
        })
    }
}

impl From<&Order> for wire::Order {
    fn from(order: &Order) -> wire::Order {
        let body = match &order.body {
            OrderBody::Welcome { heartbeat_interval_ms, heartbeat_timeout_ms } => order::Body::Welcome(wire::Welcome {
                heartbeat_interval_ms: *heartbeat_interval_ms,
                heartbeat_timeout_ms: *heartbeat_timeout_ms,
            }),
            OrderBody::Refused(error) => order::Body::Refused(error.into()),
            OrderBody::Command { deployment, command } => order::Body::Command(wire::DeploymentCommand {
                deployment: Some(deployment.into()),
                command: Some(command.into()),
            }),
        };
        wire::Order { term: order.term, body: Some(body) }
    }
}

impl TryFrom<wire::Order> for Order {
    type Error = Fault;

    fn try_from(order: wire::Order) -> Result<Order, Fault> {
        let body = match chosen(order.body, "body", "welcome, refused, command")? {
            order::Body::Welcome(welcome) => OrderBody::Welcome {
                heartbeat_interval_ms: welcome.heartbeat_interval_ms,
                heartbeat_timeout_ms: welcome.heartbeat_timeout_ms,
            },
            order::Body::Refused(fault) => {
                OrderBody::Refused(fault.try_into().map_err(|fault: Fault| fault.within("refused"))?)
            }
            order::Body::Command(command) => OrderBody::Command {
                deployment: required(command.deployment, "command.deployment")?,
                command: Command::try_from(chosen(
                    command.command,
                    "command.command",
                    "deploy, trigger, complete, abort, stop, cancel",
                )?)
                .map_err(|fault| fault.within("command"))?,
            },
        };
        Ok(Order { term: order.term, body })
    }
}

impl From<&Command> for deployment_command::Command {
    fn from(command: &Command) -> deployment_command::Command {
        use deployment_command::Command as Wire;
        match command {
            Command::Deploy(deploy) => Wire::Deploy(deploy.as_ref().into()),
            Command::Trigger { epoch } => Wire::Trigger(epoch.0),
            Command::Complete { epoch } => Wire::Complete(epoch.0),
            Command::Abort { epoch } => Wire::Abort(epoch.0),
            Command::Stop { drain } => Wire::Stop(wire::Stop { drain: *drain }),
            Command::Cancel => Wire::Cancel(wire::Nothing {}),
        }
    }
}

impl TryFrom<deployment_command::Command> for Command {
    type Error = Fault;

    fn try_from(command: deployment_command::Command) -> Result<Command, Fault> {
        use deployment_command::Command as Wire;
        Ok(match command {
            Wire::Deploy(deploy) => {
                Command::Deploy(Box::new(deploy.try_into().map_err(|fault: Fault| fault.within("deploy"))?))
            }
            Wire::Trigger(epoch) => Command::Trigger { epoch: Epoch(epoch) },
            Wire::Complete(epoch) => Command::Complete { epoch: Epoch(epoch) },
            Wire::Abort(epoch) => Command::Abort { epoch: Epoch(epoch) },
            Wire::Stop(stop) => Command::Stop { drain: stop.drain },
            Wire::Cancel(_) => Command::Cancel,
        })
    }
}

impl From<&Deploy> for wire::Deploy {
    fn from(deploy: &Deploy) -> wire::Deploy {
        wire::Deploy {
            plan: deploy.plan.clone(),
            placement: Some((&deploy.placement).into()),
            restore: deploy.restore.as_ref().map(Into::into),
            state: deploy.state.clone(),
            slots: deploy.slots,
            stop: deploy.stop.map(|drain| wire::Stop { drain }),
        }
    }
}

impl TryFrom<wire::Deploy> for Deploy {
    type Error = Fault;

    fn try_from(deploy: wire::Deploy) -> Result<Deploy, Fault> {
        Ok(Deploy {
            plan: deploy.plan,
            placement: required(deploy.placement, "placement")?,
            restore: super::fault::optional(deploy.restore, "restore")?,
            state: deploy.state,
            slots: deploy.slots,
            stop: deploy.stop.map(|stop| stop.drain),
        })
    }
}

impl From<&Placement> for wire::Placement {
    fn from(placement: &Placement) -> wire::Placement {
        let tasks = placement.tasks.iter();
        wire::Placement {
            here: placement.here.0.clone(),
            peers: placement.peers.iter().map(|(worker, address)| (worker.0.clone(), address.clone())).collect(),
            tasks: tasks
                .map(|(task, worker)| wire::Placed { task: Some((*task).into()), worker: worker.0.clone() })
                .collect(),
        }
    }
}

impl TryFrom<wire::Placement> for Placement {
    type Error = Fault;

    fn try_from(placement: wire::Placement) -> Result<Placement, Fault> {
        let placed = |placed: wire::Placed| Ok((required(placed.task, "task")?, WorkerId(placed.worker)));
        let tasks: Result<_, Fault> = placement.tasks.into_iter().map(placed).collect();
        Ok(Placement {
            here: WorkerId(placement.here),
            peers: placement.peers.into_iter().map(|(worker, address)| (WorkerId(worker), address)).collect(),
            tasks: tasks.map_err(|fault| fault.within("tasks"))?,
        })
    }
}
