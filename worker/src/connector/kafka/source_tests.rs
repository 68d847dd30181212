//! The source's promises over librdkafka's own cluster of pretence (transactions and a real broker are in `tests/`).
#![expect(clippy::disallowed_methods, reason = "a broker has its own clock; the tests wait for what it sends")]

use super::source::source;
use crate::connector::{Place, Polled, Source};
use crate::error::{Error, Result};
use crate::secrets::Secrets;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, RecordBatch};
use ef_proto::connector::{Options, SourceConnector};
use ef_proto::expr::{Expr, ExprKind};
use ef_proto::ids::{Epoch, OperatorId};
use ef_proto::plan;
use ef_proto::schema::{DataType, Field, Schema, Unit};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

#[derive(Default)]
struct Row<'a> {
    partition: i32,
    key: Option<&'a str>,
    value: Option<&'a str>,
    timestamp: i64,
    headers: &'a [(&'a str, Option<&'a str>)],
}

impl World {
    fn new(topics: &[(&str, i32)]) -> World {
        let cluster = MockCluster::new(1).expect("a cluster");
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1).expect("a topic");
        }
        let producer =
            ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().expect("a client");
        World { cluster, producer }
    }

    fn write(&self, topic: &str, rows: &[Row]) {
        for row in rows {
            let headers = row.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: value.map(str::to_owned).as_ref() })
            });
            let mut record =
                BaseRecord::<str, str>::to(topic).partition(row.partition).timestamp(row.timestamp).headers(headers);
            (record.key, record.payload) = (row.key, row.value);
            self.producer.send(record).map_err(|(error, _)| error).expect("queued");
        }
        self.producer.flush(PATIENCE).expect("written");
    }

    /// Values `{"n": …}`.
    fn numbers(&self, topic: &str, partition: i32, numbers: std::ops::Range<i64>) {
        let texts: Vec<String> = numbers.map(|n| format!("{{\"n\": {n}}}")).collect();
        let row = |text| Row { partition, value: Some(text), timestamp: 1000, ..Row::default() };
        self.write(topic, &texts.iter().map(|text| row(text.as_str())).collect::<Vec<_>>());
    }

    fn table(&self, options: &[(&str, &str)]) -> Table {
        let mut map: BTreeMap<String, String> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        for (key, value) in [("connector", "kafka"), ("scan.startup.mode", "earliest-offset"), ("format", "json")] {
            map.entry(key.into()).or_insert(value.into());
        }
        map.entry("properties.bootstrap.servers".into()).or_insert(self.cluster.bootstrap_servers());
        Table { options: map, fields: vec![Field::new("n", DataType::Int64, true)], metadata: vec![], watermark: false }
    }
}

