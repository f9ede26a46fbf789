//! The certificates that upstream servers are verified against: Mozilla's roots, those of the system's CA store where the
//! environment names it, and those of a CA file.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow, bail};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use time::UtcDateTime;

use super::client::reasons;
use crate::log::printable;
use crate::message::{cannot, messages};
use crate::os::ca_store::{self, CaStore};
use crate::os::file::read::{self, MAX_PEM, Protection};
use crate::os::local_time::local;

/// What the names of the CAs that `wxtoken ca` makes begin with.
pub(crate) const OWN_CA: &str = "wxtoken CA";

/// Trusted root certificates, as the configuration of a TLS client. Servers are always verified. Cheap to clone.
///
/// The configuration is made when it is needed for the first time, and the system's CA store is read then: most runs of `fetch`
/// have nothing to ask.
#[derive(Clone)]
pub(crate) struct TrustedRoots(Arc<LazyRoots>);

struct LazyRoots {
    collect: Box<dyn Fn() -> Result<RootCertStore> + Send + Sync>,
    config: OnceLock<Arc<ClientConfig>>,
}

impl TrustedRoots {
    /// Returns Mozilla's roots alone.
    #[cfg(test)]
    pub(crate) fn public() -> TrustedRoots {
        TrustedRoots::new(|| Ok(beside_public(&[], &CaStore::default())))
    }

    /// Returns no roots, for connections without TLS: no server would be trusted.
    pub(crate) fn none() -> TrustedRoots {
        TrustedRoots::new(|| Ok(RootCertStore::empty()))
    }

    /// Returns Mozilla's roots and those of the system's CA store, which is read later.
    pub(crate) fn of_system() -> TrustedRoots {
        TrustedRoots::new(|| Ok(beside_public(&[], system()?)))
    }

    /// Returns the roots of [`TrustedRoots::of_system`] and the certificates in a CA file. Fails if the file has none.
    pub(crate) fn with_ca_file(path: &Path) -> Result<TrustedRoots> {
        let certificates = read_ca_file(path)?;
        Ok(TrustedRoots::new(move || Ok(beside_public(&certificates, system()?))))
    }

    fn new(collect: impl Fn() -> Result<RootCertStore> + Send + Sync + 'static) -> TrustedRoots {
        let (collect, config) = (Box::new(collect), OnceLock::new());
        TrustedRoots(Arc::new(LazyRoots { collect, config }))
    }

    /// Returns the configuration of a TLS client for single requests. Fails if the environment names a CA store that cannot be
    /// used.
    pub(super) fn client_config(&self) -> Result<Arc<ClientConfig>> {
        let LazyRoots { collect, config } = &*self.0;
        if let Some(config) = config.get() {
            return Ok(config.clone());
        }
        let mut made = ca_store::tls_client(collect()?).context(NO_TLS.text())?;
        // Requests are hours apart, and each verifies the server.
        made.resumption = Resumption::disabled();
        Ok(config.get_or_init(|| Arc::new(made)).clone())
    }

    /// Returns the configuration of a TLS client that speaks HTTP/1.1 over many connections. Fails alike.
    pub(super) fn pool_config(&self) -> Result<ClientConfig> {
        let mut config = ClientConfig::clone(&*self.client_config()?);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::default();
        Ok(config)
    }
}

/// Returns Mozilla's roots, `more` and those of `store`.
fn beside_public(more: &[CertificateDer<'static>], store: &CaStore) -> RootCertStore {
    let system = store.certificates.iter().filter(|it| !is_own_ca(it));
    ca_store::beside_public(more.iter().chain(system))
}

/// Whether `wxtoken ca` has made this certificate. It is for clients of `serve`: where a hosts file leads WeChat's hosts to a
/// wxtoken, that one must not take itself, or another one, for WeChat.
fn is_own_ca(der: &[u8]) -> bool {
    der.windows(OWN_CA.len()).any(|bytes| bytes == OWN_CA.as_bytes())
}

fn system() -> Result<&'static CaStore> {
    ca_store::of_system().map_err(|what| anyhow!(what))
}

