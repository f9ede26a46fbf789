//! Real TLS: an authority and the certificates it signs, a server in front of the mock that decrypts and passes on, and clients
//! that offer what a test chooses.

use std::io::{self, Write};
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

use super::proxy::{forward, read_request};
use super::{Caller, Sandbox, connect, write_with_mode};

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    name: String,
    pub(crate) pem: String,
}

/// A certificate and its key, both in PEM.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        // Clients distinguish authorities by their names.
        static AUTHORITIES: AtomicUsize = AtomicUsize::new(0);
        let number = AUTHORITIES.fetch_add(1, Ordering::Relaxed);
        Authority::named(format!("authority {number}"))
    }

    /// Returns another authority of the same name, as one is that was made anew.
    pub(crate) fn namesake(&self) -> Authority {
        Authority::named(self.name.clone())
    }

    fn named(name: String) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name.clone());
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), name, pem }
    }

    /// Signs a certificate for `localhost` and 127.0.0.1, with an ECDSA key.
    pub(crate) fn sign(&self) -> Identity {
        self.sign_for(&["localhost", "127.0.0.1"], |_| {})
    }

    /// Signs a certificate with this kind of key.
    pub(crate) fn sign_with(&self, kind: &'static SignatureAlgorithm) -> Identity {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        self.sign_params(params, KeyPair::generate_for(kind).unwrap())
    }

    /// Signs a certificate for these names, after `change`.
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

    /// Signs a certificate for clients.
    pub(crate) fn sign_client(&self) -> Identity {
        self.sign_for(&["client.test"], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    fn sign_params(&self, mut params: CertificateParams, key: KeyPair) -> Identity {
        params.distinguished_name.push(DnType::CommonName, "subject");
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { cert, key: key.serialize_pem() }
    }
}

impl Identity {
    /// Writes it to the files of [`Identity::flags`].
    pub(crate) fn write_to(&self, sandbox: &Sandbox) {
        write_with_mode(&sandbox.path("cert.pem"), &self.cert, 0o644);
        write_with_mode(&sandbox.path("key.pem"), &self.key, 0o600);
    }

    /// Returns the flags of a server that uses the identity in its sandbox.
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

/// A TLS client. Its connections share sessions.
pub(crate) struct TlsClient {
    config: ClientConfig,
}

pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl TlsClient {
    /// Returns a client that trusts `ca` and offers all versions and ciphers.
    pub(crate) fn trusting(ca: &Authority) -> TlsClient {
        TlsClient::offering(ca, rustls::ALL_VERSIONS, |_| true, None)
    }

    /// Returns a client that offers these versions of TLS and the ciphers for whose names `ciphers` returns true, and presents
    /// `identity` if it is asked for a certificate.
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

    /// Makes it offer these protocols by ALPN.
    pub(crate) fn with_alpn(mut self, protocols: &[&str]) -> TlsClient {
        self.config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        self
    }

    /// Makes it resume no session.
    pub(crate) fn without_resumption(mut self) -> TlsClient {
        self.config.resumption = Resumption::disabled();
        self
    }

    /// Returns a connection whose handshake has not begun.
    #[track_caller]
    pub(crate) fn over(&self, socket: TcpStream) -> TlsStream {
        let name = "localhost".try_into().unwrap();
        let session = ClientConnection::new(Arc::new(self.config.clone()), name).unwrap();
        StreamOwned::new(session, socket)
    }

    /// Returns a connection after its handshake, or why it failed.
    pub(crate) fn try_connect(&self, address: SocketAddr) -> io::Result<TlsStream> {
        let mut stream = self.over(connect(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    /// Returns a kept connection after its handshake.
    #[track_caller]
    pub(crate) fn caller(&self, address: SocketAddr) -> Caller<TlsStream> {
        Caller::new(self.try_connect(address).expect("a handshake"))
    }
}

/// A TLS server with a certificate of its own authority, in front of another server.
pub(crate) struct TlsFront {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    /// The certificate of another authority of that name.
    pub(crate) namesake_pem: String,
    /// How many handshakes have been completed.
    pub(crate) handshakes: Arc<AtomicUsize>,
}

impl TlsFront {
    /// Starts one with a certificate for `name` that passes requests on to `backend`.
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
        let namesake_pem = authority.namesake().pem;
        TlsFront { address, ca_pem: authority.pem, namesake_pem, handshakes }
    }
}

/// Answers one request: wxtoken's client keeps no connection.
fn pass_on(
    client: TcpStream,
    backend: SocketAddr,
    config: Arc<ServerConfig>,
    handshakes: &AtomicUsize,
) -> Option<()> {
    let mut tls = StreamOwned::new(ServerConnection::new(config).ok()?, client);
    let request = read_request(&mut tls)?;
    handshakes.fetch_add(1, Ordering::Relaxed);
    tls.write_all(&forward(&request, backend)?).ok()?;
    tls.conn.send_close_notify();
    tls.flush().ok()
}
