//! Two exchanges in one process, over loopback: order and content, credit, ends of all kinds, and cut connections.

mod proxy;

use super::super::codec::tests::random_batch;
use super::super::codec::{Compression, Encoder, Payload};
use super::super::{Gate, Incoming, Received, SendError, gate};
use super::*;
use crate::error::{Code, Error};
use crate::frame::{Barrier, Frame};
use crate::testing::Nobody;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::SchemaRef;
use ef_proto::ids::{Epoch, Incarnation, JobId, OperatorId};
use ef_proto::wire::generated::exchange as wire;
use ef_proto::wire::generated::exchange::exchange_client::ExchangeClient;
use ef_proto::wire::generated::exchange::frame::Body;
use proxy::Proxy;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Longer than anything takes that is to happen.
const LONG: Duration = Duration::from_secs(20);

/// So soon that a test can wait for it.
const SHORT: Duration = Duration::from_millis(300);

/// Nothing of this ends while a test goes well.
fn timing() -> Timing {
    Timing { keepalive_interval: LONG, keepalive_timeout: LONG, connect: LONG, deploy: LONG }
}

/// For tests of silent connections.
fn watchful() -> Timing {
    Timing { keepalive_interval: Duration::from_millis(200), keepalive_timeout: SHORT, ..timing() }
}

/// A worker that receives and one that sends.
struct Two {
    receiver: Arc<Exchange>,
    sender: Arc<Exchange>,
    // Last: it outlives what runs on it.
    runtime: Runtime,
}

fn exchange(runtime: &Runtime, listen: SocketAddr, timing: Timing) -> Arc<Exchange> {
    let _inside = runtime.enter();
    Exchange::start_with(listen, timing).expect("a free port")
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn two() -> Two {
    two_with(timing())
}

fn two_with(timing: Timing) -> Two {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let [receiver, sender] = [(); 2].map(|()| exchange(&runtime, loopback(), timing));
    Two { receiver, sender, runtime }
}

fn deployment(incarnation: u64) -> DeploymentId {
    DeploymentId { job: JobId("job".into()), region: 0, incarnation: Incarnation(incarnation) }
}

fn task(operator: u64) -> SubtaskId {
    SubtaskId { operator: OperatorId(operator), index: 0 }
}

fn numbers(rows: i64) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    RecordBatch::try_from_iter([("x", column)]).expect("one column")
}

impl Two {
    /// A gate of `channels` channels from elsewhere for each of these tasks, all registered.
    fn gates(
        &self,
        id: &DeploymentId,
        tasks: &[u64],
        channels: usize,
        schema: SchemaRef,
    ) -> (Vec<Gate<()>>, Registration) {
        let gates: Vec<Gate<()>> = tasks.iter().map(|_| gate(channels, CHANNEL_CREDIT_BYTES)).collect();
        let incoming = Some(Incoming { schema, from: "Source(t)/0 on worker w1".into() });
        let inbound = tasks.iter().zip(&gates).map(|(operator, gate)| {
            (task(*operator), Inbound { inlet: gate.inlet(), channels: vec![incoming.clone(); channels] })
        });
        let registration = self.receiver.register(id, inbound.collect()).expect("a new incarnation");
        (gates, registration)
    }

    fn gate(&self) -> (Gate<()>, Registration) {
        let (mut gates, registration) = self.gates(&deployment(1), &[1], 1, numbers(1).schema());
        (gates.remove(0), registration)
    }

    fn dial(&self, id: &DeploymentId, to: SubtaskId, channel: usize, address: SocketAddr, encoder: Encoder) -> Remote {
        let name = format!("Sink(t)/{} on worker w2", to.index);
        let dial = Dial { deployment: id.clone(), to, channel, address: address.to_string(), name };
        self.sender.dial(dial, Arc::new(Mutex::new(encoder)))
    }

    fn remote(&self) -> Remote {
        self.remote_by(self.receiver.local_addr())
    }

    fn remote_by(&self, address: SocketAddr) -> Remote {
        self.dial(&deployment(1), task(1), 0, address, encoder())
    }
}

