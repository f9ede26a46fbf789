//! The CAs that sign clients' certificates, and the judgement of a certificate at each request. A handshake alone does not
//! suffice: a session that is resumed is not verified again, and a connection outlives changes of both.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error, RootCertStore};
use time::UtcDateTime;

use super::TlsServerStream;
use super::pem::{read_certificates, unusable};
use crate::os::file::read::Protection;
use crate::server::access::AccessError;
use crate::server::reload::Reloaded;

/// The CAs of clients.
pub(super) struct ClientCas(Arc<dyn ClientCertVerifier>);

impl ClientCas {
    pub(super) fn read(path: &Path) -> anyhow::Result<ClientCas> {
        let mut roots = RootCertStore::empty();
        // They decide which clients come in.
        for ca in read_certificates("--tls-client-ca", path, Protection::WritableByOwner)? {
            roots.add(ca).map_err(|err| unusable("--tls-client-ca", path, err))?;
        }
        let provider = Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build();
        Ok(ClientCas(verifier.map_err(|err| unusable("--tls-client-ca", path, err))?))
    }

    /// Returns the verifier for handshakes.
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.0)
    }

    /// Fails if the chain, which begins with the client's certificate, is not valid at `now`.
    fn verify(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
        now: UnixTime,
    ) -> Result<(), AccessError> {
        let Some([certificate, intermediates @ ..]) = chain else {
            return Err(AccessError::UntrustedCertificate);
        };
        match self.0.verify_client_cert(certificate, intermediates, now) {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => Err(AccessError::ExpiredCertificate),
            Err(Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => Err(AccessError::FutureCertificate),
            Err(_) => Err(AccessError::UntrustedCertificate),
        }
    }
}

/// The certificate that a client has shown on a connection.
pub(in crate::server::transport) struct ClientCertificate {
    stream: TlsServerStream,
    cas: Rc<Reloaded<ClientCas>>,
    last: RefCell<Option<Judgement>>,
}

/// What a certificate was found to be. It holds for the same CAs in the same second: certificates count seconds.
struct Judgement {
    cas: Rc<ClientCas>,
    at: UnixTime,
    result: Result<(), AccessError>,
}

impl ClientCertificate {
    pub(super) fn new(stream: TlsServerStream, cas: Rc<Reloaded<ClientCas>>) -> ClientCertificate {
        ClientCertificate { stream, cas, last: RefCell::default() }
    }

    /// Fails if the certificate is not valid at `now`, by the CAs of now.
    pub(in crate::server::transport) fn judge(&self, now: UtcDateTime) -> Result<(), AccessError> {
        let at = Duration::from_secs(now.unix_timestamp().try_into().unwrap_or_default());
        let (cas, at) = (self.cas.get(), UnixTime::since_unix_epoch(at));
        let mut last = self.last.borrow_mut();
        if let Some(last) = &*last
            && Rc::ptr_eq(&last.cas, &cas)
            && last.at == at
        {
            return last.result;
        }
        let result =
            self.stream.with(|stream| cas.verify(stream.get_ref().1.peer_certificates(), at));
        *last = Some(Judgement { cas, at, result });
        result
    }
}
