//! The decimal type of a calculation, by Flink's rules. A result that would need more than 38 digits keeps the digits
//! before its point and gives up digits behind it, though never the first six.

use crate::schema::DataType;

const DIGITS_MAX: i32 = 38;
/// Behind the point: what a quotient has at least, and what a result of 38 digits keeps.
const SCALE_KEPT: i32 = 6;

/// (precision, scale)
type Digits = (i32, i32);

/// The digits of an exact number; None for other types.
pub fn digits(ty: &DataType) -> Option<(u8, i8)> {
    Some(match ty {
        DataType::Int8 => (3, 0),
        DataType::Int16 => (5, 0),
        DataType::Int32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::Decimal { precision, scale } => (*precision, *scale),
        _ => return None,
    })
}

fn bounded((precision, scale): Digits) -> DataType {
    let (precision, scale) = if precision <= DIGITS_MAX {
        (precision, scale)
    } else {
        (DIGITS_MAX, (DIGITS_MAX - (precision - scale)).max(scale.min(SCALE_KEPT)))
    };
    DataType::Decimal { precision: precision as u8, scale: scale as i8 }
}

/// Of a sum and of a difference.
pub fn sum((p1, s1): Digits, (p2, s2): Digits) -> DataType {
    let scale = s1.max(s2);
    bounded((scale + (p1 - s1).max(p2 - s2) + 1, scale))
}

pub fn product((p1, s1): Digits, (p2, s2): Digits) -> DataType {
    bounded((p1 + p2 + 1, s1 + s2))
}

pub fn quotient((p1, s1): Digits, (p2, s2): Digits) -> DataType {
    let scale = SCALE_KEPT.max(s1 + p2 + 1);
    bounded((p1 - s1 + s2 + scale, scale))
}

pub fn remainder((p1, s1): Digits, (p2, s2): Digits) -> DataType {
    let scale = s1.max(s2);
    bounded(((p1 - s1).min(p2 - s2) + scale, scale))
}

/// Of a number rounded to `to` digits behind its point: rounding up may make one digit more.
pub fn rounded(precision: u8, scale: i8, to: i64) -> DataType {
    let whole = precision as i32 - scale as i32;
    if to >= scale as i64 {
        return DataType::Decimal { precision, scale };
    }
    let to = to.max(0) as i32;
    bounded((1 + whole + to, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dec(precision: u8, scale: i8) -> DataType {
        DataType::Decimal { precision, scale }
    }

    #[test]
    fn digits_follow_flinks_rules() {
        assert_eq!(sum((10, 2), (5, 4)), dec(13, 4));
        assert_eq!(product((10, 2), (5, 4)), dec(16, 6));
        assert_eq!(quotient((10, 0), (2, 1)), dec(17, 6));
        assert_eq!(quotient((10, 3), (10, 0)), dec(21, 14));
        assert_eq!(remainder((10, 3), (10, 0)), dec(10, 3));
        assert_eq!(rounded(10, 3, 2), dec(10, 2));
        assert_eq!(rounded(10, 3, 0), dec(8, 0));
        assert_eq!(rounded(10, 3, -2), dec(8, 0));
        assert_eq!(rounded(10, 3, 5), dec(10, 3));
    }

    #[test]
    fn beyond_38_digits_the_whole_part_is_kept_and_six_digits_behind_the_point() {
        assert_eq!(product((38, 10), (38, 10)), dec(38, 6));
        assert_eq!(sum((38, 10), (38, 10)), dec(38, 9));
        assert_eq!(sum((38, 2), (38, 2)), dec(38, 2));
        assert_eq!(quotient((38, 10), (38, 10)), dec(38, 6));
    }
}
