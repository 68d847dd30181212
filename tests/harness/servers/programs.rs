//! Finds the programs of others that a server needs.

use crate::process::search_path;
use std::path::PathBuf;

/// Where `name` lies; else a line that says which package has it.
pub fn find(name: &str, package: &str) -> Result<PathBuf, String> {
    let path = search_path();
    let found = path.split(':').filter(|folder| !folder.is_empty()).map(|folder| PathBuf::from(folder).join(name));
    found.into_iter().find(|program| program.is_file()).ok_or_else(|| {
        format!("`{name}` is not installed: `sh deploy/setup.sh` installs it on Debian (package {package})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_is_named_with_its_package() {
        assert!(find("sh", "dash").expect("every machine has it").ends_with("sh"));
        let lack = find("no-such-program", "some-package").expect_err("nobody has it");
        assert!(
            lack.contains("no-such-program") && lack.contains("some-package") && lack.contains("setup.sh"),
            "{lack}"
        );
    }
}
