//! The log and what is acknowledged from it, over a disk that forgets what was not synced, tears it, and fails, against
//! a naive broker: what it was told is safe must be there after any crash, and with keys nothing is there twice.
//!
//! Negative control: acknowledging when a chunk is handed over, before the sync, must be caught.

use super::super::dedup::Dedup;
use super::super::inbox::{Action, Event, Inbox};
use super::super::packet::Ack;
use super::disk::Disk;
use super::record::{CHUNK_HEAD, Chunk, Kind, Record, record};
use super::{Appended, Log, name_of};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;

#[derive(Clone, Default)]
struct SimFile {
    bytes: Vec<u8>,
    /// Of them, those that survive.
    synced: usize,
}

#[derive(Default)]
struct Platter {
    files: BTreeMap<String, SimFile>,
    open: Option<String>,
    /// The open file, which does not have its name yet.
    begun: Option<SimFile>,
    /// The next operation that can fails.
    fail_next: bool,
    /// After a failed sync the kernel takes the pages for clean: no later sync of that file brings them to the disk.
    poisoned: BTreeSet<String>,
}

#[derive(Clone, Default)]
struct SimDisk(Rc<RefCell<Platter>>);

impl SimDisk {
    /// Power cut: of what was not synced, any front part is there, perhaps with a changed byte.
    fn crash(&self, random: &mut SmallRng) {
        let mut platter = self.0.borrow_mut();
        let Platter { files, poisoned, .. } = &mut *platter;
        for file in files.values_mut() {
            let kept = random.random_range(file.synced..=file.bytes.len());
            file.bytes.truncate(kept);
            if kept > file.synced && random.random_bool(0.5) {
                let at = random.random_range(file.synced..kept);
                file.bytes[at] ^= 0x55;
            }
            file.synced = file.bytes.len();
        }
        poisoned.clear();
        (platter.open, platter.begun, platter.fail_next) = (None, None, false);
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().files.keys().cloned().collect())
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        let platter = self.0.borrow();
        Ok(platter.files.get(name).ok_or(io::ErrorKind::NotFound)?.bytes.len() as u64)
    }

    fn read(&self, name: &str, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let platter = self.0.borrow();
        let file = &platter.files.get(name).ok_or(io::ErrorKind::NotFound)?.bytes;
        let from = file.len().min(at as usize);
        Ok(file[from..file.len().min(from + bytes)].to_vec())
    }

    fn begin(&mut self, name: &str) -> io::Result<()> {
        let mut platter = self.0.borrow_mut();
        platter.poisoned.remove(name);
        (platter.open, platter.begun) = (Some(name.into()), Some(SimFile::default()));
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut platter = self.0.borrow_mut();
        let name = platter.open.clone().ok_or(io::ErrorKind::NotConnected)?;
        let full = std::mem::take(&mut platter.fail_next);
        let Platter { files, begun, .. } = &mut *platter;
        let file = begun.as_mut().or_else(|| files.get_mut(&name)).ok_or(io::ErrorKind::NotFound)?;
        // No space left: a part was written.
        file.bytes.extend_from_slice(if full { &bytes[..bytes.len() / 2] } else { bytes });
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut platter = self.0.borrow_mut();
        let name = platter.open.clone().ok_or(io::ErrorKind::NotConnected)?;
        if std::mem::take(&mut platter.fail_next) {
            platter.poisoned.insert(name);
            return Err(io::Error::other("EIO"));
        }
        let lies = platter.poisoned.contains(&name);
        if let Some(file) = platter.begun.take() {
            platter.files.insert(name.clone(), file);
        }
        let file = platter.files.get_mut(&name).ok_or(io::ErrorKind::NotFound)?;
        if !lies {
            file.synced = file.bytes.len();
        }
        Ok(())
    }

    fn cut(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        let mut platter = self.0.borrow_mut();
        platter.open = None;
        let file = platter.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        file.bytes.truncate(bytes as usize);
        file.synced = file.synced.min(bytes as usize);
        Ok(())
    }

    fn delete(&mut self, name: &str) -> io::Result<()> {
        let mut platter = self.0.borrow_mut();
        if platter.open.as_deref() == Some(name) && platter.begun.take().is_some() {
            platter.open = None;
            return Ok(());
        }
        platter.files.remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }
}

