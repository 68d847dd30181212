//! EdgeFlow's promises, one file each.

#![expect(clippy::disallowed_methods, reason = "tests wait for processes and draw their seeds")]

mod bad_input;
mod bad_rows;
mod changelog;
mod chaos;
mod checkpoints;
mod cluster;
mod command_line;
mod exactly_once;
mod example;
mod expressions;
mod failover;
mod files;
mod follow;
mod formats;
mod http_sink;
mod kafka_gate;
mod kafka_sink;
mod kafka_source;
mod late;
mod lookup;
mod models;
mod mqtt;
mod nexmark;
mod object_stores;
mod partitions;
mod redis;
mod resume;
mod schema_registry;
mod sensor;
mod server_gates;
mod tidy;
mod windows;
