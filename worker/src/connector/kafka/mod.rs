//! Tables in Apache Kafka, over librdkafka.
//!
//! `client` makes a client of a table's properties and says in clear words what went wrong with it. The source: `assign`
//! deals partitions to subtasks, `position` is what a checkpoint keeps, `finder` looks for partitions and offsets on a
//! thread of its own, `queue` takes records out of librdkafka, `record` turns them into rows, `pace` says whose turn it is,
//! `source` puts it together. The sink has a folder of its own.

mod assign;
pub(super) mod client;
mod finder;
mod metadata;
mod pace;
mod position;
mod queue;
mod record;
mod sink;
mod source;
#[cfg(test)]
mod source_tests;

pub use sink::sink;
pub use source::source;
