//! `efctl demo`: simulated pumps with planted faults, cleaning, 5 s windows, a tree model, alerts; then how many of the
//! planted faults were found.

use super::Exit;
use super::live::Live;
use super::run::{finish, start_log};
use ef_client::embedded::{self, Resume, RunOptions};
use ef_client::output::tell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::Path;

const SQL: &str = include_str!("../../../demo/pumps.sql");
const MODEL: &[u8] = include_bytes!("../../../demo/pumps.onnx");

#[derive(clap::Args)]
pub struct Args {
    /// Readings to simulate
    #[arg(long, default_value_t = 400_000)]
    rows: u64,
    /// Readings a second; 0 for as fast as possible
    #[arg(long, default_value_t = 20_000)]
    rows_per_second: u64,
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    parallelism: u32,
    /// Print the job's SQL and leave
    #[arg(long)]
    print_sql: bool,
    /// Print the job's operator graph and leave
    #[arg(long)]
    explain: bool,
}

pub fn run(args: Args) -> Exit {
    if args.print_sql {
        print!("{SQL}");
        return Exit::Done;
    }
    let folder = match tempfile::Builder::new().prefix("efctl-demo-").tempdir() {
        Ok(folder) => folder,
        Err(error) => return Exit::Failed(format!("cannot make a temporary directory: {error}")),
    };
    let (model, verdicts) = (folder.path().join("pumps.onnx"), folder.path().join("verdicts"));
    if let Err(error) = std::fs::write(&model, MODEL) {
        return Exit::Failed(format!("cannot write {}: {error}", model.display()));
    }
    // A rate that no machine reaches stands for none.
    let rate = if args.rows_per_second == 0 { 1_000_000_000 } else { args.rows_per_second };
    let vars: BTreeMap<String, String> = [
        ("rows", args.rows.to_string()),
        ("rows_per_second", rate.to_string()),
        ("model", model.display().to_string()),
        ("verdicts", verdicts.display().to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_string(), value))
    .collect();
    let plan = match embedded::plan(SQL, &vars, "demo", Some(args.parallelism)) {
        Ok(plan) => plan,
        Err(message) => return Exit::Usage(message),
    };
    if args.explain {
        return Exit::printed(&format!("{}\n", ef_proto::plan::text(&plan).trim_end()));
    }
    tell(format_args!("{} readings of simulated pumps; alerts as the model raises them:", args.rows));
    start_log();
    let options = RunOptions {
        plan,
        state_dir: None,
        resume: Resume::Fresh,
        memory_bytes: None,
        secrets_dir: None,
        commit_early: false,
    };
    let live = std::io::stderr().is_terminal();
    let ended = embedded::run(options, &mut |view| {
        if live {
            Live::show(view)
        }
    });
    if live {
        Live::clear();
    }
    let exit = finish(ended, None, false);
    if matches!(exit, Exit::Done) {
        match count(&verdicts) {
            Ok(counts) => return Exit::printed(&format!("{counts}\n")),
            Err(message) => return Exit::Failed(message),
        }
    }
    exit
}

/// Planted episodes, those with an alert, and alerts where nothing was planted.
fn count(verdicts: &Path) -> Result<String, String> {
    let (mut planted, mut found) = (BTreeSet::new(), BTreeSet::new());
    let (mut windows, mut false_alarms) = (0u64, 0u64);
    let files = std::fs::read_dir(verdicts).map_err(|e| format!("cannot read {}: {e}", verdicts.display()))?;
    for file in files {
        let path = file.map_err(|e| format!("cannot read {}: {e}", verdicts.display()))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).map_err(|e| format!("{}: {e}", path.display()))?;
            let (pump, episode) = (row["pump"].to_string(), row["episode"].as_i64().unwrap_or(0));
            let alarm = row["label"].as_i64() == Some(1);
            windows += 1;
            if episode > 0 {
                planted.insert((pump.clone(), episode));
                if alarm {
                    found.insert((pump, episode));
                }
            } else if alarm {
                false_alarms += 1;
            }
        }
    }
    Ok(format!(
        "{} of {} planted faults were found; {false_alarms} false alarms in {windows} windows",
        found.len(),
        planted.len()
    ))
}
