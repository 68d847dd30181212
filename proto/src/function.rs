//! Scalar functions that the worker's core implements itself: Flink's names that DataFusion's library does not have,
//! or has with another meaning. Everything else in `ExprKind::Call` is a function of DataFusion's library.

pub mod decimal;

use crate::schema::{DataType, Unit};
use serde::{Deserialize, Serialize};

/// A core function. The planner resolves names to these; the worker matches on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Builtin {
    /// TO_TIMESTAMP_LTZ(number, precision 0 or 3) → TIMESTAMP_LTZ(3).
    ToTimestampLtz,
    /// TO_TIMESTAMP(string [, Java pattern]) → TIMESTAMP(3); NULL where it does not parse.
    ToTimestamp,
    /// DATE_FORMAT(timestamp or string, Java pattern) → STRING.
    DateFormat,
    /// SPLIT_INDEX(string, delimiter or its code, index from 0) → STRING; NULL where there is no such part.
    SplitIndex,
    /// REGEXP_EXTRACT(string, pattern [, group]) → STRING; NULL without a match.
    RegexpExtract,
    /// REGEXP(string, pattern) → BOOLEAN.
    Regexp,
    /// CHAR_LENGTH(string) → INT.
    CharLength,
    /// HASH_CODE(string) → INT: Java's String.hashCode without its sign.
    HashCode,
    /// UNIX_TIMESTAMP(string [, Java pattern] or timestamp) → BIGINT seconds.
    UnixTimestamp,
    /// FROM_UNIXTIME(seconds [, Java pattern]) → STRING.
    FromUnixtime,
    /// EXTRACT(unit FROM t), YEAR(t)…: args (STRING unit literal, t) → BIGINT.
    Extract,
    /// FLOOR/CEIL of a time to a unit: args (STRING unit literal, t) → type of t.
    FloorTime,
    CeilTime,
    /// TIMESTAMPDIFF(unit, a, b): args (STRING unit literal, a, b) → INT.
    TimestampDiff,
    /// TIMESTAMPADD is lowered to + INTERVAL by the planner.
    /// SUBSTRING(string, start from 1 [, length]) → STRING, Flink's rules for negative starts.
    Substring,
    /// CONCAT(...) → STRING: NULL if any argument is NULL (Flink), unlike DataFusion's.
    Concat,
    /// CONCAT_WS(separator, ...) → STRING: NULL arguments skipped.
    ConcatWs,
    /// UPPER, LOWER, TRIM(both), LTRIM, RTRIM, REPLACE, REVERSE, POSITION, INSTR and the like come from DataFusion's
    /// library.
    /// IF(condition, a, b) is lowered to CASE; COALESCE, NULLIF, IFNULL too.
    /// ABS, FLOOR, CEIL, ROUND, SQRT, POWER, EXP, LN on the core's types. FLOOR, CEIL and ROUND of a decimal have the
    /// scale that the tree says.
    Abs,
    Floor,
    Ceil,
    Round,
    Sqrt,
    Power,
    Exp,
    Ln,
    /// GREATEST, LEAST: NULL if any argument is NULL (Flink).
    Greatest,
    Least,
    /// `array[i]` (from 1) and `map[key]`; NULL out of range.
    ElementAt,
    /// CARDINALITY(array or map) → INT.
    Cardinality,
    /// ARRAY[...] constructor; all arguments of one type.
    MakeArray,
    /// ROW(...) constructor.
    MakeRow,
    /// The clock: CURRENT_TIMESTAMP, NOW(), PROCTIME() → TIMESTAMP_LTZ(3). Read once a batch.
    CurrentTimestamp,
    /// JSON_VALUE(string, path) → STRING.
    JsonValue,
    /// `a + b`, `a - b`… where Flink's result type is not DataFusion's: decimals, dates and times of day with
    /// intervals, intervals times numbers. What decimals cannot hold is NULL.
    Plus,
    Minus,
    Times,
    Divide,
    Modulo,
    /// TRUNCATE(number [, digits]): towards zero, on the decimal text of a float.
    Truncate,
    /// SIGN(number) → type of the number.
    Sign,
    /// BIN(integer) → STRING of binary digits.
    Bin,
    /// HEX(integer or string) → STRING of upper-case hexadecimal digits.
    Hex,
    /// LEFT, RIGHT(string, length) → STRING; empty for a negative length.
    Left,
    Right,
    /// LPAD, RPAD(string, length, pad) → STRING; NULL for a negative length and for an empty pad.
    Lpad,
    Rpad,
    /// REPEAT(string, times) → STRING.
    Repeat,
    /// CHR(integer) → STRING: the character of the number's last byte, nothing for a negative one.
    Chr,
    /// OVERLAY(string, replacement, start from 1 [, length]) → STRING.
    Overlay,
    /// LOCATE(part, string [, from]) → INT from 1; 0 where it is not.
    Locate,
    /// ELT(index from 1, string, …) → STRING.
    Elt,
    /// IS_ALPHA, IS_DIGIT, IS_DECIMAL(string) → BOOLEAN; FALSE for NULL.
    IsAlpha,
    IsDigit,
    IsDecimal,
    /// TO_BASE64, FROM_BASE64(string) → STRING.
    ToBase64,
    FromBase64,
    /// SHA1(string) → STRING of hexadecimal digits.
    Sha1,
    /// ENCODE(string, charset) → BYTES, DECODE(bytes, charset) → STRING.
    Encode,
    Decode,
    /// PARSE_URL(url, part [, key]) → STRING.
    ParseUrl,
    /// JSON_EXISTS(string, path) → BOOLEAN.
    JsonExists,
    /// JSON_QUERY(string, path) → STRING: an object or an array.
    JsonQuery,
    /// REGEXP_REPLACE(string, pattern, replacement) → STRING: all matches, the replacement as it is.
    RegexpReplace,
    /// ARRAY_CONTAINS(array, value) → BOOLEAN; NULL is found like any value.
    ArrayContains,
    /// TO_DATE(string [, Java pattern]) → DATE; NULL where it does not parse.
    ToDate,
    /// CONVERT_TZ(string, from zone, to zone) → STRING.
    ConvertTz,
}

