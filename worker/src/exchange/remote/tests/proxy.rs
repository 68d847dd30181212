//! A TCP proxy that can cut its connections, or leave them open and carry nothing more.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    thawed: Condvar,
}

#[derive(Default)]
struct State {
    frozen: bool,
    over: bool,
    /// Both sides of every connection.
    connections: Vec<TcpStream>,
}

impl Proxy {
    pub fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.state.lock().expect("no panic").over {
                    return;
                }
                let client = client.expect("a connection");
                let server = TcpStream::connect(target).expect("the target listens");
                let handle = |socket: &TcpStream| socket.try_clone().expect("a handle");
                // Before anything gets through: who has seen that may cut it.
                accepting.state.lock().expect("no panic").connections.extend([handle(&client), handle(&server)]);
                for (from, to) in [(handle(&client), handle(&server)), (server, client)] {
                    let shared = accepting.clone();
                    std::thread::spawn(move || carry(from, to, &shared));
                }
            }
        });
        Proxy { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the connections that there are. New ones are welcome.
    pub fn cut(&self) {
        for connection in self.shared.state.lock().expect("no panic").connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// From now on nothing is carried, and nobody is told.
    pub fn freeze(&self) {
        self.shared.state.lock().expect("no panic").frozen = true;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        let mut state = self.shared.state.lock().expect("no panic");
        (state.over, state.frozen) = (true, false);
        drop(state);
        self.shared.thawed.notify_all();
        // So that the accepting thread looks.
        let _ = TcpStream::connect(self.address);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer) {
        let mut state = shared.state.lock().expect("no panic");
        while state.frozen {
            state = shared.thawed.wait(state).expect("no panic");
        }
        drop(state);
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
