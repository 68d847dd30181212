//! `'connector' = 'filesystem'`: files of rows in a directory.

mod file;
mod pending;
pub mod sink;
