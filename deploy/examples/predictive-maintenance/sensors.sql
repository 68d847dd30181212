-- The factory: twenty pumps say ten times a second how they are. Those with even numbers stand at a gateway and publish to
-- MQTT, the others are wired to a data hub that writes to Kafka. Event time runs ten times as fast as the clock.
--
-- In every minute of event time, a pump with MOD(minute * 7 + pump * 13, 37) = 0 runs hot and shakes from second 15 on.
-- Three readings in a thousand are nonsense.

CREATE TABLE raw (
  seq BIGINT,
  ts TIMESTAMP(3),
  noise_vibration DOUBLE,
  noise_temperature DOUBLE,
  noise_pressure DOUBLE,
  noise_flow DOUBLE,
  glitch DOUBLE,
  pump AS MOD(seq, 20),
  second_of_run AS seq / 200
) WITH (
  'connector' = 'datagen',
  'seed' = '42',
  'rows-per-second' = '2000',
  'number-of-rows' = '${rows}',
  'fields.seq.kind' = 'sequence',
  'fields.seq.start' = '0',
  'fields.seq.end' = '1000000000',
  'fields.ts.event-time.start' = '2026-03-14 06:00:00',
  'fields.ts.event-time.step' = '5 ms',
  'fields.ts.event-time.max-disorder' = '1 s',
  'fields.noise_vibration.min' = '-1', 'fields.noise_vibration.max' = '1', 'fields.noise_vibration.null-rate' = '0.01',
  'fields.noise_temperature.min' = '-1', 'fields.noise_temperature.max' = '1',
  'fields.noise_pressure.min' = '-1', 'fields.noise_pressure.max' = '1',
  'fields.noise_flow.min' = '-1', 'fields.noise_flow.max' = '1',
  'fields.glitch.min' = '0', 'fields.glitch.max' = '1'
);

CREATE VIEW planted AS
SELECT *,
  CASE WHEN MOD(second_of_run / 60 * 7 + pump * 13, 37) = 0 AND MOD(second_of_run, 60) >= 15 AND MOD(second_of_run, 60) < 45
       THEN 0.6E0 + CAST(MOD(second_of_run, 60) - 15 AS DOUBLE) / 50E0 ELSE 0E0 END AS bearing
FROM raw;

CREATE VIEW readings AS
SELECT pump, ts,
  2E0 + 0.1E0 * CAST(MOD(pump, 5) AS DOUBLE) + noise_vibration * (0.4E0 + 1.2E0 * bearing) + 1.5E0 * bearing AS vibration,
  CASE WHEN glitch < 0.003E0 THEN 999E0
       ELSE 60E0 + CAST(MOD(pump, 7) AS DOUBLE) + 1.5E0 * noise_temperature + 9E0 * bearing END AS temperature,
  5E0 + noise_pressure * 0.3E0 AS pressure,
  120E0 + noise_flow * 4E0 AS flow
FROM planted;

CREATE TABLE at_gateway (pump BIGINT, ts TIMESTAMP(3), vibration DOUBLE, temperature DOUBLE, pressure DOUBLE, flow DOUBLE)
WITH (
  'connector' = 'mqtt', 'url' = 'mqtt://${mqtt}', 'topic' = 'factory/pumps/telemetry', 'qos' = '1', 'format' = 'json'
);

CREATE TABLE at_hub (pump BIGINT, ts TIMESTAMP(3), vibration DOUBLE, temperature DOUBLE, pressure DOUBLE, flow DOUBLE)
WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '${kafka}', 'topic' = 'sensor-readings',
  'key.format' = 'raw', 'key.fields' = 'pump', 'value.format' = 'json', 'sink.delivery-guarantee' = 'at-least-once'
);

INSERT INTO at_gateway SELECT * FROM readings WHERE MOD(pump, 2) = 0;
INSERT INTO at_hub SELECT * FROM readings WHERE MOD(pump, 2) = 1;