fn encoder() -> Encoder {
    Encoder::new(numbers(1).schema(), Compression::None).expect("an integer")
}

fn next(gate: &Gate<()>) -> Received<()> {
    gate.receive(&|_| false, LONG)
}

/// The next rows' number; panics at anything else.
fn rows(gate: &Gate<()>) -> usize {
    match next(gate) {
        Received::Frame(_, Frame::Data(batch)) => batch.num_rows(),
        other => panic!("{other:?}"),
    }
}

/// What a task gets that sends until it cannot.
fn send_on(remote: &Remote) -> SendError {
    loop {
        if let Err(error) = remote.send(Frame::Data(numbers(100_000))) {
            return error;
        }
    }
}

fn reason(error: SendError) -> String {
    match error {
        SendError::Failed(Error { code: Code::Unavailable, message }) => message,
        other => panic!("{other:?}"),
    }
}

fn failure(gate: &Gate<()>) -> String {
    match next(gate) {
        Received::Failed(Error { code: Code::Unavailable, message }) => message,
        other => panic!("{other:?}"),
    }
}

fn barrier(i: usize) -> Barrier {
    Barrier { epoch: Epoch(i as u64 + 1), completed: Epoch(i as u64) }
}

#[test]
fn frames_arrive_in_order_with_equal_content() {
    for (seed, compression) in [(1, Compression::None), (2, Compression::Lz4), (3, Compression::Zstd)] {
        let two = two();
        let rng = &mut SmallRng::seed_from_u64(seed);
        let first = random_batch(100, rng);
        let batches: Vec<RecordBatch> = (0..30).map(|i| first.slice(i, 2 * i)).chain([first.clone()]).collect();
        let (gates, _registration) = two.gates(&deployment(1), &[1], 1, first.schema());
        let encoder = Encoder::new(first.schema(), compression).expect("SQL types");
        let remote = two.dial(&deployment(1), task(1), 0, two.receiver.local_addr(), encoder);
        let sent = batches.clone();
        let sending = std::thread::spawn(move || {
            for (i, batch) in sent.into_iter().enumerate() {
                remote.send(Frame::Data(batch))?;
                remote.send(Frame::Barrier(barrier(i)))?;
            }
            remote.send(Frame::Watermark(-5))?;
            remote.send(Frame::Idle)?;
            remote.send(Frame::End)?;
            Ok::<_, SendError>(remote)
        });
        for (i, batch) in batches.iter().enumerate() {
            assert!(matches!(next(&gates[0]), Received::Frame(0, Frame::Data(read)) if read == *batch));
            assert!(matches!(next(&gates[0]), Received::Frame(0, Frame::Barrier(found)) if found == barrier(i)));
        }
        assert!(matches!(next(&gates[0]), Received::Frame(0, Frame::Watermark(-5))));
        assert!(matches!(next(&gates[0]), Received::Frame(0, Frame::Idle)));
        assert!(matches!(next(&gates[0]), Received::Frame(0, Frame::End)));
        sending.join().expect("no panic").expect("all sent");
    }
}

#[test]
fn channel_that_is_not_read_stalls_no_other_on_the_same_connection() {
    let two = two();
    let (gates, _registration) = two.gates(&deployment(1), &[1, 2], 1, numbers(1).schema());
    let dial = |operator| two.dial(&deployment(1), task(operator), 0, two.receiver.local_addr(), encoder());
    let (slow, quick) = (dial(1), dial(2));
    let stuck = slow.outlet();
    let flooding = std::thread::spawn(move || send_on(&slow));
    // More than all windows of HTTP/2 together.
    let batches = (2 * CONNECTION_WINDOW_BYTES as usize / 800_000) + 10;
    let sending = std::thread::spawn(move || {
        (0..batches).try_for_each(|_| quick.send(Frame::Data(numbers(100_000))))?;
        quick.send(Frame::End)
    });
    for _ in 0..batches {
        assert_eq!(rows(&gates[1]), 100_000);
    }
    sending.join().expect("no panic").expect("all sent");
    assert!(stuck.in_flight() <= CHANNEL_CREDIT_BYTES as u64);
    drop(gates);
    assert_eq!(flooding.join().expect("no panic"), SendError::Closed);
}

