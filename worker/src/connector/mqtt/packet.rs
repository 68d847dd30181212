//! MQTT packets of a client, version 5 and 3.1.1: bytes to borrowed views and back. Pure; strict; never panics on input.
//!
//! Why not a client library: a PUBLISH is looked at where it lies, so that topic, properties and payload are copied once,
//! into the ingest log; and acknowledgements are ours to time, number by number, which the event loops of the
//! libraries do not leave to us (one flush an acknowledgement, acknowledgements of an old connection on a new one,
//! releases that an old process owes taken for errors).

use ef_proto::connector::MqttVersion;

/// The longest packet that is taken whole; of a longer PUBLISH only the front is.
pub const PACKET_BYTES: usize = 16 << 20;

/// Bytes of a PUBLISH that must hold its topic and properties when it is too long.
pub const FRONT_BYTES: usize = 256 << 10;

#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

type Read<T> = Result<T, Malformed>;

/// Where a packet's body lies behind its fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub head: usize,
    pub body: usize,
}

impl Frame {
    /// None: more bytes are needed.
    #[inline]
    pub fn of(input: &[u8]) -> Read<Option<Frame>> {
        let Some((first, rest)) = input.split_first() else { return Ok(None) };
        match variable(rest)? {
            Some((body, bytes)) => Ok(Some(Frame { first: *first, head: 1 + bytes, body })),
            None => Ok(None),
        }
    }

    pub fn bytes(&self) -> usize {
        self.head + self.body
    }

    pub fn is_publish(&self) -> bool {
        self.first >> 4 == 3
    }
}

/// A number of one to four bytes, and how many. None: more are needed.
#[inline]
fn variable(bytes: &[u8]) -> Read<Option<(usize, usize)>> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Malformed("a length of more than four bytes")) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub pkid: u16,
    pub topic: &'a [u8],
    /// Without their length.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    ConnAck(ConnAck),
    Publish(Publish<'a>),
    PubAck { pkid: u16, reason: u8 },
    PubRec { pkid: u16, reason: u8 },
    PubRel { pkid: u16 },
    PubComp { pkid: u16 },
    SubAck { pkid: u16, codes: &'a [u8] },
    UnsubAck,
    PingResp,
    Disconnect { reason: u8, text: Option<String> },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnAck {
    pub session_present: bool,
    pub reason: u8,
    pub text: Option<String>,
    pub receive_max: Option<u16>,
    pub max_qos: Option<u8>,
    pub retain_available: bool,
    pub max_packet: Option<u32>,
    pub keep_alive: Option<u16>,
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    #[inline]
    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("a packet that ends too soon"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.take(1)?[0])
    }

    #[inline]
    fn two(&mut self) -> Read<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn four(&mut self) -> Read<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    #[inline]
    fn sized(&mut self) -> Read<&'a [u8]> {
        let count = self.two()?;
        self.take(count.into())
    }

    fn variable(&mut self) -> Read<usize> {
        let (value, bytes) = variable(self.0)?.ok_or(Malformed("a packet that ends too soon"))?;
        self.take(bytes)?;
        Ok(value)
    }

    fn properties(&mut self) -> Read<Properties<'a>> {
        let count = self.variable()?;
        Ok(Properties(self.take(count)?))
    }

    fn pkid(&mut self) -> Read<u16> {
        match self.two()? {
            0 => Err(Malformed("packet id 0")),
            pkid => Ok(pkid),
        }
    }
}

/// MQTT 5 properties, one after another.
#[derive(Clone, Copy, Debug)]
pub struct Properties<'a>(pub &'a [u8]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Number(u32),
    Bytes(&'a [u8]),
    Pair(&'a [u8], &'a [u8]),
}

pub mod property {
    pub const MESSAGE_EXPIRY: u8 = 2;
    pub const CONTENT_TYPE: u8 = 3;
    pub const RESPONSE_TOPIC: u8 = 8;
    pub const CORRELATION_DATA: u8 = 9;
    pub const SESSION_EXPIRY: u8 = 17;
    pub const SERVER_KEEP_ALIVE: u8 = 19;
    pub const REASON: u8 = 31;
    pub const RECEIVE_MAX: u8 = 33;
    pub const MAX_QOS: u8 = 36;
    pub const RETAIN_AVAILABLE: u8 = 37;
    pub const USER: u8 = 38;
    pub const MAX_PACKET: u8 = 39;
}

