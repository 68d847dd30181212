//! `efctl explain FILE`: the operator graph as text, JSON or dot.

use super::Exit;
use super::job::{JobArgs, Read};
use clap::ValueEnum;
use ef_client::embedded;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    job: JobArgs,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
    Dot,
}

pub fn run(args: Args) -> Exit {
    let Read { sql, name } = match args.job.read() {
        Ok(read) => read,
        Err(message) => return Exit::Usage(message),
    };
    let plan = match embedded::plan(&sql, &args.job.vars(), &name, args.job.parallelism) {
        Ok(plan) => plan,
        Err(message) => return Exit::Usage(message),
    };
    let text = match args.format {
        Format::Text => ef_proto::plan::text(&plan),
        Format::Dot => ef_proto::plan::dot(&plan),
        Format::Json => match serde_json::to_string_pretty(&plan) {
            Ok(json) => json,
            Err(error) => return Exit::Failed(format!("cannot write the plan as JSON: {error}")),
        },
    };
    Exit::printed(&format!("{}\n", text.trim_end()))
}
