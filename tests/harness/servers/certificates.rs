//! Certificates that are made for one test: an authority that nobody else trusts, a server of this machine, a client.

use super::programs;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Files in PEM, removed with the value. Keys are PKCS #8.
pub struct Certificates {
    folder: TempDir,
}

/// The machine's own file of defaults would add extensions of its own.
const DEFAULTS: &str = "[req]\ndistinguished_name = name\n[name]\n";

impl Certificates {
    /// Where there is no `openssl`: the line that says so.
    pub fn lack() -> Option<String> {
        programs::find("openssl", "openssl").err()
    }

    pub fn make() -> Result<Certificates> {
        let made = Certificates { folder: tempfile::tempdir()? };
        std::fs::write(made.file("defaults"), DEFAULTS)?;
        made.certificate("ca", &["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"], false)?;
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost";
        made.certificate("server", &[names, "extendedKeyUsage=serverAuth,clientAuth"], true)?;
        made.certificate("client", &["subjectAltName=DNS:client", "extendedKeyUsage=clientAuth"], true)?;
        // Kafka wants both in one file.
        let both = [made.server_key(), made.server()].map(std::fs::read_to_string);
        std::fs::write(made.server_key_and_certificate(), both.into_iter().collect::<std::io::Result<String>>()?)?;
        Ok(made)
    }

    pub fn authority(&self) -> PathBuf {
        self.file("ca.crt")
    }

    /// For 127.0.0.1 and localhost.
    pub fn server(&self) -> PathBuf {
        self.file("server.crt")
    }

    pub fn server_key(&self) -> PathBuf {
        self.file("server.key")
    }

    pub fn server_key_and_certificate(&self) -> PathBuf {
        self.file("server.pem")
    }

    pub fn client(&self) -> PathBuf {
        self.file("client.crt")
    }

    pub fn client_key(&self) -> PathBuf {
        self.file("client.key")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn certificate(&self, name: &str, extensions: &[&str], by_authority: bool) -> Result<()> {
        let folder: &Path = self.folder.path();
        let program = programs::find("openssl", "openssl").map_err(anyhow::Error::msg)?;
        let mut command = Command::new(program);
        command.current_dir(folder).stdin(Stdio::null()).args(["req", "-x509", "-config", "defaults", "-days", "2"]);
        command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-subj", &format!("/O=EdgeFlow tests/CN={name}")]);
        command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]);
        command.args(extensions.iter().flat_map(|extension| ["-addext", extension]));
        if by_authority {
            command.args(["-CA", "ca.crt", "-CAkey", "ca.key"]);
        }
        let done = command.output().context("openssl does not start")?;
        ensure!(done.status.success(), "openssl made no certificate: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }
}
