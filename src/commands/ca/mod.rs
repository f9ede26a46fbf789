//! `wxtoken ca`: makes a CA that can sign only WeChat's hosts, and the certificate with which `serve` answers for them. Prints
//! how clients trust it. Asks no server.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::UtcDateTime;
use zeroize::Zeroizing;

use self::certificates::{Authority, HOSTS, NewAuthority, ServerCertificate, new_key};
use super::output;
use crate::cli::CaArgs;
use crate::commands::messages;
use crate::error::Exit;
use crate::log;
use crate::message::cannot;
use crate::os::clock::{Clock, SystemClock};
use crate::os::fault::{Operation, explained};
use crate::os::file::atomic::{self, ReplaceError, Replacement};
use crate::os::file::lock::FileLock;
use crate::os::file::read::{self, MAX_PEM, Protection};

mod certificates;
mod instructions;

/// How long another run in the same directory is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;

const WRITABLE_BY_ALL: u32 = 0o002;
/// In such a directory users cannot replace the files of others.
const STICKY: u32 = 0o1000;

/// The files of a CA.
struct Files {
    lock: PathBuf,
    /// Is there while the others are put in place. What a run that failed or was killed has left is known by it.
    unfinished: PathBuf,
    /// The root, for clients. The last that is put in place.
    root: PathBuf,
    intermediate: PathBuf,
    intermediate_key: PathBuf,
    /// The server's certificate and the intermediate after it.
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of(directory: &Path) -> Files {
        Files {
            lock: directory.join("ca.lock"),
            unfinished: directory.join("ca.unfinished"),
            root: directory.join("ca.pem"),
            intermediate: directory.join("intermediate.pem"),
            intermediate_key: directory.join("intermediate.key"),
            certificate: directory.join("cert.pem"),
            key: directory.join("key.pem"),
        }
    }

    /// Takes the directory for this run.
    fn lock(&self) -> Result<FileLock> {
        let clock = SystemClock;
        let lock = FileLock::acquire(&self.lock, &clock, clock.instant() + PATIENCE)?;
        lock.ok_or_else(|| Exit::Locked.error(messages::CA_IS_LOCKED.with([&self.lock.display()])))
    }

    /// Whether these are remains of a run that did not end, which are of no use.
    fn are_remains(&self) -> Result<bool> {
        Ok(is_there(&self.unfinished)? && !is_there(&self.root)?)
    }

    /// Notes that all files are in place. Without the note they are as good.
    fn finish(&self) {
        let _ = fs::remove_file(&self.unfinished);
    }
}

/// Runs `wxtoken ca`.
pub(crate) fn run(args: &CaArgs) -> Result<Exit> {
    let hosts = hosts(&args.name)?;
    let files = Files::of(&args.directory);
    // Certificates have no fractions of a second.
    let now = SystemClock.now().wall;
    let now = now.replace_nanosecond(0).unwrap_or(now);
    let text = match args.renew {
        true if !args.name.is_empty() => {
            return Err(Exit::Usage.error(messages::CA_RENEW_AND_NAME.text()));
        }
        true => renew(&files, args, now)?,
        false => create(&files, &hosts, args, now)?,
    };
    output::print(&text)?;
    Ok(Exit::Done)
}

/// Returns the hosts of these names; both without a name.
fn hosts(names: &[String]) -> Result<Vec<&'static str>> {
    let known = |name: &String| HOSTS.into_iter().find(|host| host.eq_ignore_ascii_case(name));
    match names.iter().find(|name| known(name).is_none()) {
        Some(name) => {
            let name = log::printable(&log::without_long_words(name), 60);
            let said = messages::CA_OTHER_NAME.with([&name, &HOSTS[0], &HOSTS[1]]);
            Err(Exit::Usage.error(said))
        }
        None if names.is_empty() => Ok(HOSTS.to_vec()),
        None => Ok(HOSTS
            .into_iter()
            .filter(|host| names.iter().any(|name| known(name) == Some(host)))
            .collect()),
    }
}

