//! Workers against a leader that is only a mailbox, over real connections.

use super::*;
use crate::leader::Message;
use ef_proto::error::{Code, Error};
use ef_proto::ids::{DeploymentId, Incarnation, JobId, WorkerId};
use ef_proto::place::Tier;
use ef_proto::rpc::{Command, Deploy, Hello, Load, Order, OrderBody, Placement, Report};
use ef_proto::wire::generated::agent::agents_client::AgentsClient;
use ef_proto::wire::generated::agent::agents_server::AgentsServer;
use std::collections::BTreeMap;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};

pub(crate) fn hello(worker: &str) -> Hello {
    Hello {
        worker: WorkerId(worker.into()),
        boot: 1,
        version: "0.1.0".into(),
        tier: Tier::Gateway,
        site: "north".into(),
        labels: BTreeMap::from([("rack".into(), "7".into())]),
        slots: 2,
        memory_bytes: 1 << 30,
        data_address: "127.0.0.1:7000".into(),
        term: 3,
        deployments: Vec::new(),
    }
}

/// The rim on a free port, and the mailbox behind it.
struct Rig {
    mailbox: mpsc::Receiver<Message>,
    close: watch::Sender<bool>,
    address: String,
}

impl Rig {
    async fn new() -> Rig {
        let (sender, mailbox) = mpsc::channel(4);
        let (close, closing) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let agents = AgentsServer::new(Agents::new(Handle::new(sender), closing));
        let server = Server::builder().add_service(agents.max_decoding_message_size(REPORT_BYTES_MAX));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Rig { mailbox, close, address }
    }

    async fn next(&mut self) -> Message {
        self.mailbox.recv().await.expect("the rim is there")
    }

