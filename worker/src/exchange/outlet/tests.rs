//! Credit, order and ends of a sending channel, stepped by hand.

use super::super::codec::Compression;
use super::*;
use crate::error::Code;
use arrow_array::{Array, ArrayRef, Int64Array, StringArray};
use ef_proto::ids::Epoch;

const CREDIT: usize = 100_000;

fn batch(rows: usize) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    RecordBatch::try_from_iter([("x", column)]).expect("one column")
}

fn remote() -> Remote {
    let encoder = Encoder::new(batch(1).schema(), Compression::None).expect("an integer");
    Remote::new(Outlet::new(CREDIT), Arc::new(Mutex::new(encoder)))
}

fn next(outlet: &Outlet) -> Poll<Option<Body>> {
    outlet.poll_frame(&mut Context::from_waker(Waker::noop()))
}

/// All frames that are ready, by their kind.
fn ready(outlet: &Outlet) -> Vec<String> {
    std::iter::from_fn(|| match next(outlet) {
        Poll::Ready(Some(Body::Data(_))) => Some("data".to_string()),
        Poll::Ready(Some(Body::WatermarkMs(at))) => Some(format!("watermark {at}")),
        Poll::Ready(Some(Body::Barrier(barrier))) => Some(format!("barrier {}", barrier.epoch)),
        Poll::Ready(Some(Body::Idle(_))) => Some("idle".to_string()),
        Poll::Ready(Some(Body::End(_))) => Some("end".to_string()),
        Poll::Ready(Some(Body::Left(_))) => Some("left".to_string()),
        Poll::Ready(Some(Body::Open(_))) => Some("open".to_string()),
        Poll::Ready(None) | Poll::Pending => None,
    })
    .collect()
}

fn barrier(epoch: u64) -> Frame {
    Frame::Barrier(Barrier { epoch: Epoch(epoch), completed: Epoch(0) })
}

#[test]
fn nothing_travels_before_the_receiver_has_found_its_gate() {
    let remote = remote();
    remote.send(Frame::Data(batch(10))).expect("within the credit");
    assert!(next(&remote.outlet).is_pending());
    remote.outlet.accept();
    assert_eq!(ready(&remote.outlet), ["data"]);
}

#[test]
fn sender_over_its_credit_waits_until_the_task_has_taken_enough() {
    let remote = remote();
    let outlet = remote.outlet();
    outlet.accept();
    // More than the whole credit, into an empty channel.
    remote.send(Frame::Data(batch(CREDIT))).expect("nothing is in flight");
    let first = outlet.in_flight();
    assert!(first > CREDIT as u64);
    remote.send(barrier(1)).expect("costs nothing");
    let waiting = std::thread::spawn(move || remote.send(Frame::Data(batch(10))).map(|()| remote));
    while !outlet.lock().sender_waits {
        std::thread::yield_now();
    }
    outlet.taken(first / 2);
    assert_eq!(outlet.in_flight(), first - first / 2, "the second frame is not in");
    outlet.taken(first);
    let remote = waiting.join().expect("no panic").expect("there is credit");
    assert!((1..1000).contains(&outlet.in_flight()));
    assert_eq!(ready(&outlet), ["data", "barrier 1", "data"]);
    drop(remote);
}

#[test]
fn watermarks_and_idle_marks_that_have_not_left_give_way_to_newer_ones() {
    let remote = remote();
    let data = || Frame::Data(batch(1));
    let frames = [
        Frame::Watermark(1),
        Frame::Watermark(2),
        Frame::Idle,
        Frame::Idle,
        Frame::Watermark(3),
        barrier(1),
        Frame::Watermark(4),
        Frame::Idle,
        data(),
        Frame::Watermark(5),
        Frame::Watermark(6),
        Frame::End,
    ];
    frames.into_iter().for_each(|frame| remote.send(frame).expect("open"));
    remote.outlet.accept();
    let sent = ["watermark 3", "barrier 1", "watermark 4", "idle", "data", "watermark 6", "end"];
    assert_eq!(ready(&remote.outlet), sent);
    assert_eq!(next(&remote.outlet), Poll::Ready(None));
}

