//! `efctl events JOB [-f]`: one line for each event, oldest first.

use super::exit::Exit;
use super::session::Session;
use ef_client::show::describe;

#[derive(clap::Args)]
pub struct Args {
    /// Id or name
    job: String,
    /// Go on with the events to come, until the job has ended
    #[arg(short, long)]
    follow: bool,
}

pub async fn run(args: Args, session: &mut Session) -> Result<(), Exit> {
    let mut events = session.client.watch_events(&args.job, args.follow);
    while let Some(event) = events.next().await? {
        session.line(describe::event(&event))?;
    }
    Ok(())
}
