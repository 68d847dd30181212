//! One process of a local cluster: started in a process group of its own, so that Ctrl-C reaches only `efctl`, which
//! then ends it; killed by the kernel when the thread that started it ends; its output in two files.

use super::LOOK;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How much of a dead process's log is shown.
const LOG_LINES_SHOWN: usize = 10;
const LOG_BYTES_READ: u64 = 16 << 10;

pub(super) struct Process {
    pub(super) name: String,
    child: Child,
    /// Standard error.
    log: PathBuf,
    /// Standard output: the line that it is ready, and the rows of `print` tables.
    out: PathBuf,
    /// What earlier processes have written to `out` and `log`.
    out_before: u64,
    log_before: u64,
    reported: bool,
}

impl Process {
    /// Must be called on a thread that lasts as long as the process shall: see `PR_SET_PDEATHSIG` in prctl(2).
    pub(super) fn start(name: &str, program: &Path, args: &[(&str, String)], logs: &Path) -> Result<Process, String> {
        let (log, out) = (logs.join(format!("{name}.log")), logs.join(format!("{name}.out")));
        let (log_file, log_before) = append(&log)?;
        let (out_file, out_before) = append(&out)?;
        let mut command = Command::new(program);
        for (key, value) in args {
            command.arg(key).arg(value);
        }
        command.stdin(Stdio::null()).stdout(out_file).stderr(log_file).process_group(0);
        let parent = std::process::id();
        // SAFETY: between fork and exec only prctl and getppid are called, which are async-signal-safe and touch no
        // memory; making an io::Error of a number allocates nothing.
        unsafe { command.pre_exec(move || die_with(parent)) };
        let child = command.spawn().map_err(|e| format!("cannot start {}: {e}", program.display()))?;
        Ok(Process { name: name.into(), child, log, out, out_before, log_before, reported: false })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The `key=value`s of the line `ready key=value …` that it writes to its standard output.
    pub(super) async fn ready(&mut self, limit: Duration) -> Result<BTreeMap<String, String>, String> {
        let found = tokio::time::timeout(limit, async {
            loop {
                // In this order: what it wrote before it ended is read.
                let runs = self.runs();
                if let Some(ready) = ready_line(&self.output()?) {
                    return Ok(ready);
                }
                if !runs {
                    return Err(self.died().unwrap_or_else(|| format!("{} has ended", self.name)));
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        found.await.unwrap_or_else(|_| {
            Err(format!("{} was not ready after {} s{}", self.name, limit.as_secs(), self.last_words()))
        })
    }

    fn output(&self) -> Result<String, String> {
        read_from(&self.out, self.out_before).map_err(|e| format!("cannot read {}: {e}", self.out.display()))
    }

    /// How it ended, once, if it has.
    pub(super) fn died(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        if std::mem::replace(&mut self.reported, true) {
            return None;
        }
        Some(format!("{} (process {}) {}{}", self.name, self.child.id(), how(status), self.last_words()))
    }

    pub(super) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of its log, and where the rest is.
    fn last_words(&self) -> String {
        let length = std::fs::metadata(&self.log).map_or(0, |file| file.len());
        let from = self.log_before.max(length.saturating_sub(LOG_BYTES_READ));
        let text = read_from(&self.log, from).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        if lines.is_empty() {
            return format!("; it wrote nothing to {}", self.log.display());
        }
        let last = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n  ");
        format!("; the end of {}:\n  {last}", self.log.display())
    }

    /// Asks it to end.
    pub(super) fn terminate(&mut self) {
        if self.runs() {
            // SAFETY: no memory is involved. The process has not been waited for, so its id is still its own.
            unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.runs() {
            // Both fail only if it has ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs in the child, before it becomes the program.
fn die_with(parent: u32) -> std::io::Result<()> {
    // SAFETY: system calls that touch no memory.
    let (set, parent_now) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
    if set != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // The parent may have been killed before the signal was asked for.
    if parent_now as u32 != parent {
        return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("has ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "has ended".into(),
    }
}

/// The file, open for appending, and its length so far.
fn append(path: &Path) -> Result<(File, u64), String> {
    let open = || {
        let file = File::options().create(true).append(true).open(path)?;
        let length = file.metadata()?.len();
        Ok::<_, std::io::Error>((file, length))
    };
    open().map_err(|e| format!("cannot write to {}: {e}", path.display()))
}

fn read_from(path: &Path, offset: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![];
    file.take(1 << 20).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Of a whole line only: the end of the last one may not be written yet.
fn ready_line(text: &str) -> Option<BTreeMap<String, String>> {
    let whole = &text[..text.rfind('\n')?];
    let fields = whole.lines().find_map(|line| line.strip_prefix("ready "))?;
    let pair = |field: &str| field.split_once('=').map(|(key, value)| (key.to_string(), value.to_string()));
    Some(fields.split_whitespace().filter_map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_line_is_read_when_it_is_whole() {
        assert_eq!(ready_line("ready grpc=127.0.0.1:70"), None);
        assert_eq!(ready_line("starting\n"), None);
        let found = ready_line("starting\nready grpc=127.0.0.1:7070 http=127.0.0.1:7071\nmore").expect("there");
        assert_eq!((found["grpc"].as_str(), found["http"].as_str()), ("127.0.0.1:7070", "127.0.0.1:7071"));
    }
}
