//! CAST, TRY_CAST and LIKE as calls of functions that nothing but [`super::lower`] sees through.
//!
//! DataFusion has its own idea of these three: it evaluates those of constants by Arrow's rules, whose texts of
//! timestamps, booleans and doubles are not Flink's; it compares `CAST(x AS INT) = 1` as `x = 1.00`, as if no cast lost
//! a digit; it leaves casts out of the names of columns, so that `SUM(i)` and `SUM(CAST(i AS BIGINT))` are one; and
//! its LIKE has an escape character that nobody wrote. What it cannot evaluate it leaves alone, so a written cast is a
//! call of one of these from the syntax tree on, and a cast again when the plan is lowered.
//!
//! The casts that DataFusion's type coercion puts in stay its own: they only widen.

use super::error::Span;
use super::types::closed;
use arrow_schema::{DataType as Arrow, Field, FieldRef};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_sql::sqlparser::ast::{self, Ident};
use ef_proto::schema::DataType;
use serde_json::{Value, json};
use std::any::Any;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// What the name of such a call starts with; the rest is the form and its place.
const PREFIX: &str = "__opaque ";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `safe`: TRY_CAST.
    Cast { to: DataType, safe: bool },
    /// Of (string, pattern).
    Like { escape: Option<char>, case_insensitive: bool },
}

/// The function of one call. Two are the same when they do the same, wherever they stand.
#[derive(Debug)]
pub struct Opaque {
    pub form: Form,
    pub span: Span,
    /// As [`call`] made it: DataFusion hides a function that calls itself otherwise behind an alias.
    name: String,
    signature: Signature,
}

impl PartialEq for Opaque {
    fn eq(&self, other: &Opaque) -> bool {
        self.form == other.form
    }
}

impl Eq for Opaque {}

impl Hash for Opaque {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.form.hash(state);
    }
}

/// The call in the syntax tree. DataFusion finds functions by name, so the name carries all there is to know.
pub fn call(form: &Form, args: Vec<ast::Expr>, span: Span) -> ast::Expr {
    let form = match form {
        Form::Cast { to, safe } => json!({ "to": to, "safe": safe }),
        Form::Like { escape, case_insensitive } => json!({ "escape": escape, "insensitive": case_insensitive }),
    };
    let place = [span.line, span.column, span.end_line, span.end_column];
    let name = format!("{PREFIX}{}", json!([form, place]));
    super::dialect::call(Ident::with_quote('`', name), args)
}

/// The function of a name that [`call`] made.
pub fn by_name(name: &str) -> Option<Arc<ScalarUDF>> {
    let (form, span) = parse(name.strip_prefix(PREFIX)?)?.0;
    let signature = Signature::user_defined(Volatility::Immutable);
    Some(Arc::new(ScalarUDF::from(Opaque { form, span, name: name.into(), signature })))
}

/// The form and place at the start of a text, and what follows.
fn parse(text: &str) -> Option<((Form, Span), &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<(Value, [u64; 4])>();
    let (form, [line, column, end_line, end_column]) = values.next()?.ok()?;
    let rest = &text[values.byte_offset()..];
    let form = match form.get("to") {
        Some(to) => Form::Cast { to: serde_json::from_value(to.clone()).ok()?, safe: form.get("safe")?.as_bool()? },
        None => Form::Like {
            escape: form.get("escape")?.as_str().and_then(|text| text.chars().next()),
            case_insensitive: form.get("insensitive")?.as_bool()?,
        },
    };
    Some(((form, Span { line, column, end_line, end_column }), rest))
}

