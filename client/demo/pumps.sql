-- The job of `efctl demo`: twenty simulated pumps send ten readings a second; some of them fail. Event time runs a
-- hundred times as fast as the clock: 33 minutes of readings in 20 seconds.
--
-- The faults are planted, so that they can be counted: in every minute of event time, a pump with
-- MOD(minute * 7 + pump * 13, 37) = 0 is faulty from second 15 to second 45, each time a little worse. Three kinds
-- by turns: a worn bearing (shakes, runs hot), cavitation (pressure falls and flutters), a leak (flow is lost).

CREATE TABLE raw (
  seq BIGINT,
  ts TIMESTAMP(3),
  noise_vibration DOUBLE,
  noise_temperature DOUBLE,
  noise_pressure DOUBLE,
  noise_flow DOUBLE,
  glitch DOUBLE,
  pump AS MOD(seq, 20),
  second_of_run AS seq / 200,
  WATERMARK FOR ts AS ts - INTERVAL '2' SECOND
) WITH (
  'connector' = 'datagen',
  'seed' = '42',
  'rows-per-second' = '${rows_per_second}',
  'number-of-rows' = '${rows}',
  'fields.seq.kind' = 'sequence',
  'fields.seq.start' = '0',
  'fields.seq.end' = '1000000000',
  'fields.ts.event-time.start' = '2026-03-14 06:00:00',
  'fields.ts.event-time.step' = '5 ms',
  'fields.ts.event-time.max-disorder' = '1 s',
  -- One reading in a hundred is missing.
  'fields.noise_vibration.min' = '-1', 'fields.noise_vibration.max' = '1', 'fields.noise_vibration.null-rate' = '0.01',
  'fields.noise_temperature.min' = '-1', 'fields.noise_temperature.max' = '1',
  'fields.noise_pressure.min' = '-1', 'fields.noise_pressure.max' = '1',
  'fields.noise_flow.min' = '-1', 'fields.noise_flow.max' = '1',
  'fields.glitch.min' = '0', 'fields.glitch.max' = '1'
);

-- Which readings are faulty, of which kind (0 bearing, 1 cavitation, 2 leak) and how badly.
CREATE VIEW planted AS
SELECT *,
  MOD(second_of_run / 60 + pump, 3) AS kind,
  CASE WHEN MOD(second_of_run / 60 * 7 + pump * 13, 37) = 0 AND MOD(second_of_run, 60) >= 15 AND MOD(second_of_run, 60) < 45
       THEN second_of_run / 60 + 1 ELSE 0 END AS episode,
  CASE WHEN MOD(second_of_run / 60 * 7 + pump * 13, 37) = 0 AND MOD(second_of_run, 60) >= 15 AND MOD(second_of_run, 60) < 45
       THEN 0.4E0 + CAST(MOD(second_of_run, 60) - 15 AS DOUBLE) / 50E0 ELSE 0E0 END AS severity
FROM raw;

CREATE VIEW severities AS
SELECT *,
  CASE WHEN kind = 0 THEN severity ELSE 0E0 END AS bearing,
  CASE WHEN kind = 1 THEN severity ELSE 0E0 END AS cavitation,
  CASE WHEN kind = 2 THEN severity ELSE 0E0 END AS leak
FROM planted;

-- What the sensors say: three in a thousand readings are nonsense.
CREATE VIEW readings AS
SELECT pump, ts, episode,
  2E0 + 0.1E0 * CAST(MOD(pump, 5) AS DOUBLE)
    + noise_vibration * (0.4E0 + 1.2E0 * bearing + 0.8E0 * cavitation) + 1.5E0 * bearing AS vibration,
  CASE WHEN glitch < 0.003E0 THEN 999E0
       ELSE 60E0 + CAST(MOD(pump, 7) AS DOUBLE) + 1.5E0 * noise_temperature + 9E0 * bearing END AS temperature,
  5E0 + noise_pressure * (0.3E0 + 0.7E0 * cavitation) - 1.2E0 * cavitation - 0.8E0 * leak AS pressure,
  120E0 + noise_flow * 4E0 - 25E0 * leak - 8E0 * cavitation AS flow
FROM severities;

-- Cleaning: a comparison with NULL is not true, so missing readings go too.
CREATE VIEW clean AS
SELECT * FROM readings
WHERE vibration BETWEEN 0E0 AND 50E0 AND temperature BETWEEN -40E0 AND 200E0
  AND pressure BETWEEN 0E0 AND 40E0 AND flow BETWEEN 0E0 AND 500E0;

CREATE VIEW features AS
SELECT pump, window_start, window_end, MAX(episode) AS episode,
  AVG(vibration) AS vib_avg, STDDEV_POP(vibration) AS vib_sd, MAX(vibration) AS vib_max,
  AVG(temperature) AS temp_avg, MAX(temperature) AS temp_max,
  AVG(pressure) AS pres_avg, STDDEV_POP(pressure) AS pres_sd,
  AVG(flow) AS flow_avg, STDDEV_POP(flow) AS flow_sd
FROM TABLE(TUMBLE(TABLE clean, DESCRIPTOR(ts), INTERVAL '5' SECOND))
GROUP BY pump, window_start, window_end;

-- A forest of twelve small trees (made by make_model.py).
CREATE MODEL pump_health
INPUT (vib_avg DOUBLE, vib_sd DOUBLE, vib_max DOUBLE, temp_avg DOUBLE, temp_max DOUBLE,
       pres_avg DOUBLE, pres_sd DOUBLE, flow_avg DOUBLE, flow_sd DOUBLE)
OUTPUT (label BIGINT, p_healthy FLOAT, p_faulty FLOAT)
WITH ('provider' = 'onnx', 'path' = '${model}');

CREATE VIEW scored AS
SELECT * FROM ML_PREDICT(TABLE features, MODEL pump_health,
  DESCRIPTOR(vib_avg, vib_sd, vib_max, temp_avg, temp_max, pres_avg, pres_sd, flow_avg, flow_sd));

CREATE TABLE alerts (
  pump BIGINT,
  window_start TIMESTAMP(3),
  p_faulty FLOAT,
  vibration DOUBLE,
  temperature DOUBLE,
  pressure DOUBLE,
  flow DOUBLE
) WITH ('connector' = 'print');

-- Every window with what was planted in it (the minute of the episode, 0: nothing) and what the model said.
CREATE TABLE verdicts (
  pump BIGINT,
  window_start TIMESTAMP(3),
  episode BIGINT,
  label BIGINT
) WITH ('connector' = 'filesystem', 'path' = '${verdicts}', 'format' = 'json');

INSERT INTO alerts
SELECT pump, window_start, p_faulty, vib_avg, temp_avg, pres_avg, flow_avg FROM scored WHERE label = 1;

INSERT INTO verdicts
SELECT pump, window_start, episode, label FROM scored;