#[test]
fn task_that_leaves_before_its_end_says_so_and_one_that_has_ended_leaves_nothing_behind() {
    let early = remote();
    let outlet = early.outlet();
    outlet.accept();
    early.send(Frame::Data(batch(1))).expect("open");
    drop(early);
    assert_eq!(ready(&outlet), ["left"]);
    assert_eq!(next(&outlet), Poll::Ready(None));

    let never_accepted = remote();
    let outlet = never_accepted.outlet();
    never_accepted.send(Frame::Data(batch(1))).expect("open");
    drop(never_accepted);
    assert_eq!(ready(&outlet), ["left"], "the gate may just have been found");
    assert_eq!(next(&outlet), Poll::Ready(None));

    let ended = remote();
    let outlet = ended.outlet();
    ended.send(Frame::Data(batch(1))).expect("open");
    ended.send(Frame::End).expect("open");
    drop(ended);
    outlet.accept();
    assert_eq!(ready(&outlet), ["data", "end"]);
}

/// A task in `send`, over its credit.
fn waiting(outlet: &Arc<Outlet>, remote: Remote) -> std::thread::JoinHandle<Result<(), SendError>> {
    remote.send(Frame::Data(batch(CREDIT))).expect("nothing is in flight");
    let waiting = std::thread::spawn(move || remote.send(Frame::Data(batch(CREDIT))));
    while !outlet.lock().sender_waits {
        std::thread::yield_now();
    }
    waiting
}

#[test]
fn waiting_sender_is_freed_by_cancel_by_a_receiver_that_leaves_and_by_a_break() {
    let broken = Error::new(Code::Unavailable, "cut");
    let frees: [(&dyn Fn(&Outlet), SendError); 3] = [
        (&|outlet| outlet.leave(), SendError::Closed),
        (&|outlet| outlet.close(), SendError::Closed),
        (&|outlet| outlet.fail(Error::new(Code::Unavailable, "cut")), SendError::Failed(broken)),
    ];
    for (free, expected) in frees {
        let remote = remote();
        let outlet = remote.outlet();
        let waiting = waiting(&outlet, remote);
        free(&outlet);
        assert_eq!(waiting.join().expect("no panic"), Err(expected));
    }
}

#[test]
fn batch_too_large_for_one_message_goes_in_parts_with_all_its_rows() {
    let remote = remote();
    let outlet = remote.outlet();
    outlet.accept();
    // 8 bytes a row: 80 MB, in halves of 40.
    let rows = 10_000_000;
    let sending = std::thread::spawn(move || remote.send(Frame::Data(batch(rows))));
    let (mut parts, mut bytes) = (0, 0);
    while parts < 2 {
        match next(&outlet) {
            Poll::Ready(Some(Body::Data(data))) => {
                assert!(data.body.len() <= BATCH_BYTES_MAX);
                (parts, bytes) = (parts + 1, bytes + data.body.len());
                outlet.taken(u64::MAX);
            }
            Poll::Pending => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sending.join().expect("no panic"), Ok(()));
    assert_eq!(bytes, rows * 8);
}

#[test]
fn part_of_a_shared_buffer_takes_credit_for_what_it_is_on_the_wire() {
    let texts =
        StringArray::from_iter_values((0..1000).map(|i| if i == 0 { "x".repeat(1 << 20) } else { String::new() }));
    let whole = RecordBatch::try_from_iter([("t", Arc::new(texts) as ArrayRef)]).expect("one column");
    let encoder = Encoder::new(whole.schema(), Compression::None).expect("texts");
    let remote = Remote::new(Outlet::new(CREDIT), Arc::new(Mutex::new(encoder)));
    remote.data(whole.slice(0, 10), 100).expect("nothing is in flight");
    assert!(remote.outlet.in_flight() > 1 << 20, "{}", remote.outlet.in_flight());
    assert_eq!(whole.column(0).len(), 1000);
}
