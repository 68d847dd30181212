//! `efctl rescale JOB`: other parallelisms, by way of a checkpoint.

use super::exit::Exit;
use super::session::Session;
use super::wait::{self, Wait};
use clap::ArgGroup;
use ef_client::remote::ENDED;
use ef_client::show::views;
use ef_proto::wire::generated::control::*;
use std::collections::BTreeMap;
use std::ops::ControlFlow::{Break, Continue};

#[derive(clap::Args)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["parallelism", "operator"])))]
pub struct Args {
    /// Id or name
    job: String,
    /// Parallel subtasks of each operator that is not named
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    parallelism: Option<u32>,
    /// Parallel subtasks of one operator, by id or name; may be given several times
    #[arg(long, value_name = "NAME=N", value_parser = operator)]
    operator: Vec<(String, u32)>,
    /// Show what would change, and change nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
}

/// Names of operators may hold an equals sign.
fn operator(text: &str) -> Result<(String, u32), String> {
    let found = text.rsplit_once('=').and_then(|(name, n)| Some((name.to_string(), n.parse().ok()?)));
    found
        .filter(|(name, n)| !name.is_empty() && (1..=1024).contains(n))
        .ok_or_else(|| format!("`{text}` is not NAME=N with N from 1 to 1024"))
}

pub async fn run(args: Args, session: &mut Session) -> Result<(), Exit> {
    let Args { job, parallelism, operator, dry_run, wait } = args;
    let mut operators = BTreeMap::new();
    for (name, n) in operator {
        if operators.insert(name.clone(), n).is_some() {
            return Err(Exit::Usage(format!("--operator: `{name}` is given twice")));
        }
    }
    let request = RescaleJobRequest { job, parallelism, operators, dry_run };
    let response = session.client.rescale_job(request).await?;
    let RescaleJobResponse { job, operators, restarting, untouched } = &response;
    session.print(&views::rescaled(operators).to_string())?;
    let verb = if dry_run { "would restart" } else { "restart" };
    session.line(format_args!("job {job}: {restarting} subtasks {verb}, {untouched} go on{}", wait::dry(dry_run)))?;
    if wait.is_wanted() { rescaled(&response, wait, session).await } else { Ok(()) }
}

/// Waits until the job runs with its new parallelisms.
async fn rescaled(response: &RescaleJobResponse, wait: Wait, session: &mut Session) -> Result<(), Exit> {
    let id = &response.job;
    let client = session.client.clone();
    let done = client.until(wait.limit(), async |client| {
        let description = client.describe_job(JobRequest { job: id.clone() }).await?;
        let job = description.job.unwrap_or_default();
        let is_so = |wanted: &Rescaled| {
            let mut operators = description.operators.iter();
            operators.any(|operator| operator.id == wanted.id && operator.parallelism == wanted.new_parallelism)
        };
        let runs = job.state == "RUNNING" && response.operators.iter().all(is_so);
        Ok(if runs || ENDED.contains(&job.state.as_str()) { Break(job) } else { Continue(job) })
    });
    let waited = session.unless_interrupted(format!("the rescaling of job {id} goes on"), done).await?;
    let job = wait::reached(waited, wait, |job| format!("job {} is {}", wait::named(job), job.state))?;
    match job.state.as_str() {
        "RUNNING" => session.line(format_args!("job {} rescaled", wait::named(&job))),
        _ => Err(wait::not_as_wanted(&job)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_named_as_the_plan_names_them() {
        assert_eq!(operator("Calc(a = b)=4"), Ok(("Calc(a = b)".into(), 4)));
        for wrong in ["", "=4", "a", "a=", "a=0", "a=1025", "a=b", "a=-1"] {
            assert!(operator(wrong).is_err(), "{wrong}");
        }
    }
}
