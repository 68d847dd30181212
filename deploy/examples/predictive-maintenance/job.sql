-- Predictive maintenance: readings from MQTT and Kafka, cleaned, gathered in windows of 5 seconds and 5 minutes, scored by a
-- model; alerts above 0.8 to Kafka, and the last one of each pump to Redis.

SET 'execution.checkpointing.interval' = '1 s';

CREATE TABLE from_gateway (
  pump BIGINT, ts TIMESTAMP(3), vibration DOUBLE, temperature DOUBLE, pressure DOUBLE, flow DOUBLE,
  WATERMARK FOR ts AS ts - INTERVAL '2' SECOND
) WITH (
  'connector' = 'mqtt', 'url' = 'mqtt://${mqtt}', 'topic' = 'factory/pumps/#', 'qos' = '1', 'format' = 'json',
  'json.ignore-parse-errors' = 'true', 'scan.watermark.idle-timeout' = '10 s'
);

CREATE TABLE from_hub (
  pump BIGINT, ts TIMESTAMP(3), vibration DOUBLE, temperature DOUBLE, pressure DOUBLE, flow DOUBLE,
  WATERMARK FOR ts AS ts - INTERVAL '2' SECOND
) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '${kafka}', 'topic' = 'sensor-readings',
  'properties.group.id' = 'predictive-maintenance', 'scan.startup.mode' = 'earliest-offset', 'format' = 'json',
  'json.ignore-parse-errors' = 'true', 'scan.watermark.idle-timeout' = '10 s'
);

-- A comparison with NULL is not true, so missing readings go too.
CREATE VIEW clean AS
SELECT * FROM (SELECT * FROM from_gateway UNION ALL SELECT * FROM from_hub)
WHERE temperature BETWEEN 0E0 AND 100E0 AND vibration IS NOT NULL;

CREATE VIEW features AS
SELECT pump, window_start, window_end,
  AVG(vibration) AS vib_avg, STDDEV_POP(vibration) AS vib_sd, MAX(vibration) AS vib_max,
  AVG(temperature) AS temp_avg, MAX(temperature) AS temp_max,
  AVG(pressure) AS pres_avg, STDDEV_POP(pressure) AS pres_sd,
  AVG(flow) AS flow_avg, STDDEV_POP(flow) AS flow_sd
FROM TABLE(TUMBLE(TABLE clean, DESCRIPTOR(ts), INTERVAL '5' SECOND))
GROUP BY pump, window_start, window_end;

CREATE MODEL pump_health
INPUT (vib_avg DOUBLE, vib_sd DOUBLE, vib_max DOUBLE, temp_avg DOUBLE, temp_max DOUBLE,
       pres_avg DOUBLE, pres_sd DOUBLE, flow_avg DOUBLE, flow_sd DOUBLE)
OUTPUT (label BIGINT, p_healthy FLOAT, p_faulty FLOAT)
WITH ('provider' = 'onnx', 'path' = '${model}');

CREATE VIEW scored AS
SELECT * FROM ML_PREDICT(TABLE features, MODEL pump_health,
  DESCRIPTOR(vib_avg, vib_sd, vib_max, temp_avg, temp_max, pres_avg, pres_sd, flow_avg, flow_sd));

CREATE TABLE alert_signals (
  pump BIGINT, window_start TIMESTAMP(3), window_end TIMESTAMP(3), p_faulty FLOAT, vibration DOUBLE, temperature DOUBLE
) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '${kafka}', 'topic' = 'alert-signals',
  'key.format' = 'json', 'key.fields' = 'pump', 'value.format' = 'json', 'sink.delivery-guarantee' = 'exactly-once'
);

-- The newest alert of each pump.
CREATE TABLE last_alert (
  pump BIGINT, window_start TIMESTAMP(3), p_faulty FLOAT, vibration DOUBLE, temperature DOUBLE,
  PRIMARY KEY (pump) NOT ENFORCED
) WITH (
  'connector' = 'redis', 'url' = 'redis://${redis}', 'mode' = 'hash', 'key.prefix' = 'alert:'
);

-- How each pump has been over five minutes.
CREATE TABLE pump_health_5min (
  pump BIGINT, window_start TIMESTAMP(3), readings BIGINT, vib_avg DOUBLE, vib_sd DOUBLE, temp_avg DOUBLE, temp_sd DOUBLE
) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '${kafka}', 'topic' = 'pump-health-5min',
  'key.format' = 'json', 'key.fields' = 'pump', 'value.format' = 'json', 'sink.delivery-guarantee' = 'exactly-once'
);

INSERT INTO alert_signals
SELECT pump, window_start, window_end, p_faulty, vib_avg, temp_avg FROM scored WHERE p_faulty > 0.8E0;

INSERT INTO last_alert
SELECT pump, window_start, p_faulty, vib_avg, temp_avg FROM scored WHERE p_faulty > 0.8E0;

INSERT INTO pump_health_5min
SELECT pump, window_start, COUNT(*), AVG(vibration), STDDEV_POP(vibration), AVG(temperature), STDDEV_POP(temperature)
FROM TABLE(TUMBLE(TABLE clean, DESCRIPTOR(ts), INTERVAL '5' MINUTE))
GROUP BY pump, window_start, window_end;
