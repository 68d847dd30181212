//! What the coordinator's process does beside its loop: manifests put and read, sweeps, copies of savepoints, planning.
//! Each piece is one request to the store after the other, tried again a few times.

use super::coordinator::ToCoordinator;
use super::jobs::{Planned, plan};
use super::store::{Answer, Answered, Asker, Object, Op, Trouble, root};
use super::world::World;
use crate::note;
use ef_coordinator::leader::Response;
use ef_coordinator::leader::rules::{self, Effect, Replan, RequestId};
use ef_coordinator::manifests::gc;
use ef_coordinator::meta::{CheckpointRecord, Submitted};
use ef_proto::checkpoint::{Manifest, path};
use ef_proto::error::{Code, Error};
use ef_proto::ids::{Epoch, JobId, OperatorId};
use ef_proto::wire::generated::control::{RescaleJobRequest, SubmitRequest, SubmitResponse};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const PATIENCE: u32 = 4;

pub struct Work {
    what: What,
    tries: u32,
}

enum What {
    Put {
        job: JobId,
        manifest: Arc<Manifest>,
    },
    Load {
        job: JobId,
        epoch: Epoch,
    },
    Sweep {
        job: JobId,
        to_read: VecDeque<Epoch>,
        last: Option<Epoch>,
        retained: Vec<Manifest>,
        garbage: Option<VecDeque<String>>,
        deleted: usize,
    },
    Copy(Box<Copy>),
}

/// A checkpoint on its way to another place: as a savepoint, or into the root of a job that starts from it.
struct Copy {
    whose: Whose,
    /// Places end with a slash.
    from: String,
    to: String,
    /// None: the newest there.
    epoch: Option<Epoch>,
    manifest: Option<Manifest>,
    files: VecDeque<String>,
}

enum Whose {
    Savepoint(String),
    Job { id: RequestId, request: Box<SubmitRequest>, job: JobId, place: String, planned: Arc<Planned> },
}

impl World {
    pub fn begin_work(&mut self, effect: Effect) {
        let what = match effect {
            Effect::Put { job, manifest } => What::Put { job, manifest },
            Effect::Load { job, epoch } => What::Load { job, epoch },
            Effect::Sweep { job, kept, last_completed } => {
                if !self.coordinator.sweeping.insert(job.clone()) {
                    let result = Err(Error::new(Code::Conflict, "another sweep of the job is under way"));
                    return self.step_core(rules::Event::Swept { job, result });
                }
                note!(self, "sweep of {job}: all but {kept:?}, {last_completed:?}");
                let (to_read, retained) = (kept.into(), Vec::new());
                What::Sweep { job, to_read, last: last_completed, retained, garbage: None, deleted: 0 }
            }
            Effect::Copy { savepoint, job, epoch, path } => What::Copy(Box::new(Copy {
                whose: Whose::Savepoint(savepoint),
                from: root("state", &job),
                to: format!("{path}/"),
                epoch: Some(epoch),
                manifest: None,
                files: VecDeque::new(),
            })),
            Effect::Plan { id, request, job, from, .. } => return self.plan(id, request, job, from),
            Effect::Replan { id, job, request } => return self.replan(id, job, request),
            other => unreachable!("no work for {other:?}"),
        };
        self.go_on(Work { what, tries: 0 });
    }

    /// Asks the store for what comes next.
    fn go_on(&mut self, work: Work) {
        let op = match &work.what {
            What::Put { job, manifest } => Op::Put {
                path: format!("{}{}", root("state", job), path::manifest(manifest.epoch)),
                object: Object::Manifest(manifest.encode()),
            },
            What::Load { job, epoch } => Op::Get { path: format!("{}{}", root("state", job), path::manifest(*epoch)) },
            What::Sweep { job, to_read, garbage, deleted, .. } => match (to_read.front(), garbage) {
                (Some(epoch), _) => Op::Get { path: format!("{}{}", root("state", job), path::manifest(*epoch)) },
                (None, None) => Op::List { prefix: root("state", job) },
                (None, Some(garbage)) => match garbage.front() {
                    Some(name) => Op::Delete { path: format!("{}{name}", root("state", job)) },
                    None => {
                        let swept = rules::Event::Swept { job: job.clone(), result: Ok(*deleted) };
                        self.coordinator.sweeping.remove(job);
                        return self.step_core(swept);
                    }
                },
            },
            What::Copy(copy) => match (&copy.manifest, copy.epoch, copy.files.front()) {
                (None, None, _) => Op::List { prefix: format!("{}chk/", copy.from) },
                (None, Some(epoch), _) => Op::Get { path: format!("{}{}", copy.from, path::manifest(epoch)) },
                (Some(_), _, Some(file)) => {
                    Op::Copy { from: format!("{}{file}", copy.from), to: format!("{}{file}", copy.to) }
                }
                (Some(manifest), _, None) => Op::Put {
                    path: format!("{}{}", copy.to, path::manifest(manifest.epoch)),
                    object: Object::Manifest(manifest.encode()),
                },
            },
        };
        let id = self.number();
        let life = self.coordinator.life;
        self.coordinator.works.insert(id, work);
        self.ask_store(op, Asker::Coordinator { life, work: id });
    }

