-- The auctions with the most bids in each window of 10 s that slides by 2 s, over a million generated events (Nexmark's
-- query 5). Run it by `efctl run` or `efctl submit` with -D out=DIRECTORY, an absolute path that all workers see.
CREATE TABLE bid (
  auction BIGINT,
  bidder BIGINT,
  price BIGINT,
  `dateTime` TIMESTAMP(3),
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
) WITH ('connector' = 'nexmark', 'nexmark.table' = 'bid', 'events.num' = '1000000');

CREATE TABLE hot_items (auction BIGINT, num BIGINT, window_start TIMESTAMP(3), window_end TIMESTAMP(3))
WITH ('connector' = 'filesystem', 'path' = '${out}', 'format' = 'json');

CREATE VIEW counts AS
SELECT auction, COUNT(*) AS num, window_start, window_end
FROM TABLE(HOP(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
GROUP BY auction, window_start, window_end;

INSERT INTO hot_items
SELECT c.auction, c.num, c.window_start, c.window_end
FROM counts AS c
JOIN (SELECT MAX(num) AS top, window_start, window_end FROM counts GROUP BY window_start, window_end) AS m
ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num >= m.top;
