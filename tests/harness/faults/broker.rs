//! The broker of a run as something that goes away and comes back; whoever has to do with it never waits.

use crate::servers::kafka::Kafka;
use std::thread::JoinHandle;

pub struct Broker {
    /// None while it starts.
    kafka: Option<Kafka>,
    starting: Option<JoinHandle<Result<Kafka, String>>>,
}

impl Broker {
    pub fn new(kafka: Kafka) -> Broker {
        Broker { kafka: Some(kafka), starting: None }
    }

    fn kafka(&mut self) -> &mut Kafka {
        self.kafka.as_mut().expect("one fault at a time is about the broker")
    }

    pub fn kill(&mut self) {
        self.kafka().kill();
    }

    pub fn freeze(&mut self) {
        self.kafka().freeze();
    }

    pub fn thaw(&mut self) {
        self.kafka().thaw();
    }

    /// Begins to start it again.
    pub fn start(&mut self) {
        let mut kafka = self.kafka.take().expect("one fault at a time is about the broker");
        let start =
            move || kafka.start_again().map(|()| kafka).map_err(|e| format!("the broker does not come back: {e:#}"));
        self.starting = Some(std::thread::spawn(start));
    }

    /// Whether it does again.
    pub fn serves(&mut self) -> Result<bool, String> {
        if let Some(starting) = self.starting.take_if(|starting| starting.is_finished()) {
            self.kafka = Some(starting.join().map_err(|_| "the broker does not come back".to_string())??);
        }
        Ok(self.kafka.is_some())
    }
}
