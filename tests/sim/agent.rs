//! One deployment on one worker: fetches state, builds tasks, carries commands to them and what they say to the session,
//! uploads snapshots. As the worker's agent does, without its threads.

use super::jobs::{Planned, decode};
use super::state::Staged;
use super::store::{Answer, Answered, Asker, Entries, Object, Op, Trouble, root};
use super::task::{Control, Frame, NodeSnapshot, Task, TaskEvent};
use super::world::World;
use crate::note;
use ef_proto::checkpoint::{Layout, StateFile, SubtaskState, path};
use ef_proto::error::{Code, Error};
use ef_proto::ids::{DeploymentId, Epoch, OperatorId, SubtaskId};
use ef_proto::keys::range_of;
use ef_proto::rpc::{self, Command, Deploy};
use ef_worker::agent::rules::Event as Step;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A store that answers nothing is asked again so many times.
const PATIENCE: u32 = 4;

pub enum ToAgent {
    /// The store has answered.
    Answer {
        work: u64,
        answered: Answered,
    },
    /// All state is there: build the tasks.
    Build,
    /// A task has something to do.
    Task(usize),
    Frame {
        task: SubtaskId,
        channel: usize,
        frame: Frame,
    },
    Connect {
        wire: u64,
    },
    /// The channels with a peer have broken.
    Broken {
        peer: usize,
    },
    /// A task has left.
    Left(usize),
    /// Nothing was built yet when it was told to leave.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Restoring,
    Running,
    Leaving,
}

enum Work {
    Read { file: String, tries: u32 },
    Upload(Box<Upload>),
}

struct Upload {
    task: usize,
    subtask: SubtaskId,
    epoch: Epoch,
    sequence: u64,
    /// Not yet in the store.
    files: VecDeque<(String, Object)>,
    state: SubtaskState,
    tries: u32,
}

pub struct Agent {
    pub id: DeploymentId,
    pub planned: Arc<Planned>,
    pub deploy: Deploy,
    stage: Stage,
    /// By their position; None while one is stepped.
    pub tasks: Vec<Option<Task>>,
    pub index: BTreeMap<SubtaskId, usize>,
    left: BTreeSet<usize>,
    works: BTreeMap<u64, Work>,
    to_read: VecDeque<String>,
    pub read: BTreeMap<String, Arc<Entries>>,
}

impl Agent {
    pub fn is_leaving(&self) -> bool {
        self.stage == Stage::Leaving
    }

    /// The old states that each new subtask of an operator takes over.
    pub fn parents(&self, subtask: SubtaskId) -> Vec<SubtaskState> {
        let plan = &self.planned.plan;
        let Some(op) = plan.operator(subtask.operator) else { return Vec::new() };
        let range = range_of(subtask.index, op.parallelism, plan.max_parallelism);
        let overlaps = |old: &&SubtaskState| old.key_groups.start < range.end && range.start < old.key_groups.end;
        self.restored(subtask.operator).iter().filter(overlaps).cloned().collect()
    }

    pub fn restored(&self, operator: OperatorId) -> &[SubtaskState] {
        let manifest = self.deploy.restore.iter();
        let found = manifest.flat_map(|manifest| &manifest.operators).find(|state| state.id == operator);
        found.map_or(&[], |state| &state.subtasks)
    }

    pub fn blobs(&self, operator: OperatorId) -> Vec<Vec<u8>> {
        self.restored(operator).iter().map(|state| state.blob.clone()).filter(|blob| !blob.is_empty()).collect()
    }
}

impl World {
    pub fn start_agent(&mut self, worker: usize, id: DeploymentId, deploy: Deploy) {
        self.stats.deployments += 1;
        let number = self.number();
        let planned = decode(&deploy.plan);
        let mut agent = Agent {
            id: id.clone(),
            planned: planned.clone(),
            deploy,
            stage: Stage::Restoring,
            tasks: Vec::new(),
            index: BTreeMap::new(),
            left: BTreeSet::new(),
            works: BTreeMap::new(),
            to_read: VecDeque::new(),
            read: BTreeMap::new(),
        };
        let mut files = BTreeSet::new();
        for task in planned.tasks.in_region(id.region) {
            let here: Vec<SubtaskId> = task.subtasks().filter(|task| agent.deploy.placement.is_here(*task)).collect();
            for subtask in here {
                let position = agent.tasks.len();
                agent.index.insert(subtask, position);
                agent.tasks.push(Some(Task::gates(subtask, &planned.plan)));
                for operator in &task.operators {
                    let parents = agent.parents(SubtaskId { operator: *operator, index: subtask.index });
                    files.extend(parents.into_iter().flat_map(|parent| parent.keyed).map(|file| file.path));
                }
            }
        }
        agent.to_read = files.into_iter().collect();
        let process = &mut self.workers[worker];
        process.numbers.insert(id, number);
        process.agents.insert(number, agent);
        self.read_next(worker, number);
    }

