//! A web service that answers as a test says, and remembers what came.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// A request, and how it was answered.
#[derive(Debug)]
pub struct Request {
    /// The path with its query, as it came.
    pub target: String,
    /// By name in small letters.
    headers: BTreeMap<String, String>,
    pub body: String,
    /// None: the service hung up.
    pub status: Option<u16>,
}

impl Request {
    /// `name` in small letters. Empty if it did not come.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

#[derive(Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<String>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into() }
    }

    pub fn header(mut self, name: &'static str, value: &'static str) -> Answer {
        self.headers.push((name, value));
        self
    }

    fn text(&self) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = self.body.len();
        format!("HTTP/1.1 {} x\r\ncontent-length: {length}\r\n{headers}\r\n{}", self.status, self.body)
    }
}

/// As [`Http::start`] is given it.
type Service = dyn Fn(&[Request], &Request) -> Option<Answer> + Send + Sync;

/// It serves until the tests end.
pub struct Http {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Http {
    /// `answer` is asked for one request at a time, with all that came before and with this one, which has no status
    /// yet. Where it returns None the service hangs up.
    pub fn start(answer: impl Fn(&[Request], &Request) -> Option<Answer> + Send + Sync + 'static) -> Http {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let service: Arc<Service> = Arc::new(answer);
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let http = Http { address, requests: requests.clone() };
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let socket = BufReader::new(socket.expect("a connection"));
                let (requests, service) = (requests.clone(), service.clone());
                std::thread::spawn(move || serve(socket, &requests, &*service));
            }
        });
        http
    }

    /// Without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that came, in order. Nothing is answered while the caller holds them.
    pub fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().expect("no answer panicked")
    }
}

/// What comes on one connection.
fn serve(mut socket: BufReader<TcpStream>, requests: &Mutex<Vec<Request>>, service: &Service) {
    while let Some(mut request) = take(&mut socket) {
        let answer = {
            let mut requests = requests.lock().expect("no answer panicked");
            let answer = service(&requests, &request);
            request.status = answer.as_ref().map(|answer| answer.status);
            requests.push(request);
            answer
        };
        let sent = answer.map(|answer| socket.get_mut().write_all(answer.text().as_bytes()));
        if !matches!(sent, Some(Ok(()))) {
            return;
        }
    }
}

/// The next request; None when the client has hung up.
fn take(socket: &mut BufReader<TcpStream>) -> Option<Request> {
    let target = line(socket)?.split(' ').nth(1)?.to_string();
    let mut headers = BTreeMap::new();
    while let Some((name, value)) = line(socket)?.split_once(':') {
        headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
    }
    let length = headers.get("content-length").map_or(Ok(0), |value| value.parse::<usize>()).ok()?;
    let mut body = vec![0; length];
    socket.read_exact(&mut body).ok()?;
    Some(Request { target, headers, body: String::from_utf8(body).ok()?, status: None })
}

/// Without its end.
fn line(socket: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let read = socket.read_line(&mut line).ok()?;
    (read > 0).then(|| line.trim_end().to_string())
}
