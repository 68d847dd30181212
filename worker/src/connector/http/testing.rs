//! A web service that does what a test wants with each request.

use super::super::Place;
use super::super::stdout::tests::place;
use crate::secrets::Secrets;
use ef_proto::connector::{HttpBody, HttpMethod, HttpSink, OnClientError};
use ef_proto::secret::Template;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};

/// What the service got. Names of headers in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// `POST /in HTTP/1.1`
    pub line: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// What it does.
#[derive(Clone, Debug)]
pub enum Does {
    /// Status, further headers, body.
    Says(u16, &'static str, String),
    /// Hangs up without a word, or in the middle of its answer.
    HangsUp,
    BreaksOff,
    /// Says nothing, and keeps the connection.
    Waits,
}

pub fn ok() -> Does {
    Does::Says(200, "", String::new())
}

/// The address, and what came there. `does` gets the number of the request.
pub fn service(does: impl Fn(usize, &Got) -> Does + Send + Sync + 'static) -> (String, Receiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}/in", listener.local_addr().expect("bound"));
    let (say, said) = sync_channel(10_000);
    std::thread::spawn(move || {
        let (mut count, mut kept) = (0, Vec::new());
        for socket in listener.incoming() {
            let mut socket = BufReader::new(socket.expect("a connection"));
            while let Some(got) = take(&mut socket) {
                let does = does(count, &got);
                count += 1;
                // The test may have seen enough.
                let _ = say.send(got);
                let mut answer = |text: String| socket.get_mut().write_all(text.as_bytes()).is_ok();
                let goes_on = match does {
                    Does::Says(status, headers, body) => {
                        let length = body.len();
                        answer(format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{headers}\r\n{body}"))
                    }
                    Does::HangsUp => false,
                    Does::BreaksOff => {
                        answer("HTTP/1.1 2".into());
                        false
                    }
                    Does::Waits => {
                        kept.push(socket);
                        break;
                    }
                };
                if !goes_on {
                    break;
                }
            }
        }
    });
    (address, said)
}

fn take(socket: &mut BufReader<TcpStream>) -> Option<Got> {
    let mut line = String::new();
    let mut next = |socket: &mut BufReader<TcpStream>| {
        line.clear();
        let read = socket.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    };
    let first = next(socket)?;
    let mut headers = BTreeMap::new();
    while let Some((name, value)) = next(socket)?.split_once(": ") {
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    socket.read_exact(&mut body).ok()?;
    Some(Got { line: first, headers, body: String::from_utf8(body).ok()? })
}

pub fn options(url: &str) -> HttpSink {
    HttpSink {
        url: Template::parse(url).expect("well-formed"),
        method: HttpMethod::Post,
        body: HttpBody::Array,
        headers: vec![],
        batch_rows: 2,
        batch_bytes: 1 << 20,
        batch_interval_ms: 1_000,
        max_retries: None,
        on_client_error: OnClientError::Fail,
        idempotency_header: Some("Idempotency-Key".into()),
        connect_timeout_ms: 5_000,
        request_timeout_ms: 5_000,
    }
}

/// With a secret `token`.
pub fn place_with(token: &str) -> (Place, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("token"), token).expect("it is ours");
    (Place { secrets: Secrets::new(Some(directory.path().into())), ..place() }, directory)
}