    fn agent(&mut self, worker: usize, number: u64) -> Option<&mut Agent> {
        self.workers[worker].agents.get_mut(&number)
    }

    fn ask_for(&mut self, worker: usize, number: u64, op: Op, work: Work) {
        let id = self.number();
        let boot = self.workers[worker].boot;
        if let Some(agent) = self.agent(worker, number) {
            agent.works.insert(id, work);
            self.ask_store(op, Asker::Agent { worker, boot, agent: number, work: id });
        }
    }

    fn read_next(&mut self, worker: usize, number: u64) {
        let Some(agent) = self.agent(worker, number) else { return };
        let Some(file) = agent.to_read.pop_front() else {
            let slow = self.workers[worker].slowness;
            let after = self.between(5, 60) * slow;
            return self.tell_agent(worker, number, after, ToAgent::Build);
        };
        let path = format!("{}{file}", root(&agent.deploy.state, &agent.id.job));
        self.ask_for(worker, number, Op::Get { path }, Work::Read { file, tries: 0 });
    }

    pub fn agent_hears(&mut self, worker: usize, number: u64, what: ToAgent) {
        let Some(agent) = self.workers[worker].agents.get_mut(&number) else { return };
        match what {
            ToAgent::Answer { work, answered } => match agent.works.remove(&work) {
                Some(Work::Read { file, tries }) => self.has_read(worker, number, file, tries, answered),
                Some(Work::Upload(upload)) => self.has_put(worker, number, *upload, answered),
                None => {}
            },
            ToAgent::Build if agent.stage == Stage::Restoring => self.build_agent(worker, number),
            ToAgent::Build => {}
            ToAgent::Task(task) => self.step_task(worker, number, task),
            ToAgent::Frame { task, channel, frame } => {
                if let Some(task) = agent.index.get(&task).copied() {
                    let found = agent.tasks[task].as_mut().expect("not in a step");
                    found.take(channel, frame);
                    self.wake_task(worker, number, task);
                }
            }
            ToAgent::Connect { wire } => self.connect(wire),
            ToAgent::Broken { peer } => {
                if agent.tasks.iter().flatten().any(|task| !task.has_ended()) {
                    self.fail_agent(worker, number, format!("a channel with w{peer} broke"));
                }
            }
            ToAgent::Left(task) => {
                agent.left.insert(task);
                if agent.left.len() == agent.tasks.len() {
                    self.agent_gone(worker, number);
                }
            }
            ToAgent::Gone => self.agent_gone(worker, number),
        }
    }

    fn agent_gone(&mut self, worker: usize, number: u64) {
        let Some(agent) = self.agent(worker, number) else { return };
        let id = agent.id.clone();
        self.drop_wires(worker, number, &id);
        self.step_session(worker, Step::Agent { deployment: id, event: rpc::Event::Stopped });
    }

    fn has_read(&mut self, worker: usize, number: u64, file: String, tries: u32, answered: Answered) {
        let Some(agent) = self.agent(worker, number).filter(|agent| agent.stage == Stage::Restoring) else { return };
        let id = agent.id.clone();
        match answered {
            Ok(Answer::Object(Object::State(entries))) => {
                agent.read.insert(file, entries);
                self.read_next(worker, number);
            }
            Err(Trouble::Unavailable) if tries < PATIENCE => {
                let path = format!("{}{file}", root(&agent.deploy.state, &agent.id.job));
                self.ask_for(worker, number, Op::Get { path }, Work::Read { file, tries: tries + 1 });
            }
            Err(Trouble::Missing(path)) => {
                if self.is_current(&id) {
                    self.fail(format!("{id} on w{worker} restores from `{path}`, which is gone"));
                }
                self.fail_agent(worker, number, format!("`{path}` is gone"));
            }
            other => self.fail_agent(worker, number, format!("state file `{file}`: {other:?}")),
        }
    }

