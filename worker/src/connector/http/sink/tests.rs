//! Rows through the sink to a service that makes trouble.

use super::super::testing::*;
use super::*;
use crate::connector::stdout::tests::place;
use arrow_array::{ArrayRef, Int64Array};
use ef_proto::connector::{Format, HttpBody, Json, OnClientError, OnError, SinkConnector, TimestampFormat};
use ef_proto::schema::{DataType, Field};
use std::sync::Arc;

fn schema() -> Schema {
    Schema::new(vec![Field::new("n", DataType::Int64, true)])
}

fn open(options: Options) -> HttpSink {
    let json = Json { on_error: OnError::Fail, timestamps: TimestampFormat::Sql };
    let sink = plan::Sink {
        table: "t".into(),
        connector: SinkConnector::Http(options.clone()),
        format: Some(Format::Json(json)),
        changelog: false,
        keys: vec![],
    };
    HttpSink::open(&options, &sink, &schema(), &place(), None).expect("it opens")
}

fn rows(numbers: std::ops::Range<i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
    RecordBatch::try_new(schema().to_arrow(), vec![column]).expect("the column matches")
}

#[test]
fn every_row_arrives_in_order_whatever_the_service_does_and_retries_keep_their_key() {
    let (url, said) = service(|count, _| match count % 5 {
        0 => Does::Says(503, "retry-after: 0\r\n", String::new()),
        1 => Does::HangsUp,
        2 => Does::BreaksOff,
        3 => Does::Says(429, "", String::new()),
        _ => ok(),
    });
    let mut sink = open(Options { body: HttpBody::Lines, ..options(&url) });
    sink.write(&rows(0..5)).expect("queued");
    assert_eq!(sink.prepare(Epoch(1)).expect("delivered"), Vec::<u8>::new());
    let got: Vec<Got> = said.try_iter().collect();
    assert_eq!(got.len(), 15, "three requests, each delivered at the fifth attempt");
    for attempts in got.chunks(5) {
        let first = (&attempts[0].body, &attempts[0].headers["idempotency-key"]);
        assert!(attempts.iter().all(|got| (&got.body, &got.headers["idempotency-key"]) == first), "{attempts:?}");
    }
    let arrived: String = got.chunks(5).map(|attempts| attempts[4].body.as_str()).collect();
    assert_eq!(arrived, "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n");
    assert_eq!(sink.bytes_written(), arrived.len() as u64);
}

#[test]
fn rows_wait_no_longer_than_the_interval() {
    let (url, said) = service(|_, _| ok());
    let mut sink = open(Options { batch_rows: 100, ..options(&url) });
    sink.on_clock(10_000).expect("nothing waits");
    sink.write(&rows(0..1)).expect("gathered");
    sink.on_clock(10_999).expect("not yet");
    assert_eq!(said.try_iter().count(), 0);
    sink.on_clock(11_000).expect("sent");
    assert_eq!(said.recv().expect("it came").body, "[{\"n\":0}]");
}

#[test]
fn refused_rows_are_counted_and_the_rest_arrives() {
    let (url, said) = service(|_, got| match got.body.contains(":2}") {
        true => Does::Says(400, "", "no".into()),
        false => ok(),
    });
    let mut sink = open(Options { on_client_error: OnClientError::Drop, ..options(&url) });
    sink.write(&rows(0..6)).expect("queued");
    sink.prepare(Epoch(1)).expect("the job goes on");
    assert_eq!((sink.rows_dropped(), said.try_iter().count()), (2, 3));
}

#[test]
fn refusal_fails_the_next_call_whichever_it_is() {
    let (url, _said) = service(|_, _| Does::Says(401, "", String::new()));
    let mut sink = open(options(&url));
    sink.write(&rows(0..2)).expect("queued");
    let error = sink.prepare(Epoch(1)).expect_err("refused");
    assert!(error.message.contains("401 Unauthorized"), "{error}");
    assert_eq!(sink.on_clock(0).expect_err("still"), error);
}

#[test]
fn checkpoint_that_waits_for_the_service_ends_when_the_task_is_told_to_leave() {
    let (url, said) = service(|_, _| Does::Says(503, "", String::new()));
    let mut sink = open(options(&url));
    sink.write(&rows(0..2)).expect("queued");
    let interrupt = sink.interrupt().expect("it waits for a server");
    let waiting = std::thread::spawn(move || sink.prepare(Epoch(1)));
    said.recv().expect("an attempt");
    interrupt();
    assert!(waiting.join().expect("no panic").is_err());
}
