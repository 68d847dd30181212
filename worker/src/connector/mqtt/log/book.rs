//! The log's bookkeeping: which files there are, where the next record goes, when it is full, what may be deleted.
//! Pure: `step(event) -> actions`; `Log` carries them out.
//!
//! Rules. A chunk is durable only after a sync that succeeded, and then [`Action::Durable`] says so: nothing else is a
//! reason to acknowledge a message. After a failed write or sync the file is cut back to what was durable and never
//! written or synced again: the kernel may have marked its pages clean, so that a second sync would lie. What was in
//! that chunk is lost, and its sequence numbers are given again. Nothing at or above the floor is deleted.

use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of its first record, and its name.
    pub first: u64,
    /// Behind its last one.
    pub end: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A sealed chunk wants to be written.
    Chunk { count: u64, bytes: u64 },
    /// All that was asked for since the chunk came is on the disk. `head`: bytes of the new segment's head, if one was
    /// begun.
    Synced { head: u64 },
    /// Some of it failed.
    Failed,
    /// No record below this one is asked for any more.
    Floor(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a new file, which begins with this record.
    Begin {
        first: u64,
    },
    /// Append the chunk to this file, and sync.
    Write {
        segment: u64,
    },
    /// All records below are durable.
    Durable {
        end: u64,
    },
    /// No room: the chunk has to wait until a floor makes some.
    Full,
    /// Cut this file to its durable length. It is closed.
    Cut {
        segment: u64,
        bytes: u64,
    },
    Delete {
        segment: u64,
    },
}

#[derive(Debug)]
pub struct Book {
    segments: VecDeque<Segment>,
    /// Whether the last one is still written to.
    open: bool,
    writing: Option<(u64, u64)>,
    /// The next record's number, as far as the log is durable.
    next: u64,
    floor: u64,
    limit: u64,
    segment_bytes: u64,
}