impl<'a> Properties<'a> {
    /// The next one: its id and value.
    pub fn read(&mut self) -> Read<Option<(u8, Value<'a>)>> {
        let mut bytes = Bytes(self.0);
        if bytes.0.is_empty() {
            return Ok(None);
        }
        let id = bytes.byte()?;
        let value = match id {
            1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => Value::Number(bytes.byte()?.into()),
            19 | 33 | 34 | 35 => Value::Number(bytes.two()?.into()),
            2 | 17 | 24 | 39 => Value::Number(bytes.four()?),
            11 => Value::Number(bytes.variable()? as u32),
            3 | 8 | 9 | 18 | 21 | 22 | 26 | 28 | 31 => Value::Bytes(bytes.sized()?),
            38 => {
                let name = bytes.sized()?;
                Value::Pair(name, bytes.sized()?)
            }
            _ => return Err(Malformed("a property that MQTT 5 does not have")),
        };
        self.0 = bytes.0;
        Ok(Some((id, value)))
    }
}

/// The packet of a whole frame.
pub fn read<'a>(version: MqttVersion, frame: Frame, body: &'a [u8]) -> Read<Packet<'a>> {
    let mut bytes = Bytes(body);
    let five = version == MqttVersion::V5;
    Ok(match frame.first >> 4 {
        2 => Packet::ConnAck(connack(&mut bytes, five)?),
        3 => Packet::Publish(publish(version, frame.first, body)?),
        4 => {
            let (pkid, reason) = (bytes.pkid()?, reason(&mut bytes)?);
            Packet::PubAck { pkid, reason }
        }
        5 => {
            let (pkid, reason) = (bytes.pkid()?, reason(&mut bytes)?);
            Packet::PubRec { pkid, reason }
        }
        6 => Packet::PubRel { pkid: bytes.pkid()? },
        7 => Packet::PubComp { pkid: bytes.pkid()? },
        9 => {
            let pkid = bytes.pkid()?;
            if five {
                bytes.properties()?;
            }
            Packet::SubAck { pkid, codes: bytes.0 }
        }
        11 => Packet::UnsubAck,
        13 => Packet::PingResp,
        14 => {
            let reason = reason(&mut bytes)?;
            let text = if bytes.0.is_empty() { None } else { text_of(bytes.properties()?)? };
            Packet::Disconnect { reason, text }
        }
        _ => return Err(Malformed("a packet that no broker sends")),
    })
}

/// Absent means success.
fn reason(bytes: &mut Bytes) -> Read<u8> {
    if bytes.0.is_empty() { Ok(0) } else { bytes.byte() }
}

fn text_of(mut properties: Properties) -> Read<Option<String>> {
    while let Some((id, value)) = properties.read()? {
        if let (property::REASON, Value::Bytes(text)) = (id, value) {
            return Ok(Some(String::from_utf8_lossy(text).into_owned()));
        }
    }
    Ok(None)
}

fn connack(bytes: &mut Bytes, five: bool) -> Read<ConnAck> {
    let session_present = bytes.byte()? & 1 == 1;
    let mut ack = ConnAck { session_present, reason: bytes.byte()?, retain_available: true, ..ConnAck::default() };
    if !five || bytes.0.is_empty() {
        return Ok(ack);
    }
    let mut properties = bytes.properties()?;
    while let Some((id, value)) = properties.read()? {
        match (id, value) {
            (property::REASON, Value::Bytes(text)) => ack.text = Some(String::from_utf8_lossy(text).into_owned()),
            (property::RECEIVE_MAX, Value::Number(most)) => ack.receive_max = Some((most as u16).max(1)),
            (property::MAX_QOS, Value::Number(qos)) => ack.max_qos = Some(qos as u8),
            (property::RETAIN_AVAILABLE, Value::Number(yes)) => ack.retain_available = yes == 1,
            (property::MAX_PACKET, Value::Number(bytes)) => ack.max_packet = Some(bytes),
            (property::SERVER_KEEP_ALIVE, Value::Number(seconds)) => ack.keep_alive = Some(seconds as u16),
            _ => {}
        }
    }
    Ok(ack)
}

/// `body` may be cut within the payload.
#[inline]
pub fn publish(version: MqttVersion, first: u8, body: &[u8]) -> Read<Publish<'_>> {
    let mut bytes = Bytes(body);
    let (qos, topic) = ((first >> 1) & 3, bytes.sized()?);
    if qos == 3 {
        return Err(Malformed("a message with quality of service 3"));
    }
    if topic.is_empty() || std::str::from_utf8(topic).is_err() {
        return Err(Malformed("a message whose topic is empty or no UTF-8"));
    }
    let pkid = if qos == 0 { 0 } else { bytes.pkid()? };
    let properties = if version == MqttVersion::V5 { bytes.properties()?.0 } else { &[] };
    let (dup, retain) = (first & 8 != 0, first & 1 != 0);
    Ok(Publish { dup, qos, retain, pkid, topic, properties, payload: bytes.0 })
}

