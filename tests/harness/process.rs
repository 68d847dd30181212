//! One process of a cluster: started with its output in files, signalled by its pid, dead when the test's process is.

use crate::wait;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The binary that `make build` put beside the tests.
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let tests = std::env::current_exe().expect("a running test has a path");
    let release = tests.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let path = release.join(name);
    assert!(path.exists(), "{} is missing: run the tests by `make test`, which builds it first", path.display());
    path
}

/// Where a process runs, and the address at which the others find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What stands before the program, such as `ip netns exec NAME`.
    pub prefix: Vec<String>,
    pub ip: Ipv4Addr,
}

impl Host {
    pub fn loopback() -> Host {
        Host { prefix: Vec::new(), ip: Ipv4Addr::LOCALHOST }
    }

    pub fn command(&self, program: &Path) -> Command {
        let mut words = self.prefix.iter();
        match words.next() {
            None => Command::new(program),
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(program).env("PATH", search_path());
                command
            }
        }
    }
}

/// A user's PATH often lacks the directories of `ip` and `nft`.
pub fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")
}

/// Has the kernel kill the child when the thread that starts it ends. So whoever starts a process that is to outlive a
/// function must not do it from a helper thread.
pub fn dies_with_us(command: &mut Command) {
    let us = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls are made: signal, prctl, getppid.
    unsafe {
        command.pre_exec(move || {
            // Under `nohup` it would be ignored by all that we start.
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // The test may have died before the call above, and would then never be noticed.
            match libc::getppid() as u32 == us {
                true => Ok(()),
                false => Err(std::io::Error::from_raw_os_error(libc::ESRCH)),
            }
        });
    }
}

/// A started process, killed when the value is dropped.
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    /// Length of `out` when it was started: what earlier starts said stands before.
    out_from: u64,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    /// Its output goes to the ends of `<logs>/<name>.out` and `.err`.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> Result<Process> {
        let (out, err) = (logs.join(format!("{name}.out")), logs.join(format!("{name}.err")));
        let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        let to_out = open(&out)?;
        let out_from = to_out.metadata()?.len();
        command.stdin(Stdio::null()).stdout(to_out).stderr(open(&err)?);
        dies_with_us(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Process { name: name.to_string(), child, out, err, out_from })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Names of its threads, as the kernel has them: the first 15 characters.
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        // One that is listed may have ended since.
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.map(|name| name.trim_end().to_string()).collect()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a signal to our own child, which we have not reaped.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// kill -9, also of a stopped process. Nothing of it is left when this returns.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Some once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// What it has said on standard output since this start.
    pub fn said(&self) -> String {
        let mut text = Vec::new();
        let read = File::open(&self.out).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.out_from))?;
            file.read_to_end(&mut text)
        });
        read.map(|_| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// The `key=value` pairs of its line `ready key=value …`, once it has said it.
    pub fn ready(&mut self, limit: Duration) -> Result<BTreeMap<String, String>> {
        let line = wait::found(limit, || match ready_line(&self.said()) {
            Some(pairs) => Some(Ok(pairs)),
            None => self.ended().map(Err),
        });
        match line {
            Some(Ok(pairs)) => Ok(pairs),
            Some(Err(status)) => bail!("{} ended before it was ready, {status}\n{}", self.name, self.tail(20)),
            None => bail!("{} was not ready in {limit:?}\n{}", self.name, self.tail(20)),
        }
    }

    pub fn is_ready(&self) -> bool {
        ready_line(&self.said()).is_some()
    }

    /// The last lines of what it said, over all starts.
    pub fn tail(&self, lines: usize) -> String {
        let mut text = String::new();
        for path in [&self.out, &self.err] {
            let all = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            let skipped = all.lines().count().saturating_sub(lines);
            text += &format!("--- {} ({skipped} lines before)\n", path.display());
            all.lines().skip(skipped).for_each(|line| text += &format!("{line}\n"));
        }
        text
    }
}

/// Only a whole line counts: the rest of it may not be written yet.
fn ready_line(said: &str) -> Option<BTreeMap<String, String>> {
    let line = said.split_inclusive('\n').find(|line| line.starts_with("ready ") && line.ends_with('\n'))?;
    let pairs = line.split_whitespace().skip(1).filter_map(|word| word.split_once('='));
    Some(pairs.map(|(key, value)| (key.to_string(), value.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn ready_line_is_read_whole_and_of_this_start_only() {
        assert_eq!(ready_line("starting\nready grpc=127.0.0.1:70"), None);
        let pairs = ready_line("starting\nready grpc=127.0.0.1:7070 http=h:1\n").expect("a line");
        assert_eq!((pairs["grpc"].as_str(), pairs["http"].as_str()), ("127.0.0.1:7070", "h:1"));

        let logs = tempfile::tempdir().expect("a temporary directory");
        for port in ["1", "2"] {
            let command = shell(&format!("echo ready data=x:{port}; exec cat /dev/zero >/dev/null"));
            let mut process = Process::start("p", command, logs.path()).expect("sh starts");
            assert_eq!(process.ready(wait::PATIENCE).expect("it says so")["data"], format!("x:{port}"));
        }
    }

    #[test]
    fn process_that_ends_before_it_is_ready_is_told_with_what_it_said() {
        let logs = tempfile::tempdir().expect("a temporary directory");
        let mut process = Process::start("p", shell("echo no such flag >&2; exit 2"), logs.path()).expect("sh starts");
        let error = process.ready(wait::PATIENCE).expect_err("it ended").to_string();
        assert!(error.contains("no such flag") && error.contains("exit status: 2"), "{error}");
    }

    #[test]
    fn stopped_process_is_killed_and_gone_when_dropped() {
        let logs = tempfile::tempdir().expect("a temporary directory");
        let process = Process::start("p", shell("exec cat /dev/zero >/dev/null"), logs.path()).expect("sh starts");
        let folder = PathBuf::from(format!("/proc/{}", process.pid()));
        process.signal(libc::SIGSTOP);
        assert!(folder.exists());
        drop(process);
        assert!(!folder.exists());
    }

    #[test]
    fn child_dies_with_the_thread_that_started_it() {
        let logs = tempfile::tempdir().expect("a temporary directory");
        let logs = logs.path().to_path_buf();
        let start = move || Process::start("p", shell("exec cat /dev/zero >/dev/null"), &logs).expect("sh starts");
        let mut process = std::thread::spawn(start).join().expect("no panic");
        assert!(wait::until(wait::PATIENCE, || process.ended().is_some()), "the kernel kills it");
    }
}