/// One message at the broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sent {
    id: u32,
    pkid: u16,
    qos: u8,
    /// QoS 2: it was received, and is only released again.
    received: bool,
    /// It was on the way before.
    dup: bool,
}

/// Sends messages 0, 1, 2… at most [`WINDOW`] at once, and again what it has no acknowledgement for.
struct Broker {
    sent: VecDeque<Sent>,
    next: u32,
    last_id: u16,
}

const WINDOW: usize = 12;

impl Broker {
    fn new_message(&mut self, random: &mut SmallRng) -> Option<Sent> {
        if self.sent.len() >= WINDOW {
            return None;
        }
        let used = |id: u16| self.sent.iter().any(|sent| sent.pkid == id);
        self.last_id = (1..=40).map(|step| (self.last_id + step - 1) % 20 + 1).find(|id| !used(*id))?;
        let qos = random.random_range(1..=2);
        let sent = Sent { id: self.next, pkid: self.last_id, qos, received: false, dup: false };
        self.next += 1;
        self.sent.push_back(Sent { dup: true, ..sent });
        Some(sent)
    }

    /// What it answers; None: nothing.
    fn acknowledged(&mut self, ack: Ack, pkid: u16) -> Option<u16> {
        let at = self.sent.iter().position(|sent| sent.pkid == pkid);
        let at = at.unwrap_or_else(|| panic!("{ack:?} of {pkid}, which is not under way"));
        match (ack, self.sent[at].qos) {
            (Ack::Puback, 1) => drop(self.sent.remove(at)),
            (Ack::Pubrec, 2) => {
                self.sent[at].received = true;
                return Some(pkid);
            }
            (Ack::Pubcomp, 2) => drop(self.sent.remove(at)),
            other => panic!("{other:?} of {pkid}"),
        }
        None
    }
}

struct World {
    random: SmallRng,
    disk: SimDisk,
    log: Option<Log<SimDisk>>,
    inbox: Inbox,
    chunk: Chunk,
    broker: Broker,
    /// On the way to us.
    wire: VecDeque<Result<Sent, u16>>,
    /// Acknowledged by us and received by the broker: must never be lost.
    safe: BTreeSet<u32>,
    /// What was read from the log before its files went.
    read: Vec<(u32, u8)>,
    too_early: bool,
}

