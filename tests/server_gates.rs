//! What the MQTT and Redis connectors build on, against a real Mosquitto and a real Redis: what was acknowledged
//! survives kill -9, and who has no password stays outside.

use ef_tests::servers::mosquitto::{self, Login, Mosquitto};
use ef_tests::servers::redis::{self, Redis, Reply};
use ef_tests::wait;

#[test]
fn session_of_mosquitto_and_its_messages_survive_kill_9() {
    let what = "MQTT sessions over kill -9";
    let Some(mut broker) = Mosquitto::start(what, mosquitto::Options::default()) else { return };
    let listener = Login::new("listener");
    let mut session = broker.session(&listener).expect("it connects");
    assert!(!session.was_there);
    session.subscribe("plant/+/temperature").expect("it subscribes");
    session.leave().expect("it leaves");

    let payloads: Vec<Vec<u8>> = (0..100).map(|n| format!("reading {n:03}").into_bytes()).collect();
    let mut sensor = broker.session(&Login::new("sensor")).expect("it connects");
    sensor.publish("plant/7/temperature", &payloads).expect("all are acknowledged");
    assert!(wait::until(wait::PATIENCE, || payloads.iter().all(|p| broker.has_stored(p))), "{}", broker.log_tail(20));
    broker.kill();
    assert!(sensor.publish("plant/7/temperature", &payloads).is_err(), "the broker is dead");
    assert!(broker.session(&listener).is_err(), "the broker is dead");
    broker.start_again().expect("it starts again");

    let mut session = broker.session(&listener).expect("it connects");
    assert!(session.was_there, "the broker knows the client");
    let messages = session.receive(payloads.len()).expect("what waited comes");
    let expected: Vec<_> = payloads.into_iter().map(|p| ("plant/7/temperature".to_string(), p)).collect();
    assert_eq!(messages, expected);

    // All is acknowledged by the time of the goodbye: the next one gets nothing old.
    session.leave().expect("it leaves");
    let mut session = broker.session(&listener).expect("it connects");
    let mut sensor = broker.session(&Login::new("sensor")).expect("it connects");
    sensor.publish("plant/8/temperature", &[b"new".to_vec()]).expect("it is acknowledged");
    assert_eq!(session.receive(1).expect("it comes"), [("plant/8/temperature".to_string(), b"new".to_vec())]);
    broker.stop().expect("it ends when it is asked to");
}

#[test]
fn mosquitto_lets_in_who_has_the_password() {
    let options = mosquitto::Options { users: vec![("pump", "pump-pw-1")], ..mosquitto::Options::default() };
    let Some(broker) = Mosquitto::start("MQTT passwords", options) else { return };
    assert!(broker.session(&Login::new("a").user("pump", "pump-pw-1")).is_ok());
    for login in [Login::new("b"), Login::new("c").user("pump", "guessed"), Login::new("d").user("x", "pump-pw-1")] {
        let error = broker.session(&login).err().expect("it is refused");
        assert!(format!("{error:#}").contains("NotAuthorized"), "{error:#}");
    }
}

#[test]
fn redis_keeps_what_it_acknowledged_over_kill_9() {
    let options = redis::Options { password: Some("redis-pw-9"), durable: true, ..redis::Options::default() };
    let Some(mut store) = Redis::start("Redis over kill -9", options) else { return };
    let mut connection = store.connect().expect("the password is right");
    assert_eq!(connection.ask(&["SET", "pump-1", "71.5 °C"]).expect("it is set"), Reply::Status("OK".into()));
    assert_eq!(connection.ask(&["HSET", "h", "a", "1", "b", "2"]).expect("it is set"), Reply::Number(2));
    store.kill();
    assert!(connection.ask(&["GET", "pump-1"]).is_err(), "the store is dead");
    store.start_again().expect("it starts again");

    let mut connection = store.connect().expect("the password is right");
    assert_eq!(connection.ask(&["GET", "pump-1"]).expect("an answer"), Reply::Text("71.5 °C".into()));
    assert_eq!(connection.ask(&["GET", "pump-2"]).expect("an answer"), Reply::Nil);
    let fields = ["a", "1", "b", "2"].map(|word| Reply::Text(word.into())).to_vec();
    assert_eq!(connection.ask(&["HGETALL", "h"]).expect("an answer"), Reply::List(fields));
    let error = connection.ask(&["AUTH", "guessed"]).expect_err("the password is wrong");
    assert!(format!("{error:#}").contains("WRONGPASS"), "{error:#}");
}
