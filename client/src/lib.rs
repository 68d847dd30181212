//! EdgeFlow's client library: run a SQL file in this process (feature `embedded`), watch it, sum it up.

#[cfg(feature = "embedded")]
pub mod embedded;
pub mod output;
pub mod summary;

#[cfg(feature = "embedded")]
pub use ef_worker::resources;