    pub fn work(&mut self, id: u64, answered: Answered) {
        let Some(mut work) = self.coordinator.works.remove(&id) else { return };
        let patient = !matches!(work.what, What::Put { .. }) || self.chance(0.5);
        if answered.as_ref().err() == Some(&Trouble::Unavailable) && work.tries < PATIENCE && patient {
            work.tries += 1;
            return self.go_on(work);
        }
        let error = |trouble: &Trouble| match trouble {
            Trouble::Unavailable => Error::new(Code::Unavailable, "the store does not answer"),
            Trouble::Missing(path) => Error::new(Code::NotFound, format!("`{path}` is gone")),
            Trouble::Conflict(path) => Error::new(Code::Conflict, format!("`{path}` is there with another content")),
        };
        match work.what {
            What::Put { job, manifest } => {
                let result = answered.map(drop).map_err(|trouble| error(&trouble));
                self.step_core(rules::Event::Stored { job, epoch: manifest.epoch, result });
            }
            What::Load { job, epoch } => {
                if let Err(Trouble::Missing(path)) = &answered
                    && self.coordinator.truth().kept(&job).contains(&epoch)
                {
                    self.fail(format!("`{path}` is to be restored, and is gone"));
                }
                let result = answered.map(manifest).map(Arc::new).map_err(|trouble| error(&trouble));
                self.step_core(rules::Event::Loaded { job, epoch, result });
            }
            What::Sweep { job, to_read, last, retained, garbage, deleted } => {
                let sweep = What::Sweep { job: job.clone(), to_read, last, retained, garbage, deleted };
                match answered {
                    Ok(answer) => {
                        let what = self.swept(sweep, answer);
                        self.go_on(Work { what, tries: 0 });
                    }
                    Err(trouble) => {
                        self.coordinator.sweeping.remove(&job);
                        self.step_core(rules::Event::Swept { job, result: Err(error(&trouble)) });
                    }
                }
            }
            What::Copy(copy) => self.copied(*copy, answered.map_err(|trouble| (error(&trouble), trouble))),
        }
    }

    fn swept(&mut self, sweep: What, answer: Answer) -> What {
        let What::Sweep { job, mut to_read, last, mut retained, mut garbage, mut deleted } = sweep else {
            return sweep;
        };
        match answer {
            Answer::Object(_) => {
                retained.push(manifest(answer));
                to_read.pop_front();
            }
            Answer::Names(names) => garbage = Some(self.garbage(&retained, names, last)),
            Answer::Done => {
                garbage.as_mut().and_then(VecDeque::pop_front);
                deleted += 1;
            }
        }
        What::Sweep { job, to_read, last, retained, garbage, deleted }
    }

    fn garbage(&mut self, retained: &[Manifest], names: Vec<String>, last: Option<Epoch>) -> VecDeque<String> {
        let on_disk = names.iter().filter_map(|name| path::manifest_epoch(name)).collect();
        let objects: Vec<String> = names.into_iter().filter(|name| name.starts_with("shared/")).collect();
        let mut garbage = gc::sweep(retained, objects.clone(), on_disk, last);
        if self.options.bugs.gc_ignores_in_flight {
            let named = |object: &String| retained.iter().flat_map(Manifest::files).any(|file| file.path == *object);
            garbage.files = objects.into_iter().filter(|object| !named(object)).collect();
        }
        self.stats.deleted += garbage.files.len() as u64;
        garbage.manifests.into_iter().map(path::manifest).chain(garbage.files).collect()
    }

    fn copied(&mut self, mut copy: Copy, answered: Result<Answer, (Error, Trouble)>) {
        let answer = match answered {
            Ok(answer) => answer,
            Err((error, trouble)) => return self.copy_failed(copy, error, trouble),
        };
        match (&copy.manifest, copy.files.is_empty(), answer) {
            (None, _, Answer::Names(names)) => {
                let epochs = names.iter().filter_map(|name| path::manifest_epoch(&format!("chk/{name}")));
                copy.epoch = epochs.max();
                if copy.epoch.is_none() {
                    let error = Error::new(Code::NotFound, format!("no checkpoint below `{}`", copy.from));
                    let trouble = Trouble::Missing(copy.from.clone());
                    return self.copy_failed(copy, error, trouble);
                }
            }
            (None, _, answer) => {
                let mut read = manifest(answer);
                if matches!(copy.whose, Whose::Job { .. }) {
                    read.terminal = false;
                }
                copy.files = read.files().map(|file| file.path.clone()).collect();
                copy.manifest = Some(read);
            }
            (Some(_), false, _) => drop(copy.files.pop_front()),
            (Some(_), true, _) => return self.copy_done(copy),
        }
        self.go_on(Work { what: What::Copy(Box::new(copy)), tries: 0 });
    }

