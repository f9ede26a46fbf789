//! Reads the AppSecret, or the key of a mirror, from a file, systemd's credentials, stdin or the environment. A secret is
//! never an argument, and no message contains it.

use std::env::{self, VarError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use zeroize::Zeroizing;

use super::config::{Origin, UpstreamConfig};
use crate::error::Exit;
use crate::language::{Language, in_both};
use crate::log::debug;
use crate::message::messages;
use crate::model::secret::Secret;
use crate::os::file::read::{self, Protection, ReadError};

/// Maximum length of a secret in bytes; WeChat's have 32.
const MAX_SECRET: usize = 256;

/// Maximum number of bytes read for a secret: enough to tell a file of another kind from a long secret.
const MAX_FILE: u64 = 4096;

messages! {
    EMPTY<1> {
        "Put the AppSecret or key into it.", "{0} is empty";
        "请写入 AppSecret 或访问密钥。", "{0} 为空";
    }
    SEVERAL_LINES<1> {
        "Leave the AppSecret or key alone in it.", "{0} has more than one line";
        "请只保留 AppSecret 或访问密钥本身。", "{0} 不止一行";
    }
    TOO_LONG<1> {
        "Leave the AppSecret or key alone in it.", "{0} is too long for an AppSecret or a key";
        "请只保留 AppSecret 或访问密钥本身。", "{0} 过长，不是 AppSecret 或访问密钥";
    }
    OTHER_CHARACTERS<1> {
        "Copy the AppSecret or key again.", "{0} has blanks or characters that no AppSecret or key has";
        "请重新复制 AppSecret 或访问密钥。", "{0} 含有空格或不应出现的字符";
    }
    NOT_UNICODE<1> {
        "Copy the AppSecret again.", "{0} is not an AppSecret";
        "请重新复制 AppSecret。", "{0} 不是 AppSecret";
    }
    NO_SECRET<2> {
        "Give --secret-file, a systemd credential named {0}.secret, or {1}.", "no AppSecret";
        "请给出 --secret-file、名为 {0}.secret 的 systemd 凭据，或环境变量 {1}。", "没有 AppSecret";
    }
    NO_SECRET_IN_CONFIG<2> {
        "Give secret_file, or a systemd credential named {0}.secret{1}.", "no AppSecret";
        "请设置 secret_file，或提供名为 {0}.secret 的 systemd 凭据{1}。", "没有 AppSecret";
    }
    NO_STDIN<1> {
        "Pipe it in, or name a file.", "cannot read {0}";
        "请通过管道传入，或指定文件。", "无法读取 {0}";
    }
}

/// The name under which systemd passes a directory of secrets; its files are called `secrets.d_NAME.secret`. The dot keeps
/// such a name from being that of an account's own credential.
const CREDENTIALS: &str = "secrets.d";

/// Holds the AppSecret of the command line's account.
pub(crate) const VARIABLE: &str = "WXTOKEN_SECRET";

/// Where a secret is read from.
pub(crate) enum SecretSource<'a> {
    Stdin,
    /// A file named on the command line, which may be a pipe.
    FileOrPipe(&'a Path),
    /// A file named in the config. It is read again on every reload.
    File(&'a Path),
    /// A file in the directory of secrets beside the config. It is read again on every reload.
    InDirectory(PathBuf),
    /// A systemd credential.
    Credential(PathBuf),
    /// The environment variable `WXTOKEN_SECRET`. Not for accounts of the config, no two of which share a secret.
    Variable,
}

impl SecretSource<'_> {
    /// Returns where the secret of the account called `name` is: the configured file, else the credential `NAME.secret`
    /// (a mirror's: `NAME.key`), by itself or of a directory, else the file of this name in the directory of secrets, else
    /// the variable. `None` if there is none of them. Where the directory may not be entered, an AppSecret counts as there.
    pub(crate) fn find<'a>(name: &str, config: &'a UpstreamConfig) -> Option<SecretSource<'a>> {
        let is_given = config.origin == Origin::CommandLine;
        match config.secret_file.as_deref() {
            Some(path) if is_given && path.as_os_str() == "-" => Some(SecretSource::Stdin),
            Some(path) if is_given => Some(SecretSource::FileOrPipe(path)),
            Some(path) => Some(SecretSource::File(path)),
            None => {
                let has_variable = is_given && has_variable();
                let file = format!("{name}.{}", noun(config));
                let in_directory = config.secret_dir.as_ref().map(|dir| dir.join(&file));
                // A user who may not look into the directory is told so when the secret is read. A mirror may need no key.
                let in_directory =
                    in_directory.filter(|path| path.try_exists().unwrap_or(!config.is_mirror));
                find_credential(&file)
                    .or_else(|| find_credential(&format!("{CREDENTIALS}_{file}")))
                    .map(SecretSource::Credential)
                    .or_else(|| in_directory.map(SecretSource::InDirectory))
                    .or(has_variable.then_some(SecretSource::Variable))
            }
        }
    }

    /// `noun` is `secret` or `key`. Waits for the writer of a pipe, but no longer than `patience`.
    fn read(&self, noun: &str, patience: Duration) -> Result<Secret> {
        let read = |path: &Path, protection| read_file(noun, path, protection);
        match self {
            SecretSource::Stdin => parse(read_stdin(), "stdin"),
            SecretSource::FileOrPipe(path) => {
                parse_file(noun, path, read::read_secret_or_pipe(path, MAX_FILE, patience))
            }
            SecretSource::File(path) => read(path, Protection::Private),
            SecretSource::InDirectory(path) => read(path, Protection::PrivateInDirectory),
            SecretSource::Credential(path) => read(path.as_path(), Protection::PrivateToGroup),
            SecretSource::Variable => match env::var(VARIABLE) {
                Err(VarError::NotUnicode(_)) => {
                    Err(Exit::Usage.error(NOT_UNICODE.with([&VARIABLE])))
                }
                value => parse(Ok(Zeroizing::new(value?.into_bytes())), VARIABLE),
            },
        }
    }
}

