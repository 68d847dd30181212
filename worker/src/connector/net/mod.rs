//! What connectors have in common that speak to servers: `guard` says which addresses may be spoken to, `http` and
//! `redis` are the one way there, `backoff` and `retry` say when to try again, `mask` keeps secrets out of what people
//! read.

pub(super) mod backoff;
#[cfg(any(feature = "redis", feature = "http", feature = "schema-registry"))]
pub(super) mod guard;
#[cfg(any(feature = "http", feature = "schema-registry"))]
pub(super) mod http;
#[cfg(any(feature = "redis", feature = "http"))]
pub(super) mod mask;
#[cfg(feature = "redis")]
pub(super) mod redis;
#[cfg(feature = "http")]
pub(super) mod request;
#[cfg(any(feature = "redis", feature = "http", feature = "schema-registry"))]
pub(super) mod retry;
