//! Free ports of this machine. They lie below those that the kernel gives to outgoing connections: a client that keeps
//! on trying to reach a server that is down would now and then get the server's own port, connect with itself, and
//! keep the server from coming back.

use rand::Rng;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

const PORTS: Range<u16> = 20_000..32_000;

/// Those given in this process; no one gets them again.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Ports that nobody listened on just now. Another process may take one before its server does: then the server says so
/// and is given others.
pub fn free(count: usize) -> Vec<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Vec::with_capacity(count);
    for _ in 0..PORTS.len() {
        if found.len() == count {
            return found;
        }
        let port = rand::rng().random_range(PORTS);
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            found.push(port);
        }
    }
    panic!("no {count} free ports on 127.0.0.1 in {PORTS:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_none_of_the_kernels() {
        let ports: Vec<u16> = (0..20).flat_map(|_| free(3)).collect();
        let distinct: BTreeSet<u16> = ports.iter().copied().collect();
        assert_eq!((ports.len(), distinct.len()), (60, 60));
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("Linux has it");
        let first: u16 = range.split_whitespace().next().and_then(|w| w.parse().ok()).expect("a number");
        assert!(ports.iter().all(|port| *port < first), "{ports:?} against {range}");
    }
}
