//! Civil dates and times ↔ ticks since the epoch, and their text. Proleptic Gregorian calendar, UTC, no leap seconds.
//!
//! Promises: no allocation beyond the output buffer, no panic on any bytes, every written text parses back to the
//! same ticks. Leaves Java patterns (`DATE_FORMAT`) to `expr::pattern` and the choice of a style to the formats.

use ef_proto::schema::Unit;

pub const MILLIS_PER_DAY: i64 = 86_400_000;
pub const SECONDS_PER_DAY: i64 = 86_400;

/// How many digits of a second to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fraction {
    /// All digits of the unit: `.000` for milliseconds.
    Full,
    /// Without trailing zeros, and without the point where nothing is left.
    Short,
    /// Exactly so many (0 to 9), cut off, not rounded.
    Digits(u8),
}

pub const fn ticks_per_second(unit: Unit) -> i64 {
    1000 * unit.per_milli()
}

pub const fn ticks_per_day(unit: Unit) -> i64 {
    SECONDS_PER_DAY * ticks_per_second(unit)
}

/// Digits of a second that the unit holds.
pub const fn digits(unit: Unit) -> u8 {
    match unit {
        Unit::Milli => 3,
        Unit::Micro => 6,
        Unit::Nano => 9,
    }
}

/// Days since 1970-01-01. `month` 1 to 12; a `day` outside the month counts on into its neighbours.
/// Years are counted from 1 March, so that the leap day comes last.
#[inline]
pub const fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month as i64 + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day as i64 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// (year, month 1–12, day 1–31) of a day since 1970-01-01.
#[inline]
pub const fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u32;
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

pub const fn is_leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

pub const fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Monday 1 to Sunday 7.
pub const fn iso_weekday(days: i64) -> u32 {
    (days + 3).rem_euclid(7) as u32 + 1
}

/// (ISO year, ISO week 1 to 53): the week belongs to the year that has its Thursday.
pub const fn iso_week(days: i64) -> (i64, u32) {
    let thursday = days + 4 - iso_weekday(days) as i64;
    let (year, _, _) = civil_from_days(thursday);
    (year, ((thursday - days_from_civil(year, 1, 1)) / 7) as u32 + 1)
}

/// A day moved by months; a day that the target month lacks becomes its last (31 January + 1 month = 28 February).
pub fn add_months(days: i64, months: i64) -> Option<i64> {
    let (year, month, day) = civil_from_days(days);
    let total = year.checked_mul(12)?.checked_add(month as i64 - 1)?.checked_add(months)?;
    let (year, month) = (total.div_euclid(12), total.rem_euclid(12) as u32 + 1);
    Some(days_from_civil(year, month, day.min(days_in_month(year, month))))
}

/// Reads digits, at most `max` of them.
#[inline]
fn number(text: &[u8], at: &mut usize, max: usize) -> Option<u32> {
    let start = *at;
    let mut value = 0u32;
    while *at < text.len() && *at - start < max && text[*at].is_ascii_digit() {
        value = value * 10 + (text[*at] - b'0') as u32;
        *at += 1;
    }
    (*at > start).then_some(value)
}

/// Two digits at a fixed place; a value over 99 where they are not digits.
#[inline(always)]
fn two(text: &[u8], at: usize) -> u32 {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    if tens > 9 || ones > 9 { 255 } else { tens as u32 * 10 + ones as u32 }
}

fn skip(text: &[u8], at: &mut usize, byte: u8) -> Option<()> {
    (text.get(*at) == Some(&byte)).then(|| *at += 1)
}

