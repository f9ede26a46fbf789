//! The system's CA store, if `SSL_CERT_FILE` or `SSL_CERT_DIR` names one, by the rules of OpenSSL and Go. Reads certificates; which connection
//! trusts them is decided elsewhere.

use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::log::debug;
use crate::message::messages;
use crate::os::fault::{Operation, explain};
use crate::os::file::read::{self, MAX_PEM, Protection, ReadError, cannot_read};

messages! {
    NO_CERTIFICATE<2> {
        "Correct {0} or unset it: the public roots need none.", "{1} has no certificate in it";
        "请修正或删除环境变量 {0}：公共根证书已内置。", "{1} 中没有证书";
    }
    TOO_MANY<3> {
        "Name a directory of certificates alone in {0}.", "{1} has more than {2} files";
        "请让 {0} 指向只存放证书的目录。", "{1} 中的文件超过 {2} 个";
    }
    TOO_MUCH<2> {
        "Name a directory of certificates alone in {0}.", "its files have more than {1} bytes together";
        "请让 {0} 指向只存放证书的目录。", "其文件总计超过 {1} 字节";
    }
}

/// The variable with a file of certificates.
const FILE: &str = "SSL_CERT_FILE";

/// The variable with directories of such files, separated by colons.
const DIRECTORIES: &str = "SSL_CERT_DIR";

/// The most files that are read of one directory. Debian has three names for each of 140 authorities.
const MAX_FILES: usize = 4096;

/// The largest size of all files of the directories together, in bytes.
const MAX_TOTAL: u64 = 4 * MAX_PEM;

/// The certificates of a CA store. Empty if no variable names one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CaStore {
    /// Those that can be trust anchors, each once.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    /// The variables that name the store, with their values.
    pub(crate) sources: Vec<String>,
}

/// Returns the system's CA store. It is read once in a process. Fails if a variable is set and what it names holds no
/// certificate, cannot be read, or can be written by other users; the error names the variable and the path.
pub(crate) fn of_system() -> Result<&'static CaStore, &'static str> {
    static STORE: OnceLock<Result<CaStore, String>> = OnceLock::new();
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
    let store = STORE.get_or_init(|| CaStore::read(variable(FILE), variable(DIRECTORIES)));
    store.as_ref().map_err(String::as_str)
}

/// Returns Mozilla's roots, and these certificates where they are not among them. One that cannot be a trust anchor is passed
/// over.
pub(crate) fn beside_public<'a>(
    more: impl Iterator<Item = &'a CertificateDer<'static>>,
) -> RootCertStore {
    let mut added = RootCertStore::empty();
    added.add_parsable_certificates(more.cloned());
    let mut roots = webpki_roots::TLS_SERVER_ROOTS.to_vec();
    for root in added.roots {
        if !roots.contains(&root) {
            roots.push(root);
        }
    }
    RootCertStore { roots }
}

/// Returns the configuration of a TLS client that trusts these roots.
pub(crate) fn tls_client(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

impl CaStore {
    /// Reads the store that these values of the two variables name.
    fn read(file: Option<OsString>, directories: Option<OsString>) -> Result<CaStore, String> {
        let mut found = BTreeSet::new();
        let mut sources = Vec::new();
        let source = |name, value: &OsStr| format!("{name}={}", value.display());
        if let Some(value) = file {
            let pem = read_pem(Path::new(&value)).map_err(|err| {
                let shown = value.display().to_string();
                format!("{FILE}: {}", cannot_read(&shown, &err.to_string()))
            })?;
            match certificates(&pem) {
                them if them.is_empty() => {
                    return Err(NO_CERTIFICATE.with([&FILE, &value.display()]));
                }
                them => found.extend(them),
            }
            sources.push(source(FILE, &value));
        }
        if let Some(value) = directories {
            let before = found.len();
            let mut is_any_good = false;
            let mut left = MAX_TOTAL;
            for directory in env::split_paths(&value).filter(|it| !it.as_os_str().is_empty()) {
                let them = of_directory(&directory, &mut left)?;
                is_any_good |= !them.is_empty();
                found.extend(them);
            }
            if !is_any_good {
                return Err(NO_CERTIFICATE.with([&DIRECTORIES, &value.display()]));
            }
            debug!("{DIRECTORIES} adds {} certificates", found.len() - before);
            sources.push(source(DIRECTORIES, &value));
        }
        let certificates = found.into_iter().map(CertificateDer::from).collect();
        Ok(CaStore { certificates, sources })
    }
}

/// Returns the certificates of all files in a directory; none if it is not there. Files without a certificate, and those
/// that this user cannot read, are passed over. `left` is how many more bytes may be read.
fn of_directory(directory: &Path, left: &mut u64) -> Result<BTreeSet<Vec<u8>>, String> {
    let fault = |path: &Path, what: &dyn std::fmt::Display| {
        format!("{DIRECTORIES}: {}", cannot_read(&path.display().to_string(), &what.to_string()))
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(err) => return Err(fault(directory, &explain(err, directory, Operation::Reading))),
    };
    let paths: Result<Vec<PathBuf>, _> =
        entries.take(MAX_FILES + 1).map(|entry| entry.map(|it| it.path())).collect();
    let paths =
        paths.map_err(|err| fault(directory, &explain(err, directory, Operation::Reading)))?;
    if paths.len() > MAX_FILES {
        return Err(TOO_MANY.with([&DIRECTORIES, &directory.display(), &MAX_FILES]));
    }
    let mut found = BTreeSet::new();
    for path in paths {
        let pem = match read_pem(&path) {
            Ok(pem) => pem,
            Err(ReadError::NotRegular) => continue,
            Err(ReadError::Io(err))
                if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) =>
            {
                debug!("{DIRECTORIES}: {} is passed over: {err}", path.display());
                continue;
            }
            Err(err) => return Err(fault(&path, &err)),
        };
        *left = left
            .checked_sub(pem.len() as u64)
            .ok_or_else(|| TOO_MUCH.with([&DIRECTORIES, &MAX_TOTAL]))?;
        found.extend(certificates(&pem));
    }
    Ok(found)
}

