//! Operators: arithmetic, comparison, three-valued logic.

use super::*;
use BinaryOp::*;

#[test]
fn integers_wrap_and_division_by_zero_fails() {
    check(binary(Add, int(i64::MAX), int(1)), "-9223372036854775808");
    check(binary(Div, int(i64::MIN), int(-1)), "-9223372036854775808");
    check(binary(Mod, int(-7), int(3)), "-1");
    check(binary(Div, int(-7), int(2)), "-3");
    check_fails(binary(Div, int(7), int(0)), "7 / 0: division by zero");
    check(binary(Div, float(1.0), float(0.0)), "Infinity");
    check(unary(UnaryOp::Negate, int(i64::MIN)), "-9223372036854775808");
    check(binary(BitXor, int(6), int(3)), "5");
}

#[test]
fn comparisons_are_those_of_sql_not_a_total_order() {
    let values = [f64::NEG_INFINITY, -1.0, -0.0, 0.0, 1.0, f64::INFINITY, f64::NAN, -f64::NAN];
    for a in values {
        for b in values {
            // None with a NaN: Java.
            let order = a.partial_cmp(&b);
            for (op, expected) in [
                (Eq, order.is_some_and(|o| o.is_eq())),
                (NotEq, order.is_none_or(|o| o.is_ne())),
                (Lt, order.is_some_and(|o| o.is_lt())),
                (LtEq, order.is_some_and(|o| o.is_le())),
                (Gt, order.is_some_and(|o| o.is_gt())),
                (GtEq, order.is_some_and(|o| o.is_ge())),
                // What tells values apart knows one NaN.
                (IsNotDistinctFrom, order.map_or(a.is_nan() && b.is_nan(), |o| o.is_eq())),
            ] {
                let shown = if expected { "TRUE" } else { "FALSE" };
                check(binary(op, float(a), float(b)), shown);
                let ty = DataType::Float64;
                let (schema, rows) = batch(vec![(&ty, column(&ty, &[Scalar::Float(a), Scalar::Float(a)]))]);
                for expr in [binary(op, Expr::column(0, ty.clone()), float(b)), binary(op, float(a), float(b))] {
                    assert_eq!(super::shown(&evaluate(&expr, &schema, &rows).unwrap(), &expr.ty), [shown, shown]);
                }
            }
        }
    }
    check(binary(Lt, text("Z"), text("a")), "TRUE");
    check(binary(Eq, text("a"), null(DataType::String)), "NULL");
    check(binary(IsDistinctFrom, text("a"), null(DataType::String)), "TRUE");
    check(binary(IsNotDistinctFrom, null(DataType::Int64), null(DataType::Int64)), "TRUE");
    check(binary(Eq, decimal(150, 10, 2), decimal(15, 10, 1)), "TRUE");
}

#[test]
fn logic_has_three_values() {
    let ty = DataType::Boolean;
    let all = [Some(true), Some(false), None];
    let literal = |v: Option<bool>| match v {
        Some(v) => Expr::literal(Scalar::Boolean(v), DataType::Boolean),
        None => null(DataType::Boolean),
    };
    let show = |v: Option<bool>| match v {
        Some(true) => "TRUE",
        Some(false) => "FALSE",
        None => "NULL",
    };
    for a in all {
        for b in all {
            let and = if a == Some(false) || b == Some(false) { Some(false) } else { a.and(b) };
            let or = if a == Some(true) || b == Some(true) { Some(true) } else { a.and(b) };
            check(binary(And, literal(a), literal(b)), show(and));
            check(binary(Or, literal(a), literal(b)), show(or));
        }
        check(unary(UnaryOp::Not, literal(a)), show(a.map(|a| !a)));
        check(unary(UnaryOp::IsTrue, literal(a)), show(Some(a == Some(true))));
        check(unary(UnaryOp::IsNotTrue, literal(a)), show(Some(a != Some(true))));
        check(unary(UnaryOp::IsFalse, literal(a)), show(Some(a == Some(false))));
        check(unary(UnaryOp::IsNotFalse, literal(a)), show(Some(a != Some(false))));
        check(unary(UnaryOp::IsNull, literal(a)), show(Some(a.is_none())));
    }
    let _ = ty;
}

