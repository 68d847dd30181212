//! What a Kafka sink has published: what readers of committed records see, and that nothing is left half done.

use super::Findings;
use super::output::Part;
use crate::servers::kafka::{Counter, Isolation};
use crate::workload::Topics;
use std::collections::BTreeMap;

/// The topic of one sink.
pub struct Topic {
    topics: Topics,
    name: String,
    counter: Counter,
}

impl Topic {
    /// The broker must be there.
    pub fn of(topics: &Topics, table: &str) -> Topic {
        let name = topics.of(table);
        let counter = topics.client().counter(&name, Isolation::Committed).expect("the topic was made for this test");
        Topic { topics: topics.clone(), name, counter }
    }

    pub fn rows_visible(&mut self) -> usize {
        self.counter.records()
    }

    /// A part for each partition. To be called when the job has ended: a transaction that is still open is a finding.
    pub fn read(&mut self, findings: &mut Findings) -> Vec<Part> {
        let client = self.topics.client();
        if let Err(e) = client.wait_closed(&self.name) {
            findings.add("transaction left open", format!("{e:#}"));
        }
        let records = client.read_all(&self.name, Isolation::Committed).unwrap_or_else(|e| {
            findings.add("topic that cannot be read", format!("{e:#}"));
            Vec::new()
        });
        let mut parts: BTreeMap<i32, String> = BTreeMap::new();
        for record in records {
            let text = parts.entry(record.partition).or_default();
            *text += record.text();
            text.push('\n');
        }
        let part = |(partition, text)| Part {
            generation: 0,
            incarnation: 0,
            subtask: 0,
            counter: partition as u64,
            name: format!("{} partition {partition}", self.name),
            text,
        };
        parts.into_iter().map(part).collect()
    }
}

/// The markers of all that ever wrote, after a job that was drained: none is beyond its last checkpoint, and the windows
/// that its end fired have brought theirs behind `before`, the last one before that.
pub fn check_markers(topics: &Topics, before: u64, last_epoch: u64, findings: &mut Findings) {
    let client = topics.client();
    let groups = client.groups().unwrap_or_else(|e| {
        findings.add("markers cannot be read", format!("{e:#}"));
        Vec::new()
    });
    let windows = topics.of("windows");
    let mut newest = None;
    for group in groups.iter().filter(|group| group.starts_with(&topics.prefix) && group.ends_with(".m")) {
        for table in ["echo", "sums", "windows"] {
            let topic = topics.of(table);
            let committed = match client.committed(group, &topic) {
                Ok(committed) => committed,
                Err(e) => {
                    findings.add("markers cannot be read", format!("{e:#}"));
                    continue;
                }
            };
            for marker in committed.values() {
                let epoch = marker.offset as u64;
                if epoch > last_epoch {
                    let what = format!("{group}: {epoch}, the last checkpoint is {last_epoch}");
                    findings.add("marker beyond the last checkpoint", what);
                }
                if topic == windows {
                    newest = newest.max(Some(epoch));
                }
            }
        }
    }
    if newest <= Some(before) {
        let what = format!("{windows}: {newest:?}, expected one behind {before}, up to {last_epoch}");
        findings.add("marker is not the last epoch with rows", what);
    }
}
