//! Which worker runs what: the tasks of a region and the workers that there are → a placement. Pure: the same facts give
//! the same placement, and nothing is remembered between calls.
//!
//! - A slot is a thread of work through all tasks of one constraint: slot j runs subtask j of each of them, so the group
//!   takes as many slots as its widest task has subtasks.
//! - What runs stays where it runs, unless its worker has gone, is cordoned, full, or no longer fits the constraint.
//! - What must move goes where relatively most is free.
//! - If there is any placement, one is found, even if running work has to make room for it ([`assign`]).

mod assign;
#[cfg(test)]
mod tests;

use assign::Assignment;
use ef_proto::ids::{SubtaskId, WorkerId};
use ef_proto::place::{Constraint, Tier};
use ef_proto::plan::Task;
use std::collections::BTreeMap;

/// A worker as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerView {
    pub id: WorkerId,
    pub tier: Tier,
    pub site: String,
    pub labels: BTreeMap<String, String>,
    pub slots: u32,
    /// By other deployments.
    pub taken: u32,
    /// Gets nothing, not even what it runs: that is how it is drained.
    pub cordoned: bool,
}

impl WorkerView {
    /// Slots that this region may take.
    fn room(&self) -> u32 {
        if self.cordoned { 0 } else { self.slots.saturating_sub(self.taken) }
    }

    fn matches(&self, constraint: &Constraint) -> bool {
        constraint.matches(self.tier, &self.site, &self.labels)
    }
}

/// Where the tasks of a region run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Each subtask of each task's root operator.
    pub tasks: BTreeMap<SubtaskId, WorkerId>,
    /// How many slots the region takes of each worker that it is on.
    pub slots: BTreeMap<WorkerId, u32>,
}

/// Why there is no placement, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unplaceable(pub String);

/// Tasks of one constraint, which share slots.
struct Group<'a> {
    constraint: &'a Constraint,
    tasks: Vec<&'a Task>,
    /// Of its widest task.
    slots: u32,
}

impl Group<'_> {
    /// What slot `index` runs.
    fn members(&self, index: u32) -> impl Iterator<Item = SubtaskId> + '_ {
        let wide_enough = self.tasks.iter().filter(move |task| index < task.parallelism);
        wide_enough.map(move |task| SubtaskId { operator: task.root, index })
    }

    /// The worker that ran most of what slot `index` runs; of equals the first.
    fn home<'p>(&self, index: u32, previous: &'p BTreeMap<SubtaskId, WorkerId>) -> Option<&'p WorkerId> {
        let mut counts: BTreeMap<&WorkerId, usize> = BTreeMap::new();
        for worker in self.members(index).filter_map(|member| previous.get(&member)) {
            *counts.entry(worker).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        counts.into_iter().find(|(_, count)| *count == most).map(|(worker, _)| worker)
    }
}

/// Places the tasks of one region. `previous`: where its subtasks ran last, as [`Placed::tasks`] says it.
pub fn place(
    tasks: &[&Task],
    workers: &[WorkerView],
    previous: &BTreeMap<SubtaskId, WorkerId>,
) -> Result<Placed, Unplaceable> {
    let mut workers: Vec<&WorkerView> = workers.iter().collect();
    workers.sort_by(|a, b| a.id.cmp(&b.id));
    let groups = groups(tasks);
    let fits = |group: &Group| workers.iter().map(|worker| worker.matches(group.constraint)).collect();
    let mut assignment = Assignment::new(
        groups.iter().map(|group| (group.slots, fits(group))).collect(),
        workers.iter().map(|worker| (worker.slots, worker.room())).collect(),
    );
    for (g, group) in groups.iter().enumerate() {
        for slot in 0..group.slots {
            let home = group.home(slot, previous);
            if let Some(at) = home.and_then(|home| workers.binary_search_by(|worker| worker.id.cmp(home)).ok()) {
                assignment.keep(g, slot, at);
            }
        }
    }
    assignment.complete().map_err(|short| unplaceable(&groups, &short, &workers))?;
    let mut placed = Placed::default();
    for (g, slot, at) in assignment.placed() {
        let worker = &workers[at].id;
        *placed.slots.entry(worker.clone()).or_default() += 1;
        placed.tasks.extend(groups[g].members(slot).map(|member| (member, worker.clone())));
    }
    Ok(placed)
}

fn groups<'a>(tasks: &[&'a Task]) -> Vec<Group<'a>> {
    let mut by_constraint: BTreeMap<&Constraint, Group> = BTreeMap::new();
    for &task in tasks {
        let constraint = &task.constraint;
        let group = by_constraint.entry(constraint).or_insert(Group { constraint, tasks: Vec::new(), slots: 0 });
        group.slots = group.slots.max(task.parallelism);
        group.tasks.push(task);
    }
    by_constraint.into_values().collect()
}

/// `short`: groups that together need more slots than all workers that match any of them have.
fn unplaceable(groups: &[Group], short: &[usize], workers: &[&WorkerView]) -> Unplaceable {
    let short = || short.iter().map(|g| &groups[*g]);
    let needs: Vec<String> = short().map(|group| format!("{} in {}", slots(group.slots), group.constraint)).collect();
    let matching: Vec<&&WorkerView> =
        workers.iter().filter(|worker| short().any(|group| worker.matches(group.constraint))).collect();
    let needs = format!("needs {}", needs.join(" and "));
    if matching.is_empty() {
        let there = match workers.len() {
            0 => "there are no workers".to_string(),
            1 => "the one worker does not match".to_string(),
            count => format!("none of the {count} workers matches"),
        };
        return Unplaceable(format!("{needs}; {there}"));
    }
    let free: u32 = matching.iter().map(|worker| worker.room()).sum();
    let with_room = matching.iter().filter(|worker| worker.room() > 0).count();
    let rest = matching.len() - with_room;
    let are = if free == 1 { "is" } else { "are" };
    let workers = match (with_room, rest) {
        (0, 1) => "the one matching worker, which is cordoned or full".to_string(),
        (0, rest) => format!("{rest} matching workers, which are cordoned or full"),
        (open, 0) => counted(open, "matching worker"),
        (open, rest) => {
            let are = if rest == 1 { "is" } else { "are" };
            format!("{} ({rest} more {are} cordoned or full)", counted(open, "matching worker"))
        }
    };
    Unplaceable(format!("{needs}; {free} {are} free on {workers}"))
}

fn slots(count: u32) -> String {
    counted(count as usize, "slot")
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
