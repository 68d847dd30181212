CREATE TABLE sensor (
  device_id STRING,
  ts TIMESTAMP(3),
  `value` DOUBLE,
  WATERMARK FOR ts AS ts - INTERVAL '3' SECOND
) WITH (
  'connector' = 'kafka',
  'properties.bootstrap.servers' = '${BOOTSTRAP}',
  'topic' = '${IN_TOPIC}',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  -- Else the subtask with one partition runs ahead of the one with two, and the windows that it opens meanwhile stay
  -- in state: a third more cpu-seconds.
  'scan.watermark.alignment.group' = 'sensor',
  'scan.watermark.alignment.max-drift' = '10 s',
  'scan.watermark.alignment.update-interval' = '100 ms',
  'format' = 'json',
  'json.timestamp-format.standard' = 'SQL'
);

CREATE TABLE windows (
  device_id STRING,
  window_start TIMESTAMP(3),
  window_end TIMESTAMP(3),
  n BIGINT,
  mean DOUBLE,
  sd DOUBLE
) WITH (
  'connector' = 'kafka',
  'properties.bootstrap.servers' = '${BOOTSTRAP}',
  'topic' = '${OUT_TOPIC}',
  'sink.delivery-guarantee' = 'exactly-once',
  'sink.transactional-id-prefix' = '${OUT_TOPIC}',
  -- Below the 15 minutes that a broker allows by default.
  'properties.transaction.timeout.ms' = '600000',
  'format' = 'json',
  'json.timestamp-format.standard' = 'SQL'
);

INSERT INTO windows
SELECT device_id, window_start, window_end, COUNT(*), AVG(`value`), STDDEV_POP(`value`)
FROM TABLE(TUMBLE(TABLE sensor, DESCRIPTOR(ts), INTERVAL '5' SECOND))
WHERE `value` BETWEEN 0 AND 100
GROUP BY device_id, window_start, window_end;
