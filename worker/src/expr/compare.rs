//! Comparisons as SQL has them: NULL in, NULL out (but for IS [NOT] DISTINCT FROM); `-0.0 = 0.0`; texts and bytes byte
//! by byte. A column against a literal costs one compare a row.
//!
//! Where values are told apart or put into an order, NaN equals itself and is greater than all other floats. The
//! operators of a query ([`operator`]) are Java's, as in Flink: with a NaN on a side only `<>` holds.

use super::decimal;
use super::interval;
use super::value::{Kernel, Value, i32s, i64s, nulls};
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef, BooleanArray, StructArray};
use arrow_buffer::{BooleanBuffer, MutableBuffer, NullBuffer};
use ef_proto::expr::BinaryOp;
use ef_proto::schema::DataType;
use std::cmp::Ordering;
use std::sync::Arc;

/// Bits of `f` over the values, 64 at a time and without bounds checks.
#[inline(always)]
pub(crate) fn pack<T: Copy>(values: &[T], f: impl Fn(T) -> bool) -> BooleanBuffer {
    let mut out = MutableBuffer::with_capacity(values.len().div_ceil(64) * 8);
    for chunk in values.chunks(64) {
        let mut word = 0u64;
        for (bit, value) in chunk.iter().enumerate() {
            word |= (f(*value) as u64) << bit;
        }
        out.push(word);
    }
    BooleanBuffer::new(out.into(), 0, values.len())
}

#[inline(always)]
fn pack2<T: Copy>(left: &[T], right: &[T], f: impl Fn(T, T) -> bool) -> BooleanBuffer {
    let mut out = MutableBuffer::with_capacity(left.len().div_ceil(64) * 8);
    for (l, r) in left.chunks(64).zip(right.chunks(64)) {
        let mut word = 0u64;
        for (bit, (l, r)) in l.iter().zip(r).enumerate() {
            word |= (f(*l, *r) as u64) << bit;
        }
        out.push(word);
    }
    BooleanBuffer::new(out.into(), 0, left.len())
}

/// SQL's order of one physical type.
pub(crate) trait SqlOrd: Copy {
    fn same(self, other: Self) -> bool;
    fn less(self, other: Self) -> bool;
    /// Not NaN, so that the plain operators tell the truth when this is the right side.
    fn plain(self) -> bool {
        true
    }
}

macro_rules! ordered {
    ($($n:ty)*) => {$(impl SqlOrd for $n {
        #[inline(always)]
        fn same(self, other: Self) -> bool { self == other }
        #[inline(always)]
        fn less(self, other: Self) -> bool { self < other }
    })*};
}
ordered!(i8 i16 i32 i64 i128);

macro_rules! float_ordered {
    ($($n:ty)*) => {$(impl SqlOrd for $n {
        #[inline(always)]
        fn same(self, other: Self) -> bool { (self == other) | (self.is_nan() & other.is_nan()) }
        #[inline(always)]
        fn less(self, other: Self) -> bool { (self < other) | (other.is_nan() & !self.is_nan()) }
        fn plain(self) -> bool { !self.is_nan() }
    })*};
}
float_ordered!(f32 f64);

/// SQL's order of two floats: NaN last, the zeros equal.
pub(crate) fn order<T: SqlOrd>(a: T, b: T) -> Ordering {
    if a.less(b) {
        Ordering::Less
    } else if a.same(b) {
        Ordering::Equal
    } else {
        Ordering::Greater
    }
}

fn holds(op: BinaryOp, order: Ordering) -> bool {
    match op {
        BinaryOp::Eq => order.is_eq(),
        BinaryOp::NotEq => order.is_ne(),
        BinaryOp::Lt => order.is_lt(),
        BinaryOp::LtEq => order.is_le(),
        BinaryOp::Gt => order.is_gt(),
        _ => order.is_ge(),
    }
}

const fn flipped(op: BinaryOp) -> BinaryOp {
    match op {
        BinaryOp::Lt => BinaryOp::Gt,
        BinaryOp::LtEq => BinaryOp::GtEq,
        BinaryOp::Gt => BinaryOp::Lt,
        BinaryOp::GtEq => BinaryOp::LtEq,
        same => same,
    }
}

