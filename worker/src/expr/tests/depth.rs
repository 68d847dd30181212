//! The deepest expression that a plan may hold fits on a task's stack, whatever its nodes are.

use super::*;
use ef_proto::expr::DEPTH_MAX;

/// The stack that Rust gives a thread, and tasks have.
const STACK_BYTES: usize = 2 << 20;

fn flag() -> Expr {
    Expr::column(0, DataType::Boolean)
}

fn number() -> Expr {
    Expr::column(0, DataType::Int64)
}

fn otherwise_null(input: Expr) -> Expr {
    let (when, ty) = (binary(BinaryOp::Gt, number(), int(0)), input.ty.clone());
    Expr { kind: ExprKind::Case { branches: vec![(when, input)], otherwise: None }, ty }
}

fn not_in_true(input: Expr) -> Expr {
    let list = vec![Expr::literal(Scalar::Boolean(true), DataType::Boolean)];
    Expr { kind: ExprKind::InList { input: input.into(), list, negated: true }, ty: DataType::Boolean }
}

fn other_type(input: Expr) -> Expr {
    let ty = if input.ty == DataType::String { DataType::Int64 } else { DataType::String };
    Expr { kind: ExprKind::Cast { input: input.into(), safe: true }, ty }
}

fn like_t(input: Expr) -> Expr {
    let (input, pattern) = (input.cast(DataType::String).into(), text("t%").into());
    let kind = ExprKind::Like { input, pattern, escape: None, negated: false, case_insensitive: false };
    Expr { kind, ty: DataType::Boolean }
}

#[test]
fn the_deepest_expressions_compile_and_evaluate_on_a_tasks_stack() {
    type Wrap = fn(Expr) -> Expr;
    let cases: [(&str, Expr, Wrap); 9] = [
        ("NOT", flag(), |e| unary(UnaryOp::Not, e)),
        ("OR", flag(), |e| binary(BinaryOp::Or, e, flag())),
        ("AND, to the right", flag(), |e| binary(BinaryOp::And, flag(), e)),
        ("+", number(), |e| binary(BinaryOp::Add, e, int(1))),
        ("CASE", number(), otherwise_null),
        ("IN", flag(), not_in_true),
        ("CAST", number(), other_type),
        ("LIKE", flag(), like_t),
        ("a builtin", Expr::column(0, DataType::String), |e| call(Builtin::Concat, vec![e, text("x")])),
    ];
    for (name, leaf, wrap) in cases {
        let task = move || {
            let ty = leaf.ty.clone();
            let values = match ty {
                DataType::Boolean => vec![Scalar::Boolean(true), Scalar::Null, Scalar::Boolean(false)],
                DataType::String => vec![Scalar::String("a".into()), Scalar::Null],
                _ => vec![Scalar::Int(7), Scalar::Null, Scalar::Int(-7)],
            };
            let (schema, batch) = batch(vec![(&ty, column(&ty, &values))]);
            let mut expr = leaf;
            loop {
                let deeper = wrap(expr.clone());
                if deeper.depth() > DEPTH_MAX {
                    break;
                }
                expr = deeper;
            }
            assert!(expr.depth() > DEPTH_MAX - 2, "{name} is {} deep", expr.depth());
            evaluate(&expr, &schema, &batch).map(|_| ())
        };
        let task = std::thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(task);
        assert_eq!(task.expect("a thread").join().expect("no overflow"), Ok(()), "{name}");
    }
}
