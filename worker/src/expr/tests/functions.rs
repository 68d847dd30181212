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
    check(call(SplitIndex, vec![text(""), text(","), int(0)]), "NULL");
    check(call(SplitIndex, vec![text("a,b"), int(44), int(1)]), "b");
    check(call(SplitIndex, vec![text("a,b"), int(300), int(0)]), "NULL");
    check(call(HashCode, vec![text("FFFFFFF")]), "228409850");
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
fn pieces_of_texts() {
    let t = |name: Builtin, s: &str, n| call(name, vec![text(s), int(n)]);
    check(t(Left, "grün", 3), "grü");
    check(t(Left, "hello", -1), "");
    check(t(Right, "grün", 2), "ün");
    check(t(Right, "hello", -1), "");
    check(t(Right, "hello", 9), "hello");
    let pad = |name: Builtin, n, with| call(name, vec![text("hi"), int(n), text(with)]);
    check(pad(Lpad, 5, "?!"), "?!?hi");
    check(pad(Rpad, 5, "?!"), "hi?!?");
    check(pad(Lpad, 1, "?"), "h");
    check(pad(Lpad, -1, "?"), "NULL");
    check(pad(Rpad, -1, "?"), "NULL");
    check(pad(Lpad, 5, ""), "NULL");
    check_fails(pad(Lpad, 2_000_000_000, "x"), "longer than the 16 MiB");
    check(t(Repeat, "ab", 3), "ababab");
    check(t(Repeat, "ab", -1), "");
    check_fails(t(Repeat, "a", 1_000_000_000), "longer than the 16 MiB");
    for (code, expected) in [(97, "a"), (353, "a"), (-1, ""), (228, "ä")] {
        check(call(Chr, vec![int(code)]), expected);
    }
    let over = |start, length: Option<i64>| {
        let args = [Some(text("hello world")), Some(text("XX")), Some(int(start)), length.map(int)];
        call(Overlay, args.into_iter().flatten().collect())
    };
    check(over(2, None), "hXXlo world");
    check(over(2, Some(4)), "hXX world");
    check(over(2, Some(0)), "hXX");
    check(over(0, None), "hello world");
    check(over(99, None), "hello world");
    let find = |part, from| call(Locate, vec![text(part), text("grüße grüße"), int(from)]);
    check(find("ß", 1), "4");
    check(find("ß", 5), "10");
    check(find("ß", 11), "0");
    check(find("ß", 0), "0");
    check(find("", 1), "1");
    check(call(Elt, vec![int(2), text("a"), text("b")]), "b");
    check(call(Elt, vec![int(3), text("a"), text("b")]), "NULL");
    for (function, yes, no) in [
        (IsAlpha, vec!["ab", "ü"], vec!["a1", ""]),
        (IsDigit, vec!["12"], vec!["1.2", "", "-1"]),
        (IsDecimal, vec!["1", "-1.5e3", ".5", "1d", "NaN"], vec!["", "e5", "1x", "--1", "."]),
    ] {
        yes.iter().for_each(|s| check(call(function, vec![text(s)]), "TRUE"));
        no.iter().for_each(|s| check(call(function, vec![text(s)]), "FALSE"));
        check(call(function, vec![null(DataType::String)]), "FALSE");
    }
}

