//! Parses where checkpoints lie: the one place that knows the URLs. Pure; opens nothing.

use ef_proto::error::Error;
use object_store::path::Path as ObjectPath;
use std::fmt;
use std::path::PathBuf;

/// What is accepted, for error messages.
const ACCEPTED: &str = "a directory, `file:///absolute/path`, `s3://bucket/prefix`, `gs://bucket/prefix`, \
     `az://container/prefix` or `abfs://container@account.dfs.core.windows.net/prefix` is accepted";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// Gone with the process: for tests.
    Memory,
    Directory(PathBuf),
    Remote(Remote),
}

/// A prefix in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub cloud: Cloud,
    /// `scheme://bucket`, without the prefix.
    pub bucket: String,
    pub prefix: ObjectPath,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon S3 and what speaks its protocol.
    S3,
    Google,
    Azure,
}

impl Location {
    pub fn parse(text: &str) -> Result<Location, Error> {
        let Some((scheme, rest)) = text.split_once("://") else {
            if text.is_empty() {
                return Err(Error::invalid(format!("the state directory is empty; {ACCEPTED}")));
            }
            return Ok(Location::Directory(text.into()));
        };
        let cloud = match scheme {
            "memory" => return Ok(Location::Memory),
            "file" if rest.starts_with('/') => return Ok(Location::Directory(rest.into())),
            "file" => {
                return Err(Error::invalid(format!("`{text}` is not usable; `file:///absolute/path` is expected")));
            }
            "s3" | "s3a" => Cloud::S3,
            "gs" => Cloud::Google,
            "az" | "azure" | "abfs" | "abfss" => Cloud::Azure,
            _ => return Err(Error::invalid(format!("the state store `{scheme}://` is not known; {ACCEPTED}"))),
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        // What stands there may be a key or a signature: it is not repeated.
        let user = bucket.split_once('@').map(|(user, _)| user);
        if rest.contains(['?', '#']) || user.is_some_and(|user| user.contains(':') || cloud != Cloud::Azure) {
            return Err(Error::invalid(format!(
                "the `{scheme}://` URL of the state store carries a query or a user; credentials come from the \
                 environment or from SET 'state.store.secret-key'"
            )));
        }
        if bucket.is_empty() {
            return Err(Error::invalid(format!("`{text}` names no bucket; {ACCEPTED}")));
        }
        let prefix = ObjectPath::parse(prefix.trim_matches('/'))
            .map_err(|e| Error::invalid(format!("`{text}` is not usable as a prefix of objects: {e}")))?;
        Ok(Location::Remote(Remote { cloud, bucket: format!("{scheme}://{bucket}"), prefix }))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Memory => f.write_str("memory://"),
            Location::Directory(directory) => write!(f, "{}", directory.display()),
            Location::Remote(remote) if remote.prefix.as_ref().is_empty() => f.write_str(&remote.bucket),
            Location::Remote(remote) => write!(f, "{}/{}", remote.bucket, remote.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_buckets_are_told_apart() {
        for (text, shown) in [
            ("state", "state"),
            ("./a/b", "./a/b"),
            ("file:///var/lib/x", "/var/lib/x"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("gs://bucket/a", "gs://bucket/a"),
            ("az://container/a", "az://container/a"),
            ("abfss://c@account.dfs.core.windows.net/a", "abfss://c@account.dfs.core.windows.net/a"),
        ] {
            let location = Location::parse(text).expect(text);
            assert_eq!(location.to_string(), shown);
            assert_eq!(
                matches!(location, Location::Remote(_)),
                !matches!(text.as_bytes()[0], b'.' | b'f') && text != "state"
            );
        }
    }

    #[test]
    fn what_is_not_a_place_is_refused_with_what_would_be() {
        for text in ["", "file://relative", "s3:///x", "ftp://x/y", "s3://bucket/a/../b", "s3://bucket//x//y"] {
            let error = Location::parse(text).expect_err(text);
            assert_eq!(error.code, ef_proto::error::Code::Invalid, "{error}");
        }
        assert!(Location::parse("ftp://x/y").expect_err("unknown").message.contains("`ftp://`"));
    }

    #[test]
    fn credentials_in_a_url_are_refused_and_not_repeated() {
        for text in ["s3://AKIA:hidden@bucket/x", "s3://hidden@bucket", "az://c/x?sig=hidden", "abfs://c:hidden@a/x"] {
            let error = Location::parse(text).expect_err(text);
            assert!(!error.message.contains("hidden"), "{error}");
        }
    }
}