    /// Until the leader knows the worker.
    async fn connect(&mut self, name: &str) -> (Worker, mpsc::Sender<Order>, SessionId) {
        let mut worker = Worker::dial(&self.address).await;
        worker.say(&Report::Hello(hello(name))).await;
        match self.next().await {
            Message::Connected { session, hello: said, orders } => {
                assert_eq!(said, hello(name));
                (worker, orders, session)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn expect_disconnected(&mut self, name: &str, id: SessionId) {
        match self.next().await {
            Message::Disconnected { worker, session } => assert_eq!((worker.0.as_str(), session), (name, id)),
            other => panic!("{other:?}"),
        }
    }

    /// That nothing came before `name` connects: by then a message too many would be here.
    async fn expect_silence_until(&mut self, name: &str) -> (Worker, mpsc::Sender<Order>, SessionId) {
        self.connect(name).await
    }
}

struct Worker {
    reports: mpsc::Sender<wire::Report>,
    orders: Streaming<wire::Order>,
}

impl Worker {
    async fn dial(address: &str) -> Worker {
        let mut client: AgentsClient<Channel> = AgentsClient::connect(address.to_string()).await.expect("connects");
        let (reports, stream) = mpsc::channel(4);
        let orders = client.session(ReceiverStream::new(stream)).await.expect("the stream opens at once").into_inner();
        Worker { reports, orders }
    }

    async fn say(&mut self, report: &Report) {
        self.reports.send(report.into()).await.expect("the stream is open");
    }

    async fn order(&mut self) -> Option<Order> {
        let order = self.orders.message().await.expect("no status");
        order.map(|order| order.try_into().expect("decodes"))
    }

    /// The refusal that ends the stream.
    async fn refusal(mut self) -> (u64, Error) {
        let order = self.order().await.expect("an order");
        assert_eq!(self.order().await, None, "the stream ends behind it");
        match order.body {
            OrderBody::Refused(error) => (order.term, error),
            other => panic!("{other:?}"),
        }
    }
}

fn heartbeat(cpu_millis: u32) -> Report {
    Report::Heartbeat(Load { cpu_millis, ..Load::default() })
}

fn trigger(term: u64) -> Order {
    order(term, Command::Trigger { epoch: ef_proto::ids::Epoch(1) })
}

fn order(term: u64, command: Command) -> Order {
    let deployment = DeploymentId { job: JobId("j".into()), region: 0, incarnation: Incarnation(1) };
    Order { term, body: OrderBody::Command { deployment, command } }
}

#[tokio::test]
async fn reports_and_orders_pass_in_order_and_the_end_is_told_once() {
    let mut rig = Rig::new().await;
    let (mut worker, orders, first) = rig.connect("w").await;
    for term in [3, 4] {
        orders.try_send(trigger(term)).expect("room");
        assert_eq!(worker.order().await, Some(trigger(term)));
    }
    for load in 0..10 {
        worker.say(&heartbeat(load)).await;
        match rig.next().await {
            Message::Report { worker, session, report } => {
                assert_eq!((worker.0.as_str(), session, report), ("w", first, heartbeat(load)));
            }
            other => panic!("{other:?}"),
        }
    }
    // A clean end, and one without a word.
    let Worker { reports, orders: mut stream } = worker;
    drop(reports);
    rig.expect_disconnected("w", first).await;
    assert!(stream.message().await.expect("a clean end").is_none());
    let (worker, _orders, second) = rig.expect_silence_until("w").await;
    assert_ne!(first, second);
    drop(worker);
    rig.expect_disconnected("w", second).await;
    rig.expect_silence_until("other").await;
}

#[tokio::test]
async fn garbage_ends_the_session_with_a_refusal_that_names_it() {
    let mut rig = Rig::new().await;
    let (worker, orders, id) = rig.connect("w").await;
    orders.try_send(trigger(9)).expect("room");
    worker.reports.send(wire::Report { body: None }).await.expect("the stream is open");
    rig.expect_disconnected("w", id).await;
    let mut worker = worker;
    // The order may have been taken before or not; if it was, the refusal has its term.
    let (term, error) = match worker.order().await {
        Some(Order { term: 9, body: OrderBody::Command { .. } }) => {
            let (term, error) = worker.refusal().await;
            assert_eq!(term, 9);
            (term, error)
        }
        Some(Order { term, body: OrderBody::Refused(error) }) => (term, error),
        other => panic!("{other:?}"),
    };
    assert!(term >= 3 && error.code == Code::Invalid && error.message.contains("report.body"), "{error}");
    let (mut worker, _orders, id) = rig.expect_silence_until("w").await;
    worker.say(&Report::Hello(hello("w"))).await;
    rig.expect_disconnected("w", id).await;
    assert!(worker.refusal().await.1.message.contains("second Hello"));
    rig.expect_silence_until("other").await;
}

/// Bytes that are no report at all.
#[tokio::test]
async fn undecodable_bytes_are_refused_too() {
    use ef_proto::wire::generated::control::Job;
    let mut rig = Rig::new().await;
    let channel = Channel::from_shared(rig.address.clone()).expect("an address").connect().await.expect("connects");
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("ready");
    let (jobs, stream) = mpsc::channel(4);
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/edgeflow.agent.v1.Agents/Session");
    let codec = tonic_prost::ProstCodec::<Job, wire::Order>::default();
    let response = client.streaming(Request::new(ReceiverStream::new(stream)), path, codec).await;
    let mut orders = response.expect("the stream opens at once").into_inner();
    // Its first field is text, where a report has a message.
    jobs.send(Job { id: "\u{7f}".repeat(3), ..Job::default() }).await.expect("the stream is open");
    let order: Order = orders.message().await.expect("no status").expect("an order").try_into().expect("decodes");
    match order.body {
        OrderBody::Refused(error) => assert!(error.message.contains("does not decode"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(orders.message().await.expect("a clean end").is_none());
    rig.expect_silence_until("other").await;
}

#[tokio::test]
async fn only_a_hello_that_can_be_true_connects() {
    let mut rig = Rig::new().await;
    let mut worker = Worker::dial(&rig.address).await;
    worker.say(&heartbeat(1)).await;
    let (_, error) = worker.refusal().await;
    assert!(error.code == Code::Invalid && error.message.contains("not a heartbeat"), "{error}");
    let mut worker = Worker::dial(&rig.address).await;
    worker.say(&Report::Hello(Hello { slots: 0, ..hello("w") })).await;
    let (term, error) = worker.refusal().await;
    assert_eq!(term, 3, "a lower one would not be listened to");
    assert!(error.message.contains("`w`") && error.message.contains("slots"), "{error}");
    rig.expect_silence_until("w").await;
}

#[tokio::test]
async fn who_says_nothing_is_refused_after_a_while() {
    let mut rig = Rig::new().await;
    let worker = Worker::dial(&rig.address).await;
    let (_, error) = worker.refusal().await;
    assert!(error.message.contains("within 5 s"), "{error}");
    rig.expect_silence_until("w").await;
}

#[tokio::test]
async fn leader_refuses_with_an_order_and_by_letting_go() {
    let mut rig = Rig::new().await;
    let (worker, orders, id) = rig.connect("w").await;
    let error = Error::new(Code::Conflict, "another live worker is called `w`");
    orders.try_send(Order { term: 5, body: OrderBody::Refused(error.clone()) }).expect("room");
    drop(orders);
    assert_eq!(worker.refusal().await, (5, error));
    rig.expect_disconnected("w", id).await;
    rig.expect_silence_until("other").await;
}

#[tokio::test]
async fn worker_that_takes_no_orders_holds_up_nobody_and_can_be_dismissed() {
    let mut rig = Rig::new().await;
    let (slow, orders, id) = rig.connect("slow").await;
    let deploy = Deploy {
        plan: vec![7; 16 << 10],
        placement: Placement::default(),
        restore: None,
        state: String::new(),
        slots: 1,
        stop: None,
    };
    let big = order(3, Command::Deploy(Box::new(deploy)));
    // Until the connection's buffers and the queue are full.
    let mut sent = 0;
    while orders.try_send(big.clone()).is_ok() {
        sent += 1;
        assert!(sent < 100_000, "the queue has no bound");
        tokio::task::yield_now().await;
    }
    let (mut quick, quick_orders, _) = rig.connect("quick").await;
    quick_orders.try_send(trigger(3)).expect("room");
    assert_eq!(quick.order().await, Some(trigger(3)));
    quick.say(&heartbeat(1)).await;
    assert!(matches!(rig.next().await, Message::Report { .. }));
    // Its reports still come.
    slow.reports.send((&heartbeat(2)).into()).await.expect("the stream is open");
    assert!(matches!(rig.next().await, Message::Report { .. }));
    drop(orders);
    rig.expect_disconnected("slow", id).await;
}

#[tokio::test]
async fn sessions_end_when_the_coordinator_goes_down() {
    let mut rig = Rig::new().await;
    let (mut worker, _orders, id) = rig.connect("w").await;
    rig.close.send_replace(true);
    rig.expect_disconnected("w", id).await;
    let status = worker.orders.message().await.expect_err("a status");
    assert_eq!(Error::from_status(&status).code, Code::Unavailable);
}
