//! Scalar functions, value by value.

use super::*;
use Builtin::*;

#[test]
fn texts() {
    check(call(Concat, vec![text("a"), text("b")]), "ab");
    check(call(Concat, vec![text("a"), null(DataType::String)]), "NULL");
    check(call(ConcatWs, vec![text("-"), text("a"), null(DataType::String), text("c")]), "a-c");
    check(call(CharLength, vec![text("grün")]), "4");
    check(call(HashCode, vec![text("hello")]), "99162322");
    check(call(SplitIndex, vec![text("a,b,,c"), text(","), int(3)]), "c");
    check(call(SplitIndex, vec![text("a,b"), text(","), int(2)]), "NULL");
    check(call(SplitIndex, vec![text("a,b"), text(","), int(-1)]), "NULL");
    for (start, length, expected) in
        [(2, Some(2), "üß"), (0, Some(1), "g"), (-2, None, "ße"), (-9, None, ""), (9, None, ""), (1, Some(-1), "NULL")]
    {
        let args = [Some(text("güße")), Some(int(start)), length.map(int)];
        check(call(Substring, args.into_iter().flatten().collect()), expected);
    }
    let json = r#"{"a": {"b": [1, "x", true, null]}}"#;
    for (path, expected) in
        [("$.a.b[1]", "x"), ("$.a['b'][0]", "1"), ("lax $.a.b[2]", "true"), ("$.a.b[3]", "NULL"), ("$.a", "NULL")]
    {
        check(call(JsonValue, vec![text(json), text(path)]), expected);
    }
    check(call(JsonValue, vec![text("{"), text("$.a")]), "NULL");
    check_fails(call(JsonValue, vec![text("{}"), text("a.b")]), "JSON path");
}

#[test]
fn numbers() {
    let dec = |v| decimal(v, 6, 2);
    check(call(Abs, vec![int(-5)]), "5");
    check(call(Floor, vec![float(-1.5)]), "-2.0");
    check(call(Ceil, vec![dec(-150)]), "-1.00");
    check(call(Floor, vec![dec(-150)]), "-2.00");
    check(call(Round, vec![float(1.005), int(2)]), "1.01");
    check(call(Round, vec![float(-2.5)]), "-3.0");
    check(call(Round, vec![float(5.0), int(-200)]), "0.0");
    check(call(Round, vec![float(1e300), int(-200)]), "1.0E300");
    check(call(Round, vec![dec(12345), int(1)]), "123.50");
    check(call(Round, vec![int(-155), int(-1)]), "-160");
    check(call(Sqrt, vec![int(9)]), "3.0");
    check(call(Power, vec![int(2), float(0.5)]), "1.4142135623730951");
    check(call(Exp, vec![float(0.0)]), "1.0");
    check(call(Ln, vec![float(1.0)]), "0.0");
    check(call(Greatest, vec![int(1), int(3), int(2)]), "3");
    check(call(Least, vec![text("b"), text("a")]), "a");
    check(call(Greatest, vec![int(1), null(DataType::Int64)]), "NULL");
}