impl World {
    fn new(seed: u64, too_early: bool) -> World {
        let mut world = World {
            random: SmallRng::seed_from_u64(seed),
            disk: SimDisk::default(),
            log: None,
            inbox: Inbox::default(),
            chunk: Chunk::new(0, 0),
            broker: Broker { sent: VecDeque::new(), next: 0, last_id: 0 },
            wire: VecDeque::new(),
            safe: BTreeSet::new(),
            read: Vec::new(),
            too_early,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let (log, _) = Log::open(self.disk.clone(), 9, 1 << 30).expect("a crash damages nothing that was synced");
        self.inbox = Inbox::new(log.next(), log.outstanding().clone());
        self.chunk = Chunk::new(log.next(), 0);
        self.log = Some(log);
        self.connect();
    }

    fn connect(&mut self) {
        self.inbox.step(Event::Disconnected);
        self.inbox.step(Event::Connected { session: true });
        let again = self.broker.sent.iter().map(|sent| if sent.received { Err(sent.pkid) } else { Ok(*sent) });
        self.wire = again.collect();
    }

    fn receive(&mut self) {
        match self.wire.pop_front() {
            None => {}
            Some(Ok(sent)) if self.inbox.publish(sent.qos, sent.pkid, sent.dup) != Action::Record => {}
            Some(Ok(sent)) => {
                let payload = sent.id.to_le_bytes();
                let message = Record {
                    qos: sent.qos,
                    topic: b"t",
                    payload: &payload,
                    ..Record::change(Kind::Message, sent.pkid, i64::from(sent.id))
                };
                self.chunk.push(&message);
            }
            Some(Err(pkid)) => {
                for action in self.inbox.step(Event::Released { pkid }) {
                    assert_eq!(action, Action::RecordRelease(pkid));
                    self.chunk.push(&Record::change(Kind::Released, pkid, 0));
                }
            }
        }
        if self.too_early {
            self.acknowledge(self.chunk.end());
        }
    }

    fn acknowledge(&mut self, end: u64) {
        for action in self.inbox.step(Event::Durable(end)) {
            let Action::Send(ack, pkid) = action else { panic!("{action:?}") };
            // Some never arrive.
            if self.random.random_bool(0.1) {
                self.connect();
                return;
            }
            let sent = self.broker.sent.iter().find(|sent| sent.pkid == pkid).map(|sent| sent.id);
            self.safe.extend(sent);
            if let Some(release) = self.broker.acknowledged(ack, pkid) {
                self.wire.push_back(Err(release));
            }
        }
    }

    fn write(&mut self) {
        if self.chunk.is_empty() {
            if !self.too_early {
                self.acknowledge(self.chunk.end());
            }
            return;
        }
        let chunk = std::mem::replace(&mut self.chunk, Chunk::new(0, 0)).seal();
        let log = self.log.as_mut().expect("it is open");
        match log.append(&chunk, self.inbox.outstanding()) {
            Appended::Durable(end) => {
                self.chunk = Chunk::new(end, 0);
                self.acknowledge(end);
            }
            Appended::Failed(next, _) => {
                let outstanding = log.outstanding().clone();
                self.inbox.step(Event::Rewound { next, outstanding });
                self.chunk = Chunk::new(next, 0);
                self.connect();
            }
            Appended::Full => panic!("there is room"),
        }
    }

    /// All messages of the log, in order.
    fn records(&self) -> Vec<(u32, u8)> {
        let log = self.log.as_ref().expect("it is open");
        let (mut found, mut next) = (Vec::new(), log.first());
        let mut firsts: Vec<u64> = self.disk.list().unwrap().iter().filter_map(|name| super::first_of(name)).collect();
        firsts.sort_unstable();
        for (at, first) in firsts.iter().enumerate() {
            let bytes = self.disk.read(&name_of(*first), 0, usize::MAX >> 1).unwrap();
            let (_, mut place) = super::record::SegmentHead::read(&bytes).unwrap();
            let end = firsts.get(at + 1).copied().unwrap_or(log.next());
            while next < end {
                let head = super::record::Head::read(&bytes[place..]).expect("a chunk");
                let chunk = &bytes[place..place + head.bytes];
                let mut record_at = CHUNK_HEAD;
                while let Some((record, behind)) = record(chunk, record_at) {
                    if record.kind == Kind::Message {
                        found.push((u32::from_le_bytes(record.payload.try_into().unwrap()), record.qos));
                    }
                    record_at = behind;
                    next += 1;
                }
                place += head.bytes;
            }
        }
        found
    }

    /// A checkpoint has read what is below some record.
    fn raise_floor(&mut self) {
        let records = self.records();
        let log = self.log.as_mut().expect("it is open");
        let floor = self.random.random_range(log.first()..=log.next());
        log.floor(floor).expect("files can be deleted");
        let stay = self.records().len();
        self.read.extend_from_slice(&records[..records.len() - stay]);
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.random_range(0..1000) {
                0..350 => {
                    let new = self.broker.new_message(&mut self.random);
                    self.wire.extend(new.map(Ok));
                }
                350..700 => self.receive(),
                700..940 => self.write(),
                940..950 => self.connect(),
                950..960 => self.raise_floor(),
                960..980 => self.disk.0.borrow_mut().fail_next = true,
                _ => {
                    self.log = None;
                    self.disk.crash(&mut self.random);
                    self.start();
                }
            }
        }
        self.disk.0.borrow_mut().fail_next = false;
        // Calm: everything gets through.
        self.log = None;
        self.disk.crash(&mut self.random);
        self.start();
        for _ in 0..50 {
            (0..100).for_each(|_| self.receive());
            self.write();
        }
    }

