//! Lookup joins against their definition, over random batches and a table that answers late and out of order.

use super::*;
use crate::operator::testing::{Value, World, batch_of, input, random_row, rows_of, same_rows, value};
use crate::state::Kind;
use arrow_array::{Int64Array, RecordBatchOptions, StringArray};
use ef_proto::connector::RedisServer;
use ef_proto::connector::lookup::{LookupCache, LookupConnector, LookupOptions, RedisLookup, RedisLookupMode};
use ef_proto::expr::{BinaryOp, Scalar};
use ef_proto::plan::LookupKey;
use ef_proto::schema::{DataType, Field};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Rows (name, n) by key.
type Table = BTreeMap<String, Vec<Vec<Value>>>;

/// What the operator has asked so far.
#[derive(Default)]
struct Seen {
    keys: usize,
    open: usize,
}

struct Fake {
    table: Table,
    values: Schema,
    open: Vec<(u64, RecordBatch)>,
    rng: SmallRng,
    seen: Arc<Mutex<Seen>>,
    /// One of so many polls has an answer. None: none ever has.
    late: Option<u32>,
    /// Fails with this request.
    fails_at: Option<u64>,
    polls: usize,
    left: Option<Arc<AtomicBool>>,
}

fn key_of(batch: &RecordBatch, row: usize) -> String {
    let values: Vec<Value> = batch.columns().iter().map(|column| value(column, row)).collect();
    format!("{values:?}")
}

impl Fake {
    fn answer(&self, id: u64, keys: &RecordBatch) -> Answer {
        let found: Vec<&[Vec<Value>]> =
            (0..keys.num_rows()).map(|row| self.table.get(&key_of(keys, row)).map_or(&[][..], Vec::as_slice)).collect();
        let counts = found.iter().map(|rows| rows.len() as u32).collect();
        let rows: Vec<&Vec<Value>> = found.into_iter().flatten().collect();
        let columns = self.values.fields.iter().map(|field| -> ArrayRef {
            match field.name.as_str() {
                "name" => Arc::new(rows.iter().map(|row| text(&row[0])).collect::<StringArray>()),
                _ => Arc::new(rows.iter().map(|row| number(&row[1])).collect::<Int64Array>()),
            }
        });
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns = columns.collect();
        let rows = RecordBatch::try_new_with_options(self.values.to_arrow(), columns, &options).unwrap();
        Answer { id, rows, counts }
    }
}

fn text(value: &Value) -> Option<String> {
    if let Value::Text(text) = value { Some(text.clone()) } else { None }
}

fn number(value: &Value) -> Option<i64> {
    if let Value::Int(number) = value { Some(*number) } else { None }
}

impl Lookup for Fake {
    fn request(&mut self, id: u64, keys: RecordBatch) -> Result<()> {
        let mut distinct: Vec<String> = (0..keys.num_rows()).map(|row| key_of(&keys, row)).collect();
        assert!(distinct.iter().all(|key| !key.contains("Null")), "a NULL is no key: {distinct:?}");
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), keys.num_rows(), "each key once");
        self.open.push((id, keys));
        assert!(self.open.len() <= REQUESTS_MAX);
        let mut seen = self.seen.lock().unwrap();
        (seen.keys, seen.open) = (seen.keys + distinct.len(), self.open.len());
        Ok(())
    }

    fn poll(&mut self, _wait: Duration) -> Result<Option<Answer>> {
        self.polls += 1;
        if let Some(left) = self.left.as_ref().filter(|_| self.polls > 3) {
            left.store(true, Ordering::Relaxed);
        }
        let Some(late) = self.late else { return Ok(None) };
        if self.open.is_empty() || self.rng.random_range(0..late) > 0 {
            return Ok(None);
        }
        let (id, keys) = self.open.swap_remove(self.rng.random_range(0..self.open.len()));
        self.seen.lock().unwrap().open = self.open.len();
        if self.fails_at.is_some_and(|at| id >= at) {
            return Err(Error::new(Code::Unavailable, "lookup of table `t`, id = '7': gone"));
        }
        Ok(Some(self.answer(id, &keys)))
    }
}

