//! What a worker is given to work with, and the checks of what a person gives it on the command line.

use crate::secrets::Secrets;
use ef_proto::error::Error;
use ef_proto::ids::{JobId, SubtaskId};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tonic::transport::Uri;

/// `worker.memory` when nobody says otherwise: half of the machine's memory, at most this.
pub const MEMORY_BYTES_MAX_DEFAULT: u64 = 4 << 30;

/// Bytes that may wait on one channel between two tasks before its sender waits.
pub const CHANNEL_CREDIT_BYTES: usize = 4 << 20;

#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// For state: hot tables, RocksDB's caches and memtables. Not for code, Arrow batches in flight and libraries.
    pub memory_bytes: u64,
    /// Shares that the memory is divided into; a deployment has as many as it takes slots.
    pub slots: u32,
    /// Scratch space of this process alone: live RocksDB directories, staged snapshots. Wiped at the start.
    pub work_dir: PathBuf,
    pub secrets: Secrets,
    /// What connectors keep across deployments and restarts of the process; None: it keeps nothing.
    pub durable_dir: Option<PathBuf>,
    /// Negative controls of the tests.
    pub bugs: Bugs,
}

/// Where each source's subtask had read to, by job.
pub type Positions = Arc<Mutex<BTreeMap<(JobId, SubtaskId), Vec<u8>>>>;

/// Bugs that the project's own tests switch on, to see that their checkers catch them.
#[derive(Clone, Debug, Default)]
pub struct Bugs {
    /// Sinks publish before their checkpoint has completed.
    pub commit_early: bool,
    /// Sources that start again here go on where they had read to, and not at their checkpoint.
    pub skip_replay: Option<Positions>,
    pub kafka: KafkaBugs,
}

/// Of the exactly-once Kafka sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KafkaBugs {
    /// The marker is not looked at.
    pub no_marker: bool,
    /// An outcome that nobody knows is taken for an abort, and the rows are sent again without a look at the marker.
    pub blind_retry: bool,
    /// Slots that a subtask has taken over are not fenced, and their rows not sent.
    pub no_fence: bool,
    /// No bug but a fault, which has to be survived: the answer to every fifth commit gets lost.
    pub lose_answers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Memory,
    RocksDb,
}

/// `SET 'state.backend'` of a job; memory unless set.
pub fn backend(config: &BTreeMap<String, String>) -> Result<Backend, Error> {
    match config.get("state.backend").map(String::as_str) {
        None | Some("memory" | "hashmap") => Ok(Backend::Memory),
        Some("rocksdb") if cfg!(feature = "rocksdb") => Ok(Backend::RocksDb),
        Some("rocksdb") => {
            Err(Error::invalid("'state.backend' = 'rocksdb': this build has no RocksDB; 'memory' is accepted"))
        }
        Some(other) => Err(Error::invalid(format!("'state.backend' = '{other}'; 'memory' and 'rocksdb' are accepted"))),
    }
}

/// The least memory that a worker starts with.
pub const MEMORY_BYTES_MIN: u64 = 1 << 20;

/// `--memory`: a size, or a share of what the machine has. None: half of it, [`MEMORY_BYTES_MAX_DEFAULT`] at most.
pub fn memory_bytes(text: Option<&str>, machine_bytes: u64) -> Result<u64, Error> {
    let Some(text) = text else { return Ok((machine_bytes / 2).clamp(64 << 20, MEMORY_BYTES_MAX_DEFAULT)) };
    let bytes = match text.trim().strip_suffix('%') {
        Some(share) => {
            let share = share.trim().parse::<u8>().ok().filter(|share| (1..=100).contains(share));
            share.map(|share| (u128::from(machine_bytes) * u128::from(share) / 100) as u64)
        }
        None => ef_proto::connector::parse_memory_bytes(text),
    };
    bytes.filter(|bytes| *bytes >= MEMORY_BYTES_MIN).ok_or_else(|| {
        Error::invalid(format!(
            "--memory {text}: a size such as 512MiB is accepted, 1 MiB at least, or a share of the machine's memory \
             such as 60%"
        ))
    })
}

