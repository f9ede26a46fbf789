//! Certificates and keys of `serve`, in PEM.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use rcgen::{CertificateParams, KeyPair};

use super::{Scratch, assert_tells_no_secret};
use crate::error::Exit;
use crate::os::clock::SystemClock;
use crate::server::{Tls, TlsFiles};

/// A certificate and its key that fit together.
static GOOD: LazyLock<(String, String)> = LazyLock::new(|| {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["token.example.com".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
});

thread_local! {
    static SCRATCH: Scratch = Scratch::new();
}

pub fn check(data: &[u8]) {
    SCRATCH.with(|scratch| {
        let given = scratch.write("given.pem", data);
        let cert = scratch.write("cert.pem", GOOD.0.as_bytes());
        let key = scratch.write("key.pem", GOOD.1.as_bytes());
        let read = |cert: &Path, key: &Path, ca: Option<&Path>| {
            let files = TlsFiles::from_flags(Some(cert), Some(key), ca).expect("all of them");
            let read = files.map(|files| Tls::new(files, Arc::new(SystemClock)));
            if let Some(Err(err)) = read {
                assert_eq!(Exit::from_error(&err), Exit::Usage);
                let message = format!("{err:#}");
                let of_scratch = scratch.0.display().to_string();
                assert!(message.contains(&of_scratch), "{message}: does not name the file");
                assert_tells_no_secret(&message.replace(&of_scratch, ""), data);
                return false;
            }
            true
        };
        assert!(read(&cert, &key, None), "the good pair is refused");
        let is_identity = read(&given, &given, None);
        let is_cert = read(&given, &key, None);
        let is_key = read(&cert, &given, None);
        let is_ca = read(&cert, &key, Some(&given));
        let has = |word: &str| data.windows(word.len()).any(|it| it == word.as_bytes());
        assert!(!(is_identity || is_cert || is_ca) || has("CERTIFICATE"));
        assert!(!(is_identity || is_key) || has("PRIVATE KEY"));
        // The input's own key may be that of the good certificate only if it is that key.
        assert!(!is_key || has(GOOD.1.lines().nth(1).unwrap_or_default()));
    });
}
