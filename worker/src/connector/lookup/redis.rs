//! Rows from Redis: `MGET` for strings, `EXISTS` and `HMGET` for hashes (in one MULTI: a key that expires between the two
//! would be a row of NULLs), many keys in one round trip.
//!
//! One connection a subtask. The thread takes what waits together, up to the capacity, so that while one round trip is
//! under way the next one fills. A connection that fails is made anew for the next attempt.

use super::{Answered, Asked, Driver, Held, Raw, Shared, given_up};
use crate::connector::net::redis::{Dialler, Trouble};
use crate::connector::net::retry::{Attempts, Policy, chance};
use crate::connector::{Clock, Place};
use crate::error::{Code, Error, Result};
use ef_proto::connector::lookup::{RedisLookup, RedisLookupMode};
use ef_proto::plan::LookupJoin;
use rand::Rng;
use rand::rngs::SmallRng;
use redis::{Connection, RedisResult};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two looks at whether the task has gone.
const LOOK_MS: u64 = 50;

struct Redis {
    dialler: Dialler,
    connection: Option<Connection>,
    options: RedisLookup,
    /// Of a hash.
    fields: Vec<String>,
    capacity: usize,
    policy: Policy,
    chance: SmallRng,
    timeout_ms: u64,
    clock: Clock,
    shared: Arc<Shared>,
}

/// What the thread does, once the options have been found good.
pub(super) fn driver(
    options: &RedisLookup,
    spec: &LookupJoin,
    place: &Place,
    clock: Clock,
    mut driver: Driver,
) -> Result<Box<dyn FnOnce() + Send>> {
    let mut redis = Redis {
        dialler: Dialler::new(&options.server, place)?,
        connection: None,
        options: options.clone(),
        fields: spec.values().fields.iter().map(|field| field.name.clone()).collect(),
        capacity: spec.options.capacity.max(1) as usize,
        policy: Policy { retries_max: Some(spec.options.max_retries) },
        chance: chance(place),
        timeout_ms: spec.options.timeout_ms,
        clock,
        shared: driver.shared.clone(),
    };
    Ok(Box::new(move || {
        while let Some(first) = driver.requests.blocking_recv() {
            let mut keys = first.keys.len();
            let mut waiting = vec![first];
            while keys < redis.capacity
                && let Ok(next) = driver.requests.try_recv()
            {
                keys += next.keys.len();
                waiting.push(next);
            }
            for answered in redis.answer(waiting) {
                // Nobody takes it: the task has gone.
                if driver.answers.try_send(answered).is_err() {
                    return;
                }
            }
        }
    }))
}

impl Redis {
    fn answer(&mut self, waiting: Vec<Asked>) -> Vec<Answered> {
        let keys: Vec<&[String]> = waiting.iter().flat_map(|asked| asked.keys.iter().map(Vec::as_slice)).collect();
        let mut found = Vec::with_capacity(keys.len());
        let mut failure: Option<Error> = None;
        let held = Held::default();
        for chunk in keys.chunks(self.capacity) {
            match self.fetch(chunk, &held) {
                Ok(raw) => found.extend(raw),
                Err(error) => {
                    failure = Some(self.shared.failed(chunk[0], error));
                    break;
                }
            }
        }
        let mut found = found.into_iter();
        let mut raw = |asked: &Asked| match &failure {
            Some(error) => Err(error.clone()),
            None => Ok(found.by_ref().take(asked.keys.len()).collect()),
        };
        waiting.into_iter().map(|asked| Answered { raw: raw(&asked), asked }).collect()
    }

    /// With all attempts.
    fn fetch(&mut self, keys: &[&[String]], held: &Held) -> Result<Vec<Raw>> {
        let names: Vec<String> = keys.iter().map(|key| self.name(key)).collect();
        let began_ms = (self.clock)();
        let mut attempts = Attempts::new(self.policy);
        loop {
            let trouble = match self.attempt(&names) {
                Ok(found) => {
                    found.iter().try_for_each(|raw| held.add(raw))?;
                    return Ok(found);
                }
                Err(trouble) => trouble,
            };
            let wait_ms = attempts.failed(None, self.chance.random());
            let (why, wait_ms) = match (trouble, wait_ms) {
                (Trouble::Later(why), Some(wait_ms)) => (why, wait_ms),
                (Trouble::Later(why), None) => return Err(given_up(&attempts, Error::new(Code::Unavailable, why))),
                (Trouble::Never(error), _) => return Err(given_up(&attempts, error)),
            };
            let spent_ms = (self.clock)().saturating_sub(began_ms).max(0) as u64;
            if spent_ms + wait_ms >= self.timeout_ms {
                let what = format!("no answer in {} ms, the last error was: {why}", self.timeout_ms);
                return Err(Error::new(Code::Unavailable, what));
            }
            self.pause(wait_ms)?;
        }
    }

    fn pause(&self, mut ms: u64) -> Result<()> {
        while ms > 0 {
            if self.shared.left.load(Ordering::Relaxed) {
                return Err(Error::new(Code::Unavailable, "the task has gone"));
            }
            let part = ms.min(LOOK_MS);
            std::thread::sleep(Duration::from_millis(part));
            ms -= part;
        }
        Ok(())
    }

    fn name(&self, key: &[String]) -> String {
        format!("{}{}", self.options.key_prefix, key.join(&self.options.key_separator))
    }

    /// A connection that has failed is not used again.
    fn attempt(&mut self, names: &[String]) -> std::result::Result<Vec<Raw>, Trouble> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.dialler.connect()?,
        };
        let found = self.ask(&mut connection, names).map_err(|error| self.dialler.sort(&error))?;
        self.connection = Some(connection);
        Ok(found)
    }

    fn ask(&self, connection: &mut Connection, names: &[String]) -> RedisResult<Vec<Raw>> {
        match self.options.mode {
            RedisLookupMode::String => {
                let values: Vec<Option<Vec<u8>>> = redis::cmd("MGET").arg(names).query(connection)?;
                Ok(values.into_iter().map(|value| value.map_or(Raw::Missing, Raw::Document)).collect())
            }
            RedisLookupMode::Hash => {
                let mut pipe = redis::pipe();
                if !self.fields.is_empty() {
                    pipe.atomic();
                }
                for name in names {
                    pipe.cmd("EXISTS").arg(name);
                }
                if self.fields.is_empty() {
                    let there: Vec<bool> = pipe.query(connection)?;
                    let raw = |there| if there { Raw::Fields(vec![]) } else { Raw::Missing };
                    return Ok(there.into_iter().map(raw).collect());
                }
                for name in names {
                    pipe.cmd("HMGET").arg(name).arg(&self.fields);
                }
                let mut answers: Vec<redis::Value> = pipe.query(connection)?;
                let fields = answers.split_off(names.len().min(answers.len()));
                let pair = |(there, fields): (redis::Value, redis::Value)| {
                    let there: bool = redis::from_redis_value(there)?;
                    let fields: Vec<Option<Vec<u8>>> = redis::from_redis_value(fields)?;
                    Ok(if there { Raw::Fields(fields) } else { Raw::Missing })
                };
                answers.into_iter().zip(fields).map(pair).collect()
            }
        }
    }
}
