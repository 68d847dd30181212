//! What is sent is what is read, for every type of SQL; what was not sent by us is an error and never a panic.

use super::*;
use arrow_array::types::{
    IntervalMonthDayNano, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
};
use arrow_array::*;
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{Field as ArrowField, Schema as ArrowSchema};
use ef_proto::schema::{self, Field, Unit};
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const KINDS: u32 = 19;

/// The type number `kind`, in the order of `ef_proto::schema::DataType`; nested ones have random types below them.
fn sql_type(kind: u32, depth: u32, rng: &mut SmallRng) -> schema::DataType {
    use schema::DataType as T;
    let below = |rng: &mut SmallRng| {
        let kinds = if depth == 0 { KINDS - 3 } else { KINDS };
        sql_type(rng.random_range(0..kinds), depth.saturating_sub(1), rng)
    };
    match kind {
        0 => T::Null,
        1 => T::Boolean,
        2 => T::Int8,
        3 => T::Int16,
        4 => T::Int32,
        5 => T::Int64,
        6 => T::Float32,
        7 => T::Float64,
        8 => T::Decimal { precision: 38, scale: 4 },
        9 => T::String,
        10 => T::Bytes,
        11 => T::Date,
        12 => T::Time,
        13 => T::Timestamp([Unit::Milli, Unit::Micro, Unit::Nano][rng.random_range(0..3)]),
        14 => T::TimestampLtz([Unit::Milli, Unit::Micro, Unit::Nano][rng.random_range(0..3)]),
        15 => T::Interval,
        16 => {
            let fields = (0..rng.random_range(0..3)).map(|i| Field::new(format!("f{i}"), below(rng), rng.random()));
            T::Row(fields.collect())
        }
        17 => T::Array(Box::new(below(rng))),
        18 => T::Map(Box::new(below(rng)), Box::new(below(rng))),
        other => panic!("no type {other}"),
    }
}

fn nulls(rows: usize, nullable: bool, rng: &mut SmallRng) -> Option<NullBuffer> {
    let some = nullable && rng.random_bool(0.7);
    some.then(|| (0..rows).map(|_| rng.random_bool(0.8)).collect())
}

fn text(rng: &mut SmallRng) -> String {
    let length = if rng.random_bool(0.3) { 0 } else { rng.random_range(0..20) };
    (0..length).map(|_| ['a', 'ß', '水', '🦀', '\0'][rng.random_range(0..5)]).collect()
}

macro_rules! numbers {
    ($array:ty, $rows:expr, $nulls:expr, $rng:expr) => {
        <$array>::new((0..$rows).map(|_| $rng.random()).collect::<Vec<_>>().into(), $nulls)
    };
}

fn timestamps(
    unit: &TimeUnit,
    zone: &Option<Arc<str>>,
    rows: usize,
    nulls: Option<NullBuffer>,
    rng: &mut SmallRng,
) -> ArrayRef {
    let values: ScalarBuffer<i64> = (0..rows).map(|_| rng.random()).collect::<Vec<_>>().into();
    let zone = zone.clone();
    match unit {
        TimeUnit::Millisecond => {
            Arc::new(PrimitiveArray::<TimestampMillisecondType>::new(values, nulls).with_timezone_opt(zone))
        }
        TimeUnit::Microsecond => {
            Arc::new(PrimitiveArray::<TimestampMicrosecondType>::new(values, nulls).with_timezone_opt(zone))
        }
        TimeUnit::Nanosecond => {
            Arc::new(PrimitiveArray::<TimestampNanosecondType>::new(values, nulls).with_timezone_opt(zone))
        }
        TimeUnit::Second => panic!("no SQL type"),
    }
}