/// The acknowledgements: only a packet id. `kind` is its fixed header.
#[inline]
pub fn ack(kind: Ack, pkid: u16, out: &mut impl Extend<u8>) {
    let [high, low] = pkid.to_be_bytes();
    out.extend([kind as u8, 2, high, low]);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ack {
    Puback = 0x40,
    Pubrec = 0x50,
    Pubrel = 0x62,
    Pubcomp = 0x70,
}

pub const PINGREQ: [u8; 2] = [0xc0, 0];

/// Ends a connection; the session stays.
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

pub struct Connect<'a> {
    pub version: MqttVersion,
    pub client_id: &'a str,
    pub clean_start: bool,
    pub keep_alive_s: u16,
    pub session_expiry_s: u32,
    pub receive_max: u16,
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
}

fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() <= 65_535, "checked where it came from");
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_variable(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let more = if value > 0x7f { 0x80 } else { 0 };
        out.push((value & 0x7f) as u8 | more);
        value >>= 7;
        if value == 0 {
            return;
        }
    }
}

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 5);
    out.push(first);
    put_variable(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

impl Connect<'_> {
    pub fn write(&self) -> Vec<u8> {
        let five = self.version == MqttVersion::V5;
        let mut body = Vec::new();
        put_sized(&mut body, b"MQTT");
        body.push(if five { 5 } else { 4 });
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags =
            flag(self.clean_start, 2) | flag(self.password.is_some(), 0x40) | flag(self.username.is_some(), 0x80);
        body.push(flags);
        body.extend_from_slice(&self.keep_alive_s.to_be_bytes());
        if five {
            let mut properties = vec![property::SESSION_EXPIRY];
            properties.extend_from_slice(&self.session_expiry_s.to_be_bytes());
            properties.push(property::RECEIVE_MAX);
            properties.extend_from_slice(&self.receive_max.to_be_bytes());
            put_variable(&mut body, properties.len());
            body.extend_from_slice(&properties);
        }
        put_sized(&mut body, self.client_id.as_bytes());
        for text in [self.username, self.password].into_iter().flatten() {
            put_sized(&mut body, text.as_bytes());
        }
        framed(0x10, &body)
    }
}

pub fn subscribe(version: MqttVersion, pkid: u16, filters: &[String], qos: u8) -> Vec<u8> {
    let mut body = pkid.to_be_bytes().to_vec();
    if version == MqttVersion::V5 {
        body.push(0);
    }
    for filter in filters {
        put_sized(&mut body, filter.as_bytes());
        // Retained messages when the subscription is new, not with every connection. Shared ones have none.
        let only_new = if version == MqttVersion::V5 && !filter.starts_with("$share/") { 0x10 } else { 0 };
        body.push(qos | only_new);
    }
    framed(0x82, &body)
}

pub fn unsubscribe(version: MqttVersion, pkid: u16, filters: &[String]) -> Vec<u8> {
    let mut body = pkid.to_be_bytes().to_vec();
    if version == MqttVersion::V5 {
        body.push(0);
    }
    filters.iter().for_each(|filter| put_sized(&mut body, filter.as_bytes()));
    framed(0xa2, &body)
}

/// `properties`: without their length.
pub fn write_publish(version: MqttVersion, publish: &Publish, out: &mut Vec<u8>) {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let mut length = Vec::with_capacity(4);
    let mut body = 2 + publish.topic.len() + publish.payload.len() + if publish.qos > 0 { 2 } else { 0 };
    if version == MqttVersion::V5 {
        put_variable(&mut length, publish.properties.len());
        body += length.len() + publish.properties.len();
    }
    out.push(0x30 | flag(publish.dup, 8) | publish.qos << 1 | flag(publish.retain, 1));
    put_variable(out, body);
    put_sized(out, publish.topic);
    if publish.qos > 0 {
        out.extend_from_slice(&publish.pkid.to_be_bytes());
    }
    out.extend_from_slice(&length);
    if version == MqttVersion::V5 {
        out.extend_from_slice(publish.properties);
    }
    out.extend_from_slice(publish.payload);
}

/// The properties of what a sink publishes.
pub fn properties(expiry_s: Option<u32>, content_type: Option<&str>, user: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(seconds) = expiry_s {
        out.push(property::MESSAGE_EXPIRY);
        out.extend_from_slice(&seconds.to_be_bytes());
    }
    if let Some(text) = content_type {
        out.push(property::CONTENT_TYPE);
        put_sized(&mut out, text.as_bytes());
    }
    for (name, value) in user {
        out.push(property::USER);
        put_sized(&mut out, name.as_bytes());
        put_sized(&mut out, value.as_bytes());
    }
    out
}

