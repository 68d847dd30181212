//! Whether a channel's rows are compressed: a question of the network between its two workers.

use super::codec::Compression;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The job's option: `auto` (the default), `none`, `lz4` or `zstd`.
pub const KEY: &str = "exchange.compression";

/// For a channel from the worker at the data address `own` to that at `peer`. `auto` compresses by lz4 whatever leaves
/// the machine: it costs less than a network card takes for the bytes it saves.
pub fn compression(config: &BTreeMap<String, String>, own: &str, peer: &str) -> Result<Compression> {
    match config.get(KEY).map(String::as_str) {
        None | Some("auto") if is_same_host(own, peer) => Ok(Compression::None),
        None | Some("auto" | "lz4") => Ok(Compression::Lz4),
        Some("none") => Ok(Compression::None),
        Some("zstd") => Ok(Compression::Zstd),
        Some(other) => {
            Err(Error::invalid(format!("'{KEY}' = '{other}'; 'auto', 'none', 'lz4' and 'zstd' are accepted")))
        }
    }
}

fn is_same_host(own: &str, peer: &str) -> bool {
    let (own, peer) = (host(own), host(peer));
    let loopback = peer == "localhost" || peer.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    loopback || own == peer
}

fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compressed_when_they_leave_the_machine_or_as_the_job_says() {
        let auto = |own, peer| compression(&BTreeMap::new(), own, peer).expect("auto");
        assert_eq!(auto("10.0.0.1:7080", "10.0.0.2:7080"), Compression::Lz4);
        assert_eq!(auto("10.0.0.1:7080", "10.0.0.1:7081"), Compression::None);
        assert_eq!(auto("", "127.0.0.1:7081"), Compression::None);
        assert_eq!(auto("a.example:1", "localhost:7081"), Compression::None);
        assert_eq!(auto("[::1]:1", "[::1]:2"), Compression::None);
        let set = |value: &str| compression(&BTreeMap::from([(KEY.into(), value.into())]), "a:1", "a:2");
        assert_eq!(set("zstd"), Ok(Compression::Zstd));
        assert_eq!(set("lz4"), Ok(Compression::Lz4));
        assert_eq!(set("none"), Ok(Compression::None));
        assert!(set("snappy").is_err_and(|e| e.message.contains("'lz4'")));
    }
}