    fn copy_done(&mut self, copy: Copy) {
        let manifest = copy.manifest.expect("it was put");
        match copy.whose {
            Whose::Savepoint(savepoint) => {
                self.stats.savepoints += 1;
                self.step_core(rules::Event::Copied { savepoint, result: Ok(1) });
            }
            Whose::Job { id, request, job, place, planned } => {
                let record = CheckpointRecord {
                    epoch: manifest.epoch,
                    cause: "restored".into(),
                    triggered_at_ms: 0,
                    completed_at_ms: self.now,
                    bytes: 1,
                    new_bytes: 0,
                };
                let event = self.planned(id, *request, job, planned, Some((place, record)));
                self.step_core(event);
            }
        }
    }

    fn copy_failed(&mut self, copy: Copy, error: Error, trouble: Trouble) {
        match copy.whose {
            Whose::Savepoint(savepoint) => {
                let pinned = self.coordinator.truth().savepoints.get(&savepoint);
                let in_progress = pinned.is_some_and(|s| s.completed_at_ms == 0 && s.epoch == copy.epoch);
                if let (Trouble::Missing(path), true) = (&trouble, in_progress) {
                    self.fail(format!("savepoint {savepoint} is to be copied from `{path}`, which is gone"));
                }
                self.step_core(rules::Event::Copied { savepoint, result: Err(error) });
            }
            Whose::Job { id, place, .. } => {
                if let Trouble::Missing(path) = &trouble {
                    self.fail(format!("a job is to start from `{place}`, and `{path}` is gone"));
                }
                self.replied(id, Err(error));
            }
        }
    }

    fn plan(&mut self, id: RequestId, request: SubmitRequest, job: JobId, from: Option<String>) {
        let planned = plan(&request.sql, request.parallelism.unwrap_or(1), &BTreeMap::new()).expect("a plan of ours");
        let Some(place) = from else {
            let event = self.planned(id, request, job, planned, None);
            let after = self.between(5, 100);
            return self.tell_coordinator(after, ToCoordinator::Done(Box::new(event)));
        };
        // `…/chk/<epoch>` of a job, or a savepoint's directory.
        let (from, epoch) = match place.split_once("chk/") {
            Some((from, epoch)) => (from.to_string(), epoch.parse().ok().map(Epoch)),
            None => (format!("{place}/"), None),
        };
        let to = root("state", &job);
        let whose = Whose::Job { id, request: Box::new(request), job, place, planned };
        let copy = Copy { whose, from, to, epoch, manifest: None, files: VecDeque::new() };
        self.go_on(Work { what: What::Copy(Box::new(copy)), tries: 0 });
    }

    fn planned(
        &mut self,
        id: RequestId,
        request: SubmitRequest,
        job: JobId,
        planned: Arc<Planned>,
        restore: Option<(String, CheckpointRecord)>,
    ) -> rules::Event {
        let response = SubmitResponse { job: job.0.clone(), name: request.name.clone(), ..SubmitResponse::default() };
        let submitted = Submitted {
            job,
            at_ms: self.now,
            name: request.name,
            sql: request.sql,
            vars: BTreeMap::new(),
            models: BTreeMap::new(),
            parallelism: request.parallelism,
            plan: planned.bytes.clone(),
            state: "state".into(),
            restore,
        };
        let (submitted, response) = (Box::new(submitted), Response::Submit(response));
        rules::Event::Planned { id, dry_run: false, submitted, response }
    }

    fn replan(&mut self, id: RequestId, job: JobId, request: RescaleJobRequest) {
        let Some(meta) = self.coordinator.knows().and_then(|meta| meta.jobs.get(&job)) else { return };
        let mut overrides = if request.parallelism.is_some() { BTreeMap::new() } else { meta.overrides.clone() };
        for (operator, parallelism) in &request.operators {
            let operator = u64::from_str_radix(operator, 16).expect("an id of the plan");
            overrides.insert(OperatorId(operator), *parallelism);
        }
        let (parallelism, sql) = (request.parallelism.or(meta.parallelism), meta.sql.clone());
        let after = self.between(5, 150);
        match plan(&sql, parallelism.unwrap_or(1), &overrides) {
            Ok(planned) => {
                let replan = Box::new(Replan { plan: planned.bytes.clone(), parallelism, overrides });
                let event = rules::Event::Replanned { id, job, dry_run: false, replan };
                self.tell_coordinator(after, ToCoordinator::Done(Box::new(event)));
            }
            Err(why) => {
                note!(self, "no such plan: {why}");
                self.replied(id, Err(Error::invalid(why)));
            }
        }
    }
}

fn manifest(answer: Answer) -> Manifest {
    match answer {
        Answer::Object(Object::Manifest(bytes)) => Manifest::decode(&bytes).expect("it was encoded"),
        other => unreachable!("a manifest's name, and {other:?} under it"),
    }
}
