//! What a setup does: directories, files and commands. Each step can be shown, and can be done again without harm.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{OFlags, Stat};
use rustix::process::geteuid;
use zeroize::Zeroizing;

use super::host::{SetupHost, USER, find_program};
use super::messages;
use crate::error::Exit;
use crate::language::{Language, bilingual};
use crate::log::{printable, without_secrets};
use crate::message::cannot;
use crate::os::fault::{Operation, explained};
use crate::os::file::atomic::{ReplaceError, Replacement};
use crate::os::file::dir::Dir;
use crate::os::file::read::{self, Access};
use crate::store;

/// The longest part of a command's output that an error repeats, in characters.
const MAX_OUTPUT: usize = 600;

/// How many pairs of lines are compared for a preview, at most.
const MAX_COMPARED: usize = 4_000_000;

/// One step of a setup.
pub(super) enum SetupStep {
    /// A directory with this mode, and with this owner if one is given.
    Directory { path: PathBuf, mode: u32, owner: Option<DirectoryOwner> },
    /// Files of documents, which are given to the owner of their directory: the user of the service.
    Give(Vec<PathBuf>),
    /// A file with this mode for a new one.
    File { path: PathBuf, mode: u32, content: Content },
    /// A copy of the program.
    Program { from: PathBuf, to: PathBuf },
    /// A command, and what it reads from its stdin, in place of the text that was there before.
    Run { words: Vec<String>, before: String, input: String },
    /// A command that may need more rights than this user has. If it fails, the setup goes on, and says in the end what to do.
    Try { words: Vec<String>, otherwise: String },
    /// No change, but something to say, in both languages.
    Note(String),
}

/// The owner of a directory, and of what is made in it later.
#[derive(Clone, Copy)]
pub(super) enum DirectoryOwner {
    Root,
    /// The user of the service, who may not exist before the steps begin.
    Service,
}

impl DirectoryOwner {
    /// Returns the numbers of the user and of the group.
    fn numbers(self, host: &SetupHost) -> Result<(u32, u32)> {
        match self {
            DirectoryOwner::Root => Ok((0, 0)),
            DirectoryOwner::Service => {
                host.service_user().with_context(|| messages::NO_USER.with([&USER]))
            }
        }
    }
}

/// The content that a file is to have.
pub(super) enum Content {
    /// The text, and the text that the file has before.
    Text { before: Option<String>, after: String },
    /// A secret on a line, which is not shown.
    Secret(Zeroizing<String>),
}

impl Content {
    fn text(&self) -> &str {
        match self {
            Content::Text { after, .. } => after,
            Content::Secret(text) => text,
        }
    }
}

impl SetupStep {
    /// Returns the step that runs this command.
    pub(super) fn run(words: &[&str]) -> SetupStep {
        let words = words.iter().map(|it| (*it).to_owned()).collect();
        SetupStep::Run { words, before: String::new(), input: String::new() }
    }

    /// Returns the step that gives a file the text `after`; `None` if it has it already.
    pub(super) fn text(path: PathBuf, mode: u32, after: String) -> Option<SetupStep> {
        let before = fs::read_to_string(&path).ok();
        if before.as_ref() == Some(&after) {
            return None;
        }
        Some(SetupStep::File { path, mode, content: Content::Text { before, after } })
    }

    /// Describes the step, with the lines that a file gets and loses. No secret in them is shown, and no value of an
    /// environment file.
    pub(super) fn preview(&self) -> String {
        let mut text = format!("  {}\n", self.summary());
        let (before, after, has_values) = match self {
            SetupStep::File { path, content: Content::Text { before, after }, .. } => {
                let is_env = path.extension().is_some_and(|it| it == "env");
                (before.as_deref().unwrap_or_default(), after.as_str(), !is_env)
            }
            SetupStep::Run { before, input, .. } => (before.as_str(), input.as_str(), true),
            _ => return text,
        };
        for (sign, line) in changed_lines(before, after) {
            let shown = match line.split_once('=') {
                Some((name, _)) if !has_values => format!("{name}=…"),
                _ => shown_line(line),
            };
            let _ = writeln!(text, "    {sign} {shown}");
        }
        text
    }

    /// Describes the step once it is done. Lines that a file has lost by it are shown.
    pub(super) fn report(&self) -> String {
        let preview = self.preview();
        match preview.lines().any(|line| line.starts_with("    - ")) {
            true => preview,
            false => format!("  {}\n", self.summary()),
        }
    }

