//! `efctl completion bash|zsh|fish|elvish|powershell`.

use super::{Cli, Exit};
use clap::CommandFactory;
use clap_complete::Shell;

#[derive(clap::Args)]
pub struct Args {
    shell: Shell,
}

pub fn run(args: Args) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "efctl", &mut script);
    Exit::printed(&String::from_utf8_lossy(&script))
}
