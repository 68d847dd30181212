//! The term of each entry from the last snapshot on, as runs: terms change once per election, so this is a handful of
//! numbers however long the log is, and raft-rs, which asks for terms all the time, never reads the disk for them.

/// From the entry of the snapshot, whose term is still asked for, to the last one.
#[derive(Clone, Debug)]
pub struct Terms {
    last: u64,
    /// First index and term. The first run begins at the snapshot.
    runs: Vec<(u64, u64)>,
}

impl Terms {
    /// Of a log with nothing but a snapshot.
    pub fn new(index: u64, term: u64) -> Terms {
        Terms { last: index, runs: vec![(index, term)] }
    }

    /// Index of the snapshot.
    pub fn start(&self) -> u64 {
        self.runs[0].0
    }

    /// Index of the last entry, or of the snapshot.
    pub fn last(&self) -> u64 {
        self.last
    }

    pub fn get(&self, index: u64) -> Option<u64> {
        let known = (self.start()..=self.last).contains(&index);
        known.then(|| self.runs[self.run(index)].1)
    }

    /// Forgets the entries from `index` on and appends one there.
    pub fn append(&mut self, index: u64, term: u64) {
        let (start, last) = (self.start(), self.last);
        assert!(start < index && index <= last + 1, "entry {index} does not follow a log of {start} to {last}");
        self.runs.retain(|(first, _)| *first < index);
        if self.runs.last().is_none_or(|(_, latest)| *latest != term) {
            self.runs.push((index, term));
        }
        self.last = index;
    }

    /// A snapshot at `index` takes the place of the entries up to there.
    pub fn compact(&mut self, index: u64) {
        let (start, last) = (self.start(), self.last);
        assert!((start..=last).contains(&index), "a snapshot at {index} is not within a log of {start} to {last}");
        self.runs.drain(..self.run(index));
        self.runs[0].0 = index;
    }

    fn run(&self, index: u64) -> usize {
        self.runs.partition_point(|(first, _)| *first <= index) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn terms_are_those_of_a_plain_map(
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), 0..2u64), 0..60),
        ) {
            let mut terms = Terms::new(5, 1);
            let mut plain = BTreeMap::from([(5, 1)]);
            let mut term = 1;
            for (append, at, later) in steps {
                let (&first, _) = plain.first_key_value().expect("a snapshot");
                let (&last, _) = plain.last_key_value().expect("a snapshot");
                if append {
                    term += later;
                    let index = last + 1 - at.index((last + 1 - first) as usize) as u64;
                    plain.retain(|at, _| *at < index);
                    plain.insert(index, term);
                    terms.append(index, term);
                } else {
                    let index = first + at.index((last + 1 - first) as usize) as u64;
                    plain = plain.split_off(&index);
                    terms.compact(index);
                }
                prop_assert_eq!(Some(terms.start()), plain.keys().next().copied());
                prop_assert_eq!(Some(terms.last()), plain.keys().next_back().copied());
                for index in 0..terms.last() + 3 {
                    prop_assert_eq!(terms.get(index), plain.get(&index).copied(), "at {}", index);
                }
            }
        }
    }

    #[test]
    fn long_log_of_one_term_is_one_run() {
        let mut terms = Terms::new(0, 0);
        (1..=10_000).for_each(|index| terms.append(index, 3));
        assert_eq!(terms.runs, [(0, 0), (1, 3)]);
    }
}
