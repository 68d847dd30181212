//! Lookup joins: what is asked, of whom, and what is kept of the answers.

use super::enumeration::{Enumeration, enumeration, known};
use super::fault::{Fault, chosen, list, narrow, optional, required, template};
use super::generated::plan as wire;
use super::generated::plan::{lookup_connector, lookup_key};
use crate::connector::lookup::{HttpLookup, LookupCache, LookupConnector, LookupOptions, RedisLookup, RedisLookupMode};
use crate::plan::{LookupJoin, LookupKey, LookupValue};

enumeration!(RedisLookupMode: String, Hash);

impl From<&LookupJoin> for wire::LookupJoin {
    fn from(join: &LookupJoin) -> wire::LookupJoin {
        let LookupJoin { table, connector, format, options, kind, keys, right, filter } = join;
        wire::LookupJoin {
            table: table.clone(),
            connector: Some(connector.into()),
            format: format.as_ref().map(Into::into),
            options: Some(options.into()),
            kind: kind.number(),
            keys: keys.iter().map(Into::into).collect(),
            right: Some(right.into()),
            filter: filter.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<wire::LookupJoin> for LookupJoin {
    type Error = Fault;

    fn try_from(join: wire::LookupJoin) -> Result<LookupJoin, Fault> {
        Ok(LookupJoin {
            table: join.table,
            connector: required(join.connector, "connector")?,
            format: optional(join.format, "format")?,
            options: required(join.options, "options")?,
            kind: known(join.kind, "kind")?,
            keys: list(join.keys, "keys")?,
            right: required(join.right, "right")?,
            filter: optional(join.filter, "filter")?,
        })
    }
}

impl From<&LookupKey> for wire::LookupKey {
    fn from(key: &LookupKey) -> wire::LookupKey {
        use lookup_key::Value;
        let value = match &key.value {
            LookupValue::Column(index) => Value::Column(*index as u64),
            LookupValue::Constant(scalar) => Value::Constant(scalar.into()),
        };
        wire::LookupKey { field: Some((&key.field).into()), value: Some(value) }
    }
}

impl TryFrom<wire::LookupKey> for LookupKey {
    type Error = Fault;

    fn try_from(key: wire::LookupKey) -> Result<LookupKey, Fault> {
        use lookup_key::Value;
        let value = match chosen(key.value, "value", "column, constant")? {
            Value::Column(index) => LookupValue::Column(narrow(index, "column")?),
            Value::Constant(scalar) => LookupValue::Constant(required(Some(scalar), "constant")?),
        };
        Ok(LookupKey { field: required(key.field, "field")?, value })
    }
}

impl From<&LookupConnector> for wire::LookupConnector {
    fn from(connector: &LookupConnector) -> wire::LookupConnector {
        use lookup_connector::Kind;
        let kind = match connector {
            LookupConnector::Redis(redis) => Kind::Redis(redis.into()),
            LookupConnector::Http(http) => Kind::Http(http.into()),
        };
        wire::LookupConnector { kind: Some(kind) }
    }
}

impl TryFrom<wire::LookupConnector> for LookupConnector {
    type Error = Fault;

    fn try_from(connector: wire::LookupConnector) -> Result<LookupConnector, Fault> {
        use lookup_connector::Kind;
        Ok(match chosen(connector.kind, "kind", "redis, http")? {
            Kind::Redis(redis) => LookupConnector::Redis(required(Some(redis), "redis")?),
            Kind::Http(http) => LookupConnector::Http(required(Some(http), "http")?),
        })
    }
}

impl From<&RedisLookup> for wire::RedisLookup {
    fn from(redis: &RedisLookup) -> wire::RedisLookup {
        let RedisLookup { server, mode, key_prefix, key_separator } = redis;
        wire::RedisLookup {
            server: Some(server.into()),
            mode: mode.number(),
            key_prefix: key_prefix.clone(),
            key_separator: key_separator.clone(),
        }
    }
}

impl TryFrom<wire::RedisLookup> for RedisLookup {
    type Error = Fault;

    fn try_from(redis: wire::RedisLookup) -> Result<RedisLookup, Fault> {
        Ok(RedisLookup {
            server: required(redis.server, "server")?,
            mode: known(redis.mode, "mode")?,
            key_prefix: redis.key_prefix,
            key_separator: redis.key_separator,
        })
    }
}

impl From<&HttpLookup> for wire::HttpLookup {
    fn from(http: &HttpLookup) -> wire::HttpLookup {
        let HttpLookup { url, headers, connect_timeout_ms, request_timeout_ms, response_bytes_max } = http;
        wire::HttpLookup {
            url: url.to_string(),
            headers: headers.iter().map(Into::into).collect(),
            connect_timeout_ms: *connect_timeout_ms,
            request_timeout_ms: *request_timeout_ms,
            response_bytes_max: *response_bytes_max,
        }
    }
}

impl TryFrom<wire::HttpLookup> for HttpLookup {
    type Error = Fault;

    fn try_from(http: wire::HttpLookup) -> Result<HttpLookup, Fault> {
        Ok(HttpLookup {
            url: template(&http.url, "url")?,
            headers: list(http.headers, "headers")?,
            connect_timeout_ms: http.connect_timeout_ms,
            request_timeout_ms: http.request_timeout_ms,
            response_bytes_max: http.response_bytes_max,
        })
    }
}

impl From<&LookupOptions> for wire::LookupOptions {
    fn from(options: &LookupOptions) -> wire::LookupOptions {
        let LookupOptions { cache, max_retries, capacity, timeout_ms } = options;
        wire::LookupOptions {
            cache: cache.as_ref().map(Into::into),
            max_retries: *max_retries,
            capacity: *capacity,
            timeout_ms: *timeout_ms,
        }
    }
}

impl TryFrom<wire::LookupOptions> for LookupOptions {
    type Error = Fault;

    fn try_from(options: wire::LookupOptions) -> Result<LookupOptions, Fault> {
        Ok(LookupOptions {
            cache: optional(options.cache, "cache")?,
            max_retries: options.max_retries,
            capacity: options.capacity,
            timeout_ms: options.timeout_ms,
        })
    }
}

impl From<&LookupCache> for wire::LookupCache {
    fn from(cache: &LookupCache) -> wire::LookupCache {
        let LookupCache { rows_max, bytes_max, expire_after_write_ms, expire_after_access_ms, missing_keys } = cache;
        wire::LookupCache {
            rows_max: *rows_max,
            bytes_max: *bytes_max,
            expire_after_write_ms: *expire_after_write_ms,
            expire_after_access_ms: *expire_after_access_ms,
            missing_keys: *missing_keys,
        }
    }
}

impl TryFrom<wire::LookupCache> for LookupCache {
    type Error = Fault;

    fn try_from(cache: wire::LookupCache) -> Result<LookupCache, Fault> {
        Ok(LookupCache {
            rows_max: cache.rows_max,
            bytes_max: cache.bytes_max,
            expire_after_write_ms: cache.expire_after_write_ms,
            expire_after_access_ms: cache.expire_after_access_ms,
            missing_keys: cache.missing_keys,
        })
    }
}
