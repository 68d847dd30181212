//! What a checkpoint keeps of a Kafka source: of every partition the next offset, and where a bounded source ends.
//!
//! Each subtask keeps its own partitions; the union over all of them goes on at any parallelism. A partition that is in
//! none of them was made after its owner had looked for partitions, and is read from its beginning; unless its owner
//! had not looked yet when the checkpoint was made: then it starts as at the first start.

use super::assign;
use crate::error::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

const VERSION: u32 = 1;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    pub topic: String,
    pub number: i32,
}

impl Partition {
    pub fn new(topic: &str, number: i32) -> Partition {
        Partition { topic: topic.to_owned(), number }
    }
}

/// Where a partition is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The offset of the next record.
    pub next: i64,
    /// A bounded source ends before this offset.
    pub end: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Blob {
    version: u32,
    /// The subtask, and of how many.
    index: u32,
    parallelism: u32,
    /// It has looked for partitions, or somebody before it had.
    started: bool,
    partitions: Vec<Entry>,
    /// Whose partitions nobody had looked for yet ([`Restored::waiting`]).
    #[serde(default, skip_serializing_if = "Waiting::is_empty")]
    waiting: Waiting,
}

/// Subtasks, each with how many there were.
type Owners = BTreeSet<(u32, u32)>;
type Waiting = BTreeSet<Owners>;

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    topic: String,
    partition: i32,
    next: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<i64>,
}

/// `looked`: this subtask has found its partitions; `restored` is what it began with.
pub fn write<'a>(
    (index, parallelism): (u32, u32),
    looked: bool,
    restored: &Origin,
    partitions: impl Iterator<Item = (&'a Partition, Progress)>,
) -> Result<Vec<u8>> {
    let entry = |(of, progress): (&Partition, Progress)| Entry {
        topic: of.topic.clone(),
        partition: of.number,
        next: progress.next,
        end: progress.end,
    };
    let partitions = partitions.map(entry).collect();
    // Of what waited only this subtask's share waits still.
    let shared = |owners: &Owners| owners.iter().copied().chain([(index, parallelism)]).collect();
    let waiting = if looked { Waiting::new() } else { restored.waiting.iter().map(shared).collect() };
    let blob = Blob { version: VERSION, index, parallelism, started: looked || restored.started, partitions, waiting };
    serde_json::to_vec(&blob).internal(|| "source position".into())
}

/// What all old subtasks together knew.
#[derive(Debug, Default)]
pub struct Restored {
    pub partitions: BTreeMap<Partition, Progress>,
    pub origin: Origin,
}

/// How far the search for partitions had come.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Subtasks that had not looked for partitions yet; where several did not one after the other, each partition that
    /// all of them owned waits.
    waiting: Waiting,
    /// Some subtask had.
    started: bool,
}

impl Restored {
    pub fn read(blobs: &[Vec<u8>]) -> Result<Restored> {
        let mut restored = Restored::default();
        for blob in blobs {
            let blob: Blob = serde_json::from_slice(blob).corrupt(|| "position of a Kafka source".into())?;
            if blob.version != VERSION {
                let found = blob.version;
                return Err(Error::corrupt(format!(
                    "position of a Kafka source has version {found}, this build reads {VERSION}"
                )));
            }
            if blob.started {
                restored.origin.started = true;
            } else {
                restored.origin.waiting.insert(Owners::from([(blob.index, blob.parallelism)]));
            }
            restored.origin.waiting.extend(blob.waiting);
            for entry in blob.partitions {
                let of = Partition { topic: entry.topic, number: entry.partition };
                let progress = Progress { next: entry.next, end: entry.end };
                // One owner each; were there two, no row may be lost.
                let known = restored.partitions.entry(of).or_insert(progress);
                if progress.next < known.next {
                    *known = progress;
                }
            }
        }
        Ok(restored)
    }

