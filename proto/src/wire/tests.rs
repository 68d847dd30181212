//! What crosses a process arrives as it was sent, or is refused with the field's name.

mod generate;
mod valid;

use super::generated::plan as wire;
use super::*;
use crate::expr::{self, Expr, ExprKind, UnaryOp};
use crate::function::Builtin;
use crate::plan::{Calc, OperatorKind, Plan};
use crate::schema::{self, DataType, Field, Schema};
use generate::{Generator, NAMES};
use proptest::prelude::*;
use prost::Message;
use std::collections::BTreeSet;

/// Through bytes and back, without the rules that a valid plan keeps.
fn there_and_back(plan: &Plan) -> Result<Plan, Fault> {
    let bytes = wire::Plan::from(plan).encode_to_vec();
    wire::Plan::decode(bytes.as_slice()).expect("prost reads what it wrote").try_into()
}

proptest! {
    #[test]
    fn everything_in_a_plan_reads_back_as_written(seed in any::<u64>()) {
        let plan = Generator::new(seed).plan();
        prop_assert_eq!(there_and_back(&plan), Ok(plan));
    }

    /// With a crc that fits, as if a program had gone wrong and not the wire.
    #[test]
    fn a_damaged_plan_is_refused_or_is_another_plan_and_never_panics(seed in any::<u64>()) {
        let mut chance = Generator::new(seed);
        let mut bytes = valid::plan().encode();
        damage(&mut bytes, &mut chance);
        bytes.truncate(if chance.below(3) == 0 { chance.below(bytes.len()).max(4) } else { bytes.len() });
        seal(&mut bytes);
        if let Ok(plan) = Plan::decode(&bytes) {
            prop_assert_eq!(plan.encode(), bytes);
        }
    }

    #[test]
    fn damaged_content_never_panics(seed in any::<u64>()) {
        let mut chance = Generator::new(seed);
        let mut bytes = chance.plan().encode();
        damage(&mut bytes, &mut chance);
        seal(&mut bytes);
        let _ = Plan::decode(&bytes);
    }
}

fn damage(bytes: &mut [u8], chance: &mut Generator) {
    for _ in 0..=chance.below(3) {
        bytes[chance.below(bytes.len())] ^= 1 << chance.below(8);
    }
}

/// Writes the crc of all but the last four bytes there.
fn seal(bytes: &mut [u8]) {
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&crc);
}

#[test]
fn the_generator_makes_every_variant() {
    let mut seen = BTreeSet::new();
    for seed in 0..3000 {
        let mut generator = Generator::new(seed);
        generator.plan();
        seen.append(&mut generator.seen);
    }
    assert_eq!(seen, NAMES.iter().copied().collect());
}