#[test]
fn rows_that_a_branch_does_not_take_cannot_fail_in_it() {
    let ty = DataType::Int64;
    let (schema, rows) =
        batch(vec![(&ty, column(&ty, &[Scalar::Int(0), Scalar::Int(5), Scalar::Null, Scalar::Int(2)]))]);
    let x = || Expr::column(0, DataType::Int64);
    let quotient = || binary(Div, int(10), x());
    let not_zero = || binary(NotEq, x(), int(0));
    let guarded = binary(And, not_zero(), binary(Gt, quotient(), int(3)));
    let result = evaluate(&guarded, &schema, &rows).unwrap();
    assert_eq!(shown(&result, &DataType::Boolean), ["FALSE", "FALSE", "NULL", "TRUE"]);
    let case = Expr {
        kind: ExprKind::Case { branches: vec![(not_zero(), quotient())], otherwise: Some(Box::new(int(-1))) },
        ty: DataType::Int64,
    };
    let result = evaluate(&case, &schema, &rows).unwrap();
    assert_eq!(shown(&result, &ty), ["-1", "2", "-1", "5"]);
    let error = evaluate(&quotient(), &schema, &rows).unwrap_err();
    assert_eq!(error.message, "(10 / $0): 10 / 0: division by zero");
}

#[test]
fn an_error_needs_a_row_that_meets_it() {
    let ty = DataType::String;
    let (schema, rows) = batch(vec![(&ty, column(&ty, &["7", "x", ""].map(|t| Scalar::String(t.into()))))]);
    let number = || Expr::column(0, DataType::String).cast(DataType::Int64);
    let is = |word: &str| binary(Eq, Expr::column(0, DataType::String), text(word));
    let either = binary(Or, is("x"), binary(Or, is(""), binary(Gt, number(), int(5))));
    assert_eq!(shown(&evaluate(&either, &schema, &rows).unwrap(), &DataType::Boolean), ["TRUE"; 3]);
    let broken = || binary(Div, int(1), int(0));
    let case = |when: Expr, then: Expr, otherwise: Expr| {
        let otherwise = Some(Box::new(otherwise));
        Expr { kind: ExprKind::Case { branches: vec![(when, then)], otherwise }, ty: DataType::Int64 }
    };
    let first = case(is("7"), number(), case(is("nobody"), broken(), int(0)));
    assert_eq!(shown(&evaluate(&first, &schema, &rows).unwrap(), &DataType::Int64), ["7", "0", "0"]);
    assert!(evaluate(&case(is("x"), broken(), int(0)), &schema, &rows).is_err());
    let none = rows.slice(0, 0);
    for expr in [number(), broken(), first, case(is("x"), broken(), int(0))] {
        assert_eq!(evaluate(&expr, &schema, &none).unwrap().len(), 0, "{expr}");
    }
    let calc = ef_proto::plan::Calc { filter: Some(is("7")), project: vec![number()] };
    let output = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
    let passed = CalcProgram::compile(&calc, &schema, &output).unwrap().run(&rows, &NOW).unwrap().expect("one row");
    assert_eq!(shown(passed.column(0), &DataType::Int64), ["7"]);
}

#[test]
fn in_follows_sql_with_nulls() {
    let list = |input: Expr, list: Vec<Expr>, negated| Expr {
        kind: ExprKind::InList { input: Box::new(input), list, negated },
        ty: DataType::Boolean,
    };
    check(list(int(1), vec![int(2), int(1)], false), "TRUE");
    check(list(int(1), vec![int(2), null(DataType::Int64)], false), "NULL");
    check(list(int(1), vec![int(1), null(DataType::Int64)], true), "FALSE");
    check(list(int(1), vec![int(2)], true), "TRUE");
    check(list(text("b"), vec![text("a"), text("b")], false), "TRUE");
    check(list(null(DataType::String), vec![text("a")], false), "NULL");
    check(list(float(0.0), vec![float(-0.0)], false), "TRUE");
    check(list(float(0.0), vec![null(DataType::Float64)], true), "NULL");
}

