//! Placements against what they promise: capacity, constraints, stability, evenness, and that one is found whenever there is
//! one, by Hall's condition over every set of groups.

use super::*;
use ef_proto::ids::OperatorId;
use ef_proto::place::Selector;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

fn worker(id: &str, slots: u32) -> WorkerView {
    WorkerView {
        id: WorkerId(id.into()),
        tier: Tier::Cloud,
        site: "dc".into(),
        labels: BTreeMap::new(),
        slots,
        taken: 0,
        cordoned: false,
    }
}

fn at(tier: Tier, plant: &str, worker: WorkerView) -> WorkerView {
    WorkerView { tier, labels: BTreeMap::from([("plant".into(), plant.into())]), ..worker }
}

fn task(root: u64, parallelism: u32, constraint: &Constraint) -> Task {
    let root = OperatorId(root);
    Task { root, operators: vec![root], parallelism, constraint: constraint.clone(), region: 0 }
}

fn constraint(tier: Option<Tier>, selector: &str) -> Constraint {
    Constraint { tier, selector: Selector::parse(selector).expect("well formed") }
}

fn anywhere() -> Constraint {
    Constraint::default()
}

fn placed(tasks: &[Task], workers: &[WorkerView], previous: &Placed) -> Result<Placed, Unplaceable> {
    place(&tasks.iter().collect::<Vec<_>>(), workers, &previous.tasks)
}

#[track_caller]
fn fresh(tasks: &[Task], workers: &[WorkerView]) -> Placed {
    placed(tasks, workers, &Placed::default()).expect("there is room")
}

/// (worker, slots) of a placement.
fn slots_of(placed: &Placed) -> Vec<(&str, u32)> {
    placed.slots.iter().map(|(worker, slots)| (worker.0.as_str(), *slots)).collect()
}

#[test]
fn slot_j_runs_subtask_j_of_each_task() {
    let placed = fresh(
        &[task(1, 3, &anywhere()), task(2, 1, &anywhere()), task(3, 2, &anywhere())],
        &[worker("a", 2), worker("b", 2)],
    );
    assert_eq!(placed.tasks.len(), 6);
    assert_eq!(placed.slots.values().sum::<u32>(), 3, "as many as the widest task");
    let on = |root: u64, index: u32| &placed.tasks[&SubtaskId { operator: OperatorId(root), index }];
    assert!(on(1, 0) == on(2, 0) && on(1, 0) == on(3, 0) && on(1, 1) == on(3, 1));
}

#[test]
fn tasks_of_different_constraints_share_no_slot() {
    let gateway = constraint(Some(Tier::Gateway), "");
    let workers = [worker("cloud", 4), at(Tier::Gateway, "a", worker("gate", 4))];
    let tasks = [task(1, 2, &gateway), task(2, 3, &constraint(Some(Tier::Cloud), ""))];
    assert_eq!(slots_of(&fresh(&tasks, &workers)), [("cloud", 3), ("gate", 2)]);
}

#[test]
fn relatively_most_free_slots_come_first() {
    let half = WorkerView { taken: 4, ..worker("half", 8) };
    let tasks = [task(1, 3, &anywhere())];
    // 3 of 4, then 4 of 8 and 2 of 4, where the one without slots of the region comes first.
    assert_eq!(slots_of(&fresh(&tasks, &[half, worker("whole", 4)])), [("half", 1), ("whole", 2)]);
}

#[test]
fn those_with_the_least_choice_are_placed_first() {
    let workers = [at(Tier::Cloud, "a", worker("a", 1)), at(Tier::Cloud, "b", worker("b", 1))];
    for (plant, other) in [("a", "b"), ("b", "a")] {
        let narrow = constraint(None, &format!("plant={plant}"));
        let placed = fresh(&[task(1, 1, &anywhere()), task(2, 1, &narrow)], &workers);
        let on = |root: u64| placed.tasks[&SubtaskId { operator: OperatorId(root), index: 0 }].0.clone();
        assert_eq!((on(1), on(2)), (other.to_string(), plant.to_string()));
    }
}

#[test]
fn a_cordoned_worker_keeps_nothing() {
    let tasks = [task(1, 4, &anywhere())];
    let mut workers = [worker("a", 4), worker("b", 4), worker("c", 4)];
    let before = fresh(&tasks, &workers);
    workers[1].cordoned = true;
    let after = placed(&tasks, &workers, &before).expect("there is room");
    assert!(!after.slots.contains_key(&WorkerId("b".into())));
    for (subtask, worker) in &before.tasks {
        assert!(worker.0 == "b" || after.tasks[subtask] == *worker, "{subtask} was moved");
    }
}

