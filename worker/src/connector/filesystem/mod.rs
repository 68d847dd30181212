//! `'connector' = 'filesystem'`. Source: one file, all below a directory, or those that a glob matches; plain, gzip
//! or zstd. Sink: files of rows in a directory, visible when their checkpoint has completed.

mod bytes;
mod file;
mod follow;
#[cfg(test)]
mod follow_tests;
mod input;
mod listing;
mod marker;
mod pending;
mod position;
mod reader;
pub mod sink;
mod source;
#[cfg(test)]
mod source_tests;
mod splits;

pub use source::FilesystemSource;
