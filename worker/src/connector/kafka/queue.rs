//! The queue of one partition in librdkafka, and the records in it as they lie there: borrowed, never copied.
//!
//! Of its own bindings to librdkafka this is all: rdkafka hands out one record an event, which costs more than
//! decoding it. A queue that is not read fills up to its limit, and librdkafka fetches no more for it: that is how a
//! partition is paused.

use super::client::Context;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

pub type Client = BaseConsumer<Context>;

/// Records taken out of librdkafka at once.
const TAKE: usize = 512;

pub struct Queue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    /// Taken out and not read yet; at most [`TAKE`].
    taken: VecDeque<NonNull<sys::rd_kafka_message_t>>,
    /// Neither the queue nor a record may outlive the client.
    _client: Arc<Client>,
}

// SAFETY: librdkafka's queues and messages belong to no thread, and this value is their only owner.
unsafe impl Send for Queue {}

impl Queue {
    /// Call it before the partition is assigned: its records then come here and not into the client's common queue.
    pub fn of(client: &Arc<Client>, topic: &str, partition: i32) -> Option<Queue> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client is alive (`_client`), the name ends with NUL. Forwarding to nobody separates the queue.
        let queue = unsafe {
            let queue = sys::rd_kafka_queue_get_partition(client.client().native_ptr(), topic.as_ptr(), partition);
            NonNull::new(queue).inspect(|queue| sys::rd_kafka_queue_forward(queue.as_ptr(), null_mut()))?
        };
        Some(Queue { queue, taken: VecDeque::with_capacity(TAKE), _client: client.clone() })
    }

    /// Records that are there, errors and ends counted too.
    pub fn ready(&self) -> usize {
        // SAFETY: the queue is ours until it is dropped.
        self.taken.len() + unsafe { sys::rd_kafka_queue_length(self.queue.as_ptr()) }
    }

    /// The next record; None when there is none now.
    #[inline]
    pub fn pop(&mut self) -> Option<Record<'_>> {
        if self.taken.is_empty() {
            self.refill();
        }
        self.taken.pop_front().map(|message| Record { message, _queue: PhantomData })
    }

    fn refill(&mut self) {
        let mut messages: [*mut sys::rd_kafka_message_t; TAKE] = [null_mut(); TAKE];
        // SAFETY: the queue is ours; it writes at most TAKE pointers, each to a message that is ours from then on.
        let count = unsafe {
            if sys::rd_kafka_queue_length(self.queue.as_ptr()) == 0 {
                return;
            }
            sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, messages.as_mut_ptr(), TAKE)
        };
        self.taken.extend(messages.iter().take(count.max(0) as usize).filter_map(|message| NonNull::new(*message)));
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: each message is destroyed once, before the client.
        unsafe {
            self.taken.drain(..).for_each(|message| sys::rd_kafka_message_destroy(message.as_ptr()));
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// One record, or what librdkafka has to say about the partition.
pub struct Record<'a> {
    message: NonNull<sys::rd_kafka_message_t>,
    _queue: PhantomData<&'a mut Queue>,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        // SAFETY: it was taken out of the queue, and is destroyed nowhere else.
        unsafe { sys::rd_kafka_message_destroy(self.message.as_ptr()) }
    }
}

/// What the broker says a record's time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    None,
    Create,
    LogAppend,
}

impl<'a> Record<'a> {
    #[inline]
    fn message(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: alive until it is dropped.
        unsafe { self.message.as_ref() }
    }

    /// None: this is a record.
    #[inline]
    pub fn error(&self) -> Option<RDKafkaErrorCode> {
        let error = self.message().err;
        (error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| error.into())
    }

    /// librdkafka's words for the error.
    pub fn reason(&self) -> String {
        // SAFETY: a message's text, or a constant; both end with NUL.
        unsafe {
            let text = sys::rd_kafka_message_errstr(self.message.as_ptr());
            if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }

    #[inline]
    pub fn offset(&self) -> i64 {
        self.message().offset
    }

    /// None: a tombstone.
    #[inline]
    pub fn value(&self) -> Option<&[u8]> {
        let message = self.message();
        // SAFETY: the payload lies in the message, `len` bytes long.
        (!message.payload.is_null())
            .then(|| unsafe { std::slice::from_raw_parts(message.payload.cast::<u8>(), message.len) })
    }

    #[inline]
    pub fn key(&self) -> Option<&[u8]> {
        let message = self.message();
        // SAFETY: as for the value.
        (!message.key.is_null())
            .then(|| unsafe { std::slice::from_raw_parts(message.key.cast::<u8>(), message.key_len) })
    }

    /// Milliseconds since the epoch, -1 where there is none.
    pub fn timestamp(&self) -> (i64, TimestampType) {
        use sys::rd_kafka_timestamp_type_t as Type;
        let mut kind = Type::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive, the type is written.
        let at = unsafe { sys::rd_kafka_message_timestamp(self.message.as_ptr(), &mut kind) };
        match kind {
            Type::RD_KAFKA_TIMESTAMP_CREATE_TIME => (at, TimestampType::Create),
            Type::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => (at, TimestampType::LogAppend),
            Type::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => (-1, TimestampType::None),
        }
    }

    pub fn leader_epoch(&self) -> Option<i32> {
        // SAFETY: the message is alive.
        let epoch = unsafe { sys::rd_kafka_message_leader_epoch(self.message.as_ptr()) };
        (epoch >= 0).then_some(epoch)
    }

    /// Name and value of each header, in order; a value may be NULL.
    pub fn headers(&self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        let mut headers = null_mut();
        // SAFETY: the headers lie in the message; librdkafka parses them at the first call.
        unsafe {
            let none = sys::rd_kafka_message_headers(self.message.as_ptr(), &mut headers);
            if none != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            let (mut name, mut value, mut size) = (null(), null(), 0);
            for index in 0.. {
                let end = sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size);
                if end != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return;
                }
                let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
                each(CStr::from_ptr(name).to_bytes(), value);
            }
        }
    }
}
