//! Against a server of the test's own on loopback: what it is asked, and what becomes of its answers.

use super::*;
use crate::connector::stdout::tests::place;
use crate::secrets::Secrets;
use crate::testing::Nobody;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const OPEN: Guard = Guard { denies_private: false };

/// Answers with what `answer` says to `METHOD path body`; keeps the requests.
struct Server {
    url: String,
    heard: Arc<Mutex<Vec<String>>>,
}

fn serve(answer: impl Fn(&str, usize) -> (u16, String) + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    // It ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Some(request) = request(&stream) else { continue };
            let count = {
                let mut log = log.lock().expect("whole");
                log.push(request.clone());
                log.len()
            };
            let (status, body) = answer(&request, count);
            let length = body.len();
            let _ =
                write!(&stream, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        }
    });
    Server { url, heard }
}

/// First line, credentials, body.
fn request(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let (mut length, mut auth) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if lower.starts_with("authorization:") {
            auth = format!(" [{}]", line.trim()["authorization:".len()..].trim());
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let first = first.trim().strip_suffix(" HTTP/1.1")?;
    Some(format!("{first}{auth} {}", String::from_utf8_lossy(&body)).trim().to_owned())
}

fn options(url: &str, auth: RegistryAuth) -> AvroConfluent {
    let avro = ef_proto::connector::Avro { on_error: ef_proto::connector::OnError::Fail, legacy_timestamps: true };
    AvroConfluent { avro, url: url.into(), subject: Some("a/b-value".into()), auth }
}

fn open(url: &str) -> Result<Http> {
    Http::open(&options(url, RegistryAuth::None), &place(), OPEN)
}

#[test]
fn schemas_are_fetched_and_registered() {
    let server = serve(|request, _| match request {
        "GET /schemas/types" => (200, "[\"AVRO\"]".into()),
        "GET /schemas/ids/7" => (200, r#"{"schema":"\"string\""}"#.into()),
        "GET /schemas/ids/8" => (200, r#"{"schemaType":"PROTOBUF","schema":"x"}"#.into()),
        "GET /schemas/ids/9" => (200, r#"{"schema":"x","references":[{"name":"y"}]}"#.into()),
        request if request.starts_with("POST /subjects/a%2Fb-value/versions") => (200, r#"{"id":12}"#.into()),
        _ => (404, r#"{"error_code":40403,"message":"Schema not found"}"#.into()),
    });
    let mut http = open(&server.url).expect("it answers");
    assert_eq!(http.schema(7), Ok("\"string\"".to_owned()));
    assert_eq!(http.register("a/b-value", "\"long\""), Ok(12));
    for (id, says) in [(8, "PROTOBUF"), (9, "refers to other schemas"), (10, "there is none")] {
        for _ in 0..3 {
            let Err(RegistryError::Refused(what)) = http.schema(id) else { panic!("schema {id}") };
            assert!(what.contains(says), "{what}");
        }
    }
    let heard = server.heard.lock().unwrap().clone();
    assert!(heard[2].ends_with(r#"{"schema":"\"long\""}"#), "{heard:?}");
    assert_eq!(heard.len(), 6, "what it does not have is asked for once: {heard:?}");
}

#[test]
fn one_that_is_down_is_named_when_the_job_starts() {
    let gone = Nobody::here();
    let error = open(&format!("http://{}", gone.address)).err().expect("nobody is there");
    assert_eq!(error.code, Code::Unavailable);
    let expected = format!("table `t`: schema registry http://{}: ", gone.address);
    assert!(error.message.starts_with(&expected) && error.message.contains("refused"), "{}", error.message);
}

#[test]
fn one_that_nobody_may_reach_is_not_asked() {
    let server = serve(|_, _| (200, "[]".into()));
    let closed = Guard { denies_private: true };
    let by_name = server.url.replace("127.0.0.1", "localhost");
    for url in [server.url.as_str(), by_name.as_str(), "http://169.254.169.254"] {
        let error = Http::open(&options(url, RegistryAuth::None), &place(), closed).err().expect("it is denied");
        let expected = "which this worker does not speak to";
        assert!(error.code == Code::Invalid && error.message.contains(expected), "{}", error.message);
    }
    assert!(server.heard.lock().unwrap().is_empty());
}

#[test]
fn trouble_is_asked_again_and_then_told() {
    let server = serve(|request, count| match (request, count) {
        ("GET /schemas/types", _) => (200, "[]".into()),
        ("GET /schemas/ids/1", 2 | 3) => (503, "not yet".into()),
        ("GET /schemas/ids/1", _) => (200, r#"{"schema":"{}"}"#.into()),
        _ => (500, r#"{"message":"the store is away"}"#.into()),
    });
    let mut http = open(&server.url).expect("it answers");
    assert_eq!(http.schema(1), Ok("{}".to_owned()));
    assert_eq!(server.heard.lock().unwrap().len(), 4);
    let Err(RegistryError::Unavailable(what)) = http.schema(2) else { panic!("no answer is no schema") };
    assert!(what.contains("500") && what.contains("the store is away"), "{what}");
    assert_eq!(server.heard.lock().unwrap().len(), 4 + TRIES as usize);
}

#[test]
fn credentials_come_from_secrets_and_are_told_when_refused() {
    let server = serve(|request, _| match request.contains("[Basic dTpw]") {
        true => (200, "[]".into()),
        false => (401, "{}".into()),
    });
    let error = open(&server.url).err().expect("without credentials");
    assert!(error.code == Code::Invalid && error.message.contains("401"), "{}", error.message);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("registry"), "u:p\n").unwrap();
    let place = Place { secrets: Secrets::new(Some(folder.path().to_path_buf())), ..place() };
    let user = ef_proto::secret::Template::parse("${secret:registry}").unwrap();
    assert!(Http::open(&options(&server.url, RegistryAuth::Basic(user.clone())), &place, OPEN).is_ok());
    std::fs::write(folder.path().join("registry"), "u").unwrap();
    let error = Http::open(&options(&server.url, RegistryAuth::Basic(user)), &place, OPEN).err().unwrap();
    assert!(error.message.contains("user:password"), "{}", error.message);
}