#[derive(Clone)]
struct Table {
    options: BTreeMap<String, String>,
    fields: Vec<Field>,
    /// Behind the fields.
    metadata: Vec<(&'static str, Field)>,
    /// Batches are of one partition each.
    watermark: bool,
}

impl Table {
    fn open(&self, index: u32, parallelism: u32, blobs: &[Vec<u8>]) -> Result<Box<dyn Source>> {
        let mut options = Options::new("t", self.options.clone());
        let physical = Schema::new(self.fields.clone());
        let (connector, format) =
            SourceConnector::parse(&mut options, &physical).map_err(|e| Error::invalid(e.message))?;
        options.take("error.table");
        options.finish().map_err(|e| Error::invalid(e.message))?;
        let SourceConnector::Kafka(kafka) = &connector else { panic!("a Kafka table") };
        let metadata = self.metadata.iter().enumerate();
        let number = Expr { kind: ExprKind::Column(0), ty: DataType::Int64 };
        let plan = plan::Source {
            table: "t".into(),
            connector: connector.clone(),
            format,
            physical: Schema::new(
                self.fields.iter().chain(self.metadata.iter().map(|(_, field)| field)).cloned().collect(),
            ),
            metadata: metadata.map(|(at, (key, _))| (self.fields.len() + at, key.to_string())).collect(),
            project: vec![],
            watermark: self.watermark.then_some(plan::Watermark { expr: number, idle_timeout_ms: None }),
        };
        let place = Place {
            table: "t".into(),
            index,
            parallelism,
            job: "job".into(),
            operator: OperatorId(1),
            incarnation: 1,
            now_ms: 0,
            secrets: Secrets::default(),
            scratch: std::env::temp_dir(),
            durable: None,
        };
        let start = Instant::now();
        let clock = Box::new(move || start.elapsed().as_millis() as i64);
        source(&plan, kafka, &place, blobs, clock)
    }
}

/// Polls until `enough` says so, or the source has ended; what came.
fn read(
    source: &mut dyn Source,
    mut enough: impl FnMut(&[RecordBatch]) -> bool,
) -> Result<(Vec<RecordBatch>, Vec<RecordBatch>)> {
    let (mut batches, mut errors) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + PATIENCE;
    while !enough(&batches) {
        assert!(Instant::now() < deadline, "nothing came of it: {batches:?}");
        match source.poll(&[])? {
            Polled::Batch(batch) => {
                errors.extend(batch.errors);
                batches.push(batch.batch);
            }
            Polled::End => break,
            Polled::Wait(ms) => std::thread::park_timeout(Duration::from_millis(ms)),
            Polled::Opened(_) | Polled::Closed(_) | Polled::Idle => {}
        }
    }
    Ok((batches, errors))
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

fn sorted(mut numbers: Vec<i64>) -> Vec<i64> {
    numbers.sort();
    numbers
}

#[test]
fn bounded_subtasks_read_each_partition_once_and_more_subtasks_than_partitions_end() {
    let world = World::new(&[("a", 3), ("b", 2)]);
    for (partition, (topic, at)) in [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)].into_iter().enumerate() {
        world.numbers(topic, at, partition as i64 * 1000..partition as i64 * 1000 + 700);
    }
    for parallelism in [1, 2, 7] {
        let table = world.table(&[("topic", "a;b"), ("scan.bounded.mode", "latest-offset")]);
        let mut all = Vec::new();
        for index in 0..parallelism {
            let mut source = table.open(index, parallelism, &[]).expect("opens");
            assert!(source.bounded());
            all.extend(numbers(&read(source.as_mut(), |_| false).expect("reads").0));
        }
        let expected: Vec<i64> = (0..5).flat_map(|p| p * 1000..p * 1000 + 700).collect();
        assert_eq!(sorted(all), expected, "{parallelism}");
    }
}

#[test]
fn positions_go_on_at_another_parallelism_with_exactly_the_rows_that_are_left() {
    let world = World::new(&[("t", 5)]);
    (0..5).for_each(|p| world.numbers("t", p as i32, p * 10_000..p * 10_000 + 9_000));
    let table = world.table(&[("topic", "t"), ("scan.bounded.mode", "latest-offset")]);
    let (mut all, mut blobs) = (Vec::new(), Vec::new());
    for (parallelism, stop_at) in [(2, 3_000), (3, 2_000), (1, 1_000), (4, usize::MAX)] {
        let mut next = Vec::new();
        for index in 0..parallelism {
            let mut source = table.open(index, parallelism, &blobs).expect("opens");
            all.extend(numbers(&read(source.as_mut(), |batches| count(batches) >= stop_at).expect("reads").0));
            next.push(source.position().expect("a position"));
        }
        blobs = next;
    }
    let expected: Vec<i64> = (0..5).flat_map(|p| p * 10_000..p * 10_000 + 9_000).collect();
    assert_eq!(sorted(all), expected);
}

#[test]
fn a_checkpoint_before_the_first_look_keeps_what_was_restored() {
    let world = World::new(&[("t", 2)]);
    (0..2).for_each(|p| world.numbers("t", p, 0..100));
    let table = world.table(&[("topic", "t"), ("scan.bounded.mode", "latest-offset")]);
    let mut source = table.open(0, 1, &[]).expect("opens");
    read(source.as_mut(), |_| false).expect("reads");
    let blob = source.position().expect("a position");
    // Restored, and a checkpoint at once.
    let early = table.open(0, 1, std::slice::from_ref(&blob)).expect("opens").position().expect("a position");
    assert_eq!(String::from_utf8(early), String::from_utf8(blob));
    // Fresh, and a checkpoint at once: everything is read.
    let early = table.open(0, 1, &[]).expect("opens").position().expect("a position");
    let mut source = table.open(0, 1, &[early]).expect("opens");
    assert_eq!(count(&read(source.as_mut(), |_| false).expect("reads").0), 200);
}

#[test]
fn new_topics_of_a_pattern_are_found_and_read_from_their_beginning() {
    let world = World::new(&[("in-1", 1), ("out-1", 1)]);
    world.numbers("in-1", 0, 0..10);
    world.numbers("out-1", 0, 900..910);
    let table = world.table(&[
        ("topic-pattern", "in-.*"),
        ("scan.startup.mode", "latest-offset"),
        ("scan.topic-partition-discovery.interval", "50 ms"),
    ]);
    let mut source = table.open(0, 1, &[]).expect("opens");
    let started = |source: &dyn Source| {
        String::from_utf8(source.position().expect("a position")).expect("text").contains("\"started\":true")
    };
    let deadline = Instant::now() + PATIENCE;
    while !started(source.as_ref()) {
        assert!(Instant::now() < deadline);
        source.poll(&[]).expect("polls");
    }
    world.cluster.create_topic("in-2", 1, 1).expect("a topic");
    world.numbers("in-2", 0, 100..110);
    world.numbers("in-1", 0, 10..20);
    let (batches, _) = read(source.as_mut(), |batches| count(batches) >= 20).expect("reads");
    assert_eq!(sorted(numbers(&batches)), [(10..20).collect::<Vec<i64>>(), (100..110).collect()].concat());
}

#[test]
fn a_subtask_without_partitions_says_that_nobody_is_to_wait_for_it() {
    let world = World::new(&[("t", 1)]);
    let table = world.table(&[("topic", "t")]);
    let idle = (0..2).filter(|index| {
        let mut source = table.open(*index, 2, &[]).expect("opens");
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline);
            match source.poll(&[]).expect("polls") {
                Polled::Idle => return true,
                Polled::Opened(0) => return false,
                _ => {}
            }
        }
    });
    assert_eq!(idle.count(), 1);
}

