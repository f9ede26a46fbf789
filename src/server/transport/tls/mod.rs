//! TLS for the listener: does the handshake with what its parts have read, and wraps the stream after it. No message holds
//! a byte of a key.

mod client_cas;
mod identity;
mod pem;

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::NoClientAuth;
use rustls::{AlertDescription, CertificateError, Error, ServerConfig};
use time::UtcDateTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::client_cas::ClientCas;
pub(super) use self::client_cas::ClientCertificate;
use self::identity::ServerIdentity;
use crate::error::{Exit, both};
use crate::language::bilingual;
use crate::os::clock::Clock;
use crate::server::reload::{Make, Reloaded, WatchedFiles};
use crate::server::state::log_messages;
#[cfg(test)]
pub(crate) use pem::ALL as CERTIFICATE_MESSAGES;

/// The first byte that a TLS client sends: the type of a record that holds a handshake message.
pub(super) const HANDSHAKE_RECORD: u8 = 0x16;

/// A record with the fatal alert `access_denied`, which TLS clients of every version understand without a handshake.
pub(super) const ACCESS_DENIED: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x31];

/// A record with the fatal alert `internal_error`, which says nothing about the client. No alert says that a server is busy.
pub(super) const INTERNAL_ERROR: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x50];

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
            (Some(_), None, _) => &pem::NEEDS_KEY,
            (None, Some(_), _) => &pem::NEEDS_CERTIFICATE,
            (None, None, Some(_)) => &pem::NEEDS_IDENTITY,
        };
        Err(Exit::Usage.error(missing.text()))
    }
}

/// What handshakes are made with. Its parts are reloaded each by itself, so that a broken certificate holds back no change
/// of the clients' CAs.
pub(crate) struct Tls {
    identity: Reloaded<ServerIdentity>,
    /// `None` if clients need no certificate.
    client_cas: Option<Rc<Reloaded<ClientCas>>>,
    current: RefCell<Acceptor>,
}

/// What accepts handshakes, and the parts that it is made of.
struct Acceptor {
    identity: Rc<ServerIdentity>,
    client_cas: Option<Rc<ClientCas>>,
    acceptor: TlsAcceptor,
}