#[test]
fn a_valid_plan_has_every_kind_of_operator_and_reads_back() {
    let plan = valid::plan();
    plan.validate().expect("valid");
    let kinds: BTreeSet<_> = plan.operators.iter().map(|op| op.kind.name()).collect();
    let all: BTreeSet<_> = NAMES.iter().filter_map(|name| name.strip_prefix("OperatorKind::")).collect();
    assert_eq!(kinds, all);
    assert_eq!(Plan::decode(&plan.encode()), Ok(plan));
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_plan_is_refused() {
    let mut bytes = valid::plan().encode();
    for length in 0..bytes.len() {
        assert!(Plan::decode(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
    }
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Plan::decode(&bytes).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Jobs run for months, and coordinators and workers are not updated in one moment. A change here is a change of
/// what crosses: give new fields new numbers, or raise the version.
#[test]
fn the_bytes_of_a_plan_never_change() {
    let bytes = valid::plan().encode();
    let lines: Vec<String> =
        bytes.chunks(48).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    assert_eq!(lines.join("\n"), include_str!("tests/plan.golden").trim());
}

#[test]
fn names_of_functions_never_change() {
    let names: Vec<&str> = Builtin::ALL.iter().map(|function| function.name()).collect();
    assert_eq!(names.join("\n"), include_str!("tests/functions.golden").trim());
    for name in names {
        assert!(name.starts_with(Builtin::PREFIX), "{name}");
        assert_eq!(Builtin::by_name(name).map(Builtin::name), Some(name));
    }
}

/// The message of the refusal of the valid plan after `change`.
fn refusal(change: impl FnOnce(&mut wire::Plan)) -> String {
    let mut plan = wire::Plan::from(&valid::plan());
    change(&mut plan);
    let bytes = plan::FRAME.seal(&plan);
    Plan::decode(&bytes).expect_err("refused").message
}

#[test]
fn a_refusal_names_the_field_and_what_is_known() {
    use wire::operator::Kind;
    let window = refusal(|plan| match &mut plan.operators[2].kind {
        Some(Kind::WindowAggregate(aggregate)) => aggregate.window = None,
        other => panic!("{other:?}"),
    });
    assert_eq!(window, "plan.operators[2].window_aggregate.window: is missing");

    let tumble = refusal(|plan| match &mut plan.operators[3].kind {
        Some(Kind::WindowAssign(assign)) => assign.window = Some(wire::Window { kind: None }),
        other => panic!("{other:?}"),
    });
    let known = "is missing or not known; this version knows tumble, hop, cumulate, session, attached";
    assert_eq!(tumble, format!("plan.operators[3].window_assign.window.kind: {known}"));

    let join = refusal(|plan| match &mut plan.operators[4].kind {
        Some(Kind::WindowJoin(join)) => join.kind = 99,
        other => panic!("{other:?}"),
    });
    let known = "99 is not known; this version knows Inner, Left, Right, Full, Semi, Anti";
    assert_eq!(join, format!("plan.operators[4].window_join.kind: {known}"));

    let output = refusal(|plan| plan.edges[7].output = 0);
    assert_eq!(output, "plan.edges[7].output: is missing; this version knows Main, Late, Errors");

    let function = refusal(|plan| match &mut plan.operators[1].kind {
        Some(Kind::Calc(calc)) => match &mut calc.project[0].nodes[2].kind {
            Some(wire::node::Kind::Call(call)) => call.function = "ef_newer".into(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    });
    assert_eq!(function, "plan.operators[1].calc.project[0].nodes[2].call.function: `ef_newer` is not known");

    let groups = refusal(|plan| plan.max_parallelism = 70_000);
    assert_eq!(groups, "plan.max_parallelism: 70000 does not fit into u16");
}

#[test]
fn nodes_that_are_no_tree_are_refused() {
    let decode = |nodes: Vec<wire::Node>| Expr::try_from(wire::Expr { nodes }).map_err(|fault| fault.to_string());
    let column = || wire::Expr::from(&Expr::column(0, DataType::Int64)).nodes.remove(0);
    let case = |branches| wire::Node {
        kind: Some(wire::node::Kind::Case(wire::Case { branches, otherwise: true })),
        ..column()
    };
    assert_eq!(decode(vec![]), Err("nodes: is missing".into()));
    assert_eq!(decode(vec![column(), column()]), Err("nodes: the last one leaves 1 others unused".into()));
    let many = format!("nodes[1]: takes {} operands, and only 1 are left before it", u64::from(u32::MAX) * 2 + 1);
    assert_eq!(decode(vec![column(), case(u32::MAX)]), Err(many));
    assert!(decode(vec![column(), case(0)]).is_ok());
}

#[test]
fn what_a_newer_version_has_added_is_not_passed_over() {
    // Field 15 of the plan: a newer coordinator means something by it.
    let mut bytes = valid::plan().encode();
    bytes.splice(bytes.len() - 4..bytes.len() - 4, [15 << 3, 1]);
    seal(&mut bytes);
    let error = Plan::decode(&bytes).expect_err("not known here");
    assert!(error.message.contains("a newer version has written it"), "{error}");

    let mut bytes = valid::plan().encode();
    bytes[4] = 2;
    seal(&mut bytes);
    let error = Plan::decode(&bytes).expect_err("not known here");
    assert_eq!(error.message, "plan version 2 is not known; this version of EdgeFlow reads version 1");
}

#[test]
fn only_valid_plans_are_decoded() {
    let invalid = refusal(|plan| plan.edges[0].to = 77);
    assert!(invalid.starts_with("the plan is not valid: an edge names operator"), "{invalid}");
    let error = Plan::decode(&vec![0; BYTES_MAX + 1]).expect_err("too large");
    assert!(error.message.contains("at most"), "{error}");
}

/// `IS TRUE` so many times around a column that the tree is `depth` deep.
fn deep(depth: usize) -> Expr {
    let leaf = Expr::column(0, DataType::Boolean);
    (1..depth).fold(leaf, |input, _| Expr {
        kind: ExprKind::Unary { op: UnaryOp::IsTrue, input: input.into() },
        ty: DataType::Boolean,
    })
}

#[test]
fn a_deep_expression_is_refused_here_and_there() {
    assert_eq!(Expr::try_from(wire::Expr::from(&deep(expr::DEPTH_MAX))), Ok(deep(expr::DEPTH_MAX)));

    // Far beyond any stack: only its flat form can be made.
    let mut nodes = wire::Expr::from(&deep(2)).nodes;
    let unary = nodes[1].clone();
    nodes.extend(std::iter::repeat_n(unary, 1_000_000));
    let fault = Expr::try_from(wire::Expr { nodes }).expect_err("too deep");
    assert_eq!(fault.to_string(), "nodes[256]: the expression nests deeper than 256");

    let mut plan = valid::plan();
    let OperatorKind::Calc(Calc { filter, .. }) = &mut plan.operators[1].kind else { panic!("a Calc is second") };
    *filter = Some(Expr { kind: ExprKind::Cast { input: Box::new(deep(expr::DEPTH_MAX)), safe: false }, ..deep(1) });
    let error = plan.validate().expect_err("the planner refuses it too");
    assert_eq!(error.to_string(), "Calc(2): filter: the expression nests 257 deep, 256 at most");
}

#[test]
fn a_deep_type_is_refused_here_and_there() {
    let nested =
        |depth: usize| (1..depth).fold(DataType::Int64, |ty, _| DataType::Row(vec![Field::new("f", ty, true)]));
    let decode = |depth| {
        let bytes = wire::Schema::from(&Schema::new(vec![Field::new("c", nested(depth), true)])).encode_to_vec();
        wire::Schema::decode(bytes.as_slice())
    };
    assert!(decode(1000).is_err(), "prost's limit");

    let mut plan = valid::plan();
    let OperatorKind::Source(source) = &mut plan.operators[0].kind else { panic!("a Source is first") };
    source.physical.fields.push(Field::new("deep", nested(schema::DEPTH_MAX), true));
    plan.validate().expect("just not too deep");
    assert_eq!(Plan::decode(&plan.encode()).as_ref(), Ok(&plan));

    let OperatorKind::Source(source) = &mut plan.operators[0].kind else { panic!("a Source is first") };
    source.physical.fields.push(Field::new("deeper", nested(schema::DEPTH_MAX + 1), true));
    let error = Plan::decode(&plan.encode()).expect_err("too deep");
    assert!(error.message.contains("column `deeper`: its type nests deeper than 24"), "{error}");
}

#[test]
fn a_field_that_its_row_does_not_have_is_refused() {
    let row = DataType::Row(vec![Field::new("a", DataType::Int64, true)]);
    let input = Schema::new(vec![Field::new("r", row.clone(), true)]);
    let field = |index, ty| Expr { kind: ExprKind::Field { input: Expr::column(0, row.clone()).into(), index }, ty };
    assert_eq!(field(0, DataType::Int64).validate(&input), Ok(()));
    assert_eq!(field(0, DataType::Int32).validate(&input), Err("field 0 `a` is BIGINT, not INT".into()));
    assert_eq!(field(1, DataType::Int64).validate(&input), Err("field 1 of ROW<a BIGINT>".into()));
    assert_eq!(field(1, DataType::Int64).to_string(), "$0.1", "a message can show it");
}
