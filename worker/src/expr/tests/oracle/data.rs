//! Random values, columns and batches: ordinary ones, and the ones that break things.

use super::super::column;
use arrow_array::builder::{Int64Builder, MapBuilder, MapFieldNames, StringBuilder};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow_buffer::NullBuffer;
use ef_proto::expr::Scalar;
use ef_proto::schema::{DataType, Field, Schema, Unit};
use rand::Rng;
use rand::rngs::SmallRng;
use std::sync::Arc;

pub const DECIMALS: [DataType; 4] = [dec(5, 2), dec(10, 0), dec(18, 6), dec(38, 10)];
pub const TIMESTAMPS: [DataType; 5] = [
    DataType::Timestamp(Unit::Milli),
    DataType::Timestamp(Unit::Micro),
    DataType::Timestamp(Unit::Nano),
    DataType::TimestampLtz(Unit::Milli),
    DataType::TimestampLtz(Unit::Micro),
];

const fn dec(precision: u8, scale: i8) -> DataType {
    DataType::Decimal { precision, scale }
}

/// The types that have an order and no parts.
pub fn plain_types() -> Vec<DataType> {
    use DataType as T;
    let mut types =
        vec![T::Boolean, T::Int8, T::Int16, T::Int32, T::Int64, T::Float32, T::Float64, T::String, T::Date, T::Time];
    types.extend(DECIMALS);
    types.extend(TIMESTAMPS);
    types
}

pub fn list() -> DataType {
    DataType::Array(Box::new(DataType::Int64))
}

pub fn map() -> DataType {
    DataType::Map(Box::new(DataType::String), Box::new(DataType::Int64))
}

pub fn row() -> DataType {
    let fields = [("n", DataType::Int64), ("t", DataType::String), ("f", DataType::Float64), ("d", dec(5, 2))];
    DataType::Row(fields.into_iter().map(|(name, ty)| Field::new(name, ty, true)).collect())
}

pub fn all_types() -> Vec<DataType> {
    let mut types = plain_types();
    types.extend([DataType::Bytes, DataType::Interval, list(), map(), row()]);
    types
}

/// Two columns of every type.
pub fn schema() -> Schema {
    let types = all_types();
    let fields = types.iter().chain(&types).enumerate();
    Schema::new(fields.map(|(i, ty)| Field::new(format!("c{i}"), ty.clone(), true)).collect())
}

/// `rows` rows of random columns, each with its own share of NULLs (which have values under them); every other batch
/// is cut out of a larger one.
pub fn batch(rng: &mut SmallRng, rows: usize) -> RecordBatch {
    let schema = schema();
    let offset = if rng.random() { rng.random_range(1..100) } else { 0 };
    let columns = schema.fields.iter().map(|field| {
        let pool = pool(rng, &field.ty);
        let picks: UInt32Array = (0..rows + offset).map(|_| Some(rng.random_range(0..pool.len() as u32))).collect();
        let full = arrow_select::take::take(&pool, &picks, None).expect("a pick is in the pool").slice(offset, rows);
        let share = [0.0, 0.0, 0.1, 0.5, 1.0][rng.random_range(0..5)];
        let data = full.to_data();
        let valid: NullBuffer = (0..data.offset() + rows).map(|_| !rng.random_bool(share)).collect();
        let masked = data.clone().into_builder().nulls(Some(valid.slice(data.offset(), rows)));
        arrow_array::make_array(masked.build().expect("a mask of the same length"))
    });
    let columns = columns.collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.to_arrow(), columns, &options).expect("columns of the schema")
}

/// The values that a column is picked from.
fn pool(rng: &mut SmallRng, ty: &DataType) -> ArrayRef {
    if *ty == map() {
        return maps(rng);
    }
    let values: Vec<Scalar> = (0..60).map(|_| scalar(rng, ty)).collect();
    column(ty, &values)
}

fn maps(rng: &mut SmallRng) -> ArrayRef {
    let names = MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), Int64Builder::new());
    for _ in 0..40 {
        for key in KEYS.iter().take(rng.random_range(0..=KEYS.len())) {
            builder.keys().append_value(key);
            builder.values().append_option((!rng.random_bool(0.2)).then(|| integer(rng, i64::MIN, i64::MAX)));
        }
        builder.append(true).expect("as many values as keys");
    }
    Arc::new(builder.finish())
}

pub const KEYS: [&str; 4] = ["", "a", "ä", "12"];

fn pick<T: Clone>(rng: &mut SmallRng, items: &[T]) -> T {
    items[rng.random_range(0..items.len())].clone()
}

fn integer(rng: &mut SmallRng, min: i64, max: i64) -> i64 {
    match rng.random_range(0..4) {
        0 => pick(rng, &[min, min + 1, max - 1, max]),
        1 => rng.random_range(min..=max),
        _ => rng.random_range(-4..=4),
    }
}

fn double(rng: &mut SmallRng) -> f64 {
    const EDGES: [f64; 24] = [
        f64::NAN,
        -f64::NAN,
        0.0,
        -0.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MIN_POSITIVE,
        5e-324,
        -5e-324,
        f64::MAX,
        f64::MIN,
        1e-45,
        f32::MAX as f64,
        127.5,
        -128.5,
        9.223372036854775e18,
        -9.223372036854775e18,
        9.3e18,
        9_007_199_254_740_993.0,
        1.005,
        0.001,
        9.999e-4,
        1e7,
        12_345_678.9,
    ];
    match rng.random_range(0..5) {
        0 | 1 => pick(rng, &EDGES),
        2 => f64::from_bits(rng.random()),
        3 => rng.random_range(-1000i64..1000) as f64 / 8.0,
        _ => rng.random_range(-10.0..10.0),
    }
}