fn with_literal<T: SqlOrd + PartialOrd>(op: BinaryOp, values: &[T], literal: T) -> BooleanBuffer {
    if literal.plain() {
        // A NaN in the column is greater than the literal: the negated forms say so with one compare.
        #[expect(clippy::neg_cmp_op_on_partial_ord, reason = "NaN >= literal is true in SQL")]
        return match op {
            BinaryOp::Eq => pack(values, |v| v == literal),
            BinaryOp::NotEq => pack(values, |v| v != literal),
            BinaryOp::Lt => pack(values, |v| v < literal),
            BinaryOp::LtEq => pack(values, |v| v <= literal),
            BinaryOp::Gt => pack(values, |v| !(v <= literal)),
            _ => pack(values, |v| !(v < literal)),
        };
    }
    pack(values, |v| holds(op, order(v, literal)))
}

fn with_column<T: SqlOrd>(op: BinaryOp, left: &[T], right: &[T]) -> BooleanBuffer {
    match op {
        BinaryOp::Eq => pack2(left, right, |l, r| l.same(r)),
        BinaryOp::NotEq => pack2(left, right, |l, r| !l.same(r)),
        BinaryOp::Lt => pack2(left, right, |l, r| l.less(r)),
        BinaryOp::LtEq => pack2(left, right, |l, r| !r.less(l)),
        BinaryOp::Gt => pack2(left, right, |l, r| r.less(l)),
        _ => pack2(left, right, |l, r| !l.less(r)),
    }
}

/// Bits of the comparison, whatever the NULLs; a constant side is never NULL here.
fn primitive<T: SqlOrd + PartialOrd>(
    op: BinaryOp,
    left: &Value,
    right: &Value,
    values: impl for<'a> Fn(&'a ArrayRef) -> &'a [T],
) -> BooleanBuffer {
    let (l, r) = (values(left.array()), values(right.array()));
    match (left.is_constant(), right.is_constant()) {
        (_, true) => with_literal(op, l, r[0]),
        (true, false) => with_literal(flipped(op), r, l[0]),
        (false, false) => with_column(op, l, r),
    }
}

fn bits(op: BinaryOp, left: &Value, right: &Value, lt: &DataType, rt: &DataType, rows: usize) -> BooleanBuffer {
    match lt {
        DataType::Boolean => {
            let (l, r) = (left.cells::<BooleanArray>(), right.cells::<BooleanArray>());
            by_row(rows, |row| Some(holds(op, l.get(row)?.cmp(&r.get(row)?))))
        }
        DataType::Int8 => primitive(op, left, right, |a| a.as_primitive::<Int8Type>().values()),
        DataType::Int16 => primitive(op, left, right, |a| a.as_primitive::<Int16Type>().values()),
        DataType::Int32 | DataType::Date | DataType::Time => primitive(op, left, right, |a| i32s(a, lt)),
        DataType::Int64 | DataType::Timestamp(_) | DataType::TimestampLtz(_) => {
            primitive(op, left, right, |a| i64s(a, lt))
        }
        DataType::Float32 => primitive(op, left, right, |a| a.as_primitive::<Float32Type>().values()),
        DataType::Float64 => primitive(op, left, right, |a| a.as_primitive::<Float64Type>().values()),
        DataType::Decimal { .. } if lt == rt => {
            primitive(op, left, right, |a| a.as_primitive::<Decimal128Type>().values())
        }
        DataType::String => {
            let (l, r) = (left.texts(), right.texts());
            by_row(rows, |row| Some(holds(op, l.get(row)?.as_bytes().cmp(r.get(row)?.as_bytes()))))
        }
        _ => {
            let order = comparator(lt, rt, left.array().clone(), right.array().clone());
            let (lc, rc) = (left.is_constant(), right.is_constant());
            let (lv, rv) = (left.array(), right.array());
            by_row(rows, |row| {
                let (l, r) = (if lc { 0 } else { row }, if rc { 0 } else { row });
                (lv.is_valid(l) && rv.is_valid(r)).then(|| holds(op, order(l, r)))
            })
        }
    }
}