/// What a reason of a CONNACK, SUBACK, PUBACK or DISCONNECT means.
pub fn meaning(version: MqttVersion, reason: u8) -> String {
    let words = match (version, reason) {
        (MqttVersion::V311, 1) => "unacceptable protocol version",
        (MqttVersion::V311, 2) => "client id rejected",
        (MqttVersion::V311, 3) => "server unavailable",
        (MqttVersion::V311, 4) => "bad user name or password",
        (MqttVersion::V311, 5) => "not authorized",
        (_, 0x80) => "unspecified error",
        (_, 0x81) => "malformed packet",
        (_, 0x82) => "protocol error",
        (_, 0x83) => "implementation specific error",
        (_, 0x84) => "unsupported protocol version",
        (_, 0x85) => "client id not valid",
        (_, 0x86) => "bad user name or password",
        (_, 0x87) => "not authorized",
        (_, 0x88) => "server unavailable",
        (_, 0x89) => "server busy",
        (_, 0x8a) => "banned",
        (_, 0x8b) => "server shutting down",
        (_, 0x8c) => "bad authentication method",
        (_, 0x8d) => "keep alive timeout",
        (_, 0x8e) => "session taken over by another client with this client id",
        (_, 0x8f) => "topic filter invalid",
        (_, 0x90) => "topic name invalid",
        (_, 0x91) => "packet id in use",
        (_, 0x93) => "receive maximum exceeded",
        (_, 0x95) => "packet too large",
        (_, 0x96) => "message rate too high",
        (_, 0x97) => "quota exceeded",
        (_, 0x98) => "administrative action",
        (_, 0x99) => "payload format invalid",
        (_, 0x9a) => "retain not supported",
        (_, 0x9b) => "quality of service not supported",
        (_, 0x9c) => "use another server",
        (_, 0x9d) => "server moved",
        (_, 0x9e) => "shared subscriptions not supported",
        (_, 0x9f) => "connection rate exceeded",
        (_, 0xa0) => "maximum connect time",
        (_, 0xa2) => "wildcard subscriptions not supported",
        _ => return format!("reason {reason:#04x}"),
    };
    format!("{words} ({reason:#04x})")
}

/// Whether a refused connection may be accepted later, without anybody changing the job.
pub fn may_pass(version: MqttVersion, reason: u8) -> bool {
    match version {
        MqttVersion::V311 => reason == 3,
        MqttVersion::V5 => matches!(reason, 0x80 | 0x83 | 0x88 | 0x89 | 0x97 | 0x9c | 0x9f),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_come_back_as_they_were_written() {
        for version in [MqttVersion::V5, MqttVersion::V311] {
            let properties = properties(Some(60), Some("application/json"), &[("plant".into(), "a".into())]);
            let sent = Publish {
                dup: true,
                qos: 2,
                retain: true,
                pkid: 513,
                topic: "plants/ä".as_bytes(),
                properties: if version == MqttVersion::V5 { &properties } else { &[] },
                payload: &[7; 200],
            };
            let mut bytes = Vec::new();
            write_publish(version, &sent, &mut bytes);
            let frame = Frame::of(&bytes).unwrap().unwrap();
            assert_eq!(frame.bytes(), bytes.len());
            assert_eq!(read(version, frame, &bytes[frame.head..]), Ok(Packet::Publish(sent)));
            assert!((0..2).all(|end| Frame::of(&bytes[..end]) == Ok(None)));
        }
    }

    #[test]
    fn connack_tells_what_the_broker_allows() {
        let body = [1, 0, 8, 33, 0, 20, 19, 0, 9, 36, 1];
        let frame = Frame { first: 0x20, head: 2, body: body.len() };
        let Ok(Packet::ConnAck(ack)) = read(MqttVersion::V5, frame, &body) else { panic!("a CONNACK") };
        assert_eq!((ack.session_present, ack.reason, ack.receive_max), (true, 0, Some(20)));
        assert_eq!((ack.keep_alive, ack.max_qos, ack.max_packet), (Some(9), Some(1), None));
        let frame = Frame { first: 0x20, head: 2, body: 2 };
        let Ok(Packet::ConnAck(ack)) = read(MqttVersion::V311, frame, &[0, 5]) else { panic!("a CONNACK") };
        assert_eq!(
            (ack.session_present, meaning(MqttVersion::V311, ack.reason)),
            (false, "not authorized (0x05)".into())
        );
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_broker_make_it_panic(first: u8, body in proptest::collection::vec(any::<u8>(), 0..64), five: bool) {
            let version = if five { MqttVersion::V5 } else { MqttVersion::V311 };
            let frame = Frame { first, head: 2, body: body.len() };
            if let Ok(Packet::Publish(publish)) = read(version, frame, &body) {
                let mut properties = Properties(publish.properties);
                while let Ok(Some(_)) = properties.read() {}
            }
            let _ = Frame::of(&body);
        }
    }
}
