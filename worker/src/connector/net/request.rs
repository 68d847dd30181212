//! What a table's requests carry besides their address, and what an answer says about the next one.

use crate::error::{Error, Result};
use crate::secrets::Secrets;
use chrono::DateTime;
use ef_proto::secret::Template;
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

/// Puts a table's headers among those of a request, with their secrets, and says what must not be told of them. `wrong`
/// says whose headers they are.
pub fn add_headers(
    headers: &mut HeaderMap,
    given: &[(String, Template)],
    secrets: &Secrets,
    wrong: impl Fn(&str) -> Error,
) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for (name, template) in given {
        let value = secrets.reveal(template)?;
        // Its errors do not repeat the value.
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|e| wrong(&format!("header '{name}': {e}")))?;
        let mut text = HeaderValue::from_str(value.expose()).map_err(|e| wrong(&format!("header '{name}': {e}")))?;
        text.set_sensitive(true);
        headers.insert(header, text);
        if template.is_reference() {
            // Without `Bearer`: what is told may be the token alone.
            let bare = value.expose().rsplit(' ').next().unwrap_or_default();
            told.extend([value.expose().to_owned(), bare.to_owned()]);
        }
    }
    Ok(told)
}

/// How long the service wants to be left alone.
pub fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    after_ms(text(RETRY_AFTER)?, text(DATE))
}

/// Seconds, or a date: then as far from the service's own, whose clock need not be ours.
fn after_ms(text: &str, date: Option<&str>) -> Option<u64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1_000);
    }
    let instant = |text: &str| DateTime::parse_from_rfc2822(text.trim()).ok();
    let after = instant(text)? - instant(date?)?;
    Some(u64::try_from(after.num_milliseconds()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_say_when_in_seconds_or_by_a_date_of_their_own_clock() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (text, date, expected) in [
            ("7", None, Some(7_000)),
            (" 0 ", None, Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", date, Some(30_000)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", date, Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", None, None),
            ("soon", date, None),
            ("99999999999999999999", date, None),
            ("18446744073709551615", date, None),
        ] {
            assert_eq!(after_ms(text, date), expected, "{text}");
        }
    }
}
