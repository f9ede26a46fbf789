//! A certificate authority, and clients that trust it.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use super::servers::{Endpoint, Identity, connect};

/// The certificate authority that clients trust.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Authority {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    /// Issues a certificate for this key, and writes both to files.
    pub fn identity(&self, dir: &Path, name: &str, key: &KeyPair) -> Identity {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate");
        let [cert_file, key_file] = ["cert", "key"].map(|what| dir.join(format!("{name}.{what}")));
        fs::write(&cert_file, certificate.pem()).expect("a file");
        fs::write(&key_file, "").expect("a file");
        // wxtoken refuses a key that others can read.
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).expect("a mode");
        fs::write(&key_file, key.serialize_pem()).expect("a file");
        Identity { cert: cert_file, key: key_file }
    }

    /// Returns a client that supports only this version, and keeps tickets if it is to resume.
    pub fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        kind: HandshakeKind,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        if kind == HandshakeKind::Full {
            client.resumption = Resumption::disabled();
        }
        Arc::new(client)
    }
}

/// A connection with TLS.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Opens a connection. The handshake comes with what is sent first.
pub fn open(endpoint: &Endpoint, client: &Arc<ClientConfig>) -> TlsStream {
    let name = "localhost".try_into().expect("a name");
    let session = ClientConnection::new(Arc::clone(client), name).expect("a session");
    let socket = connect(endpoint.address);
    socket.set_nodelay(true).expect("a socket");
    StreamOwned::new(session, socket)
}
