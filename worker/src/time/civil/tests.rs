//! Dates and times against a walk over the calendar, and there and back again.

use super::*;
use chrono::{Datelike, NaiveDate};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const MILLI: Unit = Unit::Milli;

#[test]
fn days_agree_with_chrono_over_six_thousand_years() {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
    for days in (-1_500_000i64..1_500_000).step_by(37) {
        let date = epoch + chrono::Duration::days(days);
        let civil = civil_from_days(days);
        assert_eq!(civil, (date.year() as i64, date.month(), date.day()), "day {days}");
        assert_eq!(days_from_civil(civil.0, civil.1, civil.2), days);
        assert_eq!(iso_weekday(days), date.weekday().number_from_monday());
        assert_eq!(iso_week(days), (date.iso_week().year() as i64, date.iso_week().week()));
    }
}

#[test]
fn every_day_of_twenty_thousand_years_is_written_and_read_back() {
    let mut days = days_from_civil(-9999, 1, 1);
    let mut text = Vec::new();
    for year in -9999..=9999i32 {
        for month in 1..=12 {
            let mut day = 1;
            while NaiveDate::from_ymd_opt(year, month, day).is_some() {
                assert_eq!(civil_from_days(days), (year as i64, month, day));
                text.clear();
                write_date(&mut text, days);
                assert_eq!(parse_date(&text), Some(days as i32), "{}", String::from_utf8_lossy(&text));
                (days, day) = (days + 1, day + 1);
            }
            let sign = if year < 0 { "-" } else { "" };
            let named = |day: u32| format!("{sign}{:04}-{month:02}-{day:02}", year.abs());
            assert_eq!(text, named(day - 1).as_bytes());
            assert_eq!(parse_date(named(day).as_bytes()), None, "{} does not exist", named(day));
            let last = (days * SECONDS_PER_DAY - 1) * 1000 + 999;
            assert_eq!(parse_timestamp(format!("{} 23:59:59.999", named(day - 1)).as_bytes(), MILLI), Some(last));
        }
    }
    assert_eq!(days, days_from_civil(10_000, 1, 1));
}

#[test]
fn the_first_and_the_last_ticks_of_every_unit_are_written_and_read_back() {
    for unit in [MILLI, Unit::Micro, Unit::Nano] {
        for ticks in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX] {
            let mut text = Vec::new();
            write_timestamp(&mut text, ticks, unit, b' ', Fraction::Full);
            let shown = String::from_utf8_lossy(&text).into_owned();
            assert_eq!(parse_timestamp(&text, unit), Some(ticks), "{shown}");
        }
    }
}

#[test]
fn every_written_timestamp_parses_back() {
    let mut rng = SmallRng::seed_from_u64(7);
    for _ in 0..20_000 {
        let ticks: i64 = rng.random_range(-62_135_596_800_000..253_402_300_799_999);
        for (unit, ticks) in [(MILLI, ticks), (Unit::Micro, ticks * 3), (Unit::Nano, ticks * 1_009)] {
            for fraction in [Fraction::Full, Fraction::Short] {
                for separator in [b' ', b'T'] {
                    let mut text = Vec::new();
                    write_timestamp(&mut text, ticks, unit, separator, fraction);
                    let shown = String::from_utf8_lossy(&text).into_owned();
                    assert_eq!(parse_timestamp(&text, unit), Some(ticks), "{shown}");
                }
            }
        }
    }
}

