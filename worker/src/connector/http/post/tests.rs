//! Answers and what they mean.

use super::super::body::Batch;
use super::super::testing::*;
use super::*;
use crate::connector::stdout::tests::place;
use crate::testing::Nobody;
use ef_proto::secret::Template;

const OPEN: Guard = Guard { denies_private: false };

fn request(body: &str) -> Request {
    let mut batch = Batch::new(HttpBody::Row, 1, 1 << 20, &place(), None);
    batch.push(body.as_bytes()).into_iter().flatten().next().expect("a row is a request")
}

fn outcome(options: &HttpSink) -> Outcome {
    Poster::new(options, &place(), OPEN).expect("it opens").carry(&request("{}"))
}

#[test]
fn statuses_decide() {
    for (status, expected) in [
        (200, Verdict::Delivered),
        (204, Verdict::Delivered),
        (301, Verdict::Elsewhere),
        (307, Verdict::Elsewhere),
        (400, Verdict::Refused),
        (401, Verdict::Refused),
        (404, Verdict::Refused),
        (408, Verdict::Again),
        (413, Verdict::Refused),
        (425, Verdict::Again),
        (429, Verdict::Again),
        (500, Verdict::Again),
        (503, Verdict::Again),
        (599, Verdict::Again),
    ] {
        assert_eq!(Verdict::of(StatusCode::from_u16(status).expect("a status")), expected, "{status}");
    }
}

#[test]
fn request_has_the_rows_the_headers_and_a_key() {
    let (url, said) = service(|_, _| ok());
    let (place, _directory) = place_with("hunter2");
    let header = |name: &str, value: &str| (name.to_owned(), Template::parse(value).expect("well-formed"));
    let headers = vec![header("Authorization", "Bearer ${secret:token}"), header("X-Plant", "a")];
    let options = HttpSink { headers, ..options(&format!("{url}?x=1")) };
    let request = request("{\"a\":1}");
    let mut poster = Poster::new(&options, &place, OPEN).expect("it opens");
    assert!(matches!(poster.carry(&request), Outcome::Delivered));
    let got = said.recv().expect("one came");
    assert_eq!((got.line.as_str(), got.body.as_str()), ("POST /in?x=1 HTTP/1.1", "{\"a\":1}"));
    for (name, value) in [
        ("authorization", "Bearer hunter2"),
        ("x-plant", "a"),
        ("content-type", "application/json"),
        ("idempotency-key", &request.key),
    ] {
        assert_eq!(got.headers.get(name).map(String::as_str), Some(value), "{got:?}");
    }
}

#[test]
fn what_passes_is_tried_again_and_what_does_not_is_told() {
    for (does, again, expected) in [
        (Does::Says(503, "retry-after: 7\r\n", "busy".into()), Some(Some(7_000)), "503 Service Unavailable: busy"),
        (Does::Says(429, "", String::new()), Some(None), "429 Too Many Requests"),
        (Does::HangsUp, Some(None), "POST 'http://127.0.0.1:"),
        (Does::BreaksOff, Some(None), "POST 'http://127.0.0.1:"),
        (Does::Waits, Some(None), "timed out"),
        (Does::Says(400, "", "no such column".into()), None, "400 Bad Request: no such column"),
        (Does::Says(302, "location: http://127.0.0.1/\r\n", String::new()), None, "redirects are not followed"),
    ] {
        let waits = matches!(does, Does::Waits);
        let (url, said) = service(move |_, _| does.clone());
        let defaults = options(&url);
        let request_timeout_ms = if waits { 1_000 } else { defaults.request_timeout_ms };
        let options = HttpSink { request_timeout_ms, ..defaults };
        match (outcome(&options), again) {
            (Outcome::Retry { why, after_ms }, Some(expected_ms)) => {
                assert!(why.contains(expected) && after_ms == expected_ms, "{expected}: {why} {after_ms:?}");
            }
            (Outcome::Failed(error), None) => assert!(error.message.contains(expected), "{error}"),
            (other, _) => panic!("{expected}: {other:?}"),
        }
        assert_eq!(said.try_iter().count(), 1, "{expected}: one attempt is one request");
    }
}

#[test]
fn refused_rows_are_dropped_only_where_the_table_says_so() {
    let (url, _said) = service(|_, _| Does::Says(422, "", "bad".into()));
    let options = HttpSink { on_client_error: OnClientError::Drop, ..options(&url) };
    match outcome(&options) {
        Outcome::Refused { why } => assert!(why.contains("422 Unprocessable Entity: bad"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn service_that_is_away_is_tried_again() {
    let nobody = Nobody::here();
    assert!(matches!(outcome(&options(&format!("http://{}/", nobody.address))), Outcome::Retry { .. }));
}

#[test]
fn secrets_are_in_no_text_even_if_the_service_repeats_them() {
    let (url, _said) = service(|_, got| Does::Says(403, "", format!("{} {:?}", got.line, got.headers)));
    let (place, _directory) = place_with("hunter2");
    let header = ("Authorization".to_owned(), Template::parse("Bearer ${secret:token}").expect("well-formed"));
    let options = HttpSink { headers: vec![header], ..options(&format!("{url}/${{secret:token}}")) };
    let mut poster = Poster::new(&options, &place, OPEN).expect("it opens");
    let Outcome::Failed(error) = poster.carry(&request("{}")) else { panic!("403 is final") };
    assert!(error.message.contains("403") && error.message.contains("${secret:token}"), "{error}");
    assert!(!error.message.contains("hunter2"), "{error}");
}

#[test]
fn addresses_that_nobody_may_reach_are_refused_by_number_and_by_name() {
    for url in ["http://169.254.169.254/latest", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/"] {
        let error = Poster::new(&options(url), &place(), OPEN).err().expect("refused");
        assert!(error.message.contains("which this worker does not speak to"), "{error}");
    }
    let (url, said) = service(|_, _| ok());
    let by_name = url.replace("127.0.0.1", "localhost");
    let closed = Guard { denies_private: true };
    let error = Poster::new(&options(&url), &place(), closed).err().expect("this machine is denied");
    assert!(error.message.contains("this machine or a private network"), "{error}");
    let outcome = Poster::new(&options(&by_name), &place(), closed).expect("not resolved yet").carry(&request("{}"));
    let Outcome::Failed(error) = outcome else { panic!("{outcome:?}") };
    assert!(error.message.contains("'localhost' has the address"), "{error}");
    assert_eq!(said.try_iter().count(), 0);
}

#[test]
fn addresses_are_checked_at_the_start() {
    let (place, _directory) = place_with("ftp://host");
    for (url, expected) in [
        ("${secret:token}", "expected http or https"),
        ("${secret:none}", "secret 'none'"),
        ("http://u:p@host/", "found a user before the host"),
        ("http://", "POST 'http://'"),
    ] {
        let error = Poster::new(&options(url), &place, OPEN).err().expect(url);
        assert!(error.message.contains(expected) && !error.message.contains("ftp://"), "{error}");
    }
}
