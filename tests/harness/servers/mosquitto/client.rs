//! What tests say to a broker and hear from it, by MQTT 3.1.1: messages that are acknowledged, and sessions that wait
//! for theirs while nobody listens.

use super::Mosquitto;
use anyhow::{Context, Result, bail, ensure};
use rumqttc::{Client, Connection, Event, MqttOptions, Packet, QoS};
use std::time::Duration;

/// Without a word from the broker.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The most that may be queued for the network.
const QUEUED_MAX: usize = 1000;

/// How a client presents itself.
#[derive(Clone)]
pub struct Login {
    pub id: String,
    pub user: Option<(String, String)>,
}

impl Login {
    pub fn new(id: &str) -> Login {
        Login { id: id.to_string(), user: None }
    }

    pub fn user(self, name: &str, password: &str) -> Login {
        Login { user: Some((name.to_string(), password.to_string())), ..self }
    }
}

/// One connection, which is not made again when it breaks: then its calls fail.
pub struct Session {
    client: Client,
    connection: Connection,
    /// Whether the broker knew this client from before.
    pub was_there: bool,
}

impl Mosquitto {
    /// A session that the broker keeps, with what comes for it, until somebody comes with the same id.
    pub fn session(&self, login: &Login) -> Result<Session> {
        Session::open(self.port(), login)
    }
}

impl Session {
    /// [`Mosquitto::session`] for a thread of its own, while the test stops and starts the broker.
    pub fn open(port: u16, login: &Login) -> Result<Session> {
        let mut options = MqttOptions::new(&login.id, "127.0.0.1", port);
        options.set_clean_session(false).set_keep_alive(Duration::from_secs(30)).set_inflight(1000);
        if let Some((name, password)) = &login.user {
            options.set_credentials(name, password);
        }
        let (client, connection) = Client::new(options, QUEUED_MAX);
        let mut session = Session { client, connection, was_there: false };
        match session.next()? {
            Event::Incoming(Packet::ConnAck(greeting)) => session.was_there = greeting.session_present,
            other => bail!("{other:?} instead of a greeting"),
        }
        Ok(session)
    }

    fn next(&mut self) -> Result<Event> {
        let event = self.connection.recv_timeout(SILENCE_MAX).ok().context("the broker is silent")?;
        event.context("the connection broke")
    }

    /// With QoS 1, until the session is gone. Returns when the broker has confirmed it.
    pub fn subscribe(&mut self, filter: &str) -> Result<()> {
        self.client.try_subscribe(filter, QoS::AtLeastOnce)?;
        loop {
            if let Event::Incoming(Packet::SubAck(answer)) = self.next()? {
                let refused = answer.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure);
                ensure!(!refused, "`{filter}` is refused");
                return Ok(());
            }
        }
    }

    /// With QoS 1. Returns when the broker has acknowledged all.
    pub fn publish(&mut self, topic: &str, payloads: &[Vec<u8>]) -> Result<()> {
        let (mut queued, mut acknowledged) = (0, 0);
        while acknowledged < payloads.len() {
            while queued < payloads.len() && queued - acknowledged < QUEUED_MAX {
                self.client.try_publish(topic, QoS::AtLeastOnce, false, payloads[queued].clone())?;
                queued += 1;
            }
            let event = self.next().with_context(|| format!("{acknowledged} of {} came", payloads.len()))?;
            acknowledged += usize::from(matches!(event, Event::Incoming(Packet::PubAck(_))));
        }
        Ok(())
    }

    /// One message with QoS 2. Returns when the broker says that it is complete.
    pub fn publish_once(&mut self, topic: &str, payload: &str) -> Result<()> {
        self.client.try_publish(topic, QoS::ExactlyOnce, false, payload)?;
        while !matches!(self.next()?, Event::Incoming(Packet::PubComp(_))) {}
        Ok(())
    }

    /// The next messages for this session, topic and payload, and tells the broker that they came.
    pub fn receive(&mut self, count: usize) -> Result<Vec<(String, Vec<u8>)>> {
        let mut messages = Vec::with_capacity(count);
        while messages.len() < count {
            let event = self.next().with_context(|| format!("{} of {count} came", messages.len()))?;
            if let Event::Incoming(Packet::Publish(message)) = event {
                messages.push((message.topic, message.payload.to_vec()));
            }
        }
        Ok(messages)
    }

    /// Says goodbye. The session stays at the broker, which has read all acknowledgements when this returns: it hangs
    /// up behind the last of them. One who came with the same id before that would be told some messages again.
    pub fn leave(mut self) -> Result<()> {
        self.client.try_disconnect()?;
        loop {
            match self.connection.recv_timeout(SILENCE_MAX) {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Ok(()),
                Err(_) => bail!("the broker does not hang up"),
            }
        }
    }
}