#[test]
fn what_is_in_flight_never_exceeds_the_credit() {
    let two = two();
    let (gate, _registration) = two.gate();
    let remote = two.remote();
    let outlet = remote.outlet();
    let sizes = [50_000, 400_000, 100, 200_000, 1_000_000, 7];
    let sending = std::thread::spawn(move || {
        for rows in sizes.iter().cycle().take(60) {
            remote.send(Frame::Data(numbers(*rows)))?;
        }
        remote.send(Frame::End)
    });
    let mut read = 0;
    loop {
        // The one frame of 8 MB may go alone.
        let in_flight = outlet.in_flight();
        assert!(in_flight <= CHANNEL_CREDIT_BYTES as u64 || in_flight >= 8_000_000);
        assert!(in_flight < 8_000_000 + 1_000);
        match next(&gate) {
            Received::Frame(_, Frame::Data(batch)) => read += batch.num_rows(),
            Received::Frame(_, Frame::End) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(read as i64, sizes.iter().sum::<i64>() * 10);
    sending.join().expect("no panic").expect("all sent");
}

#[test]
fn receiver_that_leaves_closes_the_channel_of_a_waiting_sender() {
    let two = two();
    let (gate, _registration) = two.gate();
    let remote = two.remote();
    let sending = std::thread::spawn(move || send_on(&remote));
    assert_eq!(rows(&gate), 100_000);
    drop(gate);
    assert_eq!(sending.join().expect("no panic"), SendError::Closed);
}

#[test]
fn sender_that_leaves_before_its_end_is_no_failure_of_the_receiver() {
    let two = two();
    let (gate, _registration) = two.gate();
    let proxy = Proxy::to(two.receiver.local_addr());
    let remote = two.remote_by(proxy.address());
    remote.send(Frame::Data(numbers(3))).expect("open");
    assert_eq!(rows(&gate), 3);
    let outlet = remote.outlet();
    drop(remote);
    // The call has it, too, until both sides are done.
    let is_over = |_| {
        assert!(matches!(gate.receive(&|_| false, SHORT), Received::Timeout));
        Arc::strong_count(&outlet) == 1
    };
    assert!((0..60).any(is_over), "the call goes on");
    // Nothing is left of the channel that could break.
    proxy.cut();
    assert!(matches!(gate.receive(&|_| false, SHORT), Received::Timeout));
}

/// Starts a channel by a proxy, breaks that, and gives both sides' reasons.
fn broken(how: impl FnOnce(&Proxy)) -> (String, String) {
    let two = two_with(watchful());
    let (gate, _registration) = two.gate();
    let proxy = Proxy::to(two.receiver.local_addr());
    let remote = two.remote_by(proxy.address());
    let sending = std::thread::spawn(move || send_on(&remote));
    assert_eq!(rows(&gate), 100_000);
    how(&proxy);
    let received = loop {
        match next(&gate) {
            Received::Frame(..) => {}
            Received::Failed(error) => break error.message,
            other => panic!("{other:?}"),
        }
    };
    (reason(sending.join().expect("no panic")), received)
}

#[test]
fn cut_connection_fails_both_sides_and_names_the_other() {
    let (sender, receiver) = broken(Proxy::cut);
    assert!(sender.contains("Sink(t)/0 on worker w2 at 127.0.0.1:"), "{sender}");
    assert!(receiver.contains("Source(t)/0 on worker w1"), "{receiver}");
}

#[test]
fn connection_that_is_dead_but_not_closed_fails_both_sides() {
    let (sender, receiver) = broken(Proxy::freeze);
    assert!(sender.contains("worker w2"), "{sender}");
    assert!(receiver.contains("worker w1"), "{receiver}");
}

#[test]
fn idle_connection_that_is_dead_but_not_closed_fails_the_receiver() {
    let two = two_with(watchful());
    let (gate, _registration) = two.gate();
    let proxy = Proxy::to(two.receiver.local_addr());
    let remote = two.remote_by(proxy.address());
    remote.send(Frame::Data(numbers(3))).expect("open");
    assert_eq!(rows(&gate), 3);
    proxy.freeze();
    assert!(failure(&gate).contains("worker w1"));
    assert!(reason(send_on(&remote)).contains("worker w2"));
}

#[test]
fn channels_after_a_break_have_a_connection_of_their_own() {
    let two = two();
    let (gates, _registration) = two.gates(&deployment(1), &[1, 2], 1, numbers(1).schema());
    let proxy = Proxy::to(two.receiver.local_addr());
    let broken = two.remote_by(proxy.address());
    broken.send(Frame::Data(numbers(3))).expect("open");
    assert_eq!(rows(&gates[0]), 3);
    proxy.cut();
    reason(send_on(&broken));
    // The first is still there, and its connection with it.
    let again = two.dial(&deployment(1), task(2), 0, proxy.address(), encoder());
    again.send(Frame::Data(numbers(5))).expect("open");
    assert_eq!(rows(&gates[1]), 5);
}

#[test]
fn call_of_an_older_incarnation_is_refused_at_once() {
    let two = two();
    let (_gates, _registration) = two.gates(&deployment(5), &[1], 1, numbers(1).schema());
    let old = two.dial(&deployment(4), task(1), 0, two.receiver.local_addr(), encoder());
    let reason = reason(send_on(&old));
    assert!(reason.contains("job/0#4 is over") && reason.contains("incarnation 5"), "{reason}");
}

#[test]
fn older_incarnation_cannot_be_registered_after_a_newer_one() {
    let two = two();
    let newer = two.receiver.register(&deployment(5), HashMap::new()).expect("the first");
    let older = two.receiver.register(&deployment(4), HashMap::new());
    assert!(older.is_err_and(|e| e.code == Code::Conflict));
    assert!(two.receiver.register(&deployment(5), HashMap::new()).is_err());
    drop(newer);
    two.receiver.register(&deployment(5), HashMap::new()).expect("it is over");
}

#[test]
fn second_call_for_a_channel_is_refused_and_the_first_goes_on() {
    let two = two();
    let (gate, _registration) = two.gate();
    let first = two.remote();
    first.send(Frame::Data(numbers(3))).expect("open");
    assert_eq!(rows(&gate), 3);
    assert!(reason(send_on(&two.remote())).contains("is open already"));
    first.send(Frame::Data(numbers(4))).expect("open");
    assert_eq!(rows(&gate), 4);
}

#[test]
fn call_waits_for_its_gate_and_not_for_ever() {
    let hasty = two_with(Timing { deploy: SHORT, ..timing() });
    assert!(reason(send_on(&hasty.remote())).contains("has not come to this worker within 0.3 s"));

    let two = two();
    let early = two.remote();
    early.send(Frame::Data(numbers(3))).expect("within the credit");
    // Another deployment first: the call looks, and waits on.
    let other = DeploymentId { region: 1, ..deployment(1) };
    let _other = two.receiver.register(&other, HashMap::new()).expect("the first");
    let (gate, _registration) = two.gate();
    assert_eq!(rows(&gate), 3);
}

#[test]
fn call_for_a_channel_that_is_not_there_is_refused() {
    let two = two();
    let (_gate, _registration) = two.gate();
    for (to, channel) in [(task(1), 1), (task(2), 0), (SubtaskId { operator: OperatorId(1), index: 9 }, 0)] {
        let remote = two.dial(&deployment(1), to, channel, two.receiver.local_addr(), encoder());
        assert!(reason(send_on(&remote)).contains("has no channel"));
    }
}

#[test]
fn peer_that_starts_late_is_reached_and_one_that_never_does_is_named() {
    let mut two = two();
    let late = Nobody::here();
    let remote = two.remote_by(late.address);
    remote.send(Frame::Data(numbers(3))).expect("within the credit");
    two.receiver = exchange(&two.runtime, late.address, timing());
    let (gate, _registration) = two.gate();
    assert_eq!(rows(&gate), 3);

    two.sender = exchange(&two.runtime, loopback(), Timing { connect: Duration::from_secs(2), ..timing() });
    let never = Nobody::here();
    let reason = reason(send_on(&two.remote_by(never.address)));
    assert!(reason.contains("cannot connect to 127.0.0.1:") && reason.contains("refused"), "{reason}");
}

/// Nobody would ever miss a channel that was never there, and the sender has nothing to send any more.
#[test]
fn task_hears_of_a_channel_that_breaks_after_its_end() {
    let two = two_with(Timing { connect: Duration::from_secs(2), ..timing() });
    let nobody = Nobody::here();
    let remote = two.remote_by(nobody.address);
    let gate = gate::<()>(0, 1);
    let sender = gate.sender(0);
    remote.outlet().on_break(Box::new(move |error| sender.fail(error)));
    remote.send(Frame::End).expect("open");
    assert!(failure(&gate).contains("cannot connect to 127.0.0.1:"));
}

#[test]
fn deployment_that_is_over_ends_its_calls_and_its_gates_are_found_no_more() {
    let two = two_with(Timing { deploy: Duration::from_secs(2), ..timing() });
    let (gate, registration) = two.gate();
    let remote = two.remote();
    remote.send(Frame::Data(numbers(3))).expect("open");
    assert_eq!(rows(&gate), 3);
    drop((gate, registration));
    assert_eq!(send_on(&remote), SendError::Closed);
    assert!(reason(send_on(&two.remote())).contains("has not come"));
}

/// A call by hand: the Open, then these frames.
fn call(two: &Two, bodies: Vec<Body>) -> tonic::Status {
    let open = wire::Open { job: "job".into(), region: 0, incarnation: 1, operator: 1, index: 0, channel: 0 };
    let frames: Vec<_> =
        [Body::Open(open)].into_iter().chain(bodies).map(|body| wire::Frame { body: Some(body) }).collect();
    let address = format!("http://{}", two.receiver.local_addr());
    two.runtime.block_on(async {
        let mut client = ExchangeClient::connect(address).await.expect("it listens");
        // Never ends by itself.
        let stream = futures::StreamExt::chain(futures::stream::iter(frames), futures::stream::pending());
        let mut answer = match client.channel(stream).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return status,
        };
        loop {
            match answer.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the call ended well"),
                Err(status) => return status,
            }
        }
    })
}

