//! `efctl submit FILE`: the file is planned here first, so that errors name line and column and models are looked at
//! where their files are; then the coordinator plans it again and runs it.

use super::exit::Exit;
use super::job::{JobArgs, Read};
use super::session::Session;
use super::wait::{self, Wait};
use ef_client::show::views;
use ef_proto::wire::generated::control::{SubmitRequest, SubmitResponse};
use std::collections::BTreeMap;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    job: JobArgs,
    /// The job's name (default: SET 'pipeline.name', or the file's name)
    #[arg(long)]
    name: Option<String>,
    /// Start with the state of this savepoint, or of a checkpoint by its path
    #[arg(long, value_name = "ID|PATH")]
    from_savepoint: Option<String>,
    /// Let state go for which the new job has no operator
    #[arg(long, requires = "from_savepoint")]
    allow_non_restored_state: bool,
    /// Show the plan, and where a savepoint's state would go, and run nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    wait: Wait,
}

pub async fn run(args: Args, session: &mut Session) -> Result<(), Exit> {
    let Read { sql, name } = args.job.read().map_err(Exit::Usage)?;
    let Planned { sql, name, models } = plan(sql, name, &args)?;
    let request = SubmitRequest {
        sql,
        name,
        vars: args.job.vars(),
        parallelism: args.job.parallelism,
        from_savepoint: args.from_savepoint.as_deref().map_or_else(String::new, absolute),
        allow_non_restored_state: args.allow_non_restored_state,
        dry_run: args.dry_run,
        models,
    };
    let response = session.client.submit(request).await?;
    if args.dry_run {
        return session.print(&dry_run(&response, args.from_savepoint.as_deref()));
    }
    session.line(format_args!("job {} ({}) submitted", response.job, response.name))?;
    if !args.wait.is_wanted() {
        return Ok(());
    }
    // All of them: the job is new.
    let events = session.client.watch_events(&response.job, true);
    let job = wait::job_end(session, &response.job, args.wait, events).await?;
    match job.state.as_str() {
        "FINISHED" => session.line(format_args!("job {} finished", wait::named(&job))),
        _ => Err(wait::not_as_wanted(&job)),
    }
}

struct Planned {
    sql: String,
    name: String,
    /// Path → plan.v1.Model; and what `planner::descriptor_key` says → a descriptor.
    models: BTreeMap<String, Vec<u8>>,
}

#[cfg(feature = "embedded")]
fn plan(mut sql: String, file: String, args: &Args) -> Result<Planned, Exit> {
    use prost::Message;

    let given = args.name.clone().unwrap_or(file);
    let planned = ef_client::embedded::plan_with_models(&sql, &args.job.vars(), &given, args.job.parallelism);
    let (plan, files) = planned.map_err(Exit::Usage)?;
    let mut name = plan.name;
    if args.name.is_some() && name != given {
        // The command line is above the file. The last SET counts; behind all else it moves no line.
        sql.push_str(&format!("\n;\nSET 'pipeline.name' = '{}';\n", given.replace('\'', "''")));
        name = given;
    }
    let mut models = BTreeMap::new();
    for (path, model) in files.models {
        let message = ef_proto::wire::generated::plan::Model::from(&model).encode_to_vec();
        // A submission has one description of each file.
        if models.insert(path.clone(), message.clone()).is_some_and(|other| other != message) {
            return Err(Exit::Usage(format!(
                "two models declare different columns or options for the file `{path}`; give one of them a copy of the file"
            )));
        }
    }
    models.extend(files.descriptors.into_iter().map(|(key, descriptor)| (key, descriptor.into_bytes())));
    Ok(Planned { sql, name, models })
}

/// Without a planner of its own `efctl` leaves all checks to the coordinator, and can submit no models.
#[cfg(not(feature = "embedded"))]
fn plan(sql: String, file: String, args: &Args) -> Result<Planned, Exit> {
    Ok(Planned { sql, name: args.name.clone().unwrap_or(file), models: BTreeMap::new() })
}

/// A path as the coordinator must see it: an id (which has no slash) or a URL as it is, a path from the root on.
pub fn absolute(place: &str) -> String {
    if !place.contains('/') || place.contains("://") {
        return place.to_string();
    }
    std::path::absolute(place).map_or_else(|_| place.to_string(), |path| path.display().to_string())
}

/// As [`absolute`], for what can only be a place.
pub fn absolute_directory(place: &str) -> String {
    match place {
        "" => String::new(),
        place if place.contains('/') => absolute(place),
        place => absolute(&format!("./{place}")),
    }
}

fn dry_run(response: &SubmitResponse, savepoint: Option<&str>) -> String {
    let mut text = format!("{}\n", response.plan.trim_end());
    if let Some(savepoint) = savepoint {
        text.push_str(&format!("\nState of {savepoint}:\n{}", views::mapping(&response.mapping)));
        let count = |is: fn(&&ef_proto::wire::generated::control::StateMapping) -> bool| {
            response.mapping.iter().filter(is).count()
        };
        let left = count(|operator| !operator.starts_empty && operator.new_parallelism == 0);
        let empty = count(|operator| operator.starts_empty);
        let restored = response.mapping.len() - left - empty;
        text.push_str(&format!("{restored} restored, {left} left behind, {empty} start empty\n"));
    }
    text.push_str(&format!("job {} not submitted (dry run)\n", response.name));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_reach_the_coordinator_without_the_directory_they_were_typed_in() {
        let here = std::env::current_dir().expect("a directory");
        let below = |path: &str| here.join(path).display().to_string();
        let cases = [
            ("sp-1", "sp-1".to_string(), below("sp-1")),
            ("./sp-1", below("sp-1"), below("sp-1")),
            ("a/b", below("a/b"), below("a/b")),
            ("/a/b", "/a/b".into(), "/a/b".into()),
            ("s3://bucket/a", "s3://bucket/a".into(), "s3://bucket/a".into()),
            ("", String::new(), String::new()),
        ];
        for (given, either, directory) in cases {
            assert_eq!((absolute(given), absolute_directory(given)), (either, directory), "{given}");
        }
    }
}
