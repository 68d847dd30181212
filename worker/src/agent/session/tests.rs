//! The session by table, and under random interleavings of orders, reconnects and agents' events.

use super::*;
use ef_proto::checkpoint::SubtaskState;
use ef_proto::ids::WorkerId;
use ef_proto::place::Tier;
use ef_proto::rpc::{Phase, Placement};
use proptest::prelude::*;

fn identity(term: u64) -> Hello {
    Hello {
        worker: WorkerId("w".into()),
        boot: 1,
        version: "0".into(),
        tier: Tier::Cloud,
        site: String::new(),
        labels: BTreeMap::new(),
        slots: 1,
        memory_bytes: 1,
        data_address: "127.0.0.1:1".into(),
        term,
        deployments: Vec::new(),
    }
}

fn id(incarnation: u64) -> DeploymentId {
    DeploymentId { job: JobId("j".into()), region: 0, incarnation: Incarnation(incarnation) }
}

fn subtask(index: u32) -> SubtaskId {
    SubtaskId { operator: OperatorId(1), index }
}

fn deploy() -> Command {
    let placement = Placement::default();
    Command::Deploy(Box::new(Deploy {
        plan: vec![],
        placement,
        restore: None,
        state: String::new(),
        slots: 1,
        stop: None,
    }))
}

fn acked(epoch: u64, index: u32) -> rpc::Event {
    let state = SubtaskState { index, ..SubtaskState::default() };
    rpc::Event::Acked { epoch: Epoch(epoch), subtask: subtask(index), state }
}

/// A session, with the calls that the tests repeat.
struct Talk {
    session: Session,
    now: u64,
}

impl Talk {
    fn new() -> Talk {
        let mut talk = Talk { session: Session::new(identity(5)), now: 0 };
        talk.connect();
        talk
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        self.session.step(event, self.now)
    }

    /// A new stream, up to the Welcome; what is repeated on it.
    fn connect(&mut self) -> Vec<rpc::Event> {
        self.step(Event::Connected);
        let hello = self.session.pull();
        assert!(matches!(hello, Some(Report::Hello(_))), "{hello:?}");
        assert_eq!(self.session.pull(), None, "nothing before the Welcome");
        let welcome = OrderBody::Welcome { heartbeat_interval_ms: 1000, heartbeat_timeout_ms: 10_000 };
        let actions = self.step(Event::Order(Order { term: 5, body: welcome }));
        assert_eq!(actions, [Action::Welcomed { heartbeat_interval_ms: 1000 }]);
        self.said()
    }

    fn order(&mut self, incarnation: u64, command: Command) -> Vec<Action> {
        let body = OrderBody::Command { deployment: id(incarnation), command };
        self.step(Event::Order(Order { term: 5, body }))
    }

    fn event(&mut self, incarnation: u64, event: rpc::Event) -> Vec<Action> {
        self.step(Event::Agent { deployment: id(incarnation), event })
    }