    /// Names the step in a line, in one language: it is like a command.
    pub(super) fn summary(&self) -> String {
        let is_chinese = Language::of_process() == Language::Chinese;
        match self {
            SetupStep::Directory { path, mode, .. } if is_chinese => {
                format!("mkdir {}（权限 {mode:04o}）", path.display())
            }
            SetupStep::Directory { path, mode, .. } => {
                format!("mkdir {} (mode {mode:04o})", path.display())
            }
            SetupStep::Give(files) => {
                let files: Vec<_> = files.iter().map(|it| it.display().to_string()).collect();
                format!("chown {USER}: {}", files.join(" "))
            }
            SetupStep::File { path, mode, .. } => {
                let mode = fs::metadata(path).map_or(*mode, |found| found.mode() & 0o777);
                match is_chinese {
                    true => format!("写入 {}（权限 {mode:04o}）", path.display()),
                    false => format!("write {} (mode {mode:04o})", path.display()),
                }
            }
            SetupStep::Program { from, to } if is_chinese => {
                format!("复制 {} 到 {}", from.display(), to.display())
            }
            SetupStep::Program { from, to } => {
                format!("copy {} to {}", from.display(), to.display())
            }
            SetupStep::Run { words, .. } | SetupStep::Try { words, .. } => words.join(" "),
            SetupStep::Note(text) => text.clone(),
        }
    }

    /// Fails if the step certainly cannot be done: because a link is in its place, or anything else that is no such file or directory. Nothing
    /// is written through a link, whose owner may be another user.
    pub(super) fn check(&self) -> Result<()> {
        let (path, is_dir) = match self {
            SetupStep::Directory { path, .. } => (path, true),
            SetupStep::File { path, .. } | SetupStep::Program { to: path, .. } => (path, false),
            _ => return Ok(()),
        };
        let Ok(found) = path.symlink_metadata() else { return Ok(()) };
        let message = match found.file_type() {
            it if it.is_symlink() => {
                let to = fs::read_link(path).unwrap_or_default();
                messages::LINK.with([&path.display(), &to.display()])
            }
            it if is_dir && !it.is_dir() => messages::NOT_A_DIRECTORY.with([&path.display()]),
            it if !is_dir && !it.is_file() => messages::NOT_A_FILE.with([&path.display()]),
            _ => return Ok(()),
        };
        Err(Exit::Usage.error(message))
    }

    /// Does the step. Returns whether there was anything to do.
    pub(super) fn execute(&self, host: &SetupHost) -> Result<bool> {
        match self {
            SetupStep::Directory { path, mode, owner } => {
                let owner = owner.map(|owner| owner.numbers(host)).transpose()?;
                make_directory(path, *mode, owner)
            }
            SetupStep::Give(files) => {
                files.iter().try_for_each(|path| store::give(path).map_err(not_given(path)))?;
                Ok(true)
            }
            SetupStep::File { path, mode, content } => write(path, *mode, content),
            SetupStep::Program { to, .. } => copy_program(to).map(|()| true),
            SetupStep::Run { words, input, .. } => run(words, input, host).map(|()| true),
            SetupStep::Try { words, .. } => run(words, "", host).map(|()| true),
            SetupStep::Note(_) => Ok(true),
        }
    }

    /// Returns what a person has to do if the step fails, if the setup goes on without it.
    pub(super) fn otherwise(&self) -> Option<&str> {
        match self {
            SetupStep::Try { otherwise, .. } => Some(otherwise),
            _ => None,
        }
    }
}

/// Returns an error of the system with what could not be done, and what to do.
fn failed(what: String, path: &Path, err: io::Error) -> anyhow::Error {
    anyhow!("{what}: {}", explained(&err, path, Operation::Writing))
}

/// Returns the error for a file that could not be given to its owner.
fn not_given(path: &Path) -> impl Fn(io::Error) -> anyhow::Error {
    move |err| failed(cannot("give to its owner", "更改属主：", path.display()), path, err)
}

/// Returns the mode of directories above what is set up that are missing, whatever the umask: root's are passed through by the
/// user of the service, and changed by root alone; a user's are private.
fn mode_above() -> u32 {
    if geteuid().is_root() { 0o755 } else { 0o700 }
}

