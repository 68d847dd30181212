//! Where this worker's secrets come from: files of a directory (`--secrets-dir`, as a Kubernetes secret is mounted), then
//! variables of its environment (`EDGEFLOW_SECRET_<NAME>`). They are read when a connection is opened, so that a rotated
//! one is taken with the next; and they are kept nowhere else.

use crate::error::{Code, Error, Result};
use ef_proto::secret::{Revealed, Template, check_name};
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

/// A password, a token, a key: more is a mistake.
const BYTES_MAX: u64 = 64 << 10;

#[derive(Clone, Debug, Default)]
pub struct Secrets {
    directory: Option<PathBuf>,
}

impl Secrets {
    pub fn new(directory: Option<PathBuf>) -> Secrets {
        Secrets { directory }
    }

    /// From `--secrets-dir`, or from what EDGEFLOW_SECRETS_DIR names.
    pub fn given(directory: Option<PathBuf>) -> Secrets {
        Secrets::new(directory.or_else(|| std::env::var_os("EDGEFLOW_SECRETS_DIR").map(PathBuf::from)))
    }

    /// The text with the values of the secrets that it names. Errors name the secret and where it was looked for.
    pub fn reveal(&self, template: &Template) -> Result<Revealed> {
        template.reveal(|name| self.value(name).map_err(Failed)).map_err(|Failed(error)| error)
    }

    /// The values of the secrets that a text names, for what must not be told.
    pub fn values(&self, template: &Template) -> Result<Vec<String>> {
        let mut values = Vec::new();
        let revealed = template.reveal(|name| {
            let value = self.value(name).map_err(Failed)?;
            values.push(value.clone());
            Ok(value)
        });
        revealed.map(|_| values).map_err(|Failed(error)| error)
    }

    fn value(&self, name: &str) -> Result<String> {
        check_name(name).map_err(|e| Error::invalid(e.to_string()))?;
        let variable = variable(name);
        if let Some(path) = self.directory.as_ref().map(|directory| directory.join(name)) {
            let failed = |what: String| Error::invalid(format!("secret '{name}': file {}: {what}", path.display()));
            match std::fs::File::open(&path) {
                Ok(file) => {
                    let mut text = String::new();
                    file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| failed(e.to_string()))?;
                    if text.len() as u64 > BYTES_MAX {
                        return Err(failed(format!("it has more than {BYTES_MAX} bytes")));
                    }
                    // Editors and `echo` end a file with a line end; no secret does.
                    let value = text.strip_suffix('\n').unwrap_or(&text);
                    return Ok(value.strip_suffix('\r').unwrap_or(value).to_owned());
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        match std::env::var(&variable) {
            Ok(value) => Ok(value),
            Err(_) => {
                let file = match &self.directory {
                    Some(directory) => format!("there is no file {}", directory.join(name).display()),
                    None => "no --secrets-dir is given".into(),
                };
                Err(Error::new(Code::NotFound, format!("secret '{name}': {file}, and {variable} is not set")))
            }
        }
    }
}

/// `mqtt-password` is in `EDGEFLOW_SECRET_MQTT_PASSWORD`.
fn variable(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("EDGEFLOW_SECRET_{}", name.chars().map(plain).collect::<String>())
}

/// Why a template could not be filled.
struct Failed(Error);

impl From<ef_proto::secret::TemplateError> for Failed {
    fn from(error: ef_proto::secret::TemplateError) -> Failed {
        Failed(Error::invalid(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_from_files_and_missing_ones_are_told_with_the_places() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("token"), "t0p\n").expect("it is ours");
        let secrets = Secrets::new(Some(directory.path().into()));
        let template = Template::parse("user:${secret:token}").expect("well-formed");
        assert_eq!(secrets.reveal(&template).expect("there").expose(), "user:t0p");
        let absent = Template::parse("${secret:no-such}").expect("well-formed");
        let error = secrets.reveal(&absent).expect_err("absent");
        assert_eq!(error.code, Code::NotFound);
        let expected = format!(
            "secret 'no-such': there is no file {}, and EDGEFLOW_SECRET_NO_SUCH is not set",
            directory.path().join("no-such").display()
        );
        assert_eq!(error.message, expected);
    }

    #[test]
    fn huge_secret_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("big"), vec![b'x'; BYTES_MAX as usize + 1]).expect("it is ours");
        let template = Template::parse("${secret:big}").expect("well-formed");
        let error = Secrets::new(Some(directory.path().into())).reveal(&template).expect_err("too big");
        assert!(error.message.contains("65536 bytes"), "{error}");
    }
}
