//! What the ingest log holds: chunks of records, as they are in memory and in its files. Pure.
//!
//! A chunk is what one fsync covers. Its checksum is over all of it, so that a torn write is never taken for a
//! message; within a chunk that has been checked, records are only walked. A record is a message with all that a row
//! may want of it, or a change of what the broker and we know of QoS 2 packet ids.

use std::collections::BTreeSet;

const CHUNK_MAGIC: &[u8; 4] = b"EFMc";
const SEGMENT_MAGIC: &[u8; 4] = b"EFMs";
const VERSION: u16 = 1;
/// Magic, bytes of the body, sequence number of the first record, records, checksum of all else.
pub const CHUNK_HEAD: usize = 24;
/// Magic, version, id of the log, sequence number of the first record, packet ids; they and a checksum follow.
const SEGMENT_HEAD: usize = 26;

const RETAIN: u8 = 4;
const DUP: u8 = 8;
const CUT: u8 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Message,
    /// The broker has released this QoS 2 packet id.
    Released,
    /// The broker does not know our session any more, and with it no packet id.
    SessionLost,
}

/// One record, in the bytes of its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub kind: Kind,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    /// The payload is only the front of the message: it was too long.
    pub cut: bool,
    pub pkid: u16,
    pub received_ms: i64,
    /// UTF-8.
    pub topic: &'a [u8],
    /// As in the packet: MQTT 5 properties without their length.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
}

impl Record<'_> {
    pub fn change(kind: Kind, pkid: u16, received_ms: i64) -> Record<'static> {
        let none: &[u8] = &[];
        let (topic, properties, payload) = (none, none, none);
        Record { kind, qos: 0, retain: false, dup: false, cut: false, pkid, received_ms, topic, properties, payload }
    }

    /// What the record does to the QoS 2 packet ids that were received and not yet released.
    pub fn apply(&self, outstanding: &mut BTreeSet<u16>) {
        match self.kind {
            Kind::Message if self.qos == 2 => drop(outstanding.insert(self.pkid)),
            Kind::Message => {}
            Kind::Released => drop(outstanding.remove(&self.pkid)),
            Kind::SessionLost => outstanding.clear(),
        }
    }
}

/// A chunk that is being filled.
#[derive(Debug)]
pub struct Chunk {
    bytes: Vec<u8>,
    first: u64,
    count: u32,
}

impl Chunk {
    pub fn new(first: u64, capacity: usize) -> Chunk {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.resize(CHUNK_HEAD, 0);
        Chunk { bytes, first, count: 0 }
    }

    /// Its sequence number.
    #[inline]
    pub fn push(&mut self, record: &Record) -> u64 {
        let kind = match record.kind {
            Kind::Message => 0u8,
            Kind::Released => 1,
            Kind::SessionLost => 2,
        };
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = record.qos | flag(record.retain, RETAIN) | flag(record.dup, DUP) | flag(record.cut, CUT);
        let length = 18 + record.topic.len() + record.properties.len() + record.payload.len();
        let out = &mut self.bytes;
        out.reserve(4 + length);
        out.extend_from_slice(&(length as u32).to_le_bytes());
        out.extend_from_slice(&[kind, flags]);
        out.extend_from_slice(&record.pkid.to_le_bytes());
        out.extend_from_slice(&record.received_ms.to_le_bytes());
        out.extend_from_slice(&(record.topic.len() as u16).to_le_bytes());
        out.extend_from_slice(&(record.properties.len() as u32).to_le_bytes());
        out.extend_from_slice(record.topic);
        out.extend_from_slice(record.properties);
        out.extend_from_slice(record.payload);
        self.count += 1;
        self.end() - 1
    }

    /// A sealed chunk takes records again.
    pub fn unseal(bytes: Vec<u8>) -> Chunk {
        let Head { first, count, .. } = Head::read(&bytes).expect("it was sealed by us");
        Chunk { bytes, first, count }
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    /// The sequence number behind its last record.
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// With its head: ready to be written.
    pub fn seal(mut self) -> Vec<u8> {
        let body = (self.bytes.len() - CHUNK_HEAD) as u32;
        self.bytes[..4].copy_from_slice(CHUNK_MAGIC);
        self.bytes[4..8].copy_from_slice(&body.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&self.first.to_le_bytes());
        self.bytes[16..20].copy_from_slice(&self.count.to_le_bytes());
        let crc = checksum(&self.bytes);
        self.bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        self.bytes
    }
}

/// What a chunk's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of the whole chunk.
    pub bytes: usize,
    pub first: u64,
    pub count: u32,
}

impl Head {
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// None: this is no head of a chunk.
    pub fn read(head: &[u8]) -> Option<Head> {
        let head = head.get(..CHUNK_HEAD)?;
        let first = u64::from_le_bytes(head[8..16].try_into().ok()?);
        let count = u32::from_le_bytes(head[16..20].try_into().ok()?);
        let bytes = CHUNK_HEAD + u32::from_le_bytes(head[4..8].try_into().ok()?) as usize;
        (head.starts_with(CHUNK_MAGIC) && count > 0).then_some(Head { bytes, first, count })
    }
}

/// Whether these bytes are one whole chunk, as it was sealed.
pub fn is_whole(chunk: &[u8]) -> bool {
    Head::read(chunk).is_some_and(|head| head.bytes == chunk.len())
        && u32::from_le_bytes([chunk[20], chunk[21], chunk[22], chunk[23]]) == checksum(chunk)
}

