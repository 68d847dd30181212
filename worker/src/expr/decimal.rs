//! Exact decimal arithmetic on i128 with a 256-bit way out for intermediate results. The result's precision and scale
//! come with the tree; digits beyond the scale are rounded half up (away from zero), and a result that its precision
//! cannot hold is NULL, as in Flink.

use super::compare::pack;
use super::value::{Kernel, try_zip};
use arrow_array::cast::AsArray;
use arrow_array::types::Decimal128Type;
use arrow_array::{ArrayRef, BooleanArray};
use arrow_buffer::i256;
use ef_proto::expr::BinaryOp;
use ef_proto::schema::DataType;
use std::cmp::Ordering;

/// 10^n for n up to 38.
pub(crate) const POWERS: [i128; 39] = {
    let mut powers = [1i128; 39];
    let mut n = 1;
    while n < 39 {
        powers[n] = powers[n - 1] * 10;
        n += 1;
    }
    powers
};

/// True if `value` has at most `precision` digits.
pub(crate) fn fits(value: i128, precision: u8) -> bool {
    value.unsigned_abs() < POWERS[precision.min(38) as usize].unsigned_abs()
}

fn power256(n: u32) -> i256 {
    let mut power = i256::ONE;
    for _ in 0..n.min(76) {
        power = power.wrapping_mul(i256::from_i128(10));
    }
    power
}

/// `a / b` rounded half up, away from zero.
fn divide_half_up(a: i256, b: i256) -> i256 {
    let (quotient, rest) = (a.wrapping_div(b), a.wrapping_rem(b).wrapping_abs());
    // Twice the rest may be beyond 256 bits.
    if rest >= b.wrapping_abs().wrapping_sub(rest) {
        let away = if a.is_negative() == b.is_negative() { i256::ONE } else { i256::MINUS_ONE };
        quotient.wrapping_add(away)
    } else {
        quotient
    }
}

/// The unscaled `value` at another scale, rounded half up; None beyond i128.
pub(crate) fn rescale(value: i128, from: i8, to: i8) -> Option<i128> {
    match to as i32 - from as i32 {
        0 => Some(value),
        up @ 1..=38 => value.checked_mul(POWERS[up as usize]),
        up if up > 0 => (value == 0).then_some(0),
        down if down >= -38 => {
            let divisor = POWERS[-down as usize];
            let (quotient, rest) = (value / divisor, value % divisor);
            let half_or_more = rest.unsigned_abs() >= divisor.unsigned_abs() - divisor.unsigned_abs() / 2;
            Some(if half_or_more { quotient + value.signum() } else { quotient })
        }
        _ => Some(0),
    }
}

/// The same with the digits beyond the new scale cut off.
pub(crate) fn cut(value: i128, from: i8, to: i8) -> Option<i128> {
    match from as i32 - to as i32 {
        down @ 1..=38 => Some(value / POWERS[down as usize]),
        down if down > 38 => Some(0),
        _ => rescale(value, from, to),
    }
}

fn rescale256(value: i256, from: i32, to: i32) -> i256 {
    match to - from {
        0 => value,
        up if up > 0 => value.wrapping_mul(power256(up as u32)),
        down => divide_half_up(value, power256(-down as u32)),
    }
}

/// Compares two decimals of any scales.
pub(crate) fn compare(a: i128, a_scale: i8, b: i128, b_scale: i8) -> Ordering {
    if a_scale == b_scale {
        return a.cmp(&b);
    }
    let scale = a_scale.max(b_scale) as i32;
    rescale256(i256::from_i128(a), a_scale as i32, scale).cmp(&rescale256(i256::from_i128(b), b_scale as i32, scale))
}

/// Prints an unscaled value with its point: `-0.05`.
pub(crate) fn write(out: &mut Vec<u8>, value: i128, scale: i8) {
    let mut digits = value.unsigned_abs().to_string();
    if scale < 0 && value != 0 {
        digits.extend(std::iter::repeat_n('0', -scale as usize));
    }
    if value < 0 {
        out.push(b'-');
    }
    let scale = scale.max(0) as usize;
    if scale == 0 {
        return out.extend_from_slice(digits.as_bytes());
    }
    if digits.len() <= scale {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', scale - digits.len()));
        out.extend_from_slice(digits.as_bytes());
    } else {
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        out.extend_from_slice(whole.as_bytes());
        out.push(b'.');
        out.extend_from_slice(fraction.as_bytes());
    }
}