/// A message of DataFusion's with its calls by their names here written as they were meant.
pub fn shown(text: &str) -> String {
    let Some((before, call)) = text.split_once(PREFIX) else { return text.to_string() };
    let read = parse(call).and_then(|((form, _), rest)| Some((form, rest.strip_prefix('(')?)));
    let Some((form, rest)) = read else { return format!("{before}{}", shown(call)) };
    let mut depth = 1;
    let close = rest.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    let (args, after) = rest.split_at(close.unwrap_or(rest.len()));
    let (args, after) = (shown(args), shown(after.strip_prefix(')').unwrap_or(after)));
    match &form {
        Form::Cast { to, .. } => format!("{before}{}({args} AS {to}){after}", form.word()),
        Form::Like { .. } => format!("{before}{}({args}){after}", form.word()),
    }
}

impl Form {
    const fn word(&self) -> &'static str {
        match self {
            Form::Cast { safe: false, .. } => "CAST",
            Form::Cast { safe: true, .. } => "TRY_CAST",
            Form::Like { case_insensitive: false, .. } => "LIKE",
            Form::Like { case_insensitive: true, .. } => "ILIKE",
        }
    }
}

/// Sees through a call in a logical plan.
pub fn of(function: &ScalarUDF) -> Option<&Opaque> {
    let function: &dyn Any = function.inner().as_ref();
    function.downcast_ref()
}

impl ScalarUDFImpl for Opaque {
    fn name(&self) -> &str {
        &self.name
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let arg = |i: usize| args.get(i).map(|arg| arg.schema_name().to_string()).unwrap_or_default();
        Ok(match &self.form {
            Form::Cast { to, .. } => format!("{}({} AS {to})", self.form.word(), arg(0)),
            Form::Like { escape, .. } => {
                let escape = escape.map(|escape| format!(" ESCAPE '{escape}'")).unwrap_or_default();
                format!("{} {} {}{escape}", arg(0), self.form.word(), arg(1))
            }
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Any types: whether there is such a cast is said with its place when the plan is lowered.
    fn coerce_types(&self, args: &[Arrow]) -> Result<Vec<Arrow>> {
        args.iter().map(closed).collect::<Result<Vec<_>>>()?;
        Ok(args.to_vec())
    }

    fn return_type(&self, _args: &[Arrow]) -> Result<Arrow> {
        Ok(match &self.form {
            Form::Cast { to, .. } => to.to_arrow(),
            Form::Like { .. } => Arrow::Boolean,
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let safe = matches!(self.form, Form::Cast { safe: true, .. });
        let nullable = safe || args.arg_fields.iter().any(|arg| arg.is_nullable());
        Ok(Arc::new(Field::new(self.form.word(), self.return_type(&[])?, nullable)))
    }

    /// NULL and whole numbers that fit mean the same to everybody.
    fn simplify(&self, args: Vec<Expr>, _info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let (Form::Cast { to, .. }, [Expr::Literal(value, _)]) = (&self.form, args.as_slice()) else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        let number = match value {
            ScalarValue::Int8(Some(n)) => i64::from(*n),
            ScalarValue::Int16(Some(n)) => i64::from(*n),
            ScalarValue::Int32(Some(n)) => i64::from(*n),
            ScalarValue::Int64(Some(n)) => *n,
            value if value.is_null() => {
                let null = ScalarValue::try_from(&to.to_arrow())?;
                return Ok(ExprSimplifyResult::Simplified(Expr::Literal(null, None)));
            }
            _ => return Ok(ExprSimplifyResult::Original(args)),
        };
        let folded = match to {
            DataType::Int8 => number.try_into().ok().map(|n| ScalarValue::Int8(Some(n))),
            DataType::Int16 => number.try_into().ok().map(|n| ScalarValue::Int16(Some(n))),
            DataType::Int32 => number.try_into().ok().map(|n| ScalarValue::Int32(Some(n))),
            DataType::Int64 => Some(ScalarValue::Int64(Some(number))),
            _ => None,
        };
        Ok(match folded {
            Some(value) => ExprSimplifyResult::Simplified(Expr::Literal(value, None)),
            None => ExprSimplifyResult::Original(args),
        })
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::NotImplemented(format!("{} is evaluated by the worker", self.form.word())))
    }
}
