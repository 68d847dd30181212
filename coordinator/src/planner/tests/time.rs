//! Which columns stay time attributes, and why the others do not.

use super::{TABLES, planned, try_plan};
use ef_proto::plan::{OperatorKind, Time, Window};

/// More tables, and the views that the cases below take their input from.
const VIEWS: &str = "
CREATE TABLE s2 (k STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen');
CREATE TABLE plain (k STRING, ts TIMESTAMP(3)) WITH ('connector' = 'datagen');
CREATE TABLE made (k STRING, ms BIGINT, ts AS TO_TIMESTAMP_LTZ(ms, 3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
  WITH ('connector' = 'datagen');
CREATE MODEL m INPUT (x DOUBLE) OUTPUT (score DOUBLE) WITH ('provider' = 'onnx', 'path' = 'm.onnx');
CREATE VIEW renamed AS SELECT k, ts AS t FROM s;
CREATE VIEW chained AS SELECT t AS t2 FROM (SELECT * FROM renamed WHERE k <> 'x') AS r WHERE t IS NOT NULL;
CREATE VIEW listed (a, b) AS SELECT k, ts FROM s;
CREATE VIEW both AS SELECT k, ts FROM s UNION ALL SELECT k, ts FROM s2;
CREATE VIEW scored AS SELECT * FROM TABLE(ML_PREDICT(TABLE s, MODEL m, DESCRIPTOR(v)));
CREATE VIEW minutes AS SELECT k, window_start, window_end, window_time, MAX(ts) AS latest, COUNT(*) AS n
  FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY k, window_start, window_end, window_time;
CREATE VIEW assigned AS SELECT * FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' MINUTE));
CREATE VIEW joined AS SELECT a.k, a.window_time AS t, b.n FROM minutes a JOIN minutes b
  ON a.window_start = b.window_start AND a.window_end = b.window_end AND a.k = b.k;
CREATE VIEW ends AS SELECT k, window_time AS t FROM minutes;
CREATE VIEW assigned_ends AS SELECT k, window_time AS t FROM assigned;
CREATE VIEW half AS SELECT k, ts FROM s UNION ALL SELECT k, ts FROM plain;
CREATE VIEW mixed AS SELECT k, ts FROM made UNION ALL SELECT k, p FROM s;
CREATE VIEW later AS SELECT k, ts + INTERVAL '1' HOUR AS ts FROM s;
CREATE VIEW grouped AS SELECT ts, COUNT(*) AS n FROM s GROUP BY ts;
CREATE VIEW distinct_ts AS SELECT DISTINCT k, ts FROM s;
";

fn tumble(input: &str, column: &str) -> String {
    format!(
        "{TABLES}{VIEWS}SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE {input}, DESCRIPTOR({column}), INTERVAL '1' HOUR)) \
         GROUP BY window_start, window_end;"
    )
}

#[test]
fn a_time_attribute_stays_one_through_what_does_not_change_it() {
    for (input, column) in [
        ("s", "ts"),
        ("made", "ts"),
        ("renamed", "t"),
        ("chained", "t2"),
        ("listed", "b"),
        ("both", "ts"),
        ("scored", "ts"),
        ("ends", "t"),
        ("assigned_ends", "t"),
        ("joined", "t"),
    ] {
        let plan = planned(&tumble(input, column), 1);
        let hourly = plan.operators.iter().find_map(|op| match &op.kind {
            OperatorKind::WindowAggregate(w) if w.window == (Window::Tumble { size_ms: 3_600_000, offset_ms: 0 }) => {
                Some(w.time)
            }
            _ => None,
        });
        assert!(matches!(hourly, Some(Time::Event { .. })), "{input}.{column}: {hourly:?}");
    }
}

#[test]
fn a_window_over_proctime_is_of_processing_time() {
    for input in ["s", "(SELECT p AS q, k FROM s WHERE n > 1)"] {
        let (view, column) = match input {
            "s" => (String::new(), "p"),
            query => (format!("CREATE VIEW w AS SELECT * FROM {query} AS x;"), "q"),
        };
        let table = if view.is_empty() { "s" } else { "w" };
        let plan = planned(
            &format!(
                "{TABLES}{view} SELECT k, COUNT(*) FROM TABLE(HOP(TABLE {table}, DESCRIPTOR({column}), INTERVAL '1' SECOND, \
                 INTERVAL '5' SECOND)) GROUP BY k, window_start, window_end;"
            ),
            1,
        );
        let times: Vec<Time> = plan
            .operators
            .iter()
            .filter_map(|op| match &op.kind {
                OperatorKind::WindowAggregate(w) => Some(w.time),
                _ => None,
            })
            .collect();
        assert_eq!(times, [Time::Processing], "{input}");
    }
}

#[test]
fn what_is_no_time_attribute_is_refused_with_the_reason() {
    let mut wrong = String::new();
    for (input, column, reason) in [
        ("plain", "ts", "table `plain` has no watermark on `ts`"),
        ("s", "k", "the watermark of table `s` is on `ts`, not on `k`"),
        ("later", "ts", "is calculated, so it carries no watermark"),
        ("minutes", "window_start", "is no time attribute behind a GROUP BY; window_time"),
        ("minutes", "latest", "an aggregate carries no watermark"),
        ("assigned", "ts", "behind a window function the time attribute is window_time, not `ts`"),
        ("assigned", "window_end", "is a window's bound; its time attribute is window_time"),
        ("grouped", "ts", "is no time attribute behind a GROUP BY"),
        ("distinct_ts", "ts", "is no time attribute behind a DISTINCT"),
        ("half", "ts", "table `plain` has no watermark"),
        ("mixed", "ts", "is event time in one part of the UNION and processing time in another"),
    ] {
        let sql = tumble(input, column);
        let line = sql.lines().count() as u64;
        match try_plan(&sql, 1) {
            Ok(_) => wrong += &format!("{input}.{column} is accepted\n"),
            Err(error) => {
                let text = error.to_string();
                let place = sql.lines().last().unwrap().find("DESCRIPTOR(").unwrap() as u64 + 12;
                if !text.contains(&format!("`{column}` is not a time attribute"))
                    || !text.contains(reason)
                    || (error.line, error.column) != (line, place)
                {
                    wrong += &format!("{input}.{column}, line {line}, column {place}: {text}\n  not: {reason}\n");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
