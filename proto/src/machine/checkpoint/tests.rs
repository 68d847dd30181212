//! Table tests of single rules, then random histories against a checker that knows only the promises.

use super::*;
use crate::ids::OperatorId;
use proptest::prelude::*;

fn subtask(operator: u64, index: u32) -> SubtaskId {
    SubtaskId { operator: OperatorId(operator), index }
}

/// A source, two keyed subtasks and a sink.
fn subtasks() -> BTreeSet<SubtaskId> {
    BTreeSet::from([subtask(1, 0), subtask(2, 0), subtask(2, 1), subtask(3, 0)])
}

fn sinks() -> BTreeSet<SubtaskId> {
    BTreeSet::from([subtask(3, 0)])
}

fn config() -> Config {
    Config { interval_ms: Some(100), timeout_ms: 50, min_pause_ms: 10, tolerable_failures: 1, retained: 2 }
}

fn on_request() -> Config {
    Config { interval_ms: None, ..config() }
}

fn machine(config: Config) -> Checkpoints {
    Checkpoints::new(config, subtasks(), sinks(), None)
}

fn ack(epoch: u64, subtask: SubtaskId) -> Event {
    let state = SubtaskState { index: subtask.index, blob: vec![epoch as u8], ..SubtaskState::default() };
    Event::Acked { epoch: Epoch(epoch), subtask, state }
}

/// All acks of an epoch; returns the last one's actions.
fn ack_all(machine: &mut Checkpoints, epoch: u64, now: u64) -> Vec<Action> {
    let mut last = Vec::new();
    for subtask in subtasks() {
        assert_eq!(last, [], "only the last ack may cause something");
        last = machine.step(ack(epoch, subtask), now);
    }
    last
}

/// From trigger to complete; returns the actions of the manifest's put.
fn run_through(machine: &mut Checkpoints, epoch: u64, now: u64) -> Vec<Action> {
    assert!(matches!(ack_all(machine, epoch, now)[..], [Action::PutManifest(_)]));
    machine.step(Event::ManifestPut { epoch: Epoch(epoch) }, now)
}

fn trigger(epoch: u64, cause: Cause) -> Action {
    Action::Trigger { epoch: Epoch(epoch), cause }
}

