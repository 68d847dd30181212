//! What a table of a web service says, whether it is written or looked up: the address and the headers.

use super::options::{OptionError, Options};
use crate::secret::Template;

pub(super) const CONNECT_MS: u64 = 10_000;

/// Those that hold who we are.
const SECRET: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

/// Those that the request itself makes.
const OWN: [&str; 4] = ["content-length", "transfer-encoding", "host", "connection"];

/// `'url'`, without a user. It may name secrets, and be one as a whole: then the worker checks it. In `{…}` stands the
/// name of a column, which may be any text.
pub(super) fn url(options: &mut Options, expected: &str) -> Result<Template, OptionError> {
    let Some(url) = options.template("url")? else {
        return Err(options.error("url", format!("option 'url' is missing, expected {expected}")));
    };
    let text = url.as_str();
    let rest = text.strip_prefix("https://").or(text.strip_prefix("http://"));
    // What stands before an `@` may be a password, and is not repeated.
    let authority = rest.map_or(text, |rest| rest.split(['/', '?', '#']).next().unwrap_or(rest));
    if authority.contains('@') {
        let what =
            "option 'url': found a user before the host, expected 'headers.Authorization' with a '${secret:name}'";
        return Err(options.error("url", what.into()));
    }
    let gap = |c: char| c.is_whitespace() || c.is_control();
    let outside = |(at, part): (usize, &str)| match part.split_once('}') {
        Some((_, behind)) if at > 0 => behind.contains(gap),
        _ => part.contains(gap),
    };
    let whole = rest.is_some_and(|rest| !rest.is_empty()) && !text.split('{').enumerate().any(outside);
    if whole || url.is_only_reference() { Ok(url) } else { Err(options.unaccepted("url", text, expected)) }
}

/// `'headers.<name>'` or `'http.header.<name>'`.
pub(super) fn headers(options: &mut Options) -> Result<Vec<(String, Template)>, OptionError> {
    let mut headers = Vec::new();
    for prefix in ["headers.", "http.header."] {
        for (name, _) in options.clone().with_prefix(prefix) {
            let key = format!("{prefix}{name}");
            if !is_header(&name) {
                return Err(options.error(&key, format!("option '{key}': '{name}' is not the name of a header")));
            }
            let lower = name.to_ascii_lowercase();
            if OWN.contains(&lower.as_str()) {
                let what = format!("option '{key}': the header '{name}' follows from the request, expected another");
                return Err(options.error(&key, what));
            }
            let secret = SECRET.contains(&lower.as_str());
            let value = if secret { options.secret(&key)? } else { options.template(&key)? };
            headers.extend(value.map(|value| (name, value)));
        }
    }
    Ok(headers)
}

pub(super) fn is_header(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: &str = "an address like 'https://host/path'";

    fn options(pairs: &[(&str, &str)]) -> Options {
        Options::new("t", pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }

    #[test]
    fn an_address_is_of_http_and_has_no_user_which_is_not_repeated() {
        for (text, expected) in [
            ("https://host", None),
            ("http://host/a@b?c=d@e", None),
            ("https://host/{my column}/x", None),
            ("https://host/${secret:token}", None),
            ("${secret:hook}", None),
            ("https://", Some(EXPECTED)),
            ("ftp://host", Some(EXPECTED)),
            ("https://host/a b", Some(EXPECTED)),
            ("https://host/{a}\n/{b}", Some(EXPECTED)),
            ("${secret:host}/path", Some(EXPECTED)),
            ("https://u:hunter2@host/x", Some("found a user before the host")),
            ("ftp://u:hunter2@host", Some("found a user before the host")),
            ("u:hunter2@host", Some("found a user before the host")),
            ("https:/u:hunter2@host", Some("found a user before the host")),
        ] {
            let found = url(&mut options(&[("url", text)]), EXPECTED);
            match (found, expected) {
                (Ok(found), None) => assert_eq!(found.as_str(), text),
                (Err(error), Some(expected)) => {
                    assert!(error.message.contains(expected) && !error.message.contains("hunter2"), "{text}: {error}");
                }
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn headers_have_two_spellings_and_who_we_are_is_a_secret() {
        let mut given = options(&[
            ("headers.Authorization", "Bearer ${secret:token}"),
            ("http.header.X-Plant", "a"),
            ("headers.x!y", "b"),
        ]);
        let found = headers(&mut given).expect("well-formed");
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [("Authorization", "Bearer ${secret:token}"), ("x!y", "b"), ("X-Plant", "a")]);
        given.finish().expect("all were taken");
        for (key, expected) in [
            ("headers.Cookie", "found a secret in plain text"),
            ("http.header.Authorization", "found a secret in plain text"),
            ("headers.a b", "'a b' is not the name of a header"),
            ("http.header.", "'' is not the name of a header"),
            ("headers.Host", "follows from the request"),
        ] {
            let error = headers(&mut options(&[(key, "hunter2")])).expect_err(expected);
            assert!(error.key == key && error.message.contains(expected), "{key}: {error}");
            assert!(!error.message.contains("hunter2"), "{error}");
        }
    }
}
