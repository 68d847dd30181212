//! `'connector' = 'http'`: batches of rows to a web service. `body` cuts batches, `post` makes a request of one and
//! sorts the answer.

mod body;
mod post;
mod sink;
#[cfg(test)]
mod testing;

pub(super) use sink::HttpSink;