#[test]
fn what_runs_stays_also_beside_emptier_workers() {
    let tasks = [task(1, 4, &anywhere())];
    let before = fresh(&tasks, &[worker("a", 4)]);
    let after = placed(&tasks, &[worker("a", 4), worker("b", 8)], &before).expect("there is room");
    assert_eq!(after, before);
    // More of it goes to where room is.
    let wider = placed(&[task(1, 6, &anywhere())], &[worker("a", 4), worker("b", 8)], &before).expect("there is room");
    assert_eq!(slots_of(&wider), [("a", 4), ("b", 2)]);
    assert!(before.tasks.iter().all(|(subtask, worker)| wider.tasks[subtask] == *worker));
}

#[test]
fn a_slot_stays_where_most_of_it_ran() {
    let tasks = [task(1, 1, &anywhere()), task(2, 1, &anywhere()), task(3, 1, &anywhere())];
    let on = |worker: &str, root: u64| (SubtaskId { operator: OperatorId(root), index: 0 }, WorkerId(worker.into()));
    let before = Placed { tasks: [on("a", 1), on("b", 2), on("b", 3)].into(), slots: BTreeMap::new() };
    let after = placed(&tasks, &[worker("a", 4), worker("b", 4)], &before).expect("there is room");
    assert_eq!(slots_of(&after), [("b", 1)]);
}

#[test]
fn running_work_makes_room_only_where_nothing_else_can() {
    let (a, b) = (at(Tier::Cloud, "a", worker("a", 1)), at(Tier::Cloud, "b", worker("b", 1)));
    let wide = task(1, 1, &anywhere());
    let before = fresh(std::slice::from_ref(&wide), std::slice::from_ref(&a));
    let both = [wide, task(2, 1, &constraint(None, "plant=a"))];
    let after = placed(&both, &[a.clone(), b.clone()], &before).expect("if the first one moves");
    assert_eq!(after.tasks[&SubtaskId { operator: OperatorId(1), index: 0 }].0, "b");
    let roomy = WorkerView { slots: 2, ..a };
    let after = placed(&both, &[roomy, b], &before).expect("there is room");
    assert_eq!(after.tasks[&SubtaskId { operator: OperatorId(1), index: 0 }].0, "a");
}

#[test]
fn what_does_not_fit_is_said_in_words() {
    let gateways = constraint(Some(Tier::Gateway), "plant=a");
    let gate = |id: &str, slots: u32, taken: u32, cordoned: bool| {
        at(Tier::Gateway, "a", WorkerView { taken, cordoned, ..worker(id, slots) })
    };
    let four = [gate("a", 3, 1, false), gate("b", 2, 2, false), gate("c", 4, 0, true), gate("d", 1, 5, false)];
    let elsewhere = [at(Tier::Gateway, "b", worker("e", 9)), worker("f", 9)];
    let all = [&four[..], &elsewhere].concat();
    let one_free = [gate("a", 1, 0, false)];
    let crowd = [&one_free[..], &elsewhere[..1]].concat();
    let table: &[(&[Task], &[WorkerView], &str)] = &[
        (
            &[task(1, 4, &gateways)],
            &all,
            "needs 4 slots in tier gateway, sites plant=a; 2 are free on 1 matching worker (3 more are cordoned or full)",
        ),
        (
            &[task(1, 1, &gateways)],
            &four[1..],
            "needs 1 slot in tier gateway, sites plant=a; 0 are free on 3 matching workers, which are cordoned or full",
        ),
        (
            &[task(1, 2, &gateways)],
            &elsewhere,
            "needs 2 slots in tier gateway, sites plant=a; none of the 2 workers matches",
        ),
        (&[task(1, 2, &anywhere())], &[], "needs 2 slots in any tier; there are no workers"),
        (
            &[
                task(1, 1, &gateways),
                task(2, 1, &constraint(None, "plant=a")),
                task(3, 1, &constraint(None, "plant=b")),
            ],
            &crowd,
            "needs 1 slot in sites plant=a and 1 slot in tier gateway, sites plant=a; 1 is free on 1 matching worker",
        ),
    ];
    for (tasks, workers, expected) in table {
        let found = placed(tasks, workers, &Placed::default()).expect_err(expected);
        assert_eq!(found.to_string(), *expected);
    }
}

