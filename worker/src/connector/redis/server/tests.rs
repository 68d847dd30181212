//! What a server's answers mean, against one that says what the test wants.

use super::super::row::tests::options;
use super::*;
use crate::connector::delivery::Parcel;
use crate::connector::stdout::tests::place;
use crate::secrets::Secrets;
use ef_proto::connector::RedisMode;
use ef_proto::secret::Template;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};

/// Answers each command by what `answer` says to its words, and tells them. None: it hangs up.
fn fake(answer: impl Fn(&[String]) -> Option<String> + Send + 'static) -> (u16, Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (say, said) = sync_channel(1_000);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = BufReader::new(socket.expect("a connection"));
            while let Some(words) = take(&mut socket) {
                let answered = answer(&words);
                // The test may have seen enough.
                let _ = say.send(words);
                match answered {
                    Some(text) => socket.get_mut().write_all(text.as_bytes()).unwrap_or_default(),
                    None => break,
                }
            }
        }
    });
    (port, said)
}

fn take(socket: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    fn number(socket: &mut BufReader<TcpStream>) -> Option<usize> {
        let mut line = String::new();
        socket.read_line(&mut line).ok()?;
        line.get(1..)?.trim().parse().ok()
    }
    (0..number(socket)?)
        .map(|_| {
            let mut bytes = vec![0; number(socket)? + 2];
            socket.read_exact(&mut bytes).ok()?;
            bytes.truncate(bytes.len() - 2);
            String::from_utf8(bytes).ok()
        })
        .collect()
}

/// What any server says to what comes before the first batch.
fn polite(words: &[String]) -> Option<String> {
    Some(match (words[0].as_str(), words.get(1).map(String::as_str)) {
        ("CLIENT", Some("ID")) => ":7\r\n".into(),
        ("CLIENT", Some("LIST")) => "$11\r\nid=7 name=\n\r\n".into(),
        _ => "+OK\r\n".into(),
    })
}

fn server(port: u16) -> Server {
    let options = options(RedisMode::Hash).server;
    Server::new(&RedisServer { port, ..options }, &place()).expect("no secrets are needed")
}

fn batch(commands: &[&[&str]]) -> Batch {
    let mut pending = super::super::pending::Pending::new(false);
    for words in commands {
        pending.add(b"", |out| {
            command::begin(out, words.len());
            words.iter().for_each(|text| command::word(out, text.as_bytes()));
            1
        });
    }
    pending.take()
}

#[test]
fn batch_is_delivered_over_one_connection_that_has_a_name() {
    let (port, said) = fake(polite);
    let mut server = server(port);
    for value in ["1", "2"] {
        let outcome = server.carry(&batch(&[&["SET", "k", value], &["DEL", "l"]]));
        assert!(matches!(outcome, Outcome::Delivered), "{outcome:?}");
    }
    let said: Vec<Vec<String>> = said.try_iter().filter(|words| words.get(1).is_none_or(|w| w != "SETINFO")).collect();
    let first: Vec<&str> = said.iter().map(|words| words[0].as_str()).collect();
    assert_eq!(first, ["CLIENT", "CLIENT", "CLIENT", "SET", "DEL", "SET", "DEL"]);
    assert!(said[0][2].starts_with("edgeflow:"), "{said:?}");
}

#[test]
fn refusals_name_the_key_and_only_some_pass() {
    for (answer, passes, expected) in [
        ("-WRONGTYPE Operation against a key holding the wrong kind of value", false, "HSET of key `k`: WRONGTYPE"),
        ("-OOM command not allowed when used memory > 'maxmemory'.", false, "HSET of key `k`: OOM command not allowed"),
        ("-NOPERM this user has no permissions to run 'hset'", false, "expected a 'username' and 'password'"),
        ("-MOVED 12182 127.0.0.1:7001", false, "a Redis Cluster is not supported"),
        ("-LOADING Redis is loading the dataset in memory", true, "LOADING"),
        ("-READONLY You can't write against a read only replica.", true, "READONLY"),
        ("-MISCONF Redis is configured to save RDB snapshots", true, "MISCONF"),
    ] {
        let (port, _said) = fake(move |words| match words[0].as_str() {
            "HSET" => Some(format!("{answer}\r\n")),
            _ => polite(words),
        });
        let outcome = server(port).carry(&batch(&[&["SET", "a", "1"], &["HSET", "k", "f", "v"], &["SET", "b", "2"]]));
        let (found, text) = match outcome {
            Outcome::Retry { why, .. } => (true, why),
            Outcome::Failed(error) => (false, error.message),
            other => panic!("{answer}: {other:?}"),
        };
        assert!(found == passes && text.contains(expected), "{answer}: {text}");
        assert!(text.contains(&format!("redis 'redis://127.0.0.1:{port}/0'")), "{text}");
    }
}

