//! Where Kafka's jars lie: in `KAFKA_HOME`, or in a folder of the build's own that Maven has filled. A folder appears
//! whole or not at all, so that two processes may want it at once; its name holds the digest of what was asked for.

use crate::servers::programs;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const POM: &str = include_str!("pom.xml");

/// What a machine needs to run a broker.
#[derive(Clone)]
pub struct Installation {
    pub java: PathBuf,
    /// For `java -cp`.
    pub classpath: String,
}

/// Else a line that says what is lacking and how to get it.
pub fn installation() -> Result<Installation, String> {
    static FOUND: OnceLock<Result<Installation, String>> = OnceLock::new();
    FOUND.get_or_init(find).clone()
}

fn find() -> Result<Installation, String> {
    let java = match std::env::var_os("JAVA_HOME") {
        Some(home) => PathBuf::from(home).join("bin/java"),
        None => programs::find("java", "default-jre-headless")?,
    };
    let jars = match std::env::var_os("KAFKA_HOME") {
        Some(home) => of_home(Path::new(&home))?,
        None => by_maven()?,
    };
    // Java itself finds the jars of a folder.
    Ok(Installation { java, classpath: format!("{}/*", jars.display()) })
}

fn of_home(home: &Path) -> Result<PathBuf, String> {
    let jars = home.join("libs");
    let is_core = |name: &str| name.starts_with("kafka_2.") && name.ends_with(".jar");
    let mut names = std::fs::read_dir(&jars).into_iter().flatten().flatten().map(|entry| entry.file_name());
    match names.any(|name| is_core(&name.to_string_lossy())) {
        true => Ok(jars),
        false => Err(format!("KAFKA_HOME is {}, but there is no libs/kafka_2.*.jar in it", home.display())),
    }
}

fn by_maven() -> Result<PathBuf, String> {
    let program = std::env::current_exe().expect("a running program has a path");
    // target/<profile>/deps/<test>, or target/<profile>/<bench>.
    let is_profile = |folder: &&Path| folder.join("deps").is_dir();
    let profile = program.ancestors().skip(1).find(is_profile);
    let target = profile.and_then(Path::parent).ok_or("it is not in a target directory of Cargo's")?;
    let jars = target.join(format!("test-servers/kafka-{:08x}", crc32fast::hash(POM.as_bytes())));
    if jars.is_dir() {
        return Ok(jars);
    }
    let maven = programs::find("mvn", "maven")?;
    let how = "with access to Maven Central, or set KAFKA_HOME to an unpacked Kafka 4";
    fetch(&maven, &jars).map_err(|e| format!("Maven could not fetch Apache Kafka (try again {how}): {e:#}"))?;
    Ok(jars)
}

fn fetch(maven: &Path, jars: &Path) -> Result<()> {
    let parent = jars.parent().expect("it is below the target directory");
    std::fs::create_dir_all(parent)?;
    // On the same file system, so that a rename makes it whole.
    let folder = tempfile::Builder::new().prefix(".fetching-").tempdir_in(parent)?;
    std::fs::write(folder.path().join("pom.xml"), POM)?;
    let lib = folder.path().join("lib");
    let mut command = Command::new(maven);
    command.args(["-q", "-B", "-Dstyle.color=never", "dependency:copy-dependencies", "-DincludeScope=runtime"]);
    command.arg(format!("-DoutputDirectory={}", lib.display())).current_dir(folder.path()).stdin(Stdio::null());
    crate::process::dies_with_us(&mut command);
    let done = command.output().context("mvn does not start")?;
    if !done.status.success() {
        // It tells its errors on standard output, the cause first.
        let said = String::from_utf8_lossy(&done.stdout);
        let line = said.lines().find(|line| line.contains("[ERROR]")).unwrap_or("it does not say why");
        anyhow::bail!("{line}");
    }
    match std::fs::rename(&lib, jars) {
        // Another process was first.
        Err(_) if jars.is_dir() => Ok(()),
        result => result.with_context(|| format!("cannot rename to {}", jars.display())),
    }
}