fn any_worker() -> impl Strategy<Value = WorkerView> {
    let tier = prop_oneof![Just(Tier::Gateway), Just(Tier::Cloud)];
    let cordoned = prop::bool::weighted(0.15);
    (tier, prop::sample::select(vec!["a", "b", "c"]), 0..5u32, 0..3u32, cordoned).prop_map(
        |(tier, plant, slots, taken, cordoned)| WorkerView { taken, cordoned, ..at(tier, plant, worker("", slots)) },
    )
}

/// Workers in any order of their ids.
fn any_workers() -> impl Strategy<Value = Vec<WorkerView>> {
    let named = |workers: Vec<WorkerView>| {
        let name = |(i, worker): (usize, WorkerView)| WorkerView { id: WorkerId(format!("w{i}")), ..worker };
        workers.into_iter().enumerate().map(name).collect::<Vec<_>>()
    };
    prop::collection::vec(any_worker(), 0..7).prop_map(named).prop_shuffle()
}

fn any_constraint() -> impl Strategy<Value = Constraint> {
    let tier = prop::option::of(prop_oneof![Just(Tier::Gateway), Just(Tier::Cloud)]);
    (tier, prop::sample::select(vec!["", "", "plant=a", "plant=b", "plant=*"]))
        .prop_map(|(tier, selector)| constraint(tier, selector))
}

fn any_tasks() -> impl Strategy<Value = Vec<Task>> {
    let numbered = |tasks: Vec<(u32, Constraint)>| {
        tasks
            .iter()
            .zip(1..)
            .map(|((parallelism, constraint), root)| task(root, *parallelism, constraint))
            .collect::<Vec<Task>>()
    };
    prop::collection::vec((1..5u32, any_constraint()), 1..5).prop_map(numbered)
}

/// The widest task of each constraint.
fn widths(tasks: &[Task]) -> Vec<(Constraint, u32)> {
    let mut widths: BTreeMap<Constraint, u32> = BTreeMap::new();
    for task in tasks {
        let width = widths.entry(task.constraint.clone()).or_default();
        *width = task.parallelism.max(*width);
    }
    widths.into_iter().collect()
}

/// Hall: there is an assignment if and only if no set of groups needs more than the workers that fit any of it have.
fn is_possible(needs: &[(Constraint, u32)], room: &[(&WorkerView, u32)]) -> bool {
    (0..1usize << needs.len()).all(|set| {
        let chosen: Vec<_> = (0..needs.len()).filter(|i| set >> i & 1 == 1).map(|i| &needs[i]).collect();
        let fit = |w: &WorkerView| chosen.iter().any(|(constraint, _)| constraint.matches(w.tier, &w.site, &w.labels));
        let there: u32 = room.iter().filter(|(worker, _)| fit(worker)).map(|(_, room)| *room).sum();
        chosen.iter().map(|(_, slots)| *slots).sum::<u32>() <= there
    })
}

fn room(workers: &[WorkerView]) -> Vec<(&WorkerView, u32)> {
    let room = |w: &WorkerView| if w.cordoned { 0 } else { w.slots.saturating_sub(w.taken) };
    workers.iter().map(|worker| (worker, room(worker))).collect()
}