#[test]
fn like_matches_as_a_naive_recursion_does() {
    fn naive(p: &[char], t: &[char]) -> bool {
        match p.split_first() {
            None => t.is_empty(),
            Some(('%', rest)) => (0..=t.len()).any(|at| naive(rest, &t[at..])),
            Some(('_', rest)) => !t.is_empty() && naive(rest, &t[1..]),
            Some((c, rest)) => t.first() == Some(c) && naive(rest, &t[1..]),
        }
    }
    use rand::{Rng, SeedableRng, rngs::SmallRng};
    let mut rng = SmallRng::seed_from_u64(3);
    let mut word = |letters: &[char], max: usize| -> String {
        (0..rng.random_range(0..=max)).map(|_| letters[rng.random_range(0..letters.len())]).collect()
    };
    for _ in 0..1500 {
        let (pattern, subject) = (word(&['a', 'b', 'ü', '%', '_'], 6), word(&['a', 'b', 'ü'], 8));
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        let expected = if naive(&chars(&pattern), &chars(&subject)) { "TRUE" } else { "FALSE" };
        check(like(&subject, &pattern, None, false), expected);
    }
    check(like("10%", "10!%", Some('!'), false), "TRUE");
    check(like("10x", "10!%", Some('!'), false), "FALSE");
    check(like("HeLLo", "hel%", None, true), "TRUE");
    check_fails(like("a", "a!", Some('!'), false), "escape");
}

fn like(subject: &str, pattern: &str, escape: Option<char>, case_insensitive: bool) -> Expr {
    let (input, pattern) = (Box::new(text(subject)), Box::new(text(pattern)));
    Expr { kind: ExprKind::Like { input, pattern, escape, negated: false, case_insensitive }, ty: DataType::Boolean }
}

#[test]
fn decimals_are_exact_and_null_where_their_type_cannot_hold_them() {
    let op = |op, a, b, precision, scale| Expr::binary(op, a, b, DataType::Decimal { precision, scale });
    check(op(Add, decimal(105, 5, 2), decimal(1, 5, 1), 7, 2), "1.15");
    check(op(Mul, decimal(-105, 5, 2), decimal(105, 5, 2), 10, 3), "-1.103");
    check(op(Div, decimal(200, 5, 2), decimal(300, 5, 2), 10, 6), "0.666667");
    check(op(Mod, decimal(-750, 5, 2), decimal(20, 5, 1), 10, 2), "-1.50");
    check(op(Add, decimal(99, 2, 0), decimal(1, 2, 0), 2, 0), "NULL");
    check_fails(op(Div, decimal(1, 2, 0), decimal(0, 2, 0), 10, 2), "division by zero");
    // Beyond 256 bits on the way: 10^37 / 10^-38 needs 81 digits at the scale 6.
    check(op(Div, decimal(10i128.pow(37), 38, 0), decimal(1, 38, 38), 38, 6), "NULL");
    check(op(Div, decimal(5 * 10i128.pow(37), 38, 38), decimal(-1, 38, 0), 38, 0), "-1");
}

#[test]
fn intervals_move_times_and_times_differ_by_intervals() {
    let interval = |months, days, nanos| Expr::literal(Scalar::Interval { months, days, nanos }, DataType::Interval);
    check(binary(Sub, timestamp("2026-03-14 06:59:00"), interval(0, 0, 5_000_000_000)), "2026-03-14 06:58:55.000");
    check(binary(Add, timestamp("2026-01-31 12:00:00"), interval(1, 0, 0)), "2026-02-28 12:00:00.000");
    check(binary(Add, timestamp("2026-12-31 12:00:00"), interval(0, 1, 0)), "2027-01-01 12:00:00.000");
    // Eleven months more would be beyond 2262, 273 days less is not.
    let nanos = timestamp("2262-01-01 00:00:00").cast(DataType::Timestamp(Unit::Nano));
    check(binary(Add, nanos, interval(11, -300, 0)), "2262-02-04 00:00:00.000000000");
    let apart = Expr::binary(Sub, timestamp("2026-01-02"), timestamp("2026-01-01"), DataType::Interval);
    check(binary(Eq, apart, interval(0, 1, 0)), "TRUE");
}

#[test]
fn a_field_is_null_where_its_row_is() {
    let row = DataType::Row(vec![Field::new("a", DataType::Int64, true)]);
    let values = column(&row, &[Scalar::List(vec![Scalar::Int(4)]), Scalar::Null, Scalar::List(vec![Scalar::Null])]);
    let (schema, rows) = batch(vec![(&row, values)]);
    let input = Box::new(Expr::column(0, row));
    let field = Expr { kind: ExprKind::Field { input, index: 0 }, ty: DataType::Int64 };
    assert_eq!(shown(&evaluate(&field, &schema, &rows).unwrap(), &DataType::Int64), ["4", "NULL", "NULL"]);
}
