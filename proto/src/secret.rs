//! Secrets of connectors, which SQL names and never holds: `'${secret:mqtt-password}'`.
//!
//! A plan carries the reference, so do logs, `explain` and the API. Only the worker that opens a connection looks the
//! value up, and what it gets ([`Revealed`]) shows itself as `***`.

use serde::{Deserialize, Serialize};
use std::fmt;

const OPEN: &str = "${secret:";

/// Text of an option in which secrets are named. Shows itself as it was written: with names, without values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Template(String);

/// Why a text with references is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("'{0}' does not close its '{OPEN}'")]
    Open(String),
    #[error("'{0}' is not the name of a secret; letters, digits, '.', '-' and '_' are accepted, at most 128")]
    Name(String),
}

impl Template {
    /// Any text; what stands in `${secret:…}` must be a name.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let template = Template(text.to_owned());
        template.pieces(|_| Ok(()), check_name)?;
        Ok(template)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// It names a secret.
    pub fn is_reference(&self) -> bool {
        self.0.contains(OPEN)
    }

    /// It is nothing but one secret.
    pub fn is_only_reference(&self) -> bool {
        self.0.strip_prefix(OPEN).and_then(|rest| rest.strip_suffix('}')).is_some_and(|name| check_name(name).is_ok())
    }

    /// With the values in their places. `look_up` fails with words for a person, which must not hold a value.
    pub fn reveal<E>(&self, mut look_up: impl FnMut(&str) -> Result<String, E>) -> Result<Revealed, E>
    where
        E: From<TemplateError>,
    {
        let mut text = String::with_capacity(self.0.len());
        let shared = std::cell::RefCell::new(&mut text);
        self.pieces(
            |plain| {
                shared.borrow_mut().push_str(plain);
                Ok(())
            },
            |name| {
                let value = look_up(name)?;
                shared.borrow_mut().push_str(&value);
                Ok::<(), E>(())
            },
        )?;
        Ok(Revealed(text))
    }

    fn pieces<E: From<TemplateError>>(
        &self,
        mut plain: impl FnMut(&str) -> Result<(), E>,
        mut secret: impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = self.0.as_str();
        while let Some((before, behind)) = rest.split_once(OPEN) {
            plain(before)?;
            let (name, after) = behind.split_once('}').ok_or_else(|| TemplateError::Open(self.0.clone()))?;
            secret(name)?;
            rest = after;
        }
        plain(rest)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a secret may have this name: it becomes a file's name, or part of a variable's.
pub fn check_name(name: &str) -> Result<(), TemplateError> {
    let accepted = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.chars().all(accepted) {
        return Ok(());
    }
    Err(TemplateError::Name(name.to_owned()))
}

/// A text with secrets in it. Neither Debug nor Display show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Revealed(String);

impl Revealed {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Failed(String);

    impl From<TemplateError> for Failed {
        fn from(error: TemplateError) -> Failed {
            Failed(error.to_string())
        }
    }

    fn reveal(text: &str) -> Result<Revealed, Failed> {
        Template::parse(text)?.reveal(|name| match name {
            "a" => Ok("A}".into()),
            "b.c" => Ok(String::new()),
            other => Err(Failed(format!("no secret '{other}'"))),
        })
    }

    #[test]
    fn values_take_the_places_of_their_names_once() {
        for (text, expected) in [
            ("", ""),
            ("plain $ { } text", "plain $ { } text"),
            ("${secret:a}", "A}"),
            ("x${secret:a}y${secret:b.c}z${secret:a}", "xA}yzA}"),
        ] {
            assert_eq!(reveal(text).expect(text).expose(), expected);
        }
        assert_eq!(reveal("${secret:z}"), Err(Failed("no secret 'z'".into())));
    }

    #[test]
    fn names_that_could_lead_elsewhere_are_refused() {
        for name in ["", "../x", "a/b", ".hidden", "a b", "a$", &"x".repeat(129)] {
            assert_eq!(Template::parse(&format!("${{secret:{name}}}")), Err(TemplateError::Name(name.into())));
        }
        assert_eq!(Template::parse("x${secret:a"), Err(TemplateError::Open("x${secret:a".into())));
    }

    #[test]
    fn values_are_never_shown() {
        let revealed = reveal("user:${secret:a}").expect("known");
        assert_eq!((format!("{revealed}"), format!("{revealed:?}")), ("***".to_string(), "***".to_string()));
        let template = Template::parse("user:${secret:a}").expect("well-formed");
        assert_eq!(template.to_string(), "user:${secret:a}");
        assert!(template.is_reference() && !template.is_only_reference());
        assert!(Template::parse("${secret:a}").expect("well-formed").is_only_reference());
        assert!(!Template::parse("${secret:a}${secret:a}").expect("well-formed").is_only_reference());
    }
}
