//! `'connector' = 'mqtt'`: a source and a sink for MQTT 5 and 3.1.1.
//!
//! MQTT cannot replay: once a message is acknowledged, it is ours alone. So the source acknowledges only what is durable,
//! by default in the ingest log on the worker's disk (`'ack' = 'log'`), or in a completed checkpoint (`'checkpoint'`).
//! Nothing acknowledged is lost. A crash between the two makes the broker send again: QoS 2 messages are recognised by
//! their packet ids, those of QoS 1 by `'mqtt.dedup.key'`, without which they are read at least once. With a shared group
//! keys are compared per subtask: what the broker gives to another one after a session has ended is not recognised.
//! The sink is at-least-once: a checkpoint completes when the broker has taken all that was written before it.

mod dedup;
mod inbox;
mod ingest;
mod link;
mod log;
mod metadata;
mod outbox;
mod packet;
mod position;
mod publisher;
mod shared;
mod sink;
mod slot;
mod source;
mod writer;

pub use sink::MqttSink;
pub use source::MqttSource;
