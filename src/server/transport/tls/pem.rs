//! Reads PEM files that `serve` is given by flags. No message holds a byte of a key.

use std::fmt::Display;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ParsedCertificate;
use zeroize::Zeroizing;

use crate::error::Exit;
use crate::message::{Message, messages};
use crate::os::file::read::{self, MAX_PEM, Protection};

messages! {
    NEEDS_KEY<0> {
        "Give --tls-key.", "--tls-cert needs the certificate's private key";
        "请给出 --tls-key。", "--tls-cert 需要证书的私钥";
    }
    NEEDS_CERTIFICATE<0> {
        "Give --tls-cert.", "--tls-key needs the key's certificate";
        "请给出 --tls-cert。", "--tls-key 需要该私钥的证书";
    }
    NEEDS_IDENTITY<0> {
        "Give --tls-cert and --tls-key.", "--tls-client-ca needs a certificate of our own";
        "请给出 --tls-cert 与 --tls-key。", "--tls-client-ca 需要服务器自身的证书";
    }
    NO_PEM<2> {
        "Give the certificate as PEM.", "{0} {1} is not PEM, or is cut off";
        "请提供 PEM 格式的证书。", "{0} {1} 不是 PEM 格式，或内容不完整";
    }
    NO_CERTIFICATE<2> {
        "Give PEM with -----BEGIN CERTIFICATE-----.", "{0} {1} has no certificate in it";
        "请提供含 -----BEGIN CERTIFICATE----- 的 PEM。", "{0} {1} 中没有证书";
    }
    DAMAGED<3> {
        "Copy the certificate again.", "{0} {1} is damaged: its certificate number {2} cannot be parsed";
        "请重新复制证书。", "{0} {1} 已损坏：第 {2} 个证书无法解析";
    }
    UNUSABLE<2> {
        "Give another certificate.", "{0} {1} cannot be used";
        "请更换证书。", "{0} {1} 无法使用";
    }
    KEY_ENCRYPTED<1> {
        "Decrypt it with openssl pkey.", "--tls-key {0} is encrypted, and its passphrase cannot be typed here";
        "请用 openssl pkey 解密。", "--tls-key {0} 已加密，此处无法输入口令";
    }
    NO_KEY<1> {
        "Give PEM with -----BEGIN PRIVATE KEY-----.", "--tls-key {0} has no private key in it";
        "请提供含 -----BEGIN PRIVATE KEY----- 的 PEM。", "--tls-key {0} 中没有私钥";
    }
    KEY_UNUSABLE<1> {
        "Give a key of ECDSA (P-256, P-384), Ed25519 or RSA (2048 to 4096 bits).",
        "--tls-key {0} is damaged or of no kind that is spoken here";
        "请使用 ECDSA（P-256、P-384）、Ed25519 或 RSA（2048 至 4096 位）私钥。", "--tls-key {0} 已损坏，或类型不受支持";
    }
    KEY_OF_OTHER<2> {
        "Put the server's own certificate first in --tls-cert, or give its key.",
        "--tls-key {0} does not belong to the first certificate in --tls-cert {1}; the server's own comes first, its issuers' \
         after it";
        "请将服务器自身的证书放在 --tls-cert 的最前面，或提供其私钥。",
        "--tls-key {0} 与 --tls-cert {1} 中的第一个证书不匹配；应先放服务器证书，再放签发者证书";
    }
    EXPIRED<2> {
        "Renew it.", "the certificate in {0} has expired on {1}; clients will refuse it";
        "请更新证书。", "{0} 中的证书已于 {1} 到期，客户端会拒绝";
    }
    NOT_YET_VALID<2> {
        "Check this host's clock.", "the certificate in {0} is not valid before {1}; clients will refuse it";
        "请检查本机时间。", "{0} 中的证书在 {1} 之前无效，客户端会拒绝";
    }
    ENDS_SOON<2> {
        "Renew it before.", "the certificate in {0} expires on {1}, and clients will refuse it then";
        "请在此之前更新。", "{0} 中的证书将于 {1} 到期，届时客户端会拒绝";
    }
}

/// Reads all certificates of a file. Fails if there is none, or if one cannot be parsed.
pub(super) fn read_certificates(
    flag: &str,
    path: &Path,
    protection: Protection,
) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = read(flag, path, protection)?;
    let problem = |what: &Message<2>| Exit::Usage.error(what.with([&flag, &path.display()]));
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    // The error of the parser is dropped: it may quote a key that is in the wrong file.
    let certificates = certificates.map_err(|_| problem(&NO_PEM))?;
    if certificates.is_empty() {
        return Err(problem(&NO_CERTIFICATE));
    }
    match certificates.iter().position(|it| ParsedCertificate::try_from(it).is_err()) {
        Some(at) => {
            let values: [&dyn Display; 3] = [&flag, &path.display(), &(at + 1)];
            Err(Exit::Usage.error(DAMAGED.with(values)))
        }
        None => Ok(certificates),
    }
}

/// Reads a whole file.
pub(super) fn read(
    flag: &str,
    path: &Path,
    protection: Protection,
) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    read::read(path, protection, MAX_PEM).map_err(|err| {
        let name = format!("{flag} {}", path.display());
        Exit::Usage.error(read::cannot_read(&name, &err.to_string()))
    })
}

/// Returns the error of a file that can be read and not be used.
pub(super) fn unusable(flag: &str, path: &Path, err: impl Display) -> anyhow::Error {
    Exit::Usage.error(UNUSABLE.quoting([&flag, &path.display()], err))
}