messages! {
    NO_TLS<0> {
        "Please report it.", "no version of TLS";
        "请报告此问题。", "没有可用的 TLS 版本";
    }
    NOT_PEM<1> {
        "Give the CA's certificate as PEM.", "CA file {0} is not PEM";
        "请提供 PEM 格式的 CA 证书。", "CA 文件 {0} 不是 PEM 格式";
    }
    NO_CERTIFICATE<1> {
        "Give the CA's certificate (-----BEGIN CERTIFICATE-----).", "CA file {0} has no certificate in it";
        "请提供 CA 证书（-----BEGIN CERTIFICATE-----）。", "CA 文件 {0} 中没有证书";
    }
    OWN_CA_FILE<1> {
        "Leave it out here.",
        "CA file {0} is from `wxtoken ca`: clients of serve trust it, and not wxtoken itself, whose way leads to WeChat";
        "请勿在此指定。", "CA 文件 {0} 由 wxtoken ca 生成，供 serve 的客户端使用；wxtoken 自身直接访问微信";
    }
}

/// Reads the certificates of a CA file.
fn read_ca_file(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = match read::read(path, Protection::WritableByOwner, MAX_PEM) {
        Ok(pem) => pem,
        Err(err) => {
            return Err(err)
                .with_context(|| cannot("read CA file", "读取 CA 文件", path.display()));
        }
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let Ok(mut certificates) = certificates else { bail!(NOT_PEM.with([&path.display()])) };
    if certificates.is_empty() {
        bail!(NO_CERTIFICATE.with([&path.display()]));
    }
    certificates.retain(|it| !is_own_ca(it));
    match certificates.is_empty() {
        true => bail!(OWN_CA_FILE.with([&path.display()])),
        false => Ok(certificates),
    }
}

/// Whether the certificate names a CA that is trusted and did not sign it: a CA of the same name did, such as one that was
/// made anew.
pub(super) fn is_of_other_ca(err: &rustls::Error) -> bool {
    use rustls::CertificateError::{
        BadSignature, UnsupportedSignatureAlgorithmForPublicKeyContext,
    };
    matches!(
        err,
        rustls::Error::InvalidCertificate(
            BadSignature | UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        )
    )
}

/// Returns what rustls says, with dates where that has seconds since 1970.
pub(super) fn said_by_rustls(err: &rustls::Error) -> String {
    use rustls::CertificateError::{ExpiredContext, NotValidYetContext};
    let date = |time: &UnixTime| {
        let date = i64::try_from(time.as_secs()).ok();
        let date = date.and_then(|secs| UtcDateTime::from_unix_timestamp(secs).ok());
        date.map_or_else(|| reasons::FAR_OFF.with([]), local)
    };
    match err {
        rustls::Error::InvalidCertificate(ExpiredContext { time, not_after }) => {
            reasons::CERTIFICATE_ENDED.with([&date(not_after), &date(time)])
        }
        rustls::Error::InvalidCertificate(NotValidYetContext { time, not_before }) => {
            reasons::CERTIFICATE_BEGINS.with([&date(not_before), &date(time)])
        }
        err if is_of_other_ca(err) => reasons::OTHER_CA.with([]),
        err => printable(&err.to_string(), 200),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The certificate of an authority, in PEM and DER.
    fn authority() -> (String, Vec<u8>) {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        (certificate.pem(), certificate.der().to_vec())
    }

    #[test]
    fn a_ca_of_wxtokens_own_is_not_trusted() {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, format!("{OWN_CA} root 01234567"));
        let own = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, own.pem()).unwrap();
        let err = read_ca_file(&path).unwrap_err().to_string();
        assert!(err.contains("ca.pem is from `wxtoken ca`"), "{err}");
        std::fs::write(&path, own.pem() + &authority().0).unwrap();
        assert_eq!(read_ca_file(&path).unwrap().len(), 1);
        let store = CaStore { certificates: vec![own.der().clone()], ..CaStore::default() };
        let public = beside_public(&[], &CaStore::default());
        assert_eq!(beside_public(&[], &store).len(), public.len());
    }

    #[test]
    fn a_ca_file_and_the_systems_store_add_to_the_public_roots() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, authority().0).unwrap();
        let public = beside_public(&[], &CaStore::default()).len();
        assert!(public > 100, "the public roots are many");
        let certificates = vec![authority().1.into()];
        let store = CaStore { certificates, ..CaStore::default() };
        let of_file = read_ca_file(&path).unwrap();
        for (more, store, expected) in [
            (&*of_file, &CaStore::default(), 1),
            (&[], &store, 1),
            (&of_file, &store, 2),
            // Of the same authority, once.
            (&of_file, &CaStore { certificates: of_file.clone(), ..CaStore::default() }, 1),
        ] {
            assert_eq!(beside_public(more, store).len(), public + expected);
        }
    }
}
