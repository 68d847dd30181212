//! The sink's subtask: one message a row, at least once. `write` hands messages to the connection's thread, behind a
//! bound in bytes and count; `prepare` returns when the broker has taken all of them.

use super::link::Dialler;
use super::outbox::Message;
use super::packet::{self, Publish};
use super::publisher::{self, Desk};
use crate::connector::{CommitPermit, Place, Sink};
use crate::error::{Code, Error, Result};
use crate::format::encode::Encoder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType as Arrow;
use ef_proto::connector::{Format, MqttSink as Options, TopicPiece};
use ef_proto::ids::Epoch;
use ef_proto::schema::Schema;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

enum Piece {
    Text(String),
    /// Position and name.
    Column(usize, String),
}

pub struct MqttSink {
    name: String,
    options: Options,
    topic: Vec<Piece>,
    properties: Vec<u8>,
    encoder: Box<dyn Encoder>,
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
    payload: Vec<u8>,
    text: Vec<u8>,
    bytes: u64,
}

impl MqttSink {
    pub fn open(
        options: &Options,
        format: &Format,
        schema: &Schema,
        changelog: bool,
        place: &Place,
    ) -> Result<MqttSink> {
        let in_table = |error: Error| Error::new(error.code, format!("table \"{}\": {}", place.table, error.message));
        let pieces = MqttSink::pieces(options, schema).map_err(in_table)?;
        let client_id = match (&options.connection.client_id, place.index) {
            (Some(given), 0) => given.clone(),
            (Some(given), index) => format!("{given}-{index}"),
            (None, index) => format!("edgeflow-{}-{}-{index}", place.job, place.operator),
        };
        let dialler = Dialler { connection: options.connection.clone(), client_id, secrets: place.secrets.clone() };
        dialler.check().map_err(in_table)?;
        let expiry = options.message_expiry_ms.map(|ms| u32::try_from(ms / 1_000).unwrap_or(u32::MAX));
        let properties = packet::properties(expiry, options.content_type.as_deref(), &options.user_properties);
        let name = format!("table \"{}\": mqtt client `{}`", place.table, dialler.client_id);
        let (desk, thread) = publisher::start(&name, dialler, options.qos, options.retain)?;
        Ok(MqttSink {
            name,
            options: options.clone(),
            topic: pieces,
            properties,
            encoder: crate::connector::formats::encoder(format, schema, changelog, place)?,
            desk,
            thread: Some(thread),
            payload: Vec::new(),
            text: Vec::new(),
            bytes: 0,
        })
    }

    fn pieces(options: &Options, schema: &Schema) -> Result<Vec<Piece>> {
        let pieces = Options::pieces(&options.topic).unwrap_or_default();
        let piece = |piece: &TopicPiece| match piece {
            TopicPiece::Text(text) => Ok(Piece::Text((*text).to_owned())),
            TopicPiece::Column(name) => {
                let at =
                    schema.index_of(name).ok_or_else(|| Error::invalid(format!("no column `{name}` for the topic")))?;
                Ok(Piece::Column(at, (*name).to_owned()))
            }
        };
        pieces.iter().map(piece).collect()
    }

    fn message(&mut self, batch: &RecordBatch, row: usize) -> Result<Message> {
        self.payload.clear();
        self.encoder.encode(&batch.slice(row, 1), &mut self.payload)?;
        if self.payload.last() == Some(&b'\n') {
            self.payload.pop();
        }
        self.text.clear();
        for piece in &self.topic {
            match piece {
                Piece::Text(text) => self.text.extend_from_slice(text.as_bytes()),
                Piece::Column(at, name) => append(batch.column(*at).as_ref(), row, &mut self.text).map_err(|what| {
                    Error::invalid(format!("{}: column `{name}`, part of the topic, {what}", self.name))
                })?,
            }
        }
        if self.text.is_empty() || self.text.len() > 65_535 {
            let found = self.text.len();
            return Err(Error::invalid(format!(
                "{}: a row's topic has {found} bytes, 1 to 65535 are accepted",
                self.name
            )));
        }
        // The id is set when the message is sent.
        let pkid = u16::from(self.options.qos > 0);
        let publish = Publish {
            dup: false,
            qos: self.options.qos,
            retain: self.options.retain,
            pkid,
            topic: &self.text,
            properties: &self.properties,
            payload: &self.payload,
        };
        let mut out = Vec::with_capacity(self.text.len() + self.properties.len() + self.payload.len() + 16);
        packet::write_publish(self.options.connection.version, &publish, &mut out);
        Ok(Arc::new(out))
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.options.flush_timeout_ms)
    }

    fn stuck(&self, left: usize) -> Error {
        let seconds = self.options.flush_timeout_ms / 1_000;
        let why = self.desk.trouble().map(|why| format!(": {why}")).unwrap_or_default();
        Error::new(
            Code::Unavailable,
            format!(
                "{}: the broker has taken nothing for {seconds} s ('sink.flush-timeout'), {left} messages wait{why}",
                self.name
            ),
        )
    }
}

/// A level of a topic, or a part of one.
fn append(column: &dyn Array, row: usize, out: &mut Vec<u8>) -> std::result::Result<(), String> {
    if column.is_null(row) {
        return Err("is NULL".into());
    }
    let text = match column.data_type() {
        Arrow::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        Arrow::Boolean => column.as_boolean().value(row).to_string(),
        Arrow::Int8 => column.as_primitive::<Int8Type>().value(row).to_string(),
        Arrow::Int16 => column.as_primitive::<Int16Type>().value(row).to_string(),
        Arrow::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        Arrow::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        other => return Err(format!("is of type {other}")),
    };
    if text.contains(['+', '#', '\0']) {
        return Err(format!("is '{text}', and a topic cannot have '+', '#' or a zero byte"));
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

impl Sink for MqttSink {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        for row in 0..batch.num_rows() {
            let message = self.message(batch, row)?;
            self.bytes += message.len() as u64;
            if let Err(left) = self.desk.push(message, self.timeout())? {
                return Err(self.stuck(left));
            }
        }
        Ok(())
    }

    fn prepare(&mut self, _epoch: Epoch) -> Result<Vec<u8>> {
        match self.desk.flush(self.timeout())? {
            Ok(()) => Ok(Vec::new()),
            Err(left) => Err(self.stuck(left)),
        }
    }

    fn commit(&mut self, _permit: &CommitPermit) -> Result<()> {
        Ok(())
    }

    fn on_clock(&mut self, _now_ms: i64) -> Result<()> {
        self.desk.check()
    }

    fn interrupt(&self) -> Option<Box<dyn FnOnce() + Send>> {
        let desk = self.desk.clone();
        Some(Box::new(move || desk.leave()))
    }

    fn bytes_written(&self) -> u64 {
        self.bytes
    }
}

impl Drop for MqttSink {
    fn drop(&mut self) {
        self.desk.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