#[test]
fn connection_that_breaks_is_made_anew_and_the_batch_sent_again() {
    let broken = std::sync::atomic::AtomicBool::new(false);
    let (port, _said) = fake(move |words| match words[0].as_str() {
        "SET" if !broken.swap(true, std::sync::atomic::Ordering::Relaxed) => None,
        _ => polite(words),
    });
    let mut server = server(port);
    let batch = batch(&[&["SET", "k", "1"]]);
    assert!(matches!(server.carry(&batch), Outcome::Retry { .. }));
    assert!(matches!(server.carry(&batch), Outcome::Delivered));
}

#[test]
fn server_that_says_nothing_is_given_up_after_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let options = options(RedisMode::Hash).server;
    let port = listener.local_addr().expect("bound").port();
    let options = RedisServer { port, connect_timeout_ms: 50, command_timeout_ms: 50, ..options };
    let mut server = Server::new(&options, &place()).expect("no secrets are needed");
    assert!(matches!(server.carry(&batch(&[&["SET", "k", "1"]])), Outcome::Retry { .. }));
}

#[test]
fn earlier_deployments_are_cut_off_and_a_newer_one_is_given_way() {
    for (incarnation, gives_way) in [(0, false), (2, true)] {
        let job = place();
        let family = hash_bytes(format!("{}/{}", job.job, job.operator).as_bytes());
        let other = Name { family, incarnation, subtask: 5 };
        let (port, said) = fake(move |words| match words.get(1).map(String::as_str) {
            Some("LIST") => {
                let list = format!("id=3 name={other} x=y\n");
                Some(format!("${}\r\n{list}\r\n", list.len()))
            }
            _ => polite(words),
        });
        let outcome = server(port).carry(&batch(&[&["SET", "k", "1"]]));
        let killed = said.try_iter().any(|words| words[1..].iter().map(String::as_str).eq(["KILL", "ID", "3"]));
        match outcome {
            Outcome::Delivered => assert!(killed && !gives_way),
            Outcome::Failed(error) => {
                assert!(gives_way && !killed && error.code == Code::Conflict, "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn wrong_password_is_an_error_that_does_not_show_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("pw"), "hunter2").expect("it is ours");
    let (port, _said) = fake(|words| match words[0].as_str() {
        "AUTH" => Some(format!("-WRONGPASS invalid password {}\r\n", words[1])),
        _ => polite(words),
    });
    let password = Some(Template::parse("${secret:pw}").expect("well-formed"));
    let options = RedisServer { port, password, ..options(RedisMode::Hash).server };
    let place = Place { secrets: Secrets::new(Some(directory.path().into())), ..place() };
    let outcome = Server::new(&options, &place).expect("the secret is there").carry(&batch(&[&["SET", "k", "1"]]));
    let Outcome::Failed(error) = outcome else { panic!("{outcome:?}") };
    assert!(error.message.contains("authentication failed") && !error.message.contains("hunter2"), "{error}");

    let missing = Some(Template::parse("${secret:none}").expect("well-formed"));
    let error = Server::new(&RedisServer { password: missing, ..options }, &place).err().expect("told at the start");
    assert!(error.message.contains("secret 'none'"), "{error}");
}

#[test]
fn address_that_nobody_may_reach_is_refused() {
    let options = RedisServer { host: "169.254.169.254".into(), ..options(RedisMode::Hash).server };
    let mut server = Server::new(&options, &place()).expect("no secrets are needed");
    let outcome = server.carry(&batch(&[&["SET", "k", "1"]]));
    let Outcome::Failed(error) = outcome else { panic!("{outcome:?}") };
    assert!(error.message.contains("169.254.169.254"), "{error}");
    assert_eq!(batch(&[&["A"]]).rows(), 1);
}
