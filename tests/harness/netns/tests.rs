//! What is cut is cut, what is healed is healed, and nothing is left behind.

use super::*;
use crate::missing::missing;
use crate::wait;
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Two lost packets of a connection attempt are sent again after one second, and after three.
const NEVER: Duration = Duration::from_millis(700);

/// Two hosts; None: this machine has none.
fn two(what: &str) -> Option<Net> {
    Net::new(2).map_err(|lack| missing(what, &lack)).ok()
}

fn listen(net: &Net, host: usize) -> TcpListener {
    net.inside(host, || TcpListener::bind((address(host), 7072)).expect("nobody else is there"))
}

fn dial(net: &Net, from: usize, to: usize, limit: Duration) -> std::io::Result<TcpStream> {
    net.inside(from, || TcpStream::connect_timeout(&(address(to), 7072).into(), limit))
}

#[test]
fn cut_hosts_do_not_reach_each_other_until_they_are_healed() {
    let Some(net) = two("namespaces: cut") else { return };
    let (_a, _b) = (listen(&net, 0), listen(&net, 1));
    dial(&net, 0, 1, SOON).expect("they reach each other");
    dial(&net, 1, 0, SOON).expect("they reach each other");
    net.cut(0, 1);
    for (from, to) in [(0, 1), (1, 0)] {
        assert_eq!(dial(&net, from, to, NEVER).expect_err("cut").kind(), ErrorKind::TimedOut);
    }
    net.heal(0, 1);
    dial(&net, 0, 1, SOON).expect("healed");
    dial(&net, 1, 0, SOON).expect("healed");
}

#[test]
fn one_way_cut_leaves_the_way_back() {
    let Some(net) = two("namespaces: one-way cut") else { return };
    let sockets = [0, 1].map(|host| {
        let socket = net.inside(host, || UdpSocket::bind((address(host), 7073)).expect("nobody else is there"));
        socket.set_read_timeout(Some(NEVER)).expect("not zero");
        socket
    });
    let arrives = |from: usize, to: usize| {
        sockets[from].send_to(b"x", (address(to), 7073)).expect("sending is local");
        sockets[to].recv(&mut [0; 8]).is_ok()
    };
    assert!(arrives(0, 1) && arrives(1, 0));
    net.cut_one_way(0, 1);
    assert!(!arrives(0, 1) && arrives(1, 0));
    net.heal_all();
    assert!(arrives(0, 1) && arrives(1, 0));
}

#[test]
fn loss_takes_its_share_of_the_packets() {
    const PACKETS: usize = 2000;
    let Some(net) = two("namespaces: loss") else { return };
    let [a, b] = [0, 1].map(|host| net.inside(host, || UdpSocket::bind((address(host), 7073)).expect("free")));
    net.lose(0, 1, 30);
    b.set_read_timeout(Some(Duration::from_millis(50))).expect("not zero");
    let mut arrived = 0;
    for _ in 0..PACKETS / 100 {
        // Few at a time: a full socket would lose some as well.
        for _ in 0..100 {
            a.send_to(b"x", (address(1), 7073)).expect("sending is local");
        }
        while b.recv(&mut [0; 8]).is_ok() {
            arrived += 1;
        }
    }
    let share = arrived as f64 / PACKETS as f64;
    assert!((0.63..0.77).contains(&share), "{share} of the packets arrived, 0.7 are expected");
}

#[test]
fn reset_ends_connections_and_refuses_new_ones() {
    let Some(net) = two("namespaces: reset") else { return };
    let listener = listen(&net, 1);
    let mut client = dial(&net, 0, 1, SOON).expect("they reach each other");
    let (_server, _) = listener.accept().expect("it was dialled");
    net.reset(0, 1);
    client.set_read_timeout(Some(SOON)).expect("not zero");
    std::io::Write::write_all(&mut client, b"x").expect("the socket takes it");
    assert_eq!(client.read(&mut [0]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    assert_eq!(dial(&net, 0, 1, SOON).expect_err("a reset").kind(), ErrorKind::ConnectionRefused);
    net.heal(0, 1);
    dial(&net, 0, 1, SOON).expect("healed");
}

#[test]
fn process_of_a_host_has_its_address() {
    let Some(net) = two("namespaces: processes") else { return };
    let output = net.host(1).command(Path::new("ip")).args(["-4", "-o", "address"]).output().expect("ip starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(&address(1).to_string()) && !text.contains(&address(0).to_string()), "{text}");
}

#[test]
fn nothing_is_left_after_a_drop_or_a_killed_run() {
    let Some(net) = two("namespaces: leftovers") else { return };
    let prefix = net.prefix.clone();
    let ours = || names().iter().filter(|name| name.starts_with(&prefix)).count();
    assert_eq!(ours(), 3, "two hosts and the switch");
    drop(net);
    assert_eq!(ours(), 0);
    // As of a run that was killed: its pid is nobody's.
    let mut gone = Command::new("true").spawn().expect("it starts");
    gone.wait().expect("it ends");
    let left = format!("{PREFIX}{}-0-switch", gone.id());
    ip(&["netns", "add", &left]).expect("we may");
    sweep();
    assert!(wait::until(SOON, || !names().contains(&left)));
}

#[test]
fn names_tell_whose_they_are() {
    assert_eq!(owner("ef-test-4711-0-switch"), Some(4711));
    assert_eq!((owner("ef-test-x-0"), owner("other-4711-0")), (None, None));
}
