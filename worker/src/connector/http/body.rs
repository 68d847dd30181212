//! Rows to bodies of requests, and the key by which a service knows a request that it has had already.
//!
//! A request that is sent again has the same key, so a service that heeds it takes the rows once however often an answer
//! is lost. After a restore the rows since the checkpoint are sent again; they get the keys that they had as far as they
//! come in the same batches: a key is made of the barrier behind which the batch begins, the batch's number since then,
//! and its content. Batches are cut at every barrier, so it is the cut by time, and rows in another order, that make a
//! difference. Rows then arrive again under a key of their own: at least once, never fewer.

use crate::connector::Place;
use crate::connector::delivery::Parcel;
use bytes::Bytes;
use ef_proto::connector::HttpBody;
use ef_proto::ids::Epoch;
use ef_proto::keys::hash_bytes;

/// One request's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub body: Bytes,
    pub key: String,
    rows: u64,
}

impl Parcel for Request {
    fn bytes(&self) -> usize {
        self.body.len()
    }

    fn rows(&self) -> u64 {
        self.rows
    }
}

/// Rows that are not yet sent.
pub struct Batch {
    kind: HttpBody,
    rows_max: u64,
    bytes_max: usize,
    body: Vec<u8>,
    rows: u64,
    numbers: Numbers,
}

impl Batch {
    /// `epoch`: the checkpoint that the job was restored from.
    pub fn new(kind: HttpBody, rows_max: u64, bytes_max: u64, place: &Place, epoch: Option<Epoch>) -> Batch {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Batch { kind, rows_max, bytes_max, body: Vec::new(), rows: 0, numbers: Numbers::new(place, epoch) }
    }

    /// A row more. The request that has no room for it, and the one that it fills.
    pub fn push(&mut self, row: &[u8]) -> [Option<Request>; 2] {
        let before = if self.rows > 0 && self.bytes() + row.len() + 1 > self.bytes_max { self.take() } else { None };
        match self.kind {
            HttpBody::Array => self.body.push(if self.rows == 0 { b'[' } else { b',' }),
            // Of one row, unless the table says `lines` too.
            HttpBody::Lines | HttpBody::Row => {}
        }
        self.body.extend_from_slice(row);
        if self.kind == HttpBody::Lines {
            self.body.push(b'\n');
        }
        self.rows += 1;
        let full = self.rows >= self.rows_max || self.bytes() >= self.bytes_max || self.kind == HttpBody::Row;
        [before, if full { self.take() } else { None }]
    }

    /// With what closes it.
    fn bytes(&self) -> usize {
        self.body.len() + (self.kind == HttpBody::Array) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// What there is; None: nothing.
    pub fn take(&mut self) -> Option<Request> {
        if self.rows == 0 {
            return None;
        }
        let mut body = std::mem::take(&mut self.body);
        if self.kind == HttpBody::Array {
            body.push(b']');
        }
        let rows = std::mem::take(&mut self.rows);
        let key = self.numbers.key(&body);
        Some(Request { body: body.into(), key, rows })
    }

    /// A barrier, in front of which everything has been taken.
    pub fn barrier(&mut self, epoch: Epoch) {
        debug_assert!(self.is_empty(), "rows in front of a barrier belong to its epoch");
        (self.numbers.epoch, self.numbers.next) = (epoch.0, 0);
    }
}

struct Numbers {
    job: u64,
    subtask: u32,
    /// Of the last barrier.
    epoch: u64,
    next: u64,
}

impl Numbers {
    fn new(place: &Place, epoch: Option<Epoch>) -> Numbers {
        let job = hash_bytes(format!("{}/{}", place.job, place.operator).as_bytes());
        Numbers { job, subtask: place.index, epoch: epoch.map_or(0, |epoch| epoch.0), next: 0 }
    }

    fn key(&mut self, body: &[u8]) -> String {
        let number = self.next;
        self.next += 1;
        let Numbers { job, subtask, epoch, .. } = self;
        format!("{job:016x}-{subtask}-{epoch}-{number}-{:016x}", hash_bytes(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::stdout::tests::place;

    fn batch(kind: HttpBody, rows_max: u64, bytes_max: u64) -> Batch {
        Batch::new(kind, rows_max, bytes_max, &place(), None)
    }

    fn bodies(batch: &mut Batch, rows: &[&str]) -> Vec<String> {
        let mut requests: Vec<Request> = rows.iter().flat_map(|row| batch.push(row.as_bytes())).flatten().collect();
        requests.extend(batch.take());
        let sum: u64 = requests.iter().map(Parcel::rows).sum();
        assert_eq!(sum, rows.len() as u64);
        requests.iter().map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect()
    }

    #[test]
    fn bodies_are_cut_by_rows_and_by_bytes() {
        let rows = ["{}", "{1}", "{2}", "{3}", "{4}"];
        let found = bodies(&mut batch(HttpBody::Array, 2, 1_000), &rows);
        assert_eq!(found, ["[{},{1}]", "[{2},{3}]", "[{4}]"]);
        let found = bodies(&mut batch(HttpBody::Lines, 3, 1_000), &rows);
        assert_eq!(found, ["{}\n{1}\n{2}\n", "{3}\n{4}\n"]);
        assert_eq!(bodies(&mut batch(HttpBody::Row, 1, 1_000), &rows), rows);
        let found = bodies(&mut batch(HttpBody::Array, 100, 9), &["{}", "{1}", "{123456789}", "{2}"]);
        assert_eq!(found, ["[{},{1}]", "[{123456789}]", "[{2}]"], "a large row goes alone");
    }

    #[test]
    fn keys_are_those_of_the_first_time_when_the_batches_are() {
        let keys = |batch: &mut Batch, rows: &[&str]| -> Vec<String> {
            let requests = rows.iter().flat_map(|row| batch.push(row.as_bytes())).flatten();
            requests.map(|request| request.key).collect()
        };
        let mut first = batch(HttpBody::Row, 1, 1_000);
        let before = keys(&mut first, &["{1}", "{1}", "{2}"]);
        first.barrier(Epoch(7));
        let behind = keys(&mut first, &["{1}", "{1}"]);
        let all: std::collections::BTreeSet<_> = before.iter().chain(&behind).collect();
        assert_eq!(all.len(), 5, "equal rows are not the same row");
        let mut restored = Batch::new(HttpBody::Row, 1, 1_000, &place(), Some(Epoch(7)));
        assert_eq!(keys(&mut restored, &["{1}", "{1}"]), behind);
        let mut restored = Batch::new(HttpBody::Row, 1, 1_000, &place(), Some(Epoch(7)));
        assert_ne!(keys(&mut restored, &["{2}"])[0], behind[0], "another row has another key");
    }
}
