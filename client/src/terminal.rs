//! The terminal that somebody sits at.

/// Columns and rows of the terminal that stdout goes to; None if it goes elsewhere.
pub fn size() -> Option<(usize, usize)> {
    // SAFETY: the call fills the struct it is given, for which all-zero is a valid value.
    let (result, size) = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size), size)
    };
    (result == 0 && size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}
