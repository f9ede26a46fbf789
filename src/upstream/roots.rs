//! The certificates that upstream servers are verified against: Mozilla's roots, and those of a CA file.

use std::path::Path;

use anyhow::{Context, Result, bail};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use crate::os::file::read::{self, MAX_PEM, Protection, ReadError};

/// Trusted root certificates. Servers are always verified. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TrustedRoots(TlsConfig);

impl TrustedRoots {
    /// Returns Mozilla's roots.
    pub(crate) fn public() -> TrustedRoots {
        TrustedRoots(TlsConfig::builder().build())
    }

    /// Returns Mozilla's roots and the certificates in a CA file. Fails if there are none in it.
    pub(crate) fn with_ca_file(path: &Path) -> Result<TrustedRoots> {
        let pem = match read::read(path, Protection::WritableByOwner, MAX_PEM) {
            Ok(pem) => pem,
            Err(ReadError::NotRegular) => bail!("CA file {} is not a regular file", path.display()),
            Err(err) => {
                return Err(err).with_context(|| format!("cannot read CA file {}", path.display()));
            }
        };
        let mut roots: Vec<Certificate<'static>> = Vec::new();
        for item in ureq::tls::parse_pem(&pem) {
            match item {
                Ok(PemItem::Certificate(certificate)) => roots.push(certificate),
                Ok(_) => {}
                Err(_) => bail!("CA file {} is not PEM", path.display()),
            }
        }
        if roots.is_empty() {
            bail!("CA file {} has no certificate in it", path.display());
        }
        let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
        roots.extend(public.map(|certificate| Certificate::from_der(certificate).to_owned()));
        Ok(TrustedRoots(TlsConfig::builder().root_certs(RootCerts::from(roots)).build()))
    }

    /// Returns the configuration for ureq.
    pub(super) fn tls_config(&self) -> TlsConfig {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_adds_to_the_public_roots() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        let TrustedRoots(config) = TrustedRoots::with_ca_file(&path).unwrap();
        let RootCerts::Specific(roots) = config.root_certs() else { panic!("not a list of roots") };
        assert_eq!(roots.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len() + 1);
        assert!(roots.len() > 100, "the public roots are many");
        assert!(!config.disable_verification() && !TrustedRoots::public().0.disable_verification());
    }
}
