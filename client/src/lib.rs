//! EdgeFlow's client library: run a SQL file in this process (feature `embedded`), watch it, sum it up.

#[cfg(feature = "embedded")]
mod clock;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod output;
pub mod resources;
pub mod summary;