#[test]
fn texts_in_other_forms() {
    for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
        check(call(ToBase64, vec![text(plain)]), coded);
        check(call(FromBase64, vec![text(coded)]), plain);
    }
    check_fails(call(FromBase64, vec![text("Zg=")]), "is not base 64");
    check(call(Sha1, vec![text("abc")]), "a9993e364706816aba3e25717850c26c9cd0d89d");
    check(call(Sha1, vec![text("")]), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    let long = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    check(call(Sha1, vec![text(long)]), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    for charset in ["UTF-8", "utf-16", "UTF-16LE", "UTF-16BE", "ISO-8859-1"] {
        let bytes = call(Encode, vec![text("grün"), text(charset)]);
        check(call(Decode, vec![bytes, text(charset)]), "grün");
    }
    let ascii = call(Encode, vec![text("grün"), text("US-ASCII")]);
    check(call(Decode, vec![ascii, text("US-ASCII")]), "gr?n");
    check_fails(call(Encode, vec![text("a"), text("KOI8")]), "charset 'KOI8' is not known");
    let url = "https://user:pw@example.com:8080/a/b?k=v&Q2=x#ref";
    for (part, expected) in [
        ("PROTOCOL", "https"),
        ("HOST", "example.com"),
        ("PATH", "/a/b"),
        ("QUERY", "k=v&Q2=x"),
        ("REF", "ref"),
        ("FILE", "/a/b?k=v&Q2=x"),
        ("AUTHORITY", "user:pw@example.com:8080"),
        ("USERINFO", "user:pw"),
        ("PORT", "NULL"),
    ] {
        check(call(ParseUrl, vec![text(url), text(part)]), expected);
    }
    check(call(ParseUrl, vec![text(url), text("QUERY"), text("Q2")]), "x");
    check(call(ParseUrl, vec![text(url), text("QUERY"), text("q")]), "NULL");
    check(call(ParseUrl, vec![text("no url"), text("HOST")]), "NULL");
    let json = r#"{"a": [1, null]}"#;
    for (path, expected) in [("$.a[1]", "TRUE"), ("$.a[2]", "FALSE"), ("$.b", "FALSE")] {
        check(call(JsonExists, vec![text(json), text(path)]), expected);
    }
    check(call(JsonExists, vec![text("{"), text("$.a")]), "FALSE");
    let json = r#"{"o": {"b": 1, "a": [1.0, "x", null, true]}}"#;
    check(call(JsonQuery, vec![text(json), text("$.o")]), r#"{"b":1,"a":[1.0,"x",null,true]}"#);
    check(call(JsonQuery, vec![text(json), text("$.o.a")]), r#"[1.0,"x",null,true]"#);
    check(call(JsonQuery, vec![text(json), text("$.o.b")]), "NULL");
    check(call(JsonQuery, vec![text("{"), text("$")]), "NULL");
}

#[test]
fn numbers() {
    let dec = |v| decimal(v, 6, 2);
    check(call(Abs, vec![int(-5)]), "5");
    check(call(Floor, vec![float(-1.5)]), "-2.0");
    check(call(Ceil, vec![dec(-150)]), "-1");
    check(call(Floor, vec![dec(-150)]), "-2");
    check(call(Round, vec![float(1.005), int(2)]), "1.01");
    check(call(Round, vec![float(-2.5)]), "-3.0");
    check(call(Round, vec![float(5.0), int(-200)]), "0.0");
    check(call(Round, vec![float(1e300), int(-200)]), "1.0E300");
    check(call(Round, vec![dec(12345), int(1)]), "123.50");
    check(call(Round, vec![decimal(9999, 4, 2), int(1)]), "NULL");
    check(call(Round, vec![int(-155), int(-1)]), "-160");
    check(call(Truncate, vec![float(4.35), int(2)]), "4.35");
    check(call(Truncate, vec![float(1.13), int(2)]), "1.13");
    check(call(Truncate, vec![float(-1.999), int(2)]), "-1.99");
    check(call(Truncate, vec![float(1e-7), int(3)]), "0.0");
    check(call(Truncate, vec![dec(-12399), int(1)]), "-123.90");
    check(call(Truncate, vec![int(-159), int(-1)]), "-150");
    check(call(Sign, vec![dec(-150)]), "-1.00");
    check(call(Sign, vec![int(7)]), "1");
    check(call(Sign, vec![float(-0.5)]), "-1.0");
    check(call(Bin, vec![int(10)]), "1010");
    check(call(Hex, vec![int(255)]), "FF");
    check(call(Hex, vec![text("aß")]), "61C39F");
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
    check(call(UnixTimestamp, vec![text("02.01.1970"), text("dd.MM.yyyy")]), "86400");
    check(call(ToDate, vec![text("14/03/2026"), text("dd/MM/yyyy")]), "2026-03-14");
    check(call(ToDate, vec![text("2026-03-14 06:59:07")]), "2026-03-14");
    check(call(ToDate, vec![text("tomorrow")]), "NULL");
    check(call(ToDate, vec![text("31/02/2026"), text("dd/MM/yyyy")]), "NULL");
    let zones = |at, from, to| call(ConvertTz, vec![text(at), text(from), text(to)]);
    check(zones("1970-01-01 00:00:00", "UTC", "America/Los_Angeles"), "1969-12-31 16:00:00");
    check(zones("2026-07-01 12:00:00", "Europe/Berlin", "GMT+05:30"), "2026-07-01 15:30:00");
    // Berlin's clocks skip this hour.
    check(zones("2026-03-29 02:30:00", "Europe/Berlin", "UTC"), "2026-03-29 01:30:00");
    check(zones("noon", "UTC", "UTC"), "NULL");
    check_fails(zones("1970-01-01 00:00:00", "UTC", "Mars"), "time zone 'Mars' is not known");
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
    check(call(ArrayContains, vec![array(), int(9)]), "TRUE");
    check(call(ArrayContains, vec![array(), int(8)]), "FALSE");
    check(call(ArrayContains, vec![array(), null(DataType::Int64)]), "TRUE");
    check(call(ArrayContains, vec![call(MakeArray, vec![int(1)]), null(DataType::Int64)]), "FALSE");
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
    check(call(Regexp, vec![text("a"), text("")]), "FALSE");
    check_fails(call(Regexp, vec![text("a"), text("(")]), "regular expression '('");
    check(call(RegexpReplace, vec![text("foo"), text("(o)"), text("$1a")]), "f$1a$1a");
    check(call(RegexpReplace, vec![text("a1b22"), text("\\d+"), text("")]), "ab");
    check(call(RegexpReplace, vec![text("a"), null(DataType::String), text("")]), "NULL");
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
