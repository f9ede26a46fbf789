//! Real TLS: an authority and the certificates it signs, a server in front of the stand-in that decrypts and passes on,
//! and clients that offer what a test wants them to.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SignatureAlgorithm,
};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use crate::support::{Caller, Sandbox, connect, write_with_mode};

/// An authority of the test's own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Told apart by their names, as real ones are.
        static AUTHORITIES: AtomicUsize = AtomicUsize::new(0);
        let number = AUTHORITIES.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for `localhost` and 127.0.0.1, with the usual kind of key.
    pub(crate) fn sign(&self) -> Identity {
        self.sign_for(&["localhost", "127.0.0.1"], |_| {})
    }

    /// One with a key of this kind.
    pub(crate) fn sign_with(&self, kind: &'static SignatureAlgorithm) -> Identity {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        self.sign_params(params, KeyPair::generate_for(kind).unwrap())
    }

    /// One for these names, changed by `change`.
    pub(crate) fn sign_for(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        self.sign_params(params, KeyPair::generate().unwrap())
    }

    /// One that clients show.
    pub(crate) fn sign_client(&self) -> Identity {
        self.sign_for(&["client.test"], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    fn sign_params(&self, mut params: CertificateParams, key: KeyPair) -> Identity {
        params.distinguished_name.push(DnType::CommonName, "somebody");
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { cert, key: key.serialize_pem() }
    }
}

impl Identity {
    /// Puts it where [`Identity::flags`] say.
    pub(crate) fn put(&self, sandbox: &Sandbox) {
        write_with_mode(&sandbox.path("cert.pem"), &self.cert, 0o644);
        write_with_mode(&sandbox.path("key.pem"), &self.key, 0o600);
    }

    /// The flags of a server that has such an identity in its sandbox.
    pub(crate) fn flags(sandbox: &Sandbox) -> Vec<String> {
        let path = |name| sandbox.path(name).display().to_string();
        ["--tls-cert".to_owned(), path("cert.pem"), "--tls-key".to_owned(), path("key.pem")].into()
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.cert.as_bytes()).map(Result::unwrap).collect()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// A TLS client, with what it offers; its connections share what they need to be resumed.
pub(crate) struct TlsClient {
    config: ClientConfig,
}

pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl TlsClient {
    /// One that trusts `ca` and offers all it can.
    pub(crate) fn trusting(ca: &Authority) -> TlsClient {
        TlsClient::offering(ca, rustls::ALL_VERSIONS, |_| true, None)
    }

    /// One that offers these versions of TLS, and of the ciphers those whose names are chosen; and shows this
    /// certificate if it is asked for one.
    pub(crate) fn offering(
        ca: &Authority,
        versions: &[&'static SupportedProtocolVersion],
        ciphers: impl Fn(&str) -> bool,
        identity: Option<&Identity>,
    ) -> TlsClient {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
        let all = rustls::crypto::ring::default_provider();
        let chosen =
            |suite: &&rustls::SupportedCipherSuite| ciphers(&format!("{:?}", suite.suite()));
        let cipher_suites = all.cipher_suites.iter().filter(chosen).copied().collect();
        let provider = Arc::new(CryptoProvider { cipher_suites, ..all });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(it) => builder.with_client_auth_cert(it.chain(), it.private_key()).unwrap(),
        };
        TlsClient { config }
    }

    /// The same, which offers these protocols.
    pub(crate) fn speaking(mut self, protocols: &[&str]) -> TlsClient {
        self.config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        self
    }

    /// The same, which never comes back to a session.
    pub(crate) fn forgetful(mut self) -> TlsClient {
        self.config.resumption = Resumption::disabled();
        self
    }

    /// A connection whose handshake has not begun.
    #[track_caller]
    pub(crate) fn over(&self, socket: TcpStream) -> TlsStream {
        let name = "localhost".try_into().unwrap();
        let session = ClientConnection::new(Arc::new(self.config.clone()), name).unwrap();
        StreamOwned::new(session, socket)
    }

    /// A connection after its handshake; or why there is none.
    pub(crate) fn try_connect(&self, address: SocketAddr) -> io::Result<TlsStream> {
        let mut stream = self.over(connect(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    /// A connection after its handshake, which is kept.
    #[track_caller]
    pub(crate) fn caller(&self, address: SocketAddr) -> Caller<TlsStream> {
        Caller::over(self.try_connect(address).expect("a handshake"))
    }
}

/// A TLS server with a certificate of its own authority's.
pub(crate) struct TlsFront {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    /// How many handshakes came to their end.
    pub(crate) handshakes: Arc<AtomicUsize>,
}

impl TlsFront {
    /// Passes what it decrypts on to `backend`. The certificate is for `name`.
    pub(crate) fn before(backend: SocketAddr, name: &str) -> TlsFront {
        let authority = Authority::new();
        let identity = authority.sign_for(&[name], |_| {});
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain(), identity.private_key())
            .unwrap();
        let config = Arc::new(config);

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handshakes = Arc::new(AtomicUsize::new(0));
        let counter = handshakes.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (config, counter) = (config.clone(), counter.clone());
                std::thread::spawn(move || pass_on(client, backend, config, &counter));
            }
        });
        TlsFront { address, ca_pem: authority.pem, handshakes }
    }
}
/// One request, one answer: wxtoken's client keeps no connection.
fn pass_on(
    client: TcpStream,
    backend: SocketAddr,
    config: Arc<ServerConfig>,
    handshakes: &AtomicUsize,
) -> Option<()> {
    let mut tls = StreamOwned::new(ServerConnection::new(config).ok()?, client);
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&request) {
        let read = tls.read(&mut buffer).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&buffer[..read]);
    }
    handshakes.fetch_add(1, Ordering::Relaxed);
    let request = String::from_utf8(request).ok()?.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let mut backend = TcpStream::connect(backend).ok()?;
    backend.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    backend.read_to_end(&mut answer).ok()?;
    tls.write_all(&answer).ok()?;
    tls.conn.send_close_notify();
    tls.flush().ok()
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}
