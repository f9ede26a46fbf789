//! What `wxtoken ca` prints: what it has made, and what clients need to trust it.

use std::path::Path;

use time::UtcDateTime;

use crate::language::Language;
use crate::os::local_time::local;

/// The settings of each runtime were tried with it, or are from its manual; docs/en/sdks.md has more about them.
const ENGLISH: &str = "\
@DIR/ca.pem: the CA, which can sign @HOSTS only, until @ENDS; the key of its root is gone
@CERTIFICATE
The next certificate, from cron:
  wxtoken ca --renew @DIR

Server, on port 443:
  wxtoken serve --tls-cert @DIR/cert.pem --tls-key @DIR/key.pem --listen ADDRESS:443 ...
Clients, in /etc/hosts; not on the server itself:
  ADDRESS @HOSTS

Clients trust a copy of ca.pem, here CA.
For the whole system, Debian and Ubuntu, then RHEL and Fedora:
  cp CA /usr/local/share/ca-certificates/wxtoken.crt && update-ca-certificates
  cp CA /etc/pki/ca-trust/source/anchors/wxtoken.pem && update-ca-trust
Where a runtime has roots of its own, or for one program:
  Node.js          NODE_EXTRA_CA_CERTS=CA
  Java             keytool -importcert -noprompt -alias wxtoken -file CA -cacerts -storepass changeit
  curl, Go, Ruby   SSL_CERT_FILE=BUNDLE
  Python requests  REQUESTS_CA_BUNDLE=BUNDLE
  PHP, in php.ini  openssl.cafile=BUNDLE and curl.cainfo=BUNDLE
These settings replace the system's roots, so BUNDLE is those and CA:
  cat /etc/ssl/certs/ca-certificates.crt CA > BUNDLE
";

const CHINESE: &str = "\
@DIR/ca.pem：CA，只能签发 @HOSTS，有效期至 @ENDS；根私钥已销毁
@CERTIFICATE
续期（可放入 cron）：
  wxtoken ca --renew @DIR

服务端，监听 443 端口：
  wxtoken serve --tls-cert @DIR/cert.pem --tls-key @DIR/key.pem --listen ADDRESS:443 ...
各客户端的 /etc/hosts（服务端本机不要加）：
  ADDRESS @HOSTS

各客户端信任 ca.pem 的副本（下称 CA）。
全系统生效，依次为 Debian、Ubuntu 与 RHEL、Fedora：
  cp CA /usr/local/share/ca-certificates/wxtoken.crt && update-ca-certificates
  cp CA /etc/pki/ca-trust/source/anchors/wxtoken.pem && update-ca-trust
自带根证书的运行时，或只对单个程序生效：
  Node.js          NODE_EXTRA_CA_CERTS=CA
  Java             keytool -importcert -noprompt -alias wxtoken -file CA -cacerts -storepass changeit
  curl、Go、Ruby   SSL_CERT_FILE=BUNDLE
  Python requests  REQUESTS_CA_BUNDLE=BUNDLE
  PHP（php.ini）   openssl.cafile=BUNDLE 和 curl.cainfo=BUNDLE
BUNDLE 是系统根证书与 CA 合并成的文件，因为这些设置会取代系统根证书：
  cat /etc/ssl/certs/ca-certificates.crt CA > BUNDLE
";

/// Returns the line about a server's certificate.
pub(super) fn certificate(path: &Path, ends: UtcDateTime) -> String {
    let (path, ends) = (path.display(), local(ends));
    match Language::of_process() {
        Language::Chinese => format!("{path}：服务器证书，有效期至 {ends}"),
        Language::English | Language::Both => {
            format!("{path}: the server's certificate, until {ends}")
        }
    }
}

/// Returns what there is to know about a new CA for these hosts, and about its first certificate.
pub(super) fn of_new_ca(
    directory: &Path,
    hosts: &[&str],
    ends: UtcDateTime,
    certificate_ends: UtcDateTime,
) -> String {
    let template = match Language::of_process() {
        Language::Chinese => CHINESE,
        Language::English | Language::Both => ENGLISH,
    };
    let certificate = certificate(&directory.join("cert.pem"), certificate_ends);
    template
        .replace("@CERTIFICATE", &certificate)
        .replace("@HOSTS", &hosts.join(" "))
        .replace("@ENDS", &local(ends))
        .replace("@DIR", &directory.display().to_string())
}