#[test]
fn times() {
    let ts = || timestamp("2026-03-14 06:59:07.089");
    check(call(ToTimestampLtz, vec![int(1_000)]), "1970-01-01 00:00:01.000");
    check(call(ToTimestampLtz, vec![int(1), int(0)]), "1970-01-01 00:00:01.000");
    check(call(ToTimestamp, vec![text("2026-03-14 06:59:07")]), "2026-03-14 06:59:07.000");
    check(call(ToTimestamp, vec![text("14/03/26 6.59 PM"), text("dd/MM/yy h.mm a")]), "2026-03-14 18:59:00.000");
    check(call(ToTimestamp, vec![text("nonsense")]), "NULL");
    check(call(DateFormat, vec![ts(), text("E dd MMM yyyy 'at' HH:mm:ss.SSS")]), "Sat 14 Mar 2026 at 06:59:07.089");
    check(call(DateFormat, vec![text("2026-03-14"), text("yyyyMMdd")]), "20260314");
    check_fails(call(DateFormat, vec![ts(), text("bb")]), "date pattern 'bb'");
    check(call(UnixTimestamp, vec![text("1970-01-02 00:00:01")]), "86401");
    check(call(FromUnixtime, vec![int(86_401)]), "1970-01-02 00:00:01");
    for (unit, extracted, floor, ceil) in [
        ("YEAR", "2026", "2026-01-01 00:00:00.000", "2027-01-01 00:00:00.000"),
        ("QUARTER", "1", "2026-01-01 00:00:00.000", "2026-04-01 00:00:00.000"),
        ("MONTH", "3", "2026-03-01 00:00:00.000", "2026-04-01 00:00:00.000"),
        ("WEEK", "11", "2026-03-08 00:00:00.000", "2026-03-15 00:00:00.000"),
        ("DAY", "14", "2026-03-14 00:00:00.000", "2026-03-15 00:00:00.000"),
        ("HOUR", "6", "2026-03-14 06:00:00.000", "2026-03-14 07:00:00.000"),
        ("MINUTE", "59", "2026-03-14 06:59:00.000", "2026-03-14 07:00:00.000"),
        ("SECOND", "7", "2026-03-14 06:59:07.000", "2026-03-14 06:59:08.000"),
    ] {
        check(call(Extract, vec![text(unit), ts()]), extracted);
        check(call(FloorTime, vec![text(unit), ts()]), floor);
        check(call(CeilTime, vec![text(unit), ts()]), ceil);
    }
    check(call(Extract, vec![text("DOW"), ts()]), "7");
    check(call(Extract, vec![text("DOY"), ts()]), "73");
    check_fails(call(Extract, vec![text("FORTNIGHT"), ts()]), "FORTNIGHT");
    let diff = |unit, a, b| call(TimestampDiff, vec![text(unit), timestamp(a), timestamp(b)]);
    check(diff("DAY", "2026-03-14", "2026-03-15 23:00:00"), "1");
    check(diff("MONTH", "2026-01-31", "2026-02-28"), "0");
    check(diff("MONTH", "2026-02-28", "2026-01-28"), "-1");
    check(diff("SECOND", "2026-01-01 00:00:01", "2026-01-01"), "-1");
    check(call(CurrentTimestamp, vec![]), "2026-03-14 06:59:00.123");
}

#[test]
fn nested() {
    let array = || call(MakeArray, vec![int(7), null(DataType::Int64), int(9)]);
    check(array(), "[7, NULL, 9]");
    check(call(ElementAt, vec![array(), int(3)]), "9");
    check(call(ElementAt, vec![array(), int(4)]), "NULL");
    check(call(ElementAt, vec![array(), int(0)]), "NULL");
    check(call(Cardinality, vec![array()]), "3");
    check(call(MakeRow, vec![int(1), text("x")]), "(1, x)");
}

#[cfg(not(feature = "functions"))]
#[test]
fn without_the_library_a_call_names_the_function_and_the_feature() {
    let expr = Expr { kind: ExprKind::Call { function: "upper".into(), args: vec![text("a")] }, ty: DataType::String };
    check_fails(expr.clone(), "`upper`");
    check_fails(expr, "cargo feature `functions`");
    check_fails(call(Regexp, vec![text("a"), text("a")]), "cargo feature `functions`");
}

#[cfg(feature = "functions")]
#[test]
fn regular_expressions() {
    check(call(Regexp, vec![text("pump-12"), text("\\d+")]), "TRUE");
    check(call(RegexpExtract, vec![text("pump-12"), text("(\\w+)-(\\d+)"), int(2)]), "12");
    check(call(RegexpExtract, vec![text("pump"), text("\\d")]), "NULL");
    check_fails(call(Regexp, vec![text("a"), text("(")]), "regular expression '('");
}

#[cfg(feature = "functions")]
#[test]
fn library_functions_take_and_give_the_closed_set() {
    let library = |name: &str, args, ty| Expr { kind: ExprKind::Call { function: name.into(), args }, ty };
    check(library("upper", vec![text("a")], DataType::String), "A");
    check(library("btrim", vec![text("  a ")], DataType::String), "a");
    check(library("lpad", vec![text("7"), int(3), text("0")], DataType::String), "007");
    check(library("replace", vec![text("abc"), text("b"), text("x")], DataType::String), "axc");
    check(library("log10", vec![int(1000)], DataType::Float64), "3.0");
    check(library("upper", vec![null(DataType::String)], DataType::String), "NULL");
    check_fails(library("no_such", vec![text("a")], DataType::String), "no_such");
}
