//! Which operators share a task, and which tasks share a fate: derived from the plan alone, so that coordinator and
//! workers come to the same answer.
//!
//! A task is a tree of operators fused by plain calls, named by its root; its subtask i runs subtask i of each. A
//! region is a set of tasks that exchange rows, directly or not: when one of them restarts, all of it does.

use super::{Edge, Exchange, Plan};
use crate::ids::{OperatorId, SubtaskId};
use crate::place::Constraint;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub root: OperatorId,
    /// The root first, then those fused below it, in the plan's order.
    pub operators: Vec<OperatorId>,
    pub parallelism: u32,
    pub constraint: Constraint,
    /// In `0..Tasks::regions`.
    pub region: u32,
}

impl Task {
    pub fn subtasks(&self) -> impl Iterator<Item = SubtaskId> + '_ {
        (0..self.parallelism).map(|index| SubtaskId { operator: self.root, index })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tasks {
    /// In the plan's order of their roots.
    pub tasks: Vec<Task>,
    pub regions: u32,
}

impl Tasks {
    pub fn in_region(&self, region: u32) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(move |task| task.region == region)
    }

    /// The task that runs an operator.
    pub fn of(&self, operator: OperatorId) -> Option<&Task> {
        self.tasks.iter().find(|task| task.operators.contains(&operator))
    }
}

impl Plan {
    /// True if the edge is a plain call: the consumer has no other input, no row changes its subtask, and both may run
    /// in the same places.
    pub fn is_fused(&self, edge: &Edge) -> bool {
        let (Some(from), Some(to)) = (self.operator(edge.from), self.operator(edge.to)) else { return false };
        let same_subtask = match edge.exchange {
            Exchange::Forward => true,
            Exchange::Hash(_) | Exchange::Rebalance | Exchange::Gather => from.parallelism == 1,
        };
        same_subtask
            && from.parallelism == to.parallelism
            && from.constraint == to.constraint
            && self.inputs_of(edge.to).count() == 1
    }

    pub fn tasks(&self) -> Tasks {
        // The root of each operator's task. Operators are in topological order, so a feeder's is known.
        let mut roots: BTreeMap<OperatorId, OperatorId> = BTreeMap::new();
        let mut tasks: Vec<Task> = Vec::new();
        for op in &self.operators {
            let fused = self.inputs_of(op.id).find(|edge| self.is_fused(edge));
            let root = fused.and_then(|edge| roots.get(&edge.from).copied()).unwrap_or(op.id);
            roots.insert(op.id, root);
            match tasks.iter_mut().find(|task| task.root == root) {
                Some(task) => task.operators.push(op.id),
                None => tasks.push(Task {
                    root,
                    operators: vec![op.id],
                    parallelism: op.parallelism,
                    constraint: op.constraint.clone(),
                    region: 0,
                }),
            }
        }
        let regions = self.number_regions(&roots, &mut tasks);
        Tasks { tasks, regions }
    }

    /// Connected tasks get one number, in the order of their first task.
    fn number_regions(&self, roots: &BTreeMap<OperatorId, OperatorId>, tasks: &mut [Task]) -> u32 {
        let position: BTreeMap<OperatorId, usize> =
            tasks.iter().enumerate().map(|(position, task)| (task.root, position)).collect();
        // Each task points to one of its region that comes no later; the first points to itself.
        let mut first: Vec<usize> = (0..tasks.len()).collect();
        let find = |first: &[usize], mut at: usize| {
            while first[at] != at {
                at = first[at];
            }
            at
        };
        for edge in &self.edges {
            let (Some(from), Some(to)) = (roots.get(&edge.from), roots.get(&edge.to)) else { continue };
            let (a, b) = (find(&first, position[from]), find(&first, position[to]));
            first[a.max(b)] = a.min(b);
        }
        let mut numbers: BTreeMap<usize, u32> = BTreeMap::new();
        for (at, task) in tasks.iter_mut().enumerate() {
            let next = numbers.len() as u32;
            task.region = *numbers.entry(find(&first, at)).or_insert(next);
        }
        numbers.len() as u32
    }
}