#[test]
fn periodic_checkpoint_goes_from_trigger_to_commit() {
    let mut machine = machine(config());
    assert_eq!(machine.step(Event::Tick, 1_000), []);
    assert_eq!(machine.step(Event::Tick, 1_099), []);
    assert_eq!(machine.step(Event::Tick, 1_100), [trigger(1, Cause::Periodic)]);
    assert_eq!(machine.in_flight(), Some(Epoch(1)));
    let actions = ack_all(&mut machine, 1, 1_101);
    let [Action::PutManifest(parts)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(parts.states.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>(), subtasks());
    assert_eq!((parts.triggered_at_ms, parts.terminal), (1_100, false));
    assert_eq!(machine.step(Event::ManifestPut { epoch: Epoch(1) }, 1_102), [Action::Complete(Epoch(1))]);
    let committed = Event::Committed { epoch: Epoch(1), subtask: subtask(3, 0) };
    assert_eq!(machine.step(committed.clone(), 1_103), [Action::Published(Epoch(1))]);
    assert_eq!(machine.step(committed, 1_103), [], "repeated");
}

#[test]
fn next_periodic_checkpoint_waits_for_interval_and_pause() {
    let mut machine = machine(config());
    machine.step(Event::Tick, 0);
    machine.step(Event::Tick, 100);
    ack_all(&mut machine, 1, 149);
    // The interval passes while the manifest is being written: only the pause counts then.
    assert_eq!(machine.step(Event::Tick, 205), []);
    assert_eq!(machine.step(Event::ManifestPut { epoch: Epoch(1) }, 210), [Action::Complete(Epoch(1))]);
    assert_eq!(machine.step(Event::Tick, 219), []);
    assert_eq!(machine.step(Event::Tick, 220), [trigger(2, Cause::Periodic)]);
}

#[test]
fn timeout_names_the_subtasks_that_did_not_ack() {
    let mut machine = machine(on_request());
    machine.step(Event::Request, 0);
    machine.step(ack(1, subtask(1, 0)), 1);
    let missing = [subtask(2, 0), subtask(2, 1), subtask(3, 0)];
    assert_eq!(machine.missing(), missing);
    let actions = machine.step(Event::Tick, 50);
    let [Action::Abort { epoch: Epoch(1), reason }] = &actions[..] else { panic!("{actions:?}") };
    assert!(missing.iter().all(|id| reason.contains(&id.to_string())), "{reason}");
}

#[test]
fn manifest_being_written_does_not_time_out() {
    let mut machine = machine(on_request());
    machine.step(Event::Request, 0);
    ack_all(&mut machine, 1, 49);
    assert_eq!(machine.step(Event::Tick, 1_000_000), []);
    assert_eq!(machine.step(Event::ManifestPut { epoch: Epoch(1) }, 1_000_001), [Action::Complete(Epoch(1))]);
}

#[test]
fn more_failures_in_a_row_than_tolerable_fail_the_job() {
    let mut machine = machine(on_request());
    let declined = |epoch| Event::Declined { epoch: Epoch(epoch), subtask: subtask(2, 1), reason: "disk full".into() };
    machine.step(Event::Request, 0);
    assert!(matches!(machine.step(declined(1), 1)[..], [Action::Abort { .. }]));
    machine.step(Event::Request, 2);
    run_through(&mut machine, 2, 3); // a success in between starts the count anew
    machine.step(Event::Request, 4);
    ack_all(&mut machine, 3, 5);
    let failed = Event::ManifestFailed { epoch: Epoch(3), reason: "no space".into() };
    assert!(matches!(machine.step(failed, 6)[..], [Action::Abort { .. }]));
    machine.step(Event::Request, 7);
    let actions = machine.step(declined(4), 8);
    let [Action::Abort { epoch: Epoch(4), .. }, Action::FailJob { reason }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(reason.contains("2 checkpoints") && reason.contains("disk full"), "{reason}");
    assert_eq!(machine.step(Event::Request, 9), [Action::Ignore(Event::Request)]);
}

#[test]
fn request_during_a_checkpoint_is_followed_by_another() {
    let mut machine = machine(on_request());
    assert_eq!(machine.step(Event::Request, 0), [trigger(1, Cause::Requested)]);
    assert_eq!(machine.step(Event::Request, 0), []);
    assert_eq!(machine.step(Event::Request, 0), [], "two waiting requests are one");
    assert_eq!(run_through(&mut machine, 1, 1), [Action::Complete(Epoch(1)), trigger(2, Cause::Requested)]);
    assert_eq!(run_through(&mut machine, 2, 2), [Action::Complete(Epoch(2))]);
}

#[test]
fn bounded_job_ends_with_a_terminal_checkpoint_and_its_commits() {
    let mut machine = machine(on_request());
    machine.step(Event::Request, 0);
    for id in subtasks() {
        assert_eq!(machine.step(Event::SubtaskEnded { subtask: id }, 1), [], "one is still in flight");
    }
    assert_eq!(run_through(&mut machine, 1, 2), [Action::Complete(Epoch(1)), trigger(2, Cause::Terminal)]);
    let actions = ack_all(&mut machine, 2, 3);
    assert!(matches!(&actions[..], [Action::PutManifest(Parts { terminal: true, .. })]), "{actions:?}");
    assert_eq!(machine.step(Event::ManifestPut { epoch: Epoch(2) }, 4), [Action::Complete(Epoch(2))]);
    assert_eq!(machine.step(Event::Tick, 1_000), [], "nothing comes after the terminal checkpoint");
    assert_eq!(machine.step(Event::Request, 1_000), [Action::Ignore(Event::Request)]);
    let committed = Event::Committed { epoch: Epoch(2), subtask: subtask(3, 0) };
    assert_eq!(machine.step(committed, 1_001), [Action::Published(Epoch(2)), Action::Final(Epoch(2))]);
}

#[test]
fn job_without_sinks_is_published_at_once() {
    let mut machine = Checkpoints::new(on_request(), subtasks(), BTreeSet::new(), None);
    machine.step(Event::Request, 0);
    let done = |epoch| [Action::Complete(Epoch(epoch)), Action::Published(Epoch(epoch))];
    assert_eq!(run_through(&mut machine, 1, 1), done(1));
    subtasks().into_iter().for_each(|subtask| drop(machine.step(Event::SubtaskEnded { subtask }, 2)));
    let [complete, published] = done(2);
    assert_eq!(run_through(&mut machine, 2, 3), [complete, published, Action::Final(Epoch(2))]);
}

#[test]
fn restored_checkpoints_count_for_retention_and_epochs_go_on() {
    let mut machine =
        Checkpoints::new(on_request(), subtasks(), sinks(), Some(Epoch(9))).retaining([Epoch(5), Epoch(7)]);
    assert_eq!(machine.step(Event::Request, 0), [trigger(10, Cause::Requested)]);
    assert_eq!(run_through(&mut machine, 10, 1), [Action::Complete(Epoch(10)), Action::Retire(vec![Epoch(5)])]);
}

#[test]
fn stale_events_are_named_and_change_nothing() {
    let mut machine = machine(on_request());
    machine.step(Event::Request, 0);
    let stale = [
        ack(7, subtask(1, 0)),
        ack(1, subtask(9, 9)),
        Event::Declined { epoch: Epoch(0), subtask: subtask(1, 0), reason: String::new() },
        Event::ManifestPut { epoch: Epoch(1) },
        Event::ManifestFailed { epoch: Epoch(1), reason: String::new() },
        Event::Committed { epoch: Epoch(1), subtask: subtask(3, 0) },
        Event::SubtaskEnded { subtask: subtask(9, 9) },
    ];
    for event in stale {
        assert_eq!(machine.step(event.clone(), 1), [Action::Ignore(event)]);
    }
    assert_eq!(run_through(&mut machine, 1, 2), [Action::Complete(Epoch(1))]);
    let not_a_sink = Event::Committed { epoch: Epoch(1), subtask: subtask(1, 0) };
    assert_eq!(machine.step(not_a_sink.clone(), 3), [Action::Ignore(not_a_sink)]);
}

/// One step of a history: what went in, when, and what came out.
type Step = (Event, u64, Vec<Action>);

/// The promises, checked without knowing the machine. Err says which one is broken.
fn check(history: &[Step], retained: usize) -> Result<(), String> {
    let mut highest = 0;
    let mut in_flight: Option<u64> = None;
    let mut acks: BTreeMap<u64, BTreeSet<SubtaskId>> = BTreeMap::new();
    let (mut put, mut recorded, mut aborted) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut kept: Vec<u64> = Vec::new();
    let mut committed: BTreeMap<SubtaskId, u64> = sinks().into_iter().map(|sink| (sink, 0)).collect();
    let mut over = false;
    for (event, _, actions) in history {
        let ignored = actions.iter().any(|action| matches!(action, Action::Ignore(_)));
        match event {
            Event::Acked { epoch, subtask, .. } if !ignored => {
                acks.entry(epoch.0).or_default().insert(*subtask);
            }
            Event::ManifestPut { epoch } if !ignored => {
                recorded.insert(epoch.0);
            }
            Event::Committed { epoch, subtask } if !ignored => {
                let upto = committed.get_mut(subtask).ok_or("commit of a subtask that is no sink was taken")?;
                *upto = epoch.0.max(*upto);
            }
            _ => {}
        }
        for action in actions {
            if over && !matches!(action, Action::Ignore(_)) {
                return Err(format!("{action:?} after the end"));
            }
            match action {
                Action::Trigger { epoch, .. } => {
                    if epoch.0 <= highest {
                        return Err(format!("epoch {epoch} reused"));
                    }
                    if let Some(other) = in_flight {
                        return Err(format!("epoch {epoch} triggered while {other} is in flight"));
                    }
                    highest = epoch.0;
                    in_flight = Some(epoch.0);
                }
                Action::PutManifest(parts) => {
                    if acks.get(&parts.epoch.0) != Some(&subtasks()) || parts.states.len() != subtasks().len() {
                        return Err(format!("manifest of {} before all acks", parts.epoch));
                    }
                    if !put.insert(parts.epoch.0) {
                        return Err(format!("manifest of {} put twice", parts.epoch));
                    }
                }
                Action::Complete(epoch) => {
                    if !put.contains(&epoch.0) || !recorded.contains(&epoch.0) {
                        return Err(format!("{epoch} complete before its manifest is recorded"));
                    }
                    if aborted.contains(&epoch.0) || in_flight.take() != Some(epoch.0) {
                        return Err(format!("{epoch} complete although it is not in flight"));
                    }
                    kept.push(epoch.0);
                }
                Action::Abort { epoch, .. } => {
                    if in_flight.take() != Some(epoch.0) {
                        return Err(format!("{epoch} aborted although it is not in flight"));
                    }
                    aborted.insert(epoch.0);
                }
                Action::Retire(epochs) => {
                    for epoch in epochs {
                        let at = kept.iter().position(|kept| *kept == epoch.0).ok_or("retired what is not kept")?;
                        if at + retained >= kept.len() {
                            return Err(format!("{epoch} retired, one of the last {retained}"));
                        }
                        kept.remove(at);
                    }
                }
                Action::Published(epoch) if committed.values().any(|upto| upto < &epoch.0) => {
                    return Err(format!("{epoch} published before all sinks committed"));
                }
                Action::Final(epoch) => {
                    if kept.last() != Some(&epoch.0) || committed.values().any(|upto| upto < &epoch.0) {
                        return Err(format!("final at {epoch} before it is complete and published"));
                    }
                    over = true;
                }
                Action::FailJob { .. } => over = true,
                Action::Published(_) | Action::Ignore(_) => {}
            }
        }
    }
    match kept.len() {
        n if n > retained => Err(format!("{n} checkpoints kept instead of {retained}")),
        _ => Ok(()),
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let epoch = (0..12u64).prop_map(Epoch);
    let id = prop::sample::select(subtasks().into_iter().chain([subtask(9, 0)]).collect::<Vec<_>>());
    prop_oneof![
        4 => Just(Event::Tick),
        1 => Just(Event::Request),
        8 => (epoch.clone(), id.clone()).prop_map(|(epoch, id)| ack(epoch.0, id)),
        1 => (epoch.clone(), id.clone())
            .prop_map(|(epoch, subtask)| Event::Declined { epoch, subtask, reason: "no".into() }),
        2 => epoch.clone().prop_map(|epoch| Event::ManifestPut { epoch }),
        1 => epoch.clone().prop_map(|epoch| Event::ManifestFailed { epoch, reason: "no".into() }),
        2 => (epoch, id.clone()).prop_map(|(epoch, subtask)| Event::Committed { epoch, subtask }),
        1 => id.prop_map(|subtask| Event::SubtaskEnded { subtask }),
    ]
}

/// An agent and a storage that do their work, interspersed with noise: an answer for the epoch in flight more often
/// than any other.
fn history(config: Config, script: Vec<(Event, u8, u64)>) -> Vec<Step> {
    let mut machine = machine(config);
    let (mut now, mut steps): (u64, Vec<Step>) = (0, Vec::new());
    let mut newest = Epoch(0);
    for (mut event, fit, gap) in script {
        now += gap;
        if fit > 0 {
            // Make the event fit, so that histories get somewhere.
            let current = machine.in_flight().unwrap_or(newest);
            match &mut event {
                Event::Acked { epoch, .. } | Event::Declined { epoch, .. } => *epoch = current,
                Event::ManifestPut { epoch } | Event::ManifestFailed { epoch, .. } => *epoch = current,
                Event::Committed { epoch, .. } => *epoch = newest,
                Event::Tick
                | Event::Request
                | Event::SubtaskEnded { .. }
                | Event::Restarting { .. }
                | Event::Running => {}
            }
        }
        let actions = machine.step(event.clone(), now);
        newest = machine.newest_completed().unwrap_or(newest);
        steps.push((event, now, actions));
    }
    steps
}

fn script() -> impl Strategy<Value = Vec<(Event, u8, u64)>> {
    prop::collection::vec((any_event(), 0..8u8, 0..30u64), 0..300)
}

fn any_config() -> impl Strategy<Value = Config> {
    (prop::option::of(1..100u64), 1..400u64, 0..50u64, 0..20u32, 1..4usize).prop_map(
        |(interval_ms, timeout_ms, min_pause_ms, tolerable_failures, retained)| Config {
            interval_ms,
            timeout_ms,
            min_pause_ms,
            tolerable_failures,
            retained,
        },
    )
}

proptest! {
    #[test]
    fn every_history_keeps_the_promises(config in any_config(), script in script()) {
        let retained = config.retained;
        prop_assert_eq!(check(&history(config, script), retained), Ok(()));
    }

    /// Whatever has happened: as soon as all answer, ticks alone bring the next checkpoint and the end of the job.
    #[test]
    fn ticks_and_honest_answers_end_every_job(config in any_config(), script in script()) {
        let config = Config { tolerable_failures: u32::MAX, ..config };
        let mut machine = machine(config.clone());
        let mut now = 0;
        for (event, _, gap) in script {
            now += gap;
            machine.step(event, now);
        }
        let mut inbox: VecDeque<Event> = subtasks().into_iter().map(|subtask| Event::SubtaskEnded { subtask }).collect();
        inbox.extend(machine.missing().into_iter().map(|id| ack(machine.in_flight().expect("it misses acks").0, id)));
        if let Some(epoch) = machine.in_flight() {
            inbox.push_back(Event::ManifestPut { epoch });
        }
        if let (Some(epoch), Some(&subtask)) = (machine.newest_completed(), sinks().first()) {
            inbox.push_back(Event::Committed { epoch, subtask });
        }
        let over = |machine: &Checkpoints| matches!(machine.phase, Phase::Finished);
        for _ in 0..1_000 {
            now += 7;
            for action in machine.step(inbox.pop_front().unwrap_or(Event::Tick), now) {
                match action {
                    Action::Trigger { epoch, .. } => inbox.extend(subtasks().into_iter().map(|id| ack(epoch.0, id))),
                    Action::PutManifest(parts) => inbox.push_back(Event::ManifestPut { epoch: parts.epoch }),
                    Action::Complete(epoch) => {
                        inbox.extend(sinks().into_iter().map(|subtask| Event::Committed { epoch, subtask }));
                    }
                    _ => {}
                }
            }
            if over(&machine) {
                break;
            }
        }
        prop_assert!(over(&machine), "stuck in {:?}", machine.phase);
    }
}

/// The negative control: bugs put into good histories must be seen, or the checker proves nothing.
#[test]
fn checker_finds_planted_bugs() {
    let mut good = machine(on_request());
    let mut steps: Vec<Step> = Vec::new();
    for epoch in 1..=4 {
        let events = [Event::Request].into_iter().chain(subtasks().into_iter().map(|id| ack(epoch, id))).chain([
            Event::ManifestPut { epoch: Epoch(epoch) },
            Event::Committed { epoch: Epoch(epoch), subtask: subtask(3, 0) },
        ]);
        for event in events {
            let actions = good.step(event.clone(), epoch);
            steps.push((event, epoch, actions));
        }
    }
    assert_eq!(check(&steps, 2), Ok(()));
    let plant = |bug: &dyn Fn(&mut Event, &mut Vec<Action>)| {
        let mut bad = steps.clone();
        bad.iter_mut().for_each(|(event, _, actions)| bug(event, actions));
        check(&bad, 2).expect_err("the planted bug was not seen")
    };
    // Complete on the last ack, before the manifest is durable.
    plant(&|_, actions| {
        if let [Action::PutManifest(parts)] = &actions[..] {
            let epoch = parts.epoch;
            actions.push(Action::Complete(epoch));
        }
    });
    // An epoch is used twice.
    plant(&|_, actions| {
        actions.iter_mut().for_each(|action| {
            if let Action::Trigger { epoch, .. } = action {
                *epoch = Epoch(1);
            }
        });
    });
    // Retention drops one too many.
    plant(&|_, actions| {
        actions.iter_mut().for_each(|action| {
            if let Action::Retire(epochs) = action {
                let next = Epoch(epochs[0].0 + 1);
                epochs.push(next);
            }
        });
    });
    // Retention never happens.
    plant(&|_, actions| actions.retain(|action| !matches!(action, Action::Retire(_))));
    // Complete after an abort.
    plant(&|_, actions| {
        if let Some(Action::Complete(epoch)) = actions.first().cloned() {
            actions.insert(0, Action::Abort { epoch, reason: String::new() });
        }
    });
    // The manifest is put although one ack is another subtask's repeated.
    plant(&|event, _| {
        if let Event::Acked { subtask: id, .. } = event {
            *id = subtask(1, 0);
        }
    });
    // Published before the sink has committed.
    plant(&|_, actions| {
        if let Some(Action::Complete(epoch)) = actions.first().cloned() {
            actions.push(Action::Published(epoch));
        }
    });
}
