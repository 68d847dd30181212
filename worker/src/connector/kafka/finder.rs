//! Looks for partitions and for the offsets between which they are read, on a thread of its own: every question may
//! have to wait for a broker, and a task must not.
//!
//! It has a client of its own, for as long as it looks; reading has another, made when it is known for how many
//! partitions. The first look must succeed within the time limit of the table's properties. Later ones that fail are
//! told in the log, and done again at the next interval.

use super::assign;
use super::client::{self, Context};
use super::position::{Partition, Progress, Restored};
use super::queue::Client;
use crate::error::{Code, Error, Result};
use crate::secrets::Secrets;
use ef_proto::connector::kafka::For;
use ef_proto::connector::{KafkaBounded, KafkaReset, KafkaSource, KafkaStartup, KafkaTopics};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

/// A call waits so long at once, then looks whether waiting makes sense.
const SLICE: Duration = Duration::from_secs(1);
const QUICK: Duration = Duration::from_millis(100);

/// A topic that was made just now may not be known to every broker.
const TRIES: usize = 4;
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// What the finder has to say to the source.
pub enum Answer {
    /// Partitions of this subtask that it does not know yet. The first answer, perhaps empty, ends the start.
    Found(BTreeMap<Partition, Progress>),
    /// The first look failed; nothing follows.
    Failed(Error),
}

pub struct Finder {
    pub options: KafkaSource,
    pub secrets: Secrets,
    /// `table "t"`
    pub name: String,
    pub index: u32,
    pub parallelism: u32,
    pub restored: Restored,
    pub now_ms: i64,
}

/// Topics by the table's description.
pub enum Topics {
    Names(Vec<String>),
    Pattern(Regex),
}

impl Topics {
    pub fn new(topics: &KafkaTopics) -> Result<Topics> {
        Ok(match topics {
            KafkaTopics::Names(names) => Topics::Names(names.clone()),
            // As Java's `matches`, the whole name.
            KafkaTopics::Pattern(pattern) => Topics::Pattern(
                Regex::new(&format!("^(?:{pattern})$"))
                    .map_err(|error| Error::invalid(format!("'topic-pattern' '{pattern}': {error}")))?,
            ),
        })
    }

    pub fn contains(&self, topic: &str) -> bool {
        match self {
            Topics::Names(names) => names.iter().any(|name| name == topic),
            // Kafka's own topics match no pattern.
            Topics::Pattern(pattern) => !topic.starts_with("__") && pattern.is_match(topic),
        }
    }
}

