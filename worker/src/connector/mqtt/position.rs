//! What a checkpoint keeps of an MQTT source: for each slot which log it reads and how far it is.
//!
//! A slot is a client id with its session at the broker and its log. There are as many as the highest parallelism that
//! the job ever had: after scaling in, a subtask has several, so that what waits in a session or a log is read by somebody.

use crate::error::{Context, Error, Result};
use ef_proto::connector::MqttAck;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotPosition {
    pub slot: u32,
    /// Id of the log; None where messages are acknowledged by checkpoints.
    pub log: Option<u64>,
    /// The next record.
    pub next: u64,
    /// From this record on, keys are needed to tell what is new.
    pub keep: u64,
    /// QoS 2 packet ids that were received and not released, where there is no log to say so.
    pub outstanding: Vec<u16>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Position {
    version: u32,
    ack: MqttAck,
    filters: Vec<String>,
    slots: Vec<SlotPosition>,
}

/// Of a checkpoint, over all old subtasks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub slots: BTreeMap<u32, SlotPosition>,
    pub filters: Vec<String>,
}

pub fn write(ack: MqttAck, filters: &[String], slots: Vec<SlotPosition>) -> Result<Vec<u8>> {
    let position = Position { version: VERSION, ack, filters: filters.to_vec(), slots };
    serde_json::to_vec(&position).internal(|| "position of an mqtt source".into())
}

pub fn read(blobs: &[Vec<u8>], ack: MqttAck) -> Result<Restored> {
    let mut restored = Restored::default();
    for blob in blobs {
        let position: Position = serde_json::from_slice(blob).corrupt(|| "position of an mqtt source".into())?;
        if position.version != VERSION {
            let found = position.version;
            return Err(Error::corrupt(format!(
                "position of an mqtt source has version {found}, this build reads {VERSION}"
            )));
        }
        if position.ack != ack {
            return Err(Error::invalid(
                "option 'ack' was changed since the checkpoint; start fresh, or leave it as it was",
            ));
        }
        for filter in position.filters {
            if !restored.filters.contains(&filter) {
                restored.filters.push(filter);
            }
        }
        restored.slots.extend(position.slots.into_iter().map(|slot| (slot.slot, slot)));
    }
    Ok(restored)
}

/// The slots of one subtask.
pub fn deal(restored: &Restored, shared: bool, index: u32, parallelism: u32) -> Vec<u32> {
    let known = restored.slots.keys().next_back().map_or(0, |last| last + 1);
    // Without a group every slot would get every message.
    let wanted = if shared { parallelism } else { 1 };
    (0..known.max(wanted)).filter(|slot| slot % parallelism == index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(slot: u32) -> SlotPosition {
        SlotPosition { slot, log: Some(7), next: 10, keep: 4, outstanding: vec![] }
    }

    fn restored(count: u32) -> Restored {
        let blobs: Vec<_> =
            (0..count).map(|at| write(MqttAck::Log, &["a/#".into()], vec![slot(at)]).expect("it is plain")).collect();
        read(&blobs, MqttAck::Log).expect("just written")
    }

    #[test]
    fn every_slot_has_one_owner_whatever_the_parallelism() {
        for before in 0..5 {
            for now in 1..6 {
                let restored = restored(before);
                let mut all: Vec<u32> = (0..now).flat_map(|index| deal(&restored, true, index, now)).collect();
                all.sort_unstable();
                assert_eq!(all, (0..before.max(now)).collect::<Vec<_>>(), "{before} to {now}");
            }
        }
        assert_eq!(deal(&restored(0), false, 0, 4), [0]);
        assert!((1..4).all(|index| deal(&restored(0), false, index, 4).is_empty()));
    }

    #[test]
    fn changed_ack_is_refused_and_filters_are_known() {
        assert_eq!(restored(3).filters, ["a/#"]);
        let blob = write(MqttAck::Log, &[], vec![slot(0)]).expect("it is plain");
        let error = read(&[blob], MqttAck::Checkpoint).expect_err("another mode");
        assert!(error.message.contains("'ack' was changed"), "{error}");
        assert!(read(&[b"{}".to_vec()], MqttAck::Log).is_err());
    }
}
