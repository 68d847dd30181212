//! EdgeFlow's client library: run a SQL file in this process (feature `embedded`), watch it, sum it up; talk to a
//! cluster ([`remote`]), show what is in it ([`show`]), and start a small one on this machine ([`local_cluster`]).

#[cfg(feature = "embedded")]
pub mod embedded;
pub mod local_cluster;
pub mod output;
pub mod remote;
pub mod show;
pub mod summary;
pub mod terminal;

#[cfg(feature = "embedded")]
pub use ef_worker::resources;
