//! The certificates that a Redis over TLS is verified against: those of its CA file, or else Mozilla's roots and those of the
//! system's CA store.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use redis::TlsCertificates;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::os::ca_store;
use crate::os::file::read::{self, MAX_PEM, Protection};

/// Returns the certificates to trust; `None` if they are Mozilla's, which the library has itself. Fails if a file cannot be
/// used; the error names it.
pub(super) fn certificates(ca_file: Option<&Path>) -> Result<Option<TlsCertificates>, String> {
    let root_cert = match ca_file {
        Some(path) => read_ca_file(path)?,
        None => {
            let system = &ca_store::of_system()?.certificates;
            if system.is_empty() {
                return Ok(None);
            }
            TLS_SERVER_ROOT_CERTS.iter().chain(system).map(pem).collect::<String>().into_bytes()
        }
    };
    Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(root_cert) }))
}

fn read_ca_file(path: &Path) -> Result<Vec<u8>, String> {
    let pem = read::read(path, Protection::WritableByOwner, MAX_PEM)
        .map_err(|err| format!("cannot read ca_file {}: {err}", path.display()))?;
    match CertificateDer::pem_slice_iter(&pem).any(|it| it.is_ok()) {
        true => Ok(pem.to_vec()),
        false => Err(format!("there is no certificate in ca_file {}", path.display())),
    }
}

/// The library takes PEM only.
fn pem(certificate: &CertificateDer<'_>) -> String {
    let base64 = STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}
