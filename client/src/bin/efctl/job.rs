//! What names a job that is still a file: its text, its variables, its parallelism.

use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct JobArgs {
    /// SQL file; `-` reads standard input
    file: PathBuf,
    /// Replaces ${KEY} in the file; may be given several times
    #[arg(short = 'D', value_name = "KEY=VALUE", value_parser = key_value)]
    define: Vec<(String, String)>,
    /// Parallel subtasks of each operator (default: SET 'parallelism.default', or 1)
    #[arg(short = 'p', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub parallelism: Option<u32>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

pub struct Read {
    pub sql: String,
    pub name: String,
}

impl JobArgs {
    pub fn read(&self) -> Result<Read, String> {
        let path = self.file.display();
        if self.file.as_os_str() == "-" {
            let sql =
                std::io::read_to_string(std::io::stdin()).map_err(|e| format!("cannot read standard input: {e}"))?;
            return Ok(Read { sql, name: "stdin".into() });
        }
        let sql = std::fs::read_to_string(&self.file).map_err(|e| format!("cannot read {path}: {e}"))?;
        let name = self.file.file_stem().map_or_else(|| "job".into(), |stem| stem.to_string_lossy().into_owned());
        Ok(Read { sql, name })
    }

    pub fn vars(&self) -> BTreeMap<String, String> {
        self.define.iter().cloned().collect()
    }
}
