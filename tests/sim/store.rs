//! The object store: create-only puts, delays, errors whose outcome nobody knows, outages. What is asked of it goes on
//! when the process that asked has gone, or does not.

use super::jobs::Row;
use super::world::{Event, World};
use ef_proto::checkpoint::{Manifest, path};
use ef_proto::ids::{Epoch, JobId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// (key group, key, window); for a counter the window is 0.
pub type Key = (u16, u32, i64);
/// A file of keyed state: what each key has become. None: it is gone.
pub type Entries = Vec<(Key, Option<Row>)>;

#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// As it is encoded.
    Manifest(Vec<u8>),
    State(Arc<Entries>),
}

#[derive(Clone, Debug)]
pub enum Op {
    Put { path: String, object: Object },
    Get { path: String },
    List { prefix: String },
    Delete { path: String },
    Copy { from: String, to: String },
}

#[derive(Clone, Debug)]
pub enum Answer {
    Done,
    Object(Object),
    Names(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// Whether it was done nobody knows.
    Unavailable,
    Missing(String),
    /// There is something else under that name.
    Conflict(String),
}

pub type Answered = Result<Answer, Trouble>;

/// Who has asked.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    Coordinator { life: u64, work: u64 },
    Agent { worker: usize, boot: u64, agent: u64, work: u64 },
}

#[derive(Default)]
pub struct Store {
    pub objects: BTreeMap<String, Object>,
    pub outage_until_ms: u64,
    /// Files of each manifest that was ever recorded.
    pub files: BTreeMap<(JobId, Epoch), Arc<BTreeSet<String>>>,
}

pub fn root(state: &str, job: &JobId) -> String {
    format!("{state}/jobs/{job}/")
}

impl World {
    pub fn ask_store(&mut self, op: Op, asker: Asker) {
        let delay = self.weather.store_ms;
        let after = self.between(1, delay);
        self.later(after, Event::Store { op, asker });
    }

    pub fn store(&mut self, op: Op, asker: Asker) {
        let there = self.is_there(asker);
        if !there && self.chance(0.5) {
            return; // it had not left the process
        }
        let until = self.store.outage_until_ms;
        if self.now < until {
            if self.chance(0.5) {
                let after = until - self.now + self.between(1, 300);
                return self.later(after, Event::Store { op, asker });
            }
            return self.answer(asker, Err(Trouble::Unavailable));
        }
        let troubled = self.weather.store_errors;
        if self.chance(troubled) {
            self.stats.faults += 1;
            if self.chance(0.5) {
                drop(self.carry_out(op));
            }
            return self.answer(asker, Err(Trouble::Unavailable));
        }
        let answered = self.carry_out(op);
        self.answer(asker, answered);
    }

    fn answer(&mut self, asker: Asker, answered: Answered) {
        let delay = self.weather.store_ms;
        let after = self.between(0, delay / 2);
        self.later(after, Event::Answer { asker, answered });
    }

    fn carry_out(&mut self, op: Op) -> Answered {
        let missing = |path: &str| Trouble::Missing(path.to_string());
        match op {
            Op::Put { path, object } => self.create(path, object),
            Op::Get { path } => {
                self.store.objects.get(&path).cloned().map(Answer::Object).ok_or_else(|| missing(&path))
            }
            Op::List { prefix } => {
                let below = self.store.objects.range(prefix.clone()..).map(|(path, _)| path);
                let names = below.take_while(|path| path.starts_with(&prefix));
                Ok(Answer::Names(names.map(|path| path[prefix.len()..].to_string()).collect()))
            }
            Op::Delete { path } => {
                self.check_delete(&path);
                self.store.objects.remove(&path);
                Ok(Answer::Done)
            }
            Op::Copy { from, to } => match self.store.objects.get(&from).cloned() {
                Some(object) => self.create(to, object),
                None => Err(missing(&from)),
            },
        }
    }

    fn create(&mut self, path: String, object: Object) -> Answered {
        match self.store.objects.get(&path) {
            Some(there) if *there == object => Ok(Answer::Done),
            Some(_) => Err(Trouble::Conflict(path)),
            None => {
                self.store.objects.insert(path, object);
                Ok(Answer::Done)
            }
        }
    }

    pub fn read_manifest(&self, job: &JobId, epoch: Epoch) -> Option<Manifest> {
        self.manifest_at(&format!("{}{}", root("state", job), path::manifest(epoch)))
    }

    pub fn manifest_at(&self, path: &str) -> Option<Manifest> {
        match self.store.objects.get(path)? {
            Object::Manifest(bytes) => Manifest::decode(bytes).ok(),
            Object::State(_) => None,
        }
    }
}
