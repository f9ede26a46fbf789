//! TLS for the listener: reads certificates and keys, does the handshake, and wraps the stream after it. No message holds
//! a byte of a key.

use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig,
};
use time::UtcDateTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::error::Exit;
use crate::log::error;
use crate::model::document;
use crate::os::read::{self, MAX_PEM, Protection};

/// The first byte that a TLS client sends: the type of a record that holds a handshake message.
pub(super) const HANDSHAKE_RECORD: u8 = 0x16;

/// A record with the fatal alert `access_denied`, which TLS clients of every version understand without a handshake.
pub(super) const ACCESS_DENIED: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x31];

/// The files with the certificate, its key and the CAs of clients.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// Checks that the flags fit together. Returns `None` if none is given.
    pub(crate) fn from_flags(
        cert: Option<&Path>,
        key: Option<&Path>,
        client_ca: Option<&Path>,
    ) -> anyhow::Result<Option<TlsFiles>> {
        let missing = match (cert, key, client_ca) {
            (Some(cert), Some(key), client_ca) => {
                let [cert, key] = [cert, key].map(Path::to_owned);
                return Ok(Some(TlsFiles { cert, key, client_ca: client_ca.map(Path::to_owned) }));
            }
            (None, None, None) => return Ok(None),
            (Some(_), None, _) => "--tls-cert needs the certificate's private key: give --tls-key",
            (None, Some(_), _) => "--tls-key needs the key's certificate: give --tls-cert",
            (None, None, Some(_)) => {
                "--tls-client-ca needs a certificate of our own: give --tls-cert and --tls-key"
            }
        };
        Err(Exit::Usage.error(missing))
    }

    /// Returns the files that [`Tls::read`] reads.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca).cloned().collect()
    }
}

/// The configuration of TLS, made of [`TlsFiles`].
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Reads the files. Reports on stderr if the certificate is not valid at `now`.
    pub(crate) fn read(files: &TlsFiles, now: UtcDateTime) -> anyhow::Result<Tls> {
        let provider = Arc::new(default_provider());
        let chain = read_certificates("--tls-cert", &files.cert)?;
        report_validity(&files.cert, &chain[0], now, &provider);
        let identity = identity(files, chain, &provider)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in read_certificates("--tls-client-ca", path)? {
                    roots.add(authority).map_err(|err| unusable("--tls-client-ca", path, err))?;
                }
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = verifier.build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|err| unusable("--tls-client-ca", path, err))?,
                )
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        // curl --http1.0 offers http/1.0 only.
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        // Tickets let a client resume its session, without another signature. Their keys change with each reload, so a
        // client that a new `--tls-client-ca` shuts out cannot resume.
        config.ticketer = Ticketer::new()?;
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Does the handshake. If it fails, sends an alert and returns the socket with the error.
    pub(super) fn accept(
        &self,
        socket: TcpStream,
    ) -> impl Future<Output = Result<TlsServerStream, (io::Error, TcpStream)>> + use<> {
        let accept = self.acceptor.accept(socket).into_fallible();
        async { accept.await.map(TlsServerStream) }
    }
}

/// A stream after its handshake. Dropping it sends `close_notify`, so that the client knows that it has received
/// everything.
#[derive(Debug)]
pub(crate) struct TlsServerStream(TlsStream<TcpStream>);

impl TlsServerStream {
    pub(super) fn inner(&mut self) -> &mut TlsStream<TcpStream> {
        &mut self.0
    }
}

impl Drop for TlsServerStream {
    fn drop(&mut self) {
        let (socket, session) = self.0.get_mut();
        session.send_close_notify();
        // Drop cannot wait for a client that does not read: what does not fit into the socket's buffer is lost.
        let mut writer = NonBlockingWriter(socket);
        while session.wants_write() && session.write_tls(&mut writer).is_ok_and(|n| n > 0) {}
    }
}

/// Writes as much as the socket's buffer has room for.
struct NonBlockingWriter<'a>(&'a TcpStream);

