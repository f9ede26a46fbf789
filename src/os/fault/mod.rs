//! What to do about an error of the system: one table by kind of error, in both languages. Explains, and decides nothing.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::io::Errno;

use crate::language::ACTION_MARKS;
use crate::message::action;
use crate::os::descriptors::shortage;

mod listener;
mod permission;

pub(crate) use listener::address_in_use;
pub(crate) use permission::user_name;

/// What was tried when the system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Reading,
    /// Creating, writing, renaming or removing.
    Writing,
    Locking,
    /// Changing a mode or an owner.
    ChangingMode,
    Running,
}

/// A kind of error, as far as what to do differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SystemFault {
    NoPermission,
    /// The attempt is forbidden to every user, by a mount option, a capability, or AppArmor and its like.
    Forbidden,
    NotFound,
    NotADirectory,
    IsADirectory,
    ReadOnly,
    NoSpace,
    OverQuota,
    TooLarge,
    ShortOfResources,
    NoLocks,
    NoModes,
    Loop,
    NameTooLong,
    Stale,
    Device,
    NotExecutable,
    Other,
}

/// What to do about a kind of error. `{path}` is what the error is about.
pub(crate) struct Advice {
    pub(crate) kind: SystemFault,
    pub(crate) english: &'static str,
    pub(crate) chinese: &'static str,
}

const fn advice(kind: SystemFault, english: &'static str, chinese: &'static str) -> Advice {
    Advice { kind, english, chinese }
}

/// One row for each kind, [`SystemFault::Other`] last.
#[rustfmt::skip]
pub(crate) static TABLE: &[Advice] = &[
    advice(SystemFault::NoPermission,
        "Run it as the owner of {path}, or give this user permission.",
        "请以 {path} 的属主身份运行，或授予当前用户权限。"),
    advice(SystemFault::Forbidden,
        "See what forbids it: the mount's options, capabilities, chattr, SELinux or AppArmor.",
        "请检查挂载选项、capabilities、chattr 属性，以及 SELinux 或 AppArmor。"),
    advice(SystemFault::NotFound,
        "Correct the path, or make what is missing.",
        "请更正路径，或创建缺少的文件或目录。"),
    advice(SystemFault::NotADirectory,
        "Correct the path: a part of it is a file, and no directory.",
        "请更正路径：其中有一段是文件，不是目录。"),
    advice(SystemFault::IsADirectory,
        "Give the path of a file: this is a directory.",
        "请给出文件路径：该路径是目录。"),
    advice(SystemFault::ReadOnly,
        "Mount it writable, or give another directory.",
        "请以可写方式挂载，或指定其他目录。"),
    advice(SystemFault::NoSpace,
        "Free space or inodes there (df -h, df -i).",
        "请腾出磁盘空间或 inode（df -h、df -i）。"),
    advice(SystemFault::OverQuota,
        "Free space, or raise this user's quota (quota -s).",
        "请腾出磁盘空间，或调高该用户的磁盘配额（quota -s）。"),
    advice(SystemFault::TooLarge,
        "Raise ulimit -f, or LimitFSIZE= of the unit: it limits the size of files.",
        "请调高 ulimit -f 或 LimitFSIZE=（文件大小限制）。"),
    advice(SystemFault::ShortOfResources, shortage::SHORT_OF_RESOURCES[0], shortage::SHORT_OF_RESOURCES[1]),
    advice(SystemFault::NoLocks,
        "Give a directory on a file system with locks, or let its lock service run (NFS: rpc.statd).",
        "请使用支持文件锁的文件系统，或启用其锁服务（NFS：rpc.statd）。"),
    advice(SystemFault::NoModes,
        "Give a directory on a file system with owners and modes, or set them where it is mounted (vfat, CIFS: umask, uid).",
        "请使用支持权限的文件系统，或在挂载时设置（vfat、CIFS：umask、uid）。"),
    advice(SystemFault::Loop,
        "Correct the symbolic links: they lead in a circle.",
        "请更正符号链接：它们互相指向，形成循环。"),
    advice(SystemFault::NameTooLong, "Give a shorter path.", "请使用更短的路径。"),
    advice(SystemFault::Stale,
        "Mount the network file system again: the server has lost this file.",
        "请重新挂载该网络文件系统：服务器上已没有此文件。"),
    advice(SystemFault::Device,
        "Check the disk or the network behind it (dmesg).",
        "请检查磁盘或其网络（dmesg）。"),
    advice(SystemFault::NotExecutable,
        "Check the program's first line (#!) and for which machine it is built.",
        "请检查该程序的首行（#!），以及是否适用于本机架构。"),
    advice(SystemFault::Other,
        "Look at {path} by hand, and at dmesg.",
        "请手动检查 {path}，并查看 dmesg。"),
];

