//! Where work may run: tiers, sites, and the selector that a table names its sites by.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The levels of a fleet, from below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Device,
    Gateway,
    Regional,
    Cloud,
}

impl Tier {
    pub const ALL: [Tier; 4] = [Tier::Device, Tier::Gateway, Tier::Regional, Tier::Cloud];

    pub fn name(self) -> &'static str {
        match self {
            Tier::Device => "device",
            Tier::Gateway => "gateway",
            Tier::Regional => "regional",
            Tier::Cloud => "cloud",
        }
    }

    /// The tier of this name, in any case.
    pub fn parse(name: &str) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| tier.name().eq_ignore_ascii_case(name.trim()))
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which workers an operator may run on. The default is: on any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Constraint {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub selector: Selector,
}

impl Constraint {
    pub fn matches(&self, tier: Tier, site: &str, labels: &BTreeMap<String, String>) -> bool {
        self.tier.is_none_or(|wanted| wanted == tier) && self.selector.matches(site, labels)
    }

    pub fn is_any(&self) -> bool {
        self.tier.is_none() && self.selector.is_empty()
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.tier, self.selector.is_empty()) {
            (None, true) => f.write_str("any tier"),
            (Some(tier), true) => write!(f, "tier {tier}"),
            (None, false) => write!(f, "sites {}", self.selector),
            (Some(tier), false) => write!(f, "tier {tier}, sites {}", self.selector),
        }
    }
}

/// `plant=a,line=*`: each label has a value that its pattern fits; `site` stands for the worker's site. `*` fits any
/// run of characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Selector(pub Vec<(String, String)>);

impl Selector {
    pub fn parse(text: &str) -> Result<Selector, String> {
        let mut terms = Vec::new();
        for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
            match term.split_once('=').map(|(key, pattern)| (key.trim(), pattern.trim())) {
                Some((key, pattern)) if !key.is_empty() && !pattern.is_empty() => {
                    terms.push((key.to_string(), pattern.to_string()));
                }
                _ => return Err(format!("`{term}` is not LABEL=VALUE; `plant=a,line=*` is a selector")),
            }
        }
        terms.sort();
        Ok(Selector(terms))
    }

    /// It names no label, so every site fits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, site: &str, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, pattern)| match labels.get(key).map(String::as_str) {
            Some(value) => fits(pattern, value),
            None => key == "site" && fits(pattern, site),
        })
    }
}

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Selector, String> {
        Selector::parse(&text)
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> String {
        selector.to_string()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms: Vec<String> = self.0.iter().map(|(key, pattern)| format!("{key}={pattern}")).collect();
        f.write_str(&terms.join(","))
    }
}

/// Whether `text` is `pattern` with each `*` replaced by any run of characters.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let parts: Vec<&str> = rest.split('*').collect();
    let (last, middle) = parts.split_last().expect("split gives at least one part");
    // The leftmost place for each part leaves the most room for those that follow.
    for part in middle {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_fits_any_run() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "x", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("ab*b", "ab", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("plant-*/line-*", "plant-a/line-3", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn selector_needs_all_its_labels() {
        let labels = BTreeMap::from([("plant".to_string(), "a".to_string()), ("line".to_string(), "3".to_string())]);
        let matches = |text: &str| Selector::parse(text).expect("well formed").matches("plant-a/line-3", &labels);
        assert!(matches("") && matches("plant=a") && matches("line=*, plant=a") && matches("site=plant-a/*"));
        assert!(!matches("plant=b") && !matches("shop=*") && !matches("site=plant-b/*"));
        assert!(Selector::parse("plant").is_err() && Selector::parse("=a").is_err() && Selector::parse("a=").is_err());
    }
}
