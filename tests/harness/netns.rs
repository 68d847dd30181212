//! Hosts of our own: network namespaces on one bridge, with faults by nftables inside them.
//!
//! Nothing of this is seen outside: addresses, interfaces and rules are in the namespaces, and these are removed on
//! drop. What a killed run left is swept by the next one, by the pid in the names. Needs root, `ip` and `nft`; where
//! they are missing [`Net::new`] says so (see `missing`).

use crate::missing::is_root;
use crate::process::{Host, search_path};
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

const PREFIX: &str = "ef-test-";

/// What happens to packets on their way from one host to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Drop,
    /// This share of the packets, in percent, is dropped.
    Loss(u8),
    /// Each TCP packet is answered with a reset.
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    from: usize,
    to: usize,
    fault: Fault,
}

impl Rule {
    /// Added to the input of the host `to`.
    fn text(&self) -> String {
        let from = address(self.from);
        match self.fault {
            Fault::Drop => format!("ip saddr {from} drop"),
            Fault::Loss(percent) => format!("ip saddr {from} numgen random mod 100 < {percent} drop"),
            // The other host's answers to our packets are resets as well, and have to arrive.
            Fault::Reset => format!("ip saddr {from} tcp flags & rst == 0 reject with tcp reset"),
        }
    }
}

fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host as u8 + 1)
}

pub struct Net {
    /// Of all names: `ef-test-<pid>-<number>-`.
    prefix: String,
    hosts: usize,
    rules: Mutex<Vec<Rule>>,
}

impl Net {
    /// `hosts` hosts (200 at most), each reaching all others. Err: what is missing, and how to get it.
    pub fn new(hosts: usize) -> Result<Net, String> {
        assert!(hosts <= 200, "one address a host");
        available()?;
        sweep();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}-", std::process::id());
        let net = Net { prefix, hosts, rules: Mutex::new(Vec::new()) };
        // From here on a failure drops `net`, which removes what was made.
        net.make().map_err(|e| format!("network namespaces cannot be used here: {e}"))?;
        Ok(net)
    }

    fn make(&self) -> Result<(), String> {
        let switch = self.switch();
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        for host in 0..self.hosts {
            let (name, port) = (self.name(host), format!("port{host}"));
            ip(&["netns", "add", &name])?;
            ip(&["link", "add", "eth0", "netns", &name, "type", "veth", "peer", "name", &port, "netns", &switch])?;
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", &name, "address", "add", &format!("{}/24", address(host)), "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            self.load(host, &[])?;
        }
        Ok(())
    }

    fn switch(&self) -> String {
        format!("{}switch", self.prefix)
    }

    fn name(&self, host: usize) -> String {
        assert!(host < self.hosts, "there are {} hosts", self.hosts);
        format!("{}{host}", self.prefix)
    }

    pub fn host(&self, host: usize) -> Host {
        let prefix = ["ip", "netns", "exec", &self.name(host)].map(String::from).to_vec();
        Host { prefix, ip: address(host) }
    }

    /// Nothing gets through between two hosts.
    pub fn cut(&self, a: usize, b: usize) {
        self.put(&[(a, b), (b, a)], Fault::Drop);
    }

    /// Nothing gets through from one host to another; the way back is open.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.put(&[(from, to)], Fault::Drop);
    }

    /// This share of the packets is lost, both ways.
    pub fn lose(&self, a: usize, b: usize, percent: u8) {
        self.put(&[(a, b), (b, a)], Fault::Loss(percent));
    }

    /// Every TCP packet between two hosts is answered with a reset.
    pub fn reset(&self, a: usize, b: usize) {
        self.put(&[(a, b), (b, a)], Fault::Reset);
    }

    /// Between these two all is well again.
    pub fn heal(&self, a: usize, b: usize) {
        self.change(|rules| rules.retain(|rule| ![(a, b), (b, a)].contains(&(rule.from, rule.to))));
    }

    pub fn heal_all(&self) {
        self.change(Vec::clear);
    }

    /// One fault a direction: the last one counts.
    fn put(&self, ways: &[(usize, usize)], fault: Fault) {
        self.change(|rules| {
            rules.retain(|rule| !ways.contains(&(rule.from, rule.to)));
            rules.extend(ways.iter().map(|(from, to)| Rule { from: *from, to: *to, fault }));
        });
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Rule>)) {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let before = rules.clone();
        change(&mut rules);
        for host in 0..self.hosts {
            let of = |rules: &[Rule]| rules.iter().filter(|rule| rule.to == host).copied().collect::<Vec<_>>();
            if of(&before) != of(&rules) {
                self.load(host, &of(&rules)).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }

    /// Replaces a host's rules in one step.
    fn load(&self, host: usize, rules: &[Rule]) -> Result<(), String> {
        let mut script = String::from(
            "add table inet edgeflow\n\
             add chain inet edgeflow input { type filter hook input priority 0; policy accept; }\n\
             flush chain inet edgeflow input\n",
        );
        for rule in rules {
            script += &format!("add rule inet edgeflow input {}\n", rule.text());
        }
        let mut command = command("ip", &["netns", "exec", &self.name(host), "nft", "-f", "-"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|e| format!("cannot start nft: {e}"))?;
        let written = child.stdin.take().expect("it is piped").write_all(script.as_bytes());
        let output = child.wait_with_output().map_err(|e| format!("nft: {e}"))?;
        // When it has ended early, what it says tells why better than the broken pipe.
        checked("nft", &output).and(written.map_err(|e| format!("nft: {e}")))
    }

    /// Runs `body` on a thread that is inside of a host. What it opens stays there, whoever uses it later.
    pub fn inside<T: Send>(&self, host: usize, body: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/var/run/netns/{}", self.name(host))).expect("it was made");
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // SAFETY: the descriptor is open; only this thread changes its namespace, and it ends here.
                let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
                body()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        remove(|name| name.starts_with(&self.prefix));
    }
}

/// Err: what is missing for namespaces, and how to get it.
pub fn available() -> Result<(), String> {
    if !is_root() {
        return Err("network namespaces need root: run the tests as root".into());
    }
    for (tool, asks, package) in [("ip", "-V", "iproute2"), ("nft", "--version", "nftables")] {
        let found = command(tool, &[asks]).output().is_ok_and(|output| output.status.success());
        if !found {
            return Err(format!("`{tool}` is missing: apt-get install {package}"));
        }
    }
    Ok(())
}

/// Removes the namespaces of processes that are gone.
pub fn sweep() {
    remove(|name| owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn remove(which: impl Fn(&str) -> bool) {
    for name in names().iter().filter(|name| which(name)) {
        // Another run may sweep at the same time.
        let _ = ip(&["netns", "delete", name]);
    }
}

fn names() -> Vec<String> {
    let output = command("ip", &["netns", "list"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    // `NAME` or `NAME (id: 3)`.
    text.lines().filter_map(|line| line.split_whitespace().next()).map(String::from).collect()
}

fn command(tool: &str, args: &[&str]) -> Command {
    let mut command = Command::new(tool);
    command.args(args).env("PATH", search_path());
    command
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = command("ip", args).output().map_err(|e| format!("cannot start ip: {e}"))?;
    checked(&format!("ip {}", args.join(" ")), &output)
}

fn checked(what: &str, output: &Output) -> Result<(), String> {
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

#[cfg(test)]
mod tests;