    /// The partition is there for the first time: it was made later than its owner had looked.
    pub fn is_new(&self, of: &Partition) -> bool {
        let owner = |parallelism| assign::owner(&of.topic, of.number, parallelism);
        let waits = |owners: &Owners| owners.iter().all(|(index, parallelism)| owner(*parallelism) == *index);
        self.origin.started && !self.partitions.contains_key(of) && !self.origin.waiting.iter().any(waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blobs_of_other_versions_and_damaged_ones_are_told() {
        let blob = br#"{"version":7,"index":0,"parallelism":1,"started":true,"partitions":[]}"#;
        let error = Restored::read(&[blob.to_vec()]).expect_err("another version");
        assert_eq!(error.message, "position of a Kafka source has version 7, this build reads 1");
        assert!(Restored::read(&[b"{".to_vec()]).is_err());
    }

    #[test]
    fn partitions_of_a_subtask_that_had_not_looked_yet_start_as_at_the_first_start() {
        let all: Vec<Partition> = (0..6).map(|number| Partition::new("t", number)).collect();
        let looked = |of: &&Partition| assign::owner(&of.topic, of.number, 2) == 0;
        let progress = Progress { next: 5, end: None };
        let blobs = [
            write((0, 2), true, &Origin::default(), all.iter().filter(looked).map(|of| (of, progress)))
                .expect("writes"),
            write((1, 2), false, &Origin::default(), std::iter::empty()).expect("writes"),
        ];
        let restored = Restored::read(&blobs).expect("reads");
        for of in &all {
            assert_eq!(restored.partitions.contains_key(of), looked(&of));
            assert!(!restored.is_new(of), "{of:?} was there");
        }
        let later = (6..12).map(|number| Partition::new("t", number)).collect::<Vec<_>>();
        assert_eq!(later.iter().filter(|of| restored.is_new(of)).count(), 3, "those of the subtask that had looked");
        // The next incarnation, of three, in which the last does not come to look either.
        let known: BTreeSet<&Partition> = all.iter().filter(looked).collect();
        let of_three = |index: u32| {
            let mine = |of: &&Partition| assign::owner(&of.topic, of.number, 3) == index;
            let found = index < 2;
            let partitions = all.iter().filter(mine).filter(|of| found || known.contains(of)).map(|of| (of, progress));
            write((index, 3), found, &restored.origin, partitions).expect("writes")
        };
        let again = Restored::read(&[of_three(0), of_three(1), of_three(2)]).expect("reads");
        for of in &all {
            assert!(!again.is_new(of), "{of:?} was there all the time");
        }
        let new = |of: &&Partition| again.is_new(of);
        let owned = |of: &&Partition, (index, parallelism)| assign::owner(&of.topic, of.number, parallelism) == index;
        let waits = |of: &&Partition| owned(of, (1, 2)) && owned(of, (2, 3));
        assert_eq!(later.iter().filter(new).count(), later.iter().filter(|of| !waits(of)).count());
    }

    proptest! {
        /// However often the parallelism changes: every partition has one owner, who has its offset.
        #[test]
        fn each_partition_goes_on_exactly_once_where_it_was(
            partitions in proptest::collection::btree_map(
                ("[a-c]{1,2}", 0..20i32),
                (0..1_000_000i64, proptest::option::of(0..9i64)),
                0..40,
            ),
            parallelisms in proptest::collection::vec(1..9u32, 1..5),
        ) {
            let expected: BTreeMap<Partition, Progress> = partitions
                .into_iter()
                .map(|((topic, number), (next, end))| (Partition { topic, number }, Progress { next, end }))
                .collect();
            let mut known = expected.clone();
            for parallelism in parallelisms {
                let blobs: Vec<Vec<u8>> = (0..parallelism)
                    .map(|index| {
                        let owner = |of: &Partition| assign::owner(&of.topic, of.number, parallelism);
                        let mine = known.iter().filter(|(of, _)| owner(of) == index);
                        write((index, parallelism), true, &Origin::default(), mine.map(|(of, progress)| (of, *progress))).expect("writes")
                    })
                    .collect();
                known = Restored::read(&blobs).expect("reads").partitions;
                prop_assert_eq!(&known, &expected);
            }
        }
    }
}
