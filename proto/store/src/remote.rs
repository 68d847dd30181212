//! Clients of S3, Google Cloud Storage and Azure: the environment variables of each cloud's own tools, then the job's
//! options over them; time-outs and retries with an end.

use crate::location::{Cloud, Remote};
use crate::options::{self, Options};
use crate::{Patience, describe};
use ef_proto::error::Error;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientOptions, ObjectStore, RetryConfig, StaticCredentialProvider};
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};

/// What one try to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a person is let wait at the start.
const BRIEF: Duration = Duration::from_secs(5);

pub fn client(remote: &Remote, options: &Options, patience: Patience) -> Result<Arc<dyn ObjectStore>, Error> {
    let failed = |e: object_store::Error| {
        let bucket = &remote.bucket;
        Error::invalid(format!("cannot set up the state store `{bucket}`: {}", describe(&e)))
    };
    match remote.cloud {
        Cloud::S3 => {
            let mut builder = AmazonS3Builder::from_env().with_url(&remote.bucket).with_retry(retry(options, patience));
            if let Some(endpoint) = &options.endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            if let Some(region) = &options.region {
                builder = builder.with_region(region);
            }
            if let Some((key_id, secret_key)) = key_pair(options)? {
                let credential = AwsCredential { key_id, secret_key, token: None };
                builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
            }
            let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
            let client = client_options(endpoint.as_deref(), options, patience)?;
            Ok(Arc::new(builder.with_client_options(client).build().map_err(failed)?))
        }
        Cloud::Google => {
            let retry = retry(options, patience);
            let mut builder = GoogleCloudStorageBuilder::from_env().with_url(&remote.bucket).with_retry(retry);
            if let Some(endpoint) = &options.endpoint {
                builder = builder.with_base_url(endpoint);
            }
            if let Some(account) = &options.secret_key {
                builder = builder.with_service_account_key(account.read()?);
            }
            let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl);
            let client = client_options(endpoint.as_deref(), options, patience)?;
            Ok(Arc::new(builder.with_client_options(client).build().map_err(failed)?))
        }
        Cloud::Azure => {
            let retry = retry(options, patience);
            let mut builder = MicrosoftAzureBuilder::from_env().with_url(&remote.bucket).with_retry(retry);
            if let Some(endpoint) = &options.endpoint {
                builder = builder.with_endpoint(endpoint.clone());
            }
            if let Some(account) = &options.account {
                builder = builder.with_account(account);
            }
            if let Some(key) = &options.secret_key {
                builder = builder.with_access_key(key.read()?);
            }
            let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
            let client = client_options(endpoint.as_deref(), options, patience)?;
            Ok(Arc::new(builder.with_client_options(client).build().map_err(failed)?))
        }
    }
}

/// S3's two keys, if they are given by reference; one without the other is a mistake.
fn key_pair(options: &Options) -> Result<Option<(String, String)>, Error> {
    match (&options.access_key, &options.secret_key) {
        (Some(access), Some(secret)) => Ok(Some((access.read()?, secret.read()?))),
        (None, None) => Ok(None),
        (given, _) => {
            let missing = if given.is_some() { options::SECRET_KEY } else { options::ACCESS_KEY };
            Err(Error::invalid(format!(
                "SET '{missing}' is missing; S3 needs both keys, or none to use the environment's"
            )))
        }
    }
}

fn retry(options: &Options, patience: Patience) -> RetryConfig {
    let retry_timeout = match patience {
        Patience::Brief => options.retry_timeout.min(BRIEF),
        Patience::Full => options.retry_timeout,
    };
    // The time is the bound. The pauses double from 100 ms to 15 s, so the count is only a second fence.
    RetryConfig { max_retries: 100, retry_timeout, ..RetryConfig::default() }
}

fn client_options(endpoint: Option<&str>, options: &Options, patience: Patience) -> Result<ClientOptions, Error> {
    let timeout = match patience {
        Patience::Brief => options.request_timeout.min(BRIEF),
        Patience::Full => options.request_timeout,
    };
    Ok(ClientOptions::new()
        .with_timeout(timeout)
        .with_connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .with_allow_http(plain_http(endpoint, options)?))
}

/// Whether the endpoint is reached without TLS. Only on this machine, or where the options say so: state is data.
fn plain_http(endpoint: Option<&str>, options: &Options) -> Result<bool, Error> {
    let Some(endpoint) = endpoint else { return Ok(false) };
    let key = options::ENDPOINT;
    let expected = "`https://host:port` is expected";
    let url = Url::parse(endpoint).map_err(|e| Error::invalid(format!("{key} is not a URL: {e}; {expected}")))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(Error::invalid(format!("{key} carries a user or a query; {expected}")));
    }
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(false),
        "http" if loopback || options.allow_http => Ok(true),
        "http" => {
            let allow = options::ALLOW_HTTP;
            Err(Error::invalid(format!(
                "{key} `{endpoint}` is without TLS and not on this machine; use https, or SET '{allow}' = 'true'"
            )))
        }
        scheme => Err(Error::invalid(format!("{key} has the scheme `{scheme}`; {expected}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Location, Root};

    #[test]
    fn http_is_for_this_machine_unless_it_is_allowed() {
        let strict = Options::default();
        let allowed = Options { allow_http: true, ..Options::default() };
        for local in ["http://127.0.0.1:9000", "http://localhost", "http://[::1]:80"] {
            assert_eq!(plain_http(Some(local), &strict), Ok(true), "{local}");
        }
        for elsewhere in ["http://10.0.0.1:9000", "http://minio:9000", "http://127.0.0.1.example.com"] {
            let error = plain_http(Some(elsewhere), &strict).expect_err(elsewhere);
            assert!(error.message.contains("state.store.allow-http"), "{error}");
            assert_eq!(plain_http(Some(elsewhere), &allowed), Ok(true));
        }
        assert_eq!(plain_http(Some("https://minio:9000"), &strict), Ok(false));
        let error = plain_http(Some("http://me:hidden@127.0.0.1"), &allowed).expect_err("a password");
        assert!(!error.message.contains("hidden"), "{error}");
    }

    #[test]
    fn every_cloud_has_a_client_and_none_shows_its_secret() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "aGlkZGVuLXNlY3JldA==").expect("writable");
        let key = options::Reference::File(file.path().into());
        let options = Options {
            access_key: Some(key.clone()),
            secret_key: Some(key),
            account: Some("account".into()),
            ..Options::default()
        };
        for place in ["s3://bucket/a", "az://container/a", "abfs://container@account.dfs.core.windows.net/a"] {
            let location = Location::parse(place).expect(place);
            let root = Root::open(&location, &options, Patience::Full).expect(place);
            assert_eq!(root.object("b/c").as_ref(), "a/b/c");
            assert!(!format!("{root:?}").contains("aGlkZGVu"), "{root:?}");
        }
        let google = Location::parse("gs://bucket/a").expect("a bucket");
        Root::open(&google, &Options::default(), Patience::Full).expect("the machine's own account");
        let error = Root::open(&google, &options, Patience::Full).expect_err("no service account");
        assert!(error.message.contains("gs://bucket") && !error.message.contains("aGlkZGVu"), "{error}");
        let one = Options { access_key: None, ..options };
        let location = Location::parse("s3://bucket").expect("a bucket");
        let error = Root::open(&location, &one, Patience::Full).expect_err("half a pair");
        assert!(error.message.contains("state.store.access-key"), "{error}");
    }
}