/// Makes the directories above `path` that are missing.
fn make_above(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    Dir::open_or_create_below(dir, mode_above(), mode_above())
        .map(drop)
        .map_err(|err| failed(cannot("make the directory", "创建目录", dir.display()), dir, err))
}

/// Makes a directory, or gives an existing one this mode and owner. Another user may own what is around it, so no link to it is followed, and
/// the change is made to the open directory.
fn make_directory(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<bool> {
    let doing = |err| failed(cannot("make the directory", "创建目录", path.display()), path, err);
    let is_new = path.symlink_metadata().is_err_and(|err| err.kind() == ErrorKind::NotFound);
    if is_new {
        Dir::open_or_create_below(path, 0o700, mode_above()).map_err(doing)?;
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    let dir = dir.map_err(doing)?;
    let found = dir.metadata().map_err(doing)?;
    let is_owned = owner.is_none_or(|owner| (found.uid(), found.gid()) == owner);
    if !is_new && is_owned && found.mode() & 0o7777 == mode {
        return Ok(false);
    }
    if let Some((user, group)) = owner {
        fchown(&dir, Some(user), Some(group)).map_err(doing)?;
    }
    dir.set_permissions(fs::Permissions::from_mode(mode)).map_err(doing)?;
    Ok(true)
}

/// Replaces a file in one step. One that is there keeps its mode and its owner, unless it holds a
/// secret. Returns whether it was another. What another user may have put in its place, such as a link or a pipe, is refused.
fn write(path: &Path, mode: u32, content: &Content) -> Result<bool> {
    let doing = |err| failed(cannot("replace", "替换", path.display()), path, err);
    let found = match read::open_own(path, Access::Read) {
        Ok(file) => Some((rustix::fs::fstat(&file).map_err(|err| doing(err.into()))?, file)),
        Err(err) if err.kind() == ErrorKind::NotFound => None,
        Err(err) => return Err(doing(err)),
    };
    let text = content.text();
    let (mut mode, mut owner) = (mode, None);
    if let Some((status, file)) = found {
        if let Content::Text { .. } = content {
            mode = status.st_mode & 0o777;
            owner = Some((status.st_uid, status.st_gid));
        }
        let length = text.len() as u64;
        let there = read::read_bounded(file, length, length);
        let is_right =
            status.st_mode & 0o7777 == mode && (owner.is_some() || is_of_directory(path, &status));
        if is_right && there.is_ok_and(|there| there.as_slice() == text.as_bytes()) {
            return Ok(false);
        }
    }
    make_above(path)?;
    let mut replacement = Replacement::prepare(path, mode, text.len())?;
    replacement.publish(text.as_bytes()).map_err(ReplaceError::into_error)?;
    if let Some((user, group)) = owner {
        let file = read::open_own(path, Access::Read).map_err(doing)?;
        let now = rustix::fs::fstat(&file).map_err(|err| doing(err.into()))?;
        if (now.st_uid, now.st_gid) != (user, group) {
            fchown(&file, Some(user), Some(group)).map_err(not_given(path))?;
        }
    }
    replacement.sync_dir()?;
    Ok(true)
}

/// Whether a file has the user and the group of its directory, as what root writes there gets; for others it has.
fn is_of_directory(path: &Path, status: &Stat) -> bool {
    let dir = path.parent().and_then(|dir| fs::metadata(dir).ok());
    !geteuid().is_root()
        || dir.is_none_or(|dir| (dir.uid(), dir.gid()) == (status.st_uid, status.st_gid))
}

/// Replaces the program at `to`, which may be running, by this one in one step.
fn copy_program(to: &Path) -> Result<()> {
    let what = || cannot("copy this program to", "将本程序复制到", to.display());
    let doing = |err| failed(what(), to, err);
    make_above(to)?;
    // The running program, whatever is at its path by now.
    let program = fs::read("/proc/self/exe").map_err(doing)?;
    let mut replacement = Replacement::prepare(to, 0o755, 0).with_context(what)?;
    replacement.publish(&program).map_err(ReplaceError::into_error).with_context(what)?;
    replacement.sync_dir()
}

/// Runs a command to its end. Fails with what it says if it does not succeed.
fn run(words: &[String], input: &str, host: &SetupHost) -> Result<()> {
    let shown = words.join(" ");
    let Some((program, args)) = words.split_first() else { return Ok(()) };
    let path = find_program(program).unwrap_or_else(|| PathBuf::from(program));
    let failed = |err| {
        let what = cannot("run", "运行", &shown);
        anyhow!("{what}: {}", explained(&err, &path, Operation::Running))
    };
    let mut command = Command::new(&path);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.envs(host.runtime_variable());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input tells by its status what is wrong.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    let said = printable(String::from_utf8_lossy(&said).trim(), MAX_OUTPUT).replace("\\n", "; ");
    bail!(messages::COMMAND_FAILED.quoting([&shown, &output.status], said))
}

/// Returns what the command prints; `None` if it cannot be run or does not succeed.
pub(super) fn output_of(words: &[&str]) -> Option<String> {
    let path = find_program(words.first()?)?;
    let output = Command::new(path).args(&words[1..]).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the user's crontab; an empty one if there is none. Fails if it cannot be read as it is: what is written then
/// would replace it.
pub(super) fn crontab() -> Result<String> {
    let failed = |why: &str| Exit::Usage.error(messages::CRONTAB_UNREADABLE.with([&why]));
    let path = find_program("crontab").unwrap_or_else(|| PathBuf::from("crontab"));
    let mut command = Command::new(path);
    let output = command.arg("-l").env("LC_ALL", "C").stdin(Stdio::null()).output();
    let output = output.map_err(|err| failed(&err.to_string()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // BusyBox's crontab says that it cannot open the file.
    let is_missing = said.contains("no crontab for ")
        || (said.contains(": can't open '") && said.contains("No such file or directory"));
    match output.status.success() {
        true => String::from_utf8(output.stdout)
            .map_err(|_| failed(bilingual!("it is not UTF-8", "不是 UTF-8"))),
        false if is_missing => Ok(String::new()),
        false => Err(failed(&format!("{}: {}", output.status, printable(said.trim(), MAX_OUTPUT)))),
    }
}

/// Returns a line of a file as a person may see it.
pub(super) fn shown_line(line: &str) -> String {
    printable(&without_passwords(&without_secrets(line)), 200).to_string()
}

/// Returns a line without the users and passwords of its URLs.
fn without_passwords(line: &str) -> String {
    let mut parts = line.split("://");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(part.len());
        let (authority, rest) = part.split_at(end);
        let shown = authority
            .rsplit_once('@')
            .map_or(authority.to_owned(), |(_, host)| format!("…@{host}"));
        text.extend(["://", &shown, rest]);
    }
    text
}

/// Returns the lines that a text loses and gets, in order.
fn changed_lines<'t>(before: &'t str, after: &'t str) -> Vec<(char, &'t str)> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let head = old.iter().zip(&new).take_while(same).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    if old.len().saturating_mul(new.len()) > MAX_COMPARED {
        return new.iter().map(|line| ('+', *line)).collect();
    }
    // How many lines the rests have in common, from each pair of lines on.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = match old[i] == new[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut changed) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            changed.push(('-', old[i]));
            i += 1;
        } else {
            changed.push(('+', new[j]));
            j += 1;
        }
    }
    changed
}