    fn build_agent(&mut self, worker: usize, number: u64) {
        let Some(agent) = self.agent(worker, number) else { return };
        let id = agent.id.clone();
        for position in 0..agent.tasks.len() {
            if let Err(why) = self.build_task(worker, number, position) {
                if self.is_current(&id) {
                    self.fail(format!("{id} on w{worker} cannot start: {why}"));
                }
                return self.fail_agent(worker, number, why);
            }
        }
        let Some(agent) = self.agent(worker, number) else { return };
        agent.stage = Stage::Running;
        agent.read.clear();
        let tasks = agent.tasks.len();
        let restored = agent.deploy.restore.as_ref().map(|manifest| manifest.epoch);
        let sinks: Vec<SubtaskId> = agent.tasks.iter().flatten().flat_map(|task| task.sinks()).collect();
        self.step_session(worker, Step::Agent { deployment: id.clone(), event: rpc::Event::Running });
        // What the checkpoint holds they have published when they were opened.
        for (epoch, subtask) in restored.iter().flat_map(|epoch| sinks.iter().map(|subtask| (*epoch, *subtask))) {
            let event = rpc::Event::Committed { epoch, subtask };
            self.step_session(worker, Step::Agent { deployment: id.clone(), event });
        }
        (0..tasks).for_each(|task| self.wake_task(worker, number, task));
    }

    pub fn command_agent(&mut self, worker: usize, id: &DeploymentId, command: Command) {
        let Some(number) = self.workers[worker].numbers.get(id).copied() else { return };
        let control = match command {
            Command::Deploy(_) => return,
            Command::Cancel => return self.leave(worker, number),
            Command::Trigger { epoch } => Control::Trigger(epoch),
            Command::Complete { epoch } => Control::Complete(epoch),
            Command::Abort { epoch } => {
                self.abandon(worker, number, epoch);
                Control::Abort(epoch)
            }
            Command::Stop { drain } => Control::Stop { drain },
        };
        let Some(agent) = self.agent(worker, number).filter(|agent| agent.stage == Stage::Running) else { return };
        let tasks = agent.tasks.len();
        for task in agent.tasks.iter_mut().flatten() {
            task.controls.push_back(control.clone());
        }
        (0..tasks).for_each(|task| self.wake_task(worker, number, task));
    }

    /// Nobody waits for these uploads any more.
    fn abandon(&mut self, worker: usize, number: u64, upto: Epoch) {
        let Some(agent) = self.agent(worker, number) else { return };
        agent.works.retain(|_, work| !matches!(work, Work::Upload(upload) if upload.epoch <= upto));
    }

    /// All tasks are told to leave; each does when it notices.
    pub fn leave(&mut self, worker: usize, number: u64) {
        let Some(agent) = self.agent(worker, number).filter(|agent| agent.stage != Stage::Leaving) else { return };
        let was = std::mem::replace(&mut agent.stage, Stage::Leaving);
        agent.works.clear();
        let tasks = agent.tasks.len();
        if was == Stage::Restoring || tasks == 0 {
            let after = self.between(1, 200);
            return self.tell_agent(worker, number, after, ToAgent::Gone);
        }
        for task in 0..tasks {
            // One of them hangs in a call for longer than anybody waits, and may end what it had begun.
            let after = if self.chance(0.05) { self.between(500, 3_000) } else { self.between(1, 80) };
            if self.chance(0.2) {
                self.tell_agent(worker, number, after, ToAgent::Task(task));
            }
            self.tell_agent(worker, number, after, ToAgent::Left(task));
        }
    }

    pub fn fail_agent(&mut self, worker: usize, number: u64, why: String) {
        let Some(agent) = self.agent(worker, number).filter(|agent| agent.stage != Stage::Leaving) else { return };
        let (id, operator) = (agent.id.clone(), agent.planned.plan.operators[0].id);
        note!(self, "w{worker}: {id} fails: {why}");
        self.leave(worker, number);
        let event = rpc::Event::Failed { operator, error: Error::new(Code::Unavailable, why) };
        self.step_session(worker, Step::Agent { deployment: id, event });
    }

