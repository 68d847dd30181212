//! Whether a Hello can be true: what it says is put into names of metrics, tables and placements, and is believed from
//! then on. Pure.

use ef_proto::error::Error;
use ef_proto::rpc::Hello;

/// As a host's name.
const NAME_CHARS_MAX: usize = 253;
/// Far above what one machine has; a mistake in a unit is not.
const SLOTS_MAX: u32 = 65_536;
const LABELS_MAX: usize = 256;

pub fn check(hello: &Hello) -> Result<(), Error> {
    let id = &hello.worker.0;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if id.is_empty() || id.len() > NAME_CHARS_MAX || !id.chars().all(plain) {
        let shown: String = id.chars().take(NAME_CHARS_MAX).collect();
        return Err(Error::invalid(format!(
            "worker id {shown:?} is not usable; 1 to {NAME_CHARS_MAX} of the characters A-Z, a-z, 0-9, `.`, `_` and `-` \
             are accepted"
        )));
    }
    let refused = |what: String| Err(Error::invalid(format!("worker `{id}`: {what}")));
    if hello.slots == 0 || hello.slots > SLOTS_MAX {
        return refused(format!("{} slots; 1 to {SLOTS_MAX} are accepted", hello.slots));
    }
    let address = hello.data_address.rsplit_once(':');
    if !address.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return refused(format!("data address {:?} is not `host:port`", hello.data_address));
    }
    if hello.labels.len() > LABELS_MAX {
        return refused(format!("{} labels; at most {LABELS_MAX} are accepted", hello.labels.len()));
    }
    let labels = hello.labels.iter().flat_map(|(key, value)| [key, value]);
    if let Some(long) = labels.chain([&hello.site, &hello.version]).find(|text| text.chars().count() > NAME_CHARS_MAX) {
        let shown: String = long.chars().take(NAME_CHARS_MAX).collect();
        return refused(format!("its site, version or a label is longer than {NAME_CHARS_MAX} characters: {shown:?}…"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::tests::hello;
    use ef_proto::ids::WorkerId;

    #[test]
    fn hello_that_cannot_be_true_is_refused_with_what_could() {
        assert_eq!(check(&hello("edge-7.site_1")), Ok(()));
        assert_eq!(check(&hello(&"x".repeat(253))), Ok(()));
        let with = |change: fn(&mut Hello)| {
            let mut hello = hello("w");
            change(&mut hello);
            hello
        };
        let cases: [(Hello, &str); 11] = [
            (with(|h| h.worker = WorkerId(String::new())), "A-Z"),
            (with(|h| h.worker = WorkerId("x".repeat(254))), "253"),
            (with(|h| h.worker = WorkerId("a b".into())), "\"a b\""),
            (with(|h| h.worker = WorkerId("é".into())), "a-z"),
            (with(|h| h.slots = 0), "0 slots"),
            (with(|h| h.slots = 1 << 30), "1073741824 slots"),
            (with(|h| h.data_address = String::new()), "host:port"),
            (with(|h| h.data_address = "host:0".into()), "host:0"),
            (with(|h| h.data_address = ":7000".into()), ":7000"),
            (with(|h| h.site = "s".repeat(254)), "site"),
            (with(|h| h.labels = (0..257).map(|i| (i.to_string(), String::new())).collect()), "257 labels"),
        ];
        for (hello, named) in cases {
            let error = check(&hello).expect_err(named);
            assert!(error.code == ef_proto::error::Code::Invalid && error.message.contains(named), "{named}: {error}");
        }
    }
}