/// `yyyy-MM-dd`, months and days of one digit and years of four to nine (and negative) too. Moves `at` behind it.
#[inline]
fn date_at(text: &[u8], at: &mut usize) -> Option<i64> {
    let (year, month, day);
    if text.len() >= *at + 10 && text[*at + 4] == b'-' && text[*at + 7] == b'-' {
        let here = *at;
        let (century, rest) = (two(text, here), two(text, here + 2));
        (month, day) = (two(text, here + 5), two(text, here + 8));
        if century <= 99 && rest <= 99 && month <= 99 && day <= 99 {
            *at += 10;
            return checked_date((century * 100 + rest) as i64, month, day);
        }
    }
    let negative = skip(text, at, b'-').is_some();
    let start = *at;
    year = number(text, at, 9)?;
    if *at - start < 4 {
        return None;
    }
    skip(text, at, b'-')?;
    let month = number(text, at, 2)?;
    skip(text, at, b'-')?;
    let day = number(text, at, 2)?;
    checked_date(if negative { -(year as i64) } else { year as i64 }, month, day)
}

#[inline]
fn checked_date(year: i64, month: u32, day: u32) -> Option<i64> {
    let valid = (1..=12).contains(&month) && day >= 1 && (day <= 28 || day <= days_in_month(year, month));
    valid.then(|| days_from_civil(year, month, day))
}