impl SystemFault {
    /// Returns the kind of an error of the system.
    fn of(err: &io::Error, operation: Operation) -> SystemFault {
        if shortage::is_shortage(err) {
            return SystemFault::ShortOfResources;
        }
        let Some(errno) = Errno::from_io_error(err) else {
            return match err.kind() {
                ErrorKind::PermissionDenied => SystemFault::NoPermission,
                ErrorKind::NotFound => SystemFault::NotFound,
                ErrorKind::IsADirectory => SystemFault::IsADirectory,
                _ => SystemFault::Other,
            };
        };
        match (errno, operation) {
            (Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL, Operation::Locking) => {
                SystemFault::NoLocks
            }
            (Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL, Operation::ChangingMode) => {
                SystemFault::NoModes
            }
            // chmod(2): the file system has no modes, or the file is another user's.
            (Errno::PERM, Operation::ChangingMode) => SystemFault::NoModes,
            (Errno::ACCESS, _) => SystemFault::NoPermission,
            (Errno::PERM, _) => SystemFault::Forbidden,
            (Errno::NOENT, _) => SystemFault::NotFound,
            (Errno::NOTDIR, _) => SystemFault::NotADirectory,
            (Errno::ISDIR, _) => SystemFault::IsADirectory,
            (Errno::ROFS, _) => SystemFault::ReadOnly,
            (Errno::NOSPC, _) => SystemFault::NoSpace,
            (Errno::DQUOT, _) => SystemFault::OverQuota,
            (Errno::FBIG, _) => SystemFault::TooLarge,
            (Errno::AGAIN, Operation::Running) => SystemFault::ShortOfResources,
            (Errno::LOOP, _) => SystemFault::Loop,
            (Errno::NAMETOOLONG, _) => SystemFault::NameTooLong,
            (Errno::STALE, _) => SystemFault::Stale,
            (Errno::IO | Errno::NXIO | Errno::NODEV | Errno::REMOTEIO, _) => SystemFault::Device,
            (Errno::NOEXEC, _) => SystemFault::NotExecutable,
            _ => SystemFault::Other,
        }
    }

    fn advice(self) -> &'static Advice {
        let row = TABLE.iter().find(|row| row.kind == self);
        row.unwrap_or(&TABLE[TABLE.len() - 1])
    }
}

/// An error of the system with what to do about it.
#[derive(Debug)]
struct Explained {
    raw: io::Error,
    action: String,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.raw, self.action)
    }
}

impl std::error::Error for Explained {}

/// Adds to an error about `path` what to do, marked for [`crate::message::action_first`]. Its kind stays.
pub(crate) fn explain(err: io::Error, path: &Path, operation: Operation) -> io::Error {
    if has_action(&err) {
        return err;
    }
    let action = advise(&err, path, operation);
    io::Error::new(err.kind(), Explained { raw: err, action })
}

/// Returns the error with what to do about it, for a message.
pub(crate) fn explained(err: &io::Error, path: &Path, operation: Operation) -> String {
    match has_action(err) {
        true => err.to_string(),
        false => format!("[{err}] {}", advise(err, path, operation)),
    }
}

/// Whether an error says what to do already: it is one of ours, which knows more than its kind tells.
fn has_action(err: &io::Error) -> bool {
    err.get_ref().is_some_and(|inner| inner.to_string().contains(ACTION_MARKS[0]))
}

/// Returns what to do about an error about `path`, marked.
fn advise(err: &io::Error, path: &Path, operation: Operation) -> String {
    let kind = SystemFault::of(err, operation);
    if kind == SystemFault::NoPermission
        && let Some(known) = permission::remedy(path, operation)
    {
        return known;
    }
    let Advice { english, chinese, .. } = kind.advice();
    let path = path.display().to_string();
    action(english.replace("{path}", &path), chinese.replace("{path}", &path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;
    use crate::message::action_first;

    #[test]
    fn every_kind_has_advice_that_is_whole_sentences_in_both_languages() {
        for (nth, row) in TABLE.iter().enumerate() {
            let rest = &TABLE[nth + 1..];
            assert!(rest.iter().all(|other| other.kind != row.kind), "{:?} twice", row.kind);
            assert!(row.english.is_ascii() && row.english.ends_with('.'), "{}", row.english);
            assert!(row.chinese.ends_with('。'), "{}", row.chinese);
        }
        assert_eq!(TABLE[TABLE.len() - 1].kind, SystemFault::Other);
    }

    #[test]
    fn each_error_of_the_system_has_its_own_advice() {
        let path = Path::new("/nowhere/default.lock");
        for (errno, operation, expected) in [
            (Errno::PERM, Operation::Writing, "See what forbids it"),
            (Errno::NOENT, Operation::Reading, "Correct the path, or make"),
            (Errno::NOTDIR, Operation::Reading, "a part of it is a file"),
            (Errno::ISDIR, Operation::Reading, "this is a directory"),
            (Errno::ROFS, Operation::Writing, "Mount it writable"),
            (Errno::NOSPC, Operation::Writing, "df -i"),
            (Errno::DQUOT, Operation::Writing, "quota -s"),
            (Errno::FBIG, Operation::Writing, "ulimit -f"),
            (Errno::MFILE, Operation::Reading, "LimitNOFILE="),
            (Errno::NOLCK, Operation::Locking, "with locks"),
            (Errno::OPNOTSUPP, Operation::Locking, "with locks"),
            (Errno::PERM, Operation::ChangingMode, "owners and modes"),
            (Errno::LOOP, Operation::Reading, "in a circle"),
            (Errno::IO, Operation::Reading, "Check the disk"),
            (Errno::NOEXEC, Operation::Running, "first line"),
            (Errno::XDEV, Operation::Writing, "Look at /nowhere/default.lock"),
        ] {
            let err = explain(errno.into(), path, operation);
            assert_eq!(err.kind(), io::Error::from(errno).kind());
            let again = explain(err, path, operation).to_string();
            let text = action_first(&format!("cannot open lock: {again}"));
            let english = Language::English.resolve(&text);
            let raw = format!(": cannot open lock [{}]", io::Error::from(errno));
            assert!(english.contains(expected) && english.ends_with(&raw), "{english}");
            assert!(Language::Chinese.resolve(&text).starts_with('请'), "{text}");
        }
    }
}
