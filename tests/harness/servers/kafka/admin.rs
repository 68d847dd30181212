//! Topics: made, deleted, given more partitions. Each call returns when the broker shows what it did.

use super::client::{CALL_MAX, Client};
use crate::wait;
use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaResult;
use std::future::Future;

impl Client {
    /// `settings` are the topic's, such as `("cleanup.policy", "compact")`.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        one(self.admin()?.create_topics([&topic], &patient()))
            .with_context(|| format!("cannot make topic `{name}`"))?;
        self.shown(name, partitions as usize)
    }

    pub fn delete_topic(&self, name: &str) -> Result<()> {
        one(self.admin()?.delete_topics(&[name], &patient()))
            .with_context(|| format!("cannot delete topic `{name}`"))?;
        self.shown(name, 0)
    }

    /// Until there are `partitions` of them.
    pub fn add_partitions(&self, name: &str, partitions: usize) -> Result<()> {
        let more = NewPartitions::new(name, partitions);
        one(self.admin()?.create_partitions([&more], &patient()))
            .with_context(|| format!("topic `{name}` cannot have {partitions} partitions"))?;
        self.shown(name, partitions)
    }

    /// With all that they have committed. Nobody may be in them.
    pub fn delete_groups(&self, groups: &[&String]) -> Result<()> {
        let names: Vec<&str> = groups.iter().map(|name| name.as_str()).collect();
        let results =
            block_on(self.admin()?.delete_groups(&names, &AdminOptions::new().request_timeout(Some(CALL_MAX))))?;
        results.into_iter().try_for_each(|result| {
            result.map(drop).map_err(|(name, code)| anyhow!("group `{name}` cannot be deleted: {code}"))
        })
    }

    pub(super) fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        self.config().create().context("no admin client")
    }

    fn shown(&self, topic: &str, partitions: usize) -> Result<()> {
        let looker = self.looker(super::Isolation::Raw)?;
        let shown = wait::until(wait::PATIENCE, || super::client::led(&looker, topic).is_ok_and(|n| n == partitions));
        ensure!(shown, "topic `{topic}` does not get to {partitions} partitions with leaders");
        Ok(())
    }
}

/// Returns when it is done, not when it is begun.
fn patient() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(CALL_MAX)).request_timeout(Some(CALL_MAX))
}

/// The answer comes by a thread of the library's; nothing else runs here.
fn block_on<T>(call: impl Future<Output = KafkaResult<T>>) -> Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(call)?)
}

fn one(call: impl Future<Output = KafkaResult<Vec<TopicResult>>>) -> Result<()> {
    let mut results = block_on(call)?;
    let result = results.pop().context("the broker answers for no topic")?;
    result.map(drop).map_err(|(topic, code)| anyhow!("{topic}: {code}"))
}