/// Reads the AppSecret of the account called `name`, or the key of a mirror. A mirror without a key returns `None`: the
/// other wxtoken has to allow its address. Fails for any other account without a secret. Waits for the writer of a pipe, but
/// no longer than `patience`.
pub(crate) fn read(
    name: &str,
    config: &UpstreamConfig,
    patience: Duration,
) -> Result<Option<Secret>> {
    match (SecretSource::find(name, config), &config.origin) {
        (Some(source), _) => source.read(noun(config), patience).map(Some),
        (None, _) if config.is_mirror => Ok(None),
        (None, Origin::CommandLine) => Err(Exit::Usage.error(NO_SECRET.with([&name, &VARIABLE]))),
        (None, Origin::Config { .. }) => {
            let beside = config.secret_dir.as_ref().map(|dir| dir.join(format!("{name}.secret")));
            let beside = beside.map(|path| {
                let path = path.display();
                in_both(format!(", or the file {path}"), format!("，或文件 {path}"))
            });
            let beside = beside.unwrap_or_default();
            Err(Exit::Usage.error(NO_SECRET_IN_CONFIG.with([&name, &beside])))
        }
    }
}

/// Whether the variable that holds the AppSecret is set. An empty one is none, as everywhere.
pub(crate) fn has_variable() -> bool {
    env::var_os(VARIABLE).is_some_and(|value| !value.is_empty())
}

fn noun(config: &UpstreamConfig) -> &'static str {
    if config.is_mirror { "key" } else { "secret" }
}

/// Returns the path of the systemd credential of this name, if there is one.
pub(crate) fn find_credential(name: &str) -> Option<PathBuf> {
    let directory = env::var_os("CREDENTIALS_DIRECTORY")?;
    let path = Path::new(&directory).join(name);
    // One that exists and cannot be read is an error, not a reason to look elsewhere.
    let exists = !matches!(path.try_exists(), Ok(false));
    exists.then_some(path)
}

/// Reads the secret from a regular file.
fn read_file(noun: &str, path: &Path, protection: Protection) -> Result<Secret> {
    parse_file(noun, path, read::read(path, protection, MAX_FILE))
}