#[test]
fn key_value_and_metadata_come_together_and_a_tombstone_is_no_row() {
    let world = World::new(&[("t", 1)]);
    let headers = [("h", Some("1")), ("empty", None), ("h", Some("2"))];
    world.write(
        "t",
        &[
            Row {
                key: Some("{\"id\":\"a\"}"),
                value: Some("{\n  \"n\": 1\n}\n"),
                timestamp: 5,
                headers: &headers,
                ..Row::default()
            },
            Row { key: Some("{\"id\":\"a\"}"), timestamp: 6, ..Row::default() },
            Row { value: Some("{\"n\": 2}"), timestamp: 7, ..Row::default() },
            Row { key: Some("no key"), value: Some("{\"n\": 3}"), timestamp: 8, ..Row::default() },
            Row { key: Some("{\"id\":\"c\"}"), value: Some("{\"n\": 4} {}"), timestamp: 9, ..Row::default() },
            Row { key: Some("{\"id\":\"d\"}"), value: Some("{\"n\": 5}"), timestamp: 10, ..Row::default() },
        ],
    );
    let mut table = world.table(&[
        ("topic", "t"),
        ("scan.bounded.mode", "latest-offset"),
        ("key.format", "json"),
        ("key.fields", "k_id"),
        ("key.fields-prefix", "k_"),
        ("value.fields-include", "EXCEPT_KEY"),
        ("error.table", "dead"),
    ]);
    table.fields.push(Field::new("k_id", DataType::String, true));
    let bytes_map = DataType::Map(DataType::String.into(), DataType::Bytes.into());
    table.metadata = vec![
        ("topic", Field::new("topic", DataType::String, false)),
        ("partition", Field::new("partition", DataType::Int32, false)),
        ("offset", Field::new("offset", DataType::Int64, false)),
        ("timestamp", Field::new("ts", DataType::TimestampLtz(Unit::Milli), false)),
        ("headers", Field::new("headers", bytes_map, false)),
        ("key", Field::new("key", DataType::Bytes, true)),
    ];
    let mut source = table.open(0, 1, &[]).expect("opens");
    let (batches, errors) = read(source.as_mut(), |_| false).expect("reads");
    let batch = arrow_select::concat::concat_batches(&batches[0].schema(), &batches).expect("one schema");
    assert_eq!(numbers(std::slice::from_ref(&batch)), [1, 2, 5]);
    let keys: Vec<_> = batch.column(1).as_string::<i32>().iter().collect();
    assert_eq!(keys, [Some("a"), None, Some("d")]);
    assert_eq!(batch.column(2).as_string::<i32>().value(2), "t");
    assert_eq!(batch.column(3).as_primitive::<Int32Type>().values(), &[0, 0, 0]);
    assert_eq!(batch.column(4).as_primitive::<Int64Type>().values(), &[0, 2, 5]);
    assert_eq!(batch.column(5).as_primitive::<TimestampMillisecondType>().values(), &[5, 7, 10]);
    let map = batch.column(6).as_map();
    assert_eq!(map.value_length(0), 2, "the last of equal headers counts");
    assert_eq!(map.keys().as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["h", "empty"]);
    let values: Vec<_> = map.values().as_binary::<i32>().iter().collect();
    assert_eq!(values, [Some(&b"2"[..]), None]);
    assert!(batch.column(7).is_null(1) && batch.column(7).as_binary::<i32>().value(2) == b"{\"id\":\"d\"}");
    assert_eq!(source.counts().tombstones, 1);
    let errors = arrow_select::concat::concat_batches(&errors[0].schema(), &errors).expect("one schema");
    let text = |column: usize| errors.column(column).as_string::<i32>().iter().flatten().collect::<Vec<_>>();
    assert_eq!(text(1), ["t/0", "t/0"]);
    assert_eq!(errors.column(2).as_primitive::<Int64Type>().values(), &[3, 4]);
    assert_eq!(text(3), ["no key", "{\"n\": 4} {}"]);
    assert!(text(4)[1].contains("expected nothing behind the JSON object"), "{:?}", text(4));
}

