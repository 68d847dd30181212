//! Instants and wall-clock times: the session's zone is UTC, so the two print alike, and only a text's own offset moves
//! anything.

use super::*;
use Builtin::*;

const LTZ: DataType = DataType::TimestampLtz(Unit::Milli);

#[test]
fn an_offset_in_a_text_moves_the_instant_to_utc() {
    for (input, expected) in [
        ("2024-03-31 02:30:00", "2024-03-31 02:30:00.000"),
        ("2024-03-31T02:30:00Z", "2024-03-31 02:30:00.000"),
        ("2024-03-31 02:30:00+05:30", "2024-03-30 21:00:00.000"),
        ("2024-02-29 23:30:00-01:00", "2024-03-01 00:30:00.000"),
        ("1970-01-01 00:00:00.001+00:30", "1969-12-31 23:30:00.001"),
        ("0001-01-01 00:00:00+18:00", "0000-12-31 06:00:00.000"),
    ] {
        check(text(input).cast(LTZ), expected);
        check(text(input).cast(LTZ).cast(TS), expected);
        check(text(input).cast(LTZ).cast(TS).cast(LTZ), expected);
        check(text(input).cast(LTZ).cast(DataType::String), expected);
    }
    check_fails(text("2024-03-31 02:30:00 Europe/Berlin").cast(LTZ), "cannot be cast to TIMESTAMP_LTZ(3)");
    check_fails(text("2024-03-31 02:30:00+19:00").cast(LTZ), "cannot be cast to TIMESTAMP_LTZ(3)");
}

#[test]
fn instants_and_wall_clocks_agree_in_utc() {
    // Hours that some zone's clocks skip or repeat, the last second of a leap day, and moments before 1970.
    for moment in ["2024-03-31 02:30:00", "2024-10-27 02:30:00", "2024-02-29 23:59:59", "1969-12-31 23:59:59"] {
        let (wall, instant) = (timestamp(moment), timestamp(moment).cast(LTZ));
        let pattern = || text("yyyy-MM-dd'T'HH:mm:ss");
        let shown = moment.replace(' ', "T");
        for time in [&wall, &instant] {
            check(call(DateFormat, vec![time.clone(), pattern()]), &shown);
            check(time.clone().cast(DataType::Date), &moment[..10]);
            check(time.clone().cast(DataType::Time), &moment[11..]);
        }
        for unit in ["DAY", "HOUR", "WEEK"] {
            let floor = |time: &Expr| call(FloorTime, vec![text(unit), time.clone()]).cast(DataType::String);
            check(binary(BinaryOp::Eq, floor(&wall), floor(&instant)), "TRUE");
        }
        check(binary(BinaryOp::Eq, instant.cast(TS), wall), "TRUE");
    }
    let zoned = call(DateFormat, vec![timestamp("2024-03-31 02:30:00").cast(LTZ), text("HH:mm X")]);
    check(zoned, "02:30 Z");
}

#[test]
fn numbers_become_instants_within_the_years_that_flink_knows() {
    let ltz = |number: Expr, precision| call(ToTimestampLtz, vec![number, int(precision)]);
    for (number, precision, expected) in [
        (int(0), 0, "1970-01-01 00:00:00.000"),
        (int(-1), 3, "1969-12-31 23:59:59.999"),
        (int(1_709_251_199), 0, "2024-02-29 23:59:59.000"),
        (float(1.9999), 0, "1970-01-01 00:00:01.999"),
        (float(-1.9), 3, "1969-12-31 23:59:59.999"),
        (decimal(-19, 3, 1), 3, "1969-12-31 23:59:59.999"),
        (decimal(15, 3, 1), 0, "1970-01-01 00:00:01.500"),
        (int(253_402_300_799), 0, "9999-12-31 23:59:59.000"),
        (int(253_402_300_800), 0, "NULL"),
        (int(-62_167_219_200), 0, "0000-01-01 00:00:00.000"),
        (int(-62_167_219_201), 0, "NULL"),
        (int(i64::MAX), 0, "NULL"),
        (float(f64::NAN), 3, "NULL"),
        (float(f64::INFINITY), 0, "NULL"),
        (null(DataType::Int64), 3, "NULL"),
    ] {
        check(ltz(number, precision), expected);
    }
}