fn array(ty: &DataType, rows: usize, nullable: bool, rng: &mut SmallRng) -> ArrayRef {
    let valid = nulls(rows, nullable, rng);
    match ty {
        DataType::Null => Arc::new(NullArray::new(rows)),
        DataType::Boolean => {
            Arc::new(BooleanArray::new((0..rows).map(|_| rng.random_bool(0.5)).collect::<Vec<_>>().into(), valid))
        }
        DataType::Int8 => Arc::new(numbers!(Int8Array, rows, valid, rng)),
        DataType::Int16 => Arc::new(numbers!(Int16Array, rows, valid, rng)),
        DataType::Int32 => Arc::new(numbers!(Int32Array, rows, valid, rng)),
        DataType::Int64 => Arc::new(numbers!(Int64Array, rows, valid, rng)),
        DataType::Float32 => Arc::new(numbers!(Float32Array, rows, valid, rng)),
        DataType::Float64 => Arc::new(numbers!(Float64Array, rows, valid, rng)),
        DataType::Date32 => Arc::new(numbers!(Date32Array, rows, valid, rng)),
        DataType::Time32(_) => Arc::new(numbers!(Time32MillisecondArray, rows, valid, rng)),
        DataType::Decimal128(precision, scale) => {
            let values: Vec<i128> = (0..rows).map(|_| i128::from(rng.random::<i64>())).collect();
            let array = Decimal128Array::new(values.into(), valid);
            Arc::new(array.with_precision_and_scale(*precision, *scale).expect("38 digits"))
        }
        DataType::Timestamp(unit, zone) => timestamps(unit, zone, rows, valid, rng),
        DataType::Interval(_) => {
            let interval = |_| IntervalMonthDayNano::new(rng.random(), rng.random(), rng.random());
            Arc::new(IntervalMonthDayNanoArray::new((0..rows).map(interval).collect::<Vec<_>>().into(), valid))
        }
        DataType::Utf8 => {
            let texts: Vec<String> = (0..rows).map(|_| text(rng)).collect();
            let (offsets, values, _) = StringArray::from_iter_values(texts).into_parts();
            Arc::new(StringArray::new(offsets, values, valid))
        }
        DataType::Binary => {
            let texts: Vec<String> = (0..rows).map(|_| text(rng)).collect();
            let (offsets, values, _) = BinaryArray::from_iter_values(texts).into_parts();
            Arc::new(BinaryArray::new(offsets, values, valid))
        }
        DataType::Struct(fields) if fields.is_empty() => Arc::new(StructArray::new_empty_fields(rows, valid)),
        DataType::Struct(fields) => {
            let columns = fields.iter().map(|field| array(field.data_type(), rows, field.is_nullable(), rng)).collect();
            Arc::new(StructArray::new(fields.clone(), columns, valid))
        }
        DataType::List(item) => {
            let offsets = OffsetBuffer::from_lengths((0..rows).map(|_| rng.random_range(0..4)));
            let items = array(item.data_type(), offsets[rows] as usize, true, rng);
            Arc::new(ListArray::new(item.clone(), offsets, items, valid))
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(fields) = entries.data_type() else { panic!("entries are pairs") };
            let offsets = OffsetBuffer::from_lengths((0..rows).map(|_| rng.random_range(0..4)));
            let pairs = offsets[rows] as usize;
            let columns =
                fields.iter().map(|field| array(field.data_type(), pairs, field.is_nullable(), rng)).collect();
            let pairs = StructArray::new(fields.clone(), columns, None);
            Arc::new(MapArray::new(entries.clone(), offsets, pairs, valid, false))
        }
        other => panic!("no SQL type has {other}"),
    }
}

/// A NULL type in a NOT NULL place has no values.
fn nullable(ty: &schema::DataType, wanted: bool) -> bool {
    use schema::DataType as T;
    match ty {
        T::Null => true,
        _ => wanted,
    }
}

fn has_null_type(ty: &DataType) -> bool {
    match ty {
        DataType::Null => true,
        DataType::Struct(fields) => fields.iter().any(|field| has_null_type(field.data_type())),
        DataType::List(item) | DataType::Map(item, _) => has_null_type(item.data_type()),
        _ => false,
    }
}

/// A column of every type and some nested ones, and rows for them; sliced sometimes.
pub fn random_batch(rows: usize, rng: &mut SmallRng) -> RecordBatch {
    let mut fields = Vec::new();
    for kind in 0..KINDS {
        let ty = sql_type(kind, 2, rng);
        // NOT NULL inside of a type is for columns that have a value at all.
        if kind >= KINDS - 3 && has_null_type(&ty.to_arrow()) {
            continue;
        }
        let nullable = nullable(&ty, rng.random());
        fields.push(Field::new(format!("c{kind}"), ty, nullable));
    }
    let schema = schema::Schema::new(fields).to_arrow();
    let (before, after) = (rng.random_range(0..20), rng.random_range(0..20));
    let columns = schema.fields().iter().map(|field| {
        let whole = array(field.data_type(), before + rows + after, field.is_nullable(), rng);
        if rng.random() { whole.slice(before, rows) } else { array(field.data_type(), rows, field.is_nullable(), rng) }
    });
    let columns = columns.collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).expect("columns of the schema")
}

fn any_compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)]
}