/// Makes a CA and a server certificate. Fails if there is one in the directory.
fn create(
    files: &Files,
    hosts: &[&'static str],
    args: &CaArgs,
    now: UtcDateTime,
) -> Result<String> {
    atomic::make_dir_of(&files.root, PUBLIC)?;
    refuse_open_directory(&args.directory)?;
    let _lock = files.lock()?;
    let all =
        [&files.root, &files.intermediate, &files.intermediate_key, &files.certificate, &files.key];
    if !files.are_remains()? {
        for path in all {
            if is_there(path)? {
                return Err(Exit::Usage.error(messages::CA_EXISTS.with([&path.display()])));
            }
        }
    }
    let NewAuthority { authority, root, intermediate, ends } = Authority::generate(hosts, now)?;
    let key = new_key()?;
    let certificate = authority.sign(&key, args.days.into(), now)?;
    publish(&[(&files.unfinished, "", PRIVATE)])?;
    publish(&[
        (&files.intermediate_key, &authority.key_pem(), PRIVATE),
        (&files.intermediate, &intermediate, PUBLIC),
        (&files.key, &Zeroizing::new(key.serialize_pem()), PRIVATE),
        (&files.certificate, &chain(&certificate, &intermediate), PUBLIC),
        (&files.root, &root, PUBLIC),
    ])?;
    files.finish();
    let directory = std::path::absolute(&args.directory)?;
    Ok(instructions::of_new_ca(&directory, authority.hosts(), ends, certificate.ends))
}

/// Refuses a directory in which any user could put another CA in the place of this one before clients trust it.
fn refuse_open_directory(directory: &Path) -> Result<()> {
    let path = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    match fs::metadata(path)?.mode() & (WRITABLE_BY_ALL | STICKY) {
        WRITABLE_BY_ALL => {
            Err(Exit::Usage.error(messages::CA_OPEN_DIRECTORY.with([&path.display()])))
        }
        _ => Ok(()),
    }
}

/// Signs the server's next certificate, for the key that is there.
fn renew(files: &Files, args: &CaArgs, now: UtcDateTime) -> Result<String> {
    let _lock = files.lock().map_err(|err| no_ca(files, err))?;
    let certificate_in = |path: &Path, pem: &str| {
        CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| anyhow!(messages::CA_NO_CERTIFICATE.with([&path.display()])))
    };
    let root = read_text(&files.root, Protection::WritableByOwner);
    let root = root.map_err(|err| no_ca(files, err))?;
    files.finish();
    let intermediate = read_text(&files.intermediate, Protection::WritableByOwner)?;
    let authority = Authority::from_parts(
        certificate_in(&files.root, &root)?,
        certificate_in(&files.intermediate, &intermediate)?,
        read_key(&files.intermediate_key, Protection::Private)?,
        now,
    )?;
    let (key, is_new) = match is_there(&files.key)? {
        true => (read_key(&files.key, Protection::PrivateToGroup)?, false),
        false => (new_key()?, true),
    };
    let certificate = authority.sign(&key, args.days.into(), now)?;
    let (pem, chain) = (Zeroizing::new(key.serialize_pem()), chain(&certificate, &intermediate));
    let mut contents: Vec<(&Path, &str, u32)> = Vec::new();
    if is_new {
        contents.push((&files.key, &pem, PRIVATE));
    }
    contents.push((&files.certificate, &chain, PUBLIC));
    publish(&contents)?;
    Ok(format!("{}\n", instructions::certificate(&files.certificate, certificate.ends)))
}

fn no_ca(files: &Files, err: anyhow::Error) -> anyhow::Error {
    match is_there(&files.root) {
        Ok(false) => {
            let directory = files.root.with_file_name("");
            Exit::Usage.error(messages::CA_MISSING.with([&directory.display()]))
        }
        _ => err,
    }
}

/// Whether there is a file of this name. Fails if that cannot be known: what is there would be replaced.
fn is_there(path: &Path) -> Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
        Err(err) => {
            let what = cannot("look at", "查看", path.display());
            Err(anyhow!("{what}: {}", explained(&err, path, Operation::Reading)))
        }
    }
}

/// What the server sends.
fn chain(certificate: &ServerCertificate, intermediate: &str) -> String {
    format!("{}{intermediate}", certificate.pem)
}

fn read_text(path: &Path, protection: Protection) -> Result<Zeroizing<String>> {
    let bytes = read::read(path, protection, MAX_PEM)
        .with_context(|| cannot("read", "读取", path.display()))?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| anyhow!(messages::CA_NO_PEM.with([&path.display()])))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn read_key(path: &Path, protection: Protection) -> Result<KeyPair> {
    // The error of the parser is dropped: it may quote the key.
    KeyPair::from_pem(&read_text(path, protection)?)
        .map_err(|_| anyhow!(messages::CA_NO_KEY.with([&path.display()])))
}

/// Writes files with these contents and modes, all of them or, if it fails before the first is in place, none.
fn publish(contents: &[(&Path, &str, u32)]) -> Result<()> {
    let mut prepared = Vec::new();
    for (path, text, mode) in contents {
        prepared.push((Replacement::prepare(path, *mode, text.len())?, text.as_bytes()));
    }
    for (replacement, text) in &mut prepared {
        replacement.publish(text).map_err(ReplaceError::into_error)?;
    }
    prepared.iter().try_for_each(|(replacement, _)| replacement.sync_dir())
}