impl Finder {
    /// Until the source is gone (`gone` is disconnected), or there is nothing more to look for.
    pub fn run(self, answers: &SyncSender<Answer>, gone: &Receiver<()>) {
        let mut known = match self.first(gone) {
            Ok(found) => {
                let known: BTreeSet<Partition> = found.keys().cloned().collect();
                if answers.send(Answer::Found(found)).is_err() {
                    return;
                }
                known
            }
            Err(error) => {
                let _ = answers.send(Answer::Failed(error));
                return;
            }
        };
        let Some(interval) = self.options.discovery_ms.map(Duration::from_millis) else { return };
        while gone.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            match self.again(&known) {
                Ok(found) if found.is_empty() => {}
                Ok(found) => {
                    for (of, progress) in &found {
                        tracing::info!(
                            "{}: new partition {} of topic {}, from {}",
                            self.name,
                            of.number,
                            of.topic,
                            progress.next
                        );
                    }
                    known.extend(found.keys().cloned());
                    if answers.send(Answer::Found(found)).is_err() {
                        return;
                    }
                }
                // Once an interval.
                Err(error) => tracing::warn!("{}: looking for new partitions failed: {}", self.name, error.message),
            }
        }
    }

    fn ask(&self) -> Result<Ask<'_>> {
        let mut config = client::config(&self.options.client, For::Consumer, &self.secrets)?;
        if let Some(group) = &self.options.group {
            config.set("group.id", group);
        }
        let isolation = config.get("isolation.level").unwrap_or("read_committed").to_owned();
        config.set("isolation.level", isolation);
        config.set("enable.auto.commit", "false");
        let context = Context::new(self.name.clone(), self.now_ms);
        let client: Client = config.create_with_context(context).map_err(|error| client::not_created(&error))?;
        let limit_ms = self.options.client.api_timeout_ms().unwrap_or(client::API_TIMEOUT_MS);
        Ok(Ask { client, bootstrap: &self.options.client.bootstrap, limit: Duration::from_millis(limit_ms) })
    }

    /// All partitions of this subtask, where they are read from and to.
    fn first(&self, gone: &Receiver<()>) -> Result<BTreeMap<Partition, Progress>> {
        let ask = self.ask()?;
        let topics = Topics::new(&self.options.topics)?;
        let mut found: BTreeMap<Partition, Progress> = BTreeMap::new();
        for (of, progress) in self.restored.partitions.iter().filter(|(of, _)| self.owns(of)) {
            match topics.contains(&of.topic) {
                true => drop(found.insert(of.clone(), *progress)),
                false => tracing::warn!(
                    "{}: topic {} is not read any more; the offset {} of its partition {} is forgotten",
                    self.name,
                    of.topic,
                    progress.next,
                    of.number
                ),
            }
        }
        let listed = self.listed(&ask, &topics, Some(gone))?;
        let unbounded = self.options.bounded == KafkaBounded::Unbounded;
        let (mut initial, mut new) = (Vec::new(), Vec::new());
        for of in listed.into_iter().filter(|of| self.owns(of) && !found.contains_key(of)) {
            if !self.restored.is_new(&of) {
                initial.push(of);
            } else if unbounded {
                new.push(of);
            }
        }
        let starts = self.starts(&ask, &initial)?;
        found.extend(initial.into_iter().zip(starts).map(|(of, next)| (of, Progress { next, end: None })));
        let starts = ask.offsets(&new, Offset::Beginning)?;
        found.extend(new.into_iter().zip(starts).map(|(of, next)| (of, Progress { next, end: None })));
        if unbounded {
            found.values_mut().for_each(|progress| progress.end = None);
        } else {
            // Ends stay what they were at the first start.
            let open: Vec<Partition> =
                found.iter().filter(|(_, progress)| progress.end.is_none()).map(|(of, _)| of.clone()).collect();
            for (of, end) in open.iter().zip(self.ends(&ask, &open)?) {
                found.get_mut(of).expect("taken from it").end = Some(end);
            }
        }
        Ok(found)
    }

    /// Partitions that came since, from their beginning.
    fn again(&self, known: &BTreeSet<Partition>) -> Result<BTreeMap<Partition, Progress>> {
        let ask = self.ask()?;
        let topics = Topics::new(&self.options.topics)?;
        let listed = self.listed(&ask, &topics, None)?;
        let new: Vec<Partition> = listed.into_iter().filter(|of| self.owns(of) && !known.contains(of)).collect();
        let starts = ask.offsets(&new, Offset::Beginning)?;
        Ok(new.into_iter().zip(starts).map(|(of, next)| (of, Progress { next, end: None })).collect())
    }

    fn owns(&self, of: &Partition) -> bool {
        assign::owner(&of.topic, of.number, self.parallelism) == self.index
    }

    /// The partitions that the cluster has of the table's topics. `first`: a topic that is not there is an error,
    /// unless a checkpoint knows it.
    fn listed(&self, ask: &Ask, topics: &Topics, first: Option<&Receiver<()>>) -> Result<Vec<Partition>> {
        let mut all = Vec::new();
        match topics {
            Topics::Pattern(_) => {
                let metadata = ask.patiently("the list of topics", |slice| ask.client.fetch_metadata(None, slice))?;
                for topic in metadata.topics().iter().filter(|topic| topics.contains(topic.name())) {
                    all.extend(topic.partitions().iter().map(|partition| Partition::new(topic.name(), partition.id())));
                }
                if all.is_empty() && first.is_some() && self.options.discovery_ms.is_none() {
                    let KafkaTopics::Pattern(pattern) = &self.options.topics else { unreachable!("it is one") };
                    let what = format!("no topic at {} matches 'topic-pattern' '{pattern}'", ask.bootstrap);
                    return Err(Error::new(Code::NotFound, what));
                }
            }
            Topics::Names(names) => {
                for name in names {
                    let kept = self.restored.partitions.keys().any(|of| of.topic == *name);
                    match self.partitions(ask, name, first) {
                        Ok(partitions) => all.extend(partitions),
                        Err(error) if error.code == Code::NotFound && (kept || first.is_none()) => {
                            tracing::warn!("{}: {}; its partitions are waited for", self.name, error.message);
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(all)
    }

    fn partitions(&self, ask: &Ask, topic: &str, first: Option<&Receiver<()>>) -> Result<Vec<Partition>> {
        let what = format!("topic \"{topic}\"");
        let mut tries = 0;
        loop {
            let metadata = ask.patiently(&what, |slice| ask.client.fetch_metadata(Some(topic), slice))?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let partitions: Vec<Partition> = found
                .map(|found| found.partitions().iter().map(|partition| Partition::new(topic, partition.id())).collect())
                .unwrap_or_default();
            if !partitions.is_empty() {
                return Ok(partitions);
            }
            let code = found.and_then(|found| found.error()).map_or(RDKafkaErrorCode::UnknownTopic, Into::into);
            tries += 1;
            let waits = !matches!(code, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::InvalidTopic);
            match first {
                Some(gone) if waits && tries < TRIES => {
                    if gone.recv_timeout(TRY_AGAIN) != Err(RecvTimeoutError::Timeout) {
                        return Err(Error::new(Code::Unavailable, "the source is gone"));
                    }
                }
                _ => return Err(client::explain_code(code, &what, ask.bootstrap, None)),
            }
        }
    }

    /// Where these begin at the first start.
    fn starts(&self, ask: &Ask, of: &[Partition]) -> Result<Vec<i64>> {
        match &self.options.startup {
            KafkaStartup::Earliest => ask.offsets(of, Offset::Beginning),
            KafkaStartup::Latest => ask.offsets(of, Offset::End),
            KafkaStartup::Timestamp(ms) => ask.offsets(of, Offset::Offset(*ms)),
            KafkaStartup::Group => self.committed(ask, of, self.options.reset),
            KafkaStartup::Offsets(named) => {
                let reset = self.options.reset.unwrap_or(KafkaReset::Earliest);
                self.named(of, named, |others| match &self.options.group {
                    Some(_) => self.committed(ask, others, Some(reset)),
                    None => ask.offsets(others, at(reset)),
                })
            }
        }
    }

    /// Where these end, in a bounded source.
    fn ends(&self, ask: &Ask, of: &[Partition]) -> Result<Vec<i64>> {
        match &self.options.bounded {
            KafkaBounded::Unbounded | KafkaBounded::Latest => ask.offsets(of, Offset::End),
            KafkaBounded::Timestamp(ms) => ask.offsets(of, Offset::Offset(*ms)),
            KafkaBounded::Group => self.committed(ask, of, None),
            KafkaBounded::Offsets(named) => self.named(of, named, |others| ask.offsets(others, Offset::End)),
        }
    }

    fn named(
        &self,
        of: &[Partition],
        named: &[(i32, i64)],
        others: impl FnOnce(&[Partition]) -> Result<Vec<i64>>,
    ) -> Result<Vec<i64>> {
        let given = |of: &Partition| named.iter().find(|(number, _)| *number == of.number).map(|(_, offset)| *offset);
        let rest: Vec<Partition> = of.iter().filter(|of| given(of).is_none()).cloned().collect();
        let mut rest = others(&rest)?.into_iter();
        Ok(of.iter().map(|of| given(of).unwrap_or_else(|| rest.next().expect("one for each"))).collect())
    }

    /// What the group has committed; else the beginning or the end, if the table says so.
    fn committed(&self, ask: &Ask, of: &[Partition], reset: Option<KafkaReset>) -> Result<Vec<i64>> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let group = self.options.group.as_deref().unwrap_or_default();
        let what = format!("group \"{group}\"");
        let list = ask.patiently(&what, |slice| ask.client.committed_offsets(list(of, Offset::Invalid)?, slice))?;
        let mut offsets = Vec::with_capacity(of.len());
        let mut none = Vec::new();
        for (at, of) in of.iter().enumerate() {
            let element = list.find_partition(&of.topic, of.number);
            if let Some(Err(error)) = element.as_ref().map(|element| element.error()) {
                return Err(client::explain(&error, &what, ask.bootstrap, None));
            }
            match element.map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => offsets.push(offset),
                _ => {
                    none.push(at);
                    offsets.push(0);
                }
            }
        }
        let missing: Vec<Partition> = none.iter().map(|at| of[*at].clone()).collect();
        let Some(first) = missing.first() else { return Ok(offsets) };
        let Some(reset) = reset else {
            return Err(Error::invalid(format!(
                "{what} has committed no offset of topic {} partition {}; set 'properties.auto.offset.reset' to \
                 'earliest' or 'latest', or choose another mode than 'group-offsets'",
                first.topic, first.number
            )));
        };
        for (at, offset) in none.into_iter().zip(ask.offsets(&missing, at(reset))?) {
            offsets[at] = offset;
        }
        Ok(offsets)
    }
}

fn at(reset: KafkaReset) -> Offset {
    match reset {
        KafkaReset::Earliest => Offset::Beginning,
        KafkaReset::Latest => Offset::End,
    }
}

fn list(of: &[Partition], at: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(of.len());
    for of in of {
        list.add_partition_offset(&of.topic, of.number, at)?;
    }
    Ok(list)
}

/// A client for questions.
struct Ask<'a> {
    client: Client,
    bootstrap: &'a str,
    limit: Duration,
}

impl Ask<'_> {
    /// Asks until there is an answer, within the time limit. The wrong password is not asked for twice.
    #[expect(clippy::disallowed_methods, reason = "how long a broker takes is not the job's time")]
    fn patiently<T>(&self, what: &str, call: impl Fn(Duration) -> KafkaResult<T>) -> Result<T> {
        let deadline = Instant::now() + self.limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match call(left.clamp(QUICK, SLICE)) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // The reasons lie in the queue of events.
            while self.client.poll(Duration::ZERO).is_some() {}
            let last = self.client.context().last();
            let hopeless = last.as_ref().is_some_and(client::Report::is_refusal);
            if Instant::now() >= deadline || hopeless || !may_pass(&error) {
                return Err(client::explain(&error, what, self.bootstrap, last.as_ref()));
            }
            // A call that fails at once must not be made a thousand times a second.
            self.client.poll(QUICK);
        }
    }

    /// The offsets at the beginning, at the end (for whoever reads only what is committed: the last that is), or of the
    /// first record of a time or later; where there is none, at the end.
    fn offsets(&self, of: &[Partition], at: Offset) -> Result<Vec<i64>> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let what = format!("topic \"{}\"", of[0].topic);
        // The protocol's times for beginning and end are the numbers of these `Offset`s.
        let list = self.patiently(&what, |slice| self.client.offsets_for_times(list(of, at)?, slice))?;
        let mut offsets = Vec::with_capacity(of.len());
        for of in of {
            let element = list.find_partition(&of.topic, of.number);
            let offset = element.map(|element| element.error().map(|()| element.offset()));
            offsets.push(match offset {
                Some(Ok(Offset::Offset(offset))) => Some(offset),
                Some(Ok(_)) | None => None,
                Some(Err(error)) => {
                    let what = format!("topic {} partition {}", of.topic, of.number);
                    return Err(client::explain(&error, &what, self.bootstrap, None));
                }
            });
        }
        let late: Vec<Partition> =
            of.iter().zip(&offsets).filter(|(_, offset)| offset.is_none()).map(|(of, _)| of.clone()).collect();
        let mut ends = match (late.is_empty(), at) {
            (true, _) => Vec::new(),
            (false, Offset::Offset(_)) => self.offsets(&late, Offset::End)?,
            (false, _) => {
                let of = &late[0];
                let what = format!("topic {} partition {}: the broker told no offset", of.topic, of.number);
                return Err(Error::new(Code::Unavailable, what));
            }
        }
        .into_iter();
        Ok(offsets.into_iter().map(|offset| offset.unwrap_or_else(|| ends.next().expect("one for each"))).collect())
    }
}

/// Another try may have another answer.
fn may_pass(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as E;
    !matches!(
        error.rdkafka_error_code(),
        None | Some(
            E::TopicAuthorizationFailed
                | E::GroupAuthorizationFailed
                | E::ClusterAuthorizationFailed
                | E::InvalidTopic
                | E::InvalidArgument
                | E::InvalidGroupId
                | E::UnknownTopicOrPartition
                | E::UnknownTopic
                | E::UnknownPartition
        )
    )
}