    /// What a task has said.
    pub fn task_says(&mut self, worker: usize, number: u64, task: usize, event: TaskEvent) {
        let Some(agent) = self.agent(worker, number) else { return };
        let (id, leaving) = (agent.id.clone(), agent.is_leaving());
        if leaving {
            return;
        }
        let mut say = |event: rpc::Event| self.step_session(worker, Step::Agent { deployment: id.clone(), event });
        match event {
            TaskEvent::Failed(why) => self.fail_agent(worker, number, why),
            TaskEvent::Committed { epoch, subtask } => say(rpc::Event::Committed { epoch, subtask }),
            TaskEvent::Ended(subtasks) => subtasks.into_iter().for_each(|subtask| say(rpc::Event::Ended { subtask })),
            TaskEvent::Snapshot { epoch, nodes } => {
                for node in nodes {
                    self.acknowledge(worker, number, task, epoch, node);
                }
            }
        }
    }

    fn acknowledge(&mut self, worker: usize, number: u64, task: usize, epoch: Epoch, node: NodeSnapshot) {
        let ahead = self.options.bugs.ack_before_upload;
        let Some(agent) = self.agent(worker, number) else { return };
        let (id, state_root) = (agent.id.clone(), agent.deploy.state.clone());
        let NodeSnapshot { subtask, blob, staged } = node;
        let mut state = SubtaskState { index: subtask.index, blob, ..SubtaskState::default() };
        let Some(Staged { sequence, db_uid, key_groups, files }) = staged else {
            let event = rpc::Event::Acked { epoch, subtask, state };
            return self.step_session(worker, Step::Agent { deployment: id, event });
        };
        (state.key_groups, state.layout) = (key_groups, Layout::RocksDb);
        let mut puts = VecDeque::new();
        for (name, content) in files {
            state.keyed.push(match content {
                Ok(reused) => reused,
                Err(entries) => {
                    let path = path::state_file(subtask.operator, subtask.index, &db_uid, id.incarnation, epoch, &name);
                    let put = format!("{}{path}", root(&state_root, &id.job));
                    let bytes = entries.len() as u64 * 20;
                    puts.push_back((put, Object::State(entries)));
                    StateFile { path, name, bytes, crc32: 0 }
                }
            });
        }
        if self.options.bugs.reuse_unconfirmed
            && let Some(task) = self.agent(worker, number).and_then(|agent| agent.tasks[task].as_mut())
        {
            task.controls.push_back(Control::Uploaded { subtask, sequence, files: state.keyed.clone() });
        }
        if ahead {
            let event = rpc::Event::Acked { epoch, subtask, state: state.clone() };
            self.step_session(worker, Step::Agent { deployment: id, event });
        }
        let upload = Upload { task, subtask, epoch, sequence, files: puts, state, tries: 0 };
        self.put_next(worker, number, upload);
    }

    fn put_next(&mut self, worker: usize, number: u64, upload: Upload) {
        if let Some((path, object)) = upload.files.front().cloned() {
            return self.ask_for(worker, number, Op::Put { path, object }, Work::Upload(Box::new(upload)));
        }
        let Upload { task, subtask, epoch, sequence, state, .. } = upload;
        let Some(agent) = self.agent(worker, number) else { return };
        let id = agent.id.clone();
        if let Some(task) = agent.tasks[task].as_mut() {
            // Before the ack: the store must know the names when the checkpoint completes.
            task.controls.push_back(Control::Uploaded { subtask, sequence, files: state.keyed.clone() });
        }
        self.wake_task(worker, number, task);
        self.step_session(worker, Step::Agent { deployment: id, event: rpc::Event::Acked { epoch, subtask, state } });
    }

    fn has_put(&mut self, worker: usize, number: u64, mut upload: Upload, answered: Answered) {
        match answered {
            Ok(_) => {
                upload.files.pop_front();
                upload.tries = 0;
                self.put_next(worker, number, upload);
            }
            Err(Trouble::Unavailable) if upload.tries < PATIENCE => {
                upload.tries += 1;
                self.put_next(worker, number, upload);
            }
            Err(Trouble::Conflict(path)) => self.fail(format!("two writers of `{path}`")),
            Err(trouble) => {
                let Some(agent) = self.agent(worker, number) else { return };
                let (id, Upload { subtask, epoch, .. }) = (agent.id.clone(), upload);
                let event = rpc::Event::Declined { epoch, subtask, reason: format!("{trouble:?}") };
                self.step_session(worker, Step::Agent { deployment: id, event });
            }
        }
    }
}
