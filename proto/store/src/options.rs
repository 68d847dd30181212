//! How an object store is reached: the `state.store.*` options. Credentials are named, never written: a value is
//! `env:NAME` or `file:PATH`, and is read only when a client is made.

use ef_proto::connector::parse_duration_ms;
use ef_proto::error::{Code, Error};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub const ENDPOINT: &str = "state.store.endpoint";
pub const REGION: &str = "state.store.region";
pub const ALLOW_HTTP: &str = "state.store.allow-http";
pub const ACCOUNT: &str = "state.store.account";
pub const ACCESS_KEY: &str = "state.store.access-key";
pub const SECRET_KEY: &str = "state.store.secret-key";
pub const REQUEST_TIMEOUT: &str = "state.store.request-timeout";
pub const RETRY_TIMEOUT: &str = "state.store.retry-timeout";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Instead of the cloud's own address.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// Lets an `http://` endpoint be used that is not on this machine.
    pub allow_http: bool,
    /// Azure's storage account, where the URL does not name it.
    pub account: Option<String>,
    /// S3's access key id.
    pub access_key: Option<Reference>,
    /// S3's secret access key, Azure's account key, or Google's service account in JSON.
    pub secret_key: Option<Reference>,
    /// Of one request, its body included.
    pub request_timeout: Duration,
    /// For so long a request is tried again.
    pub retry_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            endpoint: None,
            region: None,
            allow_http: false,
            account: None,
            access_key: None,
            secret_key: None,
            request_timeout: Duration::from_secs(60),
            retry_timeout: Duration::from_secs(120),
        }
    }
}

impl Options {
    /// From a job's SET options; those that are not ours are passed over.
    pub fn parse(config: &BTreeMap<String, String>) -> Result<Options, Error> {
        let default = Options::default();
        let text = |key: &str| config.get(key).map(|value| value.trim().to_string());
        let duration = |key: &str, default: Duration| match text(key) {
            None => Ok(default),
            Some(text) => parse_duration_ms(&text).filter(|ms| *ms > 0).map(Duration::from_millis).ok_or_else(|| {
                Error::invalid(format!("SET '{key}' = '{text}': a duration such as '10 s' is accepted"))
            }),
        };
        let reference = |key: &str| text(key).map(|text| Reference::parse(key, &text)).transpose();
        let allow_http = text(ALLOW_HTTP).unwrap_or_else(|| "false".into());
        Ok(Options {
            endpoint: text(ENDPOINT),
            region: text(REGION),
            allow_http: allow_http.parse().map_err(|_| {
                Error::invalid(format!("SET '{ALLOW_HTTP}' = '{allow_http}': true or false is accepted"))
            })?,
            account: text(ACCOUNT),
            access_key: reference(ACCESS_KEY)?,
            secret_key: reference(SECRET_KEY)?,
            request_timeout: duration(REQUEST_TIMEOUT, default.request_timeout)?,
            retry_timeout: duration(RETRY_TIMEOUT, default.retry_timeout)?,
        })
    }
}

/// Where a secret is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Environment(String),
    File(PathBuf),
}

impl Reference {
    /// The value is not repeated in the error: it may be the secret itself.
    pub fn parse(key: &str, text: &str) -> Result<Reference, Error> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Reference::Environment(name.into())),
            Some(("file", path)) if !path.is_empty() => Ok(Reference::File(path.into())),
            _ => Err(Error::invalid(format!(
                "SET '{key}' is neither `env:NAME` nor `file:PATH`; a secret itself does not belong into SQL"
            ))),
        }
    }

    /// The secret.
    pub fn read(&self) -> Result<String, Error> {
        let value = match self {
            Reference::Environment(name) => std::env::var(name)
                .map_err(|_| Error::invalid(format!("the environment variable `{name}` is not set, or is not text")))?,
            Reference::File(path) => std::fs::read_to_string(path)
                .map_err(|e| Error::new(Code::Invalid, format!("cannot read `{}`: {e}", path.display())))?,
        };
        match value.trim() {
            "" => Err(Error::invalid(format!("{self:?} is empty; a secret is expected"))),
            value => Ok(value.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str, value: &str) -> Result<Options, Error> {
        Options::parse(&BTreeMap::from([(key.into(), value.into())]))
    }

    #[test]
    fn secret_in_place_of_a_reference_is_refused_and_not_repeated() {
        for text in ["hunter2", "env:", "file:", "hunter2:x"] {
            let error = parse(SECRET_KEY, text).expect_err(text);
            assert!(error.message.contains("env:NAME") && !error.message.contains("hunter2"), "{error}");
        }
        let read = parse(SECRET_KEY, " env:EF_NAME ").expect("a reference").secret_key;
        assert_eq!(read, Some(Reference::Environment("EF_NAME".into())));
    }

    #[test]
    fn secret_is_read_from_a_file_without_its_newline() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "hunter2\n").expect("writable");
        assert_eq!(Reference::File(file.path().into()).read(), Ok("hunter2".into()));
        std::fs::write(file.path(), " \n").expect("writable");
        assert!(Reference::File(file.path().into()).read().expect_err("empty").message.contains("is empty"));
        let missing = Reference::Environment("EF_NO_SUCH_VARIABLE".into()).read().expect_err("not set");
        assert!(missing.message.contains("EF_NO_SUCH_VARIABLE"), "{missing}");
    }

    #[test]
    fn values_of_other_kinds_are_named() {
        assert!(parse(ALLOW_HTTP, "perhaps").expect_err("no boolean").message.contains("perhaps"));
        assert!(parse(RETRY_TIMEOUT, "soon").expect_err("no duration").message.contains("soon"));
        assert_eq!(parse("parallelism.default", "4"), Ok(Options::default()));
    }
}
