//! HTTPS: the certificate we show, whose certificates we ask for, and the stream after a handshake. Speaks no HTTP, and
//! no message of its holds a byte of a key.

use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
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
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::error::Exit;
use crate::log::error;
use crate::os::read::{self, MAX_PEM, Protection};

/// The first byte of whoever wants to speak TLS: that of a record with a handshake in it.
pub(crate) const HANDSHAKE: u8 = 0x16;

/// What a stranger is told before anything is spent on him: a record with the fatal alert `access_denied`, which TLS
/// clients of every version understand.
pub(crate) const ACCESS_DENIED: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x31];

/// The files that HTTPS is made of, as the user named them.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// What the flags mean together; `None` where there are none.
    pub(crate) fn given(
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

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca).cloned().collect()
    }
}

/// What is needed to speak TLS with a caller.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Reads the files, and lets the operator know if no client will trust what is in them now.
    pub(crate) fn read(files: &TlsFiles, now: UtcDateTime) -> anyhow::Result<Tls> {
        let provider = Arc::new(default_provider());
        let chain = certificates("--tls-cert", &files.cert)?;
        warn_of_validity(&files.cert, &chain[0], now, &provider);
        let identity = identity(files, chain, &provider)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates("--tls-client-ca", path)? {
                    roots.add(authority).map_err(|err| unfit("--tls-client-ca", path, err))?;
                }
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = verifier.build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|err| unfit("--tls-client-ca", path, err))?,
                )
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        // curl asks for 1.0 where it was told to.
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        // Whoever comes back brings what is needed to go on, and spares both sides the signature. The keys of tickets
        // are made anew with everything else: whom a new `--tls-client-ca` shuts out has no way round it.
        config.ticketer = Ticketer::new()?;
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Goes through the handshake; the socket comes back if it fails, with the caller told why.
    pub(crate) fn accept(
        &self,
        socket: TcpStream,
    ) -> impl Future<Output = Result<Secured, (io::Error, TcpStream)>> + use<> {
        let accept = self.acceptor.accept(socket).into_fallible();
        async { accept.await.map(Secured) }
    }
}

/// A stream after its handshake. When it is dropped, whatever for, the caller is told that nothing was cut off.
#[derive(Debug)]
pub(crate) struct Secured(TlsStream<TcpStream>);

impl Secured {
    pub(crate) fn stream(&mut self) -> Pin<&mut TlsStream<TcpStream>> {
        Pin::new(&mut self.0)
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        let (socket, session) = self.0.get_mut();
        session.send_close_notify();
        // As far as there is room: whoever does not read is not waited for.
        while session.wants_write() && session.write_tls(&mut Unwaited(socket)).is_ok_and(|n| n > 0)
        {
        }
    }
}

/// A socket that takes what there is room for now.
struct Unwaited<'a>(&'a TcpStream);

impl Write for Unwaited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a handshake failed, for the operator; `None` if the caller just went away.
pub(crate) fn failure(err: &io::Error) -> Option<String> {
    use AlertDescription as Alert;
    let err = err.get_ref()?.downcast_ref::<Error>()?;
    Some(match err {
        Error::NoCertificatesPresented => {
            "it showed no certificate, and --tls-client-ca asks for one".to_owned()
        }
        // Mostly what openssl makes where no extension is asked for.
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

/// The certificate and its key, which must belong together.
fn identity(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> anyhow::Result<CertifiedKey> {
    let path = files.key.display();
    let problem = |what: &str| Exit::Usage.error(format!("--tls-key {path} {what}"));
    let pem = read("--tls-key", &files.key, Protection::PrivateToGroup)?;
    // What a parser says of a key may hold some of it.
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
        Err(err) => Err(unfit("--tls-cert", &files.cert, err)),
    }
}

/// Clients refuse a certificate that has expired, or is not valid yet. It is shown all the same: who does not check is
/// served, and a clock that is wrong may be set.
fn warn_of_validity(
    path: &Path,
    certificate: &CertificateDer<'_>,
    now: UtcDateTime,
    provider: &CryptoProvider,
) {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return };
    let now = Duration::from_secs(now.unix_timestamp().try_into().unwrap_or_default());
    // Its time is checked before its issuer is looked for, and there is none to be found.
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
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| "a day far off".to_owned())
}

/// All certificates in a file: one at least, and each can be parsed.
fn certificates(flag: &str, path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = read(flag, path, Protection::Any)?;
    let problem = |what: &str| Exit::Usage.error(format!("{flag} {} {what}", path.display()));
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    // A key that was put here by mistake is in no message.
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

fn unfit(flag: &str, path: &Path, err: impl std::fmt::Display) -> anyhow::Error {
    Exit::Usage.error(format!("{flag} {} cannot be used: {err}", path.display()))
}
