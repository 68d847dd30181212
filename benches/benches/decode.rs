//! Bytes to columns and back: JSON (a sensor's reading, an auction event), CSV, and the formats of messages.

use arrow_array::RecordBatch;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ef_benches::stage::{Stage, count, deliver};
use ef_benches::{sensor, sql};
use ef_proto::connector::{Avro, Csv, DebeziumJson, Format, OnError, Protobuf, protobuf};
use ef_proto::plan::Source;
use ef_proto::schema::Schema;
use ef_worker::format::encode::encoder;
use ef_worker::format::{Decoder, Nulled, Stop, decoder};
use ef_worker::frame::BATCH_ROWS;
use std::hint::black_box;
use std::time::Duration;

const ROWS: u64 = 100_000;

/// Decodes all of `input`; panics at a bad row.
fn decode(decoder: &mut dyn Decoder, input: &[u8]) -> usize {
    decoder.begin(true);
    let (mut at, mut rows) = (0, 0);
    loop {
        let decoded = decoder.decode(&input[at..], true);
        at += decoded.consumed;
        rows += black_box(decoder.take().expect("whole rows")).num_rows();
        match decoded.stop {
            Stop::Full => {}
            Stop::Input => return rows,
            Stop::Bad(error) => panic!("{error}"),
        }
    }
}

fn encode(format: &Format, schema: &Schema, batches: &[RecordBatch], out: &mut Vec<u8>) {
    let mut encoder = encoder(format, schema, false).expect("a format with an encoder");
    out.clear();
    encoder.header(out);
    batches.iter().try_for_each(|batch| encoder.encode(batch, out)).expect("rows of the schema");
}

/// Rows as messages, and where each ends.
fn messages(format: &Format, schema: &Schema, batches: &[RecordBatch]) -> (Vec<u8>, Vec<usize>) {
    let mut encoder = encoder(format, schema, false).expect("a format with an encoder");
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    batches.iter().try_for_each(|batch| encoder.encode_rows(batch, &mut out, &mut ends)).expect("rows of the schema");
    (out, ends)
}

/// Decodes messages one by one; panics at a bad one.
fn decode_messages(decoder: &mut dyn Decoder, (bytes, ends): &(Vec<u8>, Vec<usize>)) -> usize {
    let (mut start, mut rows) = (0, 0);
    for end in ends {
        rows += decoder.decode_record(&bytes[start..*end], &mut Nulled::default()).expect("a whole message");
        start = *end;
        if decoder.rows() >= BATCH_ROWS {
            black_box(decoder.take().expect("whole rows"));
        }
    }
    black_box(decoder.take().expect("whole rows"));
    rows
}

/// The sensor's reading as a message.
fn reading(folder: &std::path::Path) -> Format {
    let source = "syntax = \"proto3\"; import \"google/protobuf/timestamp.proto\"; message Reading { string device_id = 1; \
                  google.protobuf.Timestamp ts = 2; double temperature = 3; double vibration = 4; double pressure = 5; }";
    std::fs::write(folder.join("reading.proto"), source).expect("writable");
    let mut compiler = protox::Compiler::new([folder]).expect("a folder");
    compiler.include_imports(true).open_file("reading.proto").expect("a message");
    let message = "Reading".to_string();
    let descriptor = protobuf::prune(&compiler.encode_file_descriptor_set(), &message).expect("it is there");
    let (on_error, null_string) = (OnError::Fail, String::new());
    Format::Protobuf(Protobuf { on_error, message, descriptor, read_defaults: false, null_string })
}

fn benches(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = sensor::file(folder.path(), ROWS).expect("a sensor file");
    let lines = std::fs::read(&path).expect("just written");
    let source = |query: &str| -> Source {
        Stage::source(&sql::sensor(&path.to_string_lossy(), query).expect("a query of the workload")).0
    };
    // Every column, and the three that the windows read.
    let (all, pruned) = (source("filter"), source("tumble"));
    let readings = deliver(&all);
    let (auctions, _) = Stage::source(&sql::nexmark(ROWS, "q0").expect("a query of the workload"));
    let events = deliver(&auctions);
    let json = all.format.clone().expect("the sensor file is JSON");
    let csv = Format::Csv(Csv {
        on_error: OnError::Fail,
        delimiter: b',',
        quote: Some(b'"'),
        escape: None,
        null_literal: None,
        comments: false,
        header: false,
    });
    let (mut event_lines, mut csv_lines) = (Vec::new(), Vec::new());
    encode(&json, &auctions.physical, &events, &mut event_lines);
    encode(&csv, &all.physical, &readings, &mut csv_lines);

    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(ROWS));
    for (name, format, schema, input) in [
        ("json/sensor", &json, &all.physical, &lines),
        ("json/sensor, 3 of 5 columns", &json, &pruned.physical, &lines),
        ("json/nexmark", &json, &auctions.physical, &event_lines),
        ("csv/sensor", &csv, &all.physical, &csv_lines),
    ] {
        let mut decoder = decoder(format, schema).expect("a format with a decoder");
        group.bench_function(name, |b| b.iter(|| assert_eq!(decode(decoder.as_mut(), input), ROWS as usize)));
    }
    let Format::Json(options) = &json else { unreachable!("the sensor file is JSON") };
    let debezium = Format::DebeziumJson(DebeziumJson { json: options.clone(), schema_include: false });
    let avro = Format::Avro(Avro { on_error: OnError::Fail, legacy_timestamps: true });
    for (name, format, schema) in [
        ("messages/json/sensor", &json, all.physical.clone()),
        ("messages/avro/sensor", &avro, all.physical.clone()),
        ("messages/protobuf/sensor", &reading(folder.path()), all.physical.clone()),
        ("messages/debezium-json/sensor", &debezium, all.physical.with_op()),
    ] {
        let input = messages(format, &all.physical, &readings);
        let mut decoder = decoder(format, &schema).expect("a format with a decoder");
        group.bench_function(name, |b| b.iter(|| assert_eq!(decode_messages(decoder.as_mut(), &input), ROWS as usize)));
    }
    group.finish();

    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(count(&readings)));
    let mut out = Vec::with_capacity(lines.len() * 2);
    group.bench_function("json/sensor", |b| b.iter(|| encode(&json, &all.physical, &readings, black_box(&mut out))));
    group.bench_function("csv/sensor", |b| b.iter(|| encode(&csv, &all.physical, &readings, black_box(&mut out))));
    group.finish();
}

criterion_group! {
    name = decode_and_encode;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(decode_and_encode);
