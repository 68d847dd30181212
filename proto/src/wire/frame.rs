//! The frame of a message that is stored or handed over as bytes: four letters that say what it is, a version byte,
//! the protobuf body, and the crc32 of all that, little endian. Protobuf alone would read a message cut off between
//! two fields as a whole one.

use prost::Message;

pub(crate) struct Frame {
    /// For messages: "checkpoint manifest".
    pub what: &'static str,
    pub magic: &'static str,
    pub version: u8,
}

const CRC_BYTES: usize = 4;

impl Frame {
    pub fn seal(&self, body: &impl Message) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.magic.len() + 1 + body.encoded_len() + CRC_BYTES);
        bytes.extend_from_slice(self.magic.as_bytes());
        bytes.push(self.version);
        body.encode(&mut bytes).expect("a vector grows as needed");
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Refuses everything that `seal` has not written in full.
    pub fn open<M: Message + Default>(&self, bytes: &[u8]) -> Result<M, String> {
        let Frame { what, magic, version } = self;
        let (content, crc) = bytes
            .split_last_chunk::<CRC_BYTES>()
            .ok_or_else(|| format!("a {what} of {} bytes is cut short", bytes.len()))?;
        let (written, found) = (u32::from_le_bytes(*crc), crc32fast::hash(content));
        let Some([of, body @ ..]) = content.strip_prefix(magic.as_bytes()) else {
            return Err(format!("not a {what}: it does not start with `{magic}`"));
        };
        if written != found {
            return Err(format!("the {what}'s crc32 is {found:08x}, but {written:08x} was written with it"));
        }
        if of != version {
            return Err(format!("{what} version {of} is not known; this version of EdgeFlow reads version {version}"));
        }
        M::decode(body).map_err(|e| format!("not a {what}: {e}"))
    }
}
