//! PARSE_URL: a part of a URL, as java.net.URL takes it apart. NULL for what is no URL and for a part that it lacks.

use crate::expr::value::{Kernel, Value, build_texts};

pub(super) fn kernel() -> Kernel {
    Box::new(|args, rows| {
        let (urls, parts) = (args[0].texts(), args[1].texts());
        let keys = args.get(2).map(Value::texts);
        build_texts(rows, |row, out| {
            let Some((url, part)) = urls.get(row).zip(parts.get(row)) else { return Ok(false) };
            let found = match &keys {
                None => part_of(url, part),
                Some(_) if part != "QUERY" => None,
                Some(keys) => keys.get(row).and_then(|key| {
                    let query = part_of(url, "QUERY")?;
                    let value = query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))?;
                    Some(value.to_string())
                }),
            };
            out.extend_from_slice(found.as_deref().unwrap_or_default().as_bytes());
            Ok(found.is_some())
        })
    })
}

fn part_of(url: &str, part: &str) -> Option<String> {
    let (protocol, rest) = url.trim().split_once(':')?;
    let named = protocol.starts_with(|c: char| c.is_ascii_alphabetic())
        && protocol.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !named {
        return None;
    }
    let (rest, reference) = match rest.split_once('#') {
        Some((rest, reference)) => (rest, Some(reference)),
        None => (rest, None),
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    let (user, server) = match authority.rsplit_once('@') {
        Some((user, server)) => (Some(user), server),
        None => (None, authority),
    };
    Some(match part {
        "PROTOCOL" => protocol.to_ascii_lowercase(),
        "AUTHORITY" => Some(authority).filter(|text| !text.is_empty())?.into(),
        "USERINFO" => user?.into(),
        "HOST" => match server.rsplit_once(':') {
            // Not inside the brackets of an IPv6 address.
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host.into(),
            _ => server.into(),
        },
        "PATH" => path.into(),
        "QUERY" => query?.into(),
        "REF" => reference?.into(),
        "FILE" => match query {
            Some(query) => format!("{path}?{query}"),
            None => path.into(),
        },
        _ => return None,
    })
}
