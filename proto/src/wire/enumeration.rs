//! Enums without payload: the same variants on both sides, by stable numbers. 0 means that nothing was given, and is
//! as little a value as a number that this version does not know.

use super::fault::Fault;
use std::fmt;

pub(super) trait Enumeration: Copy + fmt::Debug + 'static {
    const ALL: &'static [Self];
    fn number(self) -> i32;
    fn of_number(number: i32) -> Option<Self>;
}

/// Both matches are exhaustive: a variant that is on one side only does not compile.
macro_rules! enumeration {
    ($name:ident: $($variant:ident),+ $(,)?) => {
        impl $crate::wire::enumeration::Enumeration for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn number(self) -> i32 {
                match self {
                    $(Self::$variant => wire::$name::$variant.into()),+
                }
            }

            fn of_number(number: i32) -> Option<Self> {
                match wire::$name::try_from(number) {
                    $(Ok(wire::$name::$variant) => Some(Self::$variant),)+
                    Ok(wire::$name::Unknown) | Err(_) => None,
                }
            }
        }
    };
}
pub(super) use enumeration;

pub(super) fn known<E: Enumeration>(number: i32, field: &str) -> Result<E, Fault> {
    E::of_number(number).ok_or_else(|| {
        let names: Vec<String> = E::ALL.iter().map(|value| format!("{value:?}")).collect();
        let what = if number == 0 { "is missing".to_string() } else { format!("{number} is not known") };
        Fault::new(field, format!("{what}; this version knows {}", names.join(", ")))
    })
}
