//! Random typed trees, of everything that the evaluator can do and DataFusion (or a rule) can confirm.

use super::data::{self, DECIMALS, TIMESTAMPS};
use crate::expr::cast;
use ef_proto::expr::{BinaryOp, Expr, ExprKind, Scalar, UnaryOp};
use ef_proto::function::Builtin;
use ef_proto::schema::{DataType, Schema, Unit};
use rand::Rng;
use rand::rngs::SmallRng;

pub struct Grower<'a> {
    pub rng: &'a mut SmallRng,
    pub schema: &'a Schema,
}

pub const COMPARISONS: [BinaryOp; 8] = [
    BinaryOp::Eq,
    BinaryOp::NotEq,
    BinaryOp::Lt,
    BinaryOp::LtEq,
    BinaryOp::Gt,
    BinaryOp::GtEq,
    BinaryOp::IsDistinctFrom,
    BinaryOp::IsNotDistinctFrom,
];
const ARITHMETIC: [BinaryOp; 5] = [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Mod];
const BITS: [BinaryOp; 5] =
    [BinaryOp::BitAnd, BinaryOp::BitOr, BinaryOp::BitXor, BinaryOp::ShiftLeft, BinaryOp::ShiftRight];
const UNITS: [&str; 9] = ["YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "SECOND", "MILLISECOND"];

fn kind(kind: ExprKind, ty: DataType) -> Expr {
    Expr { kind, ty }
}

pub fn call(function: Builtin, args: Vec<Expr>) -> Expr {
    let types: Vec<DataType> = args.iter().map(|a| a.ty.clone()).collect();
    let ty = function.result(&types).expect("the grower knows the arguments");
    kind(ExprKind::Call { function: function.name().into(), args }, ty)
}

fn unary(op: UnaryOp, input: Expr) -> Expr {
    let ty = if op == UnaryOp::Negate { input.ty.clone() } else { DataType::Boolean };
    kind(ExprKind::Unary { op, input: Box::new(input) }, ty)
}

fn text(value: &str) -> Expr {
    Expr::literal(Scalar::String(value.into()), DataType::String)
}

impl Grower<'_> {
    fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.rng.random_range(0..items.len())].clone()
    }

    /// A tree of the type, at most `depth` operators deep.
    pub fn expr(&mut self, ty: &DataType, depth: usize) -> Expr {
        if depth == 0 {
            return self.leaf(ty);
        }
        match self.rng.random_range(0..16) {
            0 => self.leaf(ty),
            1 => self.case(ty, depth),
            2 => self.coalesce(ty, depth),
            3 | 4 => self.cast(ty, depth),
            5 => self.access(ty, depth),
            _ => self.of(ty, depth),
        }
    }

    fn leaf(&mut self, ty: &DataType) -> Expr {
        let columns: Vec<usize> = (0..self.schema.len()).filter(|i| self.schema.fields[*i].ty == *ty).collect();
        match self.rng.random_range(0..10) {
            0 => Expr::literal(Scalar::Null, ty.clone()),
            1..=3 if *ty != data::map() => Expr::literal(data::scalar(self.rng, ty), ty.clone()),
            _ => Expr::column(self.pick(&columns), ty.clone()),
        }
    }

    fn case(&mut self, ty: &DataType, depth: usize) -> Expr {
        let branches = (0..self.rng.random_range(1..=3))
            .map(|_| (self.expr(&DataType::Boolean, depth - 1), self.expr(ty, depth - 1)))
            .collect();
        let otherwise = self.rng.random::<bool>().then(|| Box::new(self.expr(ty, depth - 1)));
        kind(ExprKind::Case { branches, otherwise }, ty.clone())
    }

    /// COALESCE as the planner lowers it.
    fn coalesce(&mut self, ty: &DataType, depth: usize) -> Expr {
        let first = self.expr(ty, depth - 1);
        let branches = vec![(unary(UnaryOp::IsNotNull, first.clone()), first)];
        let otherwise = Some(Box::new(self.expr(ty, depth - 1)));
        kind(ExprKind::Case { branches, otherwise }, ty.clone())
    }

    fn cast(&mut self, ty: &DataType, depth: usize) -> Expr {
        let safe = self.rng.random_bool(0.6);
        let mut sources = data::plain_types();
        sources.extend([DataType::Bytes, ty.clone()]);
        sources.retain(|from| cast::kernel(from, ty, safe).is_ok());
        let from = self.pick(&sources);
        let input = self.expr(&from, depth - 1);
        if from == *ty {
            return input;
        }
        kind(ExprKind::Cast { input: Box::new(input), safe }, ty.clone())
    }

    /// A field of a row, an element of an array, a value of a map; the largest or smallest of some.
    fn access(&mut self, ty: &DataType, depth: usize) -> Expr {
        if let DataType::Row(fields) = data::row()
            && let Some(index) = fields.iter().position(|f| f.ty == *ty)
            && self.rng.random_bool(0.6)
        {
            return kind(ExprKind::Field { input: Box::new(self.expr(&data::row(), depth - 1)), index }, ty.clone());
        }
        if *ty == DataType::Int64 {
            if self.rng.random() {
                let list = self.expr(&data::list(), depth - 1);
                let index = self.expr(&DataType::Int64, 0);
                return call(Builtin::ElementAt, vec![list, index]);
            }
            let map = self.expr(&data::map(), 0);
            let key = if self.rng.random() { text(self.pick(&data::KEYS)) } else { self.expr(&DataType::String, 0) };
            return call(Builtin::ElementAt, vec![map, key]);
        }
        if data::plain_types().contains(ty) {
            let args = (0..self.rng.random_range(1..4)).map(|_| self.expr(ty, depth - 1)).collect();
            return call(self.pick(&[Builtin::Greatest, Builtin::Least]), args);
        }
        self.of(ty, depth)
    }

    /// An operator or function that yields the type.
    fn of(&mut self, ty: &DataType, depth: usize) -> Expr {
        let d = depth - 1;
        match ty {
            DataType::Boolean => self.boolean(d),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => self.integer(ty, d),
            DataType::Float32 | DataType::Float64 => self.float(ty, d),
            DataType::Decimal { .. } => self.decimal(ty, d),
            DataType::String => self.string(d),
            DataType::Date | DataType::Time | DataType::Timestamp(_) | DataType::TimestampLtz(_) => self.time(ty, d),
            DataType::Interval => self.interval(d),
            DataType::Array(item) => {
                let items = (0..self.rng.random_range(1..4)).map(|_| self.expr(item, d)).collect();
                call(Builtin::MakeArray, items)
            }
            _ => self.leaf(ty),
        }
    }

    fn boolean(&mut self, d: usize) -> Expr {
        let plain = self.pick(&data::plain_types());
        match self.rng.random_range(0..8) {
            0 | 1 => {
                let op = self.pick(&COMPARISONS);
                if matches!(plain, DataType::Decimal { .. }) {
                    let (left, right) = (self.expr(&plain, d), self.pick(&DECIMALS));
                    return Expr::binary(op, left, self.expr(&right, d), DataType::Boolean);
                }
                Expr::binary(op, self.expr(&plain, d), self.expr(&plain, d), DataType::Boolean)
            }
            2 | 3 => {
                let op = self.pick(&[BinaryOp::And, BinaryOp::Or]);
                let (left, right) = (self.expr(&DataType::Boolean, d), self.expr(&DataType::Boolean, d));
                Expr::binary(op, left, right, DataType::Boolean)
            }
            4 => {
                use UnaryOp as U;
                let op = self.pick(&[U::Not, U::IsTrue, U::IsNotTrue, U::IsFalse, U::IsNotFalse]);
                unary(op, self.expr(&DataType::Boolean, d))
            }
            5 => {
                let any = self.pick(&data::all_types());
                unary(self.pick(&[UnaryOp::IsNull, UnaryOp::IsNotNull]), self.expr(&any, d))
            }
            6 => self.in_list(&plain, d),
            _ if self.rng.random() => self.like(d),
            _ => {
                let (value, low, high) = (self.expr(&plain, d), self.expr(&plain, d), self.expr(&plain, d));
                let low = Expr::binary(BinaryOp::GtEq, value.clone(), low, DataType::Boolean);
                let high = Expr::binary(BinaryOp::LtEq, value, high, DataType::Boolean);
                Expr::binary(BinaryOp::And, low, high, DataType::Boolean)
            }
        }
    }

    /// Items are leaves: whether an item that fails is evaluated after one that matches is left open.
    fn in_list(&mut self, ty: &DataType, d: usize) -> Expr {
        let input = Box::new(self.expr(ty, d));
        let fixed = self.rng.random::<bool>();
        let count = if fixed { self.rng.random_range(1..20) } else { self.rng.random_range(1..4) };
        let list = (0..count)
            .map(|_| match fixed {
                false => self.leaf(ty),
                true if self.rng.random_bool(0.05) => Expr::literal(Scalar::Null, ty.clone()),
                true => Expr::literal(data::scalar(self.rng, ty), ty.clone()),
            })
            .collect();
        kind(ExprKind::InList { input, list, negated: self.rng.random() }, DataType::Boolean)
    }

    fn like(&mut self, d: usize) -> Expr {
        let letters = ["a", "b", "%", "_", "%", "ß", "日", "\\", "!%", "!_", "!!", " "];
        let escape = self.rng.random::<bool>().then_some('!');
        let pattern = if escape.is_some() || self.rng.random() {
            let letters = if escape.is_some() { &letters[..] } else { &letters[..8] };
            text(&(0..self.rng.random_range(0..6)).map(|_| self.pick(letters)).collect::<String>())
        } else {
            self.leaf(&DataType::String)
        };
        let (input, pattern) = (Box::new(self.expr(&DataType::String, d)), Box::new(pattern));
        let negated = self.rng.random();
        kind(ExprKind::Like { input, pattern, escape, negated, case_insensitive: false }, DataType::Boolean)
    }

    fn integer(&mut self, ty: &DataType, d: usize) -> Expr {
        let wide = *ty == DataType::Int64;
        match self.rng.random_range(0..10) {
            0 => unary(UnaryOp::Negate, self.expr(ty, d)),
            1 => call(Builtin::Abs, vec![self.expr(ty, d)]),
            2 => {
                let (left, right) = (self.expr(ty, d), self.expr(ty, d));
                Expr::binary(self.pick(&BITS), left, right, ty.clone())
            }
            3 if wide => {
                let units = ["YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "DOY", "DOW", "ISOYEAR"];
                let clock = ["HOUR", "MINUTE", "SECOND", "MILLISECOND", "MICROSECOND"];
                let time = self.pick(&[
                    DataType::Date,
                    DataType::Time,
                    TIMESTAMPS[0].clone(),
                    TIMESTAMPS[1].clone(),
                    TIMESTAMPS[2].clone(),
                    TIMESTAMPS[3].clone(),
                ]);
                let unit = match time {
                    DataType::Date => self.pick(&units),
                    DataType::Time => self.pick(&clock),
                    _ if self.rng.random() => self.pick(&clock),
                    _ => self.pick(&units),
                };
                call(Builtin::Extract, vec![text(unit), self.expr(&time, d)])
            }
            4 if wide => call(Builtin::UnixTimestamp, vec![self.expr(&TIMESTAMPS[0], d)]),
            3 if *ty == DataType::Int32 => call(Builtin::CharLength, vec![self.expr(&DataType::String, d)]),
            4 if *ty == DataType::Int32 => {
                let of = if self.rng.random() { data::list() } else { data::map() };
                call(Builtin::Cardinality, vec![self.expr(&of, d)])
            }
            5 if *ty == DataType::Int32 => {
                let unit = self.pick(&["DAY", "HOUR", "MINUTE", "SECOND"]);
                let (a, b) = (self.expr(&TIMESTAMPS[0], d), self.expr(&TIMESTAMPS[0], d));
                call(Builtin::TimestampDiff, vec![text(unit), a, b])
            }
            _ => {
                let (left, right) = (self.expr(ty, d), self.expr(ty, d));
                Expr::binary(self.pick(&ARITHMETIC), left, right, ty.clone())
            }
        }
    }

    fn float(&mut self, ty: &DataType, d: usize) -> Expr {
        match self.rng.random_range(0..8) {
            0 => unary(UnaryOp::Negate, self.expr(ty, d)),
            1 | 2 => {
                let function = self.pick(&[Builtin::Abs, Builtin::Floor, Builtin::Ceil]);
                call(function, vec![self.expr(ty, d)])
            }
            3 if *ty == DataType::Float64 => {
                let function = self.pick(&[Builtin::Sqrt, Builtin::Exp, Builtin::Ln]);
                call(function, vec![self.expr(ty, d)])
            }
            4 if *ty == DataType::Float64 => call(Builtin::Power, vec![self.expr(ty, d), self.expr(ty, d)]),
            _ => {
                let (left, right) = (self.expr(ty, d), self.expr(ty, d));
                Expr::binary(self.pick(&ARITHMETIC), left, right, ty.clone())
            }
        }
    }

    fn decimal(&mut self, ty: &DataType, d: usize) -> Expr {
        match self.rng.random_range(0..8) {
            0 => unary(UnaryOp::Negate, self.expr(ty, d)),
            1 => call(Builtin::Abs, vec![self.expr(ty, d)]),
            2 => {
                let digits = Expr::literal(Scalar::Int(self.rng.random_range(0..8)), DataType::Int32);
                call(Builtin::Round, vec![self.expr(ty, d), digits])
            }
            _ => {
                let (left, right) = (self.pick(&DECIMALS), self.pick(&DECIMALS));
                let (left, right) = (self.expr(&left, d), self.expr(&right, d));
                Expr::binary(self.pick(&ARITHMETIC), left, right, ty.clone())
            }
        }
    }

    fn string(&mut self, d: usize) -> Expr {
        let string = DataType::String;
        let library = |name: &str, args| kind(ExprKind::Call { function: name.into(), args }, DataType::String);
        match self.rng.random_range(0..8) {
            0 => Expr::binary(BinaryOp::Concat, self.expr(&string, d), self.expr(&string, d), string),
            1 => {
                let function = self.pick(&[Builtin::Concat, Builtin::ConcatWs]);
                call(function, (0..self.rng.random_range(2..4)).map(|_| self.expr(&string, d)).collect())
            }
            2 => {
                let mut args = vec![self.expr(&string, d), self.expr(&DataType::Int32, 0)];
                if self.rng.random() {
                    args.push(self.expr(&DataType::Int64, 0));
                }
                call(Builtin::Substring, args)
            }
            3 => {
                let delimiter = self.pick(&["a", ",", " ", "ß", "12"]);
                let index = self.expr(&DataType::Int32, 0);
                call(Builtin::SplitIndex, vec![self.expr(&string, d), text(delimiter), index])
            }
            4 => {
                let pattern = self.pick(&["yyyy-MM-dd HH:mm:ss.SSS", "dd/MM/yyyy", "D HH 'o''clock'", "MMM EEEE hh a"]);
                let time = self.pick(&[TIMESTAMPS[0].clone(), TIMESTAMPS[1].clone(), TIMESTAMPS[3].clone()]);
                call(Builtin::DateFormat, vec![self.expr(&time, d), text(pattern)])
            }
            5 => {
                let args = vec![self.expr(&string, d), text("a"), self.leaf(&string)];
                library("replace", args)
            }
            6 => {
                let from = self.pick(&data::plain_types());
                self.expr(&from, d).cast(string)
            }
            _ => library(
                self.pick(&["upper", "lower", "btrim", "ltrim", "reverse", "initcap"]),
                vec![self.expr(&string, d)],
            ),
        }
    }

    fn time(&mut self, ty: &DataType, d: usize) -> Expr {
        match self.rng.random_range(0..4) {
            0 if *ty != DataType::Time => {
                let units = if *ty == DataType::Date { &UNITS[..5] } else { &UNITS[..] };
                let function = self.pick(&[Builtin::FloorTime, Builtin::CeilTime]);
                call(function, vec![text(self.pick(units)), self.expr(ty, d)])
            }
            1 if *ty == TIMESTAMPS[0] => call(Builtin::ToTimestamp, vec![self.expr(&DataType::String, d)]),
            1 if *ty == TIMESTAMPS[3] => {
                let precision = Expr::literal(Scalar::Int(self.pick(&[0, 3])), DataType::Int32);
                let number = self.pick(&[DataType::Int64, DataType::Int32, DataType::Float64, DECIMALS[2].clone()]);
                call(Builtin::ToTimestampLtz, vec![self.expr(&number, d), precision])
            }
            _ => {
                let op = self.pick(&[BinaryOp::Add, BinaryOp::Sub]);
                let mut interval = self.expr(&DataType::Interval, d.min(1));
                if *ty == DataType::Date {
                    // Whole days: what a date makes of hours is the planner's to decide.
                    let Scalar::Interval { months, days, .. } = data::scalar(self.rng, &DataType::Interval) else {
                        unreachable!("the type is INTERVAL")
                    };
                    interval = Expr::literal(Scalar::Interval { months, days, nanos: 0 }, DataType::Interval);
                }
                Expr::binary(op, self.expr(ty, d), interval, ty.clone())
            }
        }
    }

    fn interval(&mut self, d: usize) -> Expr {
        let ty = DataType::Interval;
        match self.rng.random_range(0..5) {
            0 => unary(UnaryOp::Negate, self.expr(&ty, d)),
            1 => {
                let factor = Expr::literal(Scalar::Int(self.rng.random_range(-3..=3)), DataType::Int64);
                Expr::binary(BinaryOp::Mul, self.expr(&ty, d), factor, ty)
            }
            2 => {
                let unit = DataType::Timestamp(Unit::Nano);
                Expr::binary(BinaryOp::Sub, self.expr(&unit, d), self.expr(&unit, d), ty)
            }
            _ => {
                let op = self.pick(&[BinaryOp::Add, BinaryOp::Sub]);
                Expr::binary(op, self.expr(&ty, d), self.expr(&ty, d), ty)
            }
        }
    }
}
