//! Where the AppSecret comes from: a file, systemd's credentials, or the environment; and the key that a mirror has in its
//! place. Never an argument, and no message ever holds it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::Exit;
use crate::log::debug;
use crate::model::secret::Secret;
use crate::os::read::{self, Protection, ReadError};

/// WeChat's are 32 characters.
const MAX_SECRET: usize = 256;

/// The longest file that is read for a secret, in bytes: enough to tell a file of another kind from a long secret.
const MAX_FILE: u64 = 4096;

const TOO_LONG: &str = "is too long for an AppSecret or a key";

/// Where a secret comes from.
pub(crate) enum SecretSource<'a> {
    Stdin,
    File(&'a Path),
    Credential(PathBuf),
    Variable,
}

impl SecretSource<'_> {
    /// Where the secret is that [`read_given`], [`read`] or [`read_key`] reads from this `file`, or as the credential of
    /// this name; `None` where there is none.
    pub(crate) fn find<'a>(
        file: Option<&'a Path>,
        credential: &str,
        is_given: bool,
    ) -> Option<SecretSource<'a>> {
        match file {
            Some(path) if is_given && path.as_os_str() == "-" => Some(SecretSource::Stdin),
            Some(path) => Some(SecretSource::File(path)),
            None => {
                let variable = is_given && std::env::var_os("WXTOKEN_SECRET").is_some();
                credential_path(credential)
                    .map(SecretSource::Credential)
                    .or(variable.then_some(SecretSource::Variable))
            }
        }
    }
}

/// Reads the AppSecret of the account that is given on the command line, called `name`: that of `--secret-file`, else
/// `$CREDENTIALS_DIRECTORY/NAME.secret`, else `WXTOKEN_SECRET`.
pub(crate) fn read_given(name: &str, file: Option<&Path>) -> anyhow::Result<Secret> {
    if file.is_some_and(|path| path.as_os_str() == "-") {
        return check(read_stdin(), "stdin");
    }
    if let Some(path) = file {
        return parse_file("secret", path, read::read_secret_or_pipe(path, MAX_FILE));
    }
    if let Some(secret) = credential(name) {
        return secret;
    }
    match std::env::var("WXTOKEN_SECRET") {
        Ok(secret) => check(Ok(Zeroizing::new(secret.into_bytes())), "WXTOKEN_SECRET"),
        Err(std::env::VarError::NotUnicode(_)) => Err(Exit::Usage.error("WXTOKEN_SECRET is not an AppSecret")),
        Err(std::env::VarError::NotPresent) => Err(Exit::Usage.error(format!(
            "no AppSecret: give --secret-file, a systemd credential named {name}.secret, or WXTOKEN_SECRET"
        ))),
    }
}

/// Reads the AppSecret of an account of the config: that of its `secret_file`, else `$CREDENTIALS_DIRECTORY/NAME.secret`.
/// A variable would be for all accounts, and no two have the same.
pub(crate) fn read(name: &str, file: Option<&Path>) -> anyhow::Result<Secret> {
    if let Some(path) = file {
        return read_file("secret", path, Protection::Private);
    }
    credential(name).unwrap_or_else(|| {
        let what =
            format!("no AppSecret: give secret_file, or a systemd credential named {name}.secret");
        Err(Exit::Usage.error(what))
    })
}

/// Reads the key that another wxtoken knows us by: that of `key_file`, else `$CREDENTIALS_DIRECTORY/NAME.key`. Where there is
/// neither, it has to know us by our address.
pub(crate) fn read_key(name: &str, file: Option<&Path>) -> anyhow::Result<Option<Secret>> {
    let read = |path: &Path, protection| read_file("key", path, protection).map(Some);
    match (file, credential_path(&format!("{name}.key"))) {
        (Some(path), _) => read(path, Protection::Private),
        (None, Some(path)) => read(&path, Protection::PrivateToGroup),
        (None, None) => Ok(None),
    }
}

/// The secret in the account's credential, where there is one.
fn credential(name: &str) -> Option<anyhow::Result<Secret>> {
    let path = credential_path(&format!("{name}.secret"))?;
    Some(read_file("secret", &path, Protection::PrivateToGroup))
}

/// Where systemd put the credential of this name, if it did.
fn credential_path(name: &str) -> Option<PathBuf> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY")?;
    let path = Path::new(&credentials).join(name);
    // One that is there and cannot be read is an error, not a reason to look elsewhere.
    let is_there = !matches!(path.try_exists(), Ok(false));
    is_there.then_some(path)
}

/// Reads the secret from the regular file at `path`; `what` says what kind of secret it is.
fn read_file(what: &str, path: &Path, protection: Protection) -> anyhow::Result<Secret> {
    parse_file(what, path, read::read(path, protection, MAX_FILE))
}

/// Returns the secret in the content of the file at `path`.
fn parse_file(
    what: &str,
    path: &Path,
    content: Result<Zeroizing<Vec<u8>>, ReadError>,
) -> anyhow::Result<Secret> {
    let name = format!("{what} file {}", path.display());
    match content {
        Ok(bytes) => check(Ok(bytes), &name),
        Err(ReadError::TooLarge(_)) => Err(Exit::Usage.error(format!("{name} {TOO_LONG}"))),
        Err(err) => Err(Exit::Usage.error(format!("cannot read {name}: {}", err.about_secret()))),
    }
}

/// Reads the secret from standard input.
fn read_stdin() -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    // One byte more than can be a secret, which is an error then.
    io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Trims the newline that editors and `echo` leave, and refuses what cannot be an AppSecret.
fn check(bytes: io::Result<Zeroizing<Vec<u8>>>, from: &str) -> anyhow::Result<Secret> {
    let bytes = bytes.map_err(|err| Exit::Usage.error(format!("cannot read {from}: {err}")))?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let finding = match line {
        [] => "is empty",
        line if line.contains(&b'\n') => "has more than one line",
        line if line.len() > MAX_SECRET => TOO_LONG,
        // Nor could another one be told again in what a gateway echoes, escaped or percent-encoded, to be left out there.
        line if !line.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)) => {
            "has blanks or characters that no AppSecret or key has"
        }
        line => {
            debug!("read {from}");
            return Ok(Secret::new(String::from_utf8_lossy(line).into_owned()));
        }
    };
    Err(Exit::Usage.error(format!("{from} {finding}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn checked(bytes: &[u8]) -> Result<Secret, String> {
        check(Ok(Zeroizing::new(bytes.to_vec())), "it").map_err(|err| err.to_string())
    }

    #[test]
    fn a_secret_is_trimmed_of_its_newline_and_of_nothing_else() {
        for line in ["S3CR3T", "S3CR3T\n", "S3CR3T\r\n"] {
            assert_eq!(checked(line.as_bytes()).unwrap().expose(), "S3CR3T");
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
            let err = checked(wrong.as_bytes()).expect_err(wrong);
            assert!(!err.contains("S3"), "{err}");
        }
        assert!(checked(&[b'S', 0xff, 0]).is_err());
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_by_name_and_mode() {
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