/// A text: one that means something to a cast or a pattern, or a few letters of several lengths in UTF-8.
fn string(rng: &mut SmallRng) -> String {
    const TEXTS: [&str; 40] = [
        "",
        " ",
        "a",
        "ab",
        "ABC",
        "ß",
        "İ",
        "日本語",
        "😀x",
        "a%b",
        "a_b",
        "\\",
        "a\\%",
        "%",
        "NULL",
        "true",
        "FALSE",
        "yes",
        "on",
        "0",
        "1",
        "12",
        "-7",
        "+7",
        " 42 ",
        "127",
        "128",
        "-129",
        "9223372036854775807",
        "9223372036854775808",
        "3.14",
        "-0.5",
        "1e3",
        "NaN",
        "Infinity",
        "-Infinity",
        "inf",
        "12.5x",
        "1.005",
        "99999.995",
    ];
    const TIMES: [&str; 16] = [
        "2024-02-29",
        "2023-02-29",
        "1900-02-29",
        "2000-02-29",
        "0000-01-01",
        "0001-12-31",
        "9999-12-31",
        "1969-12-31 23:59:59.999",
        "2024-02-29 12:34:56",
        "2024-02-29T12:34:56.123456789",
        "2024-2-9 1:2:3",
        "2024-03-31T02:30:00Z",
        "2024-03-31 02:30:00+05:30",
        "2024-13-01",
        "12:34:56.789",
        "24:00:00",
    ];
    match rng.random_range(0..4) {
        0 => pick(rng, &TIMES).into(),
        1 => {
            let letters: Vec<char> = "ab%_ Üß0日😀".chars().collect();
            (0..rng.random_range(0..8)).map(|_| pick(rng, &letters)).collect()
        }
        _ => pick(rng, &TEXTS).into(),
    }
}

/// A random value of the type, never NULL at the top.
pub fn scalar(rng: &mut SmallRng, ty: &DataType) -> Scalar {
    const DAY: i64 = 86_400_000;
    // Years -8999 to 9000: what is added to them stays within the years that chrono and the patterns know.
    const DAYS: std::ops::Range<i64> = -4_006_000..2_567_000;
    match ty {
        DataType::Boolean => Scalar::Boolean(rng.random()),
        DataType::Int8 => Scalar::Int(integer(rng, i8::MIN.into(), i8::MAX.into())),
        DataType::Int16 => Scalar::Int(integer(rng, i16::MIN.into(), i16::MAX.into())),
        DataType::Int32 => Scalar::Int(integer(rng, i32::MIN.into(), i32::MAX.into())),
        DataType::Int64 => Scalar::Int(integer(rng, i64::MIN, i64::MAX)),
        DataType::Float32 => Scalar::Float(double(rng) as f32 as f64),
        DataType::Float64 => Scalar::Float(double(rng)),
        DataType::Decimal { precision, scale } => {
            let max = 10i128.pow(*precision as u32) - 1;
            let one = 10i128.pow(*scale as u32);
            Scalar::Decimal(match rng.random_range(0..4) {
                0 => pick(rng, &[max, -max, 0, 1, -1, one / 2, -one / 2, one + one / 2]),
                1 => rng.random_range(-max..=max),
                2 => rng.random_range(-5..=5) * one,
                _ => rng.random_range(-max.min(10_000)..=max.min(10_000)),
            })
        }
        DataType::String => Scalar::String(string(rng)),
        DataType::Bytes => Scalar::Bytes(match rng.random_range(0..3) {
            0 => vec![0xff, 0x00, 0xc3],
            _ => string(rng).into_bytes(),
        }),
        DataType::Date => Scalar::Int(match rng.random_range(0..3) {
            0 => pick(rng, &[-1, 0, 1, 59, 789, 11_016, -719_162, -719_528, -719_529]),
            _ => rng.random_range(DAYS),
        }),
        DataType::Time => Scalar::Int(match rng.random_range(0..3) {
            0 => pick(rng, &[0, 1, 999, 1000, DAY / 2, DAY - 1]),
            _ => rng.random_range(0..DAY),
        }),
        DataType::Timestamp(unit) | DataType::TimestampLtz(unit) => Scalar::Int(match (rng.random_range(0..4), unit) {
            (0, _) => pick(rng, &[-1, 0, 1, -1000, 999, DAY, -DAY, 86_399_999]),
            (1, Unit::Nano) => rng.random(),
            (_, Unit::Nano) => rng.random_range(-80_000..80_000) * DAY * 1_000_000 + rng.random_range(0..DAY),
            (_, unit) => {
                (rng.random_range(DAYS) * DAY + rng.random_range(0..DAY)) * unit.per_milli()
                    + rng.random_range(0..unit.per_milli())
            }
        }),
        DataType::Interval => {
            let small = rng.random();
            Scalar::Interval {
                months: if small { 0 } else { rng.random_range(-30..=30) },
                days: if small { 0 } else { rng.random_range(-400..=400) },
                nanos: match rng.random_range(0..4) {
                    0 => 0,
                    1 => rng.random_range(-4 * DAY..4 * DAY) * 1_000_003,
                    _ => rng.random_range(-4 * DAY..4 * DAY) * 1_000_000,
                },
            }
        }
        DataType::Array(item) => {
            let values = (0..rng.random_range(0..5)).map(|_| perhaps_null(rng, item)).collect();
            Scalar::List(values)
        }
        DataType::Row(fields) => Scalar::List(fields.iter().map(|f| perhaps_null(rng, &f.ty)).collect()),
        DataType::Map(..) | DataType::Null => Scalar::Null,
    }
}

fn perhaps_null(rng: &mut SmallRng, ty: &DataType) -> Scalar {
    if rng.random_bool(0.2) { Scalar::Null } else { scalar(rng, ty) }
}
