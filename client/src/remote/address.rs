//! Where a coordinator is: `http://HOST:PORT`, or in short `HOST:PORT` or `HOST`. Pure.

use ef_proto::error::Error;
use std::fmt;
use std::net::IpAddr;
use tonic::transport::Uri;

const PORT_DEFAULT: u16 = 7070;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    host: String,
    port: u16,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Address, Error> {
        let wrong = |what: &dyn fmt::Display| {
            let accepted = "one such as http://127.0.0.1:7070 would be accepted";
            Error::invalid(format!("`{text}` is no URL of a coordinator: {what}; {accepted}"))
        };
        let full = if text.contains("://") { text.to_string() } else { format!("http://{text}") };
        let uri: Uri = full.parse().map_err(|e| wrong(&e))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong(&"encrypted connections are not there yet")),
            scheme => return Err(wrong(&format_args!("the scheme `{}` is not known", scheme.unwrap_or_default()))),
        }
        if uri.path_and_query().is_some_and(|path| path != "/") {
            return Err(wrong(&"nothing may follow the port"));
        }
        let authority = uri.authority().ok_or_else(|| wrong(&"it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong(&"it may not name a user"));
        }
        let host = authority.host().to_string();
        // `port_u16` is None for a port of 70000, too.
        let rest = authority.as_str().strip_prefix(&host).unwrap_or_default();
        let port = match (rest.strip_prefix(':'), authority.port_u16()) {
            (None, _) => PORT_DEFAULT,
            (Some(_), Some(port)) if port > 0 => port,
            (Some(port), _) => return Err(wrong(&format_args!("`{port}` is no port"))),
        };
        if host.is_empty() {
            return Err(wrong(&"it has no host"));
        }
        Ok(Address { host, port })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    /// Names are not resolved: only `localhost` is certain to stay on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_scheme_and_port() {
        let cases = [
            ("http://127.0.0.1:7070", "http://127.0.0.1:7070", true),
            ("http://127.0.0.1:7070/", "http://127.0.0.1:7070", true),
            ("127.1.2.3:80", "http://127.1.2.3:80", true),
            ("localhost", "http://localhost:7070", true),
            ("http://[::1]:9", "http://[::1]:9", true),
            ("http://10.0.0.1:7070", "http://10.0.0.1:7070", false),
            ("coordinator.example", "http://coordinator.example:7070", false),
            ("localhost.example:1", "http://localhost.example:1", false),
        ];
        for (text, url, loopback) in cases {
            let address = Address::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((address.url().as_str(), address.is_loopback()), (url, loopback), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_says_what_would_be_accepted() {
        let cases = [
            ("https://h:1", "not there yet"),
            ("ftp://h:1", "`ftp`"),
            ("http://h:70000", "`70000` is no port"),
            ("http://h:0", "`0` is no port"),
            ("http://h:1/path", "nothing may follow"),
            ("http://user@h:1", "user"),
            ("http://", "http://127.0.0.1:7070 would be accepted"),
            ("a b", "http://127.0.0.1:7070 would be accepted"),
        ];
        for (text, part) in cases {
            let error = Address::parse(text).expect_err(text);
            assert!(error.message.contains(part), "{text}: {error}");
        }
    }
}