fn parse_file(
    noun: &str,
    path: &Path,
    content: Result<Zeroizing<Vec<u8>>, ReadError>,
) -> Result<Secret> {
    match content {
        Ok(bytes) => parse(Ok(bytes), &name_of_file(noun, path)),
        Err(err) => Err(Exit::Usage.error(unreadable(noun, path, &err))),
    }
}

/// Returns the error of a secret file or key file that cannot be read. `noun` is `secret` or `key`.
pub(crate) fn unreadable(noun: &str, path: &Path, err: &ReadError) -> String {
    let name = name_of_file(noun, path);
    match err {
        ReadError::TooLarge(_) => TOO_LONG.with([&name]),
        err => read::cannot_read(&name, &err.about_secret()),
    }
}

fn name_of_file(noun: &str, path: &Path) -> String {
    let path = path.display();
    let chinese = if noun == "key" { "访问密钥" } else { "AppSecret" };
    in_both(format!("{noun} file {path}"), format!("{chinese} 文件 {path}"))
}

fn read_stdin() -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    // One byte beyond the maximum, so that `parse` refuses a longer input.
    io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Removes the newline that editors and `echo` leave. Fails if the rest cannot be an AppSecret or key; `name` is what the
/// message calls the source.
fn parse(bytes: io::Result<Zeroizing<Vec<u8>>>, name: &str) -> Result<Secret> {
    let bytes = bytes.map_err(|err| Exit::Usage.error(NO_STDIN.quoting([&name], err)))?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let problem = match line {
        [] => &EMPTY,
        line if line.contains(&b'\n') => &SEVERAL_LINES,
        line if line.len() > MAX_SECRET => &TOO_LONG,
        // Other characters could not be found in an errmsg that echoes the request escaped or percent-encoded.
        line if !line.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)) => {
            &OTHER_CHARACTERS
        }
        line => {
            debug!("read {}", Language::English.resolve(name));
            return Ok(Secret::new(String::from_utf8_lossy(line).into_owned()));
        }
    };
    Err(Exit::Usage.error(problem.with([&name])))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn parsed(bytes: &[u8]) -> Result<Secret, String> {
        parse(Ok(Zeroizing::new(bytes.to_vec())), "it").map_err(|err| err.to_string())
    }

    #[test]
    fn only_the_final_newline_of_a_secret_is_removed() {
        for line in ["S3CR3T", "S3CR3T\n", "S3CR3T\r\n"] {
            assert_eq!(parsed(line.as_bytes()).unwrap().expose(), "S3CR3T");
        }
        for wrong in [
            "",
            "\n",
            " S3CR3T",
            "S3+CR3T",
            "S3CR3T=",
            "S3%CR3T",
            "S3CR3T ",
            "S3CR3T\n\n",
            "S3\nCR3T",
            "S3CR3T\u{e9}",
            &"S".repeat(257),
        ] {
            let err = parsed(wrong.as_bytes()).expect_err(wrong);
            assert!(!err.contains("S3"), "{err}");
        }
        assert!(parsed(&[b'S', 0xff, 0]).is_err());
    }

    #[test]
    fn a_secret_file_that_others_can_read_is_refused_with_name_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.secret");
        std::fs::write(&path, "S3CR3T\n").unwrap();
        for mode in [0o604, 0o640, 0o644, 0o666, 0o620, 0o602] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let err = read_file("secret", &path, Protection::Private).unwrap_err().to_string();
            assert!(err.contains("shop.secret") && err.contains(&format!("{mode:04o}")), "{err}");
            assert!(!err.contains("S3CR3T"), "{err}");
        }
        for mode in [0o600, 0o400] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_file("secret", &path, Protection::Private).unwrap().expose(), "S3CR3T");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).unwrap();
        assert!(
            read_file("secret", &path, Protection::PrivateToGroup).is_ok(),
            "as systemd makes credentials"
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
        assert!(read_file("secret", &path, Protection::PrivateToGroup).is_err());
    }
}
