//! Against the library whose functions are called.

use super::*;

fn library(name: &str, args: Vec<Expr>, ty: DataType) -> Expr {
    Expr { kind: ExprKind::Call { function: name.into(), args }, ty }
}

#[test]
fn library_functions_take_and_give_the_closed_set() {
    check(library("upper", vec![text("a")], DataType::String), "A");
    check(library("btrim", vec![text("  a ")], DataType::String), "a");
    check(library("lpad", vec![text("7"), int(3), text("0")], DataType::String), "007");
    check(library("replace", vec![text("abc"), text("b"), text("x")], DataType::String), "axc");
    check(library("log10", vec![int(1000)], DataType::Float64), "3.0");
    check(library("upper", vec![null(DataType::String)], DataType::String), "NULL");
    check_fails(library("no_such", vec![text("a")], DataType::String), "no_such");
}
