//! Whether a file is mounted on its own, where the kernel does not say so of the file itself (Linux before 5.8).

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether the file itself is a mount point, as when a single file is mounted into a container: `rename` fails with EBUSY
/// there.
pub(super) fn is_mount_point(target: &Path) -> bool {
    // Unknown here if either fails; `rename` fails then.
    let Ok(target) = target.canonicalize() else { return false };
    let Ok(mounts) = fs::read("/proc/self/mountinfo") else { return false };
    // proc_pid_mountinfo(5): the mount point is the fifth field, with blanks, line ends and backslashes in octal.
    let escaped: Vec<u8> = target
        .as_os_str()
        .as_bytes()
        .iter()
        .flat_map(|byte| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            _ => vec![*byte],
        })
        .collect();
    mounts
        .split(|byte| *byte == b'\n')
        .any(|mount| mount.split(|byte| *byte == b' ').nth(4) == Some(escaped.as_slice()))
}
