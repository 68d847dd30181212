//! What tests of several modules share.

use std::net::SocketAddr;
use tokio::net::TcpSocket;

/// An address of loopback where nobody answers: every call is refused, and nobody else is given its port, as long as
/// this lives. Somebody who is told to may listen there.
pub struct Nobody {
    pub address: SocketAddr,
    _socket: TcpSocket,
}

impl Nobody {
    pub fn here() -> Nobody {
        let socket = TcpSocket::new_v4().expect("a socket");
        // As every listener does: two may have a port as long as only one listens.
        socket.set_reuseaddr(true).expect("a new socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        Nobody { address: socket.local_addr().expect("bound"), _socket: socket }
    }
}