#[test]
fn a_bad_record_fails_the_source_with_its_place_after_the_rows_before_it() {
    let world = World::new(&[("t", 1)]);
    world.numbers("t", 0, 0..3);
    world.write("t", &[Row { value: Some("{\"n\": \"x\"}"), timestamp: 1, ..Row::default() }]);
    let table = world.table(&[("topic", "t"), ("scan.bounded.mode", "latest-offset")]);
    let mut source = table.open(0, 1, &[]).expect("opens");
    let mut rows = 0;
    let error = loop {
        match read(source.as_mut(), |batches| !batches.is_empty()) {
            Ok((batches, _)) => rows += count(&batches),
            Err(error) => break error,
        }
    };
    assert_eq!(rows, 3);
    assert!(error.message.starts_with("table \"t\": topic t partition 0 offset 3: column \"n\": "), "{error}");
}

#[test]
fn offsets_are_told_to_the_group_when_the_checkpoint_completes() {
    let world = World::new(&[("t", 1)]);
    world.numbers("t", 0, 0..50);
    let table = world.table(&[("topic", "t"), ("properties.group.id", "g"), ("scan.bounded.mode", "latest-offset")]);
    let mut source = table.open(0, 1, &[]).expect("opens");
    read(source.as_mut(), |_| false).expect("reads");
    source.snapshot(Epoch(1)).expect("a position");
    source.completed(Epoch(1)).expect("told");
    drop(source);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", world.cluster.bootstrap_servers()).set("group.id", "g");
    let looker: BaseConsumer = config.create().expect("a client");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition("t", 0);
    let committed = looker.committed_offsets(list, PATIENCE).expect("an answer");
    assert_eq!(committed.elements()[0].offset(), rdkafka::Offset::Offset(50));
    world.numbers("t", 0, 50..60);
    let table = world.table(&[
        ("topic", "t"),
        ("properties.group.id", "g"),
        ("scan.startup.mode", "group-offsets"),
        ("scan.bounded.mode", "latest-offset"),
    ]);
    let mut source = table.open(0, 1, &[]).expect("opens");
    assert_eq!(numbers(&read(source.as_mut(), |_| false).expect("reads").0), (50..60).collect::<Vec<_>>());
}