fn read_pem(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, ReadError> {
    read::read(path, Protection::WritableByOwner, MAX_PEM)
}

/// The certificates of a file that can be trust anchors. One that cannot is passed over: a system's store is not the user's
/// to mend.
fn certificates(pem: &[u8]) -> BTreeSet<Vec<u8>> {
    let is_anchor = |certificate: &CertificateDer<'static>| {
        RootCertStore::empty().add(certificate.clone()).is_ok()
    };
    let them = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    them.filter(is_anchor).map(|certificate| certificate.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::language::Language;

    fn authority(name: &str) -> String {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn store(file: Option<&Path>, directories: Option<&str>) -> Result<CaStore, String> {
        CaStore::read(file.map(|it| it.as_os_str().to_owned()), directories.map(OsString::from))
    }

    #[test]
    fn without_a_variable_the_store_is_empty() {
        assert_eq!(store(None, None), Ok(CaStore::default()));
    }

    #[test]
    fn a_file_and_directories_are_read_and_each_certificate_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let (bundle, certs) = (dir.path().join("bundle.pem"), dir.path().join("certs"));
        let [a, b, c] = ["a", "b", "c"].map(authority);
        fs::write(&bundle, format!("# two\n{a}\n{b}")).unwrap();
        fs::create_dir_all(certs.join("java")).unwrap();
        fs::write(certs.join("b.pem"), &b).unwrap();
        fs::write(certs.join("c.pem"), &c).unwrap();
        fs::write(certs.join("README"), "no certificate").unwrap();
        symlink("c.pem", certs.join("01234567.0")).unwrap();
        symlink("gone.pem", certs.join("89abcdef.0")).unwrap();
        let count = |file, directories| store(file, directories).unwrap().certificates.len();
        let list = format!("/nowhere::{}", certs.display());
        assert_eq!(count(Some(&*bundle), None), 2);
        assert_eq!(count(None, Some(&*list)), 2);
        let both = store(Some(&bundle), Some(&list)).unwrap();
        assert_eq!(both.certificates.len(), 3);
        assert_eq!(
            both.sources,
            [format!("SSL_CERT_FILE={}", bundle.display()), format!("SSL_CERT_DIR={list}")]
        );
    }

    #[test]
    fn a_certificate_that_is_no_trust_anchor_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let broken = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        fs::write(&path, format!("{broken}{}", authority("a"))).unwrap();
        assert_eq!(store(Some(&path), None).unwrap().certificates.len(), 1);
    }

    #[test]
    fn an_error_names_the_variable_and_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let shown = path.display().to_string();
        let says = |result: Result<CaStore, String>, parts: &[&str]| {
            let err = Language::English.resolve(&result.unwrap_err()).into_owned();
            assert!(parts.iter().all(|part| err.contains(part)), "{err}");
        };
        says(store(Some(&path), None), &["SSL_CERT_FILE: cannot read", &shown]);
        fs::write(&path, "nothing").unwrap();
        says(store(Some(&path), None), &["SSL_CERT_FILE", &shown, "no certificate"]);
        let at = dir.path().display().to_string();
        for directories in ["/nowhere", &at] {
            says(store(None, Some(directories)), &["SSL_CERT_DIR", directories, "no certificate"]);
        }
        fs::write(&path, authority("a")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        says(store(Some(&path), None), &["SSL_CERT_FILE", &shown, "written by others"]);
        says(store(None, Some(&at)), &["SSL_CERT_DIR", &shown, "written by others"]);
    }
}
