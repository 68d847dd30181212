//! Java's date and time patterns (`yyyy-MM-dd HH:mm:ss.SSS`), compiled once: for DATE_FORMAT, TO_TIMESTAMP and
//! FROM_UNIXTIME. English names. A letter without a meaning here is an error when the pattern is compiled.

use crate::time::civil;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Year,
    Quarter,
    Month,
    DayOfMonth,
    DayOfYear,
    WeekdayNumber,
    Hour24,
    HourFrom1To24,
    HourOfHalf,
    HourFrom1To12,
    Minute,
    Second,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Text(String),
    Number(Field, usize),
    /// So many digits of the second.
    Fraction(usize),
    MonthName {
        full: bool,
    },
    WeekdayName {
        full: bool,
    },
    HalfOfDay,
    /// `X` writes `Z` for UTC.
    Zone,
}

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    items: Vec<Item>,
}

impl Pattern {
    pub fn compile(pattern: &str) -> Result<Pattern, String> {
        let mut items: Vec<Item> = Vec::new();
        let mut text = String::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            if c == '\'' {
                if chars.next_if_eq(&'\'').is_some() {
                    text.push('\'');
                    continue;
                }
                loop {
                    match chars.next() {
                        Some('\'') if chars.next_if_eq(&'\'').is_some() => text.push('\''),
                        Some('\'') => break,
                        Some(c) => text.push(c),
                        None => return Err(format!("date pattern '{pattern}': a quote is not closed")),
                    }
                }
                continue;
            }
            if !c.is_ascii_alphabetic() {
                text.push(c);
                continue;
            }
            let mut count = 1;
            while chars.next_if_eq(&c).is_some() {
                count += 1;
            }
            let item = match (c, count) {
                ('y' | 'u', _) => Item::Number(Field::Year, count),
                ('Q' | 'q', 1 | 2) => Item::Number(Field::Quarter, count),
                ('M' | 'L', 1 | 2) => Item::Number(Field::Month, count),
                ('M' | 'L', 3 | 4) => Item::MonthName { full: count == 4 },
                ('d', 1 | 2) => Item::Number(Field::DayOfMonth, count),
                ('D', 1..=3) => Item::Number(Field::DayOfYear, count),
                ('E', 1..=4) => Item::WeekdayName { full: count == 4 },
                ('e', 1) => Item::Number(Field::WeekdayNumber, count),
                ('H', 1 | 2) => Item::Number(Field::Hour24, count),
                ('k', 1 | 2) => Item::Number(Field::HourFrom1To24, count),
                ('K', 1 | 2) => Item::Number(Field::HourOfHalf, count),
                ('h', 1 | 2) => Item::Number(Field::HourFrom1To12, count),
                ('m', 1 | 2) => Item::Number(Field::Minute, count),
                ('s', 1 | 2) => Item::Number(Field::Second, count),
                ('S', 1..=9) => Item::Fraction(count),
                ('a', 1) => Item::HalfOfDay,
                ('X', 1..=3) => Item::Zone,
                _ => {
                    return Err(format!(
                        "date pattern '{pattern}': `{}` is not known; known are y M d D E Q H h K k m s S a X, other \
                         letters stand in quotes",
                        c.to_string().repeat(count)
                    ));
                }
            };
            if !text.is_empty() {
                items.push(Item::Text(std::mem::take(&mut text)));
            }
            items.push(item);
        }
        if !text.is_empty() {
            items.push(Item::Text(text));
        }
        Ok(Pattern { items })
    }

    /// Appends the text of a moment given in seconds since the epoch and the nanoseconds after them.
    pub fn format(&self, seconds: i64, nanos: u32, out: &mut Vec<u8>) {
        let days = seconds.div_euclid(civil::SECONDS_PER_DAY);
        let of_day = seconds.rem_euclid(civil::SECONDS_PER_DAY);
        let (year, month, day) = civil::civil_from_days(days);
        let hour = of_day / 3600;
        for item in &self.items {
            match item {
                Item::Text(text) => out.extend_from_slice(text.as_bytes()),
                Item::MonthName { full } => push_name(out, MONTHS[month as usize - 1], *full),
                Item::WeekdayName { full } => push_name(out, WEEKDAYS[civil::iso_weekday(days) as usize - 1], *full),
                Item::HalfOfDay => out.extend_from_slice(if hour < 12 { b"AM" } else { b"PM" }),
                Item::Zone => out.push(b'Z'),
                Item::Fraction(count) => {
                    let mut digits = [b'0'; 9];
                    let mut rest = nanos;
                    for digit in digits.iter_mut().rev() {
                        *digit += (rest % 10) as u8;
                        rest /= 10;
                    }
                    out.extend_from_slice(&digits[..*count]);
                }
                Item::Number(field, width) => {
                    let value = match field {
                        Field::Year if *width == 2 => year.rem_euclid(100),
                        Field::Year => year,
                        Field::Quarter => (month as i64 - 1) / 3 + 1,
                        Field::Month => month as i64,
                        Field::DayOfMonth => day as i64,
                        Field::DayOfYear => days - civil::days_from_civil(year, 1, 1) + 1,
                        Field::WeekdayNumber => civil::iso_weekday(days) as i64 % 7 + 1,
                        Field::Hour24 => hour,
                        Field::HourFrom1To24 => (hour + 23) % 24 + 1,
                        Field::HourOfHalf => hour % 12,
                        Field::HourFrom1To12 => (hour + 11) % 12 + 1,
                        Field::Minute => of_day / 60 % 60,
                        Field::Second => of_day % 60,
                    };
                    if value < 0 {
                        out.push(b'-');
                    }
                    let mut buffer = itoa::Buffer::new();
                    let digits = buffer.format(value.unsigned_abs()).as_bytes();
                    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits.len())));
                    out.extend_from_slice(digits);
                }
            }
        }
    }

    /// Seconds since the epoch and nanoseconds; parts that the pattern lacks are those of 1970-01-01 00:00:00. None
    /// where the text does not match or names no moment.
    pub fn parse(&self, text: &str) -> Option<(i64, u32)> {
        let (mut year, mut month, mut day, mut day_of_year) = (1970i64, 1u32, 1u32, None);
        let (mut hour, mut half_hour, mut afternoon, mut minute, mut second, mut nanos) = (0, None, false, 0, 0, 0u32);
        let mut rest = text;
        for (i, item) in self.items.iter().enumerate() {
            match item {
                Item::Text(text) => rest = rest.strip_prefix(text.as_str())?,
                Item::MonthName { full } => month = take_name(&mut rest, &MONTHS, *full)? as u32 + 1,
                Item::WeekdayName { full } => {
                    take_name(&mut rest, &WEEKDAYS, *full)?;
                }
                Item::HalfOfDay => {
                    let half = rest.get(..2)?;
                    afternoon = half.eq_ignore_ascii_case("PM");
                    if !afternoon && !half.eq_ignore_ascii_case("AM") {
                        return None;
                    }
                    rest = &rest[2..];
                }
                Item::Zone => rest = rest.strip_prefix('Z')?,
                Item::Fraction(count) => {
                    nanos = digits(&mut rest, *count, *count)? as u32 * 10u32.pow(9 - *count as u32);
                }
                Item::Number(field, width) => {
                    let tight = matches!(self.items.get(i + 1), Some(Item::Number(..) | Item::Fraction(_)));
                    let (least, most) = match (field, width) {
                        (Field::Year, w) if *w != 2 && !tight => (*w, 9),
                        (_, 1) if !tight => (1, 3),
                        (_, w) => (*w, *w),
                    };
                    let value = digits(&mut rest, least, most)?;
                    match field {
                        Field::Year => year = if *width == 2 { 2000 + value } else { value },
                        Field::Quarter => month = ((value - 1) * 3 + 1) as u32,
                        Field::Month => month = value as u32,
                        Field::DayOfMonth => day = value as u32,
                        Field::DayOfYear => day_of_year = Some(value),
                        Field::WeekdayNumber => {}
                        Field::Hour24 => hour = value,
                        Field::HourFrom1To24 => hour = value % 24,
                        Field::HourOfHalf => half_hour = Some(value),
                        Field::HourFrom1To12 => half_hour = Some(value % 12).filter(|_| (1..=12).contains(&value)),
                        Field::Minute => minute = value,
                        Field::Second => second = value,
                    }
                }
            }
        }
        if let Some(half_hour) = half_hour {
            hour = half_hour + if afternoon { 12 } else { 0 };
        }
        if !rest.is_empty() || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = match day_of_year {
            Some(n) if n >= 1 && n <= 365 + civil::is_leap(year) as i64 => civil::days_from_civil(year, 1, 1) + n - 1,
            Some(_) => return None,
            None if (1..=12).contains(&month) && day >= 1 && day <= civil::days_in_month(year, month) => {
                civil::days_from_civil(year, month, day)
            }
            None => return None,
        };
        Some((days * civil::SECONDS_PER_DAY + hour * 3600 + minute * 60 + second, nanos))
    }
}

fn push_name(out: &mut Vec<u8>, name: &str, full: bool) {
    out.extend_from_slice(if full { name.as_bytes() } else { &name.as_bytes()[..3] });
}

fn take_name(rest: &mut &str, names: &[&str], full: bool) -> Option<usize> {
    names.iter().position(|name| {
        let name = if full { name } else { &name[..3] };
        let found = rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        if found {
            *rest = &rest[name.len()..];
        }
        found
    })
}

fn digits(rest: &mut &str, least: usize, most: usize) -> Option<i64> {
    let count = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if count < least {
        return None;
    }
    let value = rest[..count].parse().ok();
    *rest = &rest[count..];
    value
}
