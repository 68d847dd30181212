//! The topics of the exactly-once tests: one of three partitions for the input, and one for each output, of which a row's
//! key says the partition. What is written to the input comes once and in order, whatever becomes of the broker.

use crate::servers::kafka::{Client, Row, Writer, unique};
use anyhow::Result;

/// Of each topic.
pub const PARTITIONS: u32 = 3;

pub const OUTPUTS: [&str; 3] = ["echo", "sums", "windows"];

/// Of one run on a broker that others use as well.
#[derive(Clone, Debug)]
pub struct Topics {
    bootstrap: String,
    /// In front of all names, transactional ids included.
    pub prefix: String,
}

impl Topics {
    pub fn create(client: &Client) -> Result<Topics> {
        let topics = Topics { bootstrap: client.bootstrap().into(), prefix: unique("exact") };
        for of in OUTPUTS.iter().chain(&["input"]) {
            client.create_topic(&topics.of(of), PARTITIONS as i32, &[])?;
        }
        Ok(topics)
    }

    pub fn client(&self) -> Client {
        Client::new(&self.bootstrap)
    }

    /// The topic of the table with this name.
    pub fn of(&self, table: &str) -> String {
        format!("{}-{table}", self.prefix)
    }

    fn table(&self, name: &str) -> String {
        format!(
            "'connector' = 'kafka', 'topic' = '{}', 'properties.bootstrap.servers' = '{}',
             'properties.reconnect.backoff.max.ms' = '500'",
            self.of(name),
            self.bootstrap
        )
    }

    pub(super) fn input(&self) -> String {
        format!(
            "{}, 'properties.group.id' = '{}', 'scan.startup.mode' = 'earliest-offset', 'format' = 'json'",
            self.table("input"),
            self.prefix
        )
    }

    pub(super) fn output(&self, name: &str, key: &str, format: &str) -> String {
        format!(
            "{}, 'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = '{}',
             'key.format' = 'json', 'key.fields' = '{key}', 'value.format' = '{format}'",
            self.table(name),
            self.prefix
        )
    }

    pub(super) fn writer(&self) -> Writer {
        self.client().writer(&self.of("input")).expect("the settings are right")
    }
}

/// Does not wait for the broker.
pub(super) fn write(to: &Writer, partition: u32, ndjson: &str) {
    for line in ndjson.lines() {
        let row = Row::new(line).partition((partition % PARTITIONS) as i32);
        to.write(&row).unwrap_or_else(|e| panic!("the input takes no row: {e:#}"));
    }
}