    fn said(&mut self) -> Vec<rpc::Event> {
        let reports = std::iter::from_fn(|| self.session.pull());
        reports
            .map(|report| match report {
                Report::Event { event, .. } => event,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn held(&self) -> Vec<(u64, Phase)> {
        self.session.hello().deployments.iter().map(|held| (held.deployment.incarnation.0, held.phase)).collect()
    }

    fn running(&mut self, incarnation: u64) {
        let actions = self.order(incarnation, deploy());
        assert!(matches!(&actions[..], [Action::StartAgent { deployment, .. }] if *deployment == id(incarnation)));
        assert_eq!(self.event(incarnation, rpc::Event::Running), []);
        assert_eq!(self.said(), [rpc::Event::Running]);
    }
}

fn command(incarnation: u64, command: Command) -> Action {
    Action::Command { deployment: id(incarnation), command }
}

#[test]
fn everything_that_may_have_been_lost_is_said_again_on_a_new_stream() {
    let mut talk = Talk::new();
    talk.running(1);
    let committed = |epoch| rpc::Event::Committed { epoch: Epoch(epoch), subtask: subtask(0) };
    let declined = rpc::Event::Declined { epoch: Epoch(3), subtask: subtask(1), reason: "full".into() };
    let ended = rpc::Event::Ended { subtask: subtask(1) };
    for event in [committed(1), committed(2), acked(3, 0), declined.clone(), ended.clone()] {
        talk.event(1, event);
    }
    let repeated = [rpc::Event::Running, ended, committed(2), acked(3, 0), declined];
    assert_eq!(talk.connect(), repeated);
    assert_eq!(talk.connect(), repeated, "and on the one after that");
    let complete = Command::Complete { epoch: Epoch(3) };
    assert_eq!(talk.order(1, complete.clone()), [command(1, complete)]);
    assert_eq!(talk.connect(), repeated[..3], "the epoch is over");
    talk.event(1, acked(3, 2));
    assert_eq!(talk.said(), [], "an ack that comes too late is of no use");
}

#[test]
fn stuck_stream_loses_nothing_and_says_the_newest() {
    let mut talk = Talk::new();
    talk.running(1);
    for epoch in 1..=3 {
        talk.event(1, acked(epoch, 0));
        talk.order(1, Command::Complete { epoch: Epoch(epoch) });
        talk.event(1, rpc::Event::Committed { epoch: Epoch(epoch), subtask: subtask(0) });
    }
    talk.event(1, acked(4, 0));
    let committed = rpc::Event::Committed { epoch: Epoch(3), subtask: subtask(0) };
    assert_eq!(talk.said(), [committed, acked(4, 0)]);
}

#[test]
fn failure_is_repeated_until_it_is_cancelled() {
    let mut talk = Talk::new();
    talk.running(1);
    let failed = |text: &str| rpc::Event::Failed { operator: OperatorId(7), error: Error::invalid(text) };
    talk.event(1, failed("the cause"));
    talk.event(1, failed("fallout"));
    assert_eq!(talk.event(1, rpc::Event::Stopped), [Action::DropAgent(id(1))]);
    assert_eq!(talk.said(), [failed("the cause"), rpc::Event::Stopped]);
    assert_eq!(talk.held(), [(1, Phase::Leaving)]);
    assert_eq!(talk.connect(), [rpc::Event::Running, failed("the cause"), rpc::Event::Stopped]);
    assert_eq!(talk.order(1, Command::Cancel), []);
    assert_eq!(talk.said(), [rpc::Event::Stopped]);
    assert_eq!(talk.held(), []);
    assert_eq!(talk.connect(), []);
}

#[test]
fn cancel_of_what_is_not_held_is_answered_and_other_commands_are_not() {
    let mut talk = Talk::new();
    assert_eq!(talk.order(9, Command::Cancel), []);
    assert_eq!(talk.order(9, Command::Cancel), []);
    assert_eq!(talk.said(), [rpc::Event::Stopped]);
    for other in [Command::Trigger { epoch: Epoch(1) }, Command::Complete { epoch: Epoch(1) }] {
        assert_eq!(talk.order(9, other), []);
    }
    assert_eq!(talk.said(), []);
}

#[test]
fn higher_incarnation_starts_when_the_older_one_has_gone() {
    let mut talk = Talk::new();
    talk.running(1);
    assert_eq!(talk.order(2, deploy()), [command(1, Command::Cancel)]);
    assert_eq!(talk.order(2, deploy()), [], "said twice");
    assert_eq!(talk.held(), [(1, Phase::Leaving), (2, Phase::Starting)]);
    let actions = talk.event(1, rpc::Event::Stopped);
    assert!(matches!(&actions[..], [Action::DropAgent(one), Action::StartAgent { deployment: two, .. }]
        if *one == id(1) && *two == id(2)));
    assert_eq!(talk.said(), [rpc::Event::Stopped]);
    assert_eq!(talk.held(), [(2, Phase::Starting)]);
    let actions = talk.order(1, deploy());
    assert!(matches!(&actions[..], [Action::Warn { .. }]), "the older one does not come back: {actions:?}");
}

#[test]
fn tasks_that_hang_hold_up_their_successor_for_a_second_only() {
    let mut talk = Talk::new();
    talk.running(1);
    talk.now = 100;
    talk.order(2, deploy());
    assert_eq!(talk.session.wake_at(), Some(1100));
    talk.now = 1099;
    assert_eq!(talk.step(Event::Tick), []);
    talk.now = 1100;
    let actions = talk.step(Event::Tick);
    assert!(
        matches!(&actions[..], [Action::Warn { .. }, Action::StartAgent { deployment, .. }] if *deployment == id(2))
    );
    assert_eq!(talk.session.wake_at(), None, "told once");
    assert_eq!(talk.held(), [(1, Phase::Leaving), (2, Phase::Starting)], "it has not gone");
    assert_eq!(talk.event(1, rpc::Event::Stopped), [Action::DropAgent(id(1))]);
    assert_eq!(talk.held(), [(2, Phase::Starting)]);
}

#[test]
fn deployment_that_waits_can_be_cancelled_and_superseded() {
    let mut talk = Talk::new();
    talk.running(1);
    talk.order(2, deploy());
    assert_eq!(talk.order(3, deploy()), [], "the first is on its way out already");
    assert_eq!(talk.said(), [rpc::Event::Stopped], "the second never started");
    assert_eq!(talk.order(3, Command::Cancel), []);
    assert_eq!(talk.said(), [rpc::Event::Stopped]);
    assert_eq!(talk.event(1, rpc::Event::Stopped), [Action::DropAgent(id(1))], "nothing is left to start");
    assert_eq!(talk.held(), []);
}

#[test]
fn older_term_is_refused_and_a_new_one_is_written_down_first() {
    let mut talk = Talk::new();
    let body = |command| OrderBody::Command { deployment: id(1), command };
    let refused = talk.step(Event::Order(Order { term: 4, body: body(deploy()) }));
    assert!(
        matches!(&refused[..], [Action::Warn { message, .. }] if message.contains("term 4") && message.contains("term 5"))
    );
    assert_eq!(talk.held(), []);
    assert_eq!(talk.step(Event::Order(Order { term: 7, body: body(deploy()) })), [Action::KeepTerm(7)]);
    assert_eq!(talk.held(), [], "not before it is on disk");
    assert!(matches!(&talk.step(Event::TermKept)[..], [Action::StartAgent { .. }]));
    let refused = talk.step(Event::Order(Order { term: 6, body: body(Command::Cancel) }));
    assert!(matches!(&refused[..], [Action::Warn { .. }]));
    let old = OrderBody::Welcome { heartbeat_interval_ms: 1, heartbeat_timeout_ms: 2 };
    assert!(matches!(&talk.step(Event::Order(Order { term: 6, body: old }))[..], [Action::Hangup(_)]));
    assert_eq!(talk.session.hello().term, 7);
}

#[test]
fn term_that_cannot_be_written_down_leaves_the_order_without_effect() {
    let mut talk = Talk::new();
    let order = Order { term: 7, body: OrderBody::Command { deployment: id(1), command: deploy() } };
    assert_eq!(talk.step(Event::Order(order)), [Action::KeepTerm(7)]);
    talk.step(Event::Disconnected);
    talk.connect();
    assert_eq!((talk.held(), talk.session.hello().term), (vec![], 5));
}

#[test]
fn barrier_starts_once_however_often_it_is_asked_for() {
    let mut talk = Talk::new();
    talk.running(1);
    let trigger = |epoch| Command::Trigger { epoch: Epoch(epoch) };
    assert_eq!(talk.order(1, trigger(1)), [command(1, trigger(1))]);
    assert_eq!(talk.order(1, trigger(1)), []);
    talk.order(1, Command::Abort { epoch: Epoch(2) });
    assert_eq!(talk.order(1, trigger(2)), [], "it was aborted before it began");
    assert_eq!(talk.order(1, trigger(3)), [command(1, trigger(3))]);
}

#[test]
fn commands_that_come_before_the_tasks_run_reach_them_when_they_do() {
    let mut talk = Talk::new();
    talk.order(1, deploy());
    let (complete, stop) = (Command::Complete { epoch: Epoch(4) }, Command::Stop { drain: true });
    for early in [complete.clone(), Command::Trigger { epoch: Epoch(5) }, stop.clone()] {
        assert_eq!(talk.order(1, early), []);
    }
    assert_eq!(talk.order(1, Command::Abort { epoch: Epoch(5) }), []);
    assert_eq!(talk.event(1, rpc::Event::Running), [command(1, complete), command(1, stop)]);
}

#[test]
fn shutdown_fails_what_runs_and_takes_no_more_orders() {
    let mut talk = Talk::new();
    talk.running(1);
    talk.order(2, deploy());
    assert_eq!(talk.step(Event::Shutdown), [], "the first was told already, the second has not begun");
    let said = talk.said();
    assert!(
        matches!(&said[..], [rpc::Event::Failed { error, .. }, rpc::Event::Stopped]
        if error.message.contains("shutting down")),
        "{said:?}"
    );
    assert_eq!(talk.session.agents(), 1);
    assert_eq!(talk.order(3, deploy()), []);
    talk.event(1, rpc::Event::Stopped);
    assert_eq!(talk.session.agents(), 0);
}

#[test]
fn lost_agent_is_a_failure() {
    let mut talk = Talk::new();
    talk.running(1);
    assert_eq!(talk.step(Event::AgentLost(id(1))), [Action::DropAgent(id(1))]);
    assert!(matches!(&talk.said()[..], [rpc::Event::Failed { .. }, rpc::Event::Stopped]));
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Op {
    Connect,
    Disconnect,
    Welcome {
        term: u64,
    },
    /// `kept`: the term, if it is a new one, can be written down.
    Order {
        term: u64,
        region: u32,
        incarnation: u64,
        command: Command,
        kept: bool,
    },
    /// Of one of the agents that there are.
    Agent {
        which: usize,
        event: rpc::Event,
    },
    Pass {
        ms: u64,
    },
    Pull {
        reports: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let epoch = || (1..6u64).prop_map(Epoch);
    let command = prop_oneof![
        6 => Just(deploy()),
        3 => Just(Command::Cancel),
        3 => epoch().prop_map(|epoch| Command::Trigger { epoch }),
        2 => epoch().prop_map(|epoch| Command::Complete { epoch }),
        1 => epoch().prop_map(|epoch| Command::Abort { epoch }),
        1 => any::<bool>().prop_map(|drain| Command::Stop { drain }),
    ];
    let order = (0..4u64, 0..2u32, 1..6u64, command, prop::bool::weighted(0.9));
    let order = order.prop_map(|(term, region, incarnation, command, kept)| {
        // Mostly the leader that there is.
        Op::Order { term: 5 + term / 2, region, incarnation, command, kept }
    });
    let event = prop_oneof![
        3 => Just(rpc::Event::Running),
        4 => (1..6u64, 0..3u32).prop_map(|(epoch, index)| acked(epoch, index)),
        2 => (epoch(), 0..3u32).prop_map(|(epoch, index)| rpc::Event::Committed { epoch, subtask: subtask(index) }),
        1 => (0..3u32).prop_map(|index| rpc::Event::Ended { subtask: subtask(index) }),
        1 => Just(rpc::Event::Failed { operator: OperatorId(1), error: Error::invalid("broken") }),
        2 => Just(rpc::Event::Stopped),
    ];
    prop_oneof![
        2 => Just(Op::Connect),
        1 => Just(Op::Disconnect),
        3 => (5..7u64).prop_map(|term| Op::Welcome { term }),
        8 => order,
        8 => (any::<prop::sample::Index>(), event).prop_map(|(which, event)| Op::Agent { which: which.index(64), event }),
        2 => (0..700u64).prop_map(|ms| Op::Pass { ms }),
        2 => (0..4usize).prop_map(|reports| Op::Pull { reports }),
    ]
}

/// The other sides of the session, as naively as can be: its agents, and what the coordinator must have heard.
#[derive(Default)]
struct World {
    now: u64,
    up: bool,
    welcomed: bool,
    term: u64,
    /// With the time since when each is on its way out.
    agents: BTreeMap<DeploymentId, Option<u64>>,
    cancelled: BTreeSet<DeploymentId>,
    /// Acks that the agents gave, of epochs that are not over and of deployments that are not cancelled.
    wanted: BTreeSet<(DeploymentId, Epoch, SubtaskId)>,
    over: BTreeMap<DeploymentId, Epoch>,
    /// Heard on this stream.
    heard: BTreeSet<(DeploymentId, Epoch, SubtaskId)>,
}

impl World {
    fn execute(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::StartAgent { deployment, .. } => {
                    let others = self.agents.iter().filter(|(id, _)| id.region == deployment.region);
                    for (id, since) in others {
                        let gone = since.is_some_and(|since| since + LEAVE_MS <= self.now);
                        assert!(gone, "{deployment} starts beside {id}, which leaves since {since:?}, at {}", self.now);
                        assert!(id.incarnation < deployment.incarnation, "{deployment} starts after {id}");
                    }
                    self.agents.insert(deployment.clone(), None);
                }
                Action::Command { deployment, command: Command::Cancel } => {
                    let since = self.agents.get_mut(deployment).expect("commands go to agents");
                    since.get_or_insert(self.now);
                }
                Action::Command { deployment, .. } => assert!(self.agents.contains_key(deployment)),
                Action::DropAgent(deployment) => assert!(self.agents.remove(deployment).is_some()),
                Action::KeepTerm(_) | Action::Welcomed { .. } | Action::Hangup(_) | Action::Warn { .. } => {}
            }
        }
    }

    /// An order that has effect.
    fn obeyed(&mut self, id: &DeploymentId, command: &Command) {
        let region = |other: &DeploymentId| other.job == id.job && other.region == id.region;
        match command {
            Command::Deploy(_) => {
                let replaced = |of: &DeploymentId| region(of) && of.incarnation < id.incarnation;
                self.wanted.retain(|(of, ..)| !replaced(of));
                self.cancelled.extend(self.agents.keys().filter(|of| replaced(of)).cloned());
            }
            Command::Cancel => {
                self.wanted.retain(|(of, ..)| of != id);
                self.cancelled.insert(id.clone());
            }
            Command::Complete { epoch } | Command::Abort { epoch } => {
                let over = self.over.entry(id.clone()).or_insert(*epoch);
                *over = (*over).max(*epoch);
                self.wanted.retain(|(of, epoch, _)| of != id || *epoch > self.over[id]);
            }
            Command::Trigger { .. } | Command::Stop { .. } => {}
        }
    }

    fn pull(&mut self, session: &mut Session) -> bool {
        match session.pull() {
            None => return false,
            Some(Report::Hello(hello)) => {
                let held: BTreeSet<&DeploymentId> = hello.deployments.iter().map(|held| &held.deployment).collect();
                assert!(self.agents.keys().all(|agent| held.contains(agent)), "the Hello names all agents");
            }
            Some(Report::Event { deployment, event: rpc::Event::Acked { epoch, subtask, .. } }) => {
                assert!(self.welcomed, "nothing but the Hello is said before the Welcome");
                self.heard.insert((deployment, epoch, subtask));
            }
            Some(_) => assert!(self.welcomed, "nothing but the Hello is said before the Welcome"),
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_interleaving_loses_an_ack_or_lets_the_past_have_effect(ops in prop::collection::vec(op(), 1..120)) {
        let mut session = Session::new(identity(5));
        let mut world = World { term: 5, ..World::default() };
        for op in ops {
            match op {
                Op::Connect | Op::Disconnect => {
                    world.up = matches!(op, Op::Connect);
                    world.welcomed = false;
                    world.heard.clear();
                    let actions = session.step(if world.up { Event::Connected } else { Event::Disconnected }, world.now);
                    prop_assert_eq!(actions, []);
                }
                Op::Welcome { term } => {
                    // The coordinator answers a Hello, which it must have heard.
                    while world.pull(&mut session) {}
                    let body = OrderBody::Welcome { heartbeat_interval_ms: 1, heartbeat_timeout_ms: 1 };
                    let mut actions = session.step(Event::Order(Order { term, body }), world.now);
                    if actions == [Action::KeepTerm(term)] {
                        world.term = term;
                        actions = session.step(Event::TermKept, world.now);
                    }
                    world.welcomed |= matches!(actions[..], [Action::Welcomed { .. }]);
                    prop_assert_eq!(world.up && term == world.term, matches!(actions[..], [Action::Welcomed { .. }]));
                }
                Op::Order { term, region, incarnation, command, kept } => {
                    let id = DeploymentId { region, ..id(incarnation) };
                    let (before, newest) = (session.hello(), session.region(&id).pop());
                    let body = OrderBody::Command { deployment: id.clone(), command: command.clone() };
                    let mut actions = session.step(Event::Order(Order { term, body }), world.now);
                    if world.up && term > world.term {
                        prop_assert_eq!(actions, [Action::KeepTerm(term)]);
                        prop_assert_eq!(&session.hello(), &before);
                        if !kept {
                            session.step(Event::Disconnected, world.now);
                            (world.up, world.welcomed) = (false, false);
                            world.heard.clear();
                            continue;
                        }
                        world.term = term;
                        actions = session.step(Event::TermKept, world.now);
                    } else if !world.up || term < world.term {
                        prop_assert!(matches!(actions[..], [] | [Action::Warn { .. }]), "{:?}", actions);
                        prop_assert_eq!(&session.hello(), &before);
                        continue;
                    }
                    let older = matches!(command, Command::Deploy(_)) && newest.is_some_and(|newest| newest > id);
                    if older {
                        prop_assert!(matches!(actions[..], [] | [Action::Warn { .. }]), "{:?}", actions);
                        prop_assert_eq!(&session.hello().deployments, &before.deployments);
                        continue;
                    }
                    world.obeyed(&id, &command);
                    world.execute(&actions);
                }
                Op::Agent { which, event } => {
                    let Some(id) = world.agents.keys().nth(which % world.agents.len().max(1)).cloned() else { continue };
                    match &event {
                        rpc::Event::Acked { epoch, subtask, .. } => {
                            let over = world.over.get(&id).is_some_and(|over| epoch <= over);
                            if !over && !world.cancelled.contains(&id) {
                                world.wanted.insert((id.clone(), *epoch, *subtask));
                            }
                        }
                        rpc::Event::Failed { .. } => {
                            world.agents.get_mut(&id).expect("listed").get_or_insert(world.now);
                        }
                        _ => {}
                    }
                    let actions = session.step(Event::Agent { deployment: id.clone(), event }, world.now);
                    world.execute(&actions);
                    if !session.deployments.contains_key(&id) {
                        // Forgotten: should it be deployed once more, it is another.
                        world.cancelled.remove(&id);
                        world.over.remove(&id);
                    }
                }
                Op::Pass { ms } => {
                    world.now += ms;
                    let actions = session.step(Event::Tick, world.now);
                    world.execute(&actions);
                }
                Op::Pull { reports } => {
                    for _ in 0..reports {
                        world.pull(&mut session);
                    }
                }
            }
            // Every region's newest deployment has its agent, or waits for one that still has time to leave.
            for held in session.hello().deployments.iter().filter(|held| held.phase == Phase::Starting) {
                let id = &held.deployment;
                let waits = world.agents.iter().any(|(other, since)| {
                    other.region == id.region && since.is_some_and(|since| since + LEAVE_MS > world.now)
                });
                let late = session.wake_at().is_some_and(|at| at <= world.now);
                prop_assert!(world.agents.contains_key(id) || waits || late, "{} neither starts nor waits", id);
            }
            if world.welcomed {
                // Without having it said.
                let mut ahead = session.clone();
                let mut heard = world.heard.clone();
                while let Some(report) = ahead.pull() {
                    if let Report::Event { deployment, event: rpc::Event::Acked { epoch, subtask, .. } } = report {
                        heard.insert((deployment, epoch, subtask));
                    }
                }
                prop_assert!(world.wanted.is_subset(&heard), "lost: {:?}", world.wanted.difference(&heard));
            }
        }
    }
}
