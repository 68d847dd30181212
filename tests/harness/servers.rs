//! Real servers of others that the connectors speak with: Apache Kafka, Mosquitto, Redis. Each runs on free ports of
//! this machine, can be killed, stopped, frozen and started again on the same ports and data, and ends with the tests.
//! And a web service within the test itself.

mod certificates;
pub mod http;
pub mod kafka;
mod keeper;
pub mod mosquitto;
pub mod ports;
pub mod programs;
pub mod redis;
mod server;

pub use certificates::Certificates;
