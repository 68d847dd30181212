//! A small disk of its own for one worker, so that it can be full: a tmpfs. Needs root; where it cannot be mounted
//! [`Disk::new`] says so. What a killed run left mounted is taken away by the next one, by the pid in the device's name.

use crate::missing::is_root;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const DEVICE: &str = "ef-test-disk-";
/// The name of what fills the disk.
const FILL: &str = "fill";

pub struct Disk {
    directory: PathBuf,
}

impl Disk {
    /// Mounts `megabytes` at `directory`, which is made. Err: why it cannot be.
    pub fn new(directory: &Path, megabytes: u32) -> Result<Disk, String> {
        if !is_root() {
            return Err("a disk of its own needs root: run the tests as root".into());
        }
        sweep();
        std::fs::create_dir_all(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        let device = format!("{DEVICE}{}", std::process::id());
        let (device, options) = (text(device.as_bytes()), text(format!("size={megabytes}m").as_bytes()));
        let (target, kind) = (text(directory.as_os_str().as_bytes()), text(b"tmpfs"));
        // SAFETY: all pointers are to strings that end with a zero byte and live until the call has returned.
        let mounted = unsafe {
            libc::mount(
                device.as_ptr(),
                target.as_ptr(),
                kind.as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV,
                options.as_ptr().cast(),
            )
        };
        match mounted {
            0 => Ok(Disk { directory: directory.to_path_buf() }),
            _ => Err(format!("a tmpfs cannot be mounted here: {}", std::io::Error::last_os_error())),
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes all that is free.
    pub fn fill(&self) {
        let file = OpenOptions::new().create(true).append(true).open(self.directory.join(FILL));
        // With no room for a name it is full already.
        let Ok(mut file) = file else { return };
        let mut piece = vec![0u8; 64 << 10];
        while !piece.is_empty() {
            match file.write(&piece) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Down to the last block.
                Err(_) => piece.truncate(piece.len() / 2),
            }
        }
    }

    /// Gives it back.
    pub fn free(&self) {
        // It may not be full.
        let _ = std::fs::remove_file(self.directory.join(FILL));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.directory);
    }
}

/// Takes it away also while somebody has files open on it.
fn unmount(directory: &Path) {
    let directory = text(directory.as_os_str().as_bytes());
    // SAFETY: the pointer is to a string that ends with a zero byte and lives until the call has returned.
    unsafe { libc::umount2(directory.as_ptr(), libc::MNT_DETACH) };
}

/// Takes away the disks of processes that are gone.
pub fn sweep() {
    for (pid, directory) in mounted() {
        if !Path::new(&format!("/proc/{pid}")).exists() {
            unmount(&directory);
        }
    }
}

/// Our disks: whose, and where.
fn mounted() -> Vec<(u32, PathBuf)> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let of = |line: &str| {
        let mut words = line.split(' ');
        let pid = words.next()?.strip_prefix(DEVICE)?.parse().ok()?;
        Some((pid, PathBuf::from(words.next()?)))
    };
    mounts.lines().filter_map(of).collect()
}

fn text(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("no zero byte in a path or a name of ours")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::missing::missing;

    #[test]
    fn full_disk_takes_nothing_until_it_is_freed_and_goes_when_dropped() {
        let work = tempfile::tempdir().expect("a temporary directory");
        let disk = match Disk::new(&work.path().join("disk"), 2) {
            Ok(disk) => disk,
            Err(lack) => return missing("a full disk", &lack),
        };
        let (file, big) = (disk.directory().join("file"), vec![1; 100 << 10]);
        std::fs::write(&file, &big).expect("there is room");
        disk.fill();
        let error = std::fs::write(&file, vec![1; 200 << 10]).expect_err("it is full");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        disk.free();
        std::fs::write(&file, &big).expect("there is room again");
        let directory = disk.directory().to_path_buf();
        assert!(mounted().contains(&(std::process::id(), directory.clone())));
        drop(disk);
        assert!(!mounted().iter().any(|(_, other)| *other == directory));
    }
}