impl Book {
    /// Of what was found at the start. Files that were there are not written to again.
    pub fn new(segments: Vec<Segment>, next: u64, limit: u64) -> Book {
        let segment_bytes = (limit / 8).clamp(256 << 10, 16 << 20);
        Book { segments: segments.into(), open: false, writing: None, next, floor: 0, limit, segment_bytes }
    }

    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match (event, self.writing) {
            (Event::Chunk { bytes, .. }, None) if self.is_full(bytes) => vec![Action::Full],
            (Event::Chunk { count, bytes }, None) => {
                let mut actions = Vec::with_capacity(2);
                if !self.open || self.segments.back().is_none_or(|last| last.bytes >= self.segment_bytes) {
                    // One that was found without a record has this very name, and is replaced.
                    self.segments.pop_back_if(|last| last.first == self.next);
                    self.segments.push_back(Segment { first: self.next, end: self.next, bytes: 0 });
                    self.open = true;
                    actions.push(Action::Begin { first: self.next });
                }
                self.writing = Some((count, bytes));
                let segment = self.segments.back().map_or(self.next, |last| last.first);
                actions.push(Action::Write { segment });
                actions
            }
            (Event::Synced { head }, Some((count, bytes))) => {
                self.writing = None;
                self.next += count;
                if let Some(last) = self.segments.back_mut() {
                    last.end = self.next;
                    last.bytes += head + bytes;
                }
                vec![Action::Durable { end: self.next }]
            }
            (Event::Failed, Some(_)) => {
                self.writing = None;
                self.open = false;
                match self.segments.back().copied() {
                    // It holds nothing that anybody was told of.
                    Some(last) if last.first == last.end => {
                        self.segments.pop_back();
                        vec![Action::Delete { segment: last.first }]
                    }
                    Some(last) => vec![Action::Cut { segment: last.first, bytes: last.bytes }],
                    None => vec![],
                }
            }
            (Event::Floor(floor), _) => {
                self.floor = self.floor.max(floor);
                let mut actions = Vec::new();
                while self.segments.len() > 1 && self.segments[0].end <= self.floor {
                    actions.extend(self.segments.pop_front().map(|gone| Action::Delete { segment: gone.first }));
                }
                actions
            }
            (Event::Chunk { .. }, Some(_)) => unreachable!("one chunk is written at a time"),
            (Event::Synced { .. } | Event::Failed, None) => unreachable!("nothing was being written"),
        }
    }

    /// A log that is all deletable takes a chunk of any size.
    fn is_full(&self, bytes: u64) -> bool {
        self.bytes() + bytes > self.limit && self.segments.iter().any(|segment| segment.end > self.floor)
    }

    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter()
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The oldest record that is there, or the next one.
    pub fn first(&self) -> u64 {
        self.segments.front().map_or(self.next, |segment| segment.first)
    }

    pub fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 4 << 20;
    const CHUNK: u64 = 512 << 10;

    fn chunk(book: &mut Book) -> Vec<Action> {
        book.step(Event::Chunk { count: 10, bytes: CHUNK })
    }

    #[test]
    fn chunk_is_durable_after_its_sync_and_not_before() {
        let mut book = Book::new(vec![], 5, LIMIT);
        assert_eq!(chunk(&mut book), [Action::Begin { first: 5 }, Action::Write { segment: 5 }]);
        assert_eq!(book.next(), 5);
        assert_eq!(book.step(Event::Synced { head: 30 }), [Action::Durable { end: 15 }]);
        // 512 KiB are a segment's size at this limit.
        assert_eq!(chunk(&mut book), [Action::Begin { first: 15 }, Action::Write { segment: 15 }]);
    }

    #[test]
    fn failed_file_is_cut_and_never_written_again() {
        let mut book = Book::new(vec![], 0, LIMIT * 64);
        chunk(&mut book);
        book.step(Event::Synced { head: 30 });
        assert_eq!(chunk(&mut book), [Action::Write { segment: 0 }]);
        assert_eq!(book.step(Event::Failed), [Action::Cut { segment: 0, bytes: CHUNK + 30 }]);
        assert_eq!(chunk(&mut book), [Action::Begin { first: 10 }, Action::Write { segment: 10 }]);
        assert_eq!(book.step(Event::Failed), [Action::Delete { segment: 10 }], "nothing in it is durable");
        assert_eq!((book.next(), book.first()), (10, 0));
    }

    #[test]
    fn full_log_takes_chunks_again_when_the_floor_has_made_room() {
        let mut book = Book::new(vec![], 0, LIMIT);
        let mut written = 0;
        while chunk(&mut book) != [Action::Full] {
            book.step(Event::Synced { head: 30 });
            written += 10;
        }
        assert_eq!(written, 70, "seven chunks and their heads fit into 4 MiB");
        assert_eq!(book.step(Event::Floor(5)), [], "the first segment holds records up to 10");
        assert_eq!(chunk(&mut book), [Action::Full]);
        assert_eq!(book.step(Event::Floor(10)), [Action::Delete { segment: 0 }]);
        assert!(matches!(chunk(&mut book)[..], [Action::Begin { first: 70 }, Action::Write { segment: 70 }]));
    }

    #[test]
    fn file_that_was_found_without_a_record_is_replaced_and_not_deleted_from_under_the_next() {
        for older in [vec![], vec![Segment { first: 3, end: 9, bytes: 100 }]] {
            let empty = Segment { first: 9, end: 9, bytes: 30 };
            let mut book = Book::new([&older[..], &[empty]].concat(), 9, LIMIT);
            assert_eq!(chunk(&mut book), [Action::Begin { first: 9 }, Action::Write { segment: 9 }]);
            book.step(Event::Synced { head: 30 });
            let gone: Vec<Action> = older.iter().map(|older| Action::Delete { segment: older.first }).collect();
            assert_eq!(book.step(Event::Floor(9)), gone);
            assert_eq!((book.first(), book.bytes()), (9, CHUNK + 30));
        }
    }

    #[test]
    fn last_segment_stays_for_its_number() {
        let mut book = Book::new(vec![Segment { first: 3, end: 9, bytes: 100 }], 9, LIMIT);
        assert_eq!(book.step(Event::Floor(9)), []);
        assert_eq!((book.first(), book.bytes()), (3, 100));
    }
}