/// `HH:mm[:ss[.fraction]]`; seconds and nanoseconds of the day. Moves `at` behind it.
#[inline]
fn time_at(text: &[u8], at: &mut usize) -> Option<(u32, u32)> {
    let (hour, minute, second);
    let here = *at;
    if text.len() >= here + 8 && text[here + 2] == b':' && text[here + 5] == b':' && two(text, here + 6) < 60 {
        (hour, minute, second) = (two(text, here), two(text, here + 3), two(text, here + 6));
        *at += 8;
    } else {
        hour = number(text, at, 2)?;
        skip(text, at, b':')?;
        minute = number(text, at, 2)?;
        second = if skip(text, at, b':').is_some() { number(text, at, 2)? } else { 0 };
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut nanos = 0;
    if text.get(*at) == Some(&b'.') {
        *at += 1;
        let start = *at;
        nanos = number(text, at, 9)?;
        for _ in *at - start..9 {
            nanos *= 10;
        }
    }
    Some((hour * 3600 + minute * 60 + second, nanos))
}

/// `Z`, `+hh:mm`, `-hhmm` or `+hh`; seconds east of Greenwich.
fn offset_at(text: &[u8], at: &mut usize) -> Option<i64> {
    let sign = match text.get(*at)? {
        b'Z' | b'z' => {
            *at += 1;
            return Some(0);
        }
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    *at += 1;
    if text.len() < *at + 2 {
        return None;
    }
    let hours = two(text, *at);
    *at += 2;
    let mut minutes = 0;
    if *at < text.len() {
        let _ = skip(text, at, b':');
        if text.len() < *at + 2 {
            return None;
        }
        minutes = two(text, *at);
        *at += 2;
    }
    (hours <= 18 && minutes <= 59).then_some(sign * (hours as i64 * 3600 + minutes as i64 * 60))
}

/// `2026-03-14 06:59:00`, with `T` for the space, a fraction of 1 to 9 digits (cut to the unit), an offset or `Z`
/// (the answer is then in UTC), or the date alone. None for anything else, and for what the unit cannot hold.
#[inline]
pub fn parse_timestamp(text: &[u8], unit: Unit) -> Option<i64> {
    let mut at = 0;
    let days = date_at(text, &mut at)?;
    let mut seconds = days * SECONDS_PER_DAY;
    let mut nanos = 0;
    if at < text.len() {
        if !matches!(text[at], b' ' | b'T' | b't') {
            return None;
        }
        at += 1;
        let (second_of_day, fraction) = time_at(text, &mut at)?;
        seconds += second_of_day as i64;
        nanos = fraction;
        if at < text.len() {
            seconds -= offset_at(text, &mut at)?;
            if at < text.len() {
                return None;
            }
        }
    }
    ticks(seconds, nanos, unit)
}

/// Ticks of a second since the epoch and the nanoseconds that follow it, cut to the unit.
#[inline]
pub fn ticks(seconds: i64, nanos: u32, unit: Unit) -> Option<i64> {
    let fraction = (nanos / (1_000_000 / unit.per_milli() as u32)) as i64;
    let wide = seconds as i128 * ticks_per_second(unit) as i128 + fraction as i128;
    i64::try_from(wide).ok()
}

/// `yyyy-MM-dd` to days since the epoch.
pub fn parse_date(text: &[u8]) -> Option<i32> {
    let mut at = 0;
    let days = date_at(text, &mut at)?;
    (at == text.len()).then_some(())?;
    i32::try_from(days).ok()
}

/// `HH:mm[:ss[.SSS]]` to milliseconds of the day; digits after the third are cut off.
pub fn parse_time(text: &[u8]) -> Option<i32> {
    let mut at = 0;
    let (seconds, nanos) = time_at(text, &mut at)?;
    (at == text.len()).then_some((seconds * 1000 + nanos / 1_000_000) as i32)
}

#[inline(always)]
fn put_two(out: &mut [u8], at: usize, value: u32) {
    out[at] = b'0' + (value / 10) as u8;
    out[at + 1] = b'0' + (value % 10) as u8;
}

/// `yyyy-MM-dd`; at least four digits of the year, with a sign before negative ones.
pub fn write_date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil_from_days(days);
    let mut text = *b"0000-00-00";
    if (0..=9999).contains(&year) {
        put_two(&mut text, 0, year as u32 / 100);
        put_two(&mut text, 2, year as u32 % 100);
        put_two(&mut text, 5, month);
        put_two(&mut text, 8, day);
        out.extend_from_slice(&text);
        return;
    }
    if year < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let year = buffer.format(year.unsigned_abs()).as_bytes();
    out.extend(std::iter::repeat_n(b'0', 4usize.saturating_sub(year.len())));
    out.extend_from_slice(year);
    put_two(&mut text, 5, month);
    put_two(&mut text, 8, day);
    out.extend_from_slice(&text[4..]);
}

fn write_clock(out: &mut Vec<u8>, second_of_day: u32, nanos: u32, unit: Unit, fraction: Fraction) {
    let mut text = *b"00:00:00.000000000";
    put_two(&mut text, 0, second_of_day / 3600);
    put_two(&mut text, 3, second_of_day / 60 % 60);
    put_two(&mut text, 6, second_of_day % 60);
    let wanted = match fraction {
        Fraction::Digits(n) => n.min(9) as usize,
        Fraction::Short if nanos == 0 => 0,
        Fraction::Short | Fraction::Full => digits(unit) as usize,
    };
    if wanted == 0 {
        return out.extend_from_slice(&text[..8]);
    }
    let mut rest = nanos;
    for at in (9..18).rev() {
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let mut end = 9 + wanted;
    while fraction == Fraction::Short && text[end - 1] == b'0' {
        end -= 1;
    }
    out.extend_from_slice(&text[..end]);
}

/// Seconds since the epoch (rounded down) and the nanoseconds after them.
#[inline]
pub const fn split(ticks: i64, unit: Unit) -> (i64, u32) {
    let per_second = ticks_per_second(unit);
    let nanos = ticks.rem_euclid(per_second) * (1_000_000 / unit.per_milli());
    (ticks.div_euclid(per_second), nanos as u32)
}

/// `yyyy-MM-dd`, `separator` (a space or `T`), `HH:mm:ss` and the fraction. Writes no zone: add `Z` for an instant.
pub fn write_timestamp(out: &mut Vec<u8>, ticks: i64, unit: Unit, separator: u8, fraction: Fraction) {
    let (seconds, nanos) = split(ticks, unit);
    write_date(out, seconds.div_euclid(SECONDS_PER_DAY));
    out.push(separator);
    write_clock(out, seconds.rem_euclid(SECONDS_PER_DAY) as u32, nanos, unit, fraction);
}

/// `HH:mm:ss` and the fraction, from milliseconds of the day.
pub fn write_time(out: &mut Vec<u8>, millis: i32, fraction: Fraction) {
    let millis = (millis as i64).rem_euclid(MILLIS_PER_DAY) as u32;
    write_clock(out, millis / 1000, millis % 1000 * 1_000_000, Unit::Milli, fraction);
}

#[cfg(test)]
mod tests;