fn spec(kind: JoinKind, two_keys: bool, filtered: bool, cache: Option<LookupCache>) -> plan::LookupJoin {
    let id = Field::new("id", DataType::Int64, true);
    let name = Field::new("name", DataType::String, true);
    let mut keys = vec![LookupKey { field: id.clone(), value: LookupValue::Column(0) }];
    if two_keys {
        keys.push(LookupKey { field: name.clone(), value: LookupValue::Column(1) });
    }
    let left = input().len();
    let column = |at| Expr::column(at, DataType::Int64);
    let filter = filtered.then(|| Expr::binary(BinaryOp::Gt, column(4), column(left + 2), DataType::Boolean));
    plan::LookupJoin {
        table: "t".into(),
        connector: LookupConnector::Redis(RedisLookup {
            server: RedisServer {
                host: "localhost".into(),
                port: 6379,
                database: 0,
                tls: false,
                username: None,
                password: None,
                connect_timeout_ms: 1,
                command_timeout_ms: 1,
            },
            mode: RedisLookupMode::Hash,
            key_prefix: String::new(),
            key_separator: ":".into(),
        }),
        format: None,
        options: LookupOptions { cache, max_retries: 0, capacity: 100, timeout_ms: 1_000 },
        kind,
        keys,
        right: Schema::new(vec![id, name, Field::new("n", DataType::Int64, true)]),
        filter,
    }
}

fn join(spec: &plan::LookupJoin, table: &Table, seed: u64, late: Option<u32>) -> (LookupJoin, Arc<Mutex<Seen>>) {
    let (fake, seen) = fake(spec, table, seed, late);
    (built(spec, fake), seen)
}

fn fake(spec: &plan::LookupJoin, table: &Table, seed: u64, late: Option<u32>) -> (Fake, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let rng = SmallRng::seed_from_u64(seed);
    let (table, values) = (table.clone(), spec.values());
    let open = vec![];
    (Fake { table, values, open, rng, seen: seen.clone(), late, fails_at: None, polls: 0, left: None }, seen)
}

fn built(spec: &plan::LookupJoin, fake: Fake) -> LookupJoin {
    let output = Schema::new(input().fields.into_iter().chain(spec.right.fields.iter().cloned()).collect());
    LookupJoin::new(spec, &input(), &output, Box::new(fake)).unwrap()
}

/// One in three keys has a row, some have several.
fn random_table(rng: &mut SmallRng, two_keys: bool) -> Table {
    let mut table = Table::new();
    for k in 0..4 {
        for device in 0..3 {
            let name = Value::Text(format!("dev-{device}"));
            let key = if two_keys { vec![Value::Int(k), name.clone()] } else { vec![Value::Int(k)] };
            let rows = (0..[0, 0, 1, 1, 3][rng.random_range(0..5)]).map(|_| {
                let n = if rng.random_bool(0.2) { Value::Null } else { Value::Int(rng.random_range(-5..5)) };
                vec![name.clone(), n]
            });
            table.insert(format!("{key:?}"), rows.collect());
        }
    }
    table
}

/// The join by its definition.
fn naive(spec: &plan::LookupJoin, table: &Table, row: &[Value]) -> Vec<Vec<Value>> {
    let key: Vec<Value> = if spec.keys.len() == 2 { row[..2].to_vec() } else { row[..1].to_vec() };
    let none = vec![];
    let found = if key.contains(&Value::Null) { &none } else { table.get(&format!("{key:?}")).unwrap_or(&none) };
    let passes = |other: &&Vec<Value>| match (&spec.filter, &row[4], &other[1]) {
        (None, ..) => true,
        (_, Value::Int(i), Value::Int(n)) => i > n,
        _ => false,
    };
    let pair = |other: &Vec<Value>| [row, &[row[0].clone(), other[0].clone(), other[1].clone()]].concat();
    let mut pairs: Vec<Vec<Value>> = found.iter().filter(passes).map(pair).collect();
    if pairs.is_empty() && spec.kind == JoinKind::Left {
        pairs.push([row, &[Value::Null, Value::Null, Value::Null]].concat());
    }
    pairs
}

