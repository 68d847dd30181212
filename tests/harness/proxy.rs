//! A TCP proxy that stands for a network link: delay with jitter, bandwidth, a direction that goes silent, a cut.
//!
//! TCP never loses bytes in the middle of a stream, so the proxy does not either: what a silent direction was given it
//! keeps, and hands on when the link is back. Jitter is drawn from a seed. A direction keeps at most [`HELD_BYTES`];
//! behind that its sender has to wait, as it would behind a full socket.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

const HELD_BYTES: usize = 256 << 10;
const CHUNK_BYTES: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From whoever dialled the proxy.
    ToServer,
    ToClient,
}

/// How one direction behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub delay: Duration,
    /// Up to this much more, drawn for each piece; pieces do not overtake each other.
    pub jitter: Duration,
    pub bytes_per_second: Option<u64>,
    /// Nothing gets through, not even the end of the stream; both ends keep their connection.
    pub silent: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    to_server: Line,
    to_client: Line,
    /// New connections are reset at once.
    cut: bool,
    /// Counts cuts: a connection that sees it grow is reset.
    cuts: u64,
}

impl State {
    fn line(&self, direction: Direction) -> Line {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }

    fn line_mut(&mut self, direction: Direction) -> &mut Line {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    accepted: AtomicUsize,
    bytes: AtomicU64,
}

pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    counts: Arc<Counts>,
    /// Dropped with all connections.
    _runtime: Runtime,
}

impl Proxy {
    /// Listens on a free port of loopback and dials `server` for each connection.
    pub fn start(server: SocketAddr, seed: u64) -> Proxy {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (state, _) = watch::channel(State::default());
        let counts = Arc::new(Counts::default());
        runtime.spawn(accept(listener, server, seed, state.subscribe(), counts.clone()));
        Proxy { address, state, counts, _runtime: runtime }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, direction: Direction, line: Line) {
        self.state.send_modify(|state| *state.line_mut(direction) = line);
    }

    /// Half-open: this direction goes silent, the other one goes on.
    pub fn silence(&self, direction: Direction) {
        self.state.send_modify(|state| state.line_mut(direction).silent = true);
    }

    /// Both directions go silent.
    pub fn stall(&self) {
        self.silence(Direction::ToServer);
        self.silence(Direction::ToClient);
    }

    /// Resets all connections, and every new one until it is healed.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.cut = true;
            state.cuts += 1;
        });
    }

    /// Resets all connections; new ones get through.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Neither cut nor silent, without delay. What was held back goes on.
    pub fn heal(&self) {
        self.state.send_modify(|state| {
            let cuts = state.cuts;
            *state = State { cuts, ..State::default() };
        });
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Connections so far, those that were reset at once included.
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Bytes handed on so far, in both directions.
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    seed: u64,
    state: watch::Receiver<State>,
    counts: Arc<Counts>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let number = counts.accepted.fetch_add(1, Ordering::Relaxed) as u64;
        let seed = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (state, counts) = (state.clone(), counts.clone());
        // From now on a cut is one of this connection, also while the server is dialled.
        let State { cut, cuts: seen, .. } = *state.borrow();
        if cut {
            reset_on_close(&client);
            continue;
        }
        tokio::spawn(async move {
            // A server that is down answers the client as if it were dialled itself: by a closed connection.
            let Ok(server) = TcpStream::connect(server).await else { return reset_on_close(&client) };
            counts.open.fetch_add(1, Ordering::Relaxed);
            connection((client, server), seen, seed, state, &counts).await;
            counts.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Until both directions have ended, or the link is cut once more than `seen`.
async fn connection(
    (client, server): (TcpStream, TcpStream),
    seen: u64,
    seed: u64,
    state: watch::Receiver<State>,
    counts: &Counts,
) {
    let mut cuts = state.clone();
    let both = async {
        let to_server = pump(&client, &server, Direction::ToServer, state.clone(), seed, counts);
        let to_client = pump(&server, &client, Direction::ToClient, state.clone(), seed ^ 1, counts);
        // When one end is lost, so is the other.
        tokio::try_join!(to_server, to_client)
    };
    let lost = tokio::select! {
        ended = both => ended.is_err(),
        // An error: the proxy is going.
        _ = cuts.wait_for(|state| state.cuts > seen) => true,
    };
    if lost {
        reset_on_close(&client);
        reset_on_close(&server);
    }
}

/// What one direction has read and not yet handed on.
struct Held {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// When the last piece has left, by the bandwidth.
    line_free_at: Instant,
    /// No piece leaves before the one in front of it.
    last_due: Instant,
    rng: SmallRng,
}

impl Held {
    fn push(&mut self, piece: Vec<u8>, line: &Line, now: Instant) {
        let jitter = line.jitter.mul_f64(self.rng.random_range(0.0..=1.0));
        let on_the_line = match line.bytes_per_second {
            Some(rate) => Duration::from_secs_f64(piece.len() as f64 / rate.max(1) as f64),
            None => Duration::ZERO,
        };
        self.line_free_at = self.line_free_at.max(now) + on_the_line;
        self.last_due = self.last_due.max(self.line_free_at + line.delay + jitter);
        self.bytes += piece.len();
        self.pieces.push_back((self.last_due, piece));
    }
}

/// Hands on what `from` says until it has ended; Err: one of the two is lost.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    direction: Direction,
    mut state: watch::Receiver<State>,
    seed: u64,
    counts: &Counts,
) -> std::io::Result<()> {
    let now = Instant::now();
    let rng = SmallRng::seed_from_u64(seed);
    let mut held = Held { pieces: VecDeque::new(), bytes: 0, line_free_at: now, last_due: now, rng };
    let mut ended = false;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let line = state.borrow_and_update().line(direction);
        let due = held.pieces.front().map(|(due, _)| *due);
        if ended && due.is_none() && !line.silent {
            return shutdown(to);
        }
        tokio::select! {
            changed = state.changed() => {
                if changed.is_err() {
                    return Err(ErrorKind::NotConnected.into());
                }
            }
            readable = from.readable(), if !ended && held.bytes < HELD_BYTES => {
                readable?;
                match from.try_read(&mut buffer) {
                    Ok(0) => ended = true,
                    Ok(read) => held.push(buffer[..read].to_vec(), &line, Instant::now()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // A silent direction hides this end as well.
                    Err(_) if line.silent => ended = true,
                    Err(error) => return Err(error),
                }
            }
            _ = sleep_until(due.unwrap_or(now)), if due.is_some() && !line.silent => {
                let (_, piece) = held.pieces.pop_front().expect("it is due");
                held.bytes -= piece.len();
                counts.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                write_all(to, &piece).await?;
            }
        }
    }
}

async fn write_all(to: &TcpStream, mut piece: &[u8]) -> std::io::Result<()> {
    while !piece.is_empty() {
        to.writable().await?;
        match to.try_write(piece) {
            Ok(written) => piece = &piece[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends one direction; the other one may still be in use.
fn shutdown(to: &TcpStream) -> std::io::Result<()> {
    // SAFETY: the descriptor is open as long as `to` lives.
    match unsafe { libc::shutdown(to.as_raw_fd(), libc::SHUT_WR) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Has the kernel answer with RST instead of FIN when the socket is closed.
fn reset_on_close(socket: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` lives, and the pointer is to a value of the size given.
    unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size)
    };
}

#[cfg(test)]
mod tests;
