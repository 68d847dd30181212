//! Files: one, all below a directory, or those that a glob matches; plain, gzip or zstd.

mod listing;
mod position;
mod reader;
mod source;
#[cfg(test)]
mod source_tests;
mod splits;

pub use source::FilesystemSource;
