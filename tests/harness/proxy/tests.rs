//! Each kind of fault shows at the sockets as it would on a network.

use super::*;
use crate::wait;
use std::io::{Read, Write};
use std::net::TcpListener as StdListener;
use std::net::TcpStream as StdStream;
use std::thread::JoinHandle;

const SOON: Duration = Duration::from_secs(10);
/// Long enough to see that nothing comes.
const A_WHILE: Duration = Duration::from_millis(200);

/// A proxy with one connection through it. What is not bound when it is taken apart is dropped, and the link with it.
struct Pair {
    proxy: Proxy,
    client: StdStream,
    server: StdStream,
    listener: StdListener,
}

fn pair(before: impl FnOnce(&Proxy)) -> Pair {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let proxy = Proxy::start(listener.local_addr().expect("it is bound"), 7);
    before(&proxy);
    let client = StdStream::connect(proxy.address()).expect("it listens");
    let (server, _) = listener.accept().expect("the proxy dials");
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(SOON)).expect("not zero");
        socket.set_nodelay(true).expect("a TCP socket");
    }
    Pair { proxy, client, server, listener }
}

fn receive(socket: &mut StdStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    socket.read_exact(&mut bytes).expect("it comes in time");
    bytes
}

#[track_caller]
fn nothing_comes(socket: &mut StdStream) {
    socket.set_read_timeout(Some(A_WHILE)).expect("not zero");
    let error = socket.read(&mut [0]).expect_err("neither bytes nor the end");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    socket.set_read_timeout(Some(SOON)).expect("not zero");
}

/// Dials and is reset; the reset may come before the call has returned.
fn is_reset(proxy: &Proxy) -> bool {
    let read = StdStream::connect(proxy.address()).and_then(|mut socket| {
        socket.set_read_timeout(Some(SOON))?;
        socket.read(&mut [0])
    });
    read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

/// Sends so much that it cannot all be held on the way.
fn send(socket: &StdStream, bytes: Vec<u8>) -> JoinHandle<()> {
    let mut socket = socket.try_clone().expect("a descriptor more");
    std::thread::spawn(move || socket.write_all(&bytes).expect("it is read at the other end"))
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

#[test]
fn bytes_and_their_end_get_through_both_ways() {
    let Pair { proxy, mut client, mut server, .. } = pair(|_| {});
    let sent = pattern(3 << 20);
    let sending = [send(&client, sent.clone()), send(&server, sent.clone())];
    assert!(receive(&mut server, sent.len()) == sent && receive(&mut client, sent.len()) == sent);
    sending.into_iter().for_each(|thread| thread.join().expect("sent"));
    client.shutdown(std::net::Shutdown::Write).expect("open");
    assert_eq!(server.read(&mut [0]).expect("the end"), 0);
    // The other direction is still there.
    server.write_all(b"after").expect("open");
    assert_eq!(receive(&mut client, 5), b"after");
    assert_eq!(proxy.bytes(), 2 * sent.len() as u64 + 5);
    drop(server);
    assert!(wait::until(SOON, || proxy.open() == 0));
}

#[test]
fn delay_counts_per_piece_and_not_per_byte() {
    let line = Line { delay: Duration::from_millis(1500), jitter: Duration::from_millis(50), ..Line::default() };
    let Pair { proxy: _link, mut client, mut server, .. } = pair(|proxy| proxy.set(Direction::ToServer, line));
    let began = Instant::now();
    let sent = pattern(200 << 10);
    let sending = send(&client, sent.clone());
    assert!(receive(&mut server, sent.len()) == sent, "nothing is lost or out of order");
    sending.join().expect("sent");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1500), "{took:?}");
    // All pieces are on their way at once: far less than a delay for each of the dozen.
    assert!(took < Duration::from_secs(10), "{took:?}");
    let began = Instant::now();
    server.write_all(b"back").expect("open");
    assert_eq!(receive(&mut client, 4), b"back");
    assert!(began.elapsed() < Duration::from_millis(1500), "the other direction has no delay: {:?}", began.elapsed());
}

#[test]
fn jitter_is_the_same_for_the_same_seed() {
    let line = Line { jitter: Duration::from_millis(80), ..Line::default() };
    let now = Instant::now();
    let dues = |seed: u64| -> Vec<Duration> {
        let rng = SmallRng::seed_from_u64(seed);
        let mut held = Held { pieces: VecDeque::new(), bytes: 0, line_free_at: now, last_due: now, rng };
        (0..50).for_each(|i| held.push(vec![0; 10], &line, now + Duration::from_millis(10 * i)));
        held.pieces.iter().map(|(due, _)| *due - now).collect()
    };
    assert_eq!(dues(1), dues(1));
    assert_ne!(dues(1), dues(2));
    assert!(dues(1).is_sorted(), "pieces do not overtake each other");
}

#[test]
fn bandwidth_is_shared_by_what_is_sent() {
    let line = Line { bytes_per_second: Some(200 << 10), ..Line::default() };
    let Pair { proxy: _link, client, mut server, .. } = pair(|proxy| proxy.set(Direction::ToServer, line));
    let began = Instant::now();
    let sending = send(&client, pattern(100 << 10));
    receive(&mut server, 100 << 10);
    sending.join().expect("sent");
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
}

#[test]
fn silent_direction_keeps_both_ends_and_all_bytes() {
    let Pair { proxy, mut client, mut server, .. } = pair(|_| {});
    proxy.silence(Direction::ToServer);
    client.write_all(b"held").expect("the socket takes it");
    nothing_comes(&mut server);
    server.write_all(b"answer").expect("open");
    assert_eq!(receive(&mut client, 6), b"answer", "the other direction goes on");
    proxy.heal();
    assert_eq!(receive(&mut server, 4), b"held");
}

#[test]
fn end_of_one_side_is_hidden_while_the_link_is_silent() {
    let Pair { proxy, mut client, server, .. } = pair(|_| {});
    proxy.stall();
    drop(server);
    nothing_comes(&mut client);
    proxy.heal();
    assert_eq!(client.read(&mut [0]).expect("the end"), 0);
}

#[test]
fn stalled_sender_has_to_wait_and_goes_on_where_it_was() {
    let Pair { proxy, client, mut server, .. } = pair(|proxy| proxy.stall());
    let sent = pattern(16 << 20);
    let sending = send(&client, sent.clone());
    nothing_comes(&mut server);
    assert!(!sending.is_finished(), "more than the sockets and the proxy hold");
    proxy.heal();
    assert!(receive(&mut server, sent.len()) == sent);
    sending.join().expect("sent");
}

#[test]
fn cut_resets_both_ends_and_those_who_dial_again_until_it_is_healed() {
    let Pair { proxy, mut client, mut server, listener } = pair(|_| {});
    proxy.cut();
    for socket in [&mut client, &mut server] {
        assert_eq!(socket.read(&mut [0]).expect_err("a reset, not an end").kind(), ErrorKind::ConnectionReset);
    }
    assert!(is_reset(&proxy));
    proxy.heal();
    let mut third = StdStream::connect(proxy.address()).expect("the proxy is still there");
    let (mut server, _) = listener.accept().expect("the proxy dials");
    third.write_all(b"hello").expect("open");
    assert_eq!(receive(&mut server, 5), b"hello");
    assert_eq!(proxy.accepted(), 3);
}

#[test]
fn server_that_is_down_is_a_reset() {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let proxy = Proxy::start(listener.local_addr().expect("it is bound"), 7);
    drop(listener);
    assert!(is_reset(&proxy));
}