fn checksum(chunk: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&chunk[..20]);
    hasher.update(&chunk[CHUNK_HEAD..]);
    hasher.finalize()
}

/// The record at `at`, and where the next one begins. None: at the end of the chunk, or it is none of ours.
#[inline]
pub fn record(chunk: &[u8], at: usize) -> Option<(Record<'_>, usize)> {
    let length = u32::from_le_bytes(chunk.get(at..at + 4)?.try_into().ok()?) as usize;
    let next = (at + 4).checked_add(length)?;
    let body = chunk.get(at + 4..next)?;
    let (head, rest) = body.split_at_checked(18)?;
    let kind = match head[0] {
        0 => Kind::Message,
        1 => Kind::Released,
        2 => Kind::SessionLost,
        _ => return None,
    };
    let (topic, rest) = rest.split_at_checked(u16::from_le_bytes(head[12..14].try_into().ok()?).into())?;
    let (properties, payload) = rest.split_at_checked(u32::from_le_bytes(head[14..18].try_into().ok()?) as usize)?;
    let record = Record {
        kind,
        qos: head[1] & 3,
        retain: head[1] & RETAIN != 0,
        dup: head[1] & DUP != 0,
        cut: head[1] & CUT != 0,
        pkid: u16::from_le_bytes([head[2], head[3]]),
        received_ms: i64::from_le_bytes(head[4..12].try_into().ok()?),
        topic,
        properties,
        payload,
    };
    Some((record, next))
}

/// What a file of the log opens with: whose it is, and the QoS 2 packet ids that were outstanding then, so that files
/// before it can be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    pub log: u64,
    pub first: u64,
    pub outstanding: BTreeSet<u16>,
}

impl SegmentHead {
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEAD + 2 * self.outstanding.len() + 4);
        out.extend_from_slice(SEGMENT_MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.log.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&(self.outstanding.len() as u32).to_le_bytes());
        self.outstanding.iter().for_each(|pkid| out.extend_from_slice(&pkid.to_le_bytes()));
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// The head, and how long it is. `front`: at least [`SEGMENT_FRONT`] bytes, if the file has as many.
    pub fn read(front: &[u8]) -> Option<(SegmentHead, usize)> {
        let head = front.get(..SEGMENT_HEAD)?;
        if !head.starts_with(SEGMENT_MAGIC) || head[4..6] != VERSION.to_le_bytes() {
            return None;
        }
        let count = u32::from_le_bytes(head[22..26].try_into().ok()?) as usize;
        let end = SEGMENT_HEAD.checked_add(count.checked_mul(2)?)?;
        let crc = u32::from_le_bytes(front.get(end..end.checked_add(4)?)?.try_into().ok()?);
        if crc != crc32fast::hash(&front[..end]) {
            return None;
        }
        let outstanding = front[SEGMENT_HEAD..end].chunks_exact(2).map(|id| u16::from_le_bytes([id[0], id[1]]));
        let log = u64::from_le_bytes(head[6..14].try_into().ok()?);
        let first = u64::from_le_bytes(head[14..22].try_into().ok()?);
        Some((SegmentHead { log, first, outstanding: outstanding.collect() }, end + 4))
    }
}

/// No head is longer.
pub const SEGMENT_FRONT: usize = SEGMENT_HEAD + 2 * 65_536 + 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8]) -> Record<'_> {
        Record {
            kind: Kind::Message,
            qos: 2,
            retain: true,
            dup: false,
            cut: true,
            pkid: 65_535,
            received_ms: -1,
            topic: b"a/b",
            properties: b"\x02\0\0\0\x09",
            payload,
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let mut chunk = Chunk::new(7, 0);
        assert_eq!(chunk.push(&message(b"{}")), 7);
        let released = Record::change(Kind::Released, 9, 3);
        assert_eq!(chunk.push(&released), 8);
        assert_eq!(chunk.push(&message(b"")), 9);
        let sealed = chunk.seal();
        assert!(is_whole(&sealed));
        assert_eq!(Head::read(&sealed), Some(Head { bytes: sealed.len(), first: 7, count: 3 }));
        let (first, at) = record(&sealed, CHUNK_HEAD).unwrap();
        let (second, at) = record(&sealed, at).unwrap();
        let (third, at) = record(&sealed, at).unwrap();
        assert_eq!((first, second, third), (message(b"{}"), released, message(b"")));
        assert_eq!((at, record(&sealed, at)), (sealed.len(), None));
    }

    #[test]
    fn no_changed_or_missing_byte_of_a_chunk_goes_unseen() {
        let mut chunk = Chunk::new(1, 0);
        chunk.push(&message(b"temperature"));
        let sealed = chunk.seal();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 0x10;
            assert!(!is_whole(&changed), "byte {at}");
            assert!(!is_whole(&sealed[..at]), "cut at {at}");
        }
    }

    #[test]
    fn segment_heads_keep_packet_ids_and_are_checked() {
        let head = SegmentHead { log: 77, first: 1 << 40, outstanding: BTreeSet::from([1, 2, 65_535]) };
        let mut bytes = head.write();
        bytes.extend_from_slice(b"what follows");
        assert_eq!(SegmentHead::read(&bytes), Some((head, bytes.len() - 12)));
        for at in 0..bytes.len() - 12 {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(SegmentHead::read(&changed), None, "byte {at}");
        }
        assert!((0..bytes.len() - 12).all(|end| SegmentHead::read(&bytes[..end]).is_none()));
    }
}