#[test]
fn startup_and_bounds_by_offsets_are_kept_exactly() {
    let world = World::new(&[("t", 2)]);
    world.numbers("t", 0, 0..100);
    world.numbers("t", 1, 100..200);
    let table = world.table(&[
        ("topic", "t"),
        ("scan.startup.mode", "specific-offsets"),
        ("scan.startup.specific-offsets", "partition:0,offset:42"),
        ("scan.bounded.mode", "specific-offsets"),
        ("scan.bounded.specific-offsets", "partition:0,offset:50;partition:1,offset:3"),
    ]);
    let mut source = table.open(0, 1, &[]).expect("opens");
    let found = sorted(numbers(&read(source.as_mut(), |_| false).expect("reads").0));
    assert_eq!(found, [(42..50).collect::<Vec<i64>>(), (100..103).collect()].concat());
}

#[test]
fn what_is_wrong_at_the_start_is_said_in_clear_words() {
    let world = World::new(&[("t", 1)]);
    world.numbers("t", 0, 0..5);
    let quick = ("properties.default.api.timeout.ms", "1500");
    let bounded = ("scan.bounded.mode", "latest-offset");
    let failure = |options: &[(&str, &str)]| {
        let table = world.table(options);
        let mut source = table.open(0, 1, &[]).expect("opens");
        read(source.as_mut(), |_| false).expect_err("it cannot start").message
    };
    let error = failure(&[("topic", "t"), ("properties.bootstrap.servers", "127.0.0.1:1"), quick]);
    assert!(error.starts_with("table \"t\": topic \"t\": no broker of 127.0.0.1:1 answered: "), "{error}");
    let error = failure(&[("topic-pattern", "x.*"), bounded]);
    assert!(error.contains("matches 'topic-pattern' 'x.*'"), "{error}");
    let error = failure(&[("topic", "t"), ("properties.group.id", "nobody"), ("scan.startup.mode", "group-offsets")]);
    assert!(error.contains("group \"nobody\" has committed no offset of topic t partition 0; set"), "{error}");
    let error = failure(&[
        ("topic", "t"),
        ("scan.startup.mode", "specific-offsets"),
        ("scan.startup.specific-offsets", "partition:0,offset:42"),
    ]);
    assert!(error.contains("topic t partition 0: offset 42 is out of range, it has 0 to 4"), "{error}");
}

#[test]
fn batches_of_several_partitions_are_each_of_one_when_they_have_watermarks() {
    let world = World::new(&[("t", 3)]);
    (0..3).for_each(|p| world.numbers("t", p, p as i64 * 20_000..p as i64 * 20_000 + 20_000));
    for watermark in [false, true] {
        let mut table = world.table(&[("topic", "t"), ("scan.bounded.mode", "latest-offset")]);
        table.watermark = watermark;
        let mut source = table.open(0, 1, &[]).expect("opens");
        let (batches, _) = read(source.as_mut(), |_| false).expect("reads");
        for batch in batches.iter().filter(|_| watermark) {
            let of = numbers(std::slice::from_ref(batch));
            assert!(of.iter().all(|n| n / 20_000 == of[0] / 20_000), "{of:?}");
        }
        assert_eq!(sorted(numbers(&batches)), (0..60_000).collect::<Vec<_>>());
    }
}