fn cache(rows_max: Option<u64>) -> LookupCache {
    LookupCache {
        rows_max,
        bytes_max: 1 << 20,
        expire_after_write_ms: Some(1_000),
        expire_after_access_ms: None,
        missing_keys: true,
    }
}

#[test]
fn rows_come_in_order_with_their_matches_and_nothing_overtakes_them() {
    for seed in 0..300 {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let kind = if rng.random_bool(0.5) { JoinKind::Left } else { JoinKind::Inner };
        let two_keys = rng.random_bool(0.5);
        let kept = [None, Some(cache(None)), Some(cache(Some(3)))][rng.random_range(0..3)].clone();
        let spec = spec(kind, two_keys, rng.random_bool(0.5), kept);
        let table = random_table(rng, two_keys);
        let (mut operator, _) = join(&spec, &table, seed, Some(rng.random_range(1..6)));
        let mut world = World::new(Kind::Memory);
        let mut expected = Vec::new();
        for step in 0..40 {
            let now_ms = world.now_ms + rng.random_range(0..100);
            match rng.random_range(0..8) {
                0 => operator.on_clock(&mut world.at(now_ms)).unwrap(),
                1 => {
                    operator.on_watermark(step, &mut world.at(now_ms)).unwrap();
                    assert_eq!(rows_of(&world.sink.main).len(), expected.len(), "seed {seed}: behind a watermark");
                }
                2 => {
                    operator.before_barrier(&mut world.at(now_ms)).unwrap();
                    assert_eq!(rows_of(&world.sink.main).len(), expected.len(), "seed {seed}: behind a barrier");
                    assert_eq!(operator.pending_bytes, 0);
                }
                _ => {
                    let rows: Vec<Vec<Value>> = (0..rng.random_range(1..30)).map(|t| random_row(rng, t)).collect();
                    expected.extend(rows.iter().flat_map(|row| naive(&spec, &table, row)));
                    operator.on_batch(0, batch_of(&rows), &mut world.at(now_ms)).unwrap();
                }
            }
            assert!(rows_of(&world.sink.main).len() <= expected.len());
        }
        operator.on_end(&mut world.scope()).unwrap();
        let found = rows_of(&world.sink.main);
        assert!(same_rows(&found, &expected), "seed {seed}\n{found:?}\n{expected:?}");
    }
}

#[test]
fn matches_beyond_a_batch_leave_in_batches() {
    let spec = spec(JoinKind::Left, false, true, None);
    let many: Vec<Vec<Value>> =
        (0..10_000).map(|n| vec![Value::Text("x".into()), Value::Int(if n % 2 == 0 { -10 } else { 10 })]).collect();
    let table = Table::from([(format!("{:?}", [Value::Int(1)]), many)]);
    let mut row = random_row(&mut SmallRng::seed_from_u64(1), 5);
    (row[0], row[4]) = (Value::Int(1), Value::Int(0));
    let (mut operator, _) = join(&spec, &table, 1, Some(1));
    let mut world = World::new(Kind::Memory);
    operator.on_batch(0, batch_of(&[row.clone(), row.clone()]), &mut world.scope()).unwrap();
    operator.on_end(&mut world.scope()).unwrap();
    let expected: Vec<Vec<Value>> = [&row, &row].into_iter().flat_map(|row| naive(&spec, &table, row)).collect();
    assert_eq!(expected.len(), 10_000);
    assert!(same_rows(&rows_of(&world.sink.main), &expected));
    assert!(world.sink.main.iter().all(|batch| batch.num_rows() <= crate::frame::BATCH_ROWS));
}

#[test]
fn what_the_cache_knows_is_not_asked_for_again_until_it_is_old() {
    let spec = spec(JoinKind::Inner, false, false, Some(cache(None)));
    let table = Table::from([(format!("{:?}", [Value::Int(1)]), vec![vec![Value::Text("x".into()), Value::Int(1)]])]);
    let (mut operator, seen) = join(&spec, &table, 1, Some(1));
    let mut world = World::new(Kind::Memory);
    let mut row = random_row(&mut SmallRng::seed_from_u64(1), 5);
    let mut asked = Vec::new();
    for (k, now_ms) in [(1, 0), (1, 1), (2, 2), (2, 3), (1, 999), (1, 1_000), (2, 1_001), (2, 1_002)] {
        row[0] = Value::Int(k);
        operator.on_batch(0, batch_of(&[row.clone(), row.clone()]), &mut world.at(now_ms)).unwrap();
        operator.before_barrier(&mut world.scope()).unwrap();
        asked.push(seen.lock().unwrap().keys);
    }
    assert_eq!(asked, [1, 1, 2, 2, 2, 3, 3, 4]);
    assert_eq!(rows_of(&world.sink.main).len(), 8);
    assert!(operator.memory_bytes() > 0);
}

