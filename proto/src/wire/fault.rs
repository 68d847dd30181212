//! Why a message does not decode and which of its fields is to blame, with the small checks that all messages share.

use crate::secret::Template;
use std::fmt;

/// Reads `operators[3].window_aggregate.window.kind: …`. The path is put together from the inside out, while the
/// fault travels up through the messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub struct Fault {
    path: String,
    what: String,
}

impl Fault {
    /// `field` is empty for a fault of the message as a whole.
    pub(super) fn new(field: impl Into<String>, what: impl Into<String>) -> Fault {
        Fault { path: field.into(), what: what.into() }
    }

    /// The same fault, seen from the message that has the faulty one as its `field`.
    pub(super) fn within(mut self, field: impl fmt::Display) -> Fault {
        self.path = if self.path.is_empty() { field.to_string() } else { format!("{field}.{}", self.path) };
        self
    }
}

/// A message that must be there.
pub(super) fn required<W, T: TryFrom<W, Error = Fault>>(message: Option<W>, field: &str) -> Result<T, Fault> {
    let message = message.ok_or_else(|| Fault::new(field, "is missing"))?;
    message.try_into().map_err(|fault: Fault| fault.within(field))
}

/// A message that may be absent.
pub(super) fn optional<W, T: TryFrom<W, Error = Fault>>(message: Option<W>, field: &str) -> Result<Option<T>, Fault> {
    message.map(T::try_from).transpose().map_err(|fault| fault.within(field))
}

pub(super) fn list<W, T: TryFrom<W, Error = Fault>>(messages: Vec<W>, field: &str) -> Result<Vec<T>, Fault> {
    let item = |(i, message)| T::try_from(message).map_err(|fault| fault.within(format_args!("{field}[{i}]")));
    messages.into_iter().enumerate().map(item).collect()
}

/// The chosen one of a `oneof`. None is also what an unknown choice decodes to.
pub(super) fn chosen<T>(choice: Option<T>, field: &str, known: &str) -> Result<T, Fault> {
    choice.ok_or_else(|| Fault::new(field, format!("is missing or not known; this version knows {known}")))
}

/// A number of a smaller type than protobuf has.
pub(super) fn narrow<W: Copy + fmt::Display, T: TryFrom<W>>(value: W, field: &str) -> Result<T, Fault> {
    let name = std::any::type_name::<T>();
    value.try_into().map_err(|_| Fault::new(field, format!("{value} does not fit into {name}")))
}

pub(super) fn narrow_option<W: Copy + fmt::Display, T: TryFrom<W>>(
    value: Option<W>,
    field: &str,
) -> Result<Option<T>, Fault> {
    value.map(|value| narrow(value, field)).transpose()
}

/// Text that may name secrets.
pub(super) fn template(text: &str, field: &str) -> Result<Template, Fault> {
    Template::parse(text).map_err(|error| Fault::new(field, error.to_string()))
}

pub(super) fn template_option(text: Option<String>, field: &str) -> Result<Option<Template>, Fault> {
    text.map(|text| template(&text, field)).transpose()
}

/// Columns by position.
pub(super) fn columns(values: Vec<u64>, field: &str) -> Result<Vec<usize>, Fault> {
    values.into_iter().map(|value| narrow(value, field)).collect()
}
