//! Real TLS in front of the stand-in: an authority, a certificate, and a server that decrypts and passes on.
#![allow(dead_code, unreachable_pub)] // As in the vocabulary.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A TLS server with a certificate for `localhost`, and the authority that signed it.
pub struct TlsFront {
    pub address: SocketAddr,
    pub ca_pem: String,
    /// How many handshakes came to their end.
    pub handshakes: Arc<AtomicUsize>,
}

impl TlsFront {
    /// Passes what it decrypts on to `backend`. The certificate is for `name`.
    pub fn before(backend: SocketAddr, name: &str) -> TlsFront {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // By the same name as the certificate's, OpenSSL would take that for one that signed itself.
        ca.distinguished_name.push(DnType::CommonName, "the tests' authority");
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&ca, &ca_key);
        let certificate = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
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
        TlsFront { address, ca_pem, handshakes }
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