#[test]
fn timestamps_of_every_accepted_form() {
    let base = 1_773_471_540_000; // 2026-03-14 06:59:00
    for (text, expected) in [
        ("2026-03-14 06:59:00", Some(base)),
        ("2026-03-14T06:59:00", Some(base)),
        ("2026-03-14T06:59:00Z", Some(base)),
        ("2026-03-14 06:59", Some(base)),
        ("2026-3-14 6:59:0", Some(base)),
        ("2026-03-14 06:59:00.1", Some(base + 100)),
        ("2026-03-14 06:59:00.123", Some(base + 123)),
        ("2026-03-14 06:59:00.123999999Z", Some(base + 123)),
        ("2026-03-14T08:59:00+02:00", Some(base)),
        ("2026-03-14T08:59:00.5+0200", Some(base + 500)),
        ("2026-03-14T01:29:00-05:30", Some(base)),
        ("2026-03-14T01:59:00-05", Some(base)),
        ("2026-03-14", Some(base - 25_140_000)),
        ("2026-02-29", None),
        ("2024-02-29", Some(1_709_164_800_000)),
        ("1969-12-31 23:59:59.999", Some(-1)),
        ("2026-13-01", None),
        ("2026-00-01", None),
        ("2026-01-00", None),
        ("2026-03-14 24:00:00", None),
        ("2026-03-14 06:60:00", None),
        ("2026-03-14 06:59:60", None),
        ("2026-03-14 06:59:00.", None),
        ("2026-03-14 06:59:00.1234567890", None),
        ("2026-03-14 06:59:00 ", None),
        ("2026-03-14T06:59:00+2", None),
        ("2026-03-14T06:59:00+99:00", None),
        ("2026-03-14x06:59:00", None),
        ("2026-03-14 ", None),
        ("26-03-14", None),
        ("2o26-03-14", None),
        ("", None),
        ("T", None),
    ] {
        assert_eq!(parse_timestamp(text.as_bytes(), MILLI), expected, "{text}");
    }
    assert_eq!(parse_timestamp(b"2300-01-01", Unit::Nano), None, "beyond what nanoseconds hold");
}

#[test]
fn no_bytes_make_the_parsers_panic() {
    let mut rng = SmallRng::seed_from_u64(11);
    let alphabet = b"0123456789-: T.Z+\xff";
    for _ in 0..200_000 {
        let length = rng.random_range(0..32);
        let text: Vec<u8> = (0..length).map(|_| alphabet[rng.random_range(0..alphabet.len())]).collect();
        parse_timestamp(&text, Unit::Nano);
        parse_date(&text);
        parse_time(&text);
    }
}

#[test]
fn dates_and_times_parse_and_print() {
    assert_eq!(parse_date(b"1970-01-02"), Some(1));
    assert_eq!(parse_date(b"1970-01-02 "), None);
    assert_eq!(parse_date(b"12026-03-14"), Some(3_672_951));
    let mut text = Vec::new();
    write_date(&mut text, 3_672_951);
    text.push(b' ');
    write_date(&mut text, -719_529);
    assert_eq!(text, b"12026-03-14 -0001-12-31");
    assert_eq!(parse_date(b"-0001-12-31"), Some(-719_529));
    assert_eq!(parse_time(b"23:59:59.1239"), Some(86_399_123));
    assert_eq!(parse_time(b"07:05"), Some(25_500_000));
    assert_eq!(parse_time(b"7"), None);
    for (fraction, expected) in
        [(Fraction::Full, "07:05:00.120"), (Fraction::Short, "07:05:00.12"), (Fraction::Digits(1), "07:05:00.1")]
    {
        let mut text = Vec::new();
        write_time(&mut text, 25_500_120, fraction);
        assert_eq!(text, expected.as_bytes());
    }
}

#[test]
fn adding_months_keeps_to_the_end_of_the_month() {
    let day = |text: &str| parse_date(text.as_bytes()).unwrap() as i64;
    for (from, months, to) in [
        ("2026-01-31", 1, "2026-02-28"),
        ("2024-01-31", 1, "2024-02-29"),
        ("2026-03-31", -1, "2026-02-28"),
        ("2026-12-15", 1, "2027-01-15"),
        ("2026-01-15", -13, "2024-12-15"),
    ] {
        assert_eq!(add_months(day(from), months), Some(day(to)), "{from} + {months}");
    }
}
