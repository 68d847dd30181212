//! Who listens by MQTT 5: what is told about a message beside its payload is seen, and nothing is kept for it.

use super::Mosquitto;
use anyhow::{Context, Result, bail, ensure};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{Client, Connection, Event, MqttOptions};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Without a word from the broker.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Between two calls nothing is said to the broker, which hangs up after one and a half of it.
const KEEP_ALIVE: Duration = Duration::from_secs(600);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: String,
    pub user_properties: Vec<(String, String)>,
}

/// A thread listens all the time.
pub struct Listener(Receiver<Message>);

impl Mosquitto {
    /// With QoS 1. Returns when the broker has confirmed it.
    pub fn listen(&self, filter: &str) -> Result<Listener> {
        let mut options = MqttOptions::new("listener", "127.0.0.1", self.port());
        options.set_keep_alive(KEEP_ALIVE);
        let (client, mut connection) = Client::new(options, 1);
        client.try_subscribe(filter, QoS::AtLeastOnce)?;
        let answer = loop {
            if let Packet::SubAck(answer) = next(&mut connection)? {
                break answer;
            }
        };
        let accepted = answer.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)));
        ensure!(accepted, "`{filter}` is refused: {:?}", answer.return_codes);
        let (say, said) = channel();
        std::thread::spawn(move || {
            // The connection lives as long as its client.
            let _client = client;
            while let Ok(packet) = next(&mut connection) {
                if let Packet::Publish(message) = packet
                    && say.send(Message::of(message)).is_err()
                {
                    return;
                }
            }
        });
        Ok(Listener(said))
    }
}

/// The next packet from the broker.
fn next(connection: &mut Connection) -> Result<Packet> {
    loop {
        match connection.recv() {
            Ok(Ok(Event::Incoming(packet))) => return Ok(packet),
            Ok(Ok(Event::Outgoing(_))) => {}
            Ok(Err(error)) => return Err(error).context("the connection broke"),
            Err(_) => bail!("its client is gone"),
        }
    }
}

impl Message {
    fn of(message: Publish) -> Message {
        Message {
            topic: String::from_utf8_lossy(&message.topic).into_owned(),
            payload: String::from_utf8_lossy(&message.payload).into_owned(),
            user_properties: message.properties.map(|about| about.user_properties).unwrap_or_default(),
        }
    }
}

impl Listener {
    /// The next messages.
    pub fn receive(&mut self, count: usize) -> Result<Vec<Message>> {
        let mut messages = Vec::with_capacity(count);
        while messages.len() < count {
            let message = self.0.recv_timeout(SILENCE_MAX);
            messages.push(message.with_context(|| format!("{} of {count} came", messages.len()))?);
        }
        Ok(messages)
    }
}