/// Everything that any placement promises.
fn check(tasks: &[Task], workers: &[WorkerView], placed: &Placed) -> Result<(), TestCaseError> {
    let subtasks: Vec<SubtaskId> = placed.tasks.keys().copied().collect();
    let mut expected: Vec<SubtaskId> = tasks.iter().flat_map(Task::subtasks).collect();
    expected.sort();
    prop_assert_eq!(subtasks, expected);
    let view = |id: &WorkerId| workers.iter().find(|worker| worker.id == *id).expect("one of ours");
    // Slot j of a constraint, by where its subtasks are: one place each.
    let mut slots: BTreeMap<(Constraint, u32), WorkerId> = BTreeMap::new();
    for task in tasks {
        for subtask in task.subtasks() {
            let at = &placed.tasks[&subtask];
            let worker = view(at);
            prop_assert!(task.constraint.matches(worker.tier, &worker.site, &worker.labels), "{} on {}", subtask, at);
            let slot = slots.entry((task.constraint.clone(), subtask.index)).or_insert_with(|| at.clone());
            prop_assert_eq!(&*slot, at);
        }
    }
    let mut counts: BTreeMap<WorkerId, u32> = BTreeMap::new();
    for worker in slots.into_values() {
        *counts.entry(worker).or_default() += 1;
    }
    prop_assert_eq!(&counts, &placed.slots);
    for (id, count) in counts {
        let worker = view(&id);
        prop_assert!(!worker.cordoned && worker.taken + count <= worker.slots, "{} slots of {:?}", count, worker);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_placement_is_found_exactly_if_there_is_one(
        tasks in any_tasks(), workers in any_workers(), earlier in any_workers(), shift in 0..3u32,
    ) {
        // Wherever it ran before, possibly narrower or wider.
        let narrower: Vec<Task> =
            tasks.iter().map(|t| Task { parallelism: (t.parallelism + 1).saturating_sub(shift).max(1), ..t.clone() }).collect();
        let previous = placed(&narrower, &earlier, &Placed::default()).unwrap_or_default();
        let found = placed(&tasks, &workers, &previous);
        prop_assert_eq!(found.is_ok(), is_possible(&widths(&tasks), &room(&workers)), "{:?}", found);
        if let Ok(found) = found {
            check(&tasks, &workers, &found)?;
        }
    }

    #[test]
    fn nothing_moves_without_a_cause(tasks in any_tasks(), workers in any_workers(), order in any::<prop::sample::Index>()) {
        let Ok(first) = placed(&tasks, &workers, &Placed::default()) else { return Ok(()) };
        prop_assert_eq!(placed(&tasks, &workers, &first), Ok(first.clone()));
        // Nor does it matter in which order the facts come.
        let (mut tasks, mut workers) = (tasks, workers);
        let by = order.index(tasks.len());
        tasks.rotate_left(by);
        workers.reverse();
        prop_assert_eq!(placed(&tasks, &workers, &Placed::default()), Ok(first));
    }

    #[test]
    fn a_lost_worker_moves_only_what_was_on_it(tasks in any_tasks(), workers in any_workers(), lost in any::<prop::sample::Index>()) {
        let Ok(before) = placed(&tasks, &workers, &Placed::default()) else { return Ok(()) };
        let lost = workers[lost.index(workers.len())].id.clone();
        let workers: Vec<WorkerView> = workers.into_iter().filter(|worker| worker.id != lost).collect();
        // What is left to place, and what is left of the room.
        let mut needs = Vec::new();
        for (constraint, width) in widths(&tasks) {
            let widest = tasks.iter().find(|t| t.constraint == constraint && t.parallelism == width).expect("is one");
            let moved = widest.subtasks().filter(|subtask| before.tasks[subtask] == lost).count();
            needs.push((constraint, moved as u32));
        }
        let left: Vec<(&WorkerView, u32)> = room(&workers)
            .into_iter()
            .map(|(worker, room)| (worker, room - before.slots.get(&worker.id).copied().unwrap_or(0)))
            .collect();
        let after = placed(&tasks, &workers, &before);
        if is_possible(&needs, &left) {
            let after = after.expect("without moving anything else");
            check(&tasks, &workers, &after)?;
            for (subtask, worker) in &before.tasks {
                prop_assert!(*worker == lost || after.tasks[subtask] == *worker, "{} was moved", subtask);
            }
        } else {
            prop_assert_eq!(after.is_ok(), is_possible(&widths(&tasks), &room(&workers)));
        }
    }

    #[test]
    fn equal_workers_get_equal_shares(count in 1..8usize, slots in 1..6u32, wide in 1..40u32, second in 0..40u32) {
        let workers: Vec<WorkerView> = (0..count).map(|i| worker(&format!("w{i}"), slots)).collect();
        let mut tasks = vec![task(1, wide, &anywhere())];
        if second > 0 {
            tasks.push(task(2, second, &constraint(Some(Tier::Cloud), "")));
        }
        let Ok(placed) = placed(&tasks, &workers, &Placed::default()) else {
            prop_assert!(wide + second > count as u32 * slots);
            return Ok(());
        };
        let shares: Vec<u32> = workers.iter().map(|w| placed.slots.get(&w.id).copied().unwrap_or(0)).collect();
        let (most, least) = (shares.iter().max().expect("workers"), shares.iter().min().expect("workers"));
        prop_assert!(most - least <= 1, "{:?}", shares);
    }
}
