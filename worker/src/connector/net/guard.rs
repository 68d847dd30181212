//! Which addresses a statement may make this worker speak to. Checked where a name has been resolved, with the address
//! that is then connected to, so that a name that changes its address between the two gains nothing.
//!
//! Addresses by which a machine in a cloud asks who it is (and gets credentials) are never spoken to, nor is anything
//! else that is link-local, multicast or no address at all. This machine and private networks are spoken to, since that
//! is where a gateway's neighbours are, unless the worker runs with EDGEFLOW_DENY_PRIVATE_ADDRESSES=1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    pub denies_private: bool,
}

/// Services of clouds that have addresses in ranges which are otherwise harmless.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);
/// Of another cloud all that it has there: metadata, credentials of containers.
const METADATA_V6_PREFIX: [u16; 2] = [0xfd00, 0xec2];

impl Guard {
    /// As the worker's environment says.
    pub fn of_process() -> Guard {
        let value = std::env::var("EDGEFLOW_DENY_PRIVATE_ADDRESSES").unwrap_or_default();
        Guard { denies_private: !matches!(value.trim(), "" | "0" | "false") }
    }

    /// Whether an address that `host` has may be spoken to. Err: why not, for a person.
    pub fn admit(self, host: &str, address: IpAddr) -> Result<(), String> {
        let refusal = |why| format!("'{host}' has the address {address}, which this worker does not speak to ({why})");
        self.check(address).map_err(refusal)
    }

    /// Err: what the address is, that it is not spoken to.
    fn check(self, address: IpAddr) -> Result<(), &'static str> {
        match address {
            IpAddr::V4(v4) => self.check_v4(v4),
            IpAddr::V6(v6) => match inner_v4(v6) {
                Some(v4) => self.check_v4(v4),
                None => self.check_v6(v6),
            },
        }
    }

    fn check_v4(self, v4: Ipv4Addr) -> Result<(), &'static str> {
        let [a, b, c, _] = v4.octets();
        if v4.is_link_local() || METADATA_V4.contains(&v4) {
            return Err("link-local, or a cloud's metadata service");
        }
        if a == 0 || v4.is_multicast() || v4.is_broadcast() || a >= 240 {
            return Err("no address of one machine");
        }
        let shared = a == 100 && b & 0xc0 == 64;
        let special = (a == 192 && b == 0 && c == 0) || (a == 198 && b & 0xfe == 18);
        if self.denies_private && (v4.is_loopback() || v4.is_private() || shared || special) {
            return Err("this machine or a private network");
        }
        Ok(())
    }

    fn check_v6(self, v6: Ipv6Addr) -> Result<(), &'static str> {
        if v6.is_unicast_link_local() || v6 == METADATA_V6 || v6.segments()[..2] == METADATA_V6_PREFIX {
            return Err("link-local, or a cloud's metadata service");
        }
        if v6.is_unspecified() || v6.is_multicast() {
            return Err("no address of one machine");
        }
        let site_local = v6.segments()[0] & 0xffc0 == 0xfec0;
        if self.denies_private && (v6.is_loopback() || v6.is_unique_local() || site_local) {
            return Err("this machine or a private network");
        }
        Ok(())
    }
}

/// An IPv4 address in the clothes of IPv6: mapped, compatible, translated (NAT64), 6to4.
fn inner_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(guard: Guard, text: &str) -> Result<(), &'static str> {
        guard.check(text.parse().expect("an address"))
    }

    #[test]
    fn metadata_services_and_what_is_no_machine_are_never_spoken_to() {
        for denies_private in [false, true] {
            for text in [
                "169.254.169.254",
                "169.254.0.1",
                "100.100.100.200",
                "168.63.129.16",
                "0.0.0.0",
                "0.1.2.3",
                "224.0.0.1",
                "255.255.255.255",
                "240.0.0.1",
                "fe80::1",
                "febf::1",
                "fd00:ec2::254",
                "fd00:ec2::23",
                "fd20:ce::254",
                "::",
                "ff02::1",
                "::ffff:169.254.169.254",
                "::169.254.169.254",
                "64:ff9b::169.254.169.254",
                "2002:a9fe:a9fe::1",
            ] {
                assert!(says(Guard { denies_private }, text).is_err(), "{text}");
            }
        }
    }

    #[test]
    fn neighbours_are_spoken_to_unless_that_is_denied() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.255.255",
            "::1",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
        ] {
            assert_eq!(says(Guard { denies_private: false }, text), Ok(()), "{text}");
            assert_eq!(says(Guard { denies_private: true }, text), Err("this machine or a private network"), "{text}");
        }
    }

    #[test]
    fn the_rest_of_the_world_is_spoken_to() {
        for text in
            ["1.1.1.1", "172.32.0.1", "192.169.0.1", "100.128.0.1", "198.20.0.1", "2606:4700::1111", "64:ff9b::1.1.1.1"]
        {
            assert_eq!(says(Guard { denies_private: true }, text), Ok(()), "{text}");
        }
    }
}
