//! Free ports of this machine. They lie below those that the kernel gives to outgoing connections: a client that keeps
//! on trying to reach a server that is down would now and then get the server's own port, connect with itself, and
//! keep the server from coming back.

use rand::Rng;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

const PORTS: Range<u16> = 10_000..32_000;
/// So many of them are enough.
const PORTS_MIN: u16 = 1_000;

/// Those given in this process; no one gets them again.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Ports that nobody listened on just now. Another process may take one before its server does: then the server says so
/// and is given others.
pub fn free(count: usize) -> Vec<u16> {
    let ports = below(kernels());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Vec::with_capacity(count);
    for _ in 0..ports.len() {
        if found.len() == count {
            return found;
        }
        let port = rand::rng().random_range(ports.clone());
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            found.push(port);
        }
    }
    panic!("no {count} free ports on 127.0.0.1 in {ports:?}");
}

/// The first that the kernel gives to outgoing connections.
fn kernels() -> Option<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

/// On a machine whose kernel leaves hardly any, any will do.
fn below(first: Option<u16>) -> Range<u16> {
    match first {
        Some(first) if first >= PORTS.start + PORTS_MIN => PORTS.start..PORTS.end.min(first),
        _ => PORTS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_none_of_the_kernels() {
        let ports: Vec<u16> = (0..20).flat_map(|_| free(3)).collect();
        let distinct: BTreeSet<u16> = ports.iter().copied().collect();
        assert_eq!((ports.len(), distinct.len()), (60, 60));
        let wanted = below(kernels());
        assert!(ports.iter().all(|port| wanted.contains(port)), "{ports:?} against {wanted:?}");
        for (first, wanted) in [(32_768, 10_000..32_000), (15_000, 10_000..15_000), (1024, 10_000..32_000)] {
            assert_eq!(below(Some(first)), wanted, "the kernel's begin at {first}");
        }
    }
}
