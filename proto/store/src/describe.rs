//! A store's error in one line for a person: without XML, and without the queries of URLs, which may be signed.

use std::error::Error;

pub fn describe(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    // The cause that a person can do something about (`Connection refused`) is the innermost one.
    let mut cause = error.source();
    while let Some(source) = cause.and_then(Error::source) {
        cause = Some(source);
    }
    if let Some(cause) = cause.map(ToString::to_string).filter(|cause| !text.contains(cause.as_str())) {
        text = format!("{text}: {cause}");
    }
    without_queries(&readable(&text))
}

/// Replaces a body in XML by its code and message.
fn readable(text: &str) -> String {
    let Some(start) = text.find("<?xml").or_else(|| text.find("<Error")) else { return one_line(text) };
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(value, _)| value)
    };
    let said: Vec<&str> = [element("Code"), element("Message")].into_iter().flatten().collect();
    one_line(&format!("{}{}", &text[..start], said.join(": ")))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn without_queries(text: &str) -> String {
    let cut = |word: &str| match word.split_once('?') {
        Some((url, _)) if word.contains("://") => url.to_string(),
        _ => word.to_string(),
    };
    text.split(' ').map(cut).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_in_xml_is_told_by_its_code_and_message() {
        let body = "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>There is none</Message>\
                    <StringToSign>AWS4 x</StringToSign></Error>";
        let error = object_store::Error::Generic { store: "S3", source: format!("404 Not Found: {body}").into() };
        assert_eq!(describe(&error), "Generic S3 error: 404 Not Found: NoSuchBucket: There is none");
    }

    #[test]
    fn signature_in_a_url_is_not_told() {
        let source = "PUT https://a.blob.core.windows.net/c/x?sv=1&sig=hidden failed".into();
        let told = describe(&object_store::Error::Generic { store: "Azure", source });
        assert!(told.contains("https://a.blob.core.windows.net/c/x failed") && !told.contains("hidden"), "{told}");
    }
}