/// The end of an error of a step: what to do then.
pub(super) const AGAIN: &str = bilingual!(
    "What was done so far stays and does no harm. Mend this, and run the same command again.",
    "此前已完成的步骤会保留，不会有副作用。解决问题后请重新运行同一命令。"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_has_the_lines_that_change_and_no_others() {
        for (before, after, expected) in [
            ("", "a\nb\n", vec![('+', "a"), ('+', "b")]),
            ("a\nb\n", "a\nb\n", vec![]),
            ("a\nb\nc\n", "a\nx\nc\n", vec![('-', "b"), ('+', "x")]),
            ("a\n\nb\n", "x\n\na\n\nb\n", vec![('+', "x"), ('+', "")]),
            ("a\nb\n", "a\nb\nc\n", vec![('+', "c")]),
            ("a\nb\nc\n", "c\n", vec![('-', "a"), ('-', "b")]),
        ] {
            assert_eq!(changed_lines(before, after), expected, "{before:?} {after:?}");
        }
        let secret = Content::Secret(Zeroizing::new("hush\n".to_owned()));
        let path = PathBuf::from("/nowhere/shop.secret");
        let step = SetupStep::File { path, mode: 0o600, content: secret };
        assert_eq!(step.preview(), "  write /nowhere/shop.secret (mode 0600)\n");
    }

    #[test]
    fn a_preview_shows_no_secret_no_password_and_no_value_of_an_environment_file() {
        let secret = "0f1e2d3c4b5a69780f1e2d3c4b5a6978";
        let before = format!("X={secret}\nHTTPS_PROXY=http://me:hush@10.0.0.1:1/x\n# b\n");
        let content = || Content::Text { before: Some(before.clone()), after: String::new() };
        let preview = |path: &str| {
            SetupStep::File { path: path.into(), mode: 0o600, content: content() }.preview()
        };
        let shown = preview("/nowhere/cron");
        assert!(
            shown.ends_with("- X=[…]\n    - HTTPS_PROXY=http://…@10.0.0.1:1/x\n    - # b\n"),
            "{shown}"
        );
        let shown = preview("/nowhere/wxtoken.env");
        assert!(shown.ends_with("- X=…\n    - HTTPS_PROXY=…\n    - # b\n"), "{shown}");
        let (words, before) = (vec!["crontab".to_owned()], format!("a {secret}\n"));
        let step = SetupStep::Run { words, input: format!("{before}b {secret}\n"), before };
        assert_eq!(step.preview(), "  crontab\n    + b […]\n");
    }

    #[test]
    fn directories_above_are_passed_through_and_changed_by_their_owner_alone_whatever_the_umask() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        let mode = |name: &str| fs::metadata(path(name)).unwrap().mode() & 0o777;
        make_directory(&path("a/b/c"), 0o700, None).unwrap();
        let secret = Content::Secret(Zeroizing::new("hush\n".to_owned()));
        write(&path("d/e/file"), 0o600, &secret).unwrap();
        copy_program(&path("f/g/program")).unwrap();
        for name in ["a", "a/b", "d", "d/e", "f", "f/g"] {
            assert_eq!(mode(name), mode_above(), "{name}");
        }
        assert_eq!(mode("a/b/c"), 0o700);
    }

    #[test]
    fn links_and_pipes_in_place_of_a_directory_or_a_secret_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        let mode = |name: &str| fs::metadata(path(name)).unwrap().mode() & 0o777;
        fs::create_dir(path("dir")).unwrap();
        fs::set_permissions(path("dir"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(path("dir"), path("link")).unwrap();
        assert!(make_directory(&path("link"), 0o700, None).is_err());
        assert_eq!(mode("dir"), 0o755);
        assert!(make_directory(&path("dir"), 0o700, None).unwrap());
        assert!(!make_directory(&path("dir"), 0o700, None).unwrap());
        assert!(make_directory(&path("new/dir"), 0o700, None).unwrap());
        let secret = || Content::Secret(Zeroizing::new("hush\n".to_owned()));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        std::os::unix::fs::symlink(path("file"), path("linked")).unwrap();
        for (name, what) in [("pipe", "no file"), ("linked", "symbolic link")] {
            assert!(write(&path(name), 0o600, &secret()).is_err(), "{name}");
            // And before anything is asked.
            let step = SetupStep::File { path: path(name), mode: 0o600, content: secret() };
            let said = step.check().unwrap_err().to_string();
            assert!(said.contains(what), "{said}");
        }
        for (name, is_place) in [("link", false), ("pipe", false), ("dir", true), ("none", true)] {
            let step = SetupStep::Directory { path: path(name), mode: 0o700, owner: None };
            assert_eq!(step.check().is_ok(), is_place, "{name}");
        }
        assert!(write(&path("file"), 0o600, &secret()).unwrap());
        assert!(!write(&path("file"), 0o600, &secret()).unwrap());
        assert_eq!(mode("file"), 0o600);
    }

    #[test]
    fn a_command_that_fails_is_named_with_what_it_says() {
        let step = SetupStep::run(&["sh", "-c", "echo one; echo two >&2; exit 3"]);
        let host = SetupHost::detect(Some(Path::new("/nonexistent"))).unwrap();
        let err = step.execute(&host).unwrap_err().to_string();
        assert!(err.contains("exit status: 3") && err.ends_with(" [two; one]"), "{err}");
        assert!(SetupStep::run(&["true"]).execute(&host).unwrap());
        assert!(SetupStep::run(&["/nonexistent/program"]).execute(&host).is_err());
    }
}
