//! The server's own certificate and its private key. No message holds a byte of the key.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};
use time::UtcDateTime;

use super::pem::{self, read, read_certificates, unusable};
use crate::error::Exit;
use crate::log::error;
use crate::message::Message;
use crate::os::file::read::Protection;
use crate::os::local_time::local;

/// A certificate that ends within this time is reported.
const SOON: time::Duration = time::Duration::days(14);

/// An instant after the end of every certificate: X.509 has no year beyond 9999.
const END_OF_TIME: Duration = Duration::from_secs(253_402_300_800);

/// The server's certificate, with those of its issuers, and its private key.
pub(super) struct ServerIdentity {
    pub(super) certified_key: Arc<SingleCertAndKey>,
    /// When the certificate ends.
    pub(super) ends: Option<UtcDateTime>,
}

impl ServerIdentity {
    /// Reads both files. Reports on stderr if the certificate is not valid at `now`.
    pub(super) fn read(
        cert: &Path,
        key: &Path,
        now: UtcDateTime,
    ) -> anyhow::Result<ServerIdentity> {
        let provider = default_provider();
        let chain = read_certificates("--tls-cert", cert, Protection::NotPlanted)?;
        let ends = end_of(&chain[0], &provider);
        report_validity(cert, &chain[0], ends, now, &provider);
        let identity = certified_key(cert, key, chain, &provider)?;
        Ok(ServerIdentity { certified_key: Arc::new(SingleCertAndKey::from(identity)), ends })
    }
}

/// Reads the private key, and checks that it belongs to the certificate.
fn certified_key(
    cert: &Path,
    key_file: &Path,
    chain: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> anyhow::Result<CertifiedKey> {
    let path = key_file.display();
    let problem = |what: &Message<1>| Exit::Usage.error(what.with([&path]));
    let text = read("--tls-key", key_file, Protection::PrivateToGroup)?;
    // The error of the parser is dropped: it may quote the key.
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        if text.windows(9).any(|word| word == b"ENCRYPTED") {
            problem(&pem::KEY_ENCRYPTED)
        } else {
            problem(&pem::NO_KEY)
        }
    })?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|_| problem(&pem::KEY_UNUSABLE))?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        Err(Error::InconsistentKeys(_)) => {
            Err(Exit::Usage.error(pem::KEY_OF_OTHER.with([&path, &cert.display()])))
        }
        Err(err) => Err(unusable("--tls-cert", cert, err)),
    }
}

/// Returns what a verifier without roots says of a certificate at an instant. It checks the time first.
fn verdict_at(
    certificate: &CertificateDer<'_>,
    at: UnixTime,
    provider: &CryptoProvider,
) -> Result<(), Error> {
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(certificate)?,
        &RootCertStore::empty(),
        &[],
        at,
        provider.signature_verification_algorithms.all,
    )
}

/// Returns when a certificate ends.
fn end_of(certificate: &CertificateDer<'_>, provider: &CryptoProvider) -> Option<UtcDateTime> {
    match verdict_at(certificate, UnixTime::since_unix_epoch(END_OF_TIME), provider) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            let secs = i64::try_from(not_after.as_secs()).ok()?;
            UtcDateTime::from_unix_timestamp(secs).ok()
        }
        _ => None,
    }
}

/// Reports a certificate that has expired, will do so soon, or is not valid yet. It is used all the same: the clock may be
/// wrong, and there are clients that do not check.
fn report_validity(
    path: &Path,
    certificate: &CertificateDer<'_>,
    ends: Option<UtcDateTime>,
    now: UtcDateTime,
    provider: &CryptoProvider,
) {
    let at = Duration::from_secs(now.unix_timestamp().try_into().unwrap_or_default());
    let verdict = verdict_at(certificate, UnixTime::since_unix_epoch(at), provider);
    let path = path.display();
    match verdict {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            error!("serve: {}", pem::EXPIRED.with([&path, &date(not_after)]));
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) => {
            error!("serve: {}", pem::NOT_YET_VALID.with([&path, &date(not_before)]));
        }
        _ => match ends {
            Some(ends) if ends - now < SOON => {
                error!("serve: {}", pem::ENDS_SOON.with([&path, &local(ends)]));
            }
            _ => {}
        },
    }
}

fn date(time: UnixTime) -> String {
    let date = i64::try_from(time.as_secs()).ok();
    let date = date.and_then(|secs| UtcDateTime::from_unix_timestamp(secs).ok());
    date.map_or_else(|| "a day far off".to_owned(), local)
}