fn by_row(rows: usize, f: impl Fn(usize) -> Option<bool>) -> BooleanBuffer {
    BooleanBuffer::collect_bool(rows, |row| f(row).unwrap_or(false))
}

type Comparator = Box<dyn Fn(usize, usize) -> Ordering>;

/// The order of two rows for the types that have no fast path, nested ones included (NULL first inside them).
fn comparator(lt: &DataType, rt: &DataType, left: ArrayRef, right: ArrayRef) -> Comparator {
    fn item(lt: &DataType, rt: &DataType, left: ArrayRef, right: ArrayRef) -> Comparator {
        let order = comparator(lt, rt, left.clone(), right.clone());
        Box::new(move |l, r| match (left.is_valid(l), right.is_valid(r)) {
            (true, true) => order(l, r),
            (l, r) => l.cmp(&r),
        })
    }
    match (lt, rt) {
        (DataType::Decimal { scale: a, .. }, DataType::Decimal { scale: b, .. }) => {
            let (a, b) = (*a, *b);
            Box::new(move |l, r| {
                let (left, right) = (left.as_primitive::<Decimal128Type>(), right.as_primitive::<Decimal128Type>());
                decimal::compare(left.value(l), a, right.value(r), b)
            })
        }
        (DataType::Bytes, _) => {
            Box::new(move |l, r| left.as_binary::<i32>().value(l).cmp(right.as_binary::<i32>().value(r)))
        }
        (DataType::Interval, _) => Box::new(move |l, r| {
            let value = |a: &ArrayRef, row| interval::length(a.as_primitive::<IntervalMonthDayNanoType>().value(row));
            value(&left, l).cmp(&value(&right, r))
        }),
        (DataType::Row(a), DataType::Row(b)) => {
            let columns = |array: &ArrayRef| array.as_any().downcast_ref::<StructArray>().map(|s| s.columns().to_vec());
            let (left, right) = (columns(&left).unwrap_or_default(), columns(&right).unwrap_or_default());
            let fields: Vec<Comparator> = a
                .iter()
                .zip(b)
                .zip(left.into_iter().zip(right))
                .map(|((a, b), (l, r))| item(&a.ty, &b.ty, l, r))
                .collect();
            Box::new(move |l, r| fields.iter().map(|f| f(l, r)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal))
        }
        (DataType::Array(a), DataType::Array(b)) => {
            let (lists, others) = (left.as_list::<i32>().clone(), right.as_list::<i32>().clone());
            let order = item(a, b, lists.values().clone(), others.values().clone());
            Box::new(move |l, r| {
                let range = |list: &arrow_array::ListArray, row| {
                    let offsets = list.value_offsets();
                    offsets[row] as usize..offsets[row + 1] as usize
                };
                let (l, r) = (range(&lists, l), range(&others, r));
                let lengths = l.len().cmp(&r.len());
                l.zip(r).map(|(l, r)| order(l, r)).find(|o| o.is_ne()).unwrap_or(lengths)
            })
        }
        (ty, _) => {
            let ty = ty.clone();
            Box::new(move |l, r| {
                let (l, r) = (Value::Constant(left.slice(l, 1)), Value::Constant(right.slice(r, 1)));
                let is = |op| bits(op, &l, &r, &ty, &ty, 1).value(0);
                if is(BinaryOp::Lt) {
                    Ordering::Less
                } else if is(BinaryOp::Eq) {
                    Ordering::Equal
                } else {
                    Ordering::Greater
                }
            })
        }
    }
}

fn valid(value: &Value, rows: usize) -> BooleanBuffer {
    match (value.is_constant(), value.array().nulls()) {
        (_, None) => BooleanBuffer::new_set(rows),
        (true, Some(nulls)) if nulls.is_null(0) => BooleanBuffer::new_unset(rows),
        (true, Some(_)) => BooleanBuffer::new_set(rows),
        (false, Some(nulls)) => nulls.inner().clone(),
    }
}

