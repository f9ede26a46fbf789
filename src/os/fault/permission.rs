//! Why this user has no permission for a path, and what to do: which directory or file on the way refuses, whose it is, and
//! which group could.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use super::Operation;
use crate::message::action;
use crate::message::command::{marked, quoted_path};

/// What is read at most of `/etc/passwd` and `/etc/group`.
const MAX_NAMES: u64 = 1024 * 1024; // bytes

const ROOT: u32 = 0;

/// What refuses: a directory on the way, or the file itself.
#[derive(Debug)]
struct Barrier {
    path: PathBuf,
    owner: u32,
    group: u32,
    mode: u32,
    /// Whose the directory is that it is in.
    dir_owner: u32,
    /// The bit of a mode that is missing: 4, 2 or 1.
    missing: u32,
}

/// Returns what to do about missing permission for `path`, marked; `None` if it is not to be told.
pub(super) fn remedy(path: &Path, operation: Operation) -> Option<String> {
    let user = geteuid().as_raw();
    (user != ROOT).then(|| barrier(path, operation)).flatten().map(|barrier| about(&barrier, user))
}

/// Finds what refuses: the first directory that cannot be entered, or else the file or the directory that it is in.
fn barrier(path: &Path, operation: Operation) -> Option<Barrier> {
    let absolute = std::path::absolute(path).ok()?;
    let parent = absolute.parent().unwrap_or(Path::new("/"));
    let mut above: Vec<_> = parent.ancestors().collect();
    above.reverse();
    let closed =
        above.into_iter().find(|dir| dir.exists() && access(*dir, Access::EXEC_OK).is_err());
    let (refusing, missing) = match (closed, operation) {
        (Some(dir), _) => (dir, 1),
        (None, Operation::Reading) => (&*absolute, 4),
        (None, Operation::Running) => (&*absolute, 1),
        // A new file needs its directory; one that is there is opened to be written.
        (None, _) if absolute.is_file() && access(&absolute, Access::WRITE_OK).is_err() => {
            (&*absolute, 2)
        }
        (None, _) if absolute.is_dir() => (&*absolute, 2),
        (None, _) => (parent, 2),
    };
    let found = fs::metadata(refusing).ok()?;
    Some(Barrier {
        path: refusing.to_owned(),
        owner: found.uid(),
        group: found.gid(),
        mode: found.mode() & 0o7777,
        dir_owner: refusing
            .parent()
            .and_then(|it| fs::metadata(it).ok())
            .map_or(ROOT, |it| it.uid()),
        missing,
    })
}

/// Returns what to do about a barrier before this user, marked.
fn about(barrier: &Barrier, user: u32) -> String {
    let Barrier { path, owner, group, mode, missing, dir_owner } = barrier;
    if *owner == user {
        let letter = [(4, 'r'), (2, 'w'), (1, 'x')].into_iter().find(|(bit, _)| bit == missing);
        let letter = letter.map_or('x', |(_, letter)| letter);
        let command = marked(&format!("chmod u+{letter} {}", quoted_path(path)));
        return action(format!("Run {command}."), format!("请执行 {command}。"));
    }
    let name = user_name;
    if (*owner, *dir_owner) == (ROOT, user) {
        // Root's, by a run that came before the directory was this user's.
        let command = marked(&format!("chown -h {} {}", name(user), quoted_path(path)));
        return action(format!("Run {command} as root."), format!("请以 root 执行 {command}。"));
    }
    let (owner, user) = (name(*owner), name(user));
    let path = path.display();
    match mode & (missing << 3) != 0 && *group != ROOT {
        true => {
            let group = name_of("/etc/group", *group);
            action(
                format!("Join group {group} (usermod -aG {group} {user}), or run as user {owner}."),
                format!("请加入 {group} 组（usermod -aG {group} {user}），或以用户 {owner} 运行。"),
            )
        }
        false => action(
            // No command: it would take the path from its owner, or give away what others need, such as /etc.
            format!(
                "Run as user {owner}, or let {owner} give {user} access to {path}, mode {mode:04o}."
            ),
            format!(
                "请以用户 {owner} 运行，或由 {owner} 授权 {user} 访问 {path}（权限 {mode:04o}）。"
            ),
        ),
    }
}

/// Returns the name of a user by its number, or the number.
pub(crate) fn user_name(id: u32) -> String {
    name_of("/etc/passwd", id)
}

/// Returns the name of a user or group by its number, or the number.
fn name_of(file: &str, id: u32) -> String {
    let mut text = String::new();
    let read = fs::File::open(file).and_then(|file| file.take(MAX_NAMES).read_to_string(&mut text));
    let found = read.ok().and_then(|_| name_in(&text, id));
    found.map_or_else(|| id.to_string(), str::to_owned)
}

/// Returns the name of this number in passwd(5) or group(5).
fn name_in(text: &str, id: u32) -> Option<&str> {
    let name = |line: &'_ str| -> Option<(usize, u32)> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((name.len(), fields.nth(1)?.parse().ok()?))
    };
    text.lines().find_map(|line| match name(line) {
        Some((length, found)) if found == id => line.get(..length),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    fn said(owner: u32, group: u32, mode: u32, missing: u32, user: u32) -> String {
        let path = PathBuf::from("/var/lib/wxtoken");
        said_in(ROOT, path, [owner, group, mode, missing, user])
    }

    fn said_in(dir_owner: u32, path: PathBuf, rest: [u32; 5]) -> String {
        let [owner, group, mode, missing, user] = rest;
        let text = about(&Barrier { path, owner, group, mode, dir_owner, missing }, user);
        Language::English.resolve(&text).into_owned()
    }

    #[test]
    fn missing_permission_names_the_group_to_join_only_if_it_helps() {
        let text = said(4_000_000, 4_000_001, 0o750, 1, 4_000_002);
        assert_eq!(
            text,
            "Join group 4000001 (usermod -aG 4000001 4000002), or run as user 4000000."
        );
        for (group, mode, missing) in [(4_000_001, 0o700, 1), (4_000_001, 0o750, 2), (0, 0o750, 1)]
        {
            let text = said(4_000_000, group, mode, missing, 4_000_002);
            assert!(
                text.starts_with(
                    "Run as user 4000000, or let 4000000 give 4000002 access to /var/lib/wxtoken"
                ),
                "{text}"
            );
        }
        assert_eq!(said(7, 7, 0o500, 2, 7), "Run chmod u+w /var/lib/wxtoken.");
    }

    #[test]
    fn a_file_of_roots_in_a_directory_of_this_user_is_to_be_given_to_this_user() {
        let path = PathBuf::from("/var/lib/wxtoken/default.json");
        let user = 4_000_000;
        let text = said_in(user, path.clone(), [ROOT, ROOT, 0o600, 4, user]);
        assert_eq!(text, "Run chown -h 4000000 /var/lib/wxtoken/default.json as root.");
        for (dir_owner, owner) in [(ROOT, ROOT), (user, 4_000_001)] {
            let text = said_in(dir_owner, path.clone(), [owner, ROOT, 0o600, 4, user]);
            assert!(text.starts_with("Run as user "), "{text}");
        }
    }

    #[test]
    fn names_are_those_of_passwd_and_group() {
        let text = "root:x:0:0::/root:/bin/sh\nbroken\nwxtoken:x:990:\n";
        assert_eq!(name_in(text, 990), Some("wxtoken"));
        assert_eq!(name_in(text, 0), Some("root"));
        assert_eq!(name_in(text, 1), None);
    }
}
