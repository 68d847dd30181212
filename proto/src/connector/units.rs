//! Text of single option values: durations, memory sizes, booleans, points in time. Flink's spellings.
//!
//! Pure; the caller knows the key and makes the error message.

/// `5 s`, `5s`, `10 min`, `200ms`, `1 h`, `2 d`; a plain number is milliseconds. None: not a duration, or finer than
/// a millisecond.
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let us = parse_duration_us(text)?;
    us.is_multiple_of(1_000).then_some(us / 1_000)
}

/// As [`parse_duration_ms`], in microseconds (`250 us`).
pub fn parse_duration_us(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let us: u64 = match unit.as_str() {
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1_000,
        "us" | "µs" | "micro" | "micros" | "microsecond" | "microseconds" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000,
        "m" | "min" | "minute" | "minutes" => 60_000_000,
        "h" | "hour" | "hours" => 3_600_000_000,
        "d" | "day" | "days" => 86_400_000_000,
        _ => return None,
    };
    number.checked_mul(us)
}

/// `256mb`, `64 kb`, `1 GiB`, `512MiB`; a plain number is bytes. As in Flink `kb` is 1024 bytes, like `kib`.
pub fn parse_memory_bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let shift = match unit.as_str() {
        "" | "b" | "byte" | "bytes" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.checked_mul(1u64 << shift)
}

/// `true` or `false`, in any case.
pub fn parse_boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// `2026-03-14`, `2026-03-14 06:59:00`, `2026-03-14T06:59:00.273`, a `Z` behind allowed: ms since the epoch, UTC.
pub fn parse_instant_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = match text.split_once([' ', 'T']) {
        Some((date, time)) => (date, time),
        None => (text, "00:00:00"),
    };
    let mut parts = date.split('-');
    let year: i64 = digits(parts.next()?, 4)?;
    let month: i64 = digits(parts.next()?, 2)?;
    let day: i64 = digits(parts.next()?, 2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + leap as i64,
        _ => return None,
    };
    if parts.next().is_some() || !(1..=length).contains(&day) {
        return None;
    }
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = clock.split(':');
    let hour: i64 = digits(parts.next()?, 2)?;
    let minute: i64 = digits(parts.next()?, 2)?;
    let second: i64 = parts.next().map_or(Some(0), |s| digits(s, 2))?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 || fraction.len() > 3 {
        return None;
    }
    let millis = digits(fraction, fraction.len())? * [1000, 100, 10, 1][fraction.len()];
    Some((days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000 + millis)
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar: years begin in March, so that the leap day
/// comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && count > 0 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn number_and_unit(text: &str) -> Option<(u64, String)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim().to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_flinks_spellings() {
        for (text, ms) in [
            ("5 s", Some(5_000)),
            ("5s", Some(5_000)),
            ("10 min", Some(600_000)),
            ("200ms", Some(200)),
            ("1 h", Some(3_600_000)),
            ("2 d", Some(172_800_000)),
            ("250", Some(250)),
            ("2000 us", Some(2)),
            ("1 us", None),
            ("-5 s", None),
            ("1.5 s", None),
            ("5 parsecs", None),
            ("", None),
            ("99999999999999999 d", None),
        ] {
            assert_eq!(parse_duration_ms(text), ms, "{text}");
        }
    }

    #[test]
    fn memory_sizes_are_binary() {
        for (text, bytes) in [
            ("256mb", Some(256 << 20)),
            ("64kb", Some(64 << 10)),
            ("1 GiB", Some(1 << 30)),
            ("512MiB", Some(512 << 20)),
            ("17", Some(17)),
            ("17 b", Some(17)),
            ("1.5gb", None),
            ("mb", None),
            ("99999999999 tb", None),
        ] {
            assert_eq!(parse_memory_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn instants_are_utc() {
        for (text, ms) in [
            ("1970-01-01", Some(0)),
            ("2026-03-14 06:59:00", Some(1_773_471_540_000)),
            ("2026-03-14T06:59:00.273Z", Some(1_773_471_540_273)),
            ("2024-02-29 00:00", Some(1_709_164_800_000)),
            ("1969-12-31 23:59:59.9", Some(-100)),
            ("2023-02-29", None),
            ("2026-13-01", None),
            ("2026-03-14 24:00:00", None),
            ("now", None),
        ] {
            assert_eq!(parse_instant_ms(text), ms, "{text}");
        }
    }
}
