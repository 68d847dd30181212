//! The SQL of each workload.

fn sensor_table(path: &str) -> String {
    format!(
        "CREATE TABLE sensor (device_id STRING, ts TIMESTAMP_LTZ(3), temperature DOUBLE, vibration DOUBLE, pressure DOUBLE,
           WATERMARK FOR ts AS ts - INTERVAL '2' SECOND
         ) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'json');"
    )
}

/// `select` from the sensor table over a file; `columns` are those of its result.
pub fn over_sensor(path: &str, columns: &str, select: &str) -> String {
    let source = sensor_table(path);
    format!("{source}\nCREATE TABLE result ({columns}) WITH ('connector' = 'blackhole');\nINSERT INTO result {select};")
}

/// The sensor table over a file, and one query of `filter`, `tumble`, `hop`, `session`.
pub fn sensor(path: &str, query: &str) -> Option<String> {
    let windowed = |window: &str| {
        let columns = "device_id STRING, window_start TIMESTAMP_LTZ(3), n BIGINT, mean DOUBLE, sd DOUBLE";
        let select = format!(
            "SELECT device_id, window_start, COUNT(*), AVG(temperature), STDDEV_POP(temperature)
             FROM TABLE({window}) WHERE temperature >= 0 AND temperature <= 100
             GROUP BY device_id, window_start, window_end"
        );
        over_sensor(path, columns, &select)
    };
    Some(match query {
        "filter" => over_sensor(
            path,
            "device_id STRING, ts TIMESTAMP_LTZ(3), temperature DOUBLE, vibration DOUBLE, pressure DOUBLE",
            "SELECT * FROM sensor WHERE temperature >= 0 AND temperature <= 100",
        ),
        "tumble" => windowed("TUMBLE(TABLE sensor, DESCRIPTOR(ts), INTERVAL '5' SECOND)"),
        "hop" => windowed("HOP(TABLE sensor, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '1' MINUTE)"),
        "session" => windowed("SESSION(TABLE sensor PARTITION BY device_id, DESCRIPTOR(ts), INTERVAL '10' SECOND)"),
        _ => return None,
    })
}

/// COUNT and SUM per key over `keys` distinct keys.
pub fn keys(rows: u64, keys: u64) -> String {
    format!(
        "CREATE TABLE input (k BIGINT, v BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '{rows}', 'seed' = '7',
           'fields.k.distinct' = '{keys}', 'fields.v.min' = '0', 'fields.v.max' = '1000');
         CREATE TABLE result (k BIGINT, n BIGINT, total BIGINT) WITH ('connector' = 'blackhole');
         INSERT INTO result SELECT k, COUNT(*), SUM(v) FROM input GROUP BY k;"
    )
}

/// A query of the auction model from its generator.
pub fn nexmark(events: u64, query: &str) -> Option<String> {
    let source = format!(
        "CREATE TABLE events (
           event_type INT,
           person ROW<id BIGINT, name STRING, emailAddress STRING, creditCard STRING, city STRING, state STRING, `dateTime` TIMESTAMP(3), extra STRING>,
           auction ROW<id BIGINT, itemName STRING, description STRING, initialBid BIGINT, reserve BIGINT, `dateTime` TIMESTAMP(3), expires TIMESTAMP(3), seller BIGINT, category BIGINT, extra STRING>,
           bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING>,
           ts AS CASE event_type WHEN 0 THEN person.`dateTime` WHEN 1 THEN auction.`dateTime` ELSE bid.`dateTime` END,
           WATERMARK FOR ts AS ts - INTERVAL '4' SECOND
         ) WITH ('connector' = 'nexmark', 'events.num' = '{events}', 'first-event.rate' = '10000');
         CREATE VIEW person AS SELECT person.id, person.name, ts FROM events WHERE event_type = 0;
         CREATE VIEW auction AS SELECT auction.id, auction.seller, ts FROM events WHERE event_type = 1;
         CREATE VIEW bid AS SELECT bid.auction, bid.bidder, bid.price, ts, bid.extra FROM events WHERE event_type = 2;"
    );
    let hot = "SELECT auction, COUNT(*) AS num, window_start, window_end
        FROM TABLE(HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
        GROUP BY auction, window_start, window_end";
    let (columns, select) = match query {
        "q0" => (
            "auction BIGINT, bidder BIGINT, price BIGINT, ts TIMESTAMP(3), extra STRING",
            "SELECT auction, bidder, price, ts, extra FROM bid".to_string(),
        ),
        "q1" => (
            "auction BIGINT, bidder BIGINT, price DECIMAL(23, 3), ts TIMESTAMP(3), extra STRING",
            "SELECT auction, bidder, 0.908 * price, ts, extra FROM bid".to_string(),
        ),
        "q2" => ("auction BIGINT, price BIGINT", "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0".to_string()),
        "q5" => (
            "auction BIGINT, num BIGINT, window_start TIMESTAMP(3), window_end TIMESTAMP(3)",
            format!(
                "SELECT c.auction, c.num, c.window_start, c.window_end FROM ({hot}) AS c
                 JOIN (SELECT MAX(k.num) AS top, k.window_start, k.window_end FROM ({hot}) AS k GROUP BY k.window_start, k.window_end) AS m
                 ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num >= m.top"
            ),
        ),
        "q7w" => (
            "auction BIGINT, price BIGINT, bidder BIGINT, ts TIMESTAMP(3), extra STRING, window_start TIMESTAMP(3)",
            "SELECT b.auction, b.price, b.bidder, b.ts, b.extra, b.window_start
             FROM (SELECT * FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND))) AS b
             JOIN (SELECT MAX(price) AS top, window_start, window_end FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECOND))
                   GROUP BY window_start, window_end) AS m
             ON b.window_start = m.window_start AND b.window_end = m.window_end AND b.price = m.top"
                .to_string(),
        ),
        "q8" => (
            "id BIGINT, name STRING, stime TIMESTAMP(3)",
            "SELECT p.id, p.name, p.window_start
             FROM (SELECT id, name, window_start, window_end FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(ts), INTERVAL '10' SECOND))
                   GROUP BY id, name, window_start, window_end) AS p
             JOIN (SELECT seller, window_start, window_end FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(ts), INTERVAL '10' SECOND))
                   GROUP BY seller, window_start, window_end) AS a
             ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end"
                .to_string(),
        ),
        _ => return None,
    };
    Some(format!(
        "{source}\nCREATE TABLE result ({columns}) WITH ('connector' = 'blackhole');\nINSERT INTO result {select};"
    ))
}
