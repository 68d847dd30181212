//! INTERVAL literals: day-time ones in milliseconds, year-month ones in months.

use datafusion_sql::sqlparser::ast::{DateTimeField, Expr, Interval, UnaryOperator, Value};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A literal's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Millis(i64),
    Months(i64),
}

/// A day-time literal in milliseconds, or what is wrong with it.
pub fn millis(expr: &Expr) -> Result<i64, String> {
    match expr {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => Ok(-millis(expr)?),
        Expr::Nested(expr) => millis(expr),
        Expr::Interval(literal) => match length(literal)? {
            Length::Millis(millis) => Ok(millis),
            Length::Months(_) => Err(format!("`{expr}` has no fixed length; use days or less")),
        },
        _ => Err(format!("`{expr}` is not an INTERVAL literal")),
    }
}

/// The same literal in the one form that DataFusion's planner always takes: a string with its unit.
pub fn canonical(expr: &Expr) -> Result<Expr, String> {
    match expr {
        Expr::Interval(literal) => Ok(literal_of(length(literal)?)),
        _ => Err(format!("`{expr}` is not an INTERVAL literal")),
    }
}

/// `amount` of a unit by its name, as TIMESTAMPADD has it.
pub fn of(amount: i64, unit: &str) -> Option<Expr> {
    let per = match unit.to_uppercase().as_str() {
        "MILLISECOND" => Length::Millis(1),
        "SECOND" => Length::Millis(1_000),
        "MINUTE" => Length::Millis(MINUTE),
        "HOUR" => Length::Millis(HOUR),
        "DAY" => Length::Millis(DAY),
        "WEEK" => Length::Millis(7 * DAY),
        "MONTH" => Length::Months(1),
        "QUARTER" => Length::Months(3),
        "YEAR" => Length::Months(12),
        _ => return None,
    };
    Some(literal_of(match per {
        Length::Millis(per) => Length::Millis(per.checked_mul(amount)?),
        Length::Months(per) => Length::Months(per.checked_mul(amount)?),
    }))
}

fn literal_of(length: Length) -> Expr {
    let text = match length {
        Length::Millis(millis) => format!("{millis} milliseconds"),
        Length::Months(months) => format!("{months} months"),
    };
    Expr::Interval(Interval {
        value: Box::new(Expr::Value(Value::SingleQuotedString(text).with_empty_span())),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    })
}

fn length(literal: &Interval) -> Result<Length, String> {
    let shown = Expr::Interval(literal.clone()).to_string();
    let malformed = || format!("malformed `{shown}`; accepted: INTERVAL '10' SECOND, INTERVAL '1:30' MINUTE TO SECOND");
    let text = match literal.value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => text.trim().to_string(),
            _ => return Err(malformed()),
        },
        _ => return Err(malformed()),
    };
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest.to_string()),
        None => (false, text.trim_start_matches('+').to_string()),
    };
    let Some(leading) = &literal.leading_field else {
        return already_canonical(&text, negative).ok_or_else(malformed);
    };
    let last = literal.last_field.as_ref().unwrap_or(leading);
    let (first, last) = (rank(leading).ok_or_else(malformed)?, rank(last).ok_or_else(malformed)?);
    let (year, month, second) = (0, 1, 5);
    if last < first || first <= month && last > month {
        return Err(malformed());
    }
    let sign = if negative { -1 } else { 1 };
    let parts: Vec<&str> = text.split(['-', ':', ' ']).filter(|part| !part.is_empty()).collect();
    if parts.len() != last - first + 1 {
        return Err(malformed());
    }
    let (mut millis, mut months) = (0i64, 0i64);
    for (part, rank) in parts.iter().zip(first..=last) {
        let overflow = || format!("`{shown}` is too long");
        if rank == second {
            millis = millis.checked_add(seconds(part).ok_or_else(malformed)?).ok_or_else(overflow)?;
            continue;
        }
        let n: i64 = part.parse().map_err(|_| malformed())?;
        match rank {
            _ if rank == year => months += n.checked_mul(12).ok_or_else(overflow)?,
            _ if rank == month => months += n,
            _ => {
                let per = [DAY, HOUR, MINUTE][rank - 2];
                millis = n.checked_mul(per).and_then(|n| millis.checked_add(n)).ok_or_else(overflow)?;
            }
        }
    }
    Ok(if first <= month { Length::Months(sign * months) } else { Length::Millis(sign * millis) })
}

fn rank(field: &DateTimeField) -> Option<usize> {
    Some(match field {
        DateTimeField::Year | DateTimeField::Years => 0,
        DateTimeField::Month | DateTimeField::Months => 1,
        DateTimeField::Day | DateTimeField::Days => 2,
        DateTimeField::Hour | DateTimeField::Hours => 3,
        DateTimeField::Minute | DateTimeField::Minutes => 4,
        DateTimeField::Second | DateTimeField::Seconds => 5,
        _ => return None,
    })
}

/// `4`, `0.5`, `4.001` in milliseconds.
fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{:0<3}", &fraction[..fraction.len().min(3)]).parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(1_000)?.checked_add(millis)
}

/// `n milliseconds`, `n months`: what [`canonical`] makes.
fn already_canonical(text: &str, negative: bool) -> Option<Length> {
    let (amount, unit) = text.split_once(' ')?;
    let amount = amount.parse::<i64>().ok()? * if negative { -1 } else { 1 };
    match unit {
        "milliseconds" => Some(Length::Millis(amount)),
        "months" => Some(Length::Months(amount)),
        _ => None,
    }
}