/// `--coordinator`: an address that can be dialled, and that may be.
pub fn check_coordinator(url: &str, insecure: bool) -> Result<(), Error> {
    let malformed = || Error::invalid(format!("--coordinator {url}: http://HOST:PORT is accepted"));
    let uri: Uri = url.parse().map_err(|_| malformed())?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(Error::invalid(format!(
                "--coordinator {url}: TLS is not supported yet; http://HOST:PORT is accepted"
            )));
        }
        _ => return Err(malformed()),
    }
    if uri.port().is_none() || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(malformed());
    }
    if !insecure && !uri.host().is_some_and(is_loopback) {
        return Err(Error::invalid(format!(
            "--coordinator {url}: it is on another machine, and what is said to it is not encrypted; give --insecure if \
             the network between is trusted"
        )));
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `--data-listen`: where other workers send rows to.
pub fn check_data_listen(listen: SocketAddr, insecure: bool) -> Result<(), Error> {
    if insecure || listen.ip().is_loopback() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "--data-listen {listen}: other machines reach it, and what workers send each other is neither encrypted nor \
         authenticated; give --insecure if the network is trusted, or listen on 127.0.0.1"
    )))
}

/// What other workers are told to dial: `--data-address`, or the address that the exchange listens at.
pub fn data_address(given: Option<&str>, listens: SocketAddr) -> Result<String, Error> {
    match given {
        None if listens.ip().is_unspecified() => Err(Error::invalid(format!(
            "--data-listen {listens} is every address of this machine; say with --data-address HOST:PORT which one \
             other workers are to dial"
        ))),
        None => Ok(listens.to_string()),
        Some(given) => {
            let malformed = || Error::invalid(format!("--data-address {given}: HOST:PORT is accepted"));
            let (host, port) = given.rsplit_once(':').ok_or_else(malformed)?;
            let port: u16 = port.parse().map_err(|_| malformed())?;
            if host.is_empty() || (host.contains(':') && !host.starts_with('[')) {
                return Err(malformed());
            }
            // Port 0 stands for the one that was free, as in --data-listen.
            let port = if port == 0 { listens.port() } else { port };
            Ok(format!("{host}:{port}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_a_size_or_a_share() {
        let machine = 8 << 30;
        for (text, bytes) in [
            (Some("512MiB"), Some(512 << 20)),
            (Some("50%"), Some(4 << 30)),
            (Some("100 %"), Some(8 << 30)),
            (None, Some(4 << 30)),
            (Some("0%"), None),
            (Some("101%"), None),
            (Some("-1%"), None),
            (Some("1kb"), None),
            (Some("lots"), None),
            (Some(""), None),
        ] {
            assert_eq!(memory_bytes(text, machine).ok(), bytes, "{text:?}");
        }
        assert_eq!(memory_bytes(None, 64 << 30), Ok(MEMORY_BYTES_MAX_DEFAULT));
        assert_eq!(memory_bytes(None, 0), Ok(64 << 20), "where it cannot be read");
    }

    #[test]
    fn coordinator_elsewhere_needs_the_word() {
        for (url, plain, insecure) in [
            ("http://127.0.0.1:7070", true, true),
            ("http://localhost:7070/", true, true),
            ("http://[::1]:7070", true, true),
            ("http://10.0.0.7:7070", false, true),
            ("http://coordinator:7070", false, true),
            ("http://localhost.example.com:7070", false, true),
            ("https://coordinator:7070", false, false),
            ("http://127.0.0.1", false, false),
            ("127.0.0.1:7070", false, false),
            ("http://127.0.0.1:7070/x", false, false),
            ("", false, false),
        ] {
            assert_eq!(check_coordinator(url, false).is_ok(), plain, "{url}");
            assert_eq!(check_coordinator(url, true).is_ok(), insecure, "{url}");
        }
        let error = check_coordinator("http://coordinator:7070", false).expect_err("elsewhere");
        assert!(error.message.contains("--insecure"), "{error}");
    }

    #[test]
    fn listening_for_other_machines_needs_the_word_and_an_address() {
        let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert!(check_data_listen(parse("127.0.0.1:0"), false).is_ok());
        assert!(check_data_listen(parse("[::1]:0"), false).is_ok());
        assert!(check_data_listen(parse("0.0.0.0:7080"), true).is_ok());
        let error = check_data_listen(parse("0.0.0.0:7080"), false).expect_err("reachable");
        assert!(error.message.contains("--insecure"), "{error}");
        let bound = parse("127.0.0.1:4242");
        assert_eq!(data_address(None, bound), Ok("127.0.0.1:4242".into()));
        assert_eq!(data_address(Some("worker-1:0"), bound), Ok("worker-1:4242".into()));
        assert_eq!(data_address(Some("[fe80::1]:7"), bound), Ok("[fe80::1]:7".into()));
        let error = data_address(None, parse("0.0.0.0:4242")).expect_err("which?");
        assert!(error.message.contains("--data-address"), "{error}");
        for wrong in ["worker-1", ":7", "worker-1:x", "fe80::1:7"] {
            assert!(data_address(Some(wrong), bound).is_err(), "{wrong}");
        }
    }
}