#[test]
fn at_most_so_many_batches_wait_and_the_next_is_held_back() {
    let spec = spec(JoinKind::Inner, false, false, None);
    let (mut operator, seen) = join(&spec, &Table::new(), 7, Some(40));
    let mut world = World::new(Kind::Memory);
    let rng = &mut SmallRng::seed_from_u64(7);
    let mut most = 0;
    for _ in 0..200 {
        let mut row = random_row(rng, 1);
        row[0] = Value::Int(rng.random_range(0..4));
        operator.on_batch(0, batch_of(&[row]), &mut world.scope()).unwrap();
        most = most.max(seen.lock().unwrap().open);
        assert!(operator.pending.len() < REQUESTS_MAX);
    }
    assert!(most > 1, "batches overlap");
}

#[test]
fn a_lookup_that_fails_fails_the_operator_with_its_reason() {
    let spec = spec(JoinKind::Left, false, false, None);
    let (mut fake, _) = fake(&spec, &Table::new(), 3, Some(1));
    fake.fails_at = Some(1);
    let mut operator = built(&spec, fake);
    let mut world = World::new(Kind::Memory);
    let mut row = random_row(&mut SmallRng::seed_from_u64(1), 5);
    row[0] = Value::Int(1);
    operator.on_batch(0, batch_of(&[row.clone()]), &mut world.scope()).unwrap();
    let error = operator
        .on_batch(0, batch_of(&[row]), &mut world.scope())
        .and_then(|()| operator.before_barrier(&mut world.scope()))
        .unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (Code::Unavailable, "lookup of table `t`, id = '7': gone"));
    assert_eq!(rows_of(&world.sink.main).len(), 1, "what was answered before has left");
}

#[test]
fn waiting_for_an_answer_ends_when_the_task_is_told_to_leave() {
    let spec = spec(JoinKind::Left, false, false, None);
    let (mut fake, _) = fake(&spec, &Table::new(), 3, None);
    let left = Arc::new(AtomicBool::new(false));
    fake.left = Some(left.clone());
    let mut operator = built(&spec, fake);
    operator.heed(left);
    let mut world = World::new(Kind::Memory);
    let mut row = random_row(&mut SmallRng::seed_from_u64(1), 5);
    row[0] = Value::Int(1);
    operator.on_batch(0, batch_of(&[row]), &mut world.scope()).unwrap();
    assert!(operator.on_watermark(5, &mut world.scope()).is_err());
}

#[test]
fn a_constant_is_a_key_like_any_other() {
    let mut spec = spec(JoinKind::Inner, true, false, None);
    spec.keys[1].value = LookupValue::Constant(Scalar::String("dev-1".into()));
    let key = [Value::Int(1), Value::Text("dev-1".into())];
    let table = Table::from([(format!("{key:?}"), vec![vec![Value::Text("dev-1".into()), Value::Int(9)]])]);
    let (mut operator, seen) = join(&spec, &table, 3, Some(1));
    let mut world = World::new(Kind::Memory);
    let mut row = random_row(&mut SmallRng::seed_from_u64(1), 5);
    row[0] = Value::Int(1);
    operator.on_batch(0, batch_of(&[row.clone(), row]), &mut world.scope()).unwrap();
    operator.on_end(&mut world.scope()).unwrap();
    let found = rows_of(&world.sink.main);
    assert_eq!((found.len(), seen.lock().unwrap().keys), (2, 1));
    assert_eq!(found[0][8..], [Value::Int(1), Value::Text("dev-1".into()), Value::Int(9)]);
}