    fn check(&self) -> Result<(), String> {
        let records = [&self.read[..], &self.records()].concat();
        let ids: BTreeSet<u32> = records.iter().map(|(id, _)| *id).collect();
        if let Some(lost) = self.safe.difference(&ids).next() {
            return Err(format!("message {lost} was acknowledged and is lost"));
        }
        if !self.broker.sent.is_empty() {
            return Err(format!("{:?} never get through", self.broker.sent));
        }
        // Without keys: QoS 2 once, QoS 1 at least once. With keys all of them once.
        let mut dedup = Dedup::new(WINDOW as u16, 0, 0);
        let mut once = BTreeSet::new();
        let mut twos = BTreeSet::new();
        for (number, (id, qos)) in records.iter().enumerate() {
            if *qos == 2 && !twos.insert(id) {
                return Err(format!("message {id} of QoS 2 is there twice"));
            }
            if dedup.is_new(&id.to_le_bytes(), number as u64, number as i64) && !once.insert(id) {
                return Err(format!("message {id} is there twice in spite of its key"));
            }
        }
        if once.len() == ids.len() { Ok(()) } else { Err("a key has hidden a message".into()) }
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_with_keys_nothing_is_there_twice() {
    let mut repeated = 0;
    for seed in 0..300 {
        let mut world = World::new(seed, false);
        world.run(1_500);
        world.check().unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        assert!(world.safe.len() > 50, "seed {seed}: only {} messages", world.safe.len());
        let records = [&world.read[..], &world.records()].concat();
        repeated += records.len() - records.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len();
    }
    assert!(repeated > 100, "without keys QoS 1 repeats messages: {repeated}");
}

#[test]
fn acknowledging_before_the_sync_is_caught() {
    let caught = (0..50).filter(|seed| {
        let mut world = World::new(*seed, true);
        world.run(1_500);
        world.check().is_err()
    });
    assert!(caught.count() > 40);
}

#[test]
fn damage_before_a_whole_chunk_is_an_error_with_the_messages() {
    let disk = SimDisk::default();
    let (mut log, _) = Log::open(disk.clone(), 1, 1 << 30).unwrap();
    for first in [0, 1, 2] {
        let mut chunk = Chunk::new(first, 0);
        chunk.push(&Record::change(Kind::Message, 0, 0));
        assert!(matches!(log.append(&chunk.seal(), &BTreeSet::new()), Appended::Durable(_)));
    }
    {
        let mut platter = disk.0.borrow_mut();
        let file = platter.files.get_mut(&name_of(0)).unwrap();
        let length = file.bytes.len();
        // The second of three equal chunks.
        let chunk = CHUNK_HEAD + 22;
        file.bytes[length - 2 * chunk + 30] ^= 1;
    }
    let Err(error) = Log::open(disk, 1, 1 << 30) else { panic!("it is damaged") };
    assert!(error.message.contains("messages 1 to 1 were acknowledged"), "{error}");
}

#[test]
fn files_below_the_floor_go_and_the_rest_opens() {
    let disk = SimDisk::default();
    let (mut log, _) = Log::open(disk.clone(), 1, 4 << 20).unwrap();
    let payload = vec![0; 300 << 10];
    for first in 0..8 {
        let mut chunk = Chunk::new(first, 0);
        chunk.push(&Record { payload: &payload, ..Record::change(Kind::Message, 0, 0) });
        assert!(matches!(log.append(&chunk.seal(), &BTreeSet::from([first as u16])), Appended::Durable(_)));
    }
    log.floor(5).unwrap();
    assert_eq!(disk.list().unwrap(), [name_of(4), name_of(6)]);
    drop(log);
    let (log, opened) = Log::open(disk, 2, 4 << 20).unwrap();
    assert_eq!((log.id(), log.first(), log.next(), opened.cut), (1, 4, 8, 0), "the id is the log's own");
}