impl Write for NonBlockingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says for the operator why a handshake failed. Returns `None` if the client just closed the connection.
pub(super) fn describe_failure(err: &io::Error) -> Option<String> {
    use AlertDescription as Alert;
    let err = err.get_ref()?.downcast_ref::<Error>()?;
    Some(match err {
        Error::NoCertificatesPresented => {
            "it showed no certificate, and --tls-client-ca asks for one".to_owned()
        }
        // Typically a certificate that openssl made without any extension.
        Error::InvalidCertificate(CertificateError::Other(why)) => {
            format!(
                "its certificate is not fit for a client ({why}); it must be of version 3, and no CA's own"
            )
        }
        Error::InvalidCertificate(why) => {
            format!("its certificate does not hold against --tls-client-ca: {why}")
        }
        Error::AlertReceived(
            alert @ (Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateUnknown),
        ) => format!(
            "it does not trust the certificate in --tls-cert ({alert:?}); is it still valid, for the name that is asked \
             for, and are its issuers' certificates behind it?"
        ),
        _ => err.to_string(),
    })
}

/// Reads the private key, and checks that it belongs to the certificate.
fn identity(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> anyhow::Result<CertifiedKey> {
    let path = files.key.display();
    let problem = |what: &str| Exit::Usage.error(format!("--tls-key {path} {what}"));
    let pem = read("--tls-key", &files.key, Protection::PrivateToGroup)?;
    // The error of the parser is dropped: it may quote the key.
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        if pem.windows(9).any(|word| word == b"ENCRYPTED") {
            problem("is encrypted, and nobody is here to type its passphrase: decrypt it with openssl pkey")
        } else {
            problem("has no private key in it; expected PEM with -----BEGIN PRIVATE KEY-----")
        }
    })?;
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        problem("is damaged or of no kind that is spoken here: ECDSA (P-256, P-384), Ed25519, RSA (2048 to 4096 bits)")
    })?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        Err(Error::InconsistentKeys(_)) => Err(problem(&format!(
            "does not belong to the first certificate in --tls-cert {}; the server's own comes first, its issuers' after \
             it",
            files.cert.display()
        ))),
        Err(err) => Err(unusable("--tls-cert", &files.cert, err)),
    }
}

/// Reports a certificate that has expired or is not valid yet. It is used all the same: the clock may be wrong, and there
/// are clients that do not check.
fn report_validity(
    path: &Path,
    certificate: &CertificateDer<'_>,
    now: UtcDateTime,
    provider: &CryptoProvider,
) {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return };
    let now = Duration::from_secs(now.unix_timestamp().try_into().unwrap_or_default());
    // The verifier checks the time first. After that it fails because there are no roots.
    let verified = verify_server_cert_signed_by_trust_anchor(
        &parsed,
        &RootCertStore::empty(),
        &[],
        UnixTime::since_unix_epoch(now),
        provider.signature_verification_algorithms.all,
    );
    let path = path.display();
    match verified {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            error!(
                "serve: the certificate in {path} has expired on {}; clients will refuse it: renew it",
                date(not_after)
            );
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) => {
            error!(
                "serve: the certificate in {path} is not valid before {}; clients will refuse it: is the clock right?",
                date(not_before)
            );
        }
        _ => {}
    }
}

fn date(time: UnixTime) -> String {
    let date = i64::try_from(time.as_secs()).ok();
    let date = date.and_then(|secs| UtcDateTime::from_unix_timestamp(secs).ok());
    date.map_or_else(|| "a day far off".to_owned(), document::rfc3339)
}

/// Reads all certificates of a file. Fails if there is none, or if one cannot be parsed.
fn read_certificates(flag: &str, path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = read(flag, path, Protection::Any)?;
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

fn read(flag: &str, path: &Path, protection: Protection) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    read::read(path, protection, MAX_PEM)
        .map_err(|err| Exit::Usage.error(format!("cannot read {flag} {}: {err}", path.display())))
}

fn unusable(flag: &str, path: &Path, err: impl std::fmt::Display) -> anyhow::Error {
    Exit::Usage.error(format!("{flag} {} cannot be used: {err}", path.display()))
}