impl Acceptor {
    fn new(
        identity: Rc<ServerIdentity>,
        client_cas: Option<Rc<ClientCas>>,
    ) -> Result<Acceptor, Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?;
        let verifier = client_cas.as_ref().map(|cas| cas.verifier());
        let mut config = builder
            .with_client_cert_verifier(verifier.unwrap_or_else(|| Arc::new(NoClientAuth)))
            .with_cert_resolver(Arc::clone(&identity.certified_key) as _);
        // curl --http1.0 offers http/1.0 only.
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        // Tickets let a client resume its session, without another signature and without a look at its certificate, which
        // is judged at each request. Their keys change with each reload.
        config.ticketer = Ticketer::new()?;
        Ok(Acceptor { identity, client_cas, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

impl Tls {
    /// Reads the files. Reports on stderr if the certificate is not valid now.
    pub(crate) fn new(files: TlsFiles, clock: Arc<dyn Clock>) -> anyhow::Result<Tls> {
        let TlsFiles { cert, key, client_ca } = files;
        let identity =
            Reloaded::new(bilingual!("certificates", "证书"), move |files: &mut WatchedFiles| {
                [&cert, &key].into_iter().for_each(|path| files.add(path));
                let identity = ServerIdentity::read(&cert, &key, clock.now().wall)?;
                Ok(Box::new(|_: Option<&ServerIdentity>| identity) as Make<ServerIdentity>)
            });
        let client_cas = |path: PathBuf| {
            Reloaded::new(
                bilingual!("client CAs", "客户端 CA"),
                move |files: &mut WatchedFiles| {
                    files.add(&path);
                    let cas = ClientCas::read(&path)?;
                    Ok(Box::new(|_: Option<&ClientCas>| cas) as Make<ClientCas>)
                },
            )
        };
        let (identity, client_cas) = both(identity, client_ca.map(client_cas).transpose())?;
        let current = Acceptor::new(identity.get(), client_cas.as_ref().map(Reloaded::get))?;
        Ok(Tls { identity, client_cas: client_cas.map(Rc::new), current: RefCell::new(current) })
    }

    /// Reloads the server's certificate and its key if they have changed, or if that `is_requested`. Returns whether they are
    /// current.
    pub(crate) async fn update_identity(&self, is_requested: bool) -> bool {
        self.identity.update(is_requested).await
    }

    /// Returns when the server's certificate ends.
    pub(crate) fn certificate_end(&self) -> Option<UtcDateTime> {
        self.identity.get().ends
    }

    /// Does the same with the CAs of clients; `None` if clients need no certificate.
    pub(crate) async fn update_client_cas(&self, is_requested: bool) -> Option<bool> {
        Some(self.client_cas.as_ref()?.update(is_requested).await)
    }

    /// Returns what accepts handshakes now.
    fn acceptor(&self) -> Result<TlsAcceptor, Error> {
        let identity = self.identity.get();
        let client_cas = self.client_cas.as_ref().map(|cas| cas.get());
        let mut current = self.current.borrow_mut();
        let is_same =
            |one: &Option<Rc<ClientCas>>, other: &Option<Rc<ClientCas>>| match (one, other) {
                (Some(one), Some(other)) => Rc::ptr_eq(one, other),
                (one, other) => one.is_none() && other.is_none(),
            };
        if !Rc::ptr_eq(&current.identity, &identity) || !is_same(&current.client_cas, &client_cas) {
            *current = Acceptor::new(identity, client_cas)?;
        }
        Ok(current.acceptor.clone())
    }

    /// Does the handshake. If it fails, sends an alert and returns the socket with the error.
    pub(super) async fn accept(
        &self,
        socket: TcpStream,
    ) -> Result<TlsServerStream, (io::Error, TcpStream)> {
        let acceptor = match self.acceptor() {
            Ok(acceptor) => acceptor,
            Err(err) => return Err((io::Error::other(err), socket)),
        };
        let accepted = acceptor.accept(socket).into_fallible().await?;
        Ok(TlsServerStream(Rc::new(RefCell::new(Session(accepted)))))
    }

    /// Returns the client's certificate in a session, if clients need one.
    pub(super) fn client_certificate(&self, stream: &TlsServerStream) -> Option<ClientCertificate> {
        let client_cas = Rc::clone(self.client_cas.as_ref()?);
        Some(ClientCertificate::new(stream.clone(), client_cas))
    }
}

/// A stream after its handshake. It is shared with the judge of the client's certificate.
#[derive(Clone, Debug)]
pub(crate) struct TlsServerStream(Rc<RefCell<Session>>);

impl TlsServerStream {
    /// Calls `poll` with the stream itself.
    pub(super) fn with<R>(&self, poll: impl FnOnce(Pin<&mut TlsStream<TcpStream>>) -> R) -> R {
        poll(Pin::new(&mut self.0.borrow_mut().0))
    }
}

/// A session of TLS. Dropping it sends `close_notify`, so that the client knows that it has received everything.
#[derive(Debug)]
struct Session(TlsStream<TcpStream>);

impl Drop for Session {
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

/// Says for the operator why a handshake failed, and of which kind the reason is. Returns `None` if the client just closed the
/// connection.
pub(super) fn describe_failure(err: &io::Error) -> Option<(&'static str, String)> {
    use AlertDescription as Alert;
    let err = err.get_ref()?.downcast_ref::<Error>()?;
    Some(match err {
        Error::NoCertificatesPresented => {
            ("no certificate", log_messages::NO_CLIENT_CERTIFICATE.text())
        }
        // Typically a certificate that openssl made without any extension.
        Error::InvalidCertificate(CertificateError::Other(why)) => {
            ("unfit certificate", log_messages::UNFIT_CERTIFICATE.with([why]))
        }
        Error::InvalidCertificate(why) => {
            ("invalid certificate", log_messages::INVALID_CERTIFICATE.quoting([], why))
        }
        Error::AlertReceived(
            alert @ (Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateUnknown),
        ) => ("distrust", log_messages::DISTRUSTED.with([&format!("{alert:?}")])),
        _ => ("other", log_messages::NO_HANDSHAKE.quoting([], err)),
    })
}