/// As a network hands it over: in one piece with what came before it, at no alignment in particular.
fn displaced(bytes: &Bytes, by: usize) -> Bytes {
    let mut whole = vec![0xAA; by];
    whole.extend_from_slice(bytes);
    Bytes::from(whole).slice(by..)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn batch_of_every_type_reads_back_as_it_was(
        seed: u64, rows in 0usize..200, by in 0usize..17, compression in any_compression()
    ) {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let batch = random_batch(rows, rng);
        let mut encoder = Encoder::new(batch.schema(), compression).expect("SQL types");
        // Twice: nothing of the first is left in the second.
        for batch in [&batch, &batch.slice(rows / 3, rows / 2)] {
            let Payload { metadata, body } = encoder.encode(batch).expect("encodes");
            let sent = Payload { metadata: displaced(&metadata, by), body: displaced(&body, by) };
            let read = decode(&batch.schema(), sent).expect("reads back");
            prop_assert_eq!(&read, batch);
        }
    }

    #[test]
    fn damaged_message_is_an_error_or_other_values_and_never_a_panic(
        seed: u64, rows in 0usize..50, compression in any_compression(), damage in 1usize..6
    ) {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let batch = random_batch(rows, rng);
        let Payload { metadata, body } = Encoder::new(batch.schema(), compression).expect("SQL types").encode(&batch).expect("encodes");
        let (mut metadata, mut body) = (metadata.to_vec(), body.to_vec());
        for _ in 0..damage {
            let part = if rng.random_bool(0.7) { &mut metadata } else { &mut body };
            match (part.len(), rng.random_range(0..4)) {
                (0, _) => part.push(rng.random()),
                (length, 0) => part.truncate(rng.random_range(0..length)),
                (length, 1) => part[rng.random_range(0..length)] = [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)],
                (length, _) => part[rng.random_range(0..length)] ^= 1 << rng.random_range(0..8),
            }
        }
        let _ = decode(&batch.schema(), Payload { metadata: metadata.into(), body: body.into() });
    }

    #[test]
    fn message_read_by_another_schema_is_an_error_or_other_values_and_never_a_panic(seed: u64, rows in 0usize..50) {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let (batch, other) = (random_batch(rows, rng), random_batch(rows, rng));
        let payload = Encoder::new(batch.schema(), Compression::None).expect("SQL types").encode(&batch).expect("encodes");
        let _ = decode(&other.schema(), payload);
        let columns: Vec<usize> = (0..batch.num_columns()).rev().collect();
        let turned = batch.project(&columns).expect("columns of the batch");
        let payload = Encoder::new(batch.schema(), Compression::Lz4).expect("SQL types").encode(&batch).expect("encodes");
        let _ = decode(&turned.schema(), payload);
    }

    #[test]
    fn noise_is_an_error(metadata: Vec<u8>, body: Vec<u8>) {
        let schema = Arc::new(ArrowSchema::new(vec![ArrowField::new("x", DataType::Utf8, true)]));
        let payload = Payload { metadata: metadata.into(), body: body.into() };
        prop_assert!(decode(&schema, payload).is_err());
    }
}

#[test]
fn batch_without_columns_keeps_its_rows() {
    let schema = Arc::new(ArrowSchema::empty());
    let options = RecordBatchOptions::new().with_row_count(Some(7));
    let batch = RecordBatch::try_new_with_options(schema.clone(), vec![], &options).expect("seven rows");
    let payload = Encoder::new(schema.clone(), Compression::Lz4).expect("no types").encode(&batch).expect("encodes");
    assert_eq!(decode(&schema, payload).map(|read| read.num_rows()), Ok(7));
}

#[test]
fn offsets_that_are_no_whole_numbers_are_an_error() {
    let column: ArrayRef = Arc::new(BinaryArray::from_iter_values([[7u8; 13]]));
    let batch = RecordBatch::try_from_iter([("a", column.clone()), ("b", column)]).expect("two columns");
    let payload = Encoder::new(batch.schema(), Compression::None).expect("SQL types").encode(&batch).expect("encodes");
    // So read, the first column's 13 bytes are the text's offsets.
    let row = DataType::Struct(vec![ArrowField::new("t", DataType::Utf8, true)].into());
    let schema = Arc::new(ArrowSchema::new(vec![ArrowField::new("r", row, true)]));
    assert_eq!(decode(&schema, payload), Err("offsets of 13 bytes".to_string()));
}

#[test]
fn types_beyond_sql_are_refused_by_name() {
    let views = Arc::new(ArrowSchema::new(vec![ArrowField::new("v", DataType::Utf8View, true)]));
    assert!(Encoder::new(views, Compression::None).is_err_and(|e| e.message.contains("`v`")));
    let coded = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let item = Arc::new(ArrowField::new_list_field(coded, true));
    let nested = Arc::new(ArrowSchema::new(vec![ArrowField::new("d", DataType::List(item), true)]));
    assert!(Encoder::new(nested, Compression::None).is_err_and(|e| e.message.contains("`d`")));
}

#[test]
fn batch_of_other_types_than_the_plans_is_not_sent() {
    let longs = Arc::new(ArrowSchema::new(vec![ArrowField::new("x", DataType::Int64, true)]));
    let column: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    let doubles = RecordBatch::try_from_iter([("x", column)]).expect("one column");
    let mut encoder = Encoder::new(longs, Compression::None).expect("SQL types");
    let error = encoder.encode(&doubles).expect_err("it would be read as integers");
    assert!(error.message.contains("Float64") && error.message.contains("Int64"), "{}", error.message);
}

#[test]
fn aligned_body_is_read_without_a_copy() {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
    let batch = RecordBatch::try_from_iter([("x", column)]).expect("one column");
    let payload = Encoder::new(batch.schema(), Compression::None).expect("SQL types").encode(&batch).expect("encodes");
    let body = payload.body.clone();
    let read = decode(&batch.schema(), payload).expect("reads back");
    let values = read.column(0).to_data().buffers()[0].as_ptr();
    assert!(body.as_ptr_range().contains(&values));
}
