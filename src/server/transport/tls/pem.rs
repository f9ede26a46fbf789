//! Reads PEM files that `serve` is given by flags. No message holds a byte of a key.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ParsedCertificate;
use zeroize::Zeroizing;

use crate::error::Exit;
use crate::os::file::read::{self, MAX_PEM, Protection};

/// Reads all certificates of a file. Fails if there is none, or if one cannot be parsed.
pub(super) fn read_certificates(
    flag: &str,
    path: &Path,
    protection: Protection,
) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = read(flag, path, protection)?;
    let problem = |what: &str| Exit::Usage.error(format!("{flag} {} {what}", path.display()));
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    // The error of the parser is dropped: it may quote a key that is in the wrong file.
    let certificates = certificates.map_err(|_| problem("is not PEM, or is cut off"))?;
    if certificates.is_empty() {
        return Err(problem(
            "has no certificate in it; expected PEM with -----BEGIN CERTIFICATE-----",
        ));
    }
    match certificates.iter().position(|it| ParsedCertificate::try_from(it).is_err()) {
        Some(at) => {
            Err(problem(&format!("is damaged: its certificate number {} cannot be parsed", at + 1)))
        }
        None => Ok(certificates),
    }
}

/// Reads a whole file.
pub(super) fn read(
    flag: &str,
    path: &Path,
    protection: Protection,
) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    read::read(path, protection, MAX_PEM)
        .map_err(|err| Exit::Usage.error(format!("cannot read {flag} {}: {err}", path.display())))
}

/// Returns the error of a file that can be read and not be used.
pub(super) fn unusable(flag: &str, path: &Path, err: impl std::fmt::Display) -> anyhow::Error {
    Exit::Usage.error(format!("{flag} {} cannot be used: {err}", path.display()))
}