/// Java's comparisons: none holds for a NaN but `<>`.
fn plain<T: Copy + PartialOrd>(
    op: BinaryOp,
    left: &Value,
    right: &Value,
    values: impl for<'a> Fn(&'a ArrayRef) -> &'a [T],
) -> BooleanBuffer {
    fn literal<T: Copy + PartialOrd>(op: BinaryOp, values: &[T], literal: T) -> BooleanBuffer {
        match op {
            BinaryOp::Eq => pack(values, |v| v == literal),
            BinaryOp::NotEq => pack(values, |v| v != literal),
            BinaryOp::Lt => pack(values, |v| v < literal),
            BinaryOp::LtEq => pack(values, |v| v <= literal),
            BinaryOp::Gt => pack(values, |v| v > literal),
            _ => pack(values, |v| v >= literal),
        }
    }
    let (l, r) = (values(left.array()), values(right.array()));
    match (left.is_constant(), right.is_constant()) {
        (_, true) => literal(op, l, r[0]),
        (true, false) => literal(flipped(op), r, l[0]),
        (false, false) => match op {
            BinaryOp::Eq => pack2(l, r, |l, r| l == r),
            BinaryOp::NotEq => pack2(l, r, |l, r| l != r),
            BinaryOp::Lt => pack2(l, r, |l, r| l < r),
            BinaryOp::LtEq => pack2(l, r, |l, r| l <= r),
            BinaryOp::Gt => pack2(l, r, |l, r| l > r),
            _ => pack2(l, r, |l, r| l >= r),
        },
    }
}

/// The kernel of an operator that a query has written: as [`binary`], but with Java's comparisons of floats.
pub(crate) fn operator(op: BinaryOp, left: &DataType, right: &DataType) -> Option<Kernel> {
    if !op.is_comparison() || left != right {
        return binary(op, left, right);
    }
    match left {
        DataType::Float32 => {
            Some(nullable(move |l, r, _| plain(op, l, r, |a| a.as_primitive::<Float32Type>().values())))
        }
        DataType::Float64 => {
            Some(nullable(move |l, r, _| plain(op, l, r, |a| a.as_primitive::<Float64Type>().values())))
        }
        _ => binary(op, left, right),
    }
}

/// The bits where neither side is NULL.
fn nullable(bits: impl Fn(&Value, &Value, usize) -> BooleanBuffer + Send + Sync + 'static) -> Kernel {
    Box::new(move |args, rows| {
        let (l, r) = (&args[0], &args[1]);
        if l.is_null_constant() || r.is_null_constant() {
            return Ok(nulls(&DataType::Boolean, rows));
        }
        let nulls = match (l.is_constant(), r.is_constant()) {
            (false, true) => l.array().nulls().cloned(),
            (true, false) => r.array().nulls().cloned(),
            _ => NullBuffer::union(l.array().nulls(), r.array().nulls()),
        };
        Ok(Arc::new(BooleanArray::new(bits(l, r, rows), nulls)))
    })
}

/// The kernel of a comparison of these types; None where they cannot be compared.
pub(crate) fn binary(op: BinaryOp, left: &DataType, right: &DataType) -> Option<Kernel> {
    let decimals = matches!((left, right), (DataType::Decimal { .. }, DataType::Decimal { .. }));
    if left != right && !decimals || !comparable(left) {
        return None;
    }
    let (lt, rt) = (left.clone(), right.clone());
    if matches!(op, BinaryOp::IsDistinctFrom | BinaryOp::IsNotDistinctFrom) {
        return Some(Box::new(move |args, rows| {
            let (l, r) = (valid(&args[0], rows), valid(&args[1], rows));
            let both = &l & &r;
            let neither = !&(&l | &r);
            let known = if args.iter().any(Value::is_null_constant) {
                BooleanBuffer::new_unset(rows)
            } else {
                &bits(BinaryOp::Eq, &args[0], &args[1], &lt, &rt, rows) & &both
            };
            let same = &known | &neither;
            Ok(Arc::new(BooleanArray::new(if op == BinaryOp::IsDistinctFrom { !&same } else { same }, None)))
        }));
    }
    Some(nullable(move |l, r, rows| bits(op, l, r, &lt, &rt, rows)))
}

fn comparable(ty: &DataType) -> bool {
    match ty {
        DataType::Map(..) | DataType::Null => false,
        DataType::Row(fields) => fields.iter().all(|f| comparable(&f.ty)),
        DataType::Array(item) => comparable(item),
        _ => true,
    }
}
