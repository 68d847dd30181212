//! `'connector' = 'redis'`: rows as strings, hashes, stream entries or messages.
//!
//! Each subtask has one connection and sends batches of commands down it, each answered before the next is sent.
//! Strings and hashes are upserts: all rows of a key come to one subtask (the planner sees to that), of several rows of a
//! key in one batch only the last is sent, and a batch sent twice leaves what it leaves once. So after a failure each
//! key of the query's result is in the end what it would have been without; with `'exactly-once'` (`epochs`) also those
//! that the result has only passed through. Streams and channels get rows since the last checkpoint again.
//!
//! `row` makes commands of rows, `pending` folds them to a batch, `server` is the way to the server, `rival` keeps
//! connections of the past from writing after ours.

mod command;
mod epochs;
mod pending;
mod rival;
mod row;
mod server;
mod sink;

pub(super) use sink::RedisSink;