fn data(credit_bytes: u64) -> Body {
    let Payload { metadata, body } = encoder().encode(&numbers(10)).expect("encodes");
    Body::Data(wire::Data { metadata, body, credit_bytes })
}

#[test]
fn sender_that_breaks_the_protocol_fails_the_task_and_is_told_why() {
    let garbage = wire::Data { metadata: vec![1; 100].into(), body: vec![2; 100].into(), credit_bytes: 100 };
    let open = wire::Open { job: "job".into(), ..wire::Open::default() };
    let credit = CHANNEL_CREDIT_BYTES as u64;
    let wrongs = [
        (vec![Body::Data(garbage)], "not an Arrow message"),
        (vec![data(1)], "claims to take 1"),
        (vec![data(credit), data(credit), data(credit)], "more than twice its credit"),
        (vec![Body::Idle(wire::Nothing {}), Body::Open(open)], "a second Open"),
    ];
    for (bodies, expected) in wrongs {
        let two = two();
        let (gate, _registration) = two.gate();
        let status = call(&two, bodies);
        assert!(status.message().contains(expected), "{status:?}");
        let failed = loop {
            match next(&gate) {
                Received::Frame(..) => {}
                Received::Failed(error) => break error.message,
                other => panic!("{other:?}"),
            }
        };
        assert!(failed.contains(expected) && failed.contains("worker w1"), "{failed}");
    }
}