impl Builtin {
    /// What all their names start with, and none of DataFusion's.
    pub const PREFIX: &'static str = "ef_";

    pub const ALL: &'static [Builtin] = &[
        Builtin::ToTimestampLtz,
        Builtin::ToTimestamp,
        Builtin::DateFormat,
        Builtin::SplitIndex,
        Builtin::RegexpExtract,
        Builtin::Regexp,
        Builtin::CharLength,
        Builtin::HashCode,
        Builtin::UnixTimestamp,
        Builtin::FromUnixtime,
        Builtin::Extract,
        Builtin::FloorTime,
        Builtin::CeilTime,
        Builtin::TimestampDiff,
        Builtin::Substring,
        Builtin::Concat,
        Builtin::ConcatWs,
        Builtin::Abs,
        Builtin::Floor,
        Builtin::Ceil,
        Builtin::Round,
        Builtin::Sqrt,
        Builtin::Power,
        Builtin::Exp,
        Builtin::Ln,
        Builtin::Greatest,
        Builtin::Least,
        Builtin::ElementAt,
        Builtin::Cardinality,
        Builtin::MakeArray,
        Builtin::MakeRow,
        Builtin::CurrentTimestamp,
        Builtin::JsonValue,
        Builtin::Plus,
        Builtin::Minus,
        Builtin::Times,
        Builtin::Divide,
        Builtin::Modulo,
        Builtin::Truncate,
        Builtin::Sign,
        Builtin::Bin,
        Builtin::Hex,
        Builtin::Left,
        Builtin::Right,
        Builtin::Lpad,
        Builtin::Rpad,
        Builtin::Repeat,
        Builtin::Chr,
        Builtin::Overlay,
        Builtin::Locate,
        Builtin::Elt,
        Builtin::IsAlpha,
        Builtin::IsDigit,
        Builtin::IsDecimal,
        Builtin::ToBase64,
        Builtin::FromBase64,
        Builtin::Sha1,
        Builtin::Encode,
        Builtin::Decode,
        Builtin::ParseUrl,
        Builtin::JsonExists,
        Builtin::JsonQuery,
        Builtin::RegexpReplace,
        Builtin::ArrayContains,
        Builtin::ToDate,
        Builtin::ConvertTz,
    ];

    /// The name in `ExprKind::Call`. Stable: it stands in stored plans.
    pub const fn name(self) -> &'static str {
        match self {
            Builtin::ToTimestampLtz => "ef_to_timestamp_ltz",
            Builtin::ToTimestamp => "ef_to_timestamp",
            Builtin::DateFormat => "ef_date_format",
            Builtin::SplitIndex => "ef_split_index",
            Builtin::RegexpExtract => "ef_regexp_extract",
            Builtin::Regexp => "ef_regexp",
            Builtin::CharLength => "ef_char_length",
            Builtin::HashCode => "ef_hash_code",
            Builtin::UnixTimestamp => "ef_unix_timestamp",
            Builtin::FromUnixtime => "ef_from_unixtime",
            Builtin::Extract => "ef_extract",
            Builtin::FloorTime => "ef_floor_time",
            Builtin::CeilTime => "ef_ceil_time",
            Builtin::TimestampDiff => "ef_timestamp_diff",
            Builtin::Substring => "ef_substring",
            Builtin::Concat => "ef_concat",
            Builtin::ConcatWs => "ef_concat_ws",
            Builtin::Abs => "ef_abs",
            Builtin::Floor => "ef_floor",
            Builtin::Ceil => "ef_ceil",
            Builtin::Round => "ef_round",
            Builtin::Sqrt => "ef_sqrt",
            Builtin::Power => "ef_power",
            Builtin::Exp => "ef_exp",
            Builtin::Ln => "ef_ln",
            Builtin::Greatest => "ef_greatest",
            Builtin::Least => "ef_least",
            Builtin::ElementAt => "ef_element_at",
            Builtin::Cardinality => "ef_cardinality",
            Builtin::MakeArray => "ef_make_array",
            Builtin::MakeRow => "ef_make_row",
            Builtin::CurrentTimestamp => "ef_current_timestamp",
            Builtin::JsonValue => "ef_json_value",
            Builtin::Plus => "ef_plus",
            Builtin::Minus => "ef_minus",
            Builtin::Times => "ef_times",
            Builtin::Divide => "ef_divide",
            Builtin::Modulo => "ef_modulo",
            Builtin::Truncate => "ef_truncate",
            Builtin::Sign => "ef_sign",
            Builtin::Bin => "ef_bin",
            Builtin::Hex => "ef_hex",
            Builtin::Left => "ef_left",
            Builtin::Right => "ef_right",
            Builtin::Lpad => "ef_lpad",
            Builtin::Rpad => "ef_rpad",
            Builtin::Repeat => "ef_repeat",
            Builtin::Chr => "ef_chr",
            Builtin::Overlay => "ef_overlay",
            Builtin::Locate => "ef_locate",
            Builtin::Elt => "ef_elt",
            Builtin::IsAlpha => "ef_is_alpha",
            Builtin::IsDigit => "ef_is_digit",
            Builtin::IsDecimal => "ef_is_decimal",
            Builtin::ToBase64 => "ef_to_base64",
            Builtin::FromBase64 => "ef_from_base64",
            Builtin::Sha1 => "ef_sha1",
            Builtin::Encode => "ef_encode",
            Builtin::Decode => "ef_decode",
            Builtin::ParseUrl => "ef_parse_url",
            Builtin::JsonExists => "ef_json_exists",
            Builtin::JsonQuery => "ef_json_query",
            Builtin::RegexpReplace => "ef_regexp_replace",
            Builtin::ArrayContains => "ef_array_contains",
            Builtin::ToDate => "ef_to_date",
            Builtin::ConvertTz => "ef_convert_tz",
        }
    }

    pub fn by_name(name: &str) -> Option<Builtin> {
        Builtin::ALL.iter().copied().find(|f| f.name() == name)
    }

    /// The result type for these argument types; Err says what would be accepted.
    pub fn result(self, args: &[DataType]) -> Result<DataType, String> {
        let expect = |ok: bool, accepted: &str| if ok { Ok(()) } else { Err(accepted.to_string()) };
        let string = |i: usize| matches!(args.get(i), Some(DataType::String | DataType::Null));
        let time = |i: usize| {
            matches!(
                args.get(i),
                Some(DataType::Timestamp(_) | DataType::TimestampLtz(_) | DataType::Date | DataType::Time)
            )
        };
        let numeric = |i: usize| args.get(i).is_some_and(|t| t.is_numeric() || *t == DataType::Null);
        let integer = |i: usize| {
            matches!(
                args.get(i),
                Some(DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Null)
            )
        };
        let n = args.len();
        Ok(match self {
            Builtin::ToTimestampLtz => {
                expect((n == 1 || n == 2 && integer(1)) && numeric(0), "(number, 0 or 3)")?;
                DataType::TimestampLtz(Unit::Milli)
            }
            Builtin::ToTimestamp => {
                expect((1..=2).contains(&n) && (0..n).all(string), "(string [, pattern])")?;
                DataType::Timestamp(Unit::Milli)
            }
            Builtin::DateFormat => {
                expect(n == 2 && (string(0) || time(0)) && string(1), "(timestamp or string, pattern)")?;
                DataType::String
            }
            Builtin::SplitIndex => {
                expect(n == 3 && string(0) && (string(1) || integer(1)) && integer(2), "(string, delimiter, index)")?;
                DataType::String
            }
            Builtin::RegexpExtract => {
                expect((n == 2 || n == 3 && integer(2)) && string(0) && string(1), "(string, pattern [, group])")?;
                DataType::String
            }
            Builtin::Regexp => {
                expect(n == 2 && string(0) && string(1), "(string, pattern)")?;
                DataType::Boolean
            }
            Builtin::CharLength | Builtin::HashCode => {
                expect(n == 1 && string(0), "(string)")?;
                DataType::Int32
            }
            Builtin::UnixTimestamp => {
                let given = n == 1 && (string(0) || time(0)) || n == 2 && string(0) && string(1);
                expect(given, "(timestamp) or (string [, pattern])")?;
                DataType::Int64
            }
            Builtin::FromUnixtime => {
                expect((n == 1 || n == 2 && string(1)) && integer(0), "(seconds [, pattern])")?;
                DataType::String
            }
            Builtin::Extract => {
                expect(n == 2 && string(0) && time(1), "(unit, date, time or timestamp)")?;
                DataType::Int64
            }
            Builtin::FloorTime | Builtin::CeilTime => {
                expect(n == 2 && string(0) && time(1), "(unit, date, time or timestamp)")?;
                args[1].clone()
            }
            Builtin::TimestampDiff => {
                expect(n == 3 && string(0) && time(1) && time(2), "(unit, timestamp, timestamp)")?;
                DataType::Int32
            }
            Builtin::Substring => {
                expect((n == 2 || n == 3 && integer(2)) && string(0) && integer(1), "(string, start [, length])")?;
                DataType::String
            }
            Builtin::Concat => {
                expect(n > 0 && (0..n).all(string), "(string, …)")?;
                DataType::String
            }
            Builtin::ConcatWs => {
                expect(n > 1 && (0..n).all(string), "(separator, string, …)")?;
                DataType::String
            }
            Builtin::Abs | Builtin::Sign => {
                expect(n == 1 && numeric(0), "(number)")?;
                args[0].clone()
            }
            Builtin::Floor | Builtin::Ceil => {
                expect(n == 1 && numeric(0), "(number)")?;
                match args[0] {
                    DataType::Decimal { precision, .. } => DataType::Decimal { precision, scale: 0 },
                    ref other => other.clone(),
                }
            }
            Builtin::Round | Builtin::Truncate => {
                expect((n == 1 || n == 2 && integer(1)) && numeric(0), "(number [, digits])")?;
                args[0].clone()
            }
            Builtin::Sqrt | Builtin::Exp | Builtin::Ln => {
                expect(n == 1 && numeric(0), "(number)")?;
                DataType::Float64
            }
            Builtin::Power => {
                expect(n == 2 && numeric(0) && numeric(1), "(number, number)")?;
                DataType::Float64
            }
            Builtin::Greatest | Builtin::Least | Builtin::MakeArray => {
                let first = args.iter().find(|t| **t != DataType::Null).cloned().unwrap_or(DataType::Null);
                let same = args.iter().all(|t| *t == first || *t == DataType::Null);
                expect(n > 0 && same, "(values of one type)")?;
                if self == Builtin::MakeArray { DataType::Array(Box::new(first)) } else { first }
            }
            Builtin::ElementAt => match (n, args.first()) {
                (2, Some(DataType::Array(item))) if integer(1) => (**item).clone(),
                (2, Some(DataType::Map(key, value))) if **key == args[1] => (**value).clone(),
                _ => return Err("(array, position) or (map, key)".into()),
            },
            Builtin::Cardinality => {
                expect(n == 1 && matches!(args[0], DataType::Array(_) | DataType::Map(..)), "(array or map)")?;
                DataType::Int32
            }
            Builtin::MakeRow => DataType::Row(
                args.iter()
                    .enumerate()
                    .map(|(i, ty)| crate::schema::Field::new(format!("EXPR${i}"), ty.clone(), true))
                    .collect(),
            ),
            Builtin::CurrentTimestamp => {
                expect(n == 0, "()")?;
                DataType::TimestampLtz(Unit::Milli)
            }
            Builtin::JsonValue | Builtin::JsonQuery => {
                expect(n == 2 && string(0) && string(1), "(string, path)")?;
                DataType::String
            }
            Builtin::JsonExists => {
                expect(n == 2 && string(0) && string(1), "(string, path)")?;
                DataType::Boolean
            }
            Builtin::Plus | Builtin::Minus | Builtin::Times | Builtin::Divide | Builtin::Modulo => {
                return self.arithmetic(args);
            }
            Builtin::Bin | Builtin::Chr => {
                expect(n == 1 && integer(0), "(integer)")?;
                DataType::String
            }
            Builtin::Hex => {
                expect(n == 1 && (integer(0) || string(0)), "(integer or string)")?;
                DataType::String
            }
            Builtin::Left | Builtin::Right => {
                expect(n == 2 && string(0) && integer(1), "(string, length)")?;
                DataType::String
            }
            Builtin::Lpad | Builtin::Rpad => {
                expect(n == 3 && string(0) && integer(1) && string(2), "(string, length, pad)")?;
                DataType::String
            }
            Builtin::Repeat => {
                expect(n == 2 && string(0) && integer(1), "(string, times)")?;
                DataType::String
            }
            Builtin::Overlay => {
                let given = n == 3 || n == 4 && integer(3);
                expect(given && string(0) && string(1) && integer(2), "(string, replacement, start [, length])")?;
                DataType::String
            }
            Builtin::Locate => {
                expect((n == 2 || n == 3 && integer(2)) && string(0) && string(1), "(part, string [, from])")?;
                DataType::Int32
            }
            Builtin::Elt => {
                expect(n > 1 && integer(0) && (1..n).all(string), "(index, string, …)")?;
                DataType::String
            }
            Builtin::IsAlpha | Builtin::IsDigit | Builtin::IsDecimal => {
                expect(n == 1 && string(0), "(string)")?;
                DataType::Boolean
            }
            Builtin::ToBase64 | Builtin::FromBase64 | Builtin::Sha1 => {
                expect(n == 1 && string(0), "(string)")?;
                DataType::String
            }
            Builtin::Encode => {
                expect(n == 2 && string(0) && string(1), "(string, charset)")?;
                DataType::Bytes
            }
            Builtin::Decode => {
                let bytes = matches!(args.first(), Some(DataType::Bytes | DataType::Null));
                expect(n == 2 && bytes && string(1), "(bytes, charset)")?;
                DataType::String
            }
            Builtin::ParseUrl => {
                expect((2..=3).contains(&n) && (0..n).all(string), "(url, part [, key])")?;
                DataType::String
            }
            Builtin::RegexpReplace => {
                expect(n == 3 && (0..n).all(string), "(string, pattern, replacement)")?;
                DataType::String
            }
            Builtin::ArrayContains => match (n, args.first()) {
                (2, Some(DataType::Array(item))) if **item == args[1] || args[1] == DataType::Null => DataType::Boolean,
                _ => return Err("(array, value of its type)".into()),
            },
            Builtin::ToDate => {
                expect((1..=2).contains(&n) && (0..n).all(string), "(string [, pattern])")?;
                DataType::Date
            }
            Builtin::ConvertTz => {
                expect(n == 3 && (0..n).all(string), "(string, from zone, to zone)")?;
                DataType::String
            }
        })
    }

    /// The result type of an operator between these types.
    fn arithmetic(self, args: &[DataType]) -> Result<DataType, String> {
        use DataType::{Date, Decimal, Interval, Time};
        let integer = |ty: &DataType| !matches!(ty, Decimal { .. }) && decimal::digits(ty).is_some();
        match (self, args) {
            (Builtin::Plus | Builtin::Minus, [Date | Time, Interval]) => return Ok(args[0].clone()),
            (Builtin::Plus, [Interval, Date | Time]) => return Ok(args[1].clone()),
            (Builtin::Times, [Interval, by]) | (Builtin::Times, [by, Interval]) if integer(by) => return Ok(Interval),
            _ => {}
        }
        let [left, right] = args else { return Err("(left, right)".into()) };
        let (Some(left), Some(right)) = (decimal::digits(left), decimal::digits(right)) else {
            return Err("exact numbers, times with intervals, or intervals with integers".into());
        };
        let (left, right) = ((left.0 as i32, left.1 as i32), (right.0 as i32, right.1 as i32));
        Ok(match self {
            Builtin::Times => decimal::product(left, right),
            Builtin::Divide => decimal::quotient(left, right),
            Builtin::Modulo => decimal::remainder(left, right),
            _ => decimal::sum(left, right),
        })
    }
}