/// Reads `[+-]digits[.digits][e[+-]digits]` at a scale, rounded half up. None for anything else or too large.
pub(crate) fn parse(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, text) = match text.first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (&text[..at], std::str::from_utf8(&text[at + 1..]).ok()?.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let point = mantissa.iter().position(|b| *b == b'.').unwrap_or(mantissa.len());
    let fraction = mantissa.get(point + 1..).unwrap_or(&[]);
    let whole = &mantissa[..point];
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    // Digits up to the scale count; the next one rounds; the rest is only checked.
    let wanted = (whole.len() as i64).saturating_add(exponent as i64).saturating_add(scale as i64);
    let mut value = 0i128;
    let mut seen = 0i64;
    for byte in whole.iter().chain(fraction) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        match seen.cmp(&wanted) {
            Ordering::Less => value = value.checked_mul(10)?.checked_add(digit as i128)?,
            Ordering::Equal if digit >= 5 => value = value.checked_add(1)?,
            _ => {}
        }
        seen += 1;
    }
    if value != 0 && seen < wanted {
        let up = usize::try_from(wanted - seen).ok().filter(|n| *n < POWERS.len())?;
        value = value.checked_mul(POWERS[up])?;
    }
    fits(value, precision).then_some(if negative { -value } else { value })
}

/// The kernel of `left op right` for decimals of any precision and scale.
pub(crate) fn binary(op: BinaryOp, left: &DataType, right: &DataType, ty: &DataType) -> Option<Kernel> {
    let (
        DataType::Decimal { scale: ls, .. },
        DataType::Decimal { scale: rs, .. },
        DataType::Decimal { precision, scale },
    ) = (left, right, ty)
    else {
        return None;
    };
    let (ls, rs, precision, scale) = (*ls as i32, *rs as i32, *precision, *scale as i32);
    let common = ls.max(rs);
    let finish = move |value: i256, at: i32| -> Result<i128, String> {
        let value = rescale256(value, at, scale);
        Ok(value.to_i128().filter(|v| fits(*v, precision)).unwrap_or(TOO_LARGE))
    };
    let wide = i256::from_i128;
    // The same scales and a result within i128 are the common case; only the rest takes 256 bits.
    type Exact = fn(i128, i128) -> Option<i128>;
    let (quick, at): (Exact, i32) = match op {
        BinaryOp::Add => (i128::checked_add, common),
        BinaryOp::Sub => (i128::checked_sub, common),
        BinaryOp::Mul => (i128::checked_mul, ls + rs),
        BinaryOp::Div | BinaryOp::Mod => (|_, _| None, common),
        _ => return None,
    };
    let same = at == scale && (op == BinaryOp::Mul || ls == rs);
    let slow = move |a: i128, b: i128| -> Result<i128, String> {
        match op {
            BinaryOp::Mul => finish(wide(a).wrapping_mul(wide(b)), ls + rs),
            BinaryOp::Div if b == 0 => Err("division by zero".into()),
            BinaryOp::Div => {
                // a/10^ls / (b/10^rs) at the result's scale.
                let up = scale - ls + rs;
                let power = power256(up.unsigned_abs());
                if up < 0 {
                    // A divisor beyond 256 bits leaves nothing of any dividend.
                    let b = wide(b).checked_mul(power);
                    return finish(b.map_or(i256::ZERO, |b| divide_half_up(wide(a), b)), scale);
                }
                // And no divisor brings a dividend beyond 256 bits back to 38 digits.
                match wide(a).checked_mul(power) {
                    Some(a) => finish(divide_half_up(a, wide(b)), scale),
                    None => Ok(TOO_LARGE),
                }
            }
            _ => {
                let (a, b) = (rescale256(wide(a), ls, common), rescale256(wide(b), rs, common));
                match op {
                    BinaryOp::Add => finish(a.wrapping_add(b), common),
                    BinaryOp::Sub => finish(a.wrapping_sub(b), common),
                    _ if b == i256::ZERO => Err("division by zero".into()),
                    _ => finish(a.wrapping_rem(b), common),
                }
            }
        }
    };
    let f = move |a: i128, b: i128| -> Result<i128, String> {
        if same
            && let Some(value) = quick(a, b)
            && fits(value, precision)
        {
            return Ok(value);
        }
        slow(a, b).map_err(|e| {
            let mut text = Vec::new();
            write(&mut text, a, ls as i8);
            text.extend_from_slice(format!(" {} ", op.symbol()).as_bytes());
            write(&mut text, b, rs as i8);
            format!("{}: {e}", String::from_utf8_lossy(&text))
        })
    };
    let ty = ty.clone();
    Some(Box::new(move |args, rows| {
        let array = try_zip::<Decimal128Type, Decimal128Type, Decimal128Type>(&args[0], &args[1], &ty, rows, f)?;
        null_if_too_large(array)
    }))
}

/// Stands for a result without a place in its type until it becomes NULL; beyond the 38 digits of any decimal.
const TOO_LARGE: i128 = i128::MIN;

fn null_if_too_large(array: ArrayRef) -> Result<ArrayRef, String> {
    let values = array.as_primitive::<Decimal128Type>().values();
    if !values.contains(&TOO_LARGE) {
        return Ok(array);
    }
    let refused = pack(values, |value| value == TOO_LARGE);
    arrow_select::nullif::nullif(&array, &BooleanArray::new(refused, None)).map_err(|e| e.to_string())
}
