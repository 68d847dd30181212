//! Rights of a broker's users. The Rust binding has no call for them, so the C library's own is made here.

use super::client::{CALL_MAX, Client};
use anyhow::{Context, Result, bail};
use rdkafka::bindings as c;
use std::ffi::{CStr, CString};

/// What a right is about: a name, or with a final `*` all that begin so.
#[derive(Clone, Copy, Debug)]
pub enum Resource<'a> {
    Topic(&'a str),
    Group(&'a str),
    TransactionalId(&'a str),
}

#[derive(Clone, Copy, Debug)]
pub enum Right {
    All,
    Read,
    Write,
    Create,
    Describe,
}

impl Client {
    /// Gives `user` a right. A moment may pass until the broker minds it.
    pub fn allow(&self, user: &str, resource: Resource, right: Right) -> Result<()> {
        use c::rd_kafka_AclOperation_t as Operation;
        use c::rd_kafka_ResourcePatternType_t as Pattern;
        use c::rd_kafka_ResourceType_t as Type;
        let (kind, name) = match resource {
            Resource::Topic(name) => (Type::RD_KAFKA_RESOURCE_TOPIC, name),
            Resource::Group(name) => (Type::RD_KAFKA_RESOURCE_GROUP, name),
            Resource::TransactionalId(name) => (Type::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID, name),
        };
        let (name, pattern) = match name.strip_suffix('*') {
            Some("") | None => (name, Pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL),
            Some(prefix) => (prefix, Pattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED),
        };
        let operation = match right {
            Right::All => Operation::RD_KAFKA_ACL_OPERATION_ALL,
            Right::Read => Operation::RD_KAFKA_ACL_OPERATION_READ,
            Right::Write => Operation::RD_KAFKA_ACL_OPERATION_WRITE,
            Right::Create => Operation::RD_KAFKA_ACL_OPERATION_CREATE,
            Right::Describe => Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE,
        };
        let (name, user) = (CString::new(name)?, CString::new(format!("User:{user}"))?);
        let mut error = [0; 256];
        // SAFETY: all strings end with a zero and live until the call returns, which copies them; `error` has the
        // length that is given.
        let binding = unsafe {
            c::rd_kafka_AclBinding_new(
                kind,
                name.as_ptr(),
                pattern,
                user.as_ptr(),
                c"*".as_ptr(),
                operation,
                c::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
                error.as_mut_ptr(),
                error.len(),
            )
        };
        if binding.is_null() {
            // SAFETY: the library ends what it writes with a zero.
            bail!("no such right: {}", unsafe { CStr::from_ptr(error.as_ptr()) }.to_string_lossy());
        }
        let admin = self.admin()?;
        let client = admin.inner().native_ptr();
        // SAFETY: `client` lives as long as `admin`; the binding, the queue and the event are made here and freed once,
        // after the last use; what the event holds is only looked at before it is freed.
        let failed = unsafe {
            let queue = c::rd_kafka_queue_new(client);
            let mut bindings = [binding];
            c::rd_kafka_CreateAcls(client, bindings.as_mut_ptr(), 1, std::ptr::null(), queue);
            let event = c::rd_kafka_queue_poll(queue, CALL_MAX.as_millis() as i32);
            let failed = if event.is_null() { Some("no answer".to_string()) } else { failure(event) };
            if !event.is_null() {
                c::rd_kafka_event_destroy(event);
            }
            c::rd_kafka_queue_destroy(queue);
            c::rd_kafka_AclBinding_destroy(binding);
            failed
        };
        failed.map_or(Ok(()), |e| Err(anyhow::Error::msg(e))).with_context(|| format!("{resource:?}: {right:?}"))
    }
}

/// # Safety
/// `event` is the answer to one `rd_kafka_CreateAcls`.
unsafe fn failure(event: *mut c::rd_kafka_event_t) -> Option<String> {
    // SAFETY: as the caller promises; the texts live as long as the event, and are copied.
    unsafe {
        let text = |text: *const std::ffi::c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
        if c::rd_kafka_event_error(event) as i32 != 0 {
            return Some(text(c::rd_kafka_event_error_string(event)));
        }
        let mut count = 0;
        let results = c::rd_kafka_CreateAcls_result_acls(c::rd_kafka_event_CreateAcls_result(event), &mut count);
        if count != 1 {
            return Some(format!("{count} answers to one request"));
        }
        let error = c::rd_kafka_acl_result_error(*results);
        (!error.is_null()).then(|| text(c::rd_kafka_error_string(error)))
    }
}
